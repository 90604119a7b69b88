//! What every adapter of the journal must do. An adapter's tests call these functions, each with an empty journal.
//!
//! The functions panic where the adapter is wrong, as tests do.

use std::sync::Arc;
use std::time::Duration;

use domain::{LogOrigin, StreamId, Timestamp};
use futures::future::join_all;
use jiff::SignedDuration;
use schemas::envelope::RecordedEvent;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::journal::{
    Append, AppendError, Appended, Cursor, Idempotency, Journal, Snapshot, StoredIdempotency, Write,
};
use crate::origin;
use crate::repository::as_of::position_at;

mod nodes;
mod samples;

pub use nodes::Nodes;
pub use samples::{
    append, claim, event, event_mac, macs, macs_before_upgrade, never_looking, nothing, old_checksum, stream,
};

fn once(key: u8, fingerprint: u8) -> Idempotency {
    Idempotency { key: [key; 32], fingerprint: [fingerprint; 32] }
}

fn fresh(first: u64, last: u64) -> Appended {
    Appended { first, last, replayed: false }
}

async fn everything(journal: &dyn Journal) -> Vec<RecordedEvent> {
    let events = journal.read_all(0, usize::MAX).await.expect("reads");
    let positions: Vec<u64> = events.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=events.len() as u64).collect::<Vec<_>>(), "positions have no gaps");
    assert_eq!(journal.head().await.expect("has a head"), events.len() as u64);
    let mut versions = std::collections::HashMap::new();
    for event in &events {
        let version = versions.entry(&event.stream).or_insert(0);
        *version += 1;
        assert_eq!(event.version, *version, "versions of {} have no gaps", event.stream);
    }
    events
}

/// Events are read back unchanged and in order, by stream and by position.
pub async fn reads_back_what_was_written(journal: Arc<dyn Journal>) {
    assert!(everything(&*journal).await.is_empty());
    let person = domain::UserId(Uuid::from_u128(7));
    let mut sent = append(&stream("a"), 0, 2);
    sent.at = Timestamp::from_microsecond(1_800_000_000_123_456).expect("in range");
    sent.writes[0].events[1].person = Some(person);
    sent.writes[0].events[1].personal = Some(vec![0, 1, 255]);
    sent.writes.push(Write { stream: stream("b"), expected: 0, events: vec![event()] });
    assert_eq!(journal.append(sent.clone()).await, Ok(fresh(1, 3)));

    let events = everything(&*journal).await;
    let written: Vec<_> = sent
        .writes
        .iter()
        .flat_map(|write| write.events.iter().map(|event| (&write.stream, event)))
        .collect();
    assert_eq!(events.len(), written.len());
    for (recorded, (stream, event)) in events.iter().zip(written) {
        assert_eq!(&recorded.stream, stream);
        assert_eq!(recorded.id, event.id);
        assert_eq!(recorded.name, event.name);
        assert_eq!(recorded.schema_version, event.schema_version);
        assert_eq!(recorded.data, event.data);
        assert_eq!(recorded.person, event.person);
        assert_eq!(recorded.personal, event.personal);
        assert_eq!(recorded.at, sent.at);
        assert_eq!(recorded.metadata, sent.metadata);
    }
    let read = |stream: StreamId, after| {
        let journal = Arc::clone(&journal);
        async move { journal.read_stream(&stream, after).await.expect("reads") }
    };
    assert_eq!(read(stream("a"), 0).await, events[..2]);
    assert_eq!(read(stream("a"), 1).await, events[1..2]);
    assert_eq!(read(stream("a"), u64::MAX).await, []);
    assert_eq!(read(stream("absent"), 0).await, []);
    let wanted =
        [(stream("b"), 0), (stream("absent"), 0), (stream("a"), 1), (stream("a"), 0), (stream("b"), 1)];
    let several = journal.read_streams(&wanted).await.expect("reads");
    for ((stream, after), events) in wanted.iter().zip(&several) {
        assert_eq!(
            *events,
            journal.read_stream(stream, *after).await.expect("reads"),
            "{stream} after {after}"
        );
    }
    assert_eq!(several.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 1, 2, 0]);
    assert_eq!(journal.read_streams(&[]).await, Ok(vec![]));
    assert_eq!(journal.read_all(1, 1).await.expect("reads"), events[1..2]);
    assert_eq!(journal.read_all(3, 10).await.expect("reads"), []);
    let some = journal.read_positions(&[3, 1, 9]).await.expect("reads");
    assert_eq!(some, [events[0].clone(), events[2].clone()]);
    assert_eq!(journal.read_positions(&[]).await.expect("reads"), []);
    let versions = journal.versions(&[stream("b"), stream("absent"), stream("a"), stream("b")]).await;
    assert_eq!(versions, Ok(vec![1, 0, 2, 1]));
    assert_eq!(journal.versions(&[]).await, Ok(vec![]));
}

