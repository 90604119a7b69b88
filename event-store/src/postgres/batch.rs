//! A group of appends as the arrays that the database's function takes.

use std::collections::HashMap;

use domain::StreamId;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::checksum::checksum;
use crate::journal::{Append, AppendError, Appended, Claim};

/// Places from 1, as SQL counts.
#[derive(Default)]
struct Places<K>(Vec<K>, HashMap<K, i32>);

impl<K: Copy + Eq + std::hash::Hash> Places<K> {
    fn of(&mut self, key: K) -> i32 {
        *self.1.entry(key).or_insert_with(|| {
            self.0.push(key);
            place(self.0.len())
        })
    }
}

#[derive(Default)]
pub(super) struct Batch<'a> {
    touch_ends: Vec<i32>,
    op_ends: Vec<i32>,
    event_ends: Vec<i32>,
    key_of: Vec<i32>,
    fingerprints: Vec<Option<&'a [u8]>>,
    ats: Vec<i64>,
    streams: Places<&'a str>,
    touch_stream: Vec<i32>,
    touch_expected: Vec<i64>,
    touch_before: Vec<i64>,
    touch_events: Vec<i32>,
    claims: Places<(&'a str, &'a str)>,
    op_claim: Vec<i32>,
    op_owner: Vec<&'a str>,
    op_holder: Vec<Option<&'a str>>,
    keys: Places<&'a [u8]>,
    event_id: Vec<Uuid>,
    event_stream: Vec<&'a str>,
    event_type: Vec<&'a str>,
    event_schema_version: Vec<i32>,
    event_at: Vec<i64>,
    event_app: Vec<&'a str>,
    event_metadata: Vec<String>,
    event_data: Vec<&'a str>,
    event_person: Vec<Option<Uuid>>,
    event_personal: Vec<Option<&'a [u8]>>,
    event_checksum: Vec<[u8; 16]>,
}

/// What the function answers: see its description.
#[derive(sqlx::FromRow)]
pub(super) struct Answers {
    pub(super) head: i64,
    outcome: Vec<i32>,
    one: Vec<i64>,
    two: Vec<i64>,
    holder: Vec<String>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(appends: &'a [Append]) -> Self {
        let mut batch = Self::default();
        for append in appends {
            batch.add(append);
        }
        batch
    }

    fn add(&mut self, append: &'a Append) {
        let mut written: HashMap<&str, i64> = HashMap::new();
        for write in &append.writes {
            let before = written.entry(write.stream.as_str()).or_default();
            let events = place(write.events.len());
            self.touch(&write.stream, write.expected, *before, events);
            *before += i64::from(events);
        }
        for (stream, expected) in &append.guards {
            self.touch(stream, *expected, 0, 0);
        }

        let mut held: HashMap<&Claim, &str> = HashMap::new();
        for claim in &append.released {
            self.op(claim, "", held.insert(claim, ""));
        }
        for (claim, owner) in &append.taken {
            self.op(claim, owner.as_str(), held.insert(claim, owner.as_str()));
        }

        let at = append.at.as_microsecond();
        let metadata = serde_json::to_string(&append.metadata).expect("metadata is a plain struct");
        for write in &append.writes {
            for (event, version) in write.events.iter().zip(write.expected + 1..) {
                // The database alone knows the position, and has no two of them.
                let numbers = [0, super::bounded(version), event.schema_version.into(), at];
                let parts: [&[u8]; 5] = [
                    event.id.as_bytes(),
                    write.stream.as_str().as_bytes(),
                    event.name.as_bytes(),
                    metadata.as_bytes(),
                    event.data.as_bytes(),
                ];
                let person = event.person.as_ref().map(|person| person.0.as_bytes().as_slice());
                self.event_checksum.push(checksum(numbers, parts, [person, event.personal.as_deref()]));
                self.event_id.push(event.id);
                self.event_stream.push(write.stream.as_str());
                self.event_type.push(event.name);
                self.event_schema_version.push(event.schema_version.into());
                self.event_at.push(at);
                self.event_app.push(append.metadata.app_id.as_str());
                self.event_metadata.push(metadata.clone());
                self.event_data.push(&event.data);
                self.event_person.push(event.person.map(|person| person.0));
                self.event_personal.push(event.personal.as_deref());
            }
        }

        let once = append.idempotency.as_ref();
        self.key_of.push(once.map_or(0, |once| self.keys.of(&once.key)));
        self.fingerprints.push(once.map(|once| once.fingerprint.as_slice()));
        self.ats.push(at);
        self.touch_ends.push(place(self.touch_stream.len()));
        self.op_ends.push(place(self.op_claim.len()));
        self.event_ends.push(place(self.event_id.len()));
    }

