//! The loop on the node that holds the cursor: reads new events for all webhooks, and starts and stops the task of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cqrs_es::Aggregate;
use dispatcher::Dispatcher;
use domain::claims::ClaimKind;
use domain::delivery::{DeliveryEvent, WebhookPolicy};
use domain::webhook::{Webhook, WebhookEvent};
use domain::{Event, LogOrigin, Stream, WebhookId};
use event_store::{Clock, Journal, Repository, StoreError};
use schemas::RecordedEvent;
use tasks::End;
use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::admins::FindByRole;
use super::endpoint::{Endpoint, Order, Progress};
use super::feed::{Feed, Next, read};
use super::message::Messages;
use super::sending::Target;
use super::{EFFECT, LAST_MESSAGES, WebhookSenderParts, WebhookSenderSettings, cursor_of};
use crate::cursor::{Claimant, EffectStatus, Ending, HeldCursor, Interruptions, Stop};
use crate::handle::Perform;

/// How long events may gather before webhooks are told of them.
const GATHER: Duration = Duration::from_millis(20);
/// The most requests at a time of all webhooks that work, and of all others: those that hang do not take the places of the rest.
const SLOTS: usize = 512;
const SLOTS_OF_FAILING: usize = 64;
/// How long the task of a webhook that panicked rests.
const REST: Duration = Duration::from_secs(10);
/// The events that say how a webhook goes on.
const CONTROLS: &[&str] = &[
    "WebhookCreated",
    "WebhookChanged",
    "WebhookDisabled",
    "WebhookReplayRequested",
    "WebhookDeleted",
    "WebhookFailed",
];

/// What the tasks of all webhooks share.
pub(super) struct Shared {
    pub journal: Arc<dyn Journal>,
    pub repository: Arc<Repository>,
    pub dispatcher: Dispatcher,
    pub clock: Arc<dyn Clock>,
    pub messages: Arc<Messages>,
    pub origin: LogOrigin,
    pub admins: Arc<dyn FindByRole>,
    pub policy: WebhookPolicy,
    pub feed: Feed,
    pub slots: Semaphore,
    pub slots_of_failing: Semaphore,
}

