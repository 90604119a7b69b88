//! Fills `audit_log`.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::{hex_id, json_rows};

/// Writes `audit_log`. It needs the envelope only, so that an event that no other projector can read is still there
/// for auditors.
pub struct AuditLogProjector;

#[async_trait]
impl Projector for AuditLogProjector {
    fn name(&self) -> &'static str {
        "audit_log"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["audit_log_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut SqliteConnection, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let rows: Vec<_> = batch
            .iter()
            .map(|event| {
                let event = &*event.recorded;
                let actor = &event.metadata.actor;
                (
                    event.position,
                    event.at.as_microsecond(),
                    event.metadata.app_id.as_str(),
                    event.name.as_str(),
                    event.person.map(|person| hex_id(person.0)),
                    actor.kind.as_str(),
                    actor.id.as_deref(),
                )
            })
            .collect();
        sqlx::query(
            "INSERT INTO audit_log_v1 (position, at, app_id, type, person, actor_kind, actor_id)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), value ->> 5, value ->> 6
             FROM json_each(?1)",
        )
        .bind(json_rows(&rows))
        .execute(tx)
        .await?;
        Ok(())
    }
}
