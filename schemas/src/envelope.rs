//! The envelope of a recorded event: a `CloudEvent` 1.0 in structured mode.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{AppId, LogOrigin, StreamId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{canonical, codec, event_schemas};

/// Up to here, integers are exact in JSON, and their canonical form is their digits.
const EXACT: u64 = 1 << 53;

/// What kind of caller made something happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A user with an access token.
    User,
    /// A holder of an API key.
    ApiKey,
    /// Watchword itself, or an operator at its command line.
    System,
    /// A caller who has not logged in.
    Anonymous,
}

impl ActorKind {
    /// The name in the envelope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::System => "system",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Who made something happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// What kind of caller.
    pub kind: ActorKind,
    /// The id of the user or API key. Absent for the other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Actor {
    /// A user.
    pub fn user(id: UserId) -> Self {
        Self { kind: ActorKind::User, id: Some(id.to_string()) }
    }

    /// An API key.
    pub fn api_key(id: domain::ApiKeyId) -> Self {
        Self { kind: ActorKind::ApiKey, id: Some(id.to_string()) }
    }

    /// Watchword itself.
    pub fn system() -> Self {
        Self { kind: ActorKind::System, id: None }
    }

    /// A caller who has not logged in.
    pub fn anonymous() -> Self {
        Self { kind: ActorKind::Anonymous, id: None }
    }
}

/// What all events of one append share: for whom, by whom and why they were written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The app they belong to.
    pub app_id: AppId,
    /// Who made them happen.
    pub actor: Actor,
    /// Shared by all events that one request caused.
    pub correlation_id: Uuid,
    /// The event they answer, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The `X-Request-Id` of the request. Not part of the envelope: callers choose it, and it means nothing to
    /// consumers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An event as recorded in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its place in the journal: 1, 2, 3 … without gaps.
    pub position: u64,
    /// Its id.
    pub id: Uuid,
    /// The stream it is in.
    pub stream: StreamId,
    /// Its place in the stream: 1, 2, 3 … without gaps.
    pub version: u64,
    /// The name it is stored under.
    pub name: String,
    /// The version of its shape.
    pub schema_version: u16,
    /// When it was appended, to the microsecond.
    pub at: Timestamp,
    /// For whom, by whom and why.
    pub metadata: Metadata,
    /// What happened: a canonical JSON object without the personal part.
    pub data: String,
    /// Whose event it is.
    pub person: Option<UserId>,
    /// The personal part, sealed with that person's key.
    pub personal: Option<Vec<u8>>,
}

impl RecordedEvent {
    /// The absolute URI of the schema of its payload. It is stable, because the origin of a journal never changes.
    pub fn data_schema(&self, origin: &LogOrigin) -> String {
        let path = event_schemas::path(self.stream.aggregate(), &self.name, self.schema_version);
        format!("{origin}/schemas/{path}")
    }

    /// The envelope as a `CloudEvent`. Every attribute conforms to `CloudEvents` 1.0: extensions are scalars, and their
    /// names lower-case letters.
    pub fn to_cloud_event(&self, origin: &LogOrigin) -> Value {
        let mut event = self.members();
        event.insert("dataschema".to_owned(), self.data_schema(origin).into());
        Value::Object(event)
    }

    /// The members that do not depend on the origin.
    pub fn members(&self) -> Map<String, Value> {
        let Metadata { app_id, actor, correlation_id, causation_id, traceparent, request_id: _ } =
            &self.metadata;
        // Data that is not JSON can only come from a damaged journal. It is passed on as a string: a reader that
        // validates against the schema notices, and one damaged row does not stop the feed with a panic.
        let data = serde_json::from_str(&self.data).unwrap_or_else(|_| Value::String(self.data.clone()));
        let mut event = Map::new();
        let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
        put("specversion", "1.0".into());
        put("id", self.id.to_string().into());
        put("source", format!("/v1/apps/{app_id}").into());
        put("type", self.name.as_str().into());
        put("time", self.at.to_string().into());
        put("subject", self.stream.as_str().into());
        put("datacontenttype", "application/json".into());
        put("position", self.position.into());
        put("prevposition", self.position.saturating_sub(1).into());
        put("streamversion", self.version.into());
        put("appid", app_id.as_str().into());
        put("actorkind", actor.kind.as_str().into());
        if let Some(id) = &actor.id {
            put("actorid", id.as_str().into());
        }
        put("correlationid", correlation_id.to_string().into());
        if let Some(causation_id) = causation_id {
            put("causationid", causation_id.to_string().into());
        }
        if let Some(traceparent) = traceparent {
            put("traceparent", traceparent.as_str().into());
        }
        put("data", data);
        if let Some(personal) = &self.personal {
            put("personal", URL_SAFE_NO_PAD.encode(personal).into());
        }
        event
    }

