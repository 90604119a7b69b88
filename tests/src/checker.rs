//! What must hold after any fault: the log has everything that was acknowledged, once; the bus and the read models
//! match the log; what was ended stays ended. The letters are those of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::bus::STREAM;
use crate::workload::{Action, History, Outcome};
use crate::{Bus, PATIENCE, Server, Tokens, assert_gapless, claims_of, of_type};

/// How far apart the clocks of two nodes may be.
const LEEWAY: Duration = Duration::from_mins(1);
/// How many credentials of each kind are tried: the newest ones, which were closest to the fault.
const SAMPLE: usize = 30;
/// How many calls the checker makes at a time.
const AT_ONCE: usize = 4;

/// Checks everything. Read models are also compared with rebuilt ones, for which the node, which must be their only
/// user, is restarted.
pub async fn check(server: &mut Server, bus: Option<&Bus>, history: &History) {
    check_running(server, bus, history).await;
    let lived = answers(server, history).await;
    forget_read_models(server.projections_mut()).await;
    server.projections_mut().up().await;
    caught_up(server, server.events().await.len() as u64).await;
    assert_eq!(
        answers(server, history).await,
        lived,
        "read models built anew are those that lived through it"
    );
}

/// Stops a server and removes its read models, which the next start rebuilds.
pub async fn forget_read_models(server: &mut Server) {
    assert!(server.terminate().await.success());
    let place = server.read_models();
    if place.starts_with("postgres:") {
        let mut connection = PgConnection::connect(&place).await.expect("the database is there");
        connection.execute("DROP SCHEMA watchword_read CASCADE").await.expect("the read models are there");
        connection.close().await.expect("it can be closed");
        return;
    }
    fs::remove_file(&place).expect("the read models are there");
    // If the server was killed before, their log is beside them.
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{place}{beside}"));
    }
}

/// Checks nodes that share journal and read models, and compares these with the ones that another node has rebuilt in
/// its own database.
pub async fn check_nodes(nodes: &[&Server], fresh: &Server, bus: Option<&Bus>, history: &History) {
    for node in nodes {
        check_running(node, bus, history).await;
    }
    caught_up(fresh, fresh.events().await.len() as u64).await;
    let built = answers(fresh, history).await;
    for node in nodes {
        assert_eq!(
            answers(node, history).await,
            built,
            "read models built anew are those that lived through it"
        );
    }
}

/// Checks everything that can be seen from outside a running server.
pub async fn check_running(server: &Server, bus: Option<&Bus>, history: &History) {
    ended_stays_ended(history);
    credentials_hold(server, history).await;
    let events = server.events().await;
    assert_gapless(&events);
    acknowledged_once(&events, history);
    caught_up(server, events.len() as u64).await;
    read_models_are_the_logs(server, &events, history).await;
    if let Some(bus) = bus {
        // The records of the reads above are in the log by now too.
        let events = server.events().await;
        bus_is_the_logs(&bus.url(), &events).await;
        bus.consumer_saw(&events).await;
    }
    for node in [server, server.projections()] {
        nothing_lags(node, &server.platform_key(), bus.is_some()).await;
    }
}