/// A wrong expected version is a conflict that reports the actual one; an append without events is refused.
pub async fn checks_expected_versions(journal: Arc<dyn Journal>) {
    let a = stream("a");
    let conflict = |actual| Err(AppendError::Conflict { stream: stream("a"), actual });
    assert_eq!(journal.append(append(&a, 1, 1)).await, conflict(0));
    assert_eq!(journal.append(append(&a, 0, 2)).await, Ok(fresh(1, 2)));
    assert_eq!(journal.append(append(&a, 0, 1)).await, conflict(2));
    assert_eq!(journal.append(append(&a, 1, 1)).await, conflict(2));
    assert_eq!(journal.append(append(&a, 3, 1)).await, conflict(2));
    assert_eq!(journal.append(append(&a, 2, 1)).await, Ok(fresh(3, 3)));
    assert_eq!(journal.append(nothing()).await, Err(AppendError::Empty));
    assert_eq!(journal.append(append(&a, 3, 0)).await, Err(AppendError::Empty));
    let mut twice = append(&a, 3, 1);
    twice.writes.extend(append(&a, 4, 2).writes);
    assert_eq!(journal.append(twice).await, Ok(fresh(4, 6)));
    assert_eq!(everything(&*journal).await.len(), 6);
}

/// A guard is checked and not written.
pub async fn checks_guards(journal: Arc<dyn Journal>) {
    let (a, b) = (stream("a"), stream("b"));
    journal.append(append(&a, 0, 2)).await.expect("appends");
    let guarded =
        |expected_b: u64, guard| Append { guards: vec![(a.clone(), guard)], ..append(&b, expected_b, 1) };
    let conflict = Err(AppendError::Conflict { stream: stream("a"), actual: 2 });
    assert_eq!(journal.append(guarded(0, 1)).await, conflict);
    assert_eq!(journal.append(guarded(0, 3)).await, conflict);
    assert_eq!(journal.append(guarded(0, 2)).await, Ok(fresh(3, 3)));
    let absent = Append { guards: vec![(stream("absent"), 0)], ..append(&b, 1, 1) };
    assert_eq!(journal.append(absent).await, Ok(fresh(4, 4)));
    assert_eq!(journal.read_stream(&a, 0).await.expect("reads").len(), 2);
}

/// A claim has one owner at a time; an append releases claims before it takes any.
pub async fn checks_claims(journal: Arc<dyn Journal>) {
    let (a, b) = (stream("a"), stream("b"));
    let take = |stream: &StreamId, expected, key: &str| Append {
        taken: vec![(claim(key), stream.clone())],
        ..append(stream, expected, 1)
    };
    let owner = |key: &'static str| {
        let journal = Arc::clone(&journal);
        async move { journal.claim_owner(&claim(key)).await.expect("reads") }
    };
    assert_eq!(owner("x").await, None);
    journal.append(take(&a, 0, "x")).await.expect("appends");
    assert_eq!(owner("x").await, Some(a.clone()));
    let taken = AppendError::ClaimTaken { claim: claim("x"), owner: a.clone() };
    assert_eq!(journal.append(take(&b, 0, "x")).await, Err(taken));
    assert_eq!(everything(&*journal).await.len(), 1, "a refusal writes nothing");
    journal.append(take(&a, 1, "x")).await.expect("its owner may take it again");

    let handed_over = Append { released: vec![claim("x"), claim("absent")], ..take(&b, 0, "x") };
    journal.append(handed_over).await.expect("appends");
    assert_eq!(owner("x").await, Some(b.clone()));
    let twice = Append { taken: vec![(claim("y"), a.clone()), (claim("y"), b.clone())], ..append(&a, 2, 1) };
    let taken = AppendError::ClaimTaken { claim: claim("y"), owner: a.clone() };
    assert_eq!(journal.append(twice).await, Err(taken));
    assert_eq!(owner("y").await, None);

    journal.append(take(&a, 2, "x/2")).await.expect("appends");
    journal.append(take(&a, 3, "x/1")).await.expect("appends");
    journal.append(take(&a, 4, "z")).await.expect("appends");
    let listed = |prefix: &'static str| {
        let journal = Arc::clone(&journal);
        async move { journal.claims("email", prefix).await.expect("reads") }
    };
    assert_eq!(listed("x/").await, [(claim("x/1"), a.clone()), (claim("x/2"), a.clone())]);
    assert_eq!(listed("").await.len(), 4);
    assert_eq!(journal.claims("other", "").await.expect("reads"), []);
    let given_back = Append { released: vec![claim("x/1")], ..append(&a, 5, 1) };
    journal.append(given_back).await.expect("appends");
    assert_eq!(listed("x/").await, [(claim("x/2"), a)]);
}

