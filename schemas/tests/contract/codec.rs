//! What the codec refuses.

use domain::{Event, StreamId};
use schemas::{CodecError, decode, encode};

use crate::samples;

fn unbanned() -> (StreamId, String) {
    let event = samples::all().into_iter().find(|(_, event)| event.name() == "UserUnbanned");
    let (stream, event) = event.expect("there is one");
    (stream, encode(&event).data)
}

#[test]
fn refuses_a_version_from_the_future() {
    let (stream, data) = unbanned();
    let error = decode(&stream, "UserUnbanned", 2, &data, None).expect_err("newer");
    assert!(matches!(error, CodecError::NewerVersion { stored: 2, known: 1, .. }), "{error}");
}

#[test]
fn refuses_unknown_names_and_aggregates() {
    let (stream, data) = unbanned();
    for name in ["UserForgotten", "AppDisabled", "", "\"", "UserUnbanned\",\"x\":\""] {
        let error = decode(&stream, name, 1, &data, None).expect_err(name);
        assert!(matches!(error, CodecError::Data { .. }), "{error}");
    }
    let other = StreamId::from_stored("mystery-1".to_owned());
    let error = decode(&other, "UserUnbanned", 1, &data, None).expect_err("unknown");
    assert!(matches!(error, CodecError::UnknownAggregate(_)), "{error}");
}

#[test]
fn refuses_damaged_data() {
    let (stream, data) = unbanned();
    for damaged in ["", "null", "[]", "{}", &data[..data.len() - 1], &format!("{data}}}")] {
        assert!(decode(&stream, "UserUnbanned", 1, damaged, None).is_err(), "{damaged}");
    }
}

#[test]
fn an_error_about_a_personal_part_does_not_quote_it() {
    let (stream, event) =
        samples::all().into_iter().find(|(_, event)| event.personal().is_some()).expect("one");
    let encoded = encode(&event);
    let damaged = br#"{"email":"not-an-address-of-ada"}"#;
    let error = decode(&stream, encoded.name, 1, &encoded.data, Some(damaged)).expect_err("damaged");
    assert!(matches!(error, CodecError::Personal { .. }));
    assert!(!format!("{error} {error:?}").contains("ada"));
}

#[test]
fn a_personal_part_in_the_data_does_not_pass_for_the_sealed_one() {
    let (stream, event) =
        samples::all().into_iter().find(|(_, event)| event.personal().is_some()).expect("one");
    let encoded = encode(&event);
    let forged = format!(r#"{},"personal":{{"name":"Eve"}}}}"#, &encoded.data[..encoded.data.len() - 1]);
    let decoded = decode(&stream, encoded.name, 1, &forged, None).expect("readable");
    assert_eq!(decoded.personal().and_then(|personal| personal.name.as_deref()), None);
    assert!(matches!(decoded, Event::User(_)));
}

#[test]
fn a_debug_print_does_not_show_the_personal_part() {
    for (_, event) in samples::all() {
        assert!(!format!("{:?}", encode(&event)).contains("Lovelace"));
    }
}