/// t: waits until the process is ready and reports no lag, neither of its projectors nor, if there is a bus, of its
/// relay.
async fn nothing_lags(server: &Server, key: &str, has_bus: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = server.get("/readyz").bearer(key).await;
        let told = answer.json();
        let projectors = told["checks"]["projectors"].as_array().map_or(&[][..], Vec::as_slice);
        let relay = told["checks"].get("relay").filter(|_| has_bus);
        let mut parts = projectors.iter().chain(relay);
        if answer.status == 200 && parts.all(|it| it["ok"] == true && it["lag"] == 0) {
            return;
        }
        assert!(Instant::now() < deadline, "it does not catch up: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// d: no call that began after the acknowledged end of its session or ban of its user succeeded.
fn ended_stays_ended(history: &History) {
    let mut ended: HashMap<&str, Instant> = HashMap::new();
    for record in history.records.iter().filter(|it| matches!(it.outcome, Outcome::Done(_))) {
        if let Action::LogOut(id) | Action::Ban(id) = &record.action {
            ended.insert(id, record.ended);
        }
    }
    let is_over = |id: &str, began: Instant| ended.get(id).is_some_and(|end| *end < began);
    for record in history.records.iter().filter(|it| matches!(it.outcome, Outcome::Done(_))) {
        let late = match &record.action {
            Action::Refresh(session, user) | Action::Me(session, user) => {
                is_over(session, record.began) || is_over(user, record.began)
            }
            Action::LogIn(user) => is_over(user, record.began),
            Action::Register(_) | Action::LogOut(_) | Action::Ban(_) => false,
        };
        assert!(!late, "it began after the end: {record:?}");
    }
}

/// What the calls show about each session and user.
#[derive(Default)]
struct Told<'a> {
    /// The newest tokens of each session, in the order in which the sessions began.
    tokens: Vec<&'a Tokens>,
    /// The refresh tokens of each session that were issued after the first.
    successors: HashMap<&'a str, BTreeSet<&'a str>>,
    /// How many refreshes of each session may or may not have been carried out: the outcome is unknown, or they were
    /// refused while the session was being ended, which may have happened between the decision and the answer.
    unknown_refreshes: HashMap<&'a str, usize>,
    /// Sessions and users whose end was acknowledged.
    ended: BTreeSet<&'a str>,
    /// Those that may have ended.
    maybe_ended: BTreeSet<&'a str>,
}

impl<'a> Told<'a> {
    fn by(history: &'a History) -> Self {
        let mut told = Self::default();
        let mut newest: HashMap<&str, usize> = HashMap::new();
        let mut ends: HashMap<&str, Option<Instant>> = HashMap::new();
        for record in &history.records {
            match (&record.action, &record.outcome) {
                (Action::LogOut(id), Outcome::Done(_)) => ends.insert(id, Some(record.ended)),
                // If it was carried out, then at an unknown time.
                (Action::LogOut(id), Outcome::Unknown) => ends.insert(id, None),
                _ => continue,
            };
        }
        for record in &history.records {
            match (&record.action, &record.outcome) {
                (Action::Register(_) | Action::LogIn(_), Outcome::Done(Some(tokens))) => {
                    newest.insert(&tokens.session, told.tokens.len());
                    told.tokens.push(tokens);
                }
                (Action::Refresh(session, _), Outcome::Done(Some(tokens))) => {
                    told.tokens[newest[session.as_str()]] = tokens;
                    told.successors.entry(session).or_default().insert(&tokens.refresh);
                }
                (Action::Refresh(session, _), Outcome::Unknown) => {
                    *told.unknown_refreshes.entry(session).or_default() += 1;
                }
                (Action::Refresh(session, _), Outcome::Refused(401))
                    if ends
                        .get(session.as_str())
                        .is_some_and(|end| end.is_none_or(|end| record.began < end)) =>
                {
                    *told.unknown_refreshes.entry(session).or_default() += 1;
                }
                (Action::LogOut(id) | Action::Ban(id), Outcome::Done(_)) => {
                    told.ended.insert(id);
                }
                (Action::LogOut(id) | Action::Ban(id), Outcome::Unknown) => {
                    told.maybe_ended.insert(id);
                }
                _ => {}
            }
        }
        told
    }

    fn has_ended(&self, tokens: &Tokens) -> bool {
        [&tokens.session, &tokens.user_id].into_iter().any(|id| self.ended.contains(id.as_str()))
    }

    fn may_have_ended(&self, tokens: &Tokens) -> bool {
        [&tokens.session, &tokens.user_id].into_iter().any(|id| self.maybe_ended.contains(id.as_str()))
    }
}

#[expect(clippy::disallowed_methods, reason = "servers use the machine's clock unless a test sets it")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970")
}

/// Makes calls, a few at a time.
async fn all<F: Future<Output = ()>>(calls: impl Iterator<Item = F>) {
    stream::iter(calls).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
}

