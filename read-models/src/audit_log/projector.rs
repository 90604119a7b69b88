//! Fills `audit_log`.

use std::sync::Arc;

use async_trait::async_trait;
use domain::Personal;
use event_store::{LookupKey, Sealer, StoreError, personal};
use schemas::envelope::RecordedEvent;
use serde::Deserialize;
use uuid::Uuid;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows;
use crate::sql::{Query, Rows, Transaction};
use crate::store::ReadModels;

/// After this event, identifying data no longer finds anything of the person.
const ERASED: &str = "UserErased";

const FORGET_ERASED: &str = "UPDATE audit_log_v2 SET ip = NULL, email = NULL
    WHERE coalesce(ip, email) IS NOT NULL AND EXISTS (
      SELECT 1 FROM audit_log_v2 e WHERE e.type = 'UserErased' AND e.person = audit_log_v2.person
    )";

/// Writes `audit_log`. It needs only the envelope, so that auditors can find even an event that no other projector can
/// read.
pub struct AuditLogProjector {
    sealer: Arc<Sealer>,
    lookup: Arc<LookupKey>,
}

impl AuditLogProjector {
    /// A projector with the keys of the read models.
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { sealer: Arc::clone(&models.sealer), lookup: Arc::clone(&models.lookup) }
    }

    /// The identifying data in an event. A damaged event is indexed without it.
    async fn personal(&self, event: &RecordedEvent) -> Result<Personal, StoreError> {
        match personal::open(&self.sealer, event).await {
            Ok(personal) => Ok(personal.unwrap_or_default()),
            Err(StoreError::Damaged(_)) => Ok(Personal::default()),
            Err(error) => Err(error),
        }
    }
}

/// What besides a person an event is about, by the names that all events have for them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SessionAndKey {
    session_id: Option<Uuid>,
    key_id: Option<Uuid>,
}

#[async_trait]
impl Projector for AuditLogProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["audit_log_v2"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        self.insert(tx, batch).await?;
        // A rebuilt model finds nothing to hash; this one must not know more.
        for person in batch.iter().filter(|event| event.recorded.name == ERASED) {
            let Some(person) = person.recorded.person else { continue };
            let forget = "UPDATE audit_log_v2 SET ip = NULL, email = NULL WHERE person = $1";
            tx.run(Query::new(forget).bind(person.0)).await?;
            // Where a person's own requests came from is sealed with their key, also in events about others.
            let forget = "UPDATE audit_log_v2 SET ip = NULL WHERE actor_kind = 'user' AND actor_id = $1";
            tx.run(Query::new(forget).bind(person.0.to_string())).await?;
        }
        // What was sealed at the moment of the erasure may come after it in the log.
        if let Some(first) = batch.first() {
            tx.run(Query::new(format!("{FORGET_ERASED} AND position >= $1")).bind(first.position())).await?;
        }
        Ok(())
    }

    async fn project_in_bulk(
        &self,
        tx: &mut Transaction,
        batch: &[ProjectedEvent],
    ) -> Result<(), ProjectError> {
        self.insert(tx, batch).await
    }

    /// Forgets those who were erased while it was filled: before, there was nothing of them to hash.
    async fn complete(&self, tx: &mut Transaction) -> Result<(), ProjectError> {
        tx.run(Query::new(FORGET_ERASED)).await?;
        let erased = tx.run(Query::new("SELECT person FROM audit_log_v2 WHERE type = 'UserErased'")).await?;
        for row in erased {
            let Some(person) = row.get::<Option<Vec<u8>>>("person")? else { continue };
            let forget = "UPDATE audit_log_v2 SET ip = NULL WHERE actor_kind = 'user' AND actor_id = $1 AND ip IS NOT NULL";
            tx.run(Query::new(forget).bind(rows::id(&person)?.to_string())).await?;
        }
        Ok(())
    }
}

impl AuditLogProjector {
    async fn insert(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut rows = Rows::new([
            "position",
            "at",
            "app_id",
            "type",
            "person",
            "actor_kind",
            "actor_id",
            "session",
            "key_id",
            "ip",
            "email",
        ]);
        for event in batch {
            let event = &*event.recorded;
            let actor = &event.metadata.actor;
            let app_id = &event.metadata.app_id;
            let personal = self.personal(event).await?;
            let ip = personal.ip.and_then(|ip| ip.parse().ok()).map(|ip| self.lookup.ip(app_id, ip));
            let email = personal.email.map(|email| self.lookup.email(app_id, &email));
            let SessionAndKey { session_id, key_id } = serde_json::from_str(&event.data).unwrap_or_default();
            rows.push([
                event.position.into(),
                event.at.into(),
                app_id.as_str().into(),
                event.name.as_str().into(),
                event.person.map(|person| person.0).into(),
                actor.kind.as_str().into(),
                actor.id.as_deref().into(),
                session_id.into(),
                key_id.into(),
                ip.map(Vec::from).into(),
                email.map(Vec::from).into(),
            ]);
        }
        tx.run_for(&rows, "INSERT INTO audit_log_v2 ({columns}) SELECT * FROM {rows}").await?;
        Ok(())
    }
}
