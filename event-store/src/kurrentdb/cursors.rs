//! The progress of effects and the node that performs each: one stream of the server per effect, whose last event
//! counts.
//!
//! As in the journal itself, a writer names the event that it writes after, and of those that name the same one the
//! server lets one win. Clocks of different nodes are never compared: a node takes over when, by its own clock, it has
//! not seen that event replaced for as long as its writer had said.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::KurrentSettings;
use super::entry::Entry;
use super::link::Target;
use super::log::{Log, Sent};
use super::rights::{effect_stream, protect};
use crate::clock::{Clock, SystemClock};
use crate::journal::{Cursor, LONGEST_HOLD, StoreError};

/// How many events of such a stream the server keeps. The last one would do; the others are for people.
const KEPT: u64 = 100;

/// The cursors of all effects.
pub(super) struct Cursors {
    target: Arc<Target>,
    settings: KurrentSettings,
    effects: Mutex<HashMap<String, Effect>>,
}

struct Effect {
    log: Log,
    /// How many events its stream has had so far.
    length: u64,
    /// When this node first saw the last one.
    seen: Instant,
}

/// An event of such a stream.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    position: u64,
    epoch: u64,
    /// `None`: released.
    holder: Option<String>,
    /// For how many milliseconds the holder may stay silent.
    lasts: u64,
}

impl Stored {
    fn cursor(&self) -> Cursor {
        Cursor { position: self.position, epoch: self.epoch }
    }
}

impl Cursors {
    pub(super) fn new(target: &Arc<Target>, settings: KurrentSettings) -> Self {
        Self { target: Arc::clone(target), settings, effects: Mutex::default() }
    }

    /// See [`Journal::cursor_position`](crate::Journal::cursor_position).
    pub(super) async fn position(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let mut effects = self.effects.lock().await;
        Ok(self.effect(&mut effects, name).last().await?.map(|last| last.position))
    }

    /// See [`Journal::hold_cursor`](crate::Journal::hold_cursor). `newest` returns the position of the newest event,
    /// and is called only if needed.
    pub(super) async fn hold(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
        newest: impl Future<Output = Result<u64, StoreError>> + Send,
    ) -> Result<Option<Cursor>, StoreError> {
        let mut effects = self.effects.lock().await;
        let effect = self.effect(&mut effects, name);
        let (position, epoch) = match effect.last().await? {
            None => {
                self.bound(name).await?;
                (newest.await?, 1)
            }
            Some(last) if last.holder.as_deref() == Some(holder) => (last.position, last.epoch),
            Some(last)
                if last.holder.is_none()
                    || effect.seen.elapsed() > Duration::from_millis(last.lasts).min(LONGEST_HOLD) =>
            {
                (last.position, last.epoch.wrapping_add(1))
            }
            Some(_) => return Ok(None),
        };
        let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let held = Stored { position, epoch, holder: Some(holder.to_owned()), lasts };
        Ok(effect.write(&held).await?.then(|| held.cursor()))
    }

    /// See [`Journal::move_cursor`](crate::Journal::move_cursor).
    pub(super) async fn shift(&self, name: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.change(name, cursor.epoch, |last| last.position = cursor.position).await
    }

    /// See [`Journal::release_cursor`](crate::Journal::release_cursor).
    pub(super) async fn release(&self, name: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.change(name, cursor.epoch, |last| last.holder = None).await.map(|_| ())
    }

    /// False if another node has taken it since.
    async fn change(
        &self,
        name: &str,
        epoch: u64,
        change: impl FnOnce(&mut Stored) + Send,
    ) -> Result<bool, StoreError> {
        let mut effects = self.effects.lock().await;
        let effect = self.effect(&mut effects, name);
        match effect.last().await? {
            Some(mut last) if last.epoch == epoch => {
                change(&mut last);
                effect.write(&last).await
            }
            _ => Ok(false),
        }
    }

    fn effect<'a>(&self, effects: &'a mut HashMap<String, Effect>, name: &str) -> &'a mut Effect {
        effects.entry(name.to_owned()).or_insert_with(|| Effect {
            log: Log::new(&self.target, &self.stream(name), self.settings.answer_timeout),
            length: 0,
            seen: Instant::now(),
        })
    }

    fn stream(&self, name: &str) -> String {
        effect_stream(&self.settings.stream, name)
    }

    /// Before a stream is created, has the server discard its old events and restrict access to it. Existing settings
    /// stay.
    async fn bound(&self, name: &str) -> Result<(), StoreError> {
        let more = serde_json::json!({ "$maxCount": KEPT });
        protect(&self.target, &self.stream(name), more, self.settings.answer_timeout).await?;
        Ok(())
    }
}

impl Effect {
    async fn last(&mut self) -> Result<Option<Stored>, StoreError> {
        let Some((revision, entry)) = self.log.last().await? else { return Ok(None) };
        let length = revision + 1;
        if self.length != length {
            (self.length, self.seen) = (length, Instant::now());
        }
        let damaged = |error| StoreError::Damaged(format!("the cursor of an effect cannot be read: {error}"));
        serde_json::from_str(&entry.data).map(Some).map_err(damaged)
    }

    /// Writes after the event read last; false if another node has.
    async fn write(&mut self, stored: &Stored) -> Result<bool, StoreError> {
        let data = serde_json::to_string(stored).expect("a plain struct");
        match self.log.append(self.length, &[entry("EffectCursor", data)]).await? {
            Sent::Written => {
                (self.length, self.seen) = (self.length + 1, Instant::now());
                Ok(true)
            }
            Sent::Overtaken => Ok(false),
        }
    }
}

fn entry(name: &str, data: String) -> Entry {
    Entry { id: SystemClock.new_id(), name: name.to_owned(), data, metadata: b"{}".to_vec() }
}