/// d and i: ended sessions are refused, and the others still work.
async fn credentials_hold(server: &Server, history: &History) {
    let (app, told) = (server.app(&history.app), Told::by(history));
    let newest_first = || told.tokens.iter().rev().copied();
    let ended = newest_first().filter(|it| told.has_ended(it)).take(SAMPLE);
    all(ended.map(|tokens| {
        let app = &app;
        async move {
            app.me(&tokens.access).await.expect_refusal();
            app.refresh(&tokens.refresh).await.expect_refusal();
        }
    }))
    .await;
    let live = newest_first().filter(|it| !told.has_ended(it) && !told.may_have_ended(it)).take(SAMPLE);
    let latest = now() + LEEWAY;
    all(live.map(|tokens| async {
        let answer = app.me(&tokens.access).await;
        // A node whose clock is ahead issues tokens from the future.
        if claims_of(&tokens.access)["iat"].as_u64().expect("a time") > latest.as_secs() {
            answer.expect_refusal();
        } else {
            answer.expect(200);
        }
    }))
    .await;
}

/// An event type, how many such events the log has, and which calls cause them.
type Kind = (&'static str, usize, fn(&Action) -> bool);

/// a, b, c and f: everything acknowledged is in the log once, nothing refused is, and what is unknown is there
/// completely or not at all.
fn acknowledged_once(events: &[Value], history: &History) {
    let events: Vec<Value> = events.iter().filter(|it| it["appid"] == *history.app).cloned().collect();
    let count = |name: &str, member: &str| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for event in of_type(&events, name) {
            *counts.entry(event["data"][member].as_str().expect("an id").to_owned()).or_default() += 1;
        }
        counts
    };
    let registered = count("UserRegistered", "user_id");
    let (started, refreshed) =
        (count("SessionStarted", "session_id"), count("SessionRefreshed", "session_id"));
    let revoked = count("SessionRevoked", "session_id");
    let owners: BTreeMap<&str, &str> = of_type(&events, "SessionStarted")
        .iter()
        .map(|it| {
            (
                it["data"]["session_id"].as_str().expect("an id"),
                it["data"]["user_id"].as_str().expect("an id"),
            )
        })
        .collect();

    let told = Told::by(history);
    for tokens in &told.tokens {
        assert_eq!(registered.get(&tokens.user_id), Some(&1), "{} was acknowledged", tokens.user_id);
        assert_eq!(started.get(&tokens.session), Some(&1), "{} was acknowledged", tokens.session);
    }
    let whole: BTreeSet<&str> = owners.values().copied().collect();
    assert!(registered.keys().all(|user| whole.contains(user.as_str())), "a registration begins a session");
    for tokens in &told.tokens {
        let session = tokens.session.as_str();
        let acknowledged = told.successors.get(session).map_or(0, BTreeSet::len);
        let unknown = told.unknown_refreshes.get(session).copied().unwrap_or(0);
        let logged = refreshed.get(session).copied().unwrap_or(0);
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&logged),
            "{session}: {acknowledged} refreshes acknowledged, {unknown} unknown, {logged} in the log"
        );
        let (times, over) = (revoked.get(session).copied().unwrap_or(0), told.has_ended(tokens));
        assert!(
            times <= 1 && (times == 1 || !over),
            "{session} was ended, but its end is in the log {times} times"
        );
        assert!(times == 0 || over || told.may_have_ended(tokens), "{session} ended without a request");
    }
    let banned = of_type(&events, "UserBanned");
    let bans = |user: &str| banned.iter().filter(|it| it["subject"] == format!("user-{user}")).count();
    let sum = |outcome: fn(&Outcome) -> bool, action: fn(&Action) -> bool| {
        history.records.iter().filter(|it| outcome(&it.outcome) && action(&it.action)).count()
    };
    for record in &history.records {
        if let (Action::Ban(user), Outcome::Done(_)) = (&record.action, &record.outcome) {
            assert_eq!(bans(user), 1, "the ban of {user} was acknowledged");
        }
    }
    let kinds: [Kind; 3] = [
        ("UserRegistered", registered.len(), |it| matches!(it, Action::Register(_))),
        ("SessionStarted", started.len(), |it| matches!(it, Action::Register(_) | Action::LogIn(_))),
        ("UserBanned", banned.len(), |it| matches!(it, Action::Ban(_))),
    ];
    for (name, logged, action) in kinds {
        let done = sum(|it| matches!(it, Outcome::Done(_)), action);
        let unknown = sum(|it| *it == Outcome::Unknown, action);
        assert!(
            (done..=done + unknown).contains(&logged),
            "{name}: {done} acknowledged, {unknown} unknown, {logged} in the log"
        );
    }
}

