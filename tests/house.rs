//! The rules of the house: which crate may know which, and what the domain may use.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tests::workspace;

/// For each crate, the workspace crates it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("schemas", &["domain"]),
    ("event-store", &["domain", "schemas"]),
    ("read-models", &["domain", "schemas", "event-store"]),
    ("http-kit", &["domain", "schemas", "event-store"]),
    ("command-service", &["domain", "schemas", "event-store", "read-models", "http-kit"]),
    ("projection-service", &["domain", "schemas", "event-store", "read-models", "http-kit"]),
    (
        "watchword",
        &[
            "domain",
            "schemas",
            "event-store",
            "read-models",
            "http-kit",
            "command-service",
            "projection-service",
        ],
    ),
    ("test-services", &[]),
    ("tests", &["test-services"]),
];

/// What the domain may use: nothing here does I/O, tells the time or makes random numbers.
const DOMAIN_MAY_USE: &[&str] = &[
    "cqrs-es",
    "idna",
    "jiff",
    "schemars",
    "secrecy",
    "serde",
    "serde_json",
    "thiserror",
    "unicode-normalization",
    "url",
    "uuid",
];

/// Of each crate of the workspace: what it depends on, leaving out what only its own tests use.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(workspace())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let used = list(&package["dependencies"]);
            (name(package), used.iter().filter(|it| it["kind"] != "dev").map(name).collect())
        })
        .collect()
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
