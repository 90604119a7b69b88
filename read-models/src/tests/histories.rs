//! Random histories: whatever the events and batches, a rebuild gives the same rows.

use std::collections::{BTreeMap, BTreeSet};

use domain::lockout::{LockoutEvent, LoginFailed};
use domain::user::{
    PasswordRehashed, ProfileField, ProfileUpdated, RoleGranted, RoleRevoked, UserBanned, UserEvent,
    UserUnbanned,
};
use domain::{Event, Personal, Role};
use proptest::prelude::*;

use super::organizations::{added, changed, created, deleted, removed, renamed};
use super::world::*;

/// A step of a history: what happens, for which user, in which session.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    user: u128,
    session: u128,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..20_u8, 1..5_u128, 0..3_u128);
    proptest::collection::vec(step.prop_map(|(what, user, session)| Step { what, user, session }), 1..60)
}

/// The organizations of a history: the members of each, with their roles, or `None` once it is deleted.
#[derive(Default)]
struct Orgs(BTreeMap<u128, Option<BTreeMap<u128, &'static str>>>);

impl Orgs {
    /// What a user does in or to an organization, if there is something to do.
    fn step(&mut self, organization: u128, n: u128, what: u8, seconds: i64) -> Option<Event> {
        let Some(members) = self.0.get_mut(&organization) else {
            self.0.insert(organization, Some(BTreeMap::new()));
            return Some(created(organization, &format!("Number {organization}"), seconds));
        };
        let is_in = members.as_ref()?.get(&n).copied();
        Some(match (what, is_in) {
            (17, _) if seconds % 7000 == 0 => {
                *members = None;
                deleted(organization, seconds)
            }
            (17, _) => renamed(organization, &format!("Name at {seconds}"), seconds),
            (_, None) => {
                members.as_mut()?.insert(n, "member");
                added(organization, n, "member", seconds)
            }
            (18, Some(role)) => {
                let other = if role == "member" { "admin" } else { "member" };
                members.as_mut()?.insert(n, other);
                changed(organization, n, other, seconds)
            }
            (_, Some(_)) => {
                members.as_mut()?.remove(&n);
                removed(organization, n, seconds)
            }
        })
    }
}

/// The events of a history, each valid at its point.
fn history(steps: &[Step]) -> Vec<Event> {
    let mut registrations = BTreeSet::new();
    let mut sessions = BTreeMap::new();
    let mut addresses: BTreeMap<u128, String> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    let mut organizations = Orgs::default();
    let mut events = Vec::new();
    for (seconds, step) in (0_i64..).map(|n| n * 1000).zip(steps) {
        let (n, user_id, at) = (step.user, user(step.user), at(seconds));
        if registrations.insert(n) {
            let email = format!("user{n}@example.com");
            events.push(registered(n, &email, &format!("Name Number{n}"), seconds));
            addresses.insert(n, email);
            continue;
        }
        let id = n * 10 + step.session;
        let role = Role::parse("editor").expect("valid");
        if gone.contains(&n) {
            // What was on its way.
            if sessions.contains_key(&id) {
                events.push(revoked(id, n, seconds));
            }
            continue;
        }
        if step.what >= 17 {
            events.extend(organizations.step(step.session, n, step.what, seconds));
            continue;
        }
        events.push(match step.what {
            0 | 1 => match sessions.get(&id) {
                None => {
                    sessions.insert(id, 0);
                    started(id, n, seconds)
                }
                Some(&generation) => {
                    sessions.insert(id, generation + 1);
                    refreshed(id, n, generation + 1, seconds)
                }
            },
            2 if sessions.contains_key(&id) => revoked(id, n, seconds),
            2 | 3 => Event::User(UserEvent::UserBanned(UserBanned {
                user_id,
                access_ended: true,
                at,
                personal: Personal::default(),
            })),
            4 => Event::User(UserEvent::UserUnbanned(UserUnbanned { user_id, at })),
            5 => Event::User(UserEvent::RoleGranted(RoleGranted {
                user_id,
                role,
                access_ended: false,
                admin_role_changes: None,
                at,
            })),
            6 => Event::User(UserEvent::RoleRevoked(RoleRevoked { user_id, role, at })),
            7 => Event::User(UserEvent::ProfileUpdated(ProfileUpdated {
                user_id,
                cleared: BTreeSet::from([ProfileField::Phone]),
                at,
                personal: Personal { name: Some(format!("Other {seconds}")), ..Personal::default() },
            })),
            8 => Event::User(UserEvent::PasswordRehashed(PasswordRehashed {
                user_id,
                at,
                personal: Personal::default(),
            })),
            9 => verified(n, &addresses[&n], step.session == 0, seconds),
            10 | 11 => {
                // All users want one address: when one gives it up, another can take it.
                let wanted = "wanted@example.com".to_owned();
                let is_free = !addresses.values().any(|held| *held == wanted);
                let to = if is_free { wanted } else { format!("user{n}@example.com") };
                let from = addresses.insert(n, to.clone()).expect("every user has one");
                email_changed(n, &from, &to, id, seconds)
            }
            12 => password_reset(n, seconds),
            13 => password_changed(n, id, seconds),
            14 => {
                gone.insert(n);
                addresses.remove(&n);
                erased(n, seconds)
            }
            _ => Event::Lockout(LockoutEvent::LoginFailed(LoginFailed {
                user_id,
                failures: 1,
                device_id: None,
                at,
            })),
        });
    }
    events
}

async fn rebuilds_equal(
    on: On,
    steps: Vec<Step>,
    live_batch: usize,
    rebuilt_batch: usize,
    crash_after: usize,
) {
    let world = World::new(on).await;
    let events = history(&steps);
    // The live tables are written as the history happens, and reopened in the middle of it.
    let live_location = world.other("live.db");
    let mut live = world.open(&live_location).await;
    for (n, event) in events.iter().enumerate() {
        let seconds = i64::try_from(n).expect("small") * 1000;
        world.append(event, seconds).await;
        if n % live_batch == 0 {
            world.catch_up(&live, live_batch).await;
        }
        if let Event::User(UserEvent::UserErased(erased)) = event {
            world.sealer.keys().erase_data_key(erased.user_id).await.expect("erases");
        }
        if n == crash_after {
            drop(live);
            live = world.open(&live_location).await;
        }
    }
    world.catch_up(&live, live_batch).await;
    world.catch_up(&world.models, rebuilt_batch).await;
    for projector in live.projectors() {
        let name = projector.name();
        assert_eq!(
            dump(&live, name).await,
            dump(&world.models, name).await,
            "{name} differs after a rebuild"
        );
        let checkpoint = live.checkpoint(&*projector).await.expect("reads");
        assert_eq!(checkpoint, events.len() as u64, "{name} lost events");
    }
    // Again, in place.
    for projector in live.projectors() {
        live.reset(&*projector).await.expect("resets");
    }
    world.catch_up(&live, 1000).await;
    for projector in live.projectors() {
        let name = projector.name();
        assert_eq!(dump(&live, name).await, dump(&world.models, name).await, "{name} differs after a reset");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn inv_k_a_rebuild_equals_the_live_tables(
        steps in steps(), live in 1..8_usize, rebuilt in 1..50_usize, crash in 0..60_usize,
    ) {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        runtime.block_on(rebuilds_equal(On::Sqlite, steps, live, rebuilt, crash));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn inv_k_a_rebuild_equals_the_live_tables_in_postgres(
        steps in steps(), live in 1..8_usize, rebuilt in 1..50_usize, crash in 0..60_usize,
    ) {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        runtime.block_on(rebuilds_equal(On::Postgres, steps, live, rebuilt, crash));
    }
}
