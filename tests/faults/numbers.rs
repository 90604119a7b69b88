//! Numbers, times and names of holders that somebody with write access to the stores or the bus puts where nodes read them:
//! the greatest, negative and ancient ones. None is believed, none makes a node fail, and none stops anything for good.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream};
use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};
use test_services::{Postgres, Smtp};
use tests::stalls::Watch;
use tests::workload::History;
use tests::{Bus, Server, checker, email, until};

use crate::bounds::{BACK, assert_bounded, print_times};
use crate::postgres::{cluster, fresh_node};
use crate::{SETTINGS, relay, server_of};

const NUMBERS: [&str; 4] = ["9223372036854775807", "9223372036854775806", "-1", "-9223372036854775808"];
const TIMES: [&str; 3] = ["infinity", "-infinity", "2999-12-31"];
const CALLBACK: &str = "https://client.example/callback";
/// How long another node may take to send mails: the lease of its sender.
const MAILS_GO_ON: Duration = Duration::from_secs(30);

/// What is done to the checkpoints and leases of projectors, and to the nodes that share them.
fn of_projectors() -> Vec<String> {
    let mut all = vec![
        "UPDATE checkpoints SET failed_position = -1, state = 'failed', error = 'none'".to_owned(),
        "INSERT INTO nodes SELECT 'nobody-' || i, 'infinity' FROM generate_series(1, 10000) i".to_owned(),
    ];
    for number in NUMBERS {
        all.push(format!("UPDATE checkpoints SET position = {number}"));
        all.push(format!("UPDATE checkpoints SET epoch = {number}"));
        all.push(format!("UPDATE checkpoints SET epoch = {number}, holder = NULL"));
    }
    for time in TIMES {
        all.push(format!("UPDATE checkpoints SET until = '{time}', holder = 'nobody'"));
        all.push(format!("UPDATE nodes SET until = '{time}'"));
    }
    all
}

/// What is done to the cursor of the sender of mails.
fn of_mails() -> Vec<String> {
    let numbers = NUMBERS.map(|number| {
        [
            format!("position = {number}"),
            format!("epoch = {number}"),
            format!("epoch = {number}, holder = NULL"),
        ]
    });
    let times = TIMES.map(|time| format!("until = '{time}', holder = 'nobody'"));
    numbers.into_iter().flatten().chain(times).collect()
}

/// Waits until both nodes have all events, and no more.
async fn all_follow(nodes: [&Server; 2], head: u64) {
    for node in nodes {
        let key = node.platform_key();
        until("the projectors have what there is", async || {
            let list = node.get("/v1/projections").bearer(&key).await.expect(200).json();
            let is_right = |it: &serde_json::Value| {
                // Reads are recorded, too.
                let read = it["position"].as_u64().expect("a number").checked_sub(head);
                read.is_some_and(|more| more < 100_000) && it["state"] == "running"
            };
            list["items"].as_array().expect("a list").iter().all(is_right)
        })
        .await;
    }
}

