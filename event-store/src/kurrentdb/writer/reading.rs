//! How the writer fills its replica: it reads what is new in the stream, or takes what was pushed.

use tokio::time::{Instant, timeout};

use super::{GROUP, LONGEST_TURN, WORTHWHILE, Writer};
use crate::journal::Append;
use crate::kurrentdb::entry::{Decoded, Decoder};
use crate::kurrentdb::follower::Follower;
use crate::kurrentdb::log::Failure;
use crate::pauses::Pauses;

impl Writer {
    /// Waits until the replica has everything that is in the stream now.
    pub(super) async fn catch_up(&mut self) -> Result<(), Failure> {
        let mut pauses = Pauses::new(self.settings.patience);
        loop {
            match self.read_on().await {
                Err(failure) if failure.may_pass() && pauses.next().await => {
                    tracing::debug!(error = failure.text(), "reading the stream again");
                }
                done => return done,
            }
        }
    }

    /// Polls for new events when there are no requests.
    pub(super) async fn look(&mut self) {
        match self.read_on().await {
            Ok(()) => self.is_cut_off = false,
            Err(failure) => {
                if !std::mem::replace(&mut self.is_cut_off, true) {
                    tracing::warn!(error = failure.text(), "the journal cannot be followed");
                }
            }
        }
    }

    /// Brings new events of the stream into the replica. Once something was found that should not be there, this node
    /// fails until an operator has resolved it.
    async fn read_on(&mut self) -> Result<(), Failure> {
        if let Some(damage) = &self.damage {
            return Err(Failure::Damaged(damage.clone()));
        }
        let read = self.read_new().await;
        if let Err(Failure::Damaged(damage)) = &read {
            self.damage = Some(damage.clone());
        }
        read
    }

    /// Brings pushed events into the replica. If something is wrong with them, the next read finds it too.
    pub(super) async fn absorb(&mut self) {
        let pushed = self.pushed();
        self.bring(pushed).await;
    }

    pub(super) async fn bring(&mut self, pushed: Vec<Decoded>) {
        if let Err(error) = self.replica.apply(pushed).await {
            tracing::debug!(%error, "pushed events are left to the next read");
        }
    }

    /// The appends that follow the replica's end, as far as they were pushed. What is not whole goes into the replica.
    pub(super) async fn pushed_appends(&mut self) -> Vec<Append> {
        // Deciding on a part of what another node sent at once would be in vain.
        let _ = timeout(LONGEST_TURN, Follower::rest(&mut self.follower, self.replica.head())).await;
        let pushed = self.pushed();
        let is_whole = |decoded: &Decoded| matches!(decoded, Decoded::Whole(_));
        if self.replica.is_damaged() || pushed.len() > GROUP || !pushed.iter().all(is_whole) {
            self.bring(pushed).await;
            return vec![];
        }
        let whole = |decoded| if let Decoded::Whole(append) = decoded { Some(append) } else { None };
        pushed.into_iter().filter_map(whole).collect()
    }

    /// What was pushed of what follows the replica's end.
    fn pushed(&mut self) -> Vec<Decoded> {
        let mut complete = Vec::new();
        let (Some(follower), None) = (&mut self.follower, &self.damage) else { return complete };
        let head = self.replica.head();
        let mut decoder = Decoder::after(head, self.replica.is_damaged(), &self.macs, &mut self.unkeyed);
        for (revision, entry) in follower.behind(head, self.replica.last()) {
            if decoder.push(*revision, entry.clone(), &mut complete).is_err() {
                break;
            }
        }
        if !complete.is_empty() {
            self.others = Some(Instant::now());
        }
        complete
    }

    async fn read_new(&mut self) -> Result<(), Failure> {
        let head = self.replica.head();
        let mut reading = self.log.read(head.saturating_sub(1)).await?;
        // The last known event is read again: it shows whether the replica belongs to this stream.
        if let Some(last) = self.replica.last() {
            let advice = || {
                let path = self.replica.path().display();
                format!("If the stream was restored from a backup on purpose, delete {path}: it is rebuilt")
            };
            match reading.next().await? {
                Some((revision, entry)) if revision + 1 == head && entry.id == last => {}
                // A new leader may show this for a moment.
                None => {
                    return Err(Failure::NotSent(format!(
                        "the stream ends before event {head}, which this node has seen. {}",
                        advice()
                    )));
                }
                Some(_) => {
                    return Err(Failure::Damaged(format!(
                        "event {head} of the stream is not the one that this node has seen. {}",
                        advice()
                    )));
                }
            }
        }
        let mut decoder = Decoder::after(head, self.replica.is_damaged(), &self.macs, &mut self.unkeyed);
        let mut complete = Vec::new();
        while let Some((revision, entry)) = reading.next().await? {
            decoder.push(revision, entry, &mut complete)?;
            if complete.len() >= GROUP {
                self.replica.apply(std::mem::take(&mut complete)).await?;
            }
        }
        self.replica.apply(complete).await?;
        self.unkeyed.check(self.replica.head(), true)?;
        if self.replica.head() > head {
            self.others = Some(Instant::now());
            self.follower.get_or_insert_with(|| Follower::start(self.log.beside(), self.replica.head()));
        } else if self.others.is_none_or(|others| others.elapsed() > WORTHWHILE) {
            self.follower = None;
        }
        self.sightings += 1;
        Ok(())
    }
}
