//! The committed schemas: generated, complete, and only ever changed in ways that do not break consumers.
//!
//! `UPDATE=1` writes them, unless the change would break consumers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use domain::{Event, LogOrigin};
use schemas::encode;
use schemas::event_schemas::{self, Document, breaking_changes};
use serde_json::{Value, json};

use crate::{pretty, samples, update};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn committed(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("a committed schema is JSON"))
}

#[test]
fn committed_schemas_are_the_generated_ones() {
    for (path, schema) in event_schemas::all() {
        let file = root().join(&path);
        let old = committed(&file);
        if let Some(old) = &old {
            let findings = breaking_changes(old, &schema);
            assert!(
                findings.is_empty(),
                "{path} would break consumers: {findings:#?}\nMake a new version of the event, with an upcaster."
            );
        }
        if update() {
            fs::create_dir_all(file.parent().expect("in a folder")).expect("writable");
            fs::write(&file, pretty(&Document::new(&schema, None))).expect("writable");
        } else {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let generated = pretty(&Document::new(&schema, None));
            assert!(text == generated, "{path} is out of date: run the tests with UPDATE=1 and commit it");
        }
    }
}

#[test]
fn no_committed_schema_is_orphaned() {
    let known = event_schemas::all();
    for aggregate in fs::read_dir(root().join("events")).expect("there are schemas") {
        for file in fs::read_dir(aggregate.expect("readable").path()).expect("a folder") {
            let file = file.expect("readable").path();
            let path = file.strip_prefix(root()).expect("within").to_str().expect("ASCII");
            assert!(known.contains_key(path), "{path} is promised, but the code no longer knows it");
        }
    }
}

#[test]
fn every_event_has_a_schema_and_a_sample_with_all_its_members() {
    let known = event_schemas::all();
    let mut sampled = BTreeSet::new();
    for (stream, event) in samples::all() {
        let encoded = encode(&event);
        let path = event_schemas::path(stream.aggregate(), encoded.name, encoded.schema_version);
        let schema = known.get(&path).unwrap_or_else(|| panic!("{path} has no schema"));
        let data: Value = serde_json::from_str(&encoded.data).expect("JSON");
        let names = |object: &Value| -> BTreeSet<String> {
            object.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&data), names(&schema["properties"]), "{path}");
        assert_eq!(event.personal().is_some(), encoded.personal.is_some(), "{path}");
        assert!(sampled.insert(path), "{} is declared twice", event.name());
    }
    let kinds: usize = Event::KINDS.iter().map(|(_, kinds)| kinds.len()).sum();
    assert_eq!(sampled.len(), kinds);
}

#[test]
fn no_schema_speaks_of_the_personal_part() {
    for (path, schema) in event_schemas::all() {
        let text = schema.to_string();
        for word in ["\"personal\"", "Personal\"", "PasswordHash", "password_hash", "\"email\""] {
            assert!(!text.contains(word), "{path}: {word}");
        }
        assert_eq!(schema["$id"], format!("/schemas/{path}"));
    }
}

/// Two things strict readers reject: an `$id` that is late or relative, and a reference inside a definition.
#[test]
fn strict_readers_can_load_every_schema() {
    let origin = LogOrigin::parse("https://login.example.com/auth").expect("an origin");
    for (path, schema) in event_schemas::all() {
        let text = serde_json::to_string(&Document::new(&schema, Some(&origin))).expect("JSON");
        let start = format!(
            r#"{{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"{origin}/schemas/{path}","#
        );
        assert!(text.starts_with(&start), "{path}: {text}");
        let definitions = schema.get("$defs").map(Value::to_string).unwrap_or_default();
        assert!(!definitions.contains("$ref"), "{path}: {definitions}");
        let relative = serde_json::to_string(&Document::new(&schema, None)).expect("JSON");
        assert!(relative.contains(&format!(r#""$id":"/schemas/{path}","#)), "{path}: {relative}");
    }
}

fn base() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "count": { "type": "integer" },
            "note": { "type": ["string", "null"] },
            "method": { "$ref": "#/$defs/Method" },
            "settings": { "$ref": "#/$defs/Settings" },
            "tags": { "type": "array", "items": { "type": "string" } }
        },
        "required": ["id", "method"],
        "$defs": {
            "Method": { "oneOf": [{ "type": "string", "const": "password" }, { "type": "string", "const": "admin" }] },
            "Settings": {
                "type": "object",
                "properties": { "ttl": { "type": "integer" }, "mode": { "type": "string", "enum": ["a", "b"] } },
                "required": ["ttl"]
            }
        }
    })
}