impl Shared {
    /// The event at a position.
    pub async fn event(&self, position: u64) -> Result<Option<Arc<RecordedEvent>>, StoreError> {
        if let Some(event) = self.feed.at(position) {
            return Ok(Some(event));
        }
        match self.journal.read_positions(&[position]).await {
            Ok(events) => Ok(events.into_iter().next().map(Arc::new)),
            Err(StoreError::Damaged(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) struct Runner {
    journal: Arc<dyn Journal>,
    repository: Arc<Repository>,
    dispatcher: Dispatcher,
    clock: Arc<dyn Clock>,
    messages: Arc<Messages>,
    origin: LogOrigin,
    admins: Arc<dyn FindByRole>,
    settings: WebhookSenderSettings,
    status: watch::Sender<EffectStatus>,
    ending: Ending,
}

impl Perform for Runner {
    const NAME: &'static str = "webhooks";
    const LAST: Duration = Duration::from_secs(2 * LAST_MESSAGES.as_secs());
    const CUT_OFF: &'static str = "messages to webhooks were still in progress: they will be sent again";

    async fn run(&mut self) -> End {
        let mut interruptions = Interruptions::of("sender of webhooks");
        loop {
            let stop = self.work().await;
            if matches!(stop, Stop::Lost) {
                // The other node reports them.
                metrics::gauge!("watchword_webhook_waiting").set(0.0);
            }
            if let Some(end) = interruptions.after(stop, &self.status, &self.ending).await {
                return end;
            }
        }
    }
}

impl Runner {
    pub fn new(parts: WebhookSenderParts, status: watch::Sender<EffectStatus>, ending: Ending) -> Self {
        let WebhookSenderParts { repository, dispatcher, clock, messages, origin, admins, settings } = parts;
        let journal = Arc::clone(repository.journal());
        Self { journal, repository, dispatcher, clock, messages, origin, admins, settings, status, ending }
    }

    /// Takes the cursor, and serves all webhooks for as long as possible.
    async fn work(&self) -> Stop {
        let claimant = Claimant {
            journal: &self.journal,
            effect: EFFECT,
            node: &self.settings.node,
            lease: self.settings.lease,
            status: &self.status,
            ending: &self.ending,
        };
        let mut cursor = match claimant.take().await {
            Ok(cursor) => cursor,
            Err(stop) => return stop,
        };
        let mut endpoints = match self.begin(&mut cursor).await {
            Ok(endpoints) => endpoints,
            Err(stop) => return stop,
        };
        let Err(stop) = self.follow(&mut cursor, &mut endpoints).await;
        if matches!(stop, Stop::Ending) {
            endpoints.finish().await;
            cursor.let_go().await;
        }
        stop
    }

    /// Catches up with what was decided about webhooks while no node had the cursor, and starts them.
    async fn begin(&self, cursor: &mut HeldCursor) -> Result<Endpoints, Stop> {
        let (after, newest) = (cursor.position(), self.journal.head().await?);
        let mut positions = Vec::new();
        for name in CONTROLS.iter().filter(|name| **name != "WebhookFailed") {
            positions.extend(self.journal.positions_of(name, after, newest).await?);
        }
        positions.sort_unstable();
        for some in positions.chunks(100) {
            for event in self.journal.read_positions(some).await? {
                self.place(&event).await?;
            }
        }
        cursor.set_position(newest);
        cursor.keep_now().await?;
        let shared = Arc::new(Shared {
            journal: Arc::clone(&self.journal),
            repository: Arc::clone(&self.repository),
            dispatcher: self.dispatcher.clone(),
            clock: Arc::clone(&self.clock),
            messages: Arc::clone(&self.messages),
            origin: self.origin.clone(),
            admins: Arc::clone(&self.admins),
            policy: self.settings.policy,
            feed: Feed::after(Arc::clone(&self.journal), newest),
            slots: Semaphore::new(SLOTS),
            slots_of_failing: Semaphore::new(SLOTS_OF_FAILING),
        });
        let mut endpoints = Endpoints {
            shared,
            node: self.settings.node.clone(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            by_task: HashMap::new(),
            resting: Vec::new(),
        };
        for (claim, _) in self.journal.claims(ClaimKind::Webhook.as_str(), "").await? {
            if let Some(id) = claim.key.rsplit('/').next().and_then(|id| id.parse().ok()) {
                endpoints.start(WebhookId(id)).await?;
            }
        }
        let webhooks = endpoints.running.len();
        tracing::info!(position = newest, webhooks, "this node sends events to webhooks");
        Ok(endpoints)
    }

    async fn follow(
        &self,
        cursor: &mut HeldCursor,
        endpoints: &mut Endpoints,
    ) -> Result<std::convert::Infallible, Stop> {
        let mut head = self.journal.watch_head();
        loop {
            self.ending.require_going_on()?;
            cursor.renew().await?;
            let newest = *head.borrow_and_update();
            let position = cursor.position();
            let mut controls = Vec::new();
            if newest > position {
                match read(&*self.journal, position).await? {
                    Next::Unreadable => {
                        cursor.set_position(position + 1);
                        endpoints.shared.feed.skip(position + 1);
                    }
                    Next::Events(events) => {
                        let about = events.iter().filter(|event| CONTROLS.contains(&event.name.as_str()));
                        controls.extend(about.cloned());
                        cursor.set_position(events.last().map_or(position, |event| event.position));
                        endpoints.shared.feed.add(events);
                    }
                }
            }
            for event in &controls {
                self.obey(event, endpoints).await?;
            }
            // What a webhook was told is not told again.
            if controls.is_empty() {
                cursor.keep().await?;
            } else {
                cursor.keep_now().await?;
            }
            endpoints.wake().await?;
            self.report(cursor.position(), endpoints);
            if cursor.position() >= newest {
                let wake = endpoints.next_wake(cursor.next_look());
                tokio::select! {
                    changed = head.changed() => {
                        changed.map_err(|_| StoreError::Unavailable("the journal was closed".into()))?;
                        self.ending.sleep(Instant::now() + GATHER).await?;
                    }
                    ended = endpoints.ended() => endpoints.take_leave(ended)?,
                    slept = self.ending.sleep(wake) => slept?,
                }
            }
        }
    }

    /// Does what an event says about a webhook.
    async fn obey(&self, event: &RecordedEvent, endpoints: &mut Endpoints) -> Result<(), Stop> {
        let id = if event.stream.aggregate() == Webhook::TYPE {
            event.stream.uuid().map(WebhookId)
        } else {
            // Somebody asked to send an event again.
            match self.repository.decode(event).await {
                Ok(Event::Delivery(DeliveryEvent::WebhookFailed(failed))) if failed.asked_again => {
                    Some(failed.webhook_id)
                }
                Ok(_) | Err(StoreError::Damaged(_)) => None,
                Err(error) => return Err(error.into()),
            }
        };
        let Some(id) = id else { return Ok(()) };
        endpoints.stop(id).await?;
        self.place(event).await?;
        endpoints.start(id).await
    }

    /// Places the cursor of a webhook where an event about it says. Doing so again repeats messages, and loses none.
    async fn place(&self, recorded: &RecordedEvent) -> Result<(), Stop> {
        let Some(id) = recorded.stream.uuid().map(WebhookId) else { return Ok(()) };
        let event = match self.repository.decode(recorded).await {
            Ok(Event::Webhook(event)) => event,
            Ok(_) | Err(StoreError::Damaged(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let is_new = match event {
            WebhookEvent::WebhookCreated(_) => true,
            WebhookEvent::WebhookChanged(changed) => {
                changed.enabled && !self.was_enabled(id, recorded.version).await?
            }
            WebhookEvent::WebhookReplayRequested(asked) => {
                let name = cursor_of(id);
                let now = self.journal.cursor_position(&name).await?.unwrap_or(recorded.position);
                return self.move_to(&name, now.min(asked.from_position.saturating_sub(1))).await;
            }
            WebhookEvent::WebhookDisabled(_) | WebhookEvent::WebhookDeleted(_) => false,
        };
        if is_new { self.move_to(&cursor_of(id), recorded.position).await } else { Ok(()) }
    }

    /// Whether a webhook was enabled before its event of this version.
    async fn was_enabled(&self, id: WebhookId, version: u64) -> Result<bool, Stop> {
        let mut webhook = Webhook::default();
        for recorded in self.journal.read_stream(&Webhook::stream(&id), 0).await? {
            if recorded.version >= version {
                break;
            }
            if let Event::Webhook(event) = self.repository.decode(&recorded).await? {
                webhook.apply(event);
            }
        }
        Ok(webhook.settings.is_some_and(|settings| settings.enabled))
    }

    async fn move_to(&self, name: &str, position: u64) -> Result<(), Stop> {
        let held = self.journal.hold_cursor(name, &self.settings.node, Duration::ZERO).await?;
        let mut cursor = held.ok_or(Stop::Lost)?;
        cursor.position = position;
        if self.journal.move_cursor(name, cursor).await? { Ok(()) } else { Err(Stop::Lost) }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53")]
    fn report(&self, position: u64, endpoints: &Endpoints) {
        let progress = || endpoints.running.values().map(|running| &running.progress);
        let last = progress().map(|it| it.position.load(Ordering::Relaxed)).min().unwrap_or(position);
        let waiting: u64 = progress().map(|it| it.waiting.load(Ordering::Relaxed)).sum();
        metrics::gauge!("watchword_webhook_lag").set(position.saturating_sub(last) as f64);
        metrics::gauge!("watchword_webhook_waiting").set(waiting as f64);
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        let status = EffectStatus { state: "running", position, waiting, failed: 0, error: None };
        self.status.send_if_modified(|before| std::mem::replace(before, status.clone()) != status);
    }
}

/// The task of a webhook.
struct Running {
    orders: watch::Sender<Order>,
    progress: Arc<Progress>,
}

/// The tasks of all webhooks. They end with this.
struct Endpoints {
    shared: Arc<Shared>,
    node: String,
    tasks: JoinSet<Result<(), Stop>>,
    running: HashMap<WebhookId, Running>,
    by_task: HashMap<Id, WebhookId>,
    /// Those whose task panicked, and when it starts again.
    resting: Vec<(Instant, WebhookId)>,
}

type Ended = Result<(Id, Result<(), Stop>), JoinError>;

impl Endpoints {
    /// Starts the task of a webhook, if it is enabled.
    async fn start(&mut self, id: WebhookId) -> Result<(), Stop> {
        let webhook = match self.shared.repository.load::<Webhook>(&id).await {
            Ok(webhook) => webhook,
            Err(StoreError::Damaged(what)) => {
                tracing::error!(webhook = %id, what, "a webhook cannot be read: nothing is sent to it");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let (Some(app_id), Some(settings)) = (webhook.state.app_id.clone(), webhook.state.settings.clone())
        else {
            return Ok(());
        };
        if !settings.enabled || self.running.contains_key(&id) {
            return Ok(());
        }
        let held = self.shared.journal.hold_cursor(&cursor_of(id), &self.node, Duration::ZERO).await?;
        let mut cursor = held.ok_or(Stop::Lost)?;
        // The journal was restored to an older state.
        cursor.position = cursor.position.min(self.shared.journal.head().await?);
        let (orders, heard) = watch::channel(Order::GoOn);
        let progress = Arc::new(Progress::default());
        progress.position.store(cursor.position, Ordering::Relaxed);
        let endpoint = Endpoint {
            shared: Arc::clone(&self.shared),
            target: Arc::new(Target { id, app_id, settings }),
            cursor,
            orders: heard,
            progress: Arc::clone(&progress),
        };
        let task = self.tasks.spawn(endpoint.run());
        self.by_task.insert(task.id(), id);
        self.running.insert(id, Running { orders, progress });
        Ok(())
    }

    /// Stops the task of a webhook at once.
    async fn stop(&mut self, id: WebhookId) -> Result<(), Stop> {
        self.resting.retain(|(_, resting)| *resting != id);
        let Some(running) = self.running.get(&id) else { return Ok(()) };
        running.orders.send_replace(Order::StopNow);
        while self.running.contains_key(&id) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            self.take_leave(ended)?;
        }
        Ok(())
    }

    /// Stops all, after the requests in progress.
    async fn finish(&mut self) {
        for running in self.running.values() {
            running.orders.send_replace(Order::Finish);
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// The end of a task; never, if there is none.
    async fn ended(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    fn take_leave(&mut self, ended: Ended) -> Result<(), Stop> {
        let (task, outcome) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(Stop::Store(StoreError::Damaged("its task panicked".to_owned())))),
        };
        let Some(id) = self.by_task.remove(&task) else { return Ok(()) };
        self.running.remove(&id);
        match outcome {
            Ok(()) => Ok(()),
            // Of this webhook alone.
            Err(Stop::Store(StoreError::Damaged(what))) => {
                tracing::error!(webhook = %id, what, "a webhook cannot be served for now");
                self.resting.push((Instant::now() + REST, id));
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }

    /// Starts those that have rested.
    async fn wake(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        let (rested, resting) =
            std::mem::take(&mut self.resting).into_iter().partition(|(until, _)| *until <= now);
        self.resting = resting;
        let rested: Vec<(Instant, WebhookId)> = rested;
        for (_, id) in rested {
            self.start(id).await?;
        }
        Ok(())
    }

    fn next_wake(&self, otherwise: Instant) -> Instant {
        self.resting.iter().map(|(until, _)| *until).fold(otherwise, Instant::min)
    }
}
