//! The rows of users, login checks, sessions and stats, and what is found in them.

use std::collections::BTreeSet;

use domain::session::{LoginMethod, RevocationReason, SessionEvent, SessionRevoked, SessionStarted};
use domain::user::{RegistrationMethod, UserEvent, UserRegistered};
use domain::{AppId, Email, Event, Role};
use insta::{allow_duplicates, assert_snapshot};
use jiff::tz::TimeZone;

use super::world::*;
use crate::stats::{Granularity, Span, spans};
use crate::users::{UserFilter, UserSort, UserStatus};
use crate::{Paging, ReadError, ReadModels};

async fn users_are_found_by_address_word_role_and_status(on: On) {
    let world = small_world(on).await;
    let rows = hide_keyed(&dump(&world.models, "users").await);
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    users_v2
      user_id=00000000000000000000000000000001 app_id=default email=… email_verified=0 banned=0 roles=["editor"] created_at=1800000000000000 updated_at=1800000055000000 words=… sealed={"email":"ada@example.com","name":"Ada King"}
      user_id=00000000000000000000000000000002 app_id=default email=… email_verified=0 banned=1 roles=[] created_at=1800000010000000 updated_at=1800000070000000 words=… sealed={"email":"grace@example.org","name":"Grace Hopper"}
    user_words_v2
    user_counts_v2
      app_id=default banned=0 email_verified=0 users=1
      app_id=default banned=1 email_verified=0 users=1
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
    assert_eq!(names(query("ad")).await, ["Ada King"]);
    assert_eq!(names(query("k")).await, ["Ada King"]);
    let no_word = world.models.users().list(&app, &query("--"), &Paging::default()).await;
    assert!(matches!(no_word, Err(ReadError::QueryWithoutWord)));
    let other = AppId::parse("other").expect("valid");
    let elsewhere = world.models.users().list(&other, &query("ada"), &Paging::default()).await;
    assert_eq!(elsewhere.expect("lists").total, 0);
}

