//! Locks, open transactions and notifications of others in the database, against the bounds that `deploy/README.md` names:
//! every request is answered in time, whatever they hold and for however long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use test_services::Postgres;
use tests::stalls::Watch;
use tests::workload::{History, Record};
use tests::{Bus, PASSWORD, Server, checker, email, until};

use crate::bounds::{AT_ONCE, BACK, BOUND, assert_bounded};
use crate::neighbours::{LOCKS, login, run};
use crate::postgres::{cluster, node};
use crate::{Random, SETTINGS};

/// What they do at the same time: one that may only connect, one that may create schemas, the owner of another schema.
async fn hold_all(guest: &mut PgConnection, maker: &mut PgConnection, owner: &mut PgConnection) {
    run(guest, LOCKS).await;
    let read = "BEGIN ISOLATION LEVEL REPEATABLE READ;
         LOCK watchword.format, watchword_keys.format, watchword_read.checkpoints, watchword_read.nodes
             IN ACCESS SHARE MODE;
         SELECT * FROM watchword_read.checkpoints";
    run(guest, read).await;
    let make = "BEGIN; CREATE SCHEMA watchword_next; CREATE TABLE public.checkpoints (projector text);
         CREATE TABLE public.events (position bigint); LOCK public.checkpoints, public.events";
    run(maker, make).await;
    let own = "CREATE TABLE theirs.events (position bigint); BEGIN; LOCK theirs.events;
         ALTER TABLE theirs.events ADD COLUMN id uuid; CREATE TABLE theirs.checkpoints (projector text)";
    run(owner, own).await;
}

/// The longest that a call took.
fn longest(records: &[Record]) -> Duration {
    records.iter().map(|record| record.ended - record.began).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_y_neighbours_delay_nothing_for_longer_than_documented() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let (database, nats) = (postgres.database(), bus.url());
    let environment = [&SETTINGS[..], &cluster(&database, &nats)].concat();
    let (first, second) = tokio::join!(Server::start_with(&environment), Server::start_with(&environment));
    let mut history = History::new(&first).await;
    history.during(&[&first, &second], async |load| load.done(100).await).await;
    let (alone, calls) = (longest(&history.records), history.records.len());

    let mut guest = login(&postgres, &database, "guest").await;
    let mut noisy = login(&postgres, &database, "noisy").await;
    let mut maker = login(&postgres, &database, "maker").await;
    let mut owner = login(&postgres, &database, "owner").await;
    let name = database.rsplit('/').next().expect("a name");
    let rights = format!(
        "GRANT CREATE ON DATABASE {name} TO maker; GRANT CREATE ON SCHEMA public TO maker;
         CREATE SCHEMA theirs AUTHORIZATION owner"
    );
    postgres.psql(&database, &rights);
    hold_all(&mut guest, &mut maker, &mut owner).await;
    let is_over = AtomicBool::new(false);
    let shout = async {
        while !is_over.load(Ordering::Relaxed) {
            run(&mut noisy, "NOTIFY watchword_head, '9223372036854775807'").await;
        }
    };
    let nodes = [&first, &second];
    let under_load = history.during(&nodes, async |load| {
        for _ in 0..5 {
            load.done(50).await;
            let body = json!({"email": email("ada"), "password": PASSWORD});
            let made = first.default_app().post("auth/register").json(&body).await.expect(201);
            let (watch, begun) = (Watch::start(), Instant::now());
            let path = second.default_app().path(&format!("admin/users/{}", made.tokens().user_id));
            let shown = second.get(&path).bearer(&second.platform_key());
            shown.header("consistency-token", made.consistency()).await.expect(200);
            let (took, stood_still) = (begun.elapsed(), !watch.stop().is_empty());
            println!("the other node shows it after {took:?}");
            assert!(took < AT_ONCE || stood_still, "after {took:?}");
        }
        for command in [&["migrate"][..], &["doctor"], &["rebuild", "--all"]] {
            let mut command = first.command(command);
            let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await;
            let output = output.expect("no panic");
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        }
        let another = node(&database, &bus).await;
        load.done(20).await;
        is_over.store(true, Ordering::Relaxed);
        drop(another);
    });
    tokio::join!(under_load, shout);
    println!("the longest took {:?}, and {alone:?} without them", longest(&history.records[calls..]));
    assert_bounded(&history);
    assert!(history.all_were_answered(), "nobody waits for a neighbour");
    checker::check_running(&first, Some(&bus), &history).await;
}