/// A repeated key and request get the same answer and are written once; another request with the key is refused.
pub async fn is_idempotent(journal: Arc<dyn Journal>) {
    let a = stream("a");
    let send = |expected, key, fingerprint| Append {
        idempotency: Some(once(key, fingerprint)),
        taken: vec![(claim("x"), stream("a"))],
        ..append(&stream("a"), expected, 2)
    };
    assert_eq!(journal.idempotent(&[1; 32]).await.expect("reads"), None);
    assert_eq!(journal.append(send(0, 1, 1)).await, Ok(fresh(1, 2)));
    let again = Appended { first: 1, last: 2, replayed: true };
    assert_eq!(journal.append(send(0, 1, 1)).await, Ok(again), "though the version is another now");
    assert_eq!(journal.append(send(2, 1, 2)).await, Err(AppendError::IdempotencyKeyReused));
    let stored = StoredIdempotency { fingerprint: [1; 32], first: 1, last: 2 };
    assert_eq!(journal.idempotent(&[1; 32]).await.expect("reads"), Some(stored));

    let conflict = journal.append(send(0, 2, 1)).await;
    assert_eq!(conflict, Err(AppendError::Conflict { stream: a, actual: 2 }));
    assert_eq!(journal.idempotent(&[2; 32]).await.expect("reads"), None, "a refusal keeps no key");
    let racing = join_all((0..8).map(|_| journal.append(send(2, 3, 1)))).await;
    let written = racing.iter().filter(|answer| **answer == Ok(fresh(3, 4))).count();
    let replayed = Ok(Appended { first: 3, last: 4, replayed: true });
    assert_eq!(written, 1);
    assert_eq!(racing.iter().filter(|answer| **answer == replayed).count(), 7);
    assert_eq!(everything(&*journal).await.len(), 4);
}

/// Old idempotency keys are forgotten, a bounded number at a time; younger ones are kept.
pub async fn forgets_old_idempotency_keys(journal: Arc<dyn Journal>) {
    const OLD: u64 = 1500;
    let now = SystemClock.now();
    let long_ago = now - SignedDuration::from_hours(48);
    let keyed = |number: u64, at| {
        let mut key = [0; 32];
        // Spread evenly, like hashes.
        key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        let idempotency = Some(Idempotency { key, fingerprint: [7; 32] });
        (key, Append { idempotency, at, ..append(&stream(&format!("s{number}")), 0, 1) })
    };
    let old: Vec<_> = (1..=OLD).map(|number| keyed(number, long_ago)).collect();
    let young: Vec<_> = (OLD + 1..=OLD + 10).map(|number| keyed(number, now)).collect();
    for (_, append) in &young {
        journal.append(append.clone()).await.expect("appends");
    }
    for some in old.chunks(100) {
        for appended in join_all(some.iter().map(|(_, append)| journal.append(append.clone()))).await {
            appended.expect("appends");
        }
    }
    let before = now - SignedDuration::from_hours(24);
    let (mut after, mut steps) = (None, 0);
    while let Some(last) = journal.forget_idempotency(after, before).await.expect("forgets") {
        assert!(after.is_none_or(|after| after < last), "it advances");
        (after, steps) = (Some(last), steps + 1);
        assert!(steps < 10, "it ends");
    }
    assert!(steps > 1, "not all of them at once");
    for (key, _) in &old {
        assert_eq!(journal.idempotent(key).await.expect("reads"), None);
    }
    // The key can be used for another request.
    let idempotency = Some(Idempotency { key: old[0].0, fingerprint: [8; 32] });
    let other = Append { idempotency, ..append(&stream("another"), 0, 1) };
    assert!(!journal.append(other).await.expect("appends").replayed);
    for (key, _) in young {
        assert!(journal.idempotent(&key).await.expect("reads").is_some());
    }
}

