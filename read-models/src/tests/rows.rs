//! Longer than most, as one small world fills every read model that is looked at in it.
use std::collections::BTreeSet;
use std::sync::Arc;

use domain::lockout::{AccountLocked, LockoutEvent, LoginFailed};
use domain::session::{LoginMethod, RevocationReason, SessionEvent, SessionRevoked, SessionStarted};
use domain::user::{
    ProfileField, ProfileUpdated, RegistrationMethod, RoleGranted, UserBanned, UserEvent, UserRegistered,
};
use domain::{AppId, Email, Event, Personal, Role};
use event_store::{Journal, Location};
use insta::{allow_duplicates, assert_snapshot};
use schemas::RecordedEvent;
use sqlx::{ConnectOptions, Connection};
use test_services::Postgres;

use super::world::*;
use crate::audit_log::AuditFilter;
use crate::stats::Granularity;
use crate::users::{UserFilter, UserSort, UserStatus};
use crate::{ApplyError, JournalError, Lease, OpenError, Paging, ReadError, ReadModels};

/// Two users; the first logs in twice, refreshes, logs out once, changes her name; the second is banned.
pub(super) async fn small_world(on: On) -> World {
    let world = World::new(on).await;
    let user_event = |event| Event::User(event);
    let renamed = ProfileUpdated {
        user_id: user(1),
        cleared: BTreeSet::from([ProfileField::Phone]),
        at: at(50),
        personal: Personal { name: Some("Ada King".to_owned()), ..Personal::default() },
    };
    let role = Role::parse("editor").expect("valid");
    let history = [
        registered(1, "ada@example.com", "Ada Lovelace", 0),
        registered(2, "grace@example.org", "Grace Hopper", 10),
        started(1, 1, 20),
        started(2, 1, 30),
        refreshed(1, 1, 1, 40),
        user_event(UserEvent::ProfileUpdated(renamed)),
        user_event(UserEvent::RoleGranted(RoleGranted {
            user_id: user(1),
            role,
            access_ended: false,
            at: at(55),
        })),
        revoked(2, 1, 60),
        user_event(UserEvent::UserBanned(UserBanned {
            user_id: user(2),
            access_ended: false,
            at: at(70),
            personal: Personal::default(),
        })),
        Event::Lockout(LockoutEvent::LoginFailed(LoginFailed {
            user_id: user(1),
            failures: 1,
            device_id: None,
            at: at(80),
        })),
        Event::Lockout(LockoutEvent::AccountLocked(AccountLocked {
            user_id: user(1),
            device_id: None,
            until: at(140),
            at: at(80),
        })),
        refreshed(1, 1, 2, 90_000),
    ];
    for (n, event) in history.iter().enumerate() {
        let seconds = if n + 1 == history.len() { 90_000 } else { i64::try_from(n).expect("small") * 10 };
        world.append(event, seconds).await;
    }
    world.catch_up(&world.models, 1000).await;
    world
}