    fn touch(&mut self, stream: &'a StreamId, expected: u64, before: i64, events: i32) {
        self.touch_stream.push(self.streams.of(stream.as_str()));
        self.touch_expected.push(super::bounded(expected));
        self.touch_before.push(before);
        self.touch_events.push(events);
    }

    fn op(&mut self, claim: &'a Claim, owner: &'a str, holder: Option<&'a str>) {
        self.op_claim.push(self.claims.of((&claim.kind, &claim.key)));
        self.op_owner.push(owner);
        self.op_holder.push(holder);
    }

    /// One round trip. All rows are read, as the commit comes after them: only then is an answer an answer.
    pub(super) async fn send(&self, connection: &mut PgConnection) -> Result<Answers, sqlx::Error> {
        let (kinds, claim_keys): (Vec<&str>, Vec<&str>) = self.claims.0.iter().copied().unzip();
        let mut rows: Vec<Answers> = sqlx::query_as(
            "SELECT * FROM watchword.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)",
        )
        .bind(&self.touch_ends)
        .bind(&self.op_ends)
        .bind(&self.event_ends)
        .bind(&self.key_of)
        .bind(&self.fingerprints)
        .bind(&self.ats)
        .bind(&self.streams.0)
        .bind(&self.touch_stream)
        .bind(&self.touch_expected)
        .bind(&self.touch_before)
        .bind(&self.touch_events)
        .bind(kinds)
        .bind(claim_keys)
        .bind(&self.op_claim)
        .bind(&self.op_owner)
        .bind(&self.op_holder)
        .bind(&self.keys.0)
        .bind(&self.event_id)
        .bind(&self.event_stream)
        .bind(&self.event_type)
        .bind(&self.event_schema_version)
        .bind(&self.event_at)
        .bind(&self.event_app)
        .bind(&self.event_metadata)
        .bind(&self.event_data)
        .bind(&self.event_person)
        .bind(&self.event_personal)
        .bind(&self.event_checksum)
        .fetch_all(connection)
        .await?;
        rows.pop().ok_or_else(|| sqlx::Error::Protocol("append answered nothing".to_owned()))
    }

    /// The answers in our words.
    pub(super) fn read(&self, answers: &Answers) -> Vec<Result<Appended, AppendError>> {
        (0..self.key_of.len()).map(|append| self.read_one(answers, append)).collect()
    }

    fn read_one(&self, answers: &Answers, append: usize) -> Result<Appended, AppendError> {
        let nonsense = || AppendError::Unknown("the database's answer makes no sense".to_owned());
        let outcome = answers.outcome.get(append).ok_or_else(nonsense)?;
        let one = *answers.one.get(append).ok_or_else(nonsense)?;
        let two = *answers.two.get(append).ok_or_else(nonsense)?;
        let index = |place: i64| usize::try_from(place - 1).map_err(|_| nonsense());
        match outcome {
            0 | 1 => Ok(Appended {
                first: one.cast_unsigned(),
                last: two.cast_unsigned(),
                replayed: *outcome == 1,
            }),
            2 => Err(AppendError::IdempotencyKeyReused),
            3 => {
                let stream = self.touch_stream.get(index(one)?).ok_or_else(nonsense)?;
                let stream = self.streams.0.get(index((*stream).into())?).ok_or_else(nonsense)?;
                let stream = StreamId::from_stored((*stream).to_owned());
                Err(AppendError::Conflict { stream, actual: two.cast_unsigned() })
            }
            4 => {
                let claim = self.op_claim.get(index(one)?).ok_or_else(nonsense)?;
                let (kind, key) = self.claims.0.get(index((*claim).into())?).ok_or_else(nonsense)?;
                let claim = Claim { kind: (*kind).to_owned(), key: (*key).to_owned() };
                let holder = answers.holder.get(append).ok_or_else(nonsense)?;
                Err(AppendError::ClaimTaken { claim, owner: StreamId::from_stored(holder.clone()) })
            }
            _ => Err(nonsense()),
        }
    }
}

/// The place of the last of so many.
fn place(count: usize) -> i32 {
    i32::try_from(count).expect("a group holds fewer than two thousand million of anything")
}