/// Advisory locks take the place of all others in the server's table of locks, which whoever may connect can fill.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_a_full_table_of_locks_keeps_nobody_waiting() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let mut server = node(&database, &bus).await;
    let mut history = History::new(&server).await;
    let mut guest = login(&postgres, &database, "guest").await;
    let mut random = Random::new();
    history
        .during(&[&server], async |load| {
            load.done(20).await;
            let fill = "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 1000000) i";
            for _ in 0..20 {
                guest.execute(fill).await.expect_err("the table is full");
                random.moment(Duration::from_millis(500)).await;
            }
            guest.close().await.expect("it goes");
            let (watch, begun) = (Watch::start(), Instant::now());
            until("it is ready", async || server.get("/readyz").await.status == 200).await;
            load.done(20).await;
            let (back, stood_still) = (begun.elapsed(), !watch.stop().is_empty());
            println!("back after {back:?}");
            assert!(back < BACK || stood_still, "after {back:?}");
        })
        .await;
    assert!(postgres.log().contains("out of shared memory"));
    assert_bounded(&history);
    checker::check(&mut server, Some(&bus), &history).await;
}

/// An administrator has locked the tables of a read model, as for a change of them: its queries are refused in time, however
/// many there are, and nothing else waits.
#[tokio::test(flavor = "multi_thread")]
async fn inv_y_queries_of_a_locked_read_model_are_answered() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let database = postgres.database();
    let mut server = node(&database, &bus).await;
    let mut history = History::new(&server).await;
    history.during(&[&server], async |load| load.done(20).await).await;
    let tables = "SELECT string_agg(format('watchword_read.%I', tablename), ', ') FROM pg_tables
         WHERE schemaname = 'watchword_read' AND tablename ~ '^users_v[0-9]+$'";
    let tables = postgres.psql(&database, tables);
    let mut administrator = PgConnection::connect(&database).await.expect("connects");
    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.trim());
    administrator.execute(sqlx::raw_sql(AssertSqlSafe(lock))).await.expect("locks");
    let (key, app) = (server.platform_key(), server.default_app());
    let list = || app.get("admin/users?limit=5").bearer(&key);
    let watch = Watch::start();
    let ask = async || {
        let begun = Instant::now();
        list().await.problem(503, "unavailable");
        begun.elapsed()
    };
    let queries = async { join_all((0..20).map(|_| ask())).await.into_iter().max().unwrap_or_default() };
    let nodes = [&server];
    let logins = history.during(&nodes, async |load| load.done(60).await);
    let (longest, ()) = tokio::join!(queries, logins);
    let stood_still = !watch.stop().is_empty();
    println!("the longest of 20 queries took {longest:?}");
    assert!(longest < BOUND || stood_still, "{longest:?}");
    assert!(history.all_were_answered(), "logins do not depend on the read models");
    let ada = email("ada");
    app.register(&ada).await;
    app.login(&ada, PASSWORD).await.expect(200);
    administrator.execute("ROLLBACK").await.expect("unlocks");
    until("the list is there again", async || list().await.status == 200).await;
    assert_bounded(&history);
    checker::check(&mut server, Some(&bus), &history).await;
}

/// A neighbour makes a schema of our name, and does not say whether it stays: the start waits, and says for whom.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_whose_transaction_it_waits_for() {
    let (postgres, bus) = (Postgres::start(), Bus::start());
    let nats = bus.url();
    for schema in ["watchword", "watchword_keys", "watchword_read"] {
        let database = postgres.database();
        let name = database.rsplit('/').next().expect("a name");
        let maker = format!("maker_of_{schema}");
        let mut neighbour = login(&postgres, &database, &maker).await;
        postgres.psql(&database, &format!("GRANT CREATE ON DATABASE {name} TO {maker}"));
        run(&mut neighbour, &format!("BEGIN; CREATE SCHEMA {schema}")).await;
        let mut server = Server::new(&[&SETTINGS[..], &cluster(&database, &nats)].concat());
        server.up_alive().await;
        server.says("waiting for a lock that process").await;
        assert!(server.log().contains(&format!("of user {maker}")), "{}", server.log());
        run(&mut neighbour, "ROLLBACK").await;
        until("it is ready", async || server.get("/readyz").await.status == 200).await;
        assert!(server.terminate().await.success());
    }
}