    /// The envelope as canonical JSON (RFC 8785): the same bytes wherever the service publishes it.
    pub fn to_canonical_json(&self, origin: &LogOrigin) -> String {
        // Nearly always, and then there is nothing to parse and to sort.
        let is_plain = self.position.max(self.version) <= EXACT && canonical::check(&self.data).is_ok();
        if is_plain { self.written_in_order(origin) } else { canonical_json(&self.to_cloud_event(origin)) }
    }

    /// The envelope as canonical JSON with the personal part opened: as the member `personal` of its data, where the schema of
    /// the event has it.
    pub fn to_canonical_json_with(&self, origin: &LogOrigin, personal: Value) -> String {
        let mut event = self.members();
        event.insert("dataschema".to_owned(), self.data_schema(origin).into());
        event.remove("personal");
        if let Some(Value::Object(data)) = event.get_mut("data") {
            data.insert("personal".to_owned(), personal);
        }
        canonical_json(&Value::Object(event))
    }

    /// The envelope, member by member in their canonical order, around data that is canonical already.
    fn written_in_order(&self, origin: &LogOrigin) -> String {
        let Metadata { app_id, actor, correlation_id, causation_id, traceparent, request_id: _ } =
            &self.metadata;
        let mut json = String::with_capacity(self.data.len() + 1024);
        let mut put = |name: &str, value: &str| {
            json.push(if json.is_empty() { '{' } else { ',' });
            json.extend(["\"", name, "\":", value]);
        };
        let text = |text: &str| Value::from(text).to_string();
        if let Some(id) = &actor.id {
            put("actorid", &text(id));
        }
        put("actorkind", &text(actor.kind.as_str()));
        put("appid", &text(app_id.as_str()));
        if let Some(id) = causation_id {
            put("causationid", &text(&id.to_string()));
        }
        put("correlationid", &text(&correlation_id.to_string()));
        put("data", &self.data);
        put("datacontenttype", "\"application/json\"");
        put("dataschema", &text(&self.data_schema(origin)));
        put("id", &text(&self.id.to_string()));
        if let Some(personal) = &self.personal {
            put("personal", &text(&URL_SAFE_NO_PAD.encode(personal)));
        }
        put("position", &self.position.to_string());
        put("prevposition", &self.position.saturating_sub(1).to_string());
        put("source", &text(&format!("/v1/apps/{app_id}")));
        put("specversion", "\"1.0\"");
        put("streamversion", &self.version.to_string());
        put("subject", &text(self.stream.as_str()));
        put("time", &text(&self.at.to_string()));
        if let Some(traceparent) = traceparent {
            put("traceparent", &text(traceparent));
        }
        put("type", &text(&self.name));
        json.push('}');
        json
    }
}

/// Why bytes are not an event of this journal.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is not an envelope.
    #[error("it is no envelope of an event")]
    Json(#[from] serde_json::Error),
    /// A member has an unexpected value.
    #[error("{0} is not what it should be")]
    Member(&'static str),
    /// Its payload cannot be decoded.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

/// The members of the envelope that are not derived from others.
#[derive(Deserialize)]
struct CloudEvent {
    id: Uuid,
    #[serde(rename = "type")]
    name: String,
    time: Timestamp,
    subject: StreamId,
    dataschema: String,
    position: u64,
    streamversion: u64,
    appid: AppId,
    actorkind: ActorKind,
    actorid: Option<String>,
    correlationid: Uuid,
    causationid: Option<Uuid>,
    traceparent: Option<String>,
    data: Map<String, Value>,
    personal: Option<String>,
}

impl RecordedEvent {
    /// Reads what [`RecordedEvent::to_canonical_json`] wrote, except the request id, which is in no envelope. An event
    /// that this version cannot decode is refused, because its person would be unknown.
    pub fn from_canonical_json(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let event: CloudEvent = serde_json::from_slice(bytes)?;
        let version = event.dataschema.strip_suffix(".json").and_then(|path| path.rsplit_once(".v"));
        let schema_version = version.and_then(|(_, version)| version.parse().ok());
        let schema_version = schema_version.ok_or(EnvelopeError::Member("dataschema"))?;
        let personal = event.personal.map(|sealed| URL_SAFE_NO_PAD.decode(sealed));
        let personal = personal.transpose().map_err(|_| EnvelopeError::Member("personal"))?;
        let data = canonical_json(&Value::Object(event.data));
        let decoded = codec::decode(&event.subject, &event.name, schema_version, &data, None)?;
        Ok(Self {
            position: event.position,
            id: event.id,
            stream: event.subject,
            version: event.streamversion,
            name: event.name,
            schema_version,
            at: event.time,
            metadata: Metadata {
                app_id: event.appid,
                actor: Actor { kind: event.actorkind, id: event.actorid },
                correlation_id: event.correlationid,
                causation_id: event.causationid,
                request_id: None,
                traceparent: event.traceparent,
            },
            data,
            person: decoded.person(),
            personal,
        })
    }
}

/// Canonical JSON (RFC 8785) of a value built here.
pub(crate) fn canonical_json(value: &Value) -> String {
    serde_json_canonicalizer::to_string(value).expect("a JSON value has string keys and finite numbers")
}