/// Waits until every read model has seen the log up to this position.
pub async fn caught_up(server: &Server, head: u64) {
    let (key, deadline) = (server.platform_key(), Instant::now() + PATIENCE);
    loop {
        let list = server.get("/v1/projections").bearer(&key).await.expect(200).json();
        let items = list["items"].as_array().expect("a list has items");
        if items.iter().all(|it| it["position"].as_u64() >= Some(head) && it["state"] == "running") {
            return;
        }
        assert!(Instant::now() < deadline, "the read models do not reach {head}: {list}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All users of an app, page by page, by id.
pub async fn users(server: &Server, app: &str) -> BTreeMap<String, Value> {
    let (app, key) = (server.app(app), server.platform_key());
    let mut users = BTreeMap::new();
    for offset in (0_u64..).step_by(200) {
        let page =
            app.get(&format!("admin/users?limit=200&offset={offset}")).bearer(&key).await.expect(200).json();
        let items = page["items"].as_array().expect("a list has items");
        users.extend(items.iter().map(|it| (it["id"].as_str().expect("an id").to_owned(), it.clone())));
        if items.len() < 200 {
            assert_eq!(page["total"], users.len());
            break;
        }
    }
    users
}

async fn stats(server: &Server, app: &str) -> Value {
    // Independent of the server's clock.
    let path = "admin/stats?granularity=day&from=2026-01-01T00:00:00Z&to=2050-01-01T00:00:00Z";
    server.app(app).get(path).bearer(&server.platform_key()).await.expect(200).json()["items"].clone()
}

/// The answers of the read models, for comparison.
async fn answers(server: &Server, history: &History) -> Value {
    let app = server.app(&history.app);
    let audit = app.get("audit/events?limit=200").bearer(&server.platform_key()).await.expect(200).json();
    json!([users(server, &history.app).await, stats(server, &history.app).await, audit])
}

/// k and l: users, sessions and figures agree with the log.
async fn read_models_are_the_logs(server: &Server, events: &[Value], history: &History) {
    let events: Vec<Value> = events.iter().filter(|it| it["appid"] == *history.app).cloned().collect();
    let ids = |name: &str, member: &str| -> BTreeSet<String> {
        of_type(&events, name)
            .iter()
            .map(|it| it["data"][member].as_str().expect("an id").to_owned())
            .collect()
    };
    let banned: BTreeSet<&str> = of_type(&events, "UserBanned")
        .iter()
        .filter_map(|it| it["subject"].as_str()?.strip_prefix("user-"))
        .collect();
    let users = users(server, &history.app).await;
    assert_eq!(users.keys().cloned().collect::<BTreeSet<_>>(), ids("UserRegistered", "user_id"));
    let (mut asked, mut addresses) = (BTreeSet::new(), HashMap::new());
    for record in &history.records {
        match (&record.action, &record.outcome) {
            (Action::Register(address), Outcome::Done(Some(tokens))) => {
                addresses.insert(tokens.user_id.as_str(), address.as_str());
                asked.insert(address.as_str());
            }
            (Action::Register(address), Outcome::Unknown) => {
                asked.insert(address);
            }
            _ => {}
        }
    }
    for (id, user) in &users {
        let address = user["email"].as_str().expect("an address");
        assert!(addresses.get(id.as_str()).is_none_or(|it| *it == address), "{user}");
        assert!(asked.contains(address), "a registration of {address} was refused");
        assert_eq!(user["banned"], banned.contains(id.as_str()), "{user}");
    }

    let mut live: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let revoked = ids("SessionRevoked", "session_id");
    for event in of_type(&events, "SessionStarted") {
        let data = &event["data"];
        let (session, user) =
            (data["session_id"].as_str().expect("an id"), data["user_id"].as_str().expect("an id"));
        let sessions = live.entry(user).or_default();
        // A ban ends them all, whatever comes between it and the events that end them individually.
        if !revoked.contains(session) && !banned.contains(user) {
            sessions.insert(session);
        }
    }
    let (app, key) = (server.app(&history.app), server.platform_key());
    all(users.keys().rev().take(SAMPLE).map(|user| {
        let (call, expected) =
            (app.get(&format!("admin/users/{user}/sessions")).bearer(&key), &live[user.as_str()]);
        async move {
            let list = call.await.expect(200).json();
            let found: BTreeSet<&str> = list["items"]
                .as_array()
                .expect("a list has items")
                .iter()
                .map(|it| it["id"].as_str().expect("an id"))
                .collect();
            assert_eq!(
                (&found, list["total"].as_u64()),
                (expected, Some(expected.len() as u64)),
                "of {user}"
            );
        }
    }))
    .await;

    let stats = stats(server, &history.app).await;
    for (figure, name) in [
        ("registrations", "UserRegistered"),
        ("logins", "SessionStarted"),
        ("refreshes", "SessionRefreshed"),
        ("revocations", "SessionRevoked"),
    ] {
        let counted: u64 = stats.as_array().expect("a list").iter().map(|it| number(&it[figure])).sum();
        assert_eq!(counted, of_type(&events, name).len() as u64, "{figure}: {stats}");
    }
}

/// A figure, or the sum of figures by method.
fn number(value: &Value) -> u64 {
    match value {
        Value::Object(members) => members.values().map(number).sum(),
        other => other.as_u64().unwrap_or_else(|| panic!("no figure: {other}")),
    }
}

/// m: waits until the stream ends where the log does, then reads all of it: the same events in the same order, each
/// with its position as the sequence.
async fn bus_is_the_logs(url: &str, events: &[Value]) {
    let client = async_nats::connect(url).await.expect("NATS is there");
    let jetstream = jetstream::new(client);
    let (head, deadline) = (events.len() as u64, Instant::now() + PATIENCE);
    let stream = loop {
        let found = jetstream.get_stream(STREAM).await;
        match found {
            Ok(stream) if stream.cached_info().state.last_sequence >= head => break stream,
            other => {
                let end = other.map(|it| it.cached_info().state.last_sequence).map_err(|it| it.to_string());
                assert!(Instant::now() < deadline, "the log ends at {head}, the stream at {end:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let all = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..pull::OrderedConfig::default() };
    let consumer = stream.create_consumer(all).await.expect("a consumer can be made");
    let mut messages = consumer.messages().await.expect("a consumer gives messages");
    for (event, position) in events.iter().zip(1_u64..) {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.ok().flatten().unwrap_or_else(|| panic!("no message {position} comes"));
        let message = message.unwrap_or_else(|error| panic!("message {position}: {error}"));
        assert_eq!(message.info().expect("JetStream says where it is from").stream_sequence, position);
        let id =
            message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id")).map(ToString::to_string);
        assert_eq!(id.as_deref(), event["id"].as_str(), "message {position} has the event's id");
        let body: Value = serde_json::from_slice(&message.payload).expect("events are JSON");
        assert_eq!(body, *event, "message {position} is the event");
    }
    let end =
        jetstream.get_stream(STREAM).await.expect("the stream is there").cached_info().state.last_sequence;
    assert_eq!(end, head, "the stream ends where the log does");
}