async fn users_are_found_by_address_word_role_and_status(on: On) {
    let world = small_world(on).await;
    let rows = hide_keyed(&dump(&world.models, "users").await);
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    users_v1
      user_id=00000000000000000000000000000001 app_id=default email=… email_verified=0 banned=0 roles=["editor"] created_at=1800000000000000 updated_at=1800000055000000 sealed={"email":"ada@example.com","name":"Ada King"}
      user_id=00000000000000000000000000000002 app_id=default email=… email_verified=0 banned=1 roles=[] created_at=1800000010000000 updated_at=1800000070000000 sealed={"email":"grace@example.org","name":"Grace Hopper"}
    user_words_v1
    "#);
    }
    let app = AppId::default_app();
    let names = async |filter: UserFilter| {
        let page = world.models.users().list(&app, &filter, &Paging::default()).await.expect("lists");
        let names = page.items.into_iter().map(|user| user.personal.name.unwrap_or_default());
        assert_eq!(page.next_cursor, None);
        names.collect::<Vec<_>>()
    };
    let query = |query: &str| UserFilter { query: Some(query.to_owned()), ..UserFilter::default() };
    assert_eq!(names(UserFilter::default()).await, ["Grace Hopper", "Ada King"]);
    let by = |sort| UserFilter { sort, ..UserFilter::default() };
    assert_eq!(names(by(UserSort::CreatedAt)).await, ["Ada King", "Grace Hopper"]);
    assert_eq!(names(by(UserSort::UpdatedAtDescending)).await, ["Grace Hopper", "Ada King"]);
    assert_eq!(names(query(" ADA@example.com ")).await, ["Ada King"]);
    assert_eq!(names(query("exam")).await, ["Grace Hopper", "Ada King"]);
    assert_eq!(names(query("hopp gr")).await, ["Grace Hopper"]);
    assert_eq!(names(query("lovelace")).await, Vec::<String>::new(), "her name changed");
    assert_eq!(names(query("nobody@example.com")).await, Vec::<String>::new());
    let status = |status| UserFilter { status: Some(status), ..UserFilter::default() };
    assert_eq!(names(status(UserStatus::Banned)).await, ["Grace Hopper"]);
    assert_eq!(names(status(UserStatus::Active)).await, ["Ada King"]);
    let role = Some(Role::parse("editor").expect("valid"));
    assert_eq!(names(UserFilter { role, ..UserFilter::default() }).await, ["Ada King"]);
    assert_eq!(names(UserFilter { email_verified: Some(true), ..UserFilter::default() }).await.len(), 0);
    let short = world.models.users().list(&app, &query("ad"), &Paging::default()).await;
    assert!(matches!(short, Err(ReadError::QueryTooShort)));
    let other = AppId::parse("other").expect("valid");
    let elsewhere = world.models.users().list(&other, &query("ada"), &Paging::default()).await;
    assert_eq!(elsewhere.expect("lists").total, 0);
}

async fn cursors_lead_through_every_user_once(on: On) {
    let world = World::new(on).await;
    for n in 0..7 {
        // Several at the same time: ties are broken by id.
        let event = registered(n + 1, &format!("user{n}@example.com"), "Same Name", i64::from(n > 3));
        world.append(&event, 0).await;
    }
    world.catch_up(&world.models, 1000).await;
    for (query, sort) in [
        (None, UserSort::CreatedAt),
        (None, UserSort::CreatedAtDescending),
        (Some("same"), UserSort::UpdatedAt),
    ] {
        let filter = UserFilter { query: query.map(str::to_owned), sort, ..UserFilter::default() };
        let mut paging = Paging { limit: 3, ..Paging::default() };
        let mut seen = Vec::new();
        loop {
            let page =
                world.models.users().list(&AppId::default_app(), &filter, &paging).await.expect("lists");
            assert_eq!(page.total, 7);
            seen.extend(page.items.iter().map(|user| user.id));
            paging.cursor = page.next_cursor;
            if paging.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 7, "{filter:?}");
    }
    let bad = Paging { cursor: Some("x".to_owned()), ..Paging::default() };
    let page = world.models.users().list(&AppId::default_app(), &UserFilter::default(), &bad).await;
    assert!(matches!(page, Err(ReadError::Cursor)));
}

async fn active_sessions_are_listed(on: On) {
    let world = small_world(on).await;
    let rows = dump(&world.models, "sessions").await;
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    sessions_v1
      session_id=0000000000000000000000005e550001 user_id=00000000000000000000000000000001 app_id=default method=password started_at=1800000020000000 refreshed_at=1800090000000000 expires_at=1800086420000000 idle_expires_at=1800093600000000 revoked_at=null reason=null sealed={"ip":"203.0.113.77","user_agent":"Mozilla/Lovelace"}
      session_id=0000000000000000000000005e550002 user_id=00000000000000000000000000000001 app_id=default method=password started_at=1800000030000000 refreshed_at=1800000030000000 expires_at=1800086430000000 idle_expires_at=1800003630000000 revoked_at=1800000060000000 reason=logout sealed={"ip":"203.0.113.77","user_agent":"Mozilla/Lovelace"}
    "#);
    }
    let live = async |seconds| {
        let page = world
            .models
            .sessions()
            .live(&AppId::default_app(), user(1), at(seconds), &Paging::default())
            .await
            .expect("lists");
        page.items.into_iter().map(|row| (row.session_id, row.ip)).collect::<Vec<_>>()
    };
    assert_eq!(live(100).await, [(session(1), Some("203.0.113.77".to_owned()))]);
    assert_eq!(live(200_000).await, [], "it has expired");
}

