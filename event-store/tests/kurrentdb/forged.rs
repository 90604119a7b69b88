//! Somebody who can write to the server's stream but does not have the instance key forges events: that blocks the
//! aggregate's stream that they name, and nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{StreamId, UserId};
use event_store::contract::{append, claim, event, macs, nothing, old_checksum, stream};
use event_store::{
    Append, AppendError, Idempotency, InstanceKey, Journal, JournalMark, KurrentJournal, Macs, NewEvent,
    OpenError, StoreError, Write,
};
use proptest::prelude::*;
use schemas::RecordedEvent;
use serde_json::{Value, json};
use uuid::Uuid;

use super::World;
use super::server::StoredEvent;

fn user(number: u128) -> StreamId {
    StreamId::user(UserId(Uuid::from_u128(number)))
}

fn about(person: u128, name: &'static str, data: &str) -> NewEvent {
    NewEvent {
        name: name.into(),
        data: data.to_owned(),
        person: Some(UserId(Uuid::from_u128(person))),
        personal: Some(vec![1, 2, 3, 4]),
        ..event()
    }
}

/// Two persons. 1: Ada registers, 2: gets a role, 3: loses it; 4: Eve registers, 5: is banned.
async fn history(journal: &dyn Journal) {
    let ada = [
        ("UserRegistered", "{}"),
        ("RoleGranted", r#"{"role":"admin"}"#),
        ("RoleRevoked", r#"{"role":"admin"}"#),
    ];
    let eve = [("UserRegistered", "{}"), ("UserBanned", "{}")];
    for (number, name, events) in [(1, "ada", &ada[..]), (2, "eve", &eve[..])] {
        let events = events.iter().map(|(name, data)| about(number, name, data)).collect();
        let write = Write { stream: user(number), expected: 0, events };
        let taken = vec![(claim(name), user(number))];
        let idempotency =
            Some(Idempotency { key: [u8::try_from(number).expect("is small"); 32], fingerprint: [9; 32] });
        let sent = Append { writes: vec![write], taken, idempotency, ..nothing() };
        journal.append(sent).await.expect("appends");
    }
}

fn read(event: &StoredEvent) -> Value {
    serde_json::from_slice(event.metadata()).expect("is JSON")
}

fn set(event: &mut StoredEvent, about: &Value) {
    event.set_metadata(about.to_string().as_bytes());
}

fn is_damage(error: &StoreError, position: u64) -> bool {
    matches!(error, StoreError::Damaged(text) if text.contains(&format!("event {position} ")))
}

/// The event at this position and its whole stream are refused; earlier events and other streams are not.
async fn refused(what: &str, journal: &KurrentJournal, position: u64, stopped: Option<&StreamId>) {
    let error = journal.read_positions(&[position]).await.expect_err(what);
    assert!(is_damage(&error, position), "{what}: {error}");
    let error = journal.read_all(position - 1, 10).await.expect_err(what);
    assert!(is_damage(&error, position), "{what}: {error}");
    if position > 1 {
        let before = journal.read_all(0, 99).await.expect(what);
        assert_eq!(before.len() as u64, position - 1, "{what}: those before it are read, and none after it");
    }
    for name in [user(1), user(2), user(3)] {
        let read = journal.read_stream(&name, 0).await;
        if stopped == Some(&name) {
            assert!(is_damage(&read.expect_err(what), position), "{what}");
            // A node that has it cached sees that its version changed, and reads it.
            let version = journal.versions(std::slice::from_ref(&name)).await.expect(what)[0];
            assert!(version > 3, "{what}: {version}");
            for expected in 0..5 {
                let refused = journal.append(append(&name, expected, 1)).await;
                assert!(matches!(refused, Err(AppendError::Conflict { .. })), "{what}: {refused:?}");
            }
        } else {
            read.expect(what);
        }
    }
}

/// The MACs that a forger has available, by name.
fn marks(copied: &Value, checksum: [u8; 16], foreign: &Value) -> [(&'static str, Value); 7] {
    let mark = |bytes: &[u8]| json!({ "mac": STANDARD.encode(bytes) });
    [
        ("the MAC of the copied one", json!({ "mac": copied["mac"] })),
        ("none", json!({})),
        ("an empty one", mark(&[])),
        ("zeros", mark(&[0; 16])),
        ("a checksum", json!({ "checksum": STANDARD.encode(checksum) })),
        ("another instance's", json!({ "mac": foreign["mac"] })),
        ("a longer one", mark(&[7; 17])),
    ]
}

#[tokio::test]
async fn an_event_forged_without_the_key_stops_only_its_stream() {
    let elsewhere = World::stand_in().await;
    let others = Macs::new(&InstanceKey::generate());
    let foreign = elsewhere.open_as("foreign", &others, Some(JournalMark::default())).await.expect("opens");
    history(&foreign).await;
    let mut foreign = Value::Null;
    elsewhere.server().tamper(&elsewhere.stream, |events| foreign = read(&events[1]));
    for (to, version) in [(user(2), 3), (user(1), 4), (user(3), 1)] {
        for number in 0..7 {
            let world = World::stand_in().await;
            let journal = world.open("one").await;
            history(&journal).await;
            let granted = journal.read_positions(&[2]).await.expect("reads").remove(0);
            let forged = RecordedEvent {
                id: Uuid::from_u128(99),
                position: 6,
                stream: to.clone(),
                version,
                ..granted
            };
            let mut what = "";
            world.server().tamper(&world.stream, |events| {
                let (mut event, copied) = (events[1].clone(), read(&events[1]));
                let checksum = old_checksum(&forged, &copied["metadata"].to_string());
                let mark;
                (what, mark) = marks(&copied, checksum, &foreign)[number].clone();
                event.set_id(99);
                let mut about = copied;
                about.as_object_mut().expect("an object").remove("mac");
                about["stream"] = json!(to.as_str());
                about["version"] = json!(version);
                for (name, value) in mark.as_object().expect("an object") {
                    about[name] = value.clone();
                }
                // As an append of its own, which takes claims of others and releases them.
                about["append"] = json!({
                    "mac": read(&events[0])["append"]["mac"], "events": 1,
                    "taken": [["email", "ada", user(2).as_str()], ["email", "new", user(2).as_str()]],
                    "released": [["email", "eve"]],
                });
                set(&mut event, &about);
                events.push(event);
            });
            let check = async |journal: &KurrentJournal| {
                refused(what, journal, 6, Some(&to)).await;
                for (name, owner) in [("ada", user(1)), ("eve", user(2)), ("new", to.clone())] {
                    let found = journal.claim_owner(&claim(name)).await.expect(what);
                    assert_eq!(found, Some(owner), "{what}: no user is found by another's claim");
                }
            };
            // On a node that followed the stream and on one that reads it all; after others wrote more, and after a
            // restart.
            assert_eq!(journal.head().await, Ok(6), "{what}");
            check(&journal).await;
            check(&world.open("anew").await).await;
            let written = journal.append(append(&stream("a"), 0, 1)).await.expect("everything else works");
            assert_eq!(written.first, 7, "{what}");
            journal.close().await;
            for node in ["one", "two"] {
                let journal = world.open(node).await;
                check(&journal).await;
                assert_eq!(journal.read_stream(&stream("a"), 0).await.expect(what).len(), 1);
                assert_eq!(journal.read_positions(&[7]).await.expect(what).len(), 1);
            }
        }
    }
}

type Forgery = (&'static str, fn(&mut StoredEvent));

/// Events that make no sense at all, and events that pretend to be part of a larger append.
#[tokio::test]
async fn an_event_that_is_not_of_a_journal_stops_nothing() {
    let forgeries: [Forgery; 6] = [
        ("nothing", |event| *event = StoredEvent::default()),
        ("an object", |event| event.set_metadata(b"{}")),
        ("no JSON", |event| event.set_metadata(&[0, 255, 7])),
        ("no text", |event| event.set_data(&[0, 255, 7])),
        ("an append of many", |event| {
            let mut about = read(event);
            about["stream"] = json!("other-1");
            about["append"]["events"] = json!(1000);
            set(event, &about);
        }),
        ("a version of none", |event| {
            let mut about = read(event);
            about["stream"] = json!("other-1");
            about["version"] = json!(0);
            set(event, &about);
        }),
    ];
    for (what, forge) in forgeries {
        let world = World::stand_in().await;
        let journal = world.open("one").await;
        history(&journal).await;
        world.server().tamper(&world.stream, |events| {
            let mut event = events[0].clone();
            forge(&mut event);
            events.push(event);
        });
        let stopped = (what == "no text").then(|| user(1));
        refused(what, &journal, 6, stopped.as_ref()).await;
        assert_eq!(journal.append(append(&stream("a"), 0, 1)).await.map(|it| it.first), Ok(7), "{what}");
        refused(what, &world.open("anew").await, 6, stopped.as_ref()).await;
    }
}

/// An event in the middle of an append is altered in the server's files: the append's other events, and what came with
/// it, stay valid.
#[tokio::test]
async fn an_event_altered_in_place_stops_only_its_stream() {
    for position in 1..=5 {
        let world = World::stand_in().await;
        let journal = world.open("one").await;
        history(&journal).await;
        journal.append(append(&stream("a"), 0, 2)).await.expect("appends");
        world.server().tamper(&world.stream, |events| {
            events[position - 1].set_data(br#"{"role":"owner"}"#);
        });
        // A node that read it before has the original. A node that reads it now still works for everything else.
        assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 7);
        let anew = world.open("anew").await;
        let stopped = if position <= 3 { user(1) } else { user(2) };
        assert_eq!(anew.head().await, Ok(7));
        refused("altered", &anew, position as u64, Some(&stopped)).await;
        for (name, owner) in [("ada", user(1)), ("eve", user(2))] {
            let found = anew.claim_owner(&claim(name)).await.expect("reads");
            assert_eq!(found, Some(owner), "{position}: no other stream can take it");
        }
        // The request with its idempotency key does not run again.
        let once = Some(Idempotency { key: [if position <= 3 { 1 } else { 2 }; 32], fingerprint: [9; 32] });
        let again = anew.append(Append { idempotency: once, ..append(&stream("b"), 0, 1) }).await;
        if [1, 4].contains(&position) {
            assert!(matches!(again, Err(AppendError::Damaged(_))), "{again:?}");
        } else {
            assert!(again.is_ok_and(|it| it.replayed), "{position}");
        }
        assert!(anew.append(append(&stream("a"), 2, 1)).await.is_ok());
        assert_eq!(journal.head().await, Ok(8));
    }
}

/// The events of a stream as a version before MACs wrote them.
fn age(events: &mut [StoredEvent], recorded: &[RecordedEvent]) {
    for (event, recorded) in events.iter_mut().zip(recorded) {
        let mut about = read(event);
        let checksum = old_checksum(recorded, &about["metadata"].to_string());
        about.as_object_mut().expect("an object").remove("mac");
        about["checksum"] = json!(STANDARD.encode(checksum));
        if let Some(beginning) = about.get_mut("append") {
            beginning.as_object_mut().expect("an object").remove("mac");
        }
        set(event, &about);
    }
}

type Change = fn(&mut Vec<StoredEvent>, &[RecordedEvent]);

fn damage(error: &OpenError) -> &str {
    let OpenError::Damaged { what, .. } = error else { panic!("{error}") };
    what
}

#[tokio::test]
async fn events_from_before_macs_are_accepted_together_and_nothing_else_without_a_mac_is() {
    let world = World::stand_in().await;
    let journal = world.open("one").await;
    history(&journal).await;
    let whole = journal.read_all(0, 9).await.expect("reads");
    journal.close().await;
    world.server().tamper(&world.stream, |events| age(events, &whole));
    let mut old = vec![];
    world.server().tamper(&world.stream, |events| old = events.clone());

    // If the key store says that events carry MACs, none of them is accepted.
    let strict = world.open("strict").await;
    for name in [user(1), user(2)] {
        let error = strict.read_stream(&name, 0).await.expect_err("is refused");
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    }
    let error = strict.read_all(0, 9).await.expect_err("is refused");
    assert!(is_damage(&error, 1), "{error}");
    strict.close().await;

    // If it does not say so yet, they are, and it records which they are.
    let journal = world.open_as("first", &macs(), None).await.expect("opens");
    let mark = journal.mark().clone();
    assert_eq!((mark.unkeyed, mark.digest == [0; 32]), (5, false));
    assert_eq!(journal.read_all(0, 9).await.expect("reads"), whole);
    // Later events carry MACs, and are accepted with them.
    journal.append(append(&stream("a"), 0, 1)).await.expect("appends");
    journal.close().await;
    let marked = async |node: &str| world.open_as(node, &macs(), Some(mark.clone())).await;
    for node in ["first", "second"] {
        let journal = marked(node).await.expect("opens");
        assert_eq!(journal.read_all(0, 9).await.expect("reads").len(), 6, "{node}");
        journal.close().await;
    }

    // Another event without a MAC, with a valid checksum, after them: the same grant again.
    let forged = RecordedEvent { position: 7, version: 4, ..whole[1].clone() };
    world.server().tamper(&world.stream, |events| {
        let mut event = old[1].clone();
        let mut about = read(&event);
        about["version"] = json!(4);
        about["append"] = json!({ "events": 1 });
        let checksum = old_checksum(&forged, &about["metadata"].to_string());
        about["checksum"] = json!(STANDARD.encode(checksum));
        set(&mut event, &about);
        events.push(event);
    });
    for node in ["first", "third"] {
        let journal = marked(node).await.expect("opens");
        refused("behind them", &journal, 7, Some(&user(1))).await;
        journal.close().await;
    }

    // One of them is altered and its checksum recomputed; or removed; or the last ones are removed.
    let altered: Change = |events, whole| {
        events[4].set_data(b"{ }");
        events[4].set_kind("UserUnbanned");
        let changed =
            RecordedEvent { data: "{ }".to_owned(), name: "UserUnbanned".to_owned(), ..whole[4].clone() };
        let mut about = read(&events[4]);
        about["checksum"] = json!(STANDARD.encode(old_checksum(&changed, &about["metadata"].to_string())));
        set(&mut events[4], &about);
    };
    let unchecked: Change = |events, _| events[2].set_data(b"{ }");
    let shortened: Change = |events, _| events.truncate(3);
    let emptied: Change = |events, _| events.clear();
    for (number, change) in [altered, unchecked, shortened, emptied].into_iter().enumerate() {
        let mut before = vec![];
        world.server().tamper(&world.stream, |events| {
            before.clone_from(events);
            change(events, &whole);
        });
        let refusal = marked(&format!("new-{number}")).await.err().expect("is refused");
        assert!(damage(&refusal).contains("events 1 to 5"), "{number}: {refusal}");
        world.server().tamper(&world.stream, |events| *events = before);
    }
    marked("last").await.expect("is as it was").close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_bit_of_any_field_is_missed(bits in prop::collection::vec(any::<prop::sample::Index>(), 8), place in 0_usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
        runtime.block_on(async {
            let world = World::stand_in().await;
            let journal = world.open("one").await;
            history(&journal).await;
            let whole = journal.read_all(0, 9).await.expect("reads");
            let claims = ["ada", "eve"].map(claim);
            let position = place as u64 + 1;
            for (number, bit) in bits.iter().enumerate() {
                let mut before = vec![];
                world.server().tamper(&world.stream, |events| {
                    before.clone_from(events);
                    let event = &mut events[place];
                    let flip = |bytes: &[u8]| {
                        let (mut bytes, bit) = (bytes.to_vec(), bit.index(bytes.len() * 8));
                        bytes[bit / 8] ^= 1 << (bit % 8);
                        bytes
                    };
                    match number % 4 {
                        0 => event.set_id(event.id() ^ (1 << bit.index(128))),
                        1 => event.set_data(&flip(event.data())),
                        2 => event.set_kind(&String::from_utf8_lossy(&flip(event.kind().0.as_bytes()))),
                        _ => event.set_metadata(&flip(event.metadata())),
                    }
                });
                let node = format!("anew-{number}");
                let journal = world.open(&node).await;
                match journal.read_positions(&[position]).await {
                    Err(error) => prop_assert!(is_damage(&error, position), "{error}"),
                    // JSON has several spellings of a time or an id.
                    Ok(read) => prop_assert_eq!(&read[0], &whole[place]),
                }
                let owners = [Ok(Some(user(1))), Ok(Some(user(2)))];
                for (claim, owner) in claims.iter().zip(owners) {
                    let found = journal.claim_owner(claim).await;
                    // If altered beyond recognition, it releases its claim, and its stream cannot be read.
                    prop_assert!(found == owner || found == Ok(None) || place == 0 || place == 3, "{found:?}");
                }
                journal.close().await;
                world.server().tamper(&world.stream, |events| *events = before);
            }
            Ok(())
        })?;
    }
}
