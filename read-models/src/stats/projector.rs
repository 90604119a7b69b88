//! Fills `stats`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::session::{LoginMethod, SessionEvent};
use domain::user::UserEvent;
use domain::{AppId, Event, OrganizationId, Timestamp, UserId};
use event_store::LookupKey;

use super::calendar::quarter;
use super::counted::{REGISTRATIONS, counted, is_activity};
use super::members::Members;
use super::{OF_A_DAY, scope};
use crate::projector::{ProjectError, ProjectedEvent, Projector};
use crate::sql::{Rows, Transaction};
use crate::store::ReadModels;

/// Writes `stats`.
pub struct StatsProjector {
    lookup: Arc<LookupKey>,
}

impl StatsProjector {
    /// A projector with the keys of the read models.
    pub(crate) fn new(models: &ReadModels) -> Self {
        Self { lookup: Arc::clone(&models.lookup) }
    }
}

/// An app, or an organization of it.
type Scope<'a> = (&'a AppId, Option<OrganizationId>);
type PersonKey = [u8; 16];

/// The bits of the quarters of a day.
#[derive(Clone, Copy, Default)]
struct Quarters {
    early: i64,
    late: i64,
}

impl Quarters {
    fn add(&mut self, quarter: i64) {
        match quarter.rem_euclid(OF_A_DAY) {
            quarter @ 0..48 => self.early |= 1 << quarter,
            quarter => self.late |= 1 << (quarter - 48),
        }
    }
}

/// How an account gets further.
#[derive(Default)]
struct Progress<'a> {
    registered: Option<(&'a AppId, Timestamp)>,
    verified: bool,
    logged_in: bool,
}

/// The sum of a batch.
#[derive(Default)]
struct Sum<'a> {
    counts: BTreeMap<(Scope<'a>, i64, &'static str, &'static str), u64>,
    active: BTreeMap<(Scope<'a>, i64, PersonKey), Quarters>,
    accounts: BTreeMap<PersonKey, Progress<'a>>,
}

impl<'a> Sum<'a> {
    fn count(&mut self, app_id: &'a AppId, at: Timestamp, event: &Event, members: &Members) {
        let Some((metric, method)) = counted(event) else { return };
        let person = event.person().filter(|_| metric != REGISTRATIONS);
        let organizations = person.into_iter().flat_map(|person| members.of(person)).map(Some);
        for organization in organizations.chain([None]) {
            *self.counts.entry(((app_id, organization), quarter(at), metric, method)).or_default() += 1;
        }
    }

    fn note_activity(
        &mut self,
        app_id: &'a AppId,
        at: Timestamp,
        (person, key): (UserId, PersonKey),
        members: &Members,
    ) {
        let quarter = quarter(at);
        for organization in members.of(person).map(Some).chain([None]) {
            let day = ((app_id, organization), quarter.div_euclid(OF_A_DAY), key);
            self.active.entry(day).or_default().add(quarter);
        }
    }

    fn note_progress(&mut self, app_id: &'a AppId, at: Timestamp, event: &Event, key: PersonKey) {
        match event {
            Event::User(UserEvent::UserRegistered(_)) => {
                self.accounts.entry(key).or_default().registered = Some((app_id, at));
            }
            // An address that is changed has been verified for that.
            Event::User(UserEvent::EmailVerified(_) | UserEvent::EmailChanged(_)) => {
                self.accounts.entry(key).or_default().verified = true;
            }
            Event::Session(SessionEvent::SessionStarted(event)) if is_a_login(event.method) => {
                self.accounts.entry(key).or_default().logged_in = true;
            }
            _ => {}
        }
    }
}

/// Whether a session is one that somebody with an account began. The first one of many comes with the registration itself; that of
/// an account that a magic link has made counts, as its link was followed.
fn is_a_login(method: LoginMethod) -> bool {
    match method {
        LoginMethod::Password | LoginMethod::MagicLink => true,
        LoginMethod::Registration | LoginMethod::Admin => false,
    }
}

#[async_trait]
impl Projector for StatsProjector {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn version(&self) -> u32 {
        2
    }

    fn tables(&self) -> &'static [&'static str] {
        &["stats_v2", "active_users_v2", "accounts_v2", "stats_members_v2"]
    }

    fn ddl(&self) -> &'static str {
        include_str!("table.sql")
    }

    fn indexes_for_writing(&self) -> &'static [&'static str] {
        &["stats_members_v2_user"]
    }

    async fn project(&self, tx: &mut Transaction, batch: &[ProjectedEvent]) -> Result<(), ProjectError> {
        let mut members = Members::before(tx, batch).await?;
        let mut sum = Sum::default();
        let mut keys: BTreeMap<UserId, PersonKey> = BTreeMap::new();
        for event in batch {
            let (app_id, at) = (&event.recorded.metadata.app_id, event.recorded.at);
            let decoded = event.event()?;
            members.follow(decoded);
            sum.count(app_id, at, decoded, &members);
            let is_of_a_person = matches!(decoded, Event::User(_) | Event::Session(_));
            let Some(person) = decoded.person().filter(|_| is_of_a_person) else { continue };
            let key = *keys.entry(person).or_insert_with(|| self.lookup.person(app_id, person));
            sum.note_progress(app_id, at, decoded, key);
            if is_activity(decoded) {
                sum.note_activity(app_id, at, (person, key), &members);
            }
        }
        members.write(tx).await?;
        write_counts(tx, &sum).await?;
        write_active(tx, &sum).await?;
        write_accounts(tx, &sum).await
    }
}

