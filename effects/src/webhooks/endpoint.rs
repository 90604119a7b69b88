//! One webhook: reads the events that it wants, sends them, and remembers what it did not accept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::EventId;
use domain::claims::ClaimKind;
use domain::delivery::{Attempted, Delivery, DeliveryCommand, FailedAttempt, Outcome, WebhookFailure};
use event_store::lookup::messages_to;
use event_store::{Cursor, StoreError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::SignedDuration;
use schemas::RecordedEvent;
use tokio::sync::watch;
use tokio::time::Instant;

use super::feed::Next;
use super::health::Health;
use super::message::NotAccepted;
use super::parked::{Parked, Waiting};
use super::runner::Shared;
use super::sending::{Done, Target, send};
use super::window::Window;
use super::{LAST_MESSAGES, cursor_of};
use crate::cursor::{KEEP, Stop};

/// How often the cursor is stored of a webhook that is sent nothing.
const KEEP_IDLE: Duration = Duration::from_mins(1);
/// After how long, and how many messages, those that were accepted are recorded.
const RECORD_EVERY: Duration = Duration::from_mins(10);
const RECORD_AFTER: u64 = 10_000;

/// Whether a webhook is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    GoOn,
    /// After the requests in progress, if they do not take long.
    Finish,
    /// At once: it was changed. Requests in progress are repeated.
    StopNow,
}

/// How far a webhook has come, for the runner's metrics.
#[derive(Default)]
pub(super) struct Progress {
    pub position: AtomicU64,
    pub waiting: AtomicU64,
}

pub(super) struct Endpoint {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Arc<Target>,
    pub(super) cursor: Cursor,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) progress: Arc<Progress>,
}

impl Endpoint {
    /// Sends until it is to stop, or the webhook was disabled because it accepts nothing.
    pub async fn run(self) -> Result<(), Stop> {
        let Self { shared, target, cursor, orders, progress } = self;
        let parked = waiting_of(&shared, &target).await?;
        let failing_since =
            parked.iter().max_by_key(|(_, _, before)| before.at).and_then(|it| it.2.failing_since);
        let mut serving = Serving {
            health: Health::new(failing_since, shared.policy),
            window: Window::after(cursor.position),
            parked: Parked::default(),
            kept: (cursor.position, Instant::now()),
            cursor,
            accepted: 0,
            last: None,
            recorded: Instant::now(),
            new_turn: false,
            shared,
            target,
            progress,
        };
        for (position, waiting, _) in parked {
            serving.parked.add(position, waiting);
        }
        serving.serve(orders).await
    }
}

/// The events that the journal lists as waiting for this webhook.
async fn waiting_of(shared: &Shared, target: &Target) -> Result<Vec<(u64, Waiting, Attempted)>, Stop> {
    let claims = shared.journal.claims(ClaimKind::WebhookWaiting.as_str(), &messages_to(target.id)).await?;
    let positions = claims.iter().filter_map(|(claim, _)| claim.key.rsplit('/').next()?.parse().ok());
    let positions: Vec<u64> = positions.collect();
    let mut all = Vec::with_capacity(positions.len());
    for some in positions.chunks(100) {
        for event in shared.journal.read_positions(some).await? {
            let event_id = EventId(event.id);
            let delivery = shared.repository.load::<Delivery>(&event_id).await?;
            // A claim alone makes nothing wait: anybody who can write to the store can forge one.
            let Some(before) = delivery.state.webhooks.get(&target.id) else { continue };
            let Outcome::Waits(due) = before.outcome else { continue };
            if event.metadata.app_id != target.app_id {
                continue;
            }
            let waiting = Waiting {
                stream: event.stream.clone(),
                version: event.version,
                due,
                first_failed_at: before.first_failed_at,
                listed: (event.position, event_id),
                holds_stream: !before.asked_again,
                in_flight: false,
            };
            all.push((event.position, waiting, *before));
        }
    }
    Ok(all)
}

