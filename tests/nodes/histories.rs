//! Calls that race on two nodes, each recorded with its start, end and outcome, and checked for each key: some order of
//! the calls, in which each takes effect between its start and its end, explains all answers and the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};
use test_services::Postgres;
use tests::workload::{Action, Outcome, Record, record};
use tests::{App, PASSWORD, Server, assert_gapless, checker, email, of_type};

use crate::node_with;

const ADDRESSES: usize = 1000;
const TRIES: usize = 10_000;
const SESSIONS: usize = 100;
const REFRESHES: usize = 2000;
/// How many calls are in flight at a time.
const AT_ONCE: usize = 64;

/// Two nodes with cheap hashes: the race is for the journal.
async fn nodes() -> (Server, Server) {
    let database = Postgres::shared().database();
    let cheap = [("WATCHWORD_ARGON2", "m=8,t=1,p=1")];
    tokio::join!(node_with(&database, &cheap), node_with(&database, &cheap))
}

/// How often a call is made again.
const AGAIN: usize = 20;

/// Makes calls in this order, many at a time.
async fn race<'a>(calls: impl Iterator<Item = (Action, tests::Call)> + 'a) -> Vec<Record> {
    stream::iter(calls).map(|(action, call)| answered(action, call)).buffer_unordered(AT_ONCE).collect().await
}

