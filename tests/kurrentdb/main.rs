//! The journal in KurrentDB, with real processes: the binary with that feature, PostgreSQL for keys and read models,
//! and the stand-in server. Forged events here are appended by an administrator of that server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eventstore::{
    AppendToStreamOptions, Client, EventData, ReadStreamOptions, RecordedEvent, StreamPosition,
};
use serde_json::{Value, json};
use test_services::Postgres;
use tests::{Bus, PASSWORD, Server, email, of_type, until, workspace};
use uuid::Uuid;

const STREAM: &str = "watchword";

/// The stand-in, in its own process.
struct StandIn {
    child: Child,
    address: String,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // SIGKILL reaches it while it stands still, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl StandIn {
    fn start() -> Self {
        const ACCOUNTS: [&str; 2] = ["watchword:of-the-nodes", "admin:of-the-administrators"];
        let arguments =
            ["--features", "kurrentdb-tests", "--example", "kurrentdb-stand-in", "--message-format=json"];
        let built = Command::new(env!("CARGO"))
            .args(["build", "-p", "event-store"])
            .args(arguments)
            .current_dir(workspace())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "cargo build --example failed");
        let text = String::from_utf8_lossy(&built.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let program = messages.filter_map(|it| it["executable"].as_str().map(str::to_owned)).next_back();
        let mut child = Command::new(program.expect("cargo names the executable it built"))
            .arg("127.0.0.1:0")
            .args(ACCOUNTS)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("is piped"))
            .read_line(&mut line)
            .expect("says where it is");
        let address =
            line.trim().trim_start_matches("esdb://").split('?').next().expect("an address").to_owned();
        Self { child, address }
    }

    fn url(&self, account: &str) -> String {
        format!("esdb://{account}@{}?tls=false", self.address)
    }

    fn signal(&self, signal: &str) {
        test_services::signal(self.child.id(), signal);
    }

    fn administrator(&self) -> Client {
        let url = self.url("admin:of-the-administrators");
        Client::new(url.parse().expect("a URL")).expect("is made")
    }

    async fn events(&self) -> Vec<RecordedEvent> {
        let all = ReadStreamOptions::default().position(StreamPosition::Start);
        let mut reading = self.administrator().read_stream(STREAM, &all).await.expect("reads");
        let mut events = vec![];
        while let Some(event) = reading.next().await.expect("reads") {
            events.push(event.event.expect("is no link"));
        }
        events
    }

    /// Appends a copy of an event as the newest event of another stream, or of its own.
    async fn forge(&self, event: &RecordedEvent, user: &str, version: u64, data: &str) {
        let mut about: Value = serde_json::from_slice(&event.custom_metadata).expect("is JSON");
        about["stream"] = json!(format!("user-{user}"));
        about["version"] = json!(version);
        let data: Value = serde_json::from_str(data).expect("is JSON");
        let forged = EventData::json(&event.event_type, &data).expect("is JSON");
        let forged =
            forged.id(Uuid::from_u128(u128::from(version) << 64 | 7)).metadata(about.to_string().into());
        let written =
            self.administrator().append_to_stream(STREAM, &AppendToStreamOptions::default(), forged).await;
        written.expect("an administrator may");
    }
}

async fn node(stand_in: &StandIn, database: &str, bus: &Bus) -> Server {
    let (journal, nats) = (stand_in.url("watchword:of-the-nodes"), bus.url());
    Server::start_with(&[
        ("WATCHWORD_JOURNAL_URL", &journal),
        ("WATCHWORD_KEY_STORE_URL", database),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
        ("WATCHWORD_NATS_URL", &nats),
        ("WATCHWORD_NATS_CHECK_INTERVAL", "1"),
        ("WATCHWORD_ARGON2", "m=1024,t=1,p=1"),
    ])
    .await
}

