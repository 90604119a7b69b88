//! Golden files: events as they were once stored. Every later version must decode them.
//!
//! `UPDATE=1` writes missing files. It never touches an existing one.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use domain::{Event, Personal, StreamId};
use schemas::{Actor, Encoded, Metadata, RecordedEvent, decode, encode, event_schemas};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{pretty, samples, update};

#[derive(Serialize, Deserialize)]
struct Golden {
    stream: StreamId,
    name: String,
    schema_version: u16,
    data: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    personal: Option<Value>,
}

impl Golden {
    fn of(stream: StreamId, encoded: &Encoded) -> Self {
        let parse = |bytes: &Vec<u8>| serde_json::from_slice(bytes).expect("JSON");
        Self {
            stream,
            name: encoded.name.to_owned(),
            schema_version: encoded.schema_version,
            data: serde_json::from_str(&encoded.data).expect("JSON"),
            personal: encoded.personal.as_ref().map(parse),
        }
    }

    fn file(&self) -> PathBuf {
        folder().join(format!("{}.v{}.json", self.name, self.schema_version))
    }

    fn decode(&self) -> Event {
        let personal = self.personal.as_ref().map(|personal| personal.to_string().into_bytes());
        let data = self.data.to_string();
        decode(&self.stream, &self.name, self.schema_version, &data, personal.as_deref()).expect(&self.name)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

fn goldens() -> Vec<Golden> {
    let mut files = fs::read_dir(folder())
        .expect("there are goldens")
        .map(|entry| entry.expect("readable").path())
        .collect::<Vec<_>>();
    files.sort();
    files
        .iter()
        .map(|path| {
            let golden: Golden =
                serde_json::from_str(&fs::read_to_string(path).expect("readable")).expect("a golden");
            assert_eq!(golden.file(), *path);
            golden
        })
        .collect()
}

/// Every golden as the journal has it.
pub fn recorded() -> Vec<RecordedEvent> {
    let recorded = |golden: Golden| {
        let person = golden.decode().person();
        RecordedEvent {
            position: 42,
            id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_000a),
            stream: golden.stream,
            version: 1,
            name: golden.name,
            schema_version: golden.schema_version,
            at: samples::at(),
            metadata: Metadata {
                app_id: samples::app_id(),
                actor: Actor::anonymous(),
                correlation_id: Uuid::from_u128(11),
                causation_id: None,
                request_id: None,
                traceparent: None,
            },
            data: golden.data.to_string(),
            person,
            personal: golden.personal.map(|personal| personal.to_string().into_bytes()),
        }
    };
    goldens().into_iter().map(recorded).collect()
}

/// Whether every member of `part` is in `whole` with the same value.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        _ => whole == part,
    }
}

