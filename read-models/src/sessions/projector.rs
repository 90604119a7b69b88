//! Fills `sessions`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::session::{LoginMethod, RevocationReason, SessionEvent, SessionStarted};
use domain::user::UserEvent;
use domain::{Event, Personal, SessionId, Timestamp, UserId};
use event_store::Sealer;
use serde::Serialize;

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::rows::seal;
use crate::sql::{Query, Rows, Transaction, Value};
use crate::store::ReadModels;

/// Writes `sessions`.
pub struct SessionsProjector {
    sealer: Arc<Sealer>,
}

impl SessionsProjector {
    /// A projector with the keys of the read models.
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { sealer: Arc::clone(&models.sealer) }
    }
}

/// What ended all sessions of a user, or all except one.
struct End {
    user_id: UserId,
    kept: Option<SessionId>,
    at: Timestamp,
    reason: RevocationReason,
}

/// A session that began before such an event is over, whether or not it was revoked individually: the log cannot name
/// one that began at the same moment. Sessions that begin after the event have seen it.
fn end_of(event: &UserEvent) -> Option<End> {
    let (user_id, kept, at, reason) = match event {
        UserEvent::EmailVerified(event) if event.earlier_access_ended => {
            (event.user_id, None, event.at, RevocationReason::EmailVerified)
        }
        UserEvent::EmailChanged(event) => {
            (event.user_id, Some(event.session_id), event.at, RevocationReason::EmailChanged)
        }
        UserEvent::PasswordReset(event) => (event.user_id, None, event.at, RevocationReason::PasswordReset),
        UserEvent::PasswordChanged(event) => {
            (event.user_id, Some(event.session_id), event.at, RevocationReason::PasswordChanged)
        }
        UserEvent::UserBanned(event) if event.access_ended => {
            (event.user_id, None, event.at, RevocationReason::Ban)
        }
        UserEvent::RoleGranted(event) if event.access_ended => {
            (event.user_id, None, event.at, RevocationReason::Admin)
        }
        UserEvent::AccessEnded(event) => (event.user_id, event.kept_session, event.at, event.reason),
        UserEvent::UserErased(event) => (event.user_id, None, event.at, RevocationReason::Erased),
        UserEvent::UserRegistered(_)
        | UserEvent::EmailVerificationRequested(_)
        | UserEvent::EmailVerified(_)
        | UserEvent::EmailChangeRequested(_)
        | UserEvent::PasswordResetRequested(_)
        | UserEvent::ProfileUpdated(_)
        | UserEvent::PasswordRehashed(_)
        | UserEvent::RoleGranted(_)
        | UserEvent::RoleRevoked(_)
        | UserEvent::UserBanned(_)
        | UserEvent::UserUnbanned(_)
        | UserEvent::WebhookNoticeRequested(_) => return None,
    };
    Some(End { user_id, kept, at, reason })
}

/// The sum of a batch's changes to one session.
#[derive(Default)]
struct Change<'a> {
    started: Option<&'a SessionStarted>,
    refreshed: Option<(Timestamp, Timestamp)>,
    revoked: Option<(Timestamp, String)>,
}

#[async_trait]
impl Projector for SessionsProjector {
    fn name(&self) -> &'static str {
        super::NAME
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

    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &["sessions_v1_user"]
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut changes: BTreeMap<SessionId, Change<'_>> = BTreeMap::new();
        let mut ends = Vec::new();
        for event in batch {
            match event.event()? {
                Event::Session(event) => match event {
                    SessionEvent::SessionStarted(started) => {
                        changes.entry(started.session_id).or_default().started = Some(started);
                    }
                    SessionEvent::SessionRefreshed(refreshed) => {
                        changes.entry(refreshed.session_id).or_default().refreshed =
                            Some((refreshed.at, refreshed.idle_expires_at));
                    }
                    SessionEvent::SessionRevoked(revoked) => {
                        changes.entry(revoked.session_id).or_default().revoked =
                            Some((revoked.at, name_of(revoked.reason)));
                    }
                    SessionEvent::RefreshTokenReused(_) | SessionEvent::ActiveOrganizationChosen(_) => {}
                },
                Event::User(event) => {
                    let Some(end) = end_of(event) else { continue };
                    for (id, change) in &mut changes {
                        let is_theirs = change.started.is_some_and(|it| it.user_id == end.user_id);
                        if is_theirs && end.kept != Some(*id) && change.revoked.is_none() {
                            change.revoked = Some((end.at, name_of(end.reason)));
                        }
                    }
                    ends.push(end);
                }
                _ => {}
            }
        }
        // Before the sessions that began in this batch are inserted.
        for end in &ends {
            end_all(tx, end).await?;
        }
        self.write(tx, &changes).await?;
        // Nobody can open it any more; a rebuilt model has nothing to seal.
        for end in ends.iter().filter(|end| end.reason == RevocationReason::Erased) {
            let forget = "UPDATE sessions_v1 SET sealed = NULL WHERE user_id = $1 AND sealed IS NOT NULL";
            tx.run(Query::new(forget).bind(end.user_id.0)).await?;
        }
        Ok(())
    }
}

