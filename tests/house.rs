//! The rules of the house: which crate may know which, what the domain may use, what the sources look like (`house/rooms.rs`),
//! and that what is deployed names only metrics and settings that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::workspace;

#[path = "house/processes.rs"]
mod processes;
#[path = "house/rooms.rs"]
mod rooms;

/// For each crate, the workspace crates that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("schemas", &["domain"]),
    ("tasks", &[]),
    ("tlog", &[]),
    ("event-store", &["domain", "schemas", "tasks", "tlog"]),
    ("read-models", &["domain", "schemas", "event-store", "tlog"]),
    ("tokens", &["domain", "event-store"]),
    ("http-kit", &["domain", "schemas", "event-store", "tokens"]),
    ("dispatcher", &["domain", "schemas", "event-store", "http-kit"]),
    ("effects", &["domain", "schemas", "tasks", "event-store", "tokens", "http-kit", "dispatcher"]),
    (
        "command-service",
        &["domain", "schemas", "tasks", "event-store", "tokens", "http-kit", "dispatcher", "effects"],
    ),
    (
        "projection-service",
        &["domain", "schemas", "tasks", "event-store", "read-models", "tlog", "tokens", "http-kit"],
    ),
    (
        "watchword",
        &[
            "domain",
            "schemas",
            "tasks",
            "event-store",
            "read-models",
            "tokens",
            "http-kit",
            "dispatcher",
            "effects",
            "command-service",
            "projection-service",
            "tlog",
        ],
    ),
    ("test-services", &[]),
    ("tests", &["test-services"]),
    ("load-cluster", &["domain", "schemas", "event-store", "test-services", "tests"]),
];

/// What the domain may use: nothing here does I/O, reads the clock or makes random numbers.
const DOMAIN_MAY_USE: &[&str] = &[
    "cqrs-es",
    "idna",
    "jiff",
    "schemars",
    "secrecy",
    "serde",
    "serde_json",
    "smol_str",
    "thiserror",
    "unicode-normalization",
    "url",
    "uuid",
];

/// The packages of the workspace, from cargo's metadata.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    list(&metadata["packages"]).clone()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// The dependencies of each crate of the workspace, without those that only its tests use.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let used = |package: &Value| {
        list(&package["dependencies"]).iter().filter(|it| it["kind"] != "dev").map(name).collect()
    };
    packages().iter().map(|package| (name(package), used(package))).collect()
}

#[test]
fn crates_know_only_those_they_may() {
    let dependencies = dependencies();
    let members: BTreeSet<&String> = dependencies.keys().collect();
    let listed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for (package, used) in &dependencies {
        let allowed =
            listed.get(package.as_str()).unwrap_or_else(|| panic!("{package} has no place in ARROWS"));
        for other in used.iter().filter(|it| members.contains(it)) {
            assert!(allowed.contains(&other.as_str()), "{package} must not know {other}");
        }
    }
}

#[test]
fn the_domain_is_pure() {
    for used in &dependencies()["domain"] {
        assert!(DOMAIN_MAY_USE.contains(&used.as_str()), "the domain must not use {used}");
    }
}

/// Without the feature, which nothing enables by default, the fail points do nothing.
#[test]
fn marks_to_fail_at_are_for_tests_only() {
    for package in packages() {
        for used in list(&package["dependencies"]).iter().filter(|it| it["name"] == "fail") {
            assert_eq!(used["features"], json!([]), "{}", package["name"]);
        }
        for (feature, turns_on) in package["features"].as_object().expect("an object") {
            let arms = list(turns_on).iter().any(|it| it.as_str().is_some_and(|it| it.contains("fail")));
            assert_eq!(arms, package["name"] == "watchword" && feature == "fail-points", "{feature}");
        }
    }
    for (path, text) in files(&workspace().join("deploy"), "") {
        assert!(!text.contains("fail-points"), "{} is no place for tests", path.display());
    }
}

/// What a pool needs so that none of its tasks runs away stands in one place.
#[test]
fn pools_are_made_in_one_place() {
    let makes = |(path, text): &(PathBuf, String)| {
        text.contains("PoolOptions::new") && !path.ends_with("event-store/src/pools.rs")
    };
    let others: Vec<PathBuf> = files(workspace(), ".rs").into_iter().filter(makes).map(|it| it.0).collect();
    assert_eq!(others, [workspace().join("tests/house.rs")], "pools are made with event_store::pools");
}

