//! The mailer against a real mail server that refuses, hangs and disappears, and against files.

mod letters;
mod world;

use std::collections::BTreeSet;

use dispatcher::{Context, Reads, Work};
use domain::delivery::{
    Delivery, DeliveryCommand, DeliveryError, DeliveryEvent, FailureReason, MailFailed, MailSent,
};
use domain::personal::Personal;
use domain::settings::SentBy;
use domain::user::{Client, EmailChangeRequested, UserEvent};
use domain::{SessionId, StreamId, UserId};
use event_store::contract::{Nodes, macs};
use event_store::{Cursor, PostgresJournal, SqliteJournal, SystemClock};
use jiff::SignedDuration;
use serde_json::{Value, json};
use test_services::{Postgres, Smtp};

use self::world::{World, begun, by_id, crash, email, mailer, repository, token};
use super::lists::{FAILED, WAITING};
use super::*;
use crate::cursor::because_of;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mail_goes_out_once_though_the_mailer_dies_in_the_middle() {
    const MAILS: usize = 500;
    let (world, smtp) = (World::new(json!({})).await, Smtp::start());
    let first = world.mailer(&smtp.url());
    begun(&first).await;
    let mut asked = Vec::new();
    for number in 0..MAILS {
        asked.push(world.ask_for(&format!("user{number}@example.com")).await);
    }
    while smtp.mails().len() < MAILS / 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    crash(&first);
    let second = world.mailer(&smtp.url());
    for id in &asked {
        let outcomes = world.until_sent(*id).await;
        assert_eq!(outcomes.len(), 1, "it is recorded once: {outcomes:?}");
    }
    second.shutdown().await;
    let mails = by_id(&smtp);
    assert_eq!(mails.len(), MAILS);
    let repeated: Vec<_> = mails.values().filter(|mails| mails.len() > 1).collect();
    assert!(repeated.len() <= 1, "one crash repeats one mail at most, not {}", repeated.len());
    for mails in repeated {
        assert_eq!(mails.len(), 2);
        assert_eq!(token(&mails[0]), token(&mails[1]));
        assert_eq!(mails[0]["headers"], mails[1]["headers"]);
    }
    let tokens: BTreeSet<String> = mails.values().map(|mails| token(&mails[0])).collect();
    assert_eq!(tokens.len(), MAILS);

    // A later mailer finds nothing to do, even if the cursor were lost and everything read again.
    let cursor =
        world.journal.hold_cursor(EFFECT, "test", Duration::ZERO).await.expect("works").expect("is free");
    world.journal.move_cursor(EFFECT, Cursor { position: 0, ..cursor }).await.expect("moves");
    let head = world.journal.head().await.expect("reads");
    let third = world.mailer(&smtp.url());
    let mut status = third.status.clone();
    status.wait_for(|status| status.position >= head).await.expect("lives");
    third.shutdown().await;
    assert_eq!(
        by_id(&smtp).values().map(Vec::len).sum::<usize>(),
        mails.values().map(Vec::len).sum::<usize>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_before_it_first_ran_sends_nothing() {
    let world = World::new(json!({})).await;
    let before = world.ask_for("before@example.com").await;
    let outbox = format!("file://{}", world.outbox().display());
    let mailer = world.mailer(&outbox);
    begun(&mailer).await;
    let after = world.ask_for("after@example.com").await;
    world.until_sent(after).await;
    mailer.shutdown().await;
    // Mails requested during an outage are sent after it.
    let meanwhile = world.ask_for("meanwhile@example.com").await;
    let mailer = world.mailer(&outbox);
    world.until_sent(meanwhile).await;
    mailer.shutdown().await;
    assert!(world.outcomes(before).await.is_empty());
    let files: BTreeSet<String> = std::fs::read_dir(world.outbox())
        .expect("the folder is there")
        .map(|entry| entry.expect("reads").file_name().into_string().expect("text"))
        .collect();
    let expected = [after, meanwhile].map(|id| format!("{id}.magic_link.eml"));
    assert_eq!(files, BTreeSet::from(expected.clone()));
    let file = world.outbox().join(&expected[0]);
    let text = std::fs::read_to_string(&file).expect("reads");
    assert!(
        text.contains("To: after@example.com\r\n") && text.contains("From: Acme <no-reply@auth.example>\r\n"),
        "{text}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(file), mode(world.outbox())), (0o600, 0o700));
    }
}

/// A restored journal with newer cursors beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_ahead_of_the_journal_begins_at_its_end() {
    let world = World::new(json!({})).await;
    let before = world.ask_for("before@example.com").await;
    let hold = world.journal.hold_cursor(EFFECT, "test", Duration::ZERO).await.expect("works");
    let ahead = Cursor { position: 1000, ..hold.expect("is free") };
    world.journal.move_cursor(EFFECT, ahead).await.expect("moves");
    let mailer = world.mailer(&format!("file://{}", world.outbox().display()));
    begun(&mailer).await;
    let after = world.ask_for("after@example.com").await;
    world.until_sent(after).await;
    mailer.shutdown().await;
    assert!(world.outcomes(before).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_mail_that_fails_keeps_no_other_waiting() {
    let (world, smtp) = (World::new(json!({})).await, Smtp::start());
    // The mailer and the API of one process share a cache.
    let repository = repository(&world.journal, &world.keys);
    let mailer = mailer(Arc::clone(&repository), &world.keys, "a", &smtp.url(), MailerSettings::LEASE);
    begun(&mailer).await;
    let rejected = world.ask_for("reject.me@example.com").await;
    let deferred = world.ask_for("defer.me@example.com").await;
    let hanging = world.ask_for("hang.me@example.com").await;
    let fine = world.ask_for("ada@example.com").await;
    world.until_sent(fine).await;

    let outcomes = world.outcomes(rejected).await;
    let [DeliveryEvent::MailFailed(failed)] = &outcomes[..] else { panic!("{outcomes:?}") };
    let MailFailed {
        attempt: 1, reason: FailureReason::Rejected, smtp_code: Some(550), retry_at: None, ..
    } = failed
    else {
        panic!("a refusal for good ends it at once: {failed:?}")
    };
    for (id, reason, code) in
        [(deferred, FailureReason::Deferred, Some(451)), (hanging, FailureReason::Unreachable, None)]
    {
        let given_up = |outcomes: &[DeliveryEvent]| {
            matches!(outcomes.last(), Some(DeliveryEvent::MailFailed(MailFailed { retry_at: None, .. })))
        };
        let outcomes = world.until(id, given_up).await;
        assert_eq!(outcomes.len(), 3, "as often as the policy says: {outcomes:?}");
        for (outcome, number) in outcomes.iter().zip(1..) {
            let DeliveryEvent::MailFailed(failed) = outcome else { panic!("{outcome:?}") };
            assert_eq!((failed.attempt, failed.reason, failed.smtp_code), (number, reason, code));
        }
    }
    let mut status = mailer.status.clone();
    status.wait_for(|status| status.failed == 3 && status.waiting == 0).await.expect("lives");
    assert_eq!((world.listed(FAILED).await, world.listed(WAITING).await), (3, 0));
    let listed = given_up(&*world.journal, &world.app_id).await.expect("reads");
    assert_eq!(listed.len(), 3);

    // A retry, which the running mailer notices.
    let (id, mail_ref) = (rejected, listed[0]);
    let dispatcher = Dispatcher::new(repository, Arc::new(SystemClock));
    let at = SystemClock.now();
    let recorded = world.journal.read_positions(&[mail_ref.position]).await.expect("reads");
    let context = Context {
        metadata: because_of(&recorded[0]),
        client: Client::default(),
        at,
        idempotency: None,
        is_first: false,
    };
    let (reads, delivery) = Reads::one::<Delivery>(&id);
    let again = move |work: &mut Work| {
        work.execute(delivery, DeliveryCommand::Retry { mail: mail_ref.kind, useless_after: None, at })?;
        work.is_about_mails_of(id, mail_ref.position);
        Ok::<_, DeliveryError>(())
    };
    dispatcher.run(context, reads, again).await.expect("it may be tried again");
    let outcomes = world.until(rejected, |outcomes| outcomes.len() == 3).await;
    let DeliveryEvent::MailFailed(last) = &outcomes[2] else { panic!("{outcomes:?}") };
    assert_eq!((last.attempt, last.retry_at, last.asked_again), (2, None, false));
    mailer.shutdown().await;
    assert_eq!(world.listed(FAILED).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_share_a_connection_until_one_is_refused() {
    let (world, smtp) = (World::new(json!({})).await, Smtp::start());
    let mailer = world.mailer(&smtp.url());
    begun(&mailer).await;
    for addresses in [&["ada", "bob", "reject.me"][..], &["eve", "fay"]] {
        for address in addresses {
            let id = world.ask_for(&format!("{address}@example.com")).await;
            world.until(id, |outcomes| !outcomes.is_empty()).await;
        }
    }
    mailer.shutdown().await;
    let mails = smtp.mails();
    let connections: Vec<u64> = mails
        .iter()
        .map(|mail| {
            serde_json::from_str::<Value>(mail).expect("JSON")["connection"].as_u64().expect("a port")
        })
        .collect();
    let [ada, bob, eve, fay] = connections[..] else { panic!("{connections:?}") };
    assert!(ada == bob && eve == fay && bob != eve, "{connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_read_keeps_no_mail_waiting() {
    let mut world = World::new(json!({})).await;
    begin(&*world.journal).await.expect("makes the cursor");
    for address in ["ada@example.com", "bob@example.com"] {
        world.ask_for(address).await;
    }
    let head = world.journal.head().await.expect("reads");
    let asked = world.journal.read_positions(&[head - 1]).await.expect("reads");
    let (_, stored) = asked[0].data.split_once("\"user_id\":").expect("it says for whom");
    world.journal.close().await;
    let path = world.folder.path().join("journal.db");
    let mut bytes = std::fs::read(&path).expect("a file");
    let is_there = |at: &usize| bytes[*at..].starts_with(stored.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(is_there).collect();
    let [place] = places[..] else { panic!("it is there {} times", places.len()) };
    bytes[place + 1] ^= 1;
    std::fs::write(&path, bytes).expect("a file");
    world.journal = Arc::new(SqliteJournal::open(&path, &macs()).await.expect("opens"));
    world.repository = repository(&world.journal, &world.keys);

    let mailer = world.mailer(&format!("file://{}", world.outbox().display()));
    let last = world.ask_for("eve@example.com").await;
    world.until_sent(last).await;
    mailer.shutdown().await;
    assert_eq!(std::fs::read_dir(world.outbox()).expect("a folder").count(), 2, "all but the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_server_that_is_gone_is_waited_for() {
    let (world, mut smtp) = (World::new(json!({})).await, Smtp::start());
    smtp.kill();
    let mailer = world.mailer(&smtp.url());
    begun(&mailer).await;
    let first = world.ask_for("ada@example.com").await;
    let useless = world.ask("late@example.com", SignedDuration::from_millis(500)).await;
    world.until(first, |outcomes| !outcomes.is_empty()).await;
    assert_eq!(world.listed(WAITING).await, 1);
    // The next mailer knows about the waiting mail.
    mailer.shutdown().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    smtp.up();
    let mailer = world.mailer(&smtp.url());
    let outcomes = world.until_sent(first).await;
    let [DeliveryEvent::MailFailed(failed), .., DeliveryEvent::MailSent(MailSent { attempt, .. })] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!((failed.reason, failed.smtp_code), (FailureReason::Unreachable, None));
    assert_eq!(usize::try_from(*attempt).expect("small"), outcomes.len());
    assert_eq!(world.listed(WAITING).await, 0);

    let outcomes = world.until(useless, |outcomes| !outcomes.is_empty()).await;
    let [DeliveryEvent::MailFailed(failed)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(
        (failed.reason, failed.retry_at),
        (FailureReason::Expired, None),
        "an expired link is not sent"
    );

    // A stopped server answers nothing; then it continues.
    smtp.signal("STOP");
    let stopped = world.ask_for("eve@example.com").await;
    world.until(stopped, |outcomes| !outcomes.is_empty()).await;
    smtp.signal("CONT");
    world.until_sent(stopped).await;
    mailer.shutdown().await;
    let recipients: BTreeSet<String> =
        by_id(&smtp).values().map(|mails| mails[0]["to"][0].as_str().expect("text").to_owned()).collect();
    assert_eq!(recipients, BTreeSet::from(["ada@example.com", "eve@example.com"].map(str::to_owned)));
}

fn token_after<'t>(text: &'t str, before: &str) -> &'t str {
    let (_, rest) = text.split_once(before).expect("a token");
    rest.split_whitespace().next().expect("a token")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_one_sends_and_the_other_takes_over() {
    const MAILS: usize = 60;
    let database = Postgres::shared().database();
    let open = async || {
        let settings = event_store::PostgresSettings::default();
        PostgresJournal::open(&database.parse().expect("a URL"), settings, &macs()).await.expect("opens")
    };
    let smtp = Smtp::start();
    let (a, b): (Arc<dyn Journal>, Arc<dyn Journal>) = (Arc::new(open().await), Arc::new(open().await));
    let both = Arc::new(Nodes::new(vec![Arc::clone(&a), Arc::clone(&b)]));
    let world = World::on(tempfile::tempdir().expect("a folder"), both, json!({})).await;
    let lease = Duration::from_secs(3);
    let first = mailer(repository(&a, &world.keys), &world.keys, "a", &smtp.url(), lease);
    begun(&first).await;
    let second = mailer(repository(&b, &world.keys), &world.keys, "b", &smtp.url(), lease);
    let mut status = second.status.clone();
    status.wait_for(|status| status.state == "standby").await.expect("lives");
    let mut asked = Vec::new();
    for number in 0..MAILS {
        asked.push(world.ask_for(&format!("user{number}@example.com")).await);
        if number == MAILS / 2 {
            while smtp.mails().len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            crash(&first);
        }
    }
    for id in asked {
        assert_eq!(world.until_sent(id).await.len(), 1);
    }
    assert_eq!(second.status().state, "running");
    second.shutdown().await;
    let mails = by_id(&smtp);
    assert_eq!(mails.len(), MAILS);
    let sent: usize = mails.values().map(Vec::len).sum();
    assert!(sent <= MAILS + 1, "one crash repeats one mail at most, not {}", sent - MAILS);
}
