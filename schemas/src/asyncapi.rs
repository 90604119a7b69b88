//! The `AsyncAPI` 3.0 document of the bus: its subjects on `JetStream` and the messages on each. It is generated from
//! the catalogue of event schemas, so that no event can be missing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::bus::{
    CLOUD_EVENT_JSON, CONTENT_TYPE, MARK, MESSAGE_ID, POSITION, PREVIOUS_ID, PREVIOUS_POSITION, STREAM,
    TRACE_PARENT,
};
use crate::envelope::ActorKind;
use crate::event_schemas;

/// What applies to all messages. Consumers read it first.
const DESCRIPTION: &str = "Every event of Watchword, on the JetStream stream `WATCHWORD`.\n\n\
    **Order.** `position` counts all events of an instance in commit order: 1, 2, 3 … without gaps. The sequence of a \
    message in the stream is its position, so one global order holds across all subjects. Within a filter on some \
    subjects there are gaps; `prevposition` is the position before this one in the instance, not in the filter.\n\n\
    **Delivery** is at least once. Keep the last `position` you handled in the same transaction as what you made of it, \
    and drop what is not above it: that is exactly once. `Nats-Msg-Id` is the id of the event, the same after every \
    repair of the stream.\n\n\
    **Personal data** is sealed in the member `personal`; `data` holds none, and no secret. Do not depend on `personal`: \
    the key of an erased person is gone.\n\n\
    **Change.** New events, and new optional members of known ones, come at any time: ignore what you do not know. \
    Everything else is a new version of the event, which its `dataschema` names.";

/// The document for this product version.
pub fn document(version: &str) -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    let mut schemas =
        Map::from_iter([("Envelope".to_owned(), envelope()), ("Headers".to_owned(), headers())]);
    for (event, versions) in catalogue() {
        let Event { aggregate, name } = &event;
        let mut of_channel = Map::new();
        for (schema_version, path, schema) in versions {
            let message_name = format!("{name}.v{schema_version}");
            let summary = schema.get("description").cloned().unwrap_or_default();
            hoist(&message_name, schema, &mut schemas);
            messages.insert(message_name.clone(), message(&event, &message_name, &path, &summary));
            of_channel
                .insert(message_name.clone(), reference(&format!("components/messages/{message_name}")));
        }
        operations.insert(name.clone(), operation(name, of_channel.keys()));
        channels.insert(
            name.clone(),
            json!({
                "address": format!("auth.v1.{{app_id}}.{aggregate}.{name}"),
                "title": name,
                "parameters": { "app_id": reference("components/parameters/app_id") },
                "messages": of_channel,
                "tags": [{ "name": aggregate }],
                "bindings": { "nats": {} },
                "x-jetstream": { "stream": STREAM },
            }),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Watchword events",
            "version": version,
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": { "nats": server() },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "parameters": { "app_id": {
                "description": "The app the event belongs to: `[a-z0-9](-?[a-z0-9])*`, 1 to 40 characters. `platform` is \
                    the app of the platform's own keys. A consumer of one app subscribes to `auth.v1.<app_id>.>`.",
                "examples": ["acme"],
            } },
            "correlationIds": { "request": {
                "description": "Shared by all events that one request caused.",
                "location": "$message.payload#/correlationid",
            } },
            "securitySchemes": {
                "password": {
                    "type": "userPassword",
                    "description": "A NATS user. A consumer's user may only create and read a durable pull consumer \
                        filtered on the subjects of its app.",
                },
                "tls": { "type": "X509", "description": "A client certificate that the server maps to such a user." },
            },
        },
    })
}

/// An event of the catalogue, whatever its version.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    aggregate: String,
    name: String,
}

/// Of each event: its versions, each with the path of its schema and the schema.
fn catalogue() -> BTreeMap<Event, Vec<(u16, String, Value)>> {
    let mut events: BTreeMap<Event, Vec<_>> = BTreeMap::new();
    for (path, schema) in event_schemas::all() {
        let (aggregate, name, version) = parts(&path).expect("paths are made by `event_schemas::path`");
        let event = Event { aggregate: aggregate.to_owned(), name: name.to_owned() };
        events.entry(event).or_default().push((version, path, schema));
    }
    events
}

/// The inverse of `event_schemas::path`.
fn parts(path: &str) -> Option<(&str, &str, u16)> {
    let (aggregate, file) = path.strip_prefix("events/")?.split_once('/')?;
    let (name, version) = file.strip_suffix(".json")?.rsplit_once(".v")?;
    Some((aggregate, name, version.parse().ok()?))
}

fn reference(target: &str) -> Value {
    json!({ "$ref": format!("#/{target}") })
}

fn server() -> Value {
    json!({
        "host": "{host}:{port}",
        "protocol": "nats",
        "title": "NATS with JetStream",
        "description": "Version 2.12 or later. Clients are read-only; only Watchword publishes.",
        "variables": {
            "host": { "default": "localhost", "description": "Any node of the cluster." },
            "port": { "default": "4222" },
        },
        "security": [
            reference("components/securitySchemes/password"),
            reference("components/securitySchemes/tls"),
        ],
        "bindings": { "nats": {} },
    })
}

/// The document is Watchword's own, so its operations send. A consumer does the reverse.
fn operation<'a>(channel: &str, messages: impl Iterator<Item = &'a String>) -> Value {
    let messages = messages.map(|name| reference(&format!("channels/{channel}/messages/{name}")));
    json!({
        "action": "send",
        "channel": reference(&format!("channels/{channel}")),
        "messages": messages.collect::<Vec<_>>(),
    })
}

