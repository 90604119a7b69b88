//! Fills `sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::session::{SessionEvent, SessionStarted};
use domain::{Event, Personal, SessionId, Timestamp};
use event_store::Sealer;
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::{hex, hex_id, json_rows, seal};

/// Writes `sessions`.
pub struct SessionsProjector {
    sealer: Arc<Sealer>,
}

impl SessionsProjector {
    /// A projector that seals with this sealer.
    pub fn new(sealer: Arc<Sealer>) -> Self {
        Self { sealer }
    }
}

/// What a batch does to one session, added up.
#[derive(Default)]
struct Change<'a> {
    started: Option<&'a SessionStarted>,
    refreshed: Option<(Timestamp, Timestamp)>,
    revoked: Option<(Timestamp, String)>,
}

#[async_trait]
impl Projector for SessionsProjector {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["sessions_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut SqliteConnection, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut changes: BTreeMap<SessionId, Change<'_>> = BTreeMap::new();
        for event in batch {
            match event.event()? {
                Event::Session(SessionEvent::SessionStarted(started)) => {
                    changes.entry(started.session_id).or_default().started = Some(started);
                }
                Event::Session(SessionEvent::SessionRefreshed(refreshed)) => {
                    changes.entry(refreshed.session_id).or_default().refreshed =
                        Some((refreshed.at, refreshed.idle_expires_at));
                }
                Event::Session(SessionEvent::SessionRevoked(revoked)) => {
                    changes.entry(revoked.session_id).or_default().revoked =
                        Some((revoked.at, name_of(revoked.reason)));
                }
                Event::Session(SessionEvent::RefreshTokenReused(_))
                | Event::App(_)
                | Event::User(_)
                | Event::Lockout(_) => {}
            }
        }
        self.write(tx, &changes).await
    }
}

impl SessionsProjector {
    async fn write(
        &self,
        tx: &mut SqliteConnection,
        changes: &BTreeMap<SessionId, Change<'_>>,
    ) -> Result<(), ProjectError> {
        let (mut started, mut refreshed, mut revoked) = (vec![], vec![], vec![]);
        for (id, change) in changes {
            let id_hex = hex_id(id.0);
            if let Some(event) = change.started {
                started.push(self.new_row(event).await?);
            }
            if let Some((at, idle)) = change.refreshed {
                refreshed.push((id_hex.clone(), at.as_microsecond(), idle.as_microsecond()));
            }
            if let Some((at, reason)) = &change.revoked {
                revoked.push((id_hex, at.as_microsecond(), reason));
            }
        }
        if !started.is_empty() {
            sqlx::query(
                "INSERT INTO sessions_v1 (session_id, user_id, app_id, method, started_at, refreshed_at,
                   expires_at, idle_expires_at, sealed)
                 SELECT unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 4,
                   value ->> 5, value ->> 6, unhex(value ->> 7) FROM json_each(?1)",
            )
            .bind(json_rows(&started))
            .execute(&mut *tx)
            .await?;
        }
        if !refreshed.is_empty() {
            sqlx::query(
                "UPDATE sessions_v1 SET refreshed_at = change.value ->> 1, idle_expires_at = change.value ->> 2
                 FROM json_each(?1) AS change WHERE session_id = unhex(change.value ->> 0)",
            )
            .bind(json_rows(&refreshed))
            .execute(&mut *tx)
            .await?;
        }
        if !revoked.is_empty() {
            sqlx::query(
                "UPDATE sessions_v1 SET revoked_at = change.value ->> 1, reason = change.value ->> 2
                 FROM json_each(?1) AS change WHERE session_id = unhex(change.value ->> 0)",
            )
            .bind(json_rows(&revoked))
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }

    async fn new_row(&self, event: &SessionStarted) -> Result<impl Serialize + use<>, ProjectError> {
        let personal = Personal {
            ip: event.personal.ip.clone(),
            user_agent: event.personal.user_agent.clone(),
            ..Personal::default()
        };
        let sealed = seal(&self.sealer, "sessions_v1", event.session_id.0, event.user_id, &personal).await?;
        Ok((
            hex_id(event.session_id.0),
            hex_id(event.user_id.0),
            event.app_id.to_string(),
            name_of(event.method),
            event.at.as_microsecond(),
            event.expires_at.as_microsecond(),
            event.idle_expires_at.as_microsecond(),
            sealed.map(|sealed| hex(&sealed)),
        ))
    }
}

/// The name that an enum without data is stored under.
fn name_of(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("it is a unit variant"),
    }
}