async fn login_checks_find_the_user_of_an_address(on: On) {
    let world = small_world(on).await;
    let find = async |app: &str, email: &str| {
        let (app, email) = (AppId::parse(app).expect("valid"), Email::parse(email).expect("valid"));
        world.models.login_checks().find(&app, &email).await.expect("asks")
    };
    assert_eq!(find("default", "Ada@example.com").await, Some(user(1)));
    assert_eq!(find("other", "ada@example.com").await, None);
    assert_eq!(find("default", "nobody@example.com").await, None);
}

/// The same events applied one by one and all at once: batches must not change the result.
async fn both_ways(on: On, history: &[Event]) -> (World, Vec<ReadModels>) {
    let world = World::new(on).await;
    for event in history {
        world.append(event, 0).await;
    }
    let mut ways = Vec::new();
    for (name, size) in [("one-by-one.db", 1), ("at-once.db", 1000)] {
        let models = world.open(&world.other(name)).await;
        world.catch_up(&models, size).await;
        ways.push(models);
    }
    (world, ways)
}

async fn login_checks_follow_an_address(on: On) {
    let history = [
        registered(1, "ada@example.com", "Ada Lovelace", 0),
        email_changed(1, "ada@example.com", "countess@example.com", 1, 10),
        registered(2, "ada@example.com", "Ada Byron", 20),
        email_changed(2, "ada@example.com", "byron@example.com", 2, 30),
        email_changed(1, "countess@example.com", "ada@example.com", 1, 40),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    for models in ways {
        let find = async |email: &str| {
            let email = Email::parse(email).expect("valid");
            models.login_checks().find(&AppId::default_app(), &email).await.expect("asks")
        };
        assert_eq!(find("ada@example.com").await, Some(user(1)));
        assert_eq!(find("byron@example.com").await, Some(user(2)));
        assert_eq!(find("countess@example.com").await, None);
    }
}

async fn users_show_the_current_address_and_whether_it_is_verified(on: On) {
    let history = [
        registered(1, "augusta@example.com", "Ada Lovelace", 0),
        registered(2, "grace@example.org", "Grace Hopper", 10),
        verified(2, "grace@example.org", false, 20),
        email_changed(1, "augusta@example.com", "countess@example.com", 1, 30),
        registered(3, "barbara@example.org", "Barbara Liskov", 40),
        password_reset(3, 50),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    for models in ways {
        let list = async |filter: UserFilter| {
            let page = models.users().list(&AppId::default_app(), &filter, &Paging::default()).await;
            let rows = page.expect("lists").items.into_iter();
            rows.map(|row| (row.id, row.personal.email.map(String::from), row.updated_at)).collect::<Vec<_>>()
        };
        let proven = |email_verified| UserFilter {
            email_verified,
            sort: UserSort::CreatedAt,
            ..UserFilter::default()
        };
        let ada = (user(1), Some("countess@example.com".to_owned()), at(30));
        let grace = (user(2), Some("grace@example.org".to_owned()), at(20));
        let barbara = (user(3), Some("barbara@example.org".to_owned()), at(50));
        assert_eq!(list(proven(Some(true))).await, [ada.clone(), grace]);
        assert_eq!(list(proven(Some(false))).await, [barbara]);
        let query = |query: &str| UserFilter { query: Some(query.to_owned()), ..UserFilter::default() };
        assert_eq!(list(query("countess@example.com")).await, std::slice::from_ref(&ada));
        assert_eq!(list(query("counte")).await, std::slice::from_ref(&ada));
        assert_eq!(list(query("augusta@example.com")).await, [], "her address changed");
    }
}

async fn sessions_end_with_what_ends_all_of_them(on: On) {
    let history = [
        registered(1, "ada@example.com", "Ada Lovelace", 0),
        registered(2, "grace@example.org", "Grace Hopper", 0),
        started(1, 1, 10),
        started(2, 1, 20),
        started(3, 1, 30),
        started(4, 2, 30),
        revoked(3, 1, 40),
        password_changed(1, 2, 50),
        started(5, 1, 60),
        verified(2, "grace@example.org", true, 70),
        started(6, 2, 80),
        password_reset(1, 90),
        started(7, 1, 100),
        email_changed(1, "ada@example.com", "countess@example.com", 7, 110),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    for models in ways {
        let live = async |n| {
            let sessions = models.sessions();
            let page = sessions.live(&AppId::default_app(), user(n), at(200), &Paging::default()).await;
            page.expect("lists").items.into_iter().map(|row| row.session_id).collect::<Vec<_>>()
        };
        assert_eq!(live(1).await, [session(7)]);
        assert_eq!(live(2).await, [session(6)]);
        let rows = dump(&models, "sessions").await;
        let reason = |n: u128| {
            let id = format!("session_id={:032x} ", session(n).0.as_u128());
            let row = rows.lines().find(|row| row.contains(&id)).expect("it is there");
            let at = row.find("reason=").expect("a column");
            row[at + 7..].split(' ').next().unwrap_or_default().to_owned()
        };
        let reasons = [1, 2, 3, 4, 5, 6, 7].map(reason);
        let expected = [
            "password_changed",
            "password_reset",
            "logout",
            "email_verified",
            "password_reset",
            "null",
            "null",
        ];
        assert_eq!(reasons, expected);
    }
}

async fn stats_count_by_hour_and_day(on: On) {
    let world = small_world(on).await;
    let rows = dump(&world.models, "stats").await;
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    stats_v1
      app_id=default hour=500000 metric=failures method=password count=1
      app_id=default hour=500000 metric=lockouts method= count=1
      app_id=default hour=500000 metric=logins method=password count=2
      app_id=default hour=500000 metric=refreshes method= count=1
      app_id=default hour=500000 metric=registrations method=password count=2
      app_id=default hour=500000 metric=revocations method=logout count=1
      app_id=default hour=500025 metric=refreshes method= count=1
    active_users_v1
      app_id=default day=20833 user_id=00000000000000000000000000000001
      app_id=default day=20834 user_id=00000000000000000000000000000001
    "#);
    }
    let stats = world.models.stats();
    let days =
        stats.buckets(&AppId::default_app(), at(0), at(200_000), Granularity::Day).await.expect("counts");
    assert_eq!(days.iter().map(|day| day.active_users).collect::<Vec<_>>(), [Some(1), Some(1)]);
    assert_eq!(days[0].counts["registrations"]["password"], 2);
    assert_eq!(days[0].start.to_string(), "2027-01-15T00:00:00Z");
    let hours =
        stats.buckets(&AppId::default_app(), at(0), at(3600), Granularity::Hour).await.expect("counts");
    assert_eq!(hours.len(), 1);
    assert_eq!(hours[0].counts["logins"]["password"], 2);
}

async fn stats_count_magic_links(on: On) {
    let Event::User(UserEvent::UserRegistered(account)) = registered(1, "ada@example.com", "Ada", 0) else {
        unreachable!("it is a registration")
    };
    let Event::Session(SessionEvent::SessionStarted(begun)) = started(1, 1, 10) else {
        unreachable!("it is a start")
    };
    let history = [
        Event::User(UserEvent::UserRegistered(UserRegistered {
            method: RegistrationMethod::MagicLink,
            ..account
        })),
        verified(1, "ada@example.com", false, 0),
        Event::Session(SessionEvent::SessionStarted(SessionStarted {
            method: LoginMethod::MagicLink,
            ..begun
        })),
        Event::Session(SessionEvent::SessionRevoked(SessionRevoked {
            session_id: session(1),
            user_id: user(1),
            reason: RevocationReason::ExchangeCodeReplayed,
            at: at(20),
        })),
    ];
    let (_world, ways) = both_ways(on, &history).await;
    for models in ways {
        let app = AppId::default_app();
        let days = models.stats().buckets(&app, at(0), at(3600), Granularity::Day).await.expect("counts");
        assert_eq!(days.len(), 1);
        assert_eq!(days[0].counts["registrations"]["magic_link"], 1);
        assert_eq!(days[0].counts["logins"]["magic_link"], 1);
        assert_eq!(days[0].counts["revocations"]["exchange_code_replayed"], 1);
        assert_eq!(days[0].active_users, Some(1));
    }
}

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

async fn inv_l_a_gap_is_refused_and_nothing_of_it_stays(on: On) {
    let world = small_world(on).await;
    let fresh = world.open(&world.other("second.db")).await;
    let events = world.events(0).await;
    for projector in fresh.projectors() {
        let empty = fresh.dump(&*projector).await.expect("dumps");
        let refused = fresh.apply(&*projector, &events[1..], Lease::UNSHARED).await;
        assert!(matches!(refused, Err(ApplyError::Gap { expected: 1, found: 2 })), "{refused:?}");
        let with_hole = [&events[..2], &events[3..]].concat();
        let refused = fresh.apply(&*projector, &with_hole, Lease::UNSHARED).await;
        assert!(matches!(refused, Err(ApplyError::Gap { expected: 3, found: 4 })), "{refused:?}");
        assert_eq!(fresh.dump(&*projector).await.expect("dumps"), empty);
        assert_eq!(fresh.checkpoint(&*projector).await.expect("reads"), 0);
        fresh.apply(&*projector, &events[..5], Lease::UNSHARED).await.expect("applies");
        let twice = fresh.apply(&*projector, &events[..5], Lease::UNSHARED).await;
        assert!(matches!(twice, Err(ApplyError::Gap { expected: 6, found: 1 })), "{twice:?}");
    }
}

async fn another_journal_is_recognized(on: On) {
    let world = small_world(on).await;
    let mut other = World::new(On::Sqlite).await;
    other.ids = 1000;
    let users = projector(&world.models, "users");
    let check = async |journal: &Arc<dyn Journal>| world.models.check_journal(&*users, &**journal).await;
    check(&world.journal).await.expect("its own");
    assert!(matches!(check(&other.journal).await, Err(JournalError::Other { .. })), "it is shorter");
    for n in 1..=20 {
        other.append(&registered(n, &format!("user{n}@example.com"), "Somebody", 0), 0).await;
    }
    assert!(
        matches!(check(&other.journal).await, Err(JournalError::Other { .. })),
        "it has another event there"
    );
    let head = world.journal.head().await.expect("reads");
    world.models.close().await;
    let looked = ReadModels::look(&world.location).await.expect("looks");
    assert_eq!(looked.len(), world.models.projectors().len());
    assert!(looked.iter().all(|checkpoint| checkpoint.position == head && checkpoint.event.is_some()));
}

#[tokio::test]
async fn a_file_whose_checkpoints_do_not_name_their_events_is_upgraded() {
    let world = small_world(On::Sqlite).await;
    world.models.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path("read-models.db"));
    let mut connection = options.connect().await.expect("connects");
    sqlx::raw_sql("ALTER TABLE checkpoints DROP COLUMN event")
        .execute(&mut connection)
        .await
        .expect("changes");
    connection.close().await.expect("closes");
    let looked = ReadModels::look(&world.location).await.expect("looks");
    assert!(looked.iter().all(|checkpoint| checkpoint.position > 0 && checkpoint.event.is_none()));
    let models = world.open(&world.location).await;
    models.check_journal(&*projector(&models, "users"), &*world.journal).await.expect("cannot tell");
    world.append(&registered(9, "barbara@example.com", "Barbara", 9), 9).await;
    world.catch_up(&models, 10).await;
    let checkpoints = models.checkpoints().await.expect("reads");
    assert!(checkpoints.iter().all(|checkpoint| checkpoint.event.is_some()));
}

async fn inv_n_no_stored_byte_tells_who_somebody_is(on: On) {
    let world = small_world(on).await;
    let bytes = match on {
        On::Sqlite => {
            world.models.close().await;
            let mut bytes = Vec::new();
            for name in ["read-models.db", "read-models.db-wal", "read-models.db-shm"] {
                bytes.extend(std::fs::read(world.path(name)).unwrap_or_default());
            }
            bytes
        }
        On::Postgres => {
            let Location::Postgres(url) = &world.location else { unreachable!("they are in PostgreSQL") };
            let (server, name) = (Postgres::shared(), url.options().get_database().expect("it has one"));
            let mut bytes = Vec::new();
            for projector in world.models.projectors() {
                for table in projector.tables() {
                    let query = format!("SELECT t FROM watchword_read.{table} t");
                    bytes.extend(server.psql(&server.url(name), &query).into_bytes());
                }
            }
            bytes
        }
    };
    assert!(bytes.len() > 4096, "what is stored was read");
    let secrets =
        ["ada@", "example.com", "Lovelace", "lovelace", "Ada", "Hopper", "203.0.113", "Mozilla", "argon2id"];
    for secret in secrets {
        // psql prints bytes as hexadecimal digits.
        for form in [secret.to_owned(), hex::encode(secret.as_bytes())] {
            let found = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!found, "{secret} is stored {on:?}");
        }
    }
}