/// If one part of an append is refused, nothing is written.
pub async fn writes_all_or_nothing(journal: Arc<dyn Journal>) {
    let (a, b) = (stream("a"), stream("b"));
    journal.append(append(&a, 0, 1)).await.expect("appends");
    let mut half = append(&b, 0, 3);
    half.writes.extend(append(&a, 0, 1).writes);
    half.taken = vec![(claim("x"), b.clone())];
    half.idempotency = Some(once(1, 1));
    let conflict = AppendError::Conflict { stream: a.clone(), actual: 1 };
    assert_eq!(journal.append(half).await, Err(conflict));
    assert_eq!(everything(&*journal).await.len(), 1);
    assert_eq!(journal.claim_owner(&claim("x")).await.expect("reads"), None);
    assert_eq!(journal.idempotent(&[1; 32]).await.expect("reads"), None);
}

/// Many concurrent writers on one stream: each position is used once, no write is lost, and each version has one
/// winner.
pub async fn survives_racing_writers(journal: Arc<dyn Journal>) {
    const WRITERS: u64 = 32;
    const EACH: u64 = 8;
    let shared = stream("shared");
    let writer = |number: u64| {
        let (journal, shared) = (Arc::clone(&journal), shared.clone());
        tokio::spawn(async move {
            let mut expected = 0;
            let mut won = 0;
            while won < EACH {
                let mut both = append(&shared, expected, 1);
                both.writes.extend(append(&stream(&format!("own{number}")), won, 1).writes);
                match journal.append(both).await {
                    Ok(_) => {
                        won += 1;
                        expected += 1;
                    }
                    Err(AppendError::Conflict { actual, .. }) => expected = actual,
                    Err(other) => panic!("{other}"),
                }
            }
        })
    };
    for finished in join_all((0..WRITERS).map(writer)).await {
        finished.expect("a writer ends well");
    }
    let events = everything(&*journal).await;
    assert_eq!(events.len() as u64, 2 * WRITERS * EACH);
    assert_eq!(journal.read_stream(&shared, 0).await.expect("reads").len() as u64, WRITERS * EACH);
    // Events written together are adjacent.
    for pair in events.chunks(2) {
        assert_eq!(pair[0].stream, shared);
        assert_ne!(pair[1].stream, shared);
    }
}

/// A reader that follows the head sees each event once, in order, while others write.
pub async fn shows_no_gap_to_a_reader_that_follows(journal: Arc<dyn Journal>) {
    const TOTAL: u64 = 400;
    let reader = {
        let journal = Arc::clone(&journal);
        tokio::spawn(async move {
            let mut head = journal.watch_head();
            let mut seen = 0;
            while seen < TOTAL {
                for event in journal.read_all(seen, 7).await.expect("reads") {
                    assert_eq!(event.position, seen + 1);
                    seen = event.position;
                }
                if *head.borrow_and_update() <= seen && seen < TOTAL {
                    head.changed().await.expect("the journal lives");
                }
            }
        })
    };
    let writer = |number: u64| {
        let journal = Arc::clone(&journal);
        async move {
            let own = stream(&format!("own{number}"));
            for version in 0..TOTAL / 8 {
                journal.append(append(&own, version, 1)).await.expect("appends");
            }
        }
    };
    join_all((0..8).map(writer)).await;
    reader.await.expect("the reader sees everything");
    assert_eq!(everything(&*journal).await.len() as u64, TOTAL);
}

/// If one of several appends committed together is refused, the others are unaffected.
pub async fn a_refusal_spares_its_neighbours(journal: Arc<dyn Journal>) {
    journal.append(append(&stream("taken"), 0, 1)).await.expect("appends");
    let send = |number: usize| {
        // Sizes on both sides of every chunk size that an adapter might use.
        let own = append(&stream(&format!("own{number}")), 0, 1 + number % 9);
        match number % 10 {
            3 => append(&stream("taken"), 0, 1),
            4 => Append { guards: vec![(stream("taken"), 0)], ..own },
            _ => own,
        }
    };
    let answers = join_all((0..100).map(|number| journal.append(send(number)))).await;
    let mut written = 1;
    for (number, answer) in answers.into_iter().enumerate() {
        if matches!(number % 10, 3 | 4) {
            let conflict = AppendError::Conflict { stream: stream("taken"), actual: 1 };
            assert_eq!(answer, Err(conflict));
        } else {
            let answer = answer.expect("a neighbour is written");
            assert_eq!(answer.last - answer.first, number as u64 % 9);
            written += 1 + number % 9;
        }
    }
    assert_eq!(everything(&*journal).await.len(), written);
}

