//! Commands and projections as separate processes, two of each, with PostgreSQL and NATS between them.

use std::time::Instant;

use serde_json::{Value, json};
use test_services::{Nats, Postgres};
use tests::collector::Collector;
use tests::{PASSWORD, PATIENCE, Server, assert_gapless, email, of_type};

use crate::MASTER_KEY;

struct Cluster {
    commands: [Server; 2],
    projections: [Server; 2],
    nats: Nats,
    platform_key: String,
}

impl Cluster {
    async fn start() -> Self {
        let (database, nats) = (Postgres::shared().database(), Nats::start());
        let nats_url = nats.url();
        let environment = [
            ("WATCHWORD_JOURNAL_URL", database.as_str()),
            ("WATCHWORD_NATS_URL", nats_url.as_str()),
            ("WATCHWORD_MASTER_KEY", MASTER_KEY),
            ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
            ("WATCHWORD_PROJECTIONS_LEASE", "2"),
        ];
        let start = |role| Server::start_role(role, &environment);
        let commands = [start("commands").await, start("commands").await];
        let (one, two) = tokio::join!(start("projections"), start("projections"));
        let platform_key = commands[0].platform_key();
        Self { commands, projections: [one, two], nats, platform_key }
    }

    /// The users that a projection node lists once it has reached this position.
    async fn users(&self, node: &Server, token: &str) -> Vec<String> {
        let list = node
            .default_app()
            .get("admin/users?limit=100")
            .bearer(&self.platform_key)
            .header("Consistency-Token", token)
            .await
            .expect(200)
            .json();
        let mut users: Vec<String> =
            list["items"].as_array().expect("a list").iter().map(|user| id_of(&user["id"])).collect();
        users.sort();
        users
    }

    /// Registers a user, and returns their id and the newest consistency token.
    async fn register(&self, node: usize) -> (String, String) {
        let app = self.commands[node].default_app();
        let address = email("ada");
        let user = app.register(&address).await.user_id;
        let login = app.login(&address, PASSWORD).await.expect(200);
        (user, login.headers["consistency-token"].to_str().expect("text").to_owned())
    }
}

fn id_of(value: &Value) -> String {
    value.as_str().expect("a user has an id").to_owned()
}

#[tokio::test]
async fn queries_follow_commands_whichever_other_process_is_gone() {
    let mut cluster = Cluster::start().await;
    let (mut registered, mut newest) = (Vec::new(), String::new());
    for node in [0, 1, 0, 1] {
        let (user, token) = cluster.register(node).await;
        registered.push(user);
        registered.sort();
        for projections in &cluster.projections {
            assert_eq!(cluster.users(projections, &token).await, registered);
        }
        newest = token;
    }
    // A node that serves only queries records who read data; two that do so at the same time record it once.
    let token = newest.clone();
    let [one, two] = &cluster.projections;
    tokio::join!(cluster.users(one, &token), cluster.users(two, &token));
    let events = one.get("/v1/events?limit=200").bearer(&cluster.platform_key).await.expect(200).json();
    let events = events["items"].as_array().expect("a list");
    let mut seen: Vec<String> =
        of_type(events, "PersonalDataRead").iter().map(|event| id_of(&event["data"]["user_id"])).collect();
    seen.sort();
    assert_eq!(seen, registered);
    // Whichever node started first.
    assert_eq!(events[0]["type"], "JournalCreated");
    assert_eq!(of_type(events, "JournalCreated").len(), 1);
    let stats = cluster.projections[1].default_app().get("admin/stats").bearer(&cluster.platform_key);
    let stats = stats.header("Consistency-Token", &newest).await.expect(200).json();
    let registrations = stats["items"].as_array().expect("a list").iter().map(|day| &day["registrations"]);
    assert_eq!(registrations.filter_map(|methods| methods["password"].as_u64()).sum::<u64>(), 4, "{stats}");

    // NATS is gone: the journal is enough.
    cluster.nats.kill();
    let (user, token) = cluster.register(1).await;
    registered.push(user);
    registered.sort();
    assert_eq!(cluster.users(&cluster.projections[0], &token).await, registered);
    cluster.nats.up();

    // One node is killed while it holds leases: the other takes them over.
    cluster.projections[0].kill();
    let (user, token) = cluster.register(0).await;
    registered.push(user);
    registered.sort();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ask = cluster.projections[1]
            .default_app()
            .get("admin/users?limit=100")
            .bearer(&cluster.platform_key)
            .header("Consistency-Token", &token)
            .await;
        if ask.status == 200 {
            break;
        }
        ask.problem(503, "projection_behind");
        assert!(Instant::now() < deadline, "no node took over the leases");
    }
    assert_eq!(cluster.users(&cluster.projections[1], &token).await, registered);

    // It restarts; one command node stops properly, and the other keeps working.
    cluster.projections[0].up().await;
    assert!(cluster.commands[0].terminate().await.success());
    let (user, token) = cluster.register(1).await;
    registered.push(user);
    registered.sort();
    for projections in &cluster.projections {
        assert_eq!(cluster.users(projections, &token).await, registered);
    }
    let feed = cluster.projections[1].get("/v1/events?limit=200").bearer(&cluster.platform_key).await;
    assert_gapless(feed.expect(200).json()["items"].as_array().expect("a list"));
    for projections in &mut cluster.projections {
        assert!(projections.terminate().await.success());
    }
}