async fn an_erased_person_is_no_longer_shown(on: On) {
    let world = small_world(on).await;
    world.sealer.keys().erase_data_key(user(1)).await.expect("erases");
    let (app, filter, paging) = (AppId::default_app(), UserFilter::default(), Paging::default());
    let rows = world.models.users().list(&app, &filter, &paging).await.expect("lists").items;
    let ada = rows.iter().find(|row| row.id == user(1)).expect("her account is there");
    assert_eq!(ada.personal, Personal::default());
    // A rebuild after the erasure has nothing to seal, and creates no new key.
    for projector in world.models.projectors() {
        world.models.reset(&*projector).await.expect("resets");
    }
    world.catch_up(&world.models, 1000).await;
    assert!(!dump(&world.models, "users").await.contains("Ada"));
    assert!(world.sealer.keys().data_key(user(1)).await.expect("asks").is_none());
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let world = World::new(On::Sqlite).await;
    let open = async |name| {
        let location = Location::File(world.path(name));
        ReadModels::open(&location, world.sealer.clone(), world.lookup.clone()).await
    };
    assert!(matches!(open("journal.db").await, Err(OpenError::Foreign(_))));
    std::fs::write(world.path("text.db"), "not a database, but long enough to be taken for one ".repeat(10))
        .expect("writes");
    assert!(matches!(open("text.db").await, Err(OpenError::Failed { .. })));
    let text = std::fs::read_to_string(world.path("text.db")).expect("reads");
    assert!(text.starts_with("not a database"));
}

