//! Random histories of appends against a plain model. Appends come in groups that the journal commits together.

use std::collections::BTreeMap;

use domain::StreamId;
use event_store::contract::{append, claim, nothing, stream};
use event_store::{Append, AppendError, Appended, Claim, Idempotency, Journal, SqliteJournal};
use futures::future::join_all;
use proptest::prelude::*;

#[derive(Default)]
struct Model {
    events: Vec<(StreamId, u64, uuid::Uuid)>,
    versions: BTreeMap<StreamId, u64>,
    claims: BTreeMap<Claim, StreamId>,
    keys: BTreeMap<[u8; 32], ([u8; 32], u64, u64)>,
}

impl Model {
    fn append(&mut self, append: &Append) -> Result<Appended, AppendError> {
        if append.writes.is_empty() || append.writes.iter().any(|write| write.events.is_empty()) {
            return Err(AppendError::Empty);
        }
        if let Some((once, (fingerprint, first, last))) =
            append.idempotency.and_then(|once| self.keys.get(&once.key).map(|stored| (once, *stored)))
        {
            return if fingerprint == once.fingerprint {
                Ok(Appended { first, last, replayed: true })
            } else {
                Err(AppendError::IdempotencyKeyReused)
            };
        }
        let mut versions = self.versions.clone();
        let mut events = self.events.clone();
        for write in &append.writes {
            let version = versions.entry(write.stream.clone()).or_default();
            if *version != write.expected {
                return Err(AppendError::Conflict { stream: write.stream.clone(), actual: *version });
            }
            for event in &write.events {
                *version += 1;
                events.push((write.stream.clone(), *version, event.id));
            }
        }
        for (stream, expected) in &append.guards {
            let actual = self.versions.get(stream).copied().unwrap_or(0);
            if actual != *expected {
                return Err(AppendError::Conflict { stream: stream.clone(), actual });
            }
        }
        let mut claims = self.claims.clone();
        for claim in &append.released {
            claims.remove(claim);
        }
        for (claim, new_owner) in &append.taken {
            match claims.get(claim) {
                Some(owner) if owner != new_owner => {
                    return Err(AppendError::ClaimTaken { claim: claim.clone(), owner: owner.clone() });
                }
                _ => claims.insert(claim.clone(), new_owner.clone()),
            };
        }
        let (first, last) = (self.events.len() as u64 + 1, events.len() as u64);
        if let Some(once) = append.idempotency {
            self.keys.insert(once.key, (once.fingerprint, first, last));
        }
        (self.events, self.versions, self.claims) = (events, versions, claims);
        Ok(Appended { first, last, replayed: false })
    }
}

/// An append as a plan: its expected versions are mostly, but not always, right when it is sent.
#[derive(Clone, Debug)]
struct Plan {
    writes: Vec<(u8, i8, usize)>,
    guards: Vec<(u8, i8)>,
    taken: Vec<(u8, u8)>,
    released: Vec<u8>,
    once: Option<(u8, u8)>,
}

fn name(number: u8) -> StreamId {
    stream(&number.to_string())
}

impl Plan {
    fn append(&self, model: &Model) -> Append {
        let version = |number: u8, off: i8| {
            let version = model.versions.get(&name(number)).copied().unwrap_or(0);
            version.saturating_add_signed(off.into())
        };
        let write = |&(number, off, events): &(u8, i8, usize)| {
            append(&name(number), version(number, off), events).writes.remove(0)
        };
        Append {
            writes: self.writes.iter().map(write).collect(),
            guards: self.guards.iter().map(|&(number, off)| (name(number), version(number, off))).collect(),
            taken: self.taken.iter().map(|(key, owner)| (claim(&key.to_string()), name(*owner))).collect(),
            released: self.released.iter().map(|key| claim(&key.to_string())).collect(),
            idempotency: self
                .once
                .map(|(key, fingerprint)| Idempotency { key: [key; 32], fingerprint: [fingerprint; 32] }),
            ..nothing()
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let off = prop_oneof![12 => Just(0_i8), 1 => Just(-1), 1 => Just(1)];
    let events = prop_oneof![1 => Just(0_usize), 20 => 1..6_usize, 1 => 60..70_usize];
    let writes = prop::collection::vec((0..5_u8, off.clone(), events), 0..3);
    let guards = prop::collection::vec((0..5_u8, off), 0..2);
    let taken = prop::collection::vec((0..4_u8, 0..5_u8), 0..2);
    let released = prop::collection::vec(0..4_u8, 0..2);
    let once = prop::option::weighted(0.4, (0..6_u8, 0..2_u8));
    (writes, guards, taken, released, once).prop_map(|(writes, guards, taken, released, once)| Plan {
        writes,
        guards,
        taken,
        released,
        once,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(groups in prop::collection::vec(prop::collection::vec(plan(), 1..8), 1..8)) {
        let directory = tempfile::TempDir::new().expect("makes a directory");
        // One thread: the appends of a group are queued in order before the writer takes them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
        runtime.block_on(async {
            let journal = SqliteJournal::open(&directory.path().join("journal.db"), &event_store::contract::macs()).await.expect("opens");
            let mut model = Model::default();
            for group in groups {
                let appends: Vec<_> = group.iter().map(|plan| plan.append(&model)).collect();
                let expected: Vec<_> = appends.iter().map(|append| model.append(append)).collect();
                let answers = join_all(appends.into_iter().map(|append| journal.append(append))).await;
                prop_assert_eq!(answers, expected);
            }
            let events = journal.read_all(0, usize::MAX).await.expect("reads");
            let found: Vec<_> =
                events.into_iter().map(|event| (event.stream, event.version, event.id)).collect();
            prop_assert_eq!(found, model.events);
            let claims: BTreeMap<_, _> =
                journal.claims("email", "").await.expect("reads").into_iter().collect();
            prop_assert_eq!(claims, model.claims);
            Ok(())
        })?;
    }
}
