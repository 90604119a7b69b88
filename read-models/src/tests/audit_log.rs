//! The rows of the audit log, and what is found in them.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::lockout::{LockoutEvent, LoginFailed};
use domain::user::{UserBanned, UserEvent};
use domain::{AppId, Email, Event};
use insta::{allow_duplicates, assert_snapshot};
use schemas::RecordedEvent;
use schemas::envelope::Actor;

use super::world::*;
use crate::Lease;
use crate::audit_log::AuditFilter;

async fn the_audit_log_finds_positions(on: On) {
    let world = small_world(on).await;
    let rows = without_hashes(&dump(&world.models, "audit_log").await);
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    audit_log_v2
      position=1 at=1800000000000000 app_id=default type=UserRegistered person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=null key_id=null ip=hash email=hash
      position=10 at=1800000090000000 app_id=default type=LoginFailed person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=null key_id=null ip=null email=null
      position=11 at=1800000100000000 app_id=default type=AccountLocked person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=null key_id=null ip=null email=null
      position=12 at=1800090000000000 app_id=default type=SessionRefreshed person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=0000000000000000000000005e550001 key_id=null ip=null email=null
      position=2 at=1800000010000000 app_id=default type=UserRegistered person=00000000000000000000000000000002 actor_kind=user actor_id=00000000-0000-0000-0000-000000000002 session=null key_id=null ip=hash email=hash
      position=3 at=1800000020000000 app_id=default type=SessionStarted person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=0000000000000000000000005e550001 key_id=null ip=hash email=null
      position=4 at=1800000030000000 app_id=default type=SessionStarted person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=0000000000000000000000005e550002 key_id=null ip=hash email=null
      position=5 at=1800000040000000 app_id=default type=SessionRefreshed person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=0000000000000000000000005e550001 key_id=null ip=null email=null
      position=6 at=1800000050000000 app_id=default type=ProfileUpdated person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=null key_id=null ip=null email=null
      position=7 at=1800000060000000 app_id=default type=RoleGranted person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=null key_id=null ip=null email=null
      position=8 at=1800000070000000 app_id=default type=SessionRevoked person=00000000000000000000000000000001 actor_kind=user actor_id=00000000-0000-0000-0000-000000000001 session=0000000000000000000000005e550002 key_id=null ip=null email=null
      position=9 at=1800000080000000 app_id=default type=UserBanned person=00000000000000000000000000000002 actor_kind=user actor_id=00000000-0000-0000-0000-000000000002 session=null key_id=null ip=null email=null
    "#);
    }
    let log = world.models.audit_log();
    let find = async |filter: AuditFilter| log.positions(&filter, 0, 0, 100).await.expect("asks");
    let about = |n| AuditFilter { person: Some(user(n)), ..AuditFilter::default() };
    assert_eq!(find(about(2)).await, [2, 9]);
    let kind = AuditFilter { kinds: vec!["SessionStarted".to_owned()], ..about(1) };
    assert_eq!(find(kind).await, [3, 4]);
    let by = AuditFilter { actor: Some(user(2).to_string()), ..AuditFilter::default() };
    assert_eq!(find(by.clone()).await, [2, 9]);
    assert_eq!(log.count(&by).await.expect("counts"), 2);
    let between = AuditFilter { since: Some(at(20)), until: Some(at(40)), ..AuditFilter::default() };
    assert_eq!(find(between).await, [3, 4]);
    let elsewhere = AuditFilter { app_id: AppId::parse("other").ok(), ..AuditFilter::default() };
    assert_eq!(find(elsewhere).await, Vec::<u64>::new());
    let of_session = AuditFilter { session: Some(session(1)), ..AuditFilter::default() };
    assert_eq!(find(of_session).await, [3, 5, 12]);
    let kinds = vec!["UserBanned".to_owned(), "RoleGranted".to_owned(), "Unheard".to_owned()];
    assert_eq!(find(AuditFilter { kinds, ..AuditFilter::default() }).await, [7, 9]);

    let here = AuditFilter { app_id: Some(AppId::default_app()), ..AuditFilter::default() };
    let from = |ip: &str| AuditFilter { ip: Some(ip.parse().expect("an address")), ..here.clone() };
    for ip in ["203.0.113.77", "::ffff:203.0.113.77"] {
        assert_eq!(find(from(ip)).await, [1, 2, 3, 4], "{ip}");
    }
    assert_eq!(find(from("203.0.113.78")).await, Vec::<u64>::new());
    let of = |email: &str| AuditFilter { email: Email::parse(email).ok(), ..here.clone() };
    assert_eq!(find(of("ada@example.com")).await, find(about(1)).await);
    assert_eq!(find(of("nobody@example.com")).await, Vec::<u64>::new());
    let other = AuditFilter { app_id: AppId::parse("other").ok(), ..of("ada@example.com") };
    assert_eq!(find(other).await, Vec::<u64>::new());
    // Without an app this filter finds nothing, and not everything.
    assert_eq!(find(AuditFilter { app_id: None, ..from("203.0.113.77") }).await, Vec::<u64>::new());

    // Identifying data no longer finds an erased person; their events are still listed.
    let audit_log = projector(&world.models, "audit_log");
    let mut erased = world.events(0).await.pop().expect("there are events");
    erased.recorded = Arc::new(RecordedEvent {
        position: 13,
        name: "UserErased".to_owned(),
        person: Some(user(1)),
        personal: None,
        data: "{}".to_owned(),
        ..RecordedEvent::clone(&erased.recorded)
    });
    world.models.apply(&*audit_log, &[erased], Lease::UNSHARED).await.expect("applies");
    assert_eq!(find(from("203.0.113.77")).await, [2]);
    assert_eq!(find(of("ada@example.com")).await, Vec::<u64>::new());
    assert_eq!(find(about(1)).await.len(), 11);
}

