//! The committed `AsyncAPI` document: generated, complete, and consistent with what is sent.
//!
//! `UPDATE=1` writes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use schemas::{asyncapi, event_schemas};
use serde_json::Value;

use crate::{envelope, pretty, samples, update};

fn document() -> Value {
    asyncapi::document(env!("CARGO_PKG_VERSION"))
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi.json");
    let generated = pretty(&document());
    if update() {
        fs::write(&file, generated).expect("writable");
    } else {
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == generated,
            "asyncapi.json is out of date: run the tests with UPDATE=1 and commit it"
        );
    }
}

#[test]
fn every_version_of_every_event_has_a_message_on_a_channel_of_its_own() {
    let document = document();
    for (path, schema) in event_schemas::all() {
        let name = schema["title"].as_str().expect("a title");
        let aggregate = path.split('/').nth(1).expect("events/<aggregate>/<file>");
        let file = path.rsplit('/').next().expect("a file");
        let message = file.strip_suffix(".json").expect("a JSON file");
        let channel = &document["channels"][name];
        assert_eq!(channel["address"], format!("auth.v1.{{app_id}}.{aggregate}.{name}"));
        assert!(channel["messages"].get(message).is_some(), "{message} is on no channel");
        let payload = &document["components"]["messages"][message]["payload"]["allOf"][1]["properties"];
        assert_eq!(payload["dataschema"]["pattern"], format!("/schemas/{}$", path.replace('.', "\\.")));
        assert_eq!(document["components"]["schemas"][message]["properties"], {
            let text = schema["properties"].to_string();
            serde_json::from_str::<Value>(&text.replace("#/$defs/", "#/components/schemas/")).expect("JSON")
        });
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(root: &Value, value: &Value) -> usize {
        match value {
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| match value {
                    Value::String(target) if name == "$ref" => {
                        let pointer = target.strip_prefix('#').expect("within the document");
                        assert!(root.pointer(pointer).is_some(), "{target} leads nowhere");
                        1
                    }
                    _ => check(root, value),
                })
                .sum(),
            Value::Array(values) => values.iter().map(|value| check(root, value)).sum(),
            _ => 0,
        }
    }
    let document = document();
    assert!(check(&document, &document) > event_schemas::all().len());
}

#[test]
fn the_envelope_is_described_member_by_member() {
    let envelope_schema = &document()["components"]["schemas"]["Envelope"];
    let described: BTreeSet<&str> =
        envelope_schema["properties"].as_object().expect("members").keys().map(String::as_str).collect();
    let required: BTreeSet<&str> =
        envelope_schema["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let members = |event: &Value| -> BTreeSet<String> {
        event.as_object().expect("an object").keys().cloned().collect()
    };
    let fullest = envelope::fullest().to_cloud_event(&samples::origin());
    assert_eq!(described, members(&fullest).iter().map(String::as_str).collect());
    let barest = envelope::barest().to_cloud_event(&samples::origin());
    assert_eq!(required, members(&barest).iter().map(String::as_str).collect());
}