fn message(event: &Event, name: &str, path: &str, summary: &Value) -> Value {
    json!({
        "name": name,
        "title": event.name,
        "summary": summary,
        "contentType": "application/cloudevents+json",
        "correlationId": reference("components/correlationIds/request"),
        "headers": reference("components/schemas/Headers"),
        "payload": { "allOf": [
            reference("components/schemas/Envelope"),
            { "type": "object", "properties": {
                "type": { "const": event.name },
                "dataschema": { "pattern": format!("/schemas/{}$", path.replace('.', "\\.")) },
                "data": reference(&format!("components/schemas/{name}")),
            } },
        ] },
        "bindings": { "nats": {} },
    })
}

/// Adds an event's schema and its definitions to the document's. References are resolved against the whole document, so
/// definitions cannot stay inside.
fn hoist(name: &str, mut schema: Value, schemas: &mut Map<String, Value>) {
    let members = schema.as_object_mut().expect("a schema of a struct is an object");
    // They would declare a base URI and a dialect that are not AsyncAPI's.
    members.remove("$id");
    members.remove("$schema");
    let definitions = members.remove("$defs");
    for (name, mut definition) in definitions.as_ref().and_then(Value::as_object).cloned().unwrap_or_default()
    {
        point_to_components(&mut definition);
        let former = schemas.insert(name.clone(), definition.clone());
        assert!(former.is_none_or(|former| former == definition), "two definitions are called {name}");
    }
    point_to_components(&mut schema);
    schemas.insert(name.to_owned(), schema);
}

fn point_to_components(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(target) if name == "$ref" => {
                        *target = target.replace("#/$defs/", "#/components/schemas/");
                    }
                    _ => point_to_components(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(point_to_components),
        _ => {}
    }
}

/// The schema of an event as it is shown everywhere.
pub fn envelope() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let uuid = |description: &str| json!({ "type": "string", "format": "uuid", "description": description });
    let kinds = [ActorKind::User, ActorKind::ApiKey, ActorKind::System, ActorKind::Anonymous];
    let count = |description: &str, least: u8| json!({ "type": "integer", "format": "int64", "minimum": least, "description": description });
    json!({
        "description": "A CloudEvent 1.0 in structured mode, as canonical JSON (RFC 8785).",
        "type": "object",
        "properties": {
            "specversion": { "type": "string", "const": "1.0", "description": "The version of CloudEvents." },
            "id": uuid("The event's id, a UUIDv7."),
            "source": text("The app, as a path: `/v1/apps/<app_id>`."),
            "type": text("The event's name."),
            "time": { "type": "string", "format": "date-time", "description": "When it was appended, in UTC." },
            "subject": text("The stream it is in: `<aggregate>-<id>`."),
            "dataschema": {
                "type": "string",
                "format": "uri",
                "description": "The schema of `data`: `<origin>/schemas/events/<aggregate>/<type>.v<version>.json`. The origin \
                    is fixed by the journal's first event, `JournalCreated`, and never changes.",
            },
            "datacontenttype": { "type": "string", "const": "application/json", "description": "The type of `data`." },
            "position": count("Its place among all events of the instance.", 1),
            "prevposition": count("The position before it; 0 before the first.", 0),
            "streamversion": count("Its place in its stream: 1, 2, 3 … without gaps.", 1),
            "appid": text("The app it belongs to."),
            "actorkind": {
                "type": "string",
                "enum": kinds.map(ActorKind::as_str),
                "description": "What kind of caller made it happen.",
            },
            "actorid": text("Which one: the id of the user or of the API key; absent for the others."),
            "correlationid": uuid("Shared by all events that one request caused."),
            "causationid": uuid("The event it answers, if any."),
            "traceparent": text("The W3C trace context of the request, if it had one."),
            "data": { "type": "object", "description": "What happened." },
            "personal": {
                "type": "string",
                "contentEncoding": "base64url",
                "description": "The personal part, sealed with the key of the person; absent when there is none.",
            },
        },
        "required": [
            "specversion", "id", "source", "type", "time", "subject", "dataschema", "datacontenttype", "position",
            "prevposition", "streamversion", "appid", "actorkind", "correlationid", "data",
        ],
    })
}

fn headers() -> Value {
    let position = |description: &str| json!({ "type": "string", "pattern": "^(0|[1-9][0-9]*)$", "description": description });
    json!({
        "description": "NATS headers of every message.",
        "type": "object",
        "properties": {
            MESSAGE_ID: { "type": "string", "format": "uuid", "description": "The event's id." },
            POSITION: position("The member `position`, readable without parsing the body."),
            PREVIOUS_POSITION: position("The member `prevposition`."),
            PREVIOUS_ID: {
                "type": "string",
                "format": "uuid",
                "description": "The id of the event before it; nil before the first. Absent in messages of earlier versions.",
            },
            MARK: {
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]{43}$",
                "description": "A MAC over the message and its position that proves to Watchword's own nodes that one \
                    of them published it. Only they can check it. Absent in messages of earlier versions.",
            },
            TRACE_PARENT: { "type": "string", "description": "The W3C trace context of the request, if it had one." },
            CONTENT_TYPE: { "type": "string", "const": CLOUD_EVENT_JSON },
        },
        "required": [MESSAGE_ID, POSITION, PREVIOUS_POSITION, CONTENT_TYPE],
    })
}