/// Where an erased person's requests came from is forgotten in the events about others, too, and in those that were sealed
/// before the erasure and written after it.
async fn an_erased_person_is_found_nowhere(on: On) {
    let world = World::new(on).await;
    let (ada, eve, here) = ("198.51.100.9", "203.0.113.77", AppId::default_app());
    world.append(&registered(1, "ada@example.com", "Ada Lovelace", 0), 0).await;
    world.append(&registered(2, "eve@example.com", "Eve", 1), 1).await;
    let user_id = user(2);
    let banned = UserBanned { user_id, access_ended: true, at: at(2), personal: domain::Personal::default() };
    world.append_by(&Event::User(UserEvent::UserBanned(banned)), 2, Actor::user(user(1)), Some(ada)).await;
    let find = async |ip: &str| {
        let filter =
            AuditFilter { app_id: Some(here.clone()), ip: ip.parse().ok(), ..AuditFilter::default() };
        world.models.audit_log().positions(&filter, 0, 0, 100).await.expect("asks")
    };
    world.catch_up(&world.models, 10).await;
    assert_eq!((find(ada).await, find(eve).await), (vec![3], vec![1, 2]));

    world.append(&erased(1, 3), 3).await;
    let failed = LoginFailed { user_id: user(1), failures: 1, device_id: None, at: at(4) };
    let failed = Event::Lockout(LockoutEvent::LoginFailed(failed));
    world.append_by(&failed, 4, Actor::anonymous(), Some(ada)).await;
    world.catch_up(&world.models, 1).await;
    assert_eq!((find(ada).await, find(eve).await), (vec![], vec![2]));
    let people = BTreeSet::from([user(1), user(2)]);
    let known = world.models.audit_log().erased(&people).await.expect("asks");
    assert_eq!(known, BTreeSet::from([user(1)]));

    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    let rebuilt = world.open(&world.other("rebuilt.db")).await;
    world.catch_up(&rebuilt, 10).await;
    assert_eq!(dump(&rebuilt, "audit_log").await, dump(&world.models, "audit_log").await);
}

/// Hashes differ in each run, as the key does.
fn without_hashes(rows: &str) -> String {
    let words = rows.split(' ').map(|word| match word.trim_end().split_once('=') {
        Some((name @ ("ip" | "email"), hash)) if hash.len() == 64 => {
            format!("{name}=hash{}", &word[name.len() + 1 + hash.len()..])
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

on_both! {
    the_audit_log_finds_positions,
    an_erased_person_is_found_nowhere,
}
