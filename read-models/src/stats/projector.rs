//! Fills `stats`.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use domain::lockout::LockoutEvent;
use domain::session::{LoginMethod, RevocationReason, SessionEvent};
use domain::user::{RegistrationMethod, UserEvent};
use domain::{Event, Timestamp};

use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};
use crate::store::ReadModels;

/// Writes `stats`.
pub struct StatsProjector;

impl StatsProjector {
    pub(crate) fn new(_: &ReadModels) -> Self {
        Self
    }
}

#[async_trait]
impl Projector for StatsProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["stats_v1", "active_users_v1"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut counts: BTreeMap<(&str, i64, &str, &str), u64> = BTreeMap::new();
        let mut active = BTreeSet::new();
        for event in batch {
            let app_id = event.recorded.metadata.app_id.as_str();
            let at = event.recorded.at;
            let decoded = event.event()?;
            if let Some((metric, method)) = counted(decoded) {
                *counts.entry((app_id, hour(at), metric, method)).or_default() += 1;
            }
            if let (true, Some(person)) = (is_activity(decoded), decoded.person()) {
                active.insert((app_id, hour(at).div_euclid(24), person));
            }
        }
        let mut rows = Rows::new(["app_id", "hour", "metric", "method", "count"]);
        for ((app_id, hour, metric, method), count) in counts {
            rows.push([app_id.into(), hour.into(), metric.into(), method.into(), count.into()]);
        }
        tx.run_for(
            &rows,
            "INSERT INTO stats_v1 ({columns}) SELECT * FROM {rows} WHERE true
             ON CONFLICT (app_id, hour, metric, method) DO UPDATE SET count = excluded.count
                 + CASE WHEN stats_v1.count BETWEEN 0 AND 1000000000000 THEN stats_v1.count ELSE 0 END",
        )
        .await?;
        let mut rows = Rows::new(["app_id", "day", "user_id"]);
        for (app_id, day, person) in active {
            rows.push([app_id.into(), day.into(), person.0.into()]);
        }
        tx.run_for(
            &rows,
            "INSERT INTO active_users_v1 ({columns}) SELECT * FROM {rows} WHERE true ON CONFLICT DO NOTHING",
        )
        .await?;
        Ok(())
    }
}

fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

/// How an event is counted: a metric and a method (or reason) within it.
fn counted(event: &Event) -> Option<(&'static str, &'static str)> {
    Some(match event {
        Event::User(event) => match event {
            UserEvent::UserRegistered(event) => (
                "registrations",
                match event.method {
                    RegistrationMethod::Password => "password",
                    RegistrationMethod::Admin => "admin",
                    RegistrationMethod::MagicLink => "magic_link",
                    RegistrationMethod::Import => "import",
                },
            ),
            UserEvent::EmailVerificationRequested(_)
            | UserEvent::EmailVerified(_)
            | UserEvent::EmailChangeRequested(_)
            | UserEvent::EmailChanged(_)
            | UserEvent::PasswordResetRequested(_)
            | UserEvent::PasswordReset(_)
            | UserEvent::PasswordChanged(_)
            | UserEvent::ProfileUpdated(_)
            | UserEvent::PasswordRehashed(_)
            | UserEvent::RoleGranted(_)
            | UserEvent::RoleRevoked(_)
            | UserEvent::UserBanned(_)
            | UserEvent::UserUnbanned(_)
            | UserEvent::AccessEnded(_)
            | UserEvent::WebhookNoticeRequested(_)
            | UserEvent::UserErased(_) => return None,
        },
        Event::Session(event) => match event {
            SessionEvent::SessionStarted(event) => (
                "logins",
                match event.method {
                    LoginMethod::Password => "password",
                    LoginMethod::Registration => "registration",
                    LoginMethod::Admin => "admin",
                    LoginMethod::MagicLink => "magic_link",
                },
            ),
            SessionEvent::SessionRefreshed(_) => ("refreshes", ""),
            SessionEvent::SessionRevoked(event) => (
                "revocations",
                match event.reason {
                    RevocationReason::Logout => "logout",
                    RevocationReason::User => "user",
                    RevocationReason::Admin => "admin",
                    RevocationReason::Ban => "ban",
                    RevocationReason::RefreshTokenReused => "refresh_token_reused",
                    RevocationReason::Limit => "limit",
                    RevocationReason::ExchangeCodeReplayed => "exchange_code_replayed",
                    RevocationReason::PasswordChanged => "password_changed",
                    RevocationReason::PasswordReset => "password_reset",
                    RevocationReason::EmailChanged => "email_changed",
                    RevocationReason::EmailVerified => "email_verified",
                    RevocationReason::Erased => "erased",
                },
            ),
            SessionEvent::RefreshTokenReused(_) | SessionEvent::ActiveOrganizationChosen(_) => return None,
        },
        Event::Lockout(event) => match event {
            LockoutEvent::LoginFailed(_) => ("failures", "password"),
            LockoutEvent::AccountLocked(_) => ("lockouts", ""),
            LockoutEvent::AccountUnlocked(_) => return None,
        },
        _ => return None,
    })
}

/// Whether the person was active themselves. An admin's test token is not a visit of the user.
fn is_activity(event: &Event) -> bool {
    match event {
        Event::Session(SessionEvent::SessionStarted(event)) => event.method != LoginMethod::Admin,
        Event::Session(SessionEvent::SessionRefreshed(_)) => true,
        _ => false,
    }
}
