//! Strict SDKs accept every event ever published as a `CloudEvent`: the npm package `cloudevents`, and the crate
//! `cloudevents-sdk`.

use cloudevents::{AttributesReader, Event};
use schemas::{Actor, Metadata, RecordedEvent};
use serde_json::{Value, json};
use test_services::faults_of_cloud_events;
use uuid::Uuid;

use crate::{goldens, samples};

/// Each golden in its envelope, with every kind of actor and every optional attribute at least once.
fn envelopes() -> Vec<String> {
    let actors = [
        Actor::user(samples::user_id()),
        Actor::api_key(domain::ApiKeyId(Uuid::from_u128(3))),
        Actor::system(),
        Actor::anonymous(),
    ];
    let mut lines = Vec::new();
    for (n, golden) in goldens::recorded().into_iter().enumerate() {
        for (m, actor) in actors.iter().enumerate() {
            let whole = (n + m) % 2 == 0;
            let metadata = Metadata {
                app_id: samples::app_id(),
                actor: actor.clone(),
                correlation_id: Uuid::from_u128(11),
                causation_id: whole.then(|| Uuid::from_u128(12)),
                request_id: Some("request-1".to_owned()),
                traceparent: whole
                    .then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            };
            let event = RecordedEvent { metadata, ..golden.clone() };
            lines.push(event.to_canonical_json(&samples::origin()));
        }
    }
    lines
}

/// What the crate reports, drops or changes.
fn fault(line: &str) -> Option<String> {
    let sent: Value = serde_json::from_str(line).expect("JSON");
    let event: Event = match serde_json::from_str(line) {
        Ok(event) => event,
        Err(error) => return Some(error.to_string()),
    };
    let read = serde_json::to_value(&event).expect("JSON");
    let time = |value: &Value| value["time"].as_str().and_then(|time| time.parse::<domain::Timestamp>().ok());
    if time(&sent) != time(&read) {
        return Some("the time is another".to_owned());
    }
    let rest = |value: &Value| {
        let mut value = value.clone();
        value.as_object_mut().expect("an object").remove("time");
        value
    };
    if event.dataschema().is_none() {
        return Some("there is no dataschema".to_owned());
    }
    (rest(&sent) != rest(&read)).then(|| format!("it was read as {read}"))
}

/// A valid event except for this attribute.
fn bad(name: &str, value: Value) -> String {
    let mut event: Value = serde_json::from_str(&envelopes()[0]).expect("JSON");
    event[name] = value;
    event.to_string()
}

/// The former, relative form: the SDKs are as strict as we assume.
fn relative() -> String {
    bad("dataschema", json!("/schemas/events/user/UserBanned.v1.json"))
}

#[test]
fn attributes_are_scalars_with_names_of_lower_case_letters() {
    for line in envelopes() {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        for (name, value) in event.as_object().expect("an object") {
            assert!(name.bytes().all(|c| c.is_ascii_lowercase()) && name.len() <= 20, "{name}");
            assert!(name == "data" || !value.is_object() && !value.is_array() && !value.is_null(), "{name}");
        }
    }
}

#[test]
fn the_npm_package_reads_every_golden() {
    let lines = envelopes();
    for (line, fault) in lines.iter().zip(faults_of_cloud_events(&lines)) {
        assert_eq!(fault, "", "{line}");
    }
    let bad = [relative(), bad("actorKind", json!("user")), bad("actor_kind", json!("user"))];
    for (line, fault) in bad.iter().zip(faults_of_cloud_events(&bad)) {
        assert_ne!(fault, "", "{line}");
    }
}

#[test]
fn the_crate_reads_every_golden() {
    for line in envelopes() {
        assert_eq!(fault(&line), None, "{line}");
    }
    for line in [relative(), bad("actor", json!({ "kind": "user" }))] {
        assert!(fault(&line).is_some(), "{line}");
    }
}