async fn write_counts(tx: &mut Transaction, sum: &Sum<'_>) -> Result<(), ProjectError> {
    let mut rows = Rows::new(["app_id", "organization_id", "quarter", "metric", "method", "count"]);
    for (((app_id, organization), quarter, metric, method), count) in &sum.counts {
        rows.push([
            app_id.as_str().into(),
            scope(*organization),
            (*quarter).into(),
            (*metric).into(),
            (*method).into(),
            (*count).into(),
        ]);
    }
    tx.run_for(
        &rows,
        "INSERT INTO stats_v2 ({columns}) SELECT * FROM {rows} WHERE true
         ON CONFLICT (app_id, organization_id, quarter, metric, method) DO UPDATE SET count = excluded.count
             + CASE WHEN stats_v2.count BETWEEN 0 AND 1000000000000 THEN stats_v2.count ELSE 0 END",
    )
    .await?;
    Ok(())
}

async fn write_active(tx: &mut Transaction, sum: &Sum<'_>) -> Result<(), ProjectError> {
    let mut rows = Rows::new(["app_id", "organization_id", "day", "person_key", "early", "late"]);
    for (((app_id, organization), day, key), quarters) in &sum.active {
        rows.push([
            app_id.as_str().into(),
            scope(*organization),
            (*day).into(),
            key.as_slice().into(),
            quarters.early.into(),
            quarters.late.into(),
        ]);
    }
    tx.run_for(
        &rows,
        "INSERT INTO active_users_v2 ({columns}) SELECT * FROM {rows} WHERE true
         ON CONFLICT (app_id, organization_id, day, person_key) DO UPDATE
           SET early = active_users_v2.early | excluded.early, late = active_users_v2.late | excluded.late",
    )
    .await?;
    Ok(())
}

async fn write_accounts(tx: &mut Transaction, sum: &Sum<'_>) -> Result<(), ProjectError> {
    let mut registered = Rows::new(["person_key", "app_id", "registered_at", "verified", "logged_in"]);
    let (mut verified, mut logged_in) = (Rows::new(["id"]), Rows::new(["id"]));
    for (key, progress) in &sum.accounts {
        if let Some((app_id, at)) = progress.registered {
            registered.push([
                key.as_slice().into(),
                app_id.as_str().into(),
                at.into(),
                progress.verified.into(),
                progress.logged_in.into(),
            ]);
            continue;
        }
        if progress.verified {
            verified.push([key.as_slice().into()]);
        }
        if progress.logged_in {
            logged_in.push([key.as_slice().into()]);
        }
    }
    tx.run_for(
        &registered,
        "INSERT INTO accounts_v2 ({columns}) SELECT * FROM {rows} WHERE true ON CONFLICT DO NOTHING",
    )
    .await?;
    let further = "UPDATE accounts_v2 SET verified = 1 FROM {rows} WHERE person_key = id AND verified <> 1";
    tx.run_for(&verified, further).await?;
    let further = "UPDATE accounts_v2 SET logged_in = 1 FROM {rows} WHERE person_key = id AND logged_in <> 1";
    tx.run_for(&logged_in, further).await?;
    Ok(())
}