/// Makes a call until it has an answer. A busy machine may keep the database from answering in time. The call is 503 then and
/// has changed nothing, so it is made again, as clients do.
async fn answered(action: Action, call: tests::Call) -> Record {
    for _ in 0..AGAIN {
        let record = record(action.clone(), call.again()).await;
        if record.outcome != Outcome::Refused(503) {
            return record;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    record(action, call).await
}

/// The calls for each key.
fn by_key(records: &[Record]) -> BTreeMap<&str, Vec<&Record>> {
    let mut keys: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let (Action::Register(key) | Action::Refresh(key, _)) = &record.action else { panic!("{record:?}") };
        keys.entry(key).or_default().push(record);
    }
    keys
}

/// Checks the calls for something that only one can get: one of them got it, and the others were refused because of
/// that. Returns what it got, if known.
fn had_once<'a>(calls: &[&'a Record], refusal: &[u16]) -> Option<&'a tests::Tokens> {
    let done: Vec<&&Record> = calls.iter().filter(|it| matches!(it.outcome, Outcome::Done(_))).collect();
    assert!(done.len() <= 1, "two got it: {done:?}");
    // It was one of these, so no call can have been refused before the first of them began.
    let had = |it: &&&Record| matches!(it.outcome, Outcome::Done(_) | Outcome::Unknown);
    let suspects = || if done.is_empty() { calls.iter().filter(had).collect() } else { done.clone() };
    let earliest = suspects().iter().map(|it| it.began).min().expect("one of them got it");
    for call in calls {
        // 503: nothing was changed, and it says nothing about who got it.
        if let Outcome::Refused(status) = call.outcome
            && status != 503
        {
            assert!(refusal.contains(&status), "{call:?}");
            assert!(call.ended > earliest, "refused before anyone got it: {call:?}");
        }
    }
    done.first().map(|it| match &it.outcome {
        Outcome::Done(Some(tokens)) => tokens,
        other => panic!("no tokens: {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_e_h_ten_thousand_registrations_over_a_thousand_addresses() {
    let (first, mut second) = nodes().await;
    let app = first.create_app(json!({})).await.id;
    let addresses: Vec<String> = (0..ADDRESSES).map(|_| email("race")).collect();
    let mut records = Vec::with_capacity(TRIES);
    // Neighbours want the same address, on both nodes. In the first half, one node is killed.
    for half in 0..2 {
        let tries = (half * TRIES / 2..(half + 1) * TRIES / 2).map(|index| {
            if index == TRIES / 4 {
                second.signal("KILL");
            }
            let address = &addresses[index * ADDRESSES / TRIES];
            let body = json!({"email": address, "password": PASSWORD});
            let node = [&first, &second][index % 2];
            (Action::Register(address.clone()), node.app(&app).post("auth/register").json(&body))
        });
        records.extend(race(tries).await);
        if half == 0 {
            second.kill();
            second.up().await;
        }
    }
    assert_eq!(records.len(), TRIES);
    let events = first.events().await;
    assert_gapless(&events);
    let registered: BTreeSet<&str> = of_type(&events, "UserRegistered")
        .iter()
        .map(|it| it["data"]["user_id"].as_str().expect("an id"))
        .collect();
    assert_eq!(registered.len(), ADDRESSES, "one account for each address");
    let unknown = records.iter().filter(|it| it.outcome == Outcome::Unknown).count();
    println!("{unknown} of {TRIES} outcomes are unknown");
    for (address, calls) in by_key(&records) {
        if let Some(tokens) = had_once(&calls, &[409]) {
            assert!(registered.contains(tokens.user_id.as_str()), "{address} was acknowledged");
        }
    }
    for node in [&first, &second] {
        checker::caught_up(node, events.len() as u64).await;
        let users = checker::users(node, &app).await;
        let found: BTreeSet<&str> =
            users.values().map(|it| it["email"].as_str().expect("an address")).collect();
        assert_eq!(users.len(), ADDRESSES);
        assert_eq!(found, addresses.iter().map(String::as_str).collect());
    }
}

/// Racing refreshes of the newest token of each session, on both nodes.
async fn refresh_all(nodes: [&App<'_>; 2], newest: &BTreeMap<String, String>, times: usize) -> Vec<Record> {
    race(newest.iter().flat_map(|(session, token)| {
        (0..times).map(move |index| {
            (Action::Refresh(session.clone(), String::new()), nodes[index % 2].refresh(token))
        })
    }))
    .await
}

async fn sessions(app: &App<'_>) -> BTreeMap<String, String> {
    let people = (0..SESSIONS).map(|_| async { app.register(&email("chain")).await });
    stream::iter(people).buffer_unordered(AT_ONCE).map(|it| (it.session, it.refresh)).collect().await
}

fn generations<'a>(events: &'a [Value], session: &str) -> Vec<&'a Value> {
    let of = |it: &&&Value| it["data"]["session_id"] == session;
    of_type(events, "SessionRefreshed").iter().filter(of).map(|it| &it["data"]["generation"]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_f_two_thousand_refreshes_make_one_chain_each() {
    let (first, second) = nodes().await;
    let app = first.create_app(json!({"refresh_grace": 60})).await.id;
    let (here, there) = (first.app(&app), second.app(&app));
    let mut newest = sessions(&here).await;
    for _ in 0..2 {
        let records = refresh_all([&here, &there], &newest, REFRESHES / SESSIONS / 2).await;
        for (session, calls) in by_key(&records) {
            let successors: BTreeSet<&str> = calls
                .iter()
                .map(|call| match &call.outcome {
                    Outcome::Done(Some(tokens)) => tokens.refresh.as_str(),
                    other => panic!("{session}: {other:?}"),
                })
                .collect();
            assert_eq!(successors.len(), 1, "{session} has one live leaf");
            let successor = (*successors.first().expect("it has one")).to_owned();
            assert_ne!(newest.insert(session.to_owned(), successor.clone()), Some(successor));
        }
    }
    let events = second.events().await;
    assert_gapless(&events);
    for session in newest.keys() {
        assert_eq!(generations(&events, session), [1, 2], "{session} is a chain");
    }
}

/// Without a grace period a refresh token can be used once: the second use ends the session.
#[tokio::test(flavor = "multi_thread")]
async fn inv_f_g_two_thousand_refreshes_without_grace_succeed_once_each() {
    let (first, second) = nodes().await;
    let app = first.create_app(json!({"refresh_grace": 0})).await.id;
    let (here, there) = (first.app(&app), second.app(&app));
    let newest = sessions(&here).await;
    let records = refresh_all([&here, &there], &newest, REFRESHES / SESSIONS).await;
    let events = first.events().await;
    assert_gapless(&events);
    let ended: BTreeSet<&str> = of_type(&events, "SessionRevoked")
        .iter()
        .map(|it| it["data"]["session_id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ended.len(), SESSIONS, "each token was used again");
    for (session, calls) in by_key(&records) {
        // The call that got it may still have been refused because the session was over by then.
        let refused = calls.iter().filter(|it| it.outcome == Outcome::Refused(401)).count();
        assert!(refused >= calls.len() - 1, "{session}: {calls:?}");
        if refused < calls.len() {
            let successor = had_once(&calls, &[401]).expect("one call got it");
            there.refresh(&successor.refresh).await.problem(401, "session_revoked");
            there.me(&successor.access).await.problem(401, "unauthenticated");
        }
        assert_eq!(generations(&events, session), [1], "{session} was refreshed once");
    }
}
