//! One event of every kind, with fixed values and all its members: made of its schema, so that a new event or member has
//! one, too. The source of new golden files.

use domain::event::EventKind;
use domain::password::PasswordHash;
use domain::{AppId, Email, Event, LogOrigin, Personal, StreamId, Timestamp, UserId};
use schemas::{decode, event_schemas};
use serde_json::{Map, Value};
use uuid::Uuid;

const USER_ID: &str = "01900000-0000-7000-8000-000000000001";
const SESSION_ID: &str = "01900000-0000-7000-8000-000000000002";
const OTHER_ID: &str = "01900000-0000-7000-8000-000000000003";
const AT: &str = "2026-03-01T12:00:00.123456Z";

/// A text that the type of a member accepts, by the name of the type or, within a type, of the member.
fn text(name: &str) -> Option<&'static str> {
    Some(match name {
        "AppId" => "acme",
        // RFC 7636 appendix B.
        "CodeChallenge" => "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "LogOrigin" => "https://login.example.com",
        "RedirectUri" | "redirect_uris" | "email_change" | "email_verification" | "invitation"
        | "password_reset" => "https://app.example/callback",
        "Role" | "admin_role" => "admin",
        "Slug" => "engines",
        "RolePermission" => "billing:read",
        "colour" => "#0a66c2",
        "EventFilter" | "events" => "user.*",
        "logo" => "https://app.example/logo.png",
        "origins" => "https://app.example",
        "WebhookUrl" | "url" => "https://hooks.acme.example/watchword",
        "TimeZoneName" | "time_zone" => "Europe/Zurich",
        "sender" | "reply_to" => "no-reply@acme.example",
        _ => return None,
    })
}

pub fn app_id() -> AppId {
    AppId::parse("acme").expect("valid")
}

pub fn user_id() -> UserId {
    UserId(USER_ID.parse::<Uuid>().expect("valid"))
}

pub fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

pub fn at() -> Timestamp {
    AT.parse().expect("valid")
}

/// Every member filled: values that must never turn up in the data of an event.
pub fn personal() -> Personal {
    Personal {
        email: Some(Email::parse("ada@example.com").expect("valid")),
        previous_email: Some(Email::parse("countess@example.org").expect("valid")),
        name: Some("Ada Lovelace".to_owned()),
        phone: Some("+44 20 7946 0000".to_owned()),
        avatar_url: Some("https://example.com/ada.png".to_owned()),
        ip: Some("192.0.2.7".to_owned()),
        user_agent: Some("Analytical Engine/1.0".to_owned()),
        external_id: Some("auth0|5f7c8ec7c33c6c004bbafe82".to_owned()),
        registered_at: Some("2019-03-01T12:00:00Z".parse().expect("a time")),
        acting: Some("01900000-0000-7000-8000-000000000008.AQID".to_owned()),
        reason: Some("sold the same ticket twice".to_owned()),
        state: Some("cart=4711;for=ada".to_owned()),
        password_hash: Some(PasswordHash(
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".to_owned(),
        )),
    }
}

/// One event of every kind, with its stream.
pub fn all() -> Vec<(StreamId, Event)> {
    let schemas = event_schemas::all();
    let of = |aggregate: &str, kind: &EventKind| {
        let path = event_schemas::path(aggregate, kind.name, kind.version);
        let stream = StreamId::from_stored(match aggregate {
            "app" => "app-acme".to_owned(),
            "session" => format!("session-{SESSION_ID}"),
            "user" => format!("user-{USER_ID}"),
            _ => format!("{aggregate}-{OTHER_ID}"),
        });
        let data = value(kind.name, &schemas[&path], &schemas[&path]["$defs"]).to_string();
        let personal = serde_json::to_vec(&personal()).expect("JSON");
        let event = decode(&stream, kind.name, kind.version, &data, Some(&personal)).unwrap_or_else(|error| {
            let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            panic!("{path}: {error}: {why}\n{data}\nIf a type accepts only some texts, give `text` one of them.")
        });
        (stream, event)
    };
    let kinds =
        Event::KINDS.iter().flat_map(|(aggregate, kinds)| kinds.iter().map(|kind| (*aggregate, kind)));
    kinds.map(|(aggregate, kind)| of(aggregate, kind)).collect()
}

/// A value of this schema, which belongs to a type or a member of this name.
fn value(name: &str, schema: &Value, definitions: &Value) -> Value {
    if let Some(target) = schema["$ref"].as_str() {
        let definition = target.strip_prefix("#/$defs/").expect("schemas have no other references");
        return value(definition, &definitions[definition], definitions);
    }
    if let Some(alternatives) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        return value(name, &alternatives[0], definitions);
    }
    if let Some(fixed) = schema.get("const").or(schema["enum"].get(0)) {
        return fixed.clone();
    }
    let of_type = match &schema["type"] {
        Value::Array(types) => types.iter().find(|it| *it != "null").expect("not only null"),
        of_type => of_type,
    };
    match of_type.as_str().unwrap_or_else(|| panic!("{name} has no type: {schema}")) {
        "object" => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let members = members.map(|(name, schema)| (name.clone(), value(name, schema, definitions)));
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            let others = others.map(|others| ("other".to_owned(), value("other", others, definitions)));
            Value::Object(members.chain(others).collect::<Map<_, _>>())
        }
        "array" => vec![value(name, &schema["items"], definitions)].into(),
        "integer" => {
            let number = schema.get("default").or(schema.get("minimum")).and_then(Value::as_i64);
            number.unwrap_or_default().max(1).into()
        }
        "boolean" => true.into(),
        "string" => match (schema["format"].as_str(), name) {
            (Some("date-time"), _) => AT.into(),
            (Some("uuid"), "UserId") => USER_ID.into(),
            (Some("uuid"), "SessionId") => SESSION_ID.into(),
            (Some("uuid"), _) => OTHER_ID.into(),
            _ => text(name).unwrap_or("text").into(),
        },
        other => panic!("{name} is of the type {other}: make a value of it here"),
    }
}
