//! Converts between events and their stored form: a name, a version, canonical JSON, and the personal part apart.

use std::sync::LazyLock;

use cqrs_es::persist::{EventUpcaster, SemanticVersionEventUpcaster, SerializedEvent};
use domain::organization::{MemberRemoved, OrganizationEvent, RemovalReason};
use domain::session::{RevocationReason, SessionEvent};
use domain::user::UserEvent;
use domain::{Event, Personal, StreamId, UserId};
use serde_json::Value;

use crate::envelope::canonical_json;

/// The member of an event that is split off and sealed.
const PERSONAL: &str = "personal";

/// An event ready to be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The name it is stored under.
    pub name: &'static str,
    /// The version of its shape.
    pub schema_version: u16,
    /// What happened: a canonical JSON object without the personal part.
    pub data: String,
    /// Whose event it is.
    pub person: Option<UserId>,
    /// The personal part as JSON, not yet sealed. Absent when there is nothing in it.
    pub personal: Option<Vec<u8>>,
}

/// The personal part is in clear text here, so `Debug` leaves it out.
impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let personal = self.personal.as_ref().map(|_| "…");
        f.debug_struct("Encoded")
            .field("name", &self.name)
            .field("schema_version", &self.schema_version)
            .field("data", &self.data)
            .field("person", &self.person)
            .field("personal", &personal)
            .finish()
    }
}

/// A stored event that this version of the code cannot read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the names of the fields say it")]
pub enum CodecError {
    /// The stream belongs to an aggregate that this code does not know.
    #[error("{0} is a stream of an unknown aggregate")]
    UnknownAggregate(StreamId),
    /// Its shape is newer than this code.
    #[error("{name} v{stored} is newer than this version of Watchword, which reads up to v{known}")]
    NewerVersion {
        name: String,
        stored: u16,
        /// The newest version this code knows.
        known: u16,
    },
    /// Its name is unknown or its data has another shape.
    #[error("cannot read {name} v{schema_version} of {stream}")]
    Data { stream: StreamId, name: String, schema_version: u16, source: serde_json::Error },
    /// Its personal part has another shape. The cause is left out, because it would quote personal data.
    #[error("cannot read the personal part of {name} v{schema_version} of {stream}")]
    Personal { stream: StreamId, name: String, schema_version: u16 },
}

/// Encodes an event into its stored form.
pub fn encode(event: &Event) -> Encoded {
    encode_with(event, event.personal().unwrap_or(&Personal::default()))
}

/// Encodes an event with the given personal part instead of its own.
pub fn encode_with(event: &Event, personal: &Personal) -> Encoded {
    let mut data = payload(event);
    if let Value::Object(members) = &mut data {
        members.remove(PERSONAL);
    }
    let personal = (!personal.is_empty()).then(|| {
        let value = serde_json::to_value(personal).expect("personal parts are plain structs");
        canonical_json(&value).into_bytes()
    });
    Encoded {
        name: event.name(),
        schema_version: event.version(),
        data: canonical_json(&data),
        person: event.person(),
        personal,
    }
}

/// Whether an event carries its request's origin, sealed. All events made by a request do, except refreshes, which record
/// it only when it has changed, and those of an erasure, which destroys the key that would open it.
pub fn tells_where_from(event: &Event) -> bool {
    match event {
        Event::Session(SessionEvent::SessionRevoked(revoked)) => revoked.reason != RevocationReason::Erased,
        Event::Organization(OrganizationEvent::MemberRemoved(MemberRemoved { reason, .. })) => {
            *reason != RemovalReason::Erased
        }
        Event::Session(SessionEvent::SessionRefreshed(_))
        | Event::Memberships(_)
        | Event::RoleTemplates(_)
        | Event::User(UserEvent::UserErased(_))
        | Event::Delivery(_)
        | Event::Journal(_) => false,
        _ => true,
    }
}

