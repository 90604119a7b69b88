//! Rows of the table of events, read back as events whose MACs hold.

use domain::{StreamId, Timestamp, UserId};
use schemas::envelope::RecordedEvent;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::PostgresJournal;
use crate::journal::StoreError;
use crate::mac::Row as EventRow;

/// A row of events, as it is stored.
pub(super) struct Columns<'r> {
    pub(super) position: i64,
    id: Uuid,
    stream: &'r str,
    version: i64,
    name: &'r str,
    schema_version: i32,
    at: i64,
    app_id: &'r str,
    metadata: &'r str,
    data: &'r str,
    person: Option<Uuid>,
    personal: Option<&'r [u8]>,
    pub(super) mac: Option<&'r [u8]>,
}

impl Columns<'_> {
    /// Everything except its position.
    pub(super) fn event(&self) -> EventRow<'_> {
        EventRow {
            id: self.id.as_bytes(),
            stream: self.stream,
            version: self.version,
            name: self.name,
            schema_version: self.schema_version.into(),
            at: self.at,
            app_id: self.app_id,
            metadata: self.metadata,
            data: self.data,
            person: self.person.as_ref().map(|person| person.as_bytes().as_slice()),
            personal: self.personal,
        }
    }
}

pub(super) fn columns(row: &PgRow) -> Result<Columns<'_>, sqlx::Error> {
    Ok(Columns {
        position: row.try_get("position")?,
        id: row.try_get("id")?,
        stream: row.try_get("stream")?,
        version: row.try_get("version")?,
        name: row.try_get("type")?,
        schema_version: row.try_get("schema_version")?,
        at: row.try_get("at")?,
        app_id: row.try_get("app_id")?,
        metadata: row.try_get("metadata")?,
        data: row.try_get("data")?,
        person: row.try_get("person")?,
        personal: row.try_get("personal")?,
        mac: row.try_get("mac")?,
    })
}

impl PostgresJournal {
    pub(super) fn recorded(&self, row: &PgRow) -> Result<RecordedEvent, StoreError> {
        let position: i64 = row.try_get("position")?;
        let damaged =
            |what: &str| StoreError::Damaged(format!("the {what} of event {position} cannot be read"));
        let columns = columns(row).map_err(|error| self.macs.unreadable(position, &error))?;
        self.macs.check_event(position, 0, &columns.event(), columns.mac)?;
        self.history.seen.see(position.cast_unsigned(), columns.id);
        Ok(RecordedEvent {
            position: position.cast_unsigned(),
            id: columns.id,
            stream: StreamId::from_stored(columns.stream.to_owned()),
            version: columns.version.cast_unsigned(),
            name: columns.name.to_owned(),
            schema_version: u16::try_from(columns.schema_version).map_err(|_| damaged("schema version"))?,
            at: Timestamp::from_microsecond(columns.at).map_err(|_| damaged("time"))?,
            metadata: serde_json::from_str(columns.metadata).map_err(|_| damaged("metadata"))?,
            data: columns.data.to_owned(),
            person: columns.person.map(UserId),
            personal: columns.personal.map(<[u8]>::to_vec),
        })
    }
}
