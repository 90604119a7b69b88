use super::*;
use crate::contract::{append, claim, event, macs, nothing, stream};
use crate::sqlite::group::Group;

/// Three events in two streams, with everything that an append can contain except guards.
fn full() -> Append {
    let mut append = append(&stream("a"), 0, 2);
    append.writes[0].events[1].person = Some(UserId(Uuid::from_u128(7)));
    append.writes[0].events[1].personal = Some(vec![0, 1, 255]);
    append.writes.push(Write { stream: stream("b"), expected: 0, events: vec![event()] });
    append.released = vec![claim("old")];
    append.taken = vec![(claim("new"), stream("b"))];
    append.idempotency = Some(Idempotency { key: [1; 32], fingerprint: [2; 32] });
    append
}

/// These appends as entries of an empty stream.
fn entries(appends: &[Append]) -> Vec<Entry> {
    let mut group = Group::new(&macs());
    for (place, append) in appends.iter().enumerate() {
        group.resolve(place, append).expect("is accepted");
    }
    encode(&group.rows(appends), &macs())
}

fn decode(entries: &[Entry]) -> Vec<Decoded> {
    let (macs, mut unkeyed) = (macs(), Unkeyed::new(Some(JournalMark::default())));
    let mut decoder = Decoder::after(0, false, &macs, &mut unkeyed);
    let mut complete = Vec::new();
    for (entry, revision) in entries.iter().zip(0..) {
        decoder.push(revision, entry.clone(), &mut complete).expect("has no gap");
    }
    complete
}

fn whole(entries: &[Entry]) -> Vec<Append> {
    let whole = |decoded| match decoded {
        Decoded::Whole(append) => append,
        other => panic!("{other:?}"),
    };
    decode(entries).into_iter().map(whole).collect()
}

fn same(one: &Append, other: &Append) {
    assert_eq!(one.writes, other.writes);
    assert_eq!(one.taken, other.taken);
    assert_eq!(one.released, other.released);
    assert_eq!(one.idempotency, other.idempotency);
    assert_eq!(one.metadata, other.metadata);
    assert_eq!(one.at, other.at);
    assert_eq!(other.guards, []);
}

#[test]
fn given_a_group_when_its_events_are_read_then_its_appends_are_as_before() {
    let appends = [full(), Append { guards: vec![(stream("b"), 1)], ..append(&stream("c"), 0, 1) }];
    let entries = entries(&appends);
    assert_eq!(entries.len(), 4);
    let found = whole(&entries);
    assert_eq!(found.len(), 2);
    for (sent, found) in appends.iter().zip(&found) {
        same(sent, found);
    }
}

#[test]
fn given_writes_that_interleave_when_they_are_read_then_positions_and_versions_are_the_same() {
    let one = |name: &str, expected| append(&stream(name), expected, 1).writes.remove(0);
    let woven = Append { writes: vec![one("a", 0), one("b", 0), one("a", 1), one("a", 2)], ..nothing() };
    let found = whole(&entries(std::slice::from_ref(&woven)));
    let lengths: Vec<_> = found[0].writes.iter().map(|write| (write.expected, write.events.len())).collect();
    // The last two are consecutive: one write is the same.
    assert_eq!(lengths, [(0, 1), (0, 1), (1, 2)]);
    assert_eq!(entries(&found), entries(&[woven]));
}

#[test]
fn what_was_tampered_with_is_unproven_and_the_events_around_it_are_not() {
    let sent = entries(&[full(), append(&stream("c"), 0, 1)]);
    // How the stream is read: how many events of each append are proven, and how many it has; 0 if unproven.
    let made = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = sent.clone();
        change(&mut entries);
        let count = |decoded: Decoded| match decoded {
            Decoded::Whole(append) => (append.len(), append.len()),
            Decoded::Part(append, events) => (append.len(), events),
            Decoded::Unproven(_) => (0, 0),
        };
        decode(&entries).into_iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(made(&|_| {}), [(3, 3), (1, 1)]);
    assert_eq!(made(&|entries| entries[1].data.push(' ')), [(1, 3), (0, 0), (1, 1), (1, 1)]);
    assert_eq!(made(&|entries| entries[0].name.push('X')), [(0, 0), (1, 1), (1, 1), (1, 1)]);
    assert_eq!(made(&|entries| entries[2].id = Uuid::from_u128(1)), [(2, 3), (0, 0), (1, 1)]);
    assert_eq!(made(&|entries| entries[3].metadata = b"{}".to_vec()), [(3, 3), (0, 0)]);
    // Each event knows its position.
    assert_eq!(made(&|entries| entries.swap(0, 3)), [(0, 0), (1, 1), (1, 1), (0, 0)]);
    assert_eq!(made(&|entries| drop(entries.remove(1))), [(1, 3), (0, 0), (0, 0)]);
    // The beginning of an append has a MAC of its own, and cannot be removed.
    let begun = |entries: &mut Vec<Entry>| {
        let text = String::from_utf8(entries[3].metadata.clone()).expect("is text");
        entries[3].metadata = text.replace(r#""append":"#, r#""bppend":"#).into_bytes();
    };
    assert_eq!(made(&begun), [(3, 3), (0, 0)]);
    let claims = |entries: &mut Vec<Entry>| {
        let text = String::from_utf8(entries[0].metadata.clone()).expect("is text");
        assert!(text.contains(r#""new""#));
        entries[0].metadata = text.replace(r#""new""#, r#""owned""#).into_bytes();
    };
    assert_eq!(made(&claims), [(0, 0), (1, 1), (1, 1), (1, 1)]);
}

#[test]
fn given_a_gap_when_the_stream_is_read_then_it_is_damaged() {
    let (macs, mut unkeyed) = (macs(), Unkeyed::new(Some(JournalMark::default())));
    let mut decoder = Decoder::after(0, false, &macs, &mut unkeyed);
    let gap = decoder.push(1, entries(&[full()])[0].clone(), &mut vec![]);
    assert_eq!(gap, Err(StoreError::Damaged("event 1 is missing from the stream".to_owned())));
}

#[test]
fn nothing_is_complete_before_the_last_event_of_an_append() {
    let entries = entries(&[full()]);
    assert_eq!(decode(&entries[..2]).len(), 0);
    assert_eq!(whole(&entries).len(), 1);
}

#[test]
fn every_event_that_is_sent_together_but_the_last_says_that_another_one_follows() {
    let entries = entries(&[append(&stream("a"), 0, 2), append(&stream("b"), 0, 1)]);
    let follow: Vec<bool> = entries.iter().map(|entry| goes_on(&entry.metadata)).collect();
    assert_eq!(follow, [true, true, false]);
    assert!(!goes_on(b"no JSON"));
}
