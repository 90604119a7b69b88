//! Events as they are exported: the lines that an auditor reads, who has nothing but them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{AppId, Event, StreamId, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::canonical::{self, NotCanonical};
use crate::envelope::ActorKind;
use crate::{codec, event_schemas};

/// Why a line is not an event as [`crate::RecordedEvent::to_canonical_json`] writes it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is no text.
    #[error("it is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// It is not canonical JSON.
    #[error("it is not canonical JSON (RFC 8785), {0}")]
    NotCanonical(#[from] NotCanonical),
    /// It lacks a member, has an unknown one, or one of another type.
    #[error("it is no envelope of an event: {0}")]
    Json(#[from] serde_json::Error),
    /// A member has an unexpected value.
    #[error("its {0} is not what it should be")]
    Member(&'static str),
}

/// All members of an envelope.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'l> {
    #[serde(borrow)]
    specversion: Cow<'l, str>,
    #[serde(borrow)]
    id: Cow<'l, str>,
    #[serde(borrow)]
    source: Cow<'l, str>,
    #[serde(borrow, rename = "type")]
    name: Cow<'l, str>,
    #[serde(borrow)]
    time: Cow<'l, str>,
    #[serde(borrow)]
    subject: Cow<'l, str>,
    #[serde(borrow)]
    dataschema: Cow<'l, str>,
    #[serde(borrow)]
    datacontenttype: Cow<'l, str>,
    position: u64,
    prevposition: u64,
    streamversion: u64,
    #[serde(borrow)]
    appid: Cow<'l, str>,
    actorkind: ActorKind,
    #[serde(borrow, rename = "actorid", default, deserialize_with = "text")]
    _actorid: Option<Cow<'l, str>>,
    #[serde(borrow)]
    correlationid: Cow<'l, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    causationid: Option<Cow<'l, str>>,
    #[serde(borrow, rename = "traceparent", default, deserialize_with = "text")]
    _traceparent: Option<Cow<'l, str>>,
    #[serde(borrow)]
    data: &'l RawValue,
    #[serde(borrow, default, deserialize_with = "text")]
    personal: Option<Cow<'l, str>>,
}

/// A member that is left out, and never `null`, if there is nothing in it.
fn text<'de: 'l, 'l, D: Deserializer<'de>>(member: D) -> Result<Option<Cow<'l, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    Text::deserialize(member).map(|text| Some(text.0))
}

/// An event that was read from a line, and that [`crate::RecordedEvent::to_canonical_json`] would write as that line.
#[derive(Clone, Debug)]
pub struct ExportedEvent<'l> {
    /// Its place in the journal.
    pub position: u64,
    /// Its id.
    pub id: Uuid,
    /// The stream it is in.
    pub stream: Cow<'l, str>,
    /// Its place in the stream.
    pub version: u64,
    /// The name it is stored under.
    pub name: Cow<'l, str>,
    /// The version of its shape.
    pub schema_version: u16,
    /// The origin of the journal.
    pub origin: Cow<'l, str>,
    /// What happened, as JSON, without the personal part.
    pub data: &'l str,
    /// The personal part, sealed.
    pub personal: Option<Vec<u8>>,
}

impl<'l> ExportedEvent<'l> {
    /// Reads a line, without its line break.
    pub fn read(line: &'l [u8]) -> Result<Self, ExportError> {
        let line = std::str::from_utf8(line)?;
        canonical::check(line)?;
        let event: Envelope<'l> = serde_json::from_str(line)?;
        let (id, personal) = event.check()?;
        let Envelope { name, subject, dataschema, .. } = event;
        let (origin, schema_version) = schema(&subject, &name, &dataschema)?;
        Ok(Self {
            position: event.position,
            id,
            version: event.streamversion,
            schema_version,
            origin: match dataschema {
                Cow::Borrowed(text) => Cow::Borrowed(&text[..origin]),
                Cow::Owned(text) => Cow::Owned(text[..origin].to_owned()),
            },
            stream: subject,
            name,
            data: event.data.get(),
            personal,
        })
    }

    /// What happened. The personal part, which is sealed, reads as absent.
    pub fn decode(&self) -> Result<Event, codec::CodecError> {
        let stream = StreamId::from_stored(self.stream.clone().into_owned());
        codec::decode(&stream, &self.name, self.schema_version, self.data, None)
    }
}

impl Envelope<'_> {
    /// Checks each member by itself, and those that others determine.
    fn check(&self) -> Result<(Uuid, Option<Vec<u8>>), ExportError> {
        let require = |holds: bool, member| if holds { Ok(()) } else { Err(ExportError::Member(member)) };
        require(self.specversion == "1.0", "specversion")?;
        require(self.datacontenttype == "application/json", "datacontenttype")?;
        require(AppId::parse(&*self.appid).is_ok(), "appid")?;
        require(self.source.strip_prefix("/v1/apps/") == Some(&*self.appid), "source")?;
        require(self.position >= 1, "position")?;
        require(self.prevposition == self.position - 1, "prevposition")?;
        require(self.streamversion >= 1, "streamversion")?;
        let time: Option<Timestamp> = self.time.parse().ok();
        require(time.is_some_and(|time| time.to_string() == self.time), "time")?;
        require(uuid(&self.correlationid).is_some(), "correlationid")?;
        require(self.causationid.as_ref().is_none_or(|id| uuid(id).is_some()), "causationid")?;
        require(self.data.get().starts_with('{'), "data")?;
        // The kinds that have an id, and those that have none, are not told apart: former versions may have differed.
        let _ = self.actorkind;
        let personal = self.personal.as_deref().map(|sealed| URL_SAFE_NO_PAD.decode(sealed));
        let personal = personal.transpose().map_err(|_| ExportError::Member("personal"))?;
        Ok((uuid(&self.id).ok_or(ExportError::Member("id"))?, personal))
    }
}

/// An id in the form that it is written in.
fn uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(id)
}

/// The length of the origin in a schema's URI, and the version of the shape. The schema must be one that this version knows.
fn schema(subject: &str, name: &str, uri: &str) -> Result<(usize, u16), ExportError> {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| event_schemas::all().into_keys().collect());
    const SCHEMAS: &str = "/schemas/";
    let wrong = ExportError::Member("dataschema");
    let Some(at) = uri.find("/schemas/events/") else { return Err(wrong) };
    let path = &uri[at + SCHEMAS.len()..];
    let Some((rest, version)) = path.strip_suffix(".json").and_then(|path| path.rsplit_once(".v")) else {
        return Err(wrong);
    };
    let aggregate = subject.split('-').next().unwrap_or_default();
    let names = rest.strip_prefix("events/").and_then(|rest| rest.split_once('/'));
    match version.parse() {
        Ok(version) if names == Some((aggregate, name)) && KNOWN.contains(path) => Ok((at, version)),
        _ => Err(wrong),
    }
}