#[tokio::test]
async fn each_role_answers_its_own_routes_and_documents_all_of_them() {
    let cluster = Cluster::start().await;
    let (commands, projections) = (&cluster.commands[0], &cluster.projections[0]);
    let document = commands.get("/openapi.json").await.expect(200).text;
    assert_eq!(projections.get("/openapi.json").await.expect(200).text, document);
    let routes = |document: &str| serde_json::from_str::<Value>(document).expect("JSON")["paths"].clone();
    let paths = routes(&document);
    assert!(paths["/v1/apps/{app_id}/auth/register"]["post"].is_object());
    assert!(paths["/v1/apps/{app_id}/admin/stats"]["get"].is_object());

    let body = json!({"email": email("ada"), "password": PASSWORD});
    projections.default_app().post("auth/register").json(&body).await.problem(404, "not_found");
    let stats = commands.default_app().get("admin/stats").bearer(&cluster.platform_key);
    stats.await.problem(404, "not_found");

    let ready = commands.get("/readyz").await.expect(200).json();
    assert!(ready["checks"]["relay"]["ok"] == true && ready["checks"]["read_models"].is_null(), "{ready}");
    let ready = projections.get("/readyz").await.expect(200).json();
    assert!(ready["checks"]["relay"].is_null() && ready["checks"]["read_models"]["ok"] == true, "{ready}");
}

#[tokio::test]
async fn a_request_is_one_trace_over_all_processes() {
    let (collector, database, nats) =
        (Collector::start().await, Postgres::shared().database(), Nats::start());
    let (endpoint, nats_url) = (collector.endpoint(), nats.url());
    let environment = [
        ("WATCHWORD_JOURNAL_URL", database.as_str()),
        ("WATCHWORD_NATS_URL", nats_url.as_str()),
        ("WATCHWORD_MASTER_KEY", MASTER_KEY),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
        ("WATCHWORD_OTLP_ENDPOINT", endpoint.as_str()),
    ];
    let commands = Server::start_role("commands", &environment).await;
    let projections = Server::start_role("projections", &environment).await;
    let models = projections.names_of_read_models(&commands.platform_key()).await;
    assert!(models.len() >= 5, "{models:?}");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({"email": email("ada"), "password": PASSWORD});
    let register = commands.default_app().post("auth/register").json(&body);
    register.header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")).await.expect(201);

    // Two events, each published and applied by every projector; the request with its hash, decision and append.
    let spans = collector.trace(trace, 6 + 2 * models.len()).await;
    let request = spans.iter().find(|span| span.kind == 2).expect("the request is a span");
    assert_eq!(request.parent, "00f067aa0ba902b7");
    let of_role = |role: &str| -> Vec<String> {
        let spans = spans.iter().filter(|span| span.process["watchword.role"] == role);
        let events = spans.filter(|span| span.attributes.contains_key("watchword.event.position"));
        events
            .map(|span| {
                assert_eq!(span.parent, request.id, "{span:?}");
                format!("{} {}", span.name, span.attributes["watchword.event.type"])
            })
            .collect()
    };
    let (published, applied) = (of_role("commands"), of_role("projections"));
    for event in ["UserRegistered", "SessionStarted"] {
        assert!(published.contains(&format!("publish WATCHWORD {event}")), "{published:?}");
        for model in &models {
            assert!(applied.contains(&format!("apply {model} {event}")), "{applied:?}");
        }
    }
    assert_eq!((published.len(), applied.len()), (2, 2 * models.len()));
}

/// A file belongs to one process: the error says what to do.
#[tokio::test]
async fn a_single_role_is_refused_with_files() {
    let mut server = Server::start().await;
    server.terminate().await;
    for role in ["commands", "projections"] {
        let output = server.command(&["serve", role]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("Run `watchword serve` without a role"), "{said}");
    }
}
