//! Rows of the journal's tables, read back; events only if their MACs hold.

use domain::{StreamId, Timestamp, UserId};
use schemas::envelope::RecordedEvent;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::SqliteJournal;
use crate::journal::{StoreError, StoredIdempotency};
use crate::mac::Row as EventRow;

pub(super) fn stored(fingerprint: &[u8], first: i64, last: i64) -> Result<StoredIdempotency, StoreError> {
    let fingerprint = fingerprint
        .try_into()
        .map_err(|_| StoreError::Damaged("a fingerprint is not 32 bytes long".to_owned()))?;
    Ok(StoredIdempotency { fingerprint, first: first.cast_unsigned(), last: last.cast_unsigned() })
}

/// A row of events, as it is stored.
pub(super) struct Columns<'r> {
    pub(super) position: i64,
    pub(super) event: EventRow<'r>,
    pub(super) mac: Option<&'r [u8]>,
}

pub(super) fn columns(row: &SqliteRow) -> Result<Columns<'_>, sqlx::Error> {
    let event = EventRow {
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
    };
    // A file of an earlier format, opened for reading only, has another column instead, or none.
    let mac = match row.try_get("mac") {
        Err(sqlx::Error::ColumnNotFound(_)) => match row.try_get("checksum") {
            Err(sqlx::Error::ColumnNotFound(_)) => None,
            found => found?,
        },
        found => found?,
    };
    Ok(Columns { position: row.try_get("position")?, event, mac })
}

impl SqliteJournal {
    pub(super) fn recorded(&self, row: &SqliteRow) -> Result<RecordedEvent, StoreError> {
        let position: i64 = row.try_get("position")?;
        let damaged =
            |what: &str| StoreError::Damaged(format!("the {what} of event {position} cannot be read"));
        let Columns { event, mac, .. } =
            columns(row).map_err(|error| self.macs.unreadable(position, &error))?;
        self.macs.check_event(position, position, &event, mac)?;
        let uuid = |bytes: &[u8], what: &str| Uuid::from_slice(bytes).map_err(|_| damaged(what));
        Ok(RecordedEvent {
            position: position.cast_unsigned(),
            id: uuid(event.id, "id")?,
            stream: StreamId::from_stored(event.stream.to_owned()),
            version: event.version.cast_unsigned(),
            name: event.name.to_owned(),
            schema_version: u16::try_from(event.schema_version).map_err(|_| damaged("schema version"))?,
            at: Timestamp::from_microsecond(event.at).map_err(|_| damaged("time"))?,
            metadata: serde_json::from_str(event.metadata).map_err(|_| damaged("metadata"))?,
            data: event.data.to_owned(),
            person: event.person.map(|bytes| uuid(bytes, "person").map(UserId)).transpose()?,
            personal: event.personal.map(<[u8]>::to_vec),
        })
    }
}
