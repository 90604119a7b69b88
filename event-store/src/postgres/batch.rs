//! A group of appends as the arrays that the database's function takes.

use std::collections::HashMap;

use domain::StreamId;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::known::Known;
use crate::journal::{Append, AppendError, Appended, Claim};
use crate::mac::{Macs, Row as EventRow};

/// Indexes from 1, as in SQL.
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

/// What to ask the database instead of having it decide each append.
#[derive(Default)]
struct Asked<'b> {
    before: &'b [i64],
    open: Vec<&'b str>,
    open_before: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Batch<'a> {
    touch_ends: Vec<i32>,
    op_ends: Vec<i32>,
    event_ends: Vec<i32>,
    key_of: Vec<i32>,
    fingerprints: Vec<Option<&'a [u8]>>,
    key_mac_key: Vec<Option<[u8; 32]>>,
    ats: Vec<i64>,
    streams: Places<&'a str>,
    /// If no append is refused: each stream's version before the group, and after the appends so far.
    before: Vec<i64>,
    behind: Vec<i64>,
    /// Whether two appends cannot both be written.
    clashes: bool,
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
    event_version: Vec<i64>,
    event_type: Vec<&'a str>,
    event_schema_version: Vec<i32>,
    event_at: Vec<i64>,
    event_app: Vec<&'a str>,
    event_metadata: Vec<String>,
    event_data: Vec<&'a str>,
    event_person: Vec<Option<Uuid>>,
    event_personal: Vec<Option<&'a [u8]>>,
    event_mac_key: Vec<[u8; 32]>,
}

/// The function's answers: see its description.
pub(super) struct Answers {
    pub(super) head: i64,
    /// Absent, like those below, if everything was written.
    outcome: Option<Vec<i32>>,
    one: Option<Vec<i64>>,
    two: Option<Vec<i64>>,
    holder: Option<Vec<String>>,
}