/// Decodes an event from its stored form. Without the personal part (the person was erased) its members read as absent.
pub fn decode(
    stream: &StreamId,
    name: &str,
    schema_version: u16,
    data: &str,
    personal: Option<&[u8]>,
) -> Result<Event, CodecError> {
    let unreadable =
        |source| CodecError::Data { stream: stream.clone(), name: name.to_owned(), schema_version, source };
    let upcasted = upcast(&UPCASTERS, stream, name, schema_version, data).map_err(unreadable)?;
    // Members that a former version stored in the open and the present one seals.
    let (upcasted, unsealed) =
        upcasted.map_or((None, Personal::default()), |it| (Some(it.data), it.personal));
    let data = upcasted.as_deref().unwrap_or(data);
    let read =
        |data: &str| tagged(stream, name, data).ok_or_else(|| CodecError::UnknownAggregate(stream.clone()));
    let mut event = match read(data)? {
        Ok(event) => event,
        Err(error) => refused_by_now(stream, name, data).ok_or_else(|| unreadable(error))?,
    };
    let known = event.version();
    if schema_version > known {
        return Err(CodecError::NewerVersion { name: name.to_owned(), stored: schema_version, known });
    }
    if let Some(slot) = event.personal_mut() {
        // A member of this name in the data is not the sealed part and must not pass for it.
        *slot = unsealed;
        if let Some(personal) = personal {
            let sealed: Personal = serde_json::from_slice(personal).map_err(|_| CodecError::Personal {
                stream: stream.clone(),
                name: name.to_owned(),
                schema_version,
            })?;
            let reason = slot.reason.take();
            *slot = Personal { reason: sealed.reason.or(reason), ..sealed };
        }
    }
    Ok(event)
}

/// Changes of shape since the first version of an event, oldest first. Each brings one event from one version to the
/// next; a golden file per version proves that it is still read.
static UPCASTERS: LazyLock<Vec<Box<dyn EventUpcaster>>> =
    LazyLock::new(|| vec![seal_reason("UserBanned", "2"), sign_at_once("SigningKeyActivated", "2")]);

/// Says what the version before meant: the key signs from the moment of the event.
fn sign_at_once(name: &str, version: &str) -> Box<dyn EventUpcaster> {
    let change = |mut data: Value| {
        if let Some(members) = data.as_object_mut()
            && let Some(at) = members.get("at").cloned()
        {
            members.insert("signs_from".to_owned(), at);
        }
        data
    };
    Box::new(SemanticVersionEventUpcaster::new(name, version, Box::new(change)))
}

/// Moves a reason, which the previous version stored in the open, to the personal part.
fn seal_reason(name: &str, version: &str) -> Box<dyn EventUpcaster> {
    let change = |mut data: Value| {
        if let Some(members) = data.as_object_mut() {
            let reason = members.remove("reason").unwrap_or_default();
            members.insert(PERSONAL.to_owned(), serde_json::json!({ "reason": reason }));
        }
        data
    };
    Box::new(SemanticVersionEventUpcaster::new(name, version, Box::new(change)))
}

/// Data in the present shape.
struct Upcasted {
    data: String,
    /// What upcasters moved here; never a member of the data that merely has this name.
    personal: Personal,
}

/// The data in the present shape, or `None` if it already has it.
fn upcast(
    upcasters: &[Box<dyn EventUpcaster>],
    stream: &StreamId,
    name: &str,
    schema_version: u16,
    data: &str,
) -> Result<Option<Upcasted>, serde_json::Error> {
    let stored = schema_version.to_string();
    if !upcasters.iter().any(|upcaster| upcaster.can_upcast(name, &stored)) {
        return Ok(None);
    }
    let mut payload: Value = serde_json::from_str(data)?;
    if let Value::Object(members) = &mut payload {
        members.remove(PERSONAL);
    }
    let event = SerializedEvent {
        aggregate_id: stream.as_str().to_owned(),
        sequence: 0,
        aggregate_type: stream.aggregate().to_owned(),
        event_type: name.to_owned(),
        event_version: stored,
        payload,
        metadata: Value::Null,
    };
    let mut event = upcasters.iter().fold(event, |event, upcaster| {
        if upcaster.can_upcast(&event.event_type, &event.event_version) {
            upcaster.upcast(event)
        } else {
            event
        }
    });
    let personal = event.payload.as_object_mut().and_then(|members| members.remove(PERSONAL));
    let personal = personal.map(serde_json::from_value).transpose()?.unwrap_or_default();
    Ok(Some(Upcasted { data: canonical_json(&event.payload), personal }))
}

/// Decodes an event with values that were valid when it was stored but that today's rules refuse ([`domain::stored`]): it
/// is read without them, because a new rule must not make a journal unreadable. The stored bytes stay unchanged.
fn refused_by_now(stream: &StreamId, name: &str, data: &str) -> Option<Event> {
    let mut data: Value = serde_json::from_str(data).ok()?;
    match name {
        "AppCreated" | "AppSettingsChanged" => {
            domain::stored::leave_out_refused(data.get_mut("settings")?);
        }
        "MagicLinkIssued" => domain::stored::replace_refused(data.get_mut("redirect_uri")?),
        _ => return None,
    }
    tagged(stream, name, &data.to_string())?.ok()
}