struct Serving {
    shared: Arc<Shared>,
    target: Arc<Target>,
    progress: Arc<Progress>,
    health: Health,
    window: Window,
    parked: Parked,
    cursor: Cursor,
    /// The stored position, and when it was stored.
    kept: (u64, Instant),
    /// The messages that were accepted since the last record, the last of them, and when that was.
    accepted: u64,
    last: Option<(u64, EventId)>,
    recorded: Instant,
    /// Whether a receiver that is down is asked with a new event next, or with one that waits: neither keeps the other from
    /// being tried.
    new_turn: bool,
}

impl Serving {
    async fn serve(mut self, mut orders: watch::Receiver<Order>) -> Result<(), Stop> {
        let mut newest = self.shared.feed.watch();
        let mut in_flight = FuturesUnordered::new();
        loop {
            let head = *newest.borrow_and_update();
            let has_more = self.read(head).await?;
            while in_flight.len() < self.health.room()
                && let Some((position, is_retry)) = self.next_message()
            {
                let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&self.target));
                in_flight.push(send(shared, target, position, is_retry, self.health.is_failing()));
            }
            self.record_accepted(RECORD_EVERY).await?;
            self.keep(KEEP).await?;
            let wake = if has_more { Instant::now() } else { self.next_look() };
            tokio::select! {
                Some(done) = in_flight.next() => {
                    if self.finish(done).await? {
                        return Ok(());
                    }
                }
                changed = newest.changed() => {
                    changed.map_err(|_| StoreError::Unavailable("the journal was closed".into()))?;
                }
                order = asked(&mut orders) => {
                    if order == Order::Finish {
                        let last = async {
                            while let Some(done) = in_flight.next().await {
                                self.finish(done).await?;
                            }
                            Ok::<(), Stop>(())
                        };
                        if let Ok(ended) = tokio::time::timeout(LAST_MESSAGES, last).await {
                            ended?;
                        }
                        self.record_accepted(Duration::ZERO).await?;
                    }
                    return self.keep(Duration::ZERO).await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Reads some events. Returns whether there are more to read.
    async fn read(&mut self, head: u64) -> Result<bool, Stop> {
        let has_room =
            |this: &Self| this.window.has_room() && this.parked.has_room() && !this.health.is_down();
        // One that is down is sent one new event now and then, to see whether it works again.
        let needs_one = self.health.is_down() && !self.window.has_next() && self.parked.has_room();
        if self.window.read_to() >= head || !(has_room(self) || needs_one) {
            return Ok(false);
        }
        match self.shared.feed.next(self.window.read_to()).await? {
            Next::Unreadable => self.window.skip(self.window.read_to() + 1),
            Next::Events(events) => {
                for event in events {
                    if !self.window.has_room() {
                        break;
                    }
                    if self.wants(&event) && !self.parked.holds(&event.stream) {
                        self.window.add(event.position, &event.stream);
                    } else {
                        self.window.skip(event.position);
                    }
                }
            }
        }
        self.progress.position.store(self.window.position(), Ordering::Relaxed);
        Ok(self.window.read_to() < head && has_room(self))
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        event.metadata.app_id == self.target.app_id
            && self.target.settings.want(event.stream.aggregate(), &event.name)
    }

    /// What to send next, and whether it is a retry.
    fn next_message(&mut self) -> Option<(u64, bool)> {
        if self.health.waits_until().is_some() {
            return None;
        }
        let is_down = self.health.is_down();
        if is_down {
            self.new_turn = !self.new_turn;
        }
        let new_first = is_down && self.new_turn && self.parked.has_room();
        if new_first && let Some(position) = self.window.next() {
            return Some((position, false));
        }
        if let Some(position) = self.parked.next(self.shared.clock.now(), is_down) {
            return Some((position, true));
        }
        let next = if self.parked.has_room() { self.window.next() } else { None };
        next.map(|position| (position, false))
    }

    /// When there is something to do even without a new event.
    fn next_look(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + KEEP_IDLE;
        if let Some(until) = self.health.waits_until() {
            return until;
        }
        if let Some(due) = self.parked.next_due() {
            let wait = due.duration_since(self.shared.clock.now());
            next = next.min(now + Duration::try_from(wait).unwrap_or_default());
        }
        if self.accepted > 0 {
            next = next.min(self.recorded + RECORD_EVERY);
        }
        if self.window.position() > self.kept.0 {
            next = next.min(self.kept.1 + KEEP);
        }
        next
    }

    /// Takes the outcome of a message. Returns whether the webhook was disabled.
    async fn finish(&mut self, done: Done) -> Result<bool, Stop> {
        let Done { position, event, is_retry, outcome, took } = done;
        let outcome = outcome?;
        let Some(event) = event else {
            self.forget(position, is_retry);
            return Ok(false);
        };
        let disabled = match outcome {
            Ok(()) => {
                self.accept(position, &event, is_retry, took).await?;
                false
            }
            Err(unsent) => self.refuse(position, &event, is_retry, unsent).await?,
        };
        self.progress.position.store(self.window.position(), Ordering::Relaxed);
        self.progress.waiting.store(self.parked.len() as u64, Ordering::Relaxed);
        Ok(disabled)
    }

    /// There is nothing at a position that could be sent.
    fn forget(&mut self, position: u64, is_retry: bool) {
        tracing::error!(position, webhook = %self.target.id, "an event cannot be read: it is not sent");
        metrics::counter!("watchword_webhook_unreadable_total").increment(1);
        if is_retry {
            self.parked.remove(position);
        } else {
            self.window.finish(position);
        }
    }

    async fn accept(
        &mut self,
        position: u64,
        event: &RecordedEvent,
        is_retry: bool,
        took: Duration,
    ) -> Result<(), Stop> {
        metrics::counter!("watchword_webhook_delivered_total").increment(1);
        self.accepted += 1;
        self.last = Some((position, EventId(event.id)));
        if self.health.accepted(took) {
            tracing::info!(webhook = %self.target.id, "a webhook accepts messages again");
            self.parked.retry_all(self.shared.clock.now());
        }
        if !is_retry {
            self.window.finish(position);
            return Ok(());
        }
        let next = self.next_of_stream(position).await?;
        let Some(before) = self.parked.remove(position) else { return Ok(()) };
        match next {
            // The journal still lists the one before, until the whole stream has caught up.
            Some(next) => self.wait(&next, before.listed),
            None => self.unlist(event, before.listed).await?,
        }
        Ok(())
    }

    /// Lets the next event of a stream wait in the place of one before it.
    fn wait(&mut self, next: &RecordedEvent, listed: (u64, EventId)) {
        let waiting = Waiting {
            stream: next.stream.clone(),
            version: next.version,
            due: self.shared.clock.now(),
            first_failed_at: None,
            listed,
            holds_stream: true,
            in_flight: false,
        };
        self.parked.add(next.position, waiting);
    }

    /// Takes an event that was accepted from the list of the journal.
    async fn unlist(&mut self, because: &RecordedEvent, listed: (u64, EventId)) -> Result<(), Stop> {
        let (position, event_id) = listed;
        let (at, webhook_id, count) = (self.shared.clock.now(), self.target.id, self.accepted);
        let command = DeliveryCommand::RecordDelivered { webhook_id, event_id, position, count, at };
        self.shared.record(because, event_id, webhook_id, command, at).await?;
        (self.accepted, self.recorded) = (0, Instant::now());
        Ok(())
    }

    /// The next event of the stream of a waiting one, among those that the window has passed.
    async fn next_of_stream(&self, position: u64) -> Result<Option<RecordedEvent>, Stop> {
        let Some(waiting) = self.parked.get(position).filter(|waiting| waiting.holds_stream) else {
            return Ok(None);
        };
        let later = self.shared.journal.read_stream(&waiting.stream, waiting.version).await?;
        let next = later.into_iter().find(|event| self.wants(event));
        Ok(next.filter(|next| next.position <= self.window.read_to()))
    }

    async fn refuse(
        &mut self,
        position: u64,
        event: &RecordedEvent,
        is_retry: bool,
        unsent: NotAccepted,
    ) -> Result<bool, Stop> {
        let NotAccepted { reason, status, detail } = unsent;
        let (shared, webhook_id, event_id) = (Arc::clone(&self.shared), self.target.id, EventId(event.id));
        let (name, at) = (reason.as_str(), shared.clock.now());
        tracing::warn!(webhook = %webhook_id, position, reason = name, detail, "an event was not delivered");
        metrics::counter!("watchword_webhook_failures_total", "reason" => name).increment(1);
        self.health.refused(at);
        let failing_since = self.health.failing_since;
        let policy = shared.policy;
        let listed = |event: &RecordedEvent| (event.position, EventId(event.id));
        let before = self.parked.get(position).cloned();
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        let is_over = |since: jiff::Timestamp, length| at.duration_since(since) >= seconds(length);
        // Whoever waits behind one that is given up is listed before that one leaves the list.
        let gives_up = before.as_ref().and_then(|before| before.first_failed_at);
        let mut next = None;
        if gives_up.is_some_and(|since| is_over(since, policy.give_up_after)) {
            next = self.next_of_stream(position).await?;
            if let Some(next) = &next {
                let failure = FailedAttempt { reason: WebhookFailure::Blocked, status: None, failing_since };
                let (position, event_id) = listed(next);
                let command = DeliveryCommand::RecordNotDelivered {
                    webhook_id,
                    event_id,
                    position,
                    failure,
                    policy,
                    at,
                };
                shared.record(next, event_id, webhook_id, command, at).await?;
            }
        }
        let failure = FailedAttempt { reason, status, failing_since };
        let command =
            DeliveryCommand::RecordNotDelivered { webhook_id, event_id, position, failure, policy, at };
        let recorded = shared.record(event, event_id, webhook_id, command, at).await?;
        if let Some(before) = &before
            && before.listed != listed(event)
        {
            // It is listed itself now.
            self.unlist(event, before.listed).await?;
        }
        if is_retry {
            self.parked.remove(position);
        } else {
            self.window.give_away(position);
        }
        if let Some(Attempted { outcome: Outcome::Waits(due), first_failed_at, asked_again, .. }) = recorded {
            let waiting = Waiting {
                stream: event.stream.clone(),
                version: event.version,
                due,
                first_failed_at,
                listed: listed(event),
                holds_stream: !asked_again,
                in_flight: false,
            };
            self.parked.add(position, waiting);
        } else if let Some(next) = next {
            self.wait(&next, listed(&next));
        }
        let Some(since) = failing_since.filter(|since| is_over(*since, policy.disable_after)) else {
            return Ok(false);
        };
        self.keep(Duration::ZERO).await?;
        let disabled = shared.disable(&self.target.app_id, webhook_id, since).await;
        if disabled {
            tracing::warn!(webhook = %webhook_id, %since, "a webhook was disabled: it has accepted nothing");
        }
        Ok(disabled)
    }

    /// Records what was accepted, if the last record is older than this, or there is much to record.
    async fn record_accepted(&mut self, older_than: Duration) -> Result<(), Stop> {
        let is_due = self.recorded.elapsed() >= older_than || self.accepted >= RECORD_AFTER;
        let Some((position, event_id)) = self.last.filter(|_| self.accepted > 0 && is_due) else {
            return Ok(());
        };
        if let Some(event) = self.shared.event(position).await? {
            self.unlist(&event, (position, event_id)).await?;
        }
        Ok(())
    }

    /// Stores the cursor, if it is older than this.
    async fn keep(&mut self, older_than: Duration) -> Result<(), Stop> {
        let position = self.window.position();
        // Events that it does not want need not be remembered at once.
        let older_than = if self.accepted > 0 || older_than.is_zero() { older_than } else { KEEP_IDLE };
        if position == self.kept.0 || self.kept.1.elapsed() < older_than {
            return Ok(());
        }
        self.cursor.position = position;
        if !self.shared.journal.move_cursor(&cursor_of(self.target.id), self.cursor).await? {
            return Err(Stop::Lost);
        }
        self.kept = (position, Instant::now());
        Ok(())
    }
}

/// Waits until a webhook is to stop.
async fn asked(orders: &mut watch::Receiver<Order>) -> Order {
    orders.wait_for(|order| *order != Order::GoOn).await.map_or(Order::StopNow, |order| *order)
}