impl SessionsProjector {
    async fn write(
        &self,
        tx: &mut Transaction,
        changes: &BTreeMap<SessionId, Change<'_>>,
    ) -> Result<(), ProjectError> {
        let mut started = Rows::new([
            "session_id",
            "user_id",
            "app_id",
            "method",
            "started_at",
            "refreshed_at",
            "expires_at",
            "idle_expires_at",
            "sealed",
        ]);
        let mut refreshed = Rows::new(["id", "at", "idle_at"]);
        let mut revoked = Rows::new(["id", "at", "reason"]);
        for (id, change) in changes {
            if let Some(event) = change.started {
                started.push(self.new_row(event).await?);
            }
            if let Some((at, idle)) = change.refreshed {
                refreshed.push([id.0.into(), at.into(), idle.into()]);
            }
            if let Some((at, reason)) = &change.revoked {
                revoked.push([id.0.into(), (*at).into(), reason.as_str().into()]);
            }
        }
        tx.run_for(&started, "INSERT INTO sessions_v1 ({columns}) SELECT * FROM {rows}").await?;
        tx.run_for(
            &refreshed,
            "UPDATE sessions_v1 SET refreshed_at = at, idle_expires_at = idle_at FROM {rows} WHERE session_id = id",
        )
        .await?;
        tx.run_for(
            &revoked,
            "UPDATE sessions_v1 SET revoked_at = at, reason = new_rows.reason FROM {rows} WHERE session_id = id",
        )
        .await?;
        Ok(())
    }

    async fn new_row(&self, event: &SessionStarted) -> Result<[Value; 9], ProjectError> {
        // The client of a session that an admin started is the admin's, and says nothing about the user.
        let client = Some(&event.personal).filter(|_| event.method != LoginMethod::Admin);
        let personal = Personal {
            ip: client.and_then(|client| client.ip.clone()),
            user_agent: client.and_then(|client| client.user_agent.clone()),
            ..Personal::default()
        };
        let sealed = seal(&self.sealer, "sessions_v1", event.session_id.0, event.user_id, &personal).await?;
        Ok([
            event.session_id.0.into(),
            event.user_id.0.into(),
            event.app_id.as_str().into(),
            name_of(event.method).into(),
            event.at.into(),
            event.at.into(),
            event.expires_at.into(),
            event.idle_expires_at.into(),
            sealed.into(),
        ])
    }
}

/// Ends the sessions from before the batch. A session revoked individually in the batch gets that reason afterwards.
async fn end_all(tx: &mut Transaction, end: &End) -> Result<(), ProjectError> {
    let mut query = Query::new("UPDATE sessions_v1 SET revoked_at = ");
    query.push_bind(end.at).push(", reason = ").push_bind(name_of(end.reason));
    query.push(" WHERE user_id = ").push_bind(end.user_id.0).push(" AND revoked_at IS NULL");
    if let Some(kept) = end.kept {
        query.push(" AND session_id <> ").push_bind(kept.0);
    }
    tx.run(query).await?;
    Ok(())
}

/// The name that an enum without data is stored under.
fn name_of(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => unreachable!("it is a unit variant"),
    }
}
