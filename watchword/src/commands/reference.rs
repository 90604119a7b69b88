//! `reference`: a page with every setting, permission, event, problem and claim, generated from the code.

use clap::Args;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use domain::{AppSettings, Permission};
use schemas::problems::REGISTRY;
use serde_json::Value;
use tokens::AccessClaims;

use super::{Globals, Run};
use crate::config::{KEYS, from_files, variable};
use crate::openapi::{Direction, schema_with_parts};

/// Print a page with every setting, permission, event, problem and claim
#[derive(Debug, Args)]
pub struct Reference {}

impl Run for Reference {
    fn run(self, _: &Globals) -> anyhow::Result<ExitCode> {
        write!(std::io::stdout(), "{}", page())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page() -> String {
    let mut page =
        "# Reference\n\nGenerated from the code by `watchword reference`. Do not edit.\n".to_owned();
    settings(&mut page);
    configuration(&mut page);
    permissions(&mut page);
    events(&mut page);
    problems(&mut page);
    claims(&mut page);
    page
}

fn heading(page: &mut String, title: &str, text: &str, columns: &[&str]) {
    let rule = "|---".repeat(columns.len());
    let _ = write!(page, "\n## {title}\n\n{text}\n\n| {} |\n{rule}|\n", columns.join(" | "));
}

/// A row of a table. A cell is one line, and `|` is escaped.
fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn settings(page: &mut String) {
    heading(
        page,
        "Settings of an app",
        "Members of `settings` in `POST /v1/apps` and `PATCH /v1/apps/{app_id}`. In a PATCH, `\"\"` removes \
         what a setting may lack, and in `application/merge-patch+json` `null` restores a default.",
        &["setting", "default", "values", "meaning"],
    );
    let (schema, parts) = schema_with_parts::<AppSettings>(Direction::Out);
    let defaults = serde_json::to_value(AppSettings::default()).unwrap_or_default();
    rows_of(page, "", &schema, &parts, &defaults);
}

/// A row per member; an object is replaced by its members.
fn rows_of(page: &mut String, prefix: &str, schema: &Value, parts: &Value, defaults: &Value) {
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        // `null` shows that it is not set, and is nothing that a request can set.
        let choices = member["anyOf"].as_array().into_iter().flatten();
        let set = choices.into_iter().find(|choice| choice["type"] != "null").unwrap_or(member);
        let part = part_of(set, parts);
        let default = defaults.get(name).unwrap_or(&Value::Null);
        if part["type"] == "object" {
            rows_of(page, &format!("{prefix}{name}."), part, parts, default);
            continue;
        }
        let default = if default.is_null() { "none".to_owned() } else { format!("`{default}`") };
        let text = member["description"].as_str().or(part["description"].as_str()).unwrap_or_default();
        row(page, &[&format!("`{prefix}{name}`"), &default, &values_of(member, part, parts), text]);
    }
}

/// The schema that a reference points to; the schema itself if it is not a reference.
fn part_of<'a>(schema: &'a Value, parts: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|target| target.rsplit('/').next());
    target.map_or(schema, |name| &parts[name])
}

fn values_of(member: &Value, part: &Value, parts: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(values) = part["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", text(value))).collect::<Vec<_>>().join(", ");
    }
    let kind = match &part["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        kind => text(kind),
    };
    match (member.get("minimum"), member.get("maximum")) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ if kind == "array" => {
            let of = part_of(&part["items"], parts);
            of["description"].as_str().map_or("a list".to_owned(), |text| format!("a list: {text}"))
        }
        _ => kind,
    }
}

fn configuration(page: &mut String) {
    heading(
        page,
        "Configuration of a deployment",
        &format!(
            "Keys of `watchword.toml`; an environment variable overrides the file. Each of {} can come from a file of its own: \
             the variable with `_FILE` at its end, or the key with `_file`, names it. Only its owner, or its owner and a group, \
             may be able to read that file.",
            from_files().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
        ),
        &["key", "variable", "default", "meaning"],
    );
    for key in KEYS {
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        row(page, &[&format!("`{}`", key.name), &format!("`{}`", variable(key.name)), &default, key.meaning]);
    }
}

fn permissions(page: &mut String) {
    heading(
        page,
        "Permissions of an API key",
        "An app's key has some of these; a platform key has only `platform`.",
        &["permission", "allows"],
    );
    let (schema, _) = schema_with_parts::<Permission>(Direction::Out);
    let lines = schema["description"].as_str().unwrap_or_default().lines();
    for (name, text) in lines.filter_map(|line| line.strip_prefix("- `")?.split_once("`: ")) {
        row(page, &[&format!("`{name}`"), text]);
    }
}

fn events(page: &mut String) {
    heading(
        page,
        "Events",
        "Each is a CloudEvent; these are the members of its `data`. Personal data is sealed in `personal`.",
        &["event", "stream", "members", "what happened"],
    );
    for (path, schema) in schemas::event_schemas::all() {
        let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let stream = path.split('/').nth(1).unwrap_or_default();
        let members = schema["properties"].as_object().into_iter().flatten();
        let members = members.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let text = schema["description"].as_str().unwrap_or_default();
        row(page, &[&format!("[`{name}`](../schemas/{path})"), &format!("`{stream}`"), &members, text]);
    }
}

fn problems(page: &mut String) {
    heading(
        page,
        "Problems",
        "The `code` of a problem (RFC 9457), always with the same status. `/problems/<code>` explains it.",
        &["code", "status", "title", "explanation"],
    );
    for kind in REGISTRY {
        row(page, &[&format!("`{}`", kind.code), &kind.status.to_string(), kind.title, kind.explanation]);
    }
}

fn claims(page: &mut String) {
    heading(
        page,
        "Claims of an access token",
        "A JWT of the type `at+jwt` (RFC 9068). Its header names `alg` and `kid`; the key is in the app's JWKS.",
        &["claim", "always present", "meaning"],
    );
    let (schema, parts) = schema_with_parts::<AccessClaims>(Direction::Out);
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let is_required =
            schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
        let text = member["description"].as_str().or(part_of(member, &parts)["description"].as_str());
        row(page, &[&format!("`{name}`"), if is_required { "yes" } else { "no" }, text.unwrap_or_default()]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE=1` writes it.
    #[test]
    fn the_committed_reference_is_the_generated_one() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference.md");
        if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
            std::fs::write(&file, page()).expect("writable");
        } else {
            let committed = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(
                committed == page(),
                "docs/reference.md is out of date: run the tests with UPDATE=1 and commit it"
            );
        }
    }

    #[test]
    fn nothing_is_missing_and_no_cell_is_empty() {
        let page = page();
        for permission in Permission::OF_AN_APP {
            let name = serde_json::to_value(permission).expect("JSON");
            assert!(page.contains(&format!("| `{}` |", name.as_str().expect("text"))), "{name}");
        }
        let defaults = serde_json::to_value(AppSettings::default()).expect("JSON");
        for name in defaults.as_object().expect("an object").keys() {
            assert!(
                page.contains(&format!("| `{name}` |")) || page.contains(&format!("| `{name}.")),
                "{name}"
            );
        }
        for key in KEYS {
            assert!(page.contains(&format!("| `{}` |", key.name)), "{}", key.name);
        }
        for claim in ["iss", "sub", "aud", "exp", "sid", "roles"] {
            assert!(page.contains(&format!("| `{claim}` |")), "{claim}");
        }
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert!(!line.contains("|  |"), "{line}");
        }
    }
}
