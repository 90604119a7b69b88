//! a, b, h, l: what is acknowledged is in the log exactly once, despite crashes and retries.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{PASSWORD, Server, assert_gapless, email, of_type};

/// Cheap hashes, so that the load is on the journal.
const CHEAP: (&str, &str) = ("WATCHWORD_ARGON2", "m=1024,t=1,p=1");
const ROUNDS: u64 = 20;
const CLIENTS: usize = 8;

/// What the server acknowledged: users, and for each session how often it was refreshed.
#[derive(Default)]
struct Acknowledged {
    users: HashMap<String, String>,
    refreshes: HashMap<String, usize>,
}

/// A client: registers a user, refreshes a few times, then starts over, until the server is gone.
async fn client(server: &Server, stop: &AtomicBool) -> Acknowledged {
    let mut done = Acknowledged::default();
    'next: while !stop.load(Ordering::Relaxed) {
        let address = email("load");
        let body = json!({"email": address, "password": PASSWORD});
        let Ok(answer) = server.post("/auth/register").json(&body).attempt().await else { break };
        let mut tokens = answer.expect(201).tokens();
        done.users.insert(tokens.user_id.clone(), tokens.session.clone());
        for _ in 0..5 {
            let body = json!({"refresh_token": tokens.refresh});
            let Ok(answer) = server.post("/auth/refresh").json(&body).attempt().await else { break 'next };
            tokens = answer.expect(200).tokens();
            *done.refreshes.entry(tokens.session.clone()).or_default() += 1;
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_a_nothing_acknowledged_is_lost_by_kill_9_under_load() {
    let mut server = Server::start_with(&[CHEAP]).await;
    let mut acknowledged: Vec<Acknowledged> = vec![];
    let mut prefix: Vec<Value> = vec![];
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let pid = server.pid();
        let kill = async {
            // A different moment of the server's work each round.
            tokio::time::sleep(Duration::from_millis(60 + round * 17)).await;
            let status = std::process::Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
            assert!(status.expect("a shell runs").success());
            stop.store(true, Ordering::Relaxed);
        };
        let clients = futures::future::join_all((0..CLIENTS).map(|_| client(&server, &stop)));
        let (done, ()) = tokio::join!(clients, kill);
        acknowledged.extend(done);
        server.kill();
        server.up().await;

        let events = server.events().await;
        assert_gapless(&events);
        assert_eq!(events[..prefix.len()], prefix, "round {round}: an old prefix changed");
        check(&acknowledged, &events);
        prefix = events;
    }
    let users: usize = acknowledged.iter().map(|it| it.users.len()).sum();
    let refreshes: usize = acknowledged.iter().flat_map(|it| it.refreshes.values()).sum();
    assert!(users >= 20 && refreshes >= 20, "{users} users, {refreshes} refreshes: too little to tell");
}

fn check(acknowledged: &[Acknowledged], events: &[Value]) {
    let count = |name: &str, member: &str| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for event in of_type(events, name) {
            *counts.entry(event["data"][member].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    };
    let (registered, started) = (count("UserRegistered", "user_id"), count("SessionStarted", "session_id"));
    let refreshed = count("SessionRefreshed", "session_id");
    for client in acknowledged {
        for (user, session) in &client.users {
            assert_eq!(registered.get(user), Some(&1), "user {user} was acknowledged");
            assert_eq!(started.get(session), Some(&1), "session {session} was acknowledged");
        }
        for (session, times) in &client.refreshes {
            let logged = refreshed.get(session).copied().unwrap_or(0);
            // One more may have been committed although its reply was lost.
            assert!(
                logged == *times || logged == times + 1,
                "{session}: {times} acknowledged, {logged} in the log"
            );
        }
    }
    // All or nothing: a registration has its user and its session, never only one of them.
    let sessions: HashSet<&str> =
        of_type(events, "SessionStarted").iter().map(|it| it["data"]["user_id"].as_str().unwrap()).collect();
    assert!(registered.keys().all(|user| sessions.contains(user.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_b_an_unknown_outcome_converges_under_its_key() {
    let mut server = Server::start_with(&[CHEAP]).await;
    let mut registered = 0;
    for pause in [3, 8, 13, 18, 23] {
        let requests: Vec<(String, Value)> = (0..CLIENTS)
            .map(|index| (format!("{pause}-{index}"), json!({"email": email("retry"), "password": PASSWORD})))
            .collect();
        let pid = server.pid();
        let send = |(key, body): (String, Value)| {
            let call = server.post("/auth/register").header("idempotency-key", &key).json(&body);
            async move { call.attempt().await.ok().map(|it| it.expect(201).tokens()) }
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let _ = std::process::Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status();
        };
        let (first, ()) = tokio::join!(futures::future::join_all(requests.iter().cloned().map(send)), kill);
        server.kill();
        server.up().await;
        for (request, told) in requests.iter().zip(first) {
            let retry =
                || server.post("/auth/register").header("idempotency-key", &request.0).json(&request.1);
            let one = retry().await.expect(201).tokens();
            let two = retry().await.expect(201).tokens();
            assert_eq!((&one.refresh, &one.session), (&two.refresh, &two.session));
            if let Some(told) = told {
                assert_eq!(
                    (told.refresh, told.session),
                    (one.refresh, one.session),
                    "the first answer stays true"
                );
            }
        }
        registered += CLIENTS;
        let events = server.events().await;
        assert_gapless(&events);
        assert_eq!(of_type(&events, "UserRegistered").len(), registered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_h_an_address_belongs_to_one_user_of_an_app() {
    let server = Server::start_with(&[CHEAP]).await;
    let (one, two) = (server.create_app(json!({})).await, server.create_app(json!({})).await);
    let addresses: Vec<String> = (0..10).map(|_| email("unique")).collect();
    let tries = (0..100).map(|index| {
        let app = if index % 2 == 0 { &one } else { &two };
        let body = json!({"email": addresses[index / 10], "password": PASSWORD});
        async move { app.post("auth/register").json(&body).await.status }
    });
    let statuses = futures::future::join_all(tries).await;
    assert_eq!(
        statuses.iter().filter(|it| **it == 201).count(),
        20,
        "ten addresses in two apps: {statuses:?}"
    );
    assert_eq!(statuses.iter().filter(|it| **it == 409).count(), 80);
    let events = server.events().await;
    assert_gapless(&events);
    for app in [&one, &two] {
        let here = of_type(&events, "UserRegistered").iter().filter(|it| it["appid"] == *app.id).count();
        assert_eq!(here, 10);
    }
}