/// The findings after `pointer` was set to `value`, or removed.
fn after(pointer: &str, value: Option<Value>) -> Vec<String> {
    let old = base();
    let mut new = base();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = new.pointer_mut(parent).expect("there");
    match (parent, value) {
        (Value::Object(members), Some(value)) => drop(members.insert(name.to_owned(), value)),
        (Value::Object(members), None) => drop(members.remove(name).expect("there")),
        (Value::Array(values), Some(value)) => values.push(value),
        (Value::Array(values), None) => drop(values.remove(name.parse().expect("an index"))),
        _ => unreachable!("a pointer into an object or an array"),
    }
    breaking_changes(&old, &new)
}

#[test]
fn growing_breaks_nobody() {
    assert_eq!(breaking_changes(&base(), &base()), Vec::<String>::new());
    for (pointer, value) in [
        ("/properties/extra", json!({ "type": "string" })),
        ("/description", json!("told better")),
        ("/$defs/Settings/properties/extra", json!({ "type": "boolean" })),
        ("/$defs/Method/oneOf/-", json!({ "type": "string", "const": "magic_link" })),
        ("/$defs/Settings/properties/mode/enum/-", json!("c")),
        ("/$defs/Settings/properties/ttl/maximum", json!(10)),
    ] {
        assert_eq!(after(pointer, Some(value)), Vec::<String>::new(), "{pointer}");
    }
}

#[test]
fn breaking_changes_are_found() {
    for (pointer, value, finding) in [
        ("/properties/count", None, "/count: was removed"),
        ("/properties/count/type", Some(json!("string")), "/count: `type` was \"integer\" and is \"string\""),
        ("/properties/note/type", Some(json!("string")), "/note: `type` was"),
        ("/properties/id/format", None, "/id: `format` was \"uuid\" and is nothing"),
        ("/properties/tags/items/type", Some(json!("integer")), "/tags/*: `type` was"),
        ("/required/-", Some(json!("count")), "/count: is newly required"),
        ("/required/0", None, "/id: was always there"),
        ("/$defs/Settings/properties/ttl", None, "/settings/ttl: was removed"),
        ("/$defs/Settings/required/-", Some(json!("mode")), "/settings/mode: is newly required"),
        ("/$defs/Settings/properties/mode/enum/0", None, "/settings/mode: the value a was removed"),
        ("/$defs/Method/oneOf/1", None, "/method: the alternative \"admin\" was removed"),
        (
            "/$defs/Method/oneOf/-",
            Some(json!({ "type": "null" })),
            "/method: the alternative \"null\" is new",
        ),
    ] {
        let findings = after(pointer, value);
        assert!(findings.iter().any(|found| found.starts_with(finding)), "{pointer}: {findings:?}");
    }
}

#[test]
fn a_new_member_that_is_required_is_refused_in_a_real_schema() {
    let path = event_schemas::path("user", "UserRegistered", 1);
    let old = event_schemas::all().remove(&path).expect("there");
    let mut new = old.clone();
    new["properties"]["country"] = json!({ "type": "string" });
    assert_eq!(breaking_changes(&old, &new), Vec::<String>::new());
    new["required"].as_array_mut().expect("a list").push("country".into());
    assert_eq!(breaking_changes(&old, &new), ["/country: is newly required"]);
}
