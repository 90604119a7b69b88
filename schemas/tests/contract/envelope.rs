//! The envelope against the event contract.

use schemas::{Actor, ExportedEvent, Metadata, RecordedEvent, encode};
use serde_json::json;
use uuid::Uuid;

use crate::{goldens, samples};

fn recorded(metadata: Metadata, personal: Option<Vec<u8>>) -> RecordedEvent {
    let (stream, event) =
        samples::all().into_iter().find(|(_, event)| event.name() == "SessionStarted").expect("one");
    let encoded = encode(&event);
    RecordedEvent {
        position: 42,
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_000a),
        stream,
        version: 1,
        name: encoded.name.to_owned(),
        schema_version: encoded.schema_version,
        at: samples::at(),
        metadata,
        data: encoded.data,
        person: encoded.person,
        personal,
    }
}

fn metadata() -> Metadata {
    Metadata {
        app_id: samples::app_id(),
        actor: Actor::user(samples::user_id()),
        correlation_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_000b),
        causation_id: Some(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_000c)),
        request_id: Some("request-1".to_owned()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

/// An event with every member that an envelope can have.
pub fn fullest() -> RecordedEvent {
    recorded(metadata(), Some(vec![0xfb, 0xff, 0xfe, 0x01]))
}

/// An event with those members only that every envelope has.
pub fn barest() -> RecordedEvent {
    let metadata =
        Metadata { actor: Actor::anonymous(), causation_id: None, traceparent: None, ..metadata() };
    recorded(metadata, None)
}

#[test]
fn is_the_cloud_event_of_the_contract() {
    let event = fullest();
    let expected = json!({
        "specversion": "1.0",
        "id": "01900000-0000-7000-8000-00000000000a",
        "source": "/v1/apps/acme",
        "type": "SessionStarted",
        "time": "2026-03-01T12:00:00.123456Z",
        "subject": "session-01900000-0000-7000-8000-000000000002",
        "dataschema": "https://login.example.com/schemas/events/session/SessionStarted.v1.json",
        "datacontenttype": "application/json",
        "position": 42,
        "prevposition": 41,
        "streamversion": 1,
        "appid": "acme",
        "actorkind": "user",
        "actorid": "01900000-0000-7000-8000-000000000001",
        "correlationid": "01900000-0000-7000-8000-00000000000b",
        "causationid": "01900000-0000-7000-8000-00000000000c",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "data": {
            "session_id": "01900000-0000-7000-8000-000000000002",
            "user_id": "01900000-0000-7000-8000-000000000001",
            "app_id": "acme",
            "method": "password",
            "epoch": 1,
            "expires_at": "2026-03-01T12:00:00.123456Z",
            "idle_expires_at": "2026-03-01T12:00:00.123456Z",
            "at": "2026-03-01T12:00:00.123456Z"
        },
        "personal": "-__-AQ"
    });
    assert_eq!(event.to_cloud_event(&samples::origin()), expected);
}

#[test]
fn leaves_out_what_there_is_not() {
    let event = barest().to_cloud_event(&samples::origin());
    for name in ["causationid", "traceparent", "actorid", "personal", "request_id", "requestid"] {
        assert!(event.get(name).is_none(), "{name}");
    }
    assert_eq!(event["actorkind"], "anonymous");
}

#[test]
fn is_canonical() {
    let text = recorded(metadata(), None).to_canonical_json(&samples::origin());
    assert!(text.starts_with(
        r#"{"actorid":"01900000-0000-7000-8000-000000000001","actorkind":"user","appid":"acme","#
    ));
    assert!(text.contains(r#""position":42,"prevposition":41,"#));
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(value["position"].is_u64());
    assert_eq!(serde_json_canonicalizer::to_string(&value).expect("JSON"), text);
}

#[test]
fn the_quick_way_to_canonical_bytes_gives_those_of_the_specification() {
    let odd = ["\"", "\\", "\u{1}", "\u{7f}", "\u{e9}\u{1f600}", "a b\n"];
    let odd = odd.iter().map(|text| {
        let metadata = Metadata {
            actor: Actor { id: Some((*text).to_owned()), ..metadata().actor },
            traceparent: Some((*text).to_owned()),
            ..metadata()
        };
        RecordedEvent { name: (*text).to_owned(), ..recorded(metadata, None) }
    });
    let data = ["{}", "{\"a\":1e30}", "{\"b\":1,\"a\":2}", "{\"a\": 1}", "[1]", "null", "no JSON", ""];
    let data = data.iter().map(|data| RecordedEvent { data: (*data).to_owned(), ..fullest() });
    let large = [1 << 53, (1 << 53) + 1, u64::MAX].map(|position| RecordedEvent { position, ..barest() });
    let all =
        goldens::recorded().into_iter().chain([fullest(), barest()]).chain(odd).chain(data).chain(large);
    for event in all {
        let origin = samples::origin();
        let expected = serde_json_canonicalizer::to_string(&event.to_cloud_event(&origin)).expect("JSON");
        assert_eq!(event.to_canonical_json(&origin), expected);
    }
}

#[test]
fn reads_back_but_for_the_request_id() {
    for (stream, event) in samples::all() {
        let encoded = encode(&event);
        let event = RecordedEvent {
            stream,
            name: encoded.name.to_owned(),
            schema_version: encoded.schema_version,
            data: encoded.data,
            person: encoded.person,
            ..recorded(metadata(), encoded.personal)
        };
        let read = RecordedEvent::from_canonical_json(event.to_canonical_json(&samples::origin()).as_bytes())
            .expect("reads");
        let metadata = Metadata { request_id: None, ..event.metadata.clone() };
        assert_eq!(read, RecordedEvent { metadata, ..event });
    }
}

#[test]
fn what_is_no_envelope_is_refused() {
    let text = recorded(metadata(), Some(vec![1])).to_canonical_json(&samples::origin());
    for (from, to) in [
        ("SessionStarted.v1.json", "SessionStarted.json"),
        (r#""personal":"AQ""#, r#""personal":"=""#),
        ("\"acme\"", "\"a.*.b\""),
        (r#""position":42"#, r#""position":-1"#),
        ("SessionStarted", "SessionSomething"),
        ("{", "["),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        assert!(RecordedEvent::from_canonical_json(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn the_subject_tells_app_aggregate_and_type() {
    assert_eq!(recorded(metadata(), None).subject(), "auth.v1.acme.session.SessionStarted");
}

#[test]
fn damaged_data_does_not_panic() {
    let event = RecordedEvent { data: "{\"cut".to_owned(), ..recorded(metadata(), None) };
    assert_eq!(event.to_cloud_event(&samples::origin())["data"], json!("{\"cut"));
}

#[test]
fn metadata_reads_back() {
    for actor in [Actor::system(), Actor::anonymous(), Actor::user(samples::user_id())] {
        let metadata = Metadata { actor, ..metadata() };
        let text = serde_json::to_string(&metadata).expect("JSON");
        assert_eq!(serde_json::from_str::<Metadata>(&text).expect("metadata"), metadata);
    }
}

#[test]
fn an_exported_line_is_read_as_what_it_was_made_of() {
    for event in goldens::recorded().into_iter().chain([fullest(), barest()]) {
        let line = event.to_canonical_json(&samples::origin());
        let read = ExportedEvent::read(line.as_bytes()).expect(&line);
        assert_eq!((read.position, read.id, read.version), (event.position, event.id, event.version));
        assert_eq!((&*read.stream, &*read.name), (event.stream.as_str(), event.name.as_str()));
        assert_eq!((read.data, &read.personal), (event.data.as_str(), &event.personal));
        assert_eq!(read.schema_version, event.schema_version);
        assert_eq!(read.origin, samples::origin().as_str());
        read.decode().expect(&line);
    }
}

#[test]
fn an_exported_line_that_no_journal_wrote_is_refused() {
    let line = fullest().to_canonical_json(&samples::origin());
    for (from, to, told) in [
        ("{\"actorid\"", "{ \"actorid\"", "canonical"),
        ("\"position\":42", "\"position\":43", "prevposition"),
        ("\"streamversion\":1", "\"streamversion\":0", "streamversion"),
        ("/v1/apps/acme", "/v1/apps/other", "source"),
        ("\"acme\"", "\"a.*.b\"", "appid"),
        (".123456Z\",\"traceparent", ".1234560Z\",\"traceparent", "time"),
        ("8000-00000000000b", "8000-00000000000B", "correlationid"),
        ("-__-AQ", "-__-AR", "personal"),
        ("SessionStarted.v1.json", "SessionStarted.v9.json", "dataschema"),
        ("SessionStarted.v1.json", "SessionRevoked.v1.json", "dataschema"),
        ("\"specversion\":\"1.0\"", "\"specversion\":\"1.1\"", "specversion"),
        ("\"causationid\":\"01900000-0000-7000-8000-00000000000c\"", "\"causationid\":null", "no envelope"),
        ("\"type\"", "\"tzpe\"", "unknown field"),
    ] {
        let bad = line.replacen(from, to, 1);
        assert_ne!(bad, line, "{from}");
        let refused = ExportedEvent::read(bad.as_bytes()).expect_err(&bad).to_string();
        assert!(refused.contains(told), "{from}: {refused}");
    }
    assert!(ExportedEvent::read(&[0xff]).is_err());
}
