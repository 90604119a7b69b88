//! What `doctor` reports about a cluster, healthy and not.

use std::time::{Duration, Instant};

use serde_json::Value;
use test_services::{Nats, Postgres};
use tests::{PATIENCE, Server, email};

use crate::{MASTER_KEY, node};

/// The findings, one per line: verdict, check and detail.
fn doctor(server: &Server) -> (bool, Vec<String>) {
    let output = server.command(&["doctor", "--json"]).output().expect("runs");
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let lines = found["checks"].as_array().expect("a list").iter();
    let lines =
        lines.map(|it| format!("{} {}: {}", text(&it["verdict"]), text(&it["check"]), text(&it["detail"])));
    (output.status.success(), lines.collect())
}

fn line<'l>(lines: &'l [String], start: &str) -> &'l str {
    lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
}

async fn until(server: &Server, what: &str) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, lines) = doctor(server);
        if lines.iter().any(|line| line.contains(what)) {
            return lines;
        }
        assert!(Instant::now() < deadline, "no {what} in {lines:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn doctor_reports_servers_rights_nodes_projectors_and_the_stream() {
    let (database, mut nats) = (Postgres::shared().database(), Nats::start());
    let nats_url = nats.url();
    let environment = |node| {
        [
            ("WATCHWORD_JOURNAL_URL", database.as_str()),
            ("WATCHWORD_NATS_URL", nats_url.as_str()),
            ("WATCHWORD_MASTER_KEY", MASTER_KEY),
            ("WATCHWORD_PUBLIC_URL", "https://login.example.com"),
            ("WATCHWORD_PROJECTIONS_LEASE", "2"),
            ("WATCHWORD_PROJECTIONS_NODE", node),
        ]
    };
    let commands = Server::start_role("commands", &environment("none")).await;
    let mut left = Server::start_role("projections", &environment("left")).await;
    let mut right = Server::start_role("projections", &environment("right")).await;
    commands.default_app().register(&email("ada")).await;
    let psql = |sql: &str| Postgres::shared().psql(&database, sql);

    let head = psql("SELECT max(position) FROM watchword.events").trim().to_owned();
    until(&commands, &format!("stream: at event {head}, 0 behind")).await;
    let (fine, lines) = doctor(&commands);
    assert!(fine, "{lines:#?}");
    assert!(line(&lines, "ok server: postgres://127.0.0.1:").contains("PostgreSQL 1"), "{lines:#?}");
    // The tests log in as the owner.
    assert!(line(&lines, "warning rights: ").contains("granted watchword_service"), "{lines:#?}");
    line(&lines, "ok nodes: 2 share the projectors: left, right");
    line(&lines, "ok NATS: nats-server 2.");
    let lines =
        until(&commands, &format!("users_v2: running on left, at event {head}, like the journal")).await;
    let models = left.names_of_read_models(&commands.platform_key()).await;
    assert!(models.len() >= 5, "{models:?}");
    for model in models {
        let projector = line(&lines, &format!("ok projector: {model}_v"));
        assert!(projector.contains(" on left, ") || projector.contains(" on right, "), "{projector}");
    }
    assert!(lines.iter().all(|line| !line.contains("only-on-loopback")), "the password is printed");

    // The nodes are gone, but the last state of a projector stays.
    left.kill();
    right.kill();
    psql(
        "UPDATE watchword_read.checkpoints SET state = 'failed', failed_position = 3, error = 'a poisoned event'
         WHERE projector = 'users_v2'",
    );
    psql("GRANT UPDATE ON watchword.events TO watchword_service");
    nats.kill();
    let lines = until(&commands, "none runs the projectors").await;
    let (fine, _) = doctor(&commands);
    assert!(!fine, "{lines:#?}");
    assert!(line(&lines, "warning nodes: no longer heard from: ").contains("left, right"), "{lines:#?}");
    let failed = line(&lines, "fault projector: users_v2: failed on no node");
    assert!(failed.contains("is stuck at event 3: a poisoned event"), "{failed}");
    assert!(
        line(&lines, "fault rights: ").contains("may UPDATE events. Run as the owner: REVOKE UPDATE"),
        "{lines:#?}"
    );
    line(&lines, "warning NATS: NATS does not answer. Nothing is lost");
}

/// Another instance may listen at the configured address: its state is not this one's.
#[tokio::test]
async fn doctor_reports_the_state_of_its_own_instance_alone() {
    let (first, second) = (Postgres::shared().database(), Postgres::shared().database());
    let (one, two) = tokio::join!(node(&first), node(&second));
    let ask = |server: &Server, of: &Server| {
        let address = of.base().trim_start_matches("http://").to_owned();
        let mut command = server.command(&["doctor", "--json"]);
        let output = command.env("WATCHWORD_LISTEN", address).output().expect("runs");
        String::from_utf8(output.stdout).expect("text")
    };
    for (ours, other) in [(&one, &two), (&two, &one)] {
        let own = ask(ours, ours);
        assert!(own.contains("ready at") && own.contains("\"projector\""), "{own}");
        let told = ask(ours, other);
        assert!(told.contains("another instance") && !told.contains("ready at"), "{told}");
    }
}