/// Two nodes that share journal and read models.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_numbers_in_the_read_models_are_not_believed() {
    let (postgres, bus) = (Postgres::shared(), Bus::start());
    let (database, nats) = (postgres.database(), bus.url());
    let environment = [&SETTINGS[..], &cluster(&database, &nats)].concat();
    let (first, second) = tokio::join!(Server::start_with(&environment), Server::start_with(&environment));
    let mut history = History::new(&first).await;
    let mut times = vec![];
    for statement in of_projectors() {
        postgres.psql(&database, &format!("SET search_path = watchword_read; {statement}"));
        let (watch, begun) = (Watch::start(), Instant::now());
        history.during(&[&first, &second], async |load| load.done(5).await).await;
        all_follow([&first, &second], first.events().await.len() as u64).await;
        let (took, stood_still) = (begun.elapsed(), !watch.stop().is_empty());
        assert!(took < BACK || stood_still, "{statement}: {took:?}");
        times.push(took);
    }
    print_times("the read models are right", &mut times);
    assert_bounded(&history);
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    let counted = "UPDATE stats_v2 SET count = 9223372036854775807";
    postgres.psql(&database, &format!("SET search_path = watchword_read; {counted}"));
    history.during(&[&first, &second], async |load| load.done(20).await).await;
    all_follow([&first, &second], first.events().await.len() as u64).await;
    for node in [&first, &second] {
        let path = node.default_app().path("admin/stats?granularity=day");
        node.get(&path).bearer(&node.platform_key()).await.expect(200);
    }
    // Rebuilt read models are those that lived through it, except for what somebody wrote into their rows.
    let output = first.command(&["rebuild", "stats"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let fresh = fresh_node(&database, &bus, &first).await;
    checker::check_nodes(&[&first, &second], &fresh, Some(&bus), &history).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_y_numbers_in_the_cursor_of_mails_are_not_believed() {
    let (postgres, bus, smtp) = (Postgres::shared(), Bus::start(), Smtp::start());
    let (database, nats, mail) = (postgres.database(), bus.url(), smtp.url());
    let own = [("WATCHWORD_MAIL_URL", mail.as_str())];
    let environment = [&SETTINGS[..], &cluster(&database, &nats), &own].concat();
    let (first, second) = tokio::join!(Server::start_with(&environment), Server::start_with(&environment));
    let id = first.create_app(json!({"redirect_uris": [CALLBACK]})).await.id;
    let app = first.app(&id);
    let ask = async || {
        let body = json!({"email": email("ada"), "redirect_uri": CALLBACK});
        app.post("auth/magic-link").json(&body).await.expect(202);
    };
    let mut times = vec![];
    for forged in of_mails() {
        postgres.psql(&database, &format!("UPDATE watchword.effects SET {forged} WHERE name = 'mail'"));
        let (watch, begun) = (Watch::start(), Instant::now());
        // A mail that is asked for in between may be skipped, as `doctor` says.
        let is_sane = "SELECT position BETWEEN 1 AND (SELECT max(position) FROM watchword.events) AND holder <> 'nobody'
             AND until BETWEEN clock_timestamp() AND clock_timestamp() + interval '5 minutes'
             FROM watchword.effects WHERE name = 'mail'";
        until("a node sends mails", async || {
            app.register(&email("eve")).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            postgres.psql(&database, is_sane) == "t\n"
        })
        .await;
        let sent = smtp.mails().len();
        ask().await;
        until("a mail is sent", async || smtp.mails().len() > sent).await;
        let (took, stood_still) = (begun.elapsed(), !watch.stop().is_empty());
        assert!(took < MAILS_GO_ON || stood_still, "{forged}: {took:?}");
        times.push(took);
    }
    print_times("mails go on", &mut times);
    for node in [first, second] {
        assert_eq!(node.readiness().await.expect(200).json()["status"], "ready");
    }
}

/// The same in files, which were altered while nobody had them open.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_in_files_are_not_believed() {
    let (bus, smtp) = (Bus::start(), Smtp::start());
    let mail = smtp.url();
    let mut server = server_of(&bus, &[("WATCHWORD_MAIL_URL", mail.as_str())]).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(20).await).await;
    for number in NUMBERS {
        assert!(server.terminate().await.success());
        for (file, statement) in [
            ("journal.db", format!("UPDATE effects SET position = {number}")),
            ("read-models.db", format!("UPDATE checkpoints SET position = {number}")),
            ("read-models.db", format!("INSERT OR REPLACE INTO places VALUES ('users', {number})")),
        ] {
            let path = format!("sqlite:{}", server.data().join(file).display());
            let mut connection = SqliteConnection::connect(&path).await.expect("it opens");
            connection.execute(sqlx::AssertSqlSafe(statement)).await.expect("it can be changed");
            connection.close().await.expect("it closes");
        }
        server.up().await;
        history.during(&[&server], async |load| load.done(20).await).await;
        checker::check_running(&server, Some(&bus), &history).await;
        assert!(server.terminate().await.success());
        let output = server.command(&["rebuild", "users"]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        server.up().await;
    }
    checker::check_running(&server, Some(&bus), &history).await;
}

/// A stream of the name of ours whose sequences end near the greatest, with messages whose headers are of any length.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_sequences_and_headers_of_the_bus_are_not_believed() {
    let (bus, database) = (Bus::start(), Postgres::shared().database());
    let nats = bus.url();
    let mut server = Server::start_roles(&[&SETTINGS[..], &cluster(&database, &nats)].concat()).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(20).await).await;
    let client = async_nats::connect(bus.url()).await.expect("NATS is there");
    let jetstream = jetstream::new(client);
    history
        .during(&[&server], async |load| {
            for first_sequence in [Some(u64::MAX - 1000), Some(1 << 63), None] {
                jetstream.delete_stream("WATCHWORD").await.expect("it can be deleted");
                let subjects = vec!["auth.v1.>".to_owned()];
                let config = stream::Config { name: "WATCHWORD".to_owned(), subjects, first_sequence, ..Default::default() };
                // The relay may be faster.
                let _ = jetstream.create_stream(config).await;
                for number in ["18446744073709551615", "9223372036854775808", "-1", "0", "none"] {
                    let mut headers = HeaderMap::new();
                    for name in ["ce-position", "ce-prevposition", "ce-streamversion", "ww-previd"] {
                        headers.insert(name, number);
                    }
                    headers.insert("ww-mac", number.repeat(500).as_str());
                    let body = json!({"id": number, "position": number.parse::<u64>().ok(), "prevposition": u64::MAX});
                    let sent = jetstream
                        .publish_with_headers("auth.v1.default.user.UserBanned", headers, body.to_string().into())
                        .await;
                    sent.expect("it is sent").await.expect("it is stored");
                }
                let begun = Instant::now();
                load.done(20).await;
                checker::caught_up(&server, server.events().await.len() as u64).await;
                println!("read models follow after {:?}", begun.elapsed());
            }
        })
        .await;
    assert!(history.all_were_answered(), "logins do not depend on the bus");
    assert_bounded(&history);
    // It is somebody's who can write to the bus: an operator says what happens with it.
    until("the relay says so", async || relay(&server).await["state"] == "stopped").await;
    assert!(server.terminate().await.success());
    let output = server.command(&["relay", "--rebuild"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.up().await;
    checker::check(&mut server, Some(&bus), &history).await;
}