/// The payload within the `{"type": …, "data": …}` that events serialize to.
fn payload(event: &Event) -> Value {
    match serde_json::to_value(event).expect("events are plain structs") {
        Value::Object(mut members) => members.remove("data").unwrap_or_default(),
        _ => unreachable!("events are adjacently tagged"),
    }
}

/// Decodes the tagged form, if the stream belongs to a known aggregate. The tag comes first, so that serde reads the data
/// directly into the payload's type.
fn tagged(stream: &StreamId, name: &str, data: &str) -> Option<Result<Event, serde_json::Error>> {
    let text = format!(r#"{{"type":{},"data":{data}}}"#, Value::from(name));
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let event = Event::deserialize(stream.aggregate(), &mut deserializer)?;
    Some(event.and_then(|event| deserializer.end().map(|()| event)))
}

#[cfg(test)]
mod tests {
    use cqrs_es::persist::{EventUpcaster, SemanticVersionEventUpcaster};
    use domain::app::AppEvent;
    use domain::{AppId, Event, StreamId, UserId};
    use serde_json::{Value, json};

    use super::{decode, upcast};

    fn renames(from: &'static str, to: &'static str, version: &str) -> Box<dyn EventUpcaster> {
        let rename = move |mut data: Value| {
            if let Some(members) = data.as_object_mut()
                && let Some(value) = members.remove(from)
            {
                members.insert(to.to_owned(), value);
            }
            data
        };
        Box::new(SemanticVersionEventUpcaster::new("Moved", version, Box::new(rename)))
    }

    /// Values that former versions accepted under other rules for hosts and names.
    #[test]
    fn what_is_refused_by_now_is_left_out_and_the_rest_is_read() {
        let at = "2026-01-01T00:00:00Z";
        let settings = json!({
            "redirect_uris": ["https://*.example/cb", "https://app.example/cb", "https://a..b/", "https://a_b.example/"],
            "origins": ["https://*", "https://app.example", "https://$(id).example"],
            "links": {"password_reset": "https://*.example/reset", "invitation": "https://app.example/join"},
            "branding": {"logo": "https://*/x.png", "name": "\u{200b}", "colour": "#0a66c2", "sender": "a@acme.example"},
            "access_token_ttl": 60,
        });
        let app = StreamId::app(&AppId::parse("acme").expect("valid"));
        for (name, data) in [
            ("AppCreated", json!({"app_id": "acme", "name": "Acme", "settings": settings, "at": at})),
            ("AppSettingsChanged", json!({"name": "Acme", "settings": settings, "at": at})),
        ] {
            let event = decode(&app, name, 1, &data.to_string(), None).expect("it is read");
            let settings = match event {
                Event::App(AppEvent::AppCreated(event)) => event.settings,
                Event::App(AppEvent::AppSettingsChanged(event)) => event.settings,
                other => panic!("{other:?}"),
            };
            let left = serde_json::to_value(&settings).expect("an object");
            assert_eq!(left["redirect_uris"], json!(["https://app.example/cb"]));
            assert_eq!(left["origins"], json!(["https://app.example"]));
            assert_eq!(left["links"], json!({"invitation": "https://app.example/join"}));
            assert_eq!(left["branding"], json!({"colour": "#0a66c2", "sender": "a@acme.example"}));
            assert_eq!(left["access_token_ttl"], 60);
            // A value that was never valid stays unreadable.
            let wrong =
                json!({"name": "Acme", "settings": {"access_token_ttl": "x"}, "at": at, "app_id": "acme"});
            assert!(decode(&app, name, 1, &wrong.to_string(), None).is_err());
        }
    }

    #[test]
    fn upcasters_run_one_after_the_other_from_the_stored_version_on() {
        let upcasters = [renames("a", "b", "2"), renames("b", "c", "3")];
        let stream = StreamId::user(UserId(uuid::Uuid::nil()));
        let run = |name, version, data| {
            upcast(&upcasters, &stream, name, version, data).expect("JSON").map(|upcasted| upcasted.data)
        };
        assert_eq!(run("Moved", 1, r#"{"a":1}"#).as_deref(), Some(r#"{"c":1}"#));
        assert_eq!(run("Moved", 2, r#"{"b":1}"#).as_deref(), Some(r#"{"c":1}"#));
        assert_eq!(run("Moved", 3, r#"{"c":1}"#), None);
        assert_eq!(run("Other", 1, r#"{"a":1}"#), None);
    }
}
