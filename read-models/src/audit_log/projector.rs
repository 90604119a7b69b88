//! Fills `audit_log`.

use async_trait::async_trait;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};

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

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut rows = Rows::new(["position", "at", "app_id", "type", "person", "actor_kind", "actor_id"]);
        for event in batch {
            let event = &*event.recorded;
            let actor = &event.metadata.actor;
            rows.push([
                event.position.into(),
                event.at.into(),
                event.metadata.app_id.as_str().into(),
                event.name.as_str().into(),
                event.person.map(|person| person.0).into(),
                actor.kind.as_str().into(),
                actor.id.as_deref().into(),
            ]);
        }
        tx.run_for(&rows, "INSERT INTO audit_log_v1 ({columns}) SELECT * FROM {rows}").await?;
        Ok(())
    }
}