async fn names_are_found_however_they_are_written(on: On) {
    let world = World::new(on).await;
    let names = [
        "Zoë Washburne",
        "ΟΔΥΣΣΕΥΣ Λαέρτης",
        "İstanbul Işık",
        "王小龙",
        "山田太郎",
        "김철수",
        "प्रकाश शर्मा",
        "Bo Li",
        "Maximilian-Alexander Wolkenstein",
    ];
    for (n, name) in (1..).zip(names) {
        world.append(&registered(n, &format!("user{n}@example.com"), name, 0), 0).await;
    }
    world.catch_up(&world.models, 1000).await;
    let app = AppId::default_app();
    for (query, found) in [
        ("zoe", vec![1]),
        ("ZOË", vec![1]),
        ("Zoe\u{308}", vec![1]),
        ("οδυσ", vec![2]),
        ("Οδυσσεύς", vec![2]),
        ("ΛΑΕΡΤΗΣ", vec![2]),
        ("istanbul", vec![3]),
        ("ISTANBUL", vec![3]),
        ("ışık", vec![3]),
        ("王", vec![4]),
        ("小龙", vec![4]),
        ("太郎", vec![5]),
        ("山田", vec![5]),
        ("철수", vec![6]),
        ("김", vec![6]),
        ("शर्मा", vec![7]),
        ("प्र", vec![7]),
        ("bo", vec![8]),
        ("li", vec![8]),
        ("l b", vec![8]),
        ("wolkenst", vec![9]),
        ("wolkensteiner", vec![]),
        ("maximilian alexander", vec![9]),
        ("user4", vec![4]),
        ("x", vec![]),
    ] {
        let filter = UserFilter { query: Some(query.to_owned()), ..UserFilter::default() };
        let page = world.models.users().list(&app, &filter, &Paging::default()).await.expect("lists");
        let ids: Vec<_> = page.items.iter().map(|it| it.id).collect();
        assert_eq!(ids, found.into_iter().map(user).collect::<Vec<_>>(), "{query}");
        assert_eq!(page.next_cursor, None);
    }
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
        (Some("same name"), UserSort::CreatedAtDescending),
        (Some("user na"), UserSort::CreatedAt),
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
pub(super) async fn both_ways(on: On, history: &[Event]) -> (World, Vec<ReadModels>) {
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
    let rows = in_order(&hide_keyed(&dump(&world.models, "stats").await));
    allow_duplicates! {
        assert_snapshot!(rows, @r#"
    stats_v2
      app_id=default organization_id= quarter=2000000 metric=failures method=password count=1
      app_id=default organization_id= quarter=2000000 metric=lockouts method= count=1
      app_id=default organization_id= quarter=2000000 metric=logins method=password count=2
      app_id=default organization_id= quarter=2000000 metric=refreshes method= count=1
      app_id=default organization_id= quarter=2000000 metric=registrations method=password count=2
      app_id=default organization_id= quarter=2000000 metric=revocations method=logout count=1
      app_id=default organization_id= quarter=2000100 metric=refreshes method= count=1
    active_users_v2
      app_id=default organization_id= day=20833 person_key=… early=4294967296 late=0
      app_id=default organization_id= day=20834 person_key=… early=68719476736 late=0
    accounts_v2
      person_key=… app_id=default registered_at=1800000000000000 verified=0 logged_in=1
      person_key=… app_id=default registered_at=1800000010000000 verified=0 logged_in=0
    stats_members_v2
    "#);
    }
    let stats = world.models.stats();
    let days =
        stats.buckets(&AppId::default_app(), None, &utc(Granularity::Day, 200_000)).await.expect("counts");
    assert_eq!(days.iter().map(|day| day.active_users).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(days[0].counts["registrations"]["password"], 2);
    assert_eq!(days[0].start.to_string(), "2027-01-15T00:00:00Z");
    let hours =
        stats.buckets(&AppId::default_app(), None, &utc(Granularity::Hour, 3600)).await.expect("counts");
    assert_eq!(hours.len(), 1);
    assert_eq!(hours[0].counts["logins"]["password"], 2);
}

fn utc(granularity: Granularity, seconds: i64) -> Vec<Span> {
    spans(&TimeZone::UTC, granularity, (at(0), at(seconds)), 1000).expect("not too many")
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
        let days = models.stats().buckets(&app, None, &utc(Granularity::Day, 3600)).await.expect("counts");
        assert_eq!(days.len(), 1);
        assert_eq!(days[0].counts["registrations"]["magic_link"], 1);
        assert_eq!(days[0].counts["logins"]["magic_link"], 1);
        assert_eq!(days[0].counts["revocations"]["exchange_code_replayed"], 1);
        assert_eq!(days[0].active_users, 1);
    }
}

/// The rows of each table in the order of what is shown of them.
fn in_order(dump: &str) -> String {
    let mut tables: Vec<Vec<&str>> = vec![];
    for line in dump.lines() {
        match tables.last_mut().filter(|_| line.starts_with(' ')) {
            Some(table) => table.push(line),
            None => tables.push(vec![line]),
        }
    }
    for table in &mut tables {
        table[1..].sort_unstable();
    }
    tables.concat().join("\n")
}

/// HMACs differ from run to run, as the master key does.
fn hide_keyed(dump: &str) -> String {
    let mut lines = Vec::new();
    for line in dump.lines().filter(|line| !line.contains("word=")) {
        let cells = line.split(' ').map(|cell| match cell.split_once('=') {
            Some(("email", _)) => "email=…",
            Some(("words", _)) => "words=…",
            Some(("person_key", _)) => "person_key=…",
            _ => cell,
        });
        lines.push(cells.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

on_both! {
    users_are_found_by_address_word_role_and_status,
    names_are_found_however_they_are_written,
    cursors_lead_through_every_user_once,
    active_sessions_are_listed,
    login_checks_find_the_user_of_an_address,
    login_checks_follow_an_address,
    users_show_the_current_address_and_whether_it_is_verified,
    sessions_end_with_what_ends_all_of_them,
    stats_count_magic_links,
    stats_count_by_hour_and_day,
}