/// The newest snapshot of each stream is kept.
pub async fn keeps_snapshots(journal: Arc<dyn Journal>) {
    let a = stream("a");
    assert_eq!(journal.load_snapshot(&a).await.expect("reads"), None);
    journal.append(append(&a, 0, 9)).await.expect("appends");
    assert_eq!(journal.snapshots().await, Ok(vec![]));
    let snapshot = |version| Snapshot { version, state: vec![u8::try_from(version).expect("small"), 0, 255] };
    for (saved, kept) in [(5, 5), (3, 5), (9, 9)] {
        journal.save_snapshot(&a, snapshot(saved)).await.expect("saves");
        assert_eq!(journal.load_snapshot(&a).await.expect("reads"), Some(snapshot(kept)));
    }
    let several = journal.load_snapshots(&[stream("b"), a.clone(), stream("absent")]).await;
    assert_eq!(several, Ok(vec![None, Some(snapshot(9)), None]));
    assert_eq!(journal.load_snapshots(&[]).await, Ok(vec![]));
    journal.append(append(&stream("b"), 0, 1)).await.expect("appends");
    journal.save_snapshot(&stream("b"), snapshot(1)).await.expect("saves");
    assert_eq!(journal.snapshots().await, Ok(vec![a, stream("b")]));
}

/// The cursor of an effect starts at the newest event and stays where it was moved. Each effect has its own.
pub async fn keeps_cursors_of_effects(journal: Arc<dyn Journal>) {
    let lasts = Duration::from_mins(1);
    let hold = async |effect| journal.hold_cursor(effect, "a", lasts).await.expect("works").expect("is free");
    journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
    let position = async || journal.cursor_position("mail").await.expect("reads");
    assert_eq!(position().await, None, "reading it does not create it");
    let mail = hold("mail").await;
    assert_eq!(position().await, Some(3));
    assert_eq!(mail.position, 3, "earlier events do not concern it");
    journal.append(append(&stream("a"), 3, 2)).await.expect("appends");
    assert_eq!(hold("mail").await, mail, "its holder keeps it");
    assert_eq!(hold("other").await.position, 5);
    assert!(journal.move_cursor("mail", Cursor { position: 4, ..mail }).await.expect("moves"));
    assert_eq!(hold("mail").await.position, 4);
    assert_eq!(position().await, Some(4));
    assert_eq!(hold("other").await.position, 5);
    journal.release_cursor("mail", mail).await.expect("releases");
    assert_eq!(hold("mail").await.position, 4);
}

/// The first node to start gives the journal its origin, once, however many start at the same time and whatever each
/// proposes. A journal that already has events gets it after them.
pub async fn gets_one_origin(journal: Arc<dyn Journal>) {
    journal.append(append(&stream("before"), 0, 1)).await.expect("appends");
    assert_eq!(origin::read(&*journal).await, Ok(None), "it has none yet");
    let starting = (0..8).map(|n| {
        let journal = Arc::clone(&journal);
        let proposed = LogOrigin::parse(&format!("https://node{n}.example")).expect("an origin");
        tokio::spawn(async move { origin::establish(&*journal, &SystemClock, &proposed).await })
    });
    let mut origins = Vec::new();
    for started in join_all(starting).await {
        origins.push(started.expect("no panic").expect("an origin"));
    }
    let first = origins[0].clone();
    assert!(origins.iter().all(|origin| *origin == first), "all nodes write the same bytes: {origins:?}");
    let later = LogOrigin::parse("https://elsewhere.example").expect("an origin");
    assert_eq!(origin::establish(&*journal, &SystemClock, &later).await, Ok(first.clone()));
    assert_eq!(origin::read(&*journal).await, Ok(Some(first)));
    let events = everything(&*journal).await;
    let created: Vec<_> = events.iter().filter(|event| event.name == "JournalCreated").collect();
    assert_eq!(created.len(), 1);
    assert_eq!((created[0].position, created[0].stream.aggregate()), (2, "journal"));
}

/// The position that a time means is that of the last event that is not later.
pub async fn knows_where_it_stood_at_a_time(journal: Arc<dyn Journal>) {
    let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("in range");
    let found = async |second, head| position_at(&*journal, at(second), head).await.expect("reads");
    assert_eq!(found(0, 0).await, 0, "it is empty");
    let mut head = 0;
    for second in 0..40_u64 {
        // Every fourth comes late.
        let late = if second % 4 == 3 { 2 } else { 0 };
        let at = at(10 * second.cast_signed() - 15 * late);
        let own = append(&stream(&second.to_string()), 0, 1 + usize::try_from(second % 9).expect("small"));
        head = journal.append(Append { at, ..own }).await.expect("appends").last;
    }
    let times: Vec<Timestamp> = everything(&*journal).await.iter().map(|event| event.at).collect();
    for second in (-40..400).step_by(5) {
        let last = times.iter().rposition(|time| *time <= at(second)).map_or(0, |index| index as u64 + 1);
        assert_eq!(found(second, head).await, last, "{second}");
    }
}