#[test]
fn every_event_has_a_golden() {
    for (stream, event) in samples::all() {
        let golden = Golden::of(stream, &encode(&event));
        let path = golden.file();
        if update() && !path.exists() {
            fs::create_dir_all(folder()).expect("writable");
            fs::write(&path, pretty(&golden)).expect("writable");
        }
        assert!(path.exists(), "{} is missing: run the tests with UPDATE=1 and commit it", path.display());
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    for (stream, event) in samples::all() {
        let Encoded { name, schema_version, data, person, personal } = encode(&event);
        assert_eq!(person, event.person());
        let decoded = decode(&stream, name, schema_version, &data, personal.as_deref()).expect(name);
        assert_eq!(decoded, event);
    }
}

#[test]
fn goldens_decode_and_encode_to_the_same() {
    for golden in goldens() {
        let event = golden.decode();
        let again = Golden::of(golden.stream.clone(), &encode(&event));
        assert_eq!(again.name, golden.name);
        assert_eq!(again.decode(), event, "{}", golden.name);
        if again.schema_version == golden.schema_version {
            // A later member may be added with its default; existing members stay as they are.
            assert!(contains(&again.data, &golden.data), "{}: {}", golden.name, again.data);
            assert_eq!(again.personal, golden.personal, "{}", golden.name);
        }
    }
}

#[test]
fn goldens_are_what_the_schemas_say() {
    let schemas = event_schemas::all();
    for golden in goldens() {
        let path = event_schemas::path(golden.stream.aggregate(), &golden.name, golden.schema_version);
        let schema = &schemas[&path];
        let members = golden.data.as_object().expect("an object");
        let names = |value: &Value| {
            let required = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        for name in names(&schema["required"]) {
            assert!(members.contains_key(&name), "{path}: {name} is required");
        }
        for name in members.keys() {
            assert!(schema["properties"].get(name).is_some(), "{path}: {name} is not in the schema");
        }
    }
}

/// The members of `personal` whose name is in the data, at any depth.
fn leaked(data: &Value, personal: &serde_json::Map<String, Value>) -> Vec<String> {
    match data {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| {
                let own = personal.contains_key(name) || name == "personal";
                own.then(|| name.clone()).into_iter().chain(leaked(value, personal))
            })
            .collect(),
        Value::Array(values) => values.iter().flat_map(|value| leaked(value, personal)).collect(),
        _ => vec![],
    }
}

fn personal_members() -> serde_json::Map<String, Value> {
    let Value::Object(mut members) = serde_json::to_value(samples::personal()).expect("JSON") else {
        unreachable!("a struct is an object")
    };
    // Events have their own `reason`, chosen from a list; the texts below show that nothing a person typed is among
    // them.
    members.remove("reason");
    members
}

#[test]
fn no_data_holds_anything_personal() {
    let members = personal_members();
    let reason = samples::personal().reason.expect("all members are filled");
    for golden in goldens() {
        let event = golden.decode();
        // The `name` of an app or an API key is not personal data.
        if event.person().is_some() {
            assert_eq!(leaked(&golden.data, &members), Vec::<String>::new(), "{}", golden.name);
        }
        let data = encode(&event).data;
        assert!(!data.contains(&reason), "{} shows the reason: {data}", golden.name);
        for (name, value) in &members {
            let text = value.as_str().expect("all members are text");
            assert!(!data.contains(text), "{} shows the {name}: {data}", golden.name);
        }
    }
    let leaky = serde_json::json!({ "user_id": "…", "client": [{ "ip": "192.0.2.7" }] });
    assert_eq!(leaked(&leaky, &members), ["ip"], "the check itself finds a leak");
}

/// The first version of a ban stored its reason in the open.
#[test]
fn a_reason_in_the_open_is_read_and_not_written_again() {
    let golden =
        goldens().into_iter().find(|it| it.name == "UserBanned" && it.schema_version == 1).expect("there");
    let event = golden.decode();
    assert_eq!(event.personal().and_then(|personal| personal.reason.as_deref()), Some("spam"));
    let again = encode(&event);
    assert_eq!(again.schema_version, 2);
    assert!(!again.data.contains("spam") && again.personal.is_some(), "{}", again.data);

    let at = golden.data["at"].clone();
    for (data, reason) in [
        (json!({ "user_id": golden.data["user_id"], "at": at }), None),
        (json!({ "user_id": golden.data["user_id"], "at": at, "reason": null }), None),
        // A member of the data with the name of the sealed part is ignored.
        (
            json!({ "user_id": golden.data["user_id"], "at": at, "personal": { "name": "Eve", "reason": "Eve" } }),
            None,
        ),
        (
            json!({ "user_id": golden.data["user_id"], "at": at, "reason": "spam", "personal": { "name": "Eve" } }),
            Some("spam"),
        ),
    ] {
        let event = decode(&golden.stream, "UserBanned", 1, &data.to_string(), None).expect("readable");
        let expected = Personal { reason: reason.map(str::to_owned), ..Personal::default() };
        assert_eq!(event.personal(), Some(&expected), "{data}");
        // In the present version both are ignored.
        let event = decode(&golden.stream, "UserBanned", 2, &data.to_string(), None).expect("readable");
        assert_eq!(event.personal(), Some(&Personal::default()), "{data}");
    }
}

#[test]
fn an_erased_person_leaves_a_readable_event() {
    for golden in goldens().into_iter().filter(|golden| golden.personal.is_some()) {
        let erased = Golden { personal: None, ..golden };
        let event = erased.decode();
        assert_eq!(event.personal(), Some(&Personal::default()), "{}", erased.name);
        assert_eq!(encode(&event).personal, None, "{}", erased.name);
    }
}