/// The text of every file below a folder whose name has this suffix.
fn files(folder: &Path, suffix: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "target" | ".git" | "venv" | "__pycache__") {
            found.extend(files(&path, suffix));
        } else if path.is_file() && name.ends_with(suffix) {
            found.push((path.clone(), fs::read_to_string(&path).expect("text")));
        }
    }
    found
}

/// The `PromQL` expressions of the alert rules and the dashboard.
fn expressions() -> Vec<String> {
    fn of_panels(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("expr").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| of_panels(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| of_panels(value, found)),
            _ => {}
        }
    }
    let deploy = workspace().join("deploy");
    let rules = fs::read_to_string(deploy.join("prometheus/alerts.yaml")).expect("there are rules");
    let mut found: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    assert_eq!(found.len(), rules.matches("- alert:").count(), "each rule has its expression on one line");
    let dashboard = fs::read_to_string(deploy.join("grafana/watchword.json")).expect("there is a dashboard");
    of_panels(&serde_json::from_str(&dashboard).expect("JSON"), &mut found);
    found
}

/// The names of the metrics in a `PromQL` expression: all words except labels and keywords.
fn metric_names(expression: &str) -> BTreeSet<String> {
    const LANGUAGE: &[&str] = &["and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset"];
    let mut bare = String::new();
    let mut depth = 0;
    for character in expression.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => bare.push(character),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
        let end = rest[start..].find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'));
        let end = end.map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        rest = rest[end..].trim_start();
        let opens = rest.starts_with('(');
        if LANGUAGE.contains(&word) {
            // Its labels, if any.
            let list = if opens { rest.find(')').expect("a list of labels ends") } else { 0 };
            rest = &rest[list..];
        } else if !opens
            && !rest.starts_with("by ")
            && !rest.starts_with("without ")
            && !word.starts_with(|c: char| c.is_ascii_digit())
        {
            names.insert(word.to_owned());
        }
    }
    names
}

#[test]
fn metric_names_are_told_from_the_rest_of_an_expression() {
    let names = |expression: &str| metric_names(expression).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names("up == 0"), "up");
    assert_eq!(names(r#"sum by (le, job) (rate(a_total{b="c",d!~"e{2}"}[5m])) > 0.5"#), "a_total");
    assert_eq!(names("a > 0 unless on () max by (x) (b_c)"), "a b_c");
    assert_eq!(names("topk(10, sum(a)) / ignoring (x) b or vector(0)"), "a b");
}

/// The names of all metrics in the code.
fn counted() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (package, _) in ARROWS.iter().filter(|(package, _)| workspace().join(package).join("src").is_dir()) {
        for (_, text) in files(&workspace().join(package).join("src"), ".rs") {
            for macro_call in ["counter!(", "gauge!(", "histogram!("] {
                let calls =
                    text.match_indices(macro_call).map(|(at, _)| text[at + macro_call.len()..].trim_start());
                let literals = calls.filter_map(|call| call.strip_prefix('"')?.split_once('"'));
                names.extend(literals.map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}

#[test]
fn deploy_watches_only_metrics_that_there_are() {
    let counted = counted();
    let names: BTreeSet<String> = expressions().iter().flat_map(|it| metric_names(it)).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names.iter().filter(|name| *name != "up") {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let is_counted = counted.contains(name) || of_histogram.is_some_and(|it| counted.contains(it));
        assert!(is_counted, "nothing counts {name}");
    }
}

#[test]
fn every_metric_is_in_the_table_for_operators() {
    let manual = fs::read_to_string(workspace().join("deploy/README.md")).expect("there is a manual");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let kinds = ["counter |", "gauge |", "histogram |"];
    let listed: BTreeSet<String> = rows
        .filter(|(_, rest)| kinds.iter().any(|kind| rest.starts_with(kind)))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(listed, counted());
}

#[test]
fn deploy_sets_only_variables_that_there_are() {
    let output =
        Command::new(tests::binary()).args(["doctor", "--keys", "--json"]).output().expect("it runs");
    let keys: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let known: BTreeSet<String> = keys
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|key| [&key["variable"], &key["file_variable"]])
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let mut found = 0;
    for (path, text) in files(&workspace().join("deploy"), "") {
        for (at, _) in text.match_indices("WATCHWORD_") {
            let before = text[..at].chars().next_back();
            let word: String = text[at..]
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || *c == '_' || c.is_ascii_digit())
                .collect();
            let is_part = before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            // The image is the container tool's, not ours.
            if is_part || word.ends_with('_') || word == "WATCHWORD_IMAGE" {
                continue;
            }
            assert!(known.contains(&word), "{}: there is no {word}", path.display());
            found += 1;
        }
    }
    assert!(found > 10);
}