fn doctor(server: &Server) -> (bool, Vec<String>) {
    let output = server.command(&["doctor", "--json"]).output().expect("it runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let told = checks.iter().filter(|it| it["verdict"] == "fault");
    let told = told.filter_map(|it| it["detail"].as_str().map(str::to_owned)).collect();
    (output.status.success(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_no_node_wrote_makes_nobody_an_admin() {
    let (stand_in, database, bus) = (StandIn::start(), Postgres::shared().database(), Bus::start());
    let mut server = node(&stand_in, &database, &bus).await;
    let (ada, eve, other) = (email("ada"), email("eve"), email("other"));
    let app = server.default_app();
    let of_ada = app.register_admin(&ada).await;
    let role = app.path(&format!("admin/users/{}/roles/admin", of_ada.user_id));
    server.delete(role).bearer(&server.platform_key()).await.expect_success();
    let (of_eve, of_other) = (app.register(&eve).await, app.register(&other).await);
    let events = server.events().await;
    let grant = of_type(&events, "RoleGranted")[0]["position"].as_u64().expect("a position");
    let head = events.len() as u64;
    assert!(server.terminate().await.success());
    let (fine, faults) = doctor(&server);
    assert!(fine, "{faults:?}");

    // Eve gets a copy of it, and Ada her own again.
    let stored = stand_in.events().await;
    assert_eq!(stored.len() as u64, head);
    let grant = &stored[usize::try_from(grant - 1).expect("is small")];
    let data = String::from_utf8(grant.data.to_vec()).expect("is text");
    stand_in.forge(grant, &of_eve.user_id, 2, &data.replace(&of_ada.user_id, &of_eve.user_id)).await;
    stand_in.forge(grant, &of_ada.user_id, 9, &data).await;
    let (fine, faults) = doctor(&server);
    assert!(!fine, "{faults:?}");
    for position in [head + 1, head + 2] {
        assert!(faults.iter().any(|it| it.contains(&format!("event {position} "))), "{faults:?}");
    }

    server.up_open().await;
    let app = server.default_app();
    for (who, tokens) in [(&ada, &of_ada), (&eve, &of_eve)] {
        app.login(who, PASSWORD).await.problem(503, "journal_damaged");
        app.me(&tokens.access).await.problem(503, "journal_damaged");
        app.refresh(&tokens.refresh).await.problem(503, "journal_damaged");
    }
    app.me(&of_other.access).await.expect(200);
    app.refresh(&of_other.refresh).await.expect(200);
    app.login(&other, PASSWORD).await.expect(200);
    app.register(&email("new")).await;
    until("projectors and relay stop before it", async || {
        let ready = server.get("/readyz").bearer(&server.platform_key()).await.json();
        let projectors = ready["checks"]["projectors"].as_array().cloned().unwrap_or_default();
        let relay = &ready["checks"]["relay"];
        !projectors.is_empty()
            && projectors.iter().all(|it| it["failed_position"] == head + 1)
            && relay["position"] == head
            && relay["ok"] == false
            && ready["checks"]["journal"]["damaged"]
                .as_array()
                .is_some_and(|it| it.contains(&json!(head + 1)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_or_absent_server_is_reported_soon() {
    let (mut stand_in, database, bus) = (StandIn::start(), Postgres::shared().database(), Bus::start());
    let server = node(&stand_in, &database, &bus).await;
    let app = server.default_app();
    let ada = email("ada");
    let tokens = app.register(&ada).await;
    let refused = async |limit: Duration| {
        for _ in 0..2 {
            let begun = Instant::now();
            let (me, login, refresh) =
                tokio::join!(app.me(&tokens.access), app.login(&ada, PASSWORD), app.refresh(&tokens.refresh));
            me.problem(503, "unavailable");
            // A server that fell silent may have written what was sent to it.
            for answer in [login, refresh] {
                let code = answer.json()["code"].as_str().expect("a code").to_owned();
                assert!(["unavailable", "outcome_unknown"].contains(&code.as_str()), "{code}");
                answer.problem(503, &code);
            }
            assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        }
    };
    // Five seconds are promised; a busy machine gets more time.
    stand_in.signal("STOP");
    refused(Duration::from_secs(20)).await;
    let (fine, faults) = doctor(&server);
    assert!(!fine && !faults.iter().any(|it| it.contains("mail")), "{faults:?}");
    stand_in.signal("CONT");
    until("it works again", async || app.me(&tokens.access).await.status == 200).await;
    app.login(&ada, PASSWORD).await.expect(200);

    stand_in.child.kill().expect("it can be killed");
    stand_in.child.wait().expect("it ends");
    refused(Duration::from_secs(10)).await;
}