// By hand: the derive macro would be built with all drivers again, including the C code of SQLite and the cryptography.
impl FromRow<'_, PgRow> for Answers {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            head: row.try_get("head")?,
            outcome: row.try_get("outcome")?,
            one: row.try_get("one")?,
            two: row.try_get("two")?,
            holder: row.try_get("holder")?,
        })
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(appends: &'a [Append], macs: &Macs) -> Self {
        let mut batch = Self::default();
        for append in appends {
            batch.add(append, macs);
        }
        batch
    }

    fn add(&mut self, append: &'a Append, macs: &Macs) {
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
        self.follow_versions();

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
                let row = EventRow {
                    id: event.id.as_bytes(),
                    stream: write.stream.as_str(),
                    version: super::bounded(version),
                    name: &event.name,
                    schema_version: event.schema_version.into(),
                    at,
                    app_id: append.metadata.app_id.as_str(),
                    metadata: &metadata,
                    data: &event.data,
                    person: event.person.as_ref().map(|person| person.0.as_bytes().as_slice()),
                    personal: event.personal.as_deref(),
                };
                // Only the database knows the position, and makes the MAC from it and this key.
                self.event_mac_key.push(macs.event_key(&row));
                self.event_id.push(event.id);
                self.event_stream.push(write.stream.as_str());
                self.event_version.push(super::bounded(version));
                self.event_type.push(&event.name);
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
        self.key_mac_key.push(once.map(|once| macs.idempotency_key(once)));
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

    /// Derives the versions before and after the newest append from its touches.
    fn follow_versions(&mut self) {
        let first = self.touch_ends.last().map_or(0, |end| index_of(end + 1));
        let touches = first..self.touch_stream.len();
        for touch in touches.clone() {
            let stream = index_of(self.touch_stream[touch]);
            let version = self.touch_expected[touch] - self.touch_before[touch];
            if stream == self.before.len() {
                self.before.push(version);
                self.behind.push(version);
            }
            // The highest number has no successor to ask for.
            self.clashes |= self.behind[stream] != version || version == i64::MAX;
        }
        for touch in touches {
            let behind = &mut self.behind[index_of(self.touch_stream[touch])];
            *behind = behind.saturating_add(self.touch_events[touch].into());
        }
    }

    /// Whether versions alone decide that the whole group can be written.
    fn is_plain(&self) -> bool {
        !self.clashes && self.claims.0.is_empty() && self.keys.0.is_empty()
    }

    /// The version that each stream must have for that, and the streams whose version is not known; `None` if one is
    /// known to have another version.
    fn asked(&self, known: &Known) -> Option<Asked<'_>> {
        let mut asked = Asked { before: &self.before, open: vec![], open_before: vec![] };
        if !self.is_plain() {
            return None;
        }
        for (stream, before) in self.streams.0.iter().zip(&self.before) {
            match known.version(stream) {
                Some(version) if version == *before => {}
                Some(_) => return None,
                None => {
                    asked.open.push(stream);
                    asked.open_before.push(*before);
                }
            }
        }
        Some(asked)
    }

    /// The head before the group, if all of it was written.
    pub(super) fn head_before(&self, answers: &Answers) -> Option<i64> {
        if answers.outcome.is_some() {
            return None;
        }
        answers.head.checked_sub(self.event_id.len().try_into().ok()?)
    }

    /// The version of each stream after the group, if all of it was written.
    pub(super) fn versions_behind(&self) -> impl Iterator<Item = (&str, i64)> {
        self.streams.0.iter().copied().zip(self.behind.iter().copied())
    }

    fn op(&mut self, claim: &'a Claim, owner: &'a str, holder: Option<&'a str>) {
        self.op_claim.push(self.claims.of((&claim.kind, &claim.key)));
        self.op_owner.push(owner);
        self.op_holder.push(holder);
    }

    /// One round trip. All rows are read, because the commit comes after them: only then is the answer valid. Nothing is
    /// written, and there is no answer, if the journal lacks the event that was seen last.
    pub(super) async fn send(
        &self,
        connection: &mut PgConnection,
        known: &Known,
        (seen, seen_event): (u64, Uuid),
    ) -> Result<Option<Answers>, sqlx::Error> {
        let asked = self.asked(known).unwrap_or_default();
        let (kinds, claim_keys): (Vec<&str>, Vec<&str>) = self.claims.0.iter().copied().unzip();
        let mut rows: Vec<Answers> = sqlx::query_as(
            "SELECT a.* FROM (SELECT $10::bigint AS as_of WHERE $35 = 0
                 OR EXISTS (SELECT FROM watchword.events v WHERE v.position = $35 AND v.id = $36)) s,
             LATERAL watchword.append($1, $2, $3, $4, $5, $6, $7, $8, $9, s.as_of, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34) a",
        )
        .bind(&self.touch_ends)
        .bind(&self.op_ends)
        .bind(&self.event_ends)
        .bind(&self.key_of)
        .bind(&self.fingerprints)
        .bind(&self.key_mac_key)
        .bind(&self.ats)
        .bind(&self.streams.0)
        .bind(asked.before)
        .bind(known.head())
        .bind(&asked.open)
        .bind(&asked.open_before)
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
        .bind(&self.event_version)
        .bind(&self.event_type)
        .bind(&self.event_schema_version)
        .bind(&self.event_at)
        .bind(&self.event_app)
        .bind(&self.event_metadata)
        .bind(&self.event_data)
        .bind(&self.event_person)
        .bind(&self.event_personal)
        .bind(&self.event_mac_key)
        .bind(seen.cast_signed())
        .bind(seen_event)
        .fetch_all(connection)
        .await?;
        Ok(rows.pop())
    }

    /// The newest event that these answers say was written, and its position.
    pub(super) fn newest(&self, answers: &[Result<Appended, AppendError>]) -> Option<(u64, Uuid)> {
        let written = answers.iter().zip(&self.event_ends).filter_map(|(answer, end)| {
            let Ok(Appended { last, replayed: false, .. }) = answer else { return None };
            Some((*last, *self.event_id.get(index_of(*end))?))
        });
        written.max_by_key(|(position, _)| *position)
    }

    /// The answers as results.
    pub(super) fn read(&self, answers: &Answers) -> Vec<Result<Appended, AppendError>> {
        (0..self.key_of.len()).map(|append| self.read_one(answers, append)).collect()
    }

    fn read_one(&self, answers: &Answers, append: usize) -> Result<Appended, AppendError> {
        let nonsense = || AppendError::Unknown("the database's answer is not valid".to_owned());
        let Answers { head: _, outcome: Some(outcome), one: Some(one), two: Some(two), holder: Some(holder) } =
            answers
        else {
            return self.read_written(answers, append).ok_or_else(nonsense);
        };
        let outcome = outcome.get(append).ok_or_else(nonsense)?;
        let one = *one.get(append).ok_or_else(nonsense)?;
        let two = *two.get(append).ok_or_else(nonsense)?;
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
                let holder = holder.get(append).ok_or_else(nonsense)?;
                Err(AppendError::ClaimTaken { claim, owner: StreamId::from_stored(holder.clone()) })
            }
            _ => Err(nonsense()),
        }
    }

    /// The positions of an append's events if the events of the whole group are the newest, in order.
    fn read_written(&self, answers: &Answers, append: usize) -> Option<Appended> {
        let before = self.head_before(answers)?;
        let end = |append: usize| Some(before + i64::from(*self.event_ends.get(append)?));
        let first = append.checked_sub(1).map_or(Some(before), end)? + 1;
        let (first, last) = (first.try_into().ok()?, end(append)?.try_into().ok()?);
        Some(Appended { first, last, replayed: false })
    }
}

/// The index of a place.
fn index_of(place: i32) -> usize {
    usize::try_from(place - 1).expect("places count from 1")
}

/// The place of the last of `count`.
fn place(count: usize) -> i32 {
    i32::try_from(count).expect("a group holds fewer than two billion of anything")
}