#[tokio::test]
async fn an_error_never_contains_the_password() {
    let world = World::new(On::Sqlite).await;
    let location: Location = "postgres://ada:swordfish@127.0.0.1:1/nowhere".parse().expect("a URL");
    let opened = ReadModels::open(&location, world.sealer.clone(), world.lookup.clone()).await;
    let Err(error) = opened else { panic!("there is nothing") };
    let told = format!("{error} {error:?} {location} {location:?}");
    assert!(!told.contains("swordfish"), "{told}");
    assert!(told.contains("127.0.0.1:1/nowhere"), "{told}");
}

/// HMACs differ from run to run, as the master key does.
fn hide_keyed(dump: &str) -> String {
    let mut lines = Vec::new();
    for line in dump.lines().filter(|line| !line.contains("word=")) {
        let cells = line.split(' ').map(|cell| if cell.starts_with("email=") { "email=…" } else { cell });
        lines.push(cells.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

/// Runs a test on both databases. Snapshots allow duplicates, as each is taken on both.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod in_a_file {
            $(#[tokio::test] async fn $test() { super::$test(super::On::Sqlite).await; })*
        }
        mod in_postgres {
            $(#[tokio::test] async fn $test() { super::$test(super::On::Postgres).await; })*
        }
    };
}

on_both! {
    users_are_found_by_address_word_role_and_status,
    cursors_lead_through_every_user_once,
    active_sessions_are_listed,
    login_checks_find_the_user_of_an_address,
    login_checks_follow_an_address,
    users_show_the_current_address_and_whether_it_is_verified,
    sessions_end_with_what_ends_all_of_them,
    stats_count_magic_links,
    stats_count_by_hour_and_day,
    the_audit_log_finds_positions,
    inv_l_a_gap_is_refused_and_nothing_of_it_stays,
    another_journal_is_recognized,
    inv_n_no_stored_byte_tells_who_somebody_is,
    an_erased_person_is_no_longer_shown,
}
