//! The mailer: sends the mails that events ask for ([`domain::mail`]), each once.
//!
//! It is an effect and no projection. Its cursor is kept beside the journal and starts at the newest event, so that neither a
//! replay nor a rebuild sends anything; and one node at a time holds it. What became of a mail is an event itself: `MailSent`
//! or `MailFailed`, on a stream that has the id of the event that asked for it. Before a mail is sent that stream is loaded,
//! and one mail is under way at a time. So what a crash, a lost lease or a lost answer can repeat is one mail: the same one, as
//! everything in it follows from the event.
//!
//! A mail that fails waits for its next turn ([`domain::delivery::DeliveryPolicy`]) while others go on; what was given up
//! stays listed until somebody asks for it to be tried again. The two lists are claims in the journal: they change in the same
//! append as the outcome does, and no read model has to have caught up. A mail server that cannot be reached gets pauses that
//! grow, in which no mail uses up its tries. There is no jitter in all that: one sender, with one mail at a time, is no herd.

mod backlog;
mod compose;
mod headers;
mod links;
mod lists;
mod post;
mod words;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::app::App;
use domain::delivery::{Delivery, DeliveryCommand, DeliveryError, DeliveryEvent, FailureReason, Outcome};
use domain::mail::{Mail, MailKind, asks_for_mail, mails_of};
use domain::user::{Client, User};
use domain::{Event, EventId, Timestamp, UserId};
use event_store::{Clock, Cursor, Journal, Repository, StoreError};
use schemas::RecordedEvent;
use schemas::envelope::{Actor, Metadata};
use tokens::{AccessTokens, DerivedTokens};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use domain::delivery::DeliveryPolicy;

use self::backlog::Backlog;
use self::compose::Composer;
use self::lists::WAITING;
pub use self::lists::count_given_up;
pub use self::lists::{MailRef, given_up, kind};
use self::post::Unsent;
pub use self::post::{InvalidMailUrl, MailServer, MailTransport, MailUrl, Patience};
pub use self::words::{account_made, disown_title};
use crate::senders::Senders;
use dispatcher::{Context, DispatchError, Dispatcher, Reads, Work};

/// The name of its cursor, for ever.
const EFFECT: &str = "mail";
/// How many events are read at once.
const BATCH: usize = 200;
/// How long events may gather before they are looked at: a mail is no faster for less.
const GATHER: Duration = Duration::from_millis(50);
/// How often the cursor is written where nothing else makes it necessary. What it is behind is read again after a crash, and
/// found to be done.
const KEEP: Duration = Duration::from_secs(5);
/// The pauses after the mail server could not be reached, and after the journal could not.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest that a store which was away goes unasked.
const LONGEST_ABSENCE: Duration = Duration::from_secs(2);
/// How long the last mail may take when the mailer is to end.
const LAST_MAIL: Duration = Duration::from_secs(3);

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct MailerSettings {
    /// The name of this node; no two may have the same.
    pub node: String,
    /// After how long another node takes over from one that is not heard of. Longer than a mail may take.
    pub lease: Duration,
    /// How often a mail is tried, and how long to wait between.
    pub policy: DeliveryPolicy,
    /// Whom mails may come from.
    pub senders: Senders,
}

impl MailerSettings {
    /// The lease of a node: longer than the [`MailTransport`] waits for a mail server.
    pub const LEASE: Duration = Duration::from_secs(30);
}

/// What the mailer works with.
pub struct MailerParts {
    /// Aggregates and events.
    pub repository: Arc<Repository>,
    /// Records what became of mails.
    pub dispatcher: Dispatcher,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Derives what the links prove.
    pub tokens: DerivedTokens,
    /// Knows where links lead.
    pub access_tokens: Arc<AccessTokens>,
    /// Takes the mails.
    pub post: MailTransport,
    /// What the operator chose.
    pub settings: MailerSettings,
}

/// Where the mailer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailerStatus {
    /// `starting`, `running`, `standby` (another node sends) or `interrupted` (it tries again by itself).
    pub state: &'static str,
    /// The position of the last event that it is done with, as far as this node knows.
    pub position: u64,
    /// How many mails wait for another try.
    pub waiting: usize,
    /// How many were given up.
    pub failed: usize,
    /// What is wrong.
    pub error: Option<String>,
}

/// Sends until it is shut down.
pub struct Mailer {
    status: watch::Receiver<MailerStatus>,
    ending: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Mailer {
    /// Starts sending.
    pub fn start(parts: MailerParts) -> Self {
        let MailerParts { repository, dispatcher, clock, tokens, access_tokens, post, settings } = parts;
        let starting = MailerStatus { state: "starting", position: 0, waiting: 0, failed: 0, error: None };
        let (status, seen) = watch::channel(starting);
        let ending = watch::Sender::new(false);
        let runner = Runner {
            journal: Arc::clone(repository.journal()),
            composer: Composer {
                tokens,
                access_tokens,
                senders: settings.senders.clone(),
                told: Mutex::default(),
            },
            repository,
            dispatcher,
            clock,
            post,
            settings,
            status,
            ending: ending.subscribe(),
            stand_back: None,
            pause: FIRST_PAUSE,
        };
        Self { status: seen, ending, task: Mutex::new(Some(tokio::spawn(runner.run()))) }
    }

    /// Where it stands.
    pub fn status(&self) -> MailerStatus {
        self.status.borrow().clone()
    }

    /// Stops it, after the mail that is under way; but a mail server that does not answer is not waited for.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().expect("no holder panics").take();
        if let Some(mut task) = task {
            // A mailer that panicked has nothing left to finish.
            if tokio::time::timeout(LAST_MAIL, &mut task).await.is_err() {
                tracing::warn!("a mail was still under way: should it have gone out, it goes out once more");
                task.abort();
                let _ = task.await;
            }
        }
    }
}

/// Makes the cursor where there is none yet. What is asked for from then on is sent, be it by another process that comes later.
pub async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    journal.hold_cursor(EFFECT, "nobody", Duration::ZERO).await.map(|_| ())
}

/// The position of the last event that the mailer was done with when it last wrote that down, whichever node that was.
pub async fn position(journal: &dyn Journal) -> Result<Option<u64>, StoreError> {
    journal.cursor_position(EFFECT).await
}

struct Runner {
    journal: Arc<dyn Journal>,
    repository: Arc<Repository>,
    dispatcher: Dispatcher,
    clock: Arc<dyn Clock>,
    composer: Composer,
    post: MailTransport,
    settings: MailerSettings,
    status: watch::Sender<MailerStatus>,
    ending: watch::Receiver<bool>,
    /// Until when a mail server that could not be reached is left alone.
    stand_back: Option<Instant>,
    /// How long it is left alone the next time.
    pause: Duration,
}

/// Why it does not go on for now.
enum Stop {
    /// It was told to end.
    Ending,
    /// Another node sends now.
    Lost,
    /// The journal cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What is known while the cursor is held.
struct Held {
    /// Everything up to it is done. Of what is behind it, some may be.
    cursor: Cursor,
    backlog: Backlog,
    renewed: Instant,
    /// The position that is stored, and when that was.
    kept: (u64, Instant),
    /// The mails that are tried again, by when.
    waiting: BTreeSet<(Timestamp, MailRef)>,
    failed: usize,
}

impl Runner {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.work().await {
                Stop::Ending => return,
                Stop::Lost => {
                    tracing::info!("another node sends mails now");
                    // The other node tells them.
                    metrics::gauge!("watchword_mail_waiting").set(0.0);
                    metrics::gauge!("watchword_mail_failed").set(0.0);
                    pause = FIRST_PAUSE;
                }
                Stop::Store(error) => {
                    // A store that is away is asked for often, so that mails go out when it is back, and told of once.
                    let is_away = matches!(error, StoreError::Unavailable(_));
                    if is_away && self.status.borrow().state == "interrupted" {
                        tracing::debug!(%error, "the mailer is still interrupted");
                    } else {
                        tracing::error!(%error, "the mailer is interrupted");
                    }
                    self.status.send_modify(|status| {
                        status.state = "interrupted";
                        status.error = Some(error.to_string());
                    });
                    if self.sleep(Instant::now() + pause).await.is_err() {
                        return;
                    }
                    pause = (pause * 2).min(if is_away { LONGEST_ABSENCE } else { LONGEST_PAUSE });
                }
            }
        }
    }

    /// Takes the cursor, and sends for as long as it can.
    async fn work(&mut self) -> Stop {
        let mut held = match self.take().await {
            Ok(held) => held,
            Err(stop) => return stop,
        };
        let Err(stop) = self.follow(&mut held).await;
        if matches!(stop, Stop::Ending) {
            // Whoever comes next finds out by itself what this would tell it.
            let _ = self.journal.move_cursor(EFFECT, held.cursor).await;
            let _ = self.journal.release_cursor(EFFECT, held.cursor).await;
        }
        stop
    }

    /// Waits until nobody else holds the cursor.
    async fn take(&mut self) -> Result<Held, Stop> {
        loop {
            self.require_going_on()?;
            let renewed = Instant::now();
            let taken = self.journal.hold_cursor(EFFECT, &self.settings.node, self.settings.lease).await?;
            let Some(mut cursor) = taken else {
                self.status.send_modify(|status| (status.state, status.error) = ("standby", None));
                self.sleep(renewed + self.settings.lease / 3).await?;
                continue;
            };
            let newest = self.journal.head().await?;
            if cursor.position > newest {
                tracing::warn!(
                    position = cursor.position,
                    newest,
                    "the journal is an older one: what is in it is not mailed"
                );
                cursor.position = newest;
            }
            let kept = (cursor.position, renewed);
            let backlog = Backlog::after(cursor.position);
            let mut held = Held { cursor, backlog, renewed, kept, waiting: BTreeSet::new(), failed: 0 };
            self.load_lists(&mut held).await?;
            tracing::info!(
                position = cursor.position,
                waiting = held.waiting.len(),
                "mails are sent by this node"
            );
            return Ok(held);
        }
    }

    async fn follow(&mut self, held: &mut Held) -> Result<std::convert::Infallible, Stop> {
        let mut journal_head = self.journal.watch_head();
        loop {
            self.renew(held).await?;
            let newest = *journal_head.borrow_and_update();
            let has_looked = self.look_ahead(held, newest).await?;
            let next = held.backlog.next();
            if let Some(position) = next {
                unless_damaged(position, self.handle(held, position).await)?;
                held.backlog.done(position);
            }
            held.cursor.position = held.backlog.position();
            // In turns: neither new mails nor old ones wait for all of the others.
            let tried = self.try_again(held).await?;
            self.keep(held).await?;
            self.report(held, newest);
            if !has_looked && next.is_none() && !tried {
                let next = self.next_look(held);
                tokio::select! {
                    changed = journal_head.changed() => {
                        changed.map_err(|_| StoreError::Unavailable("the journal was closed".to_owned()))?;
                        self.sleep(Instant::now() + GATHER).await?;
                    }
                    slept = self.sleep(next) => slept?,
                }
            }
        }
    }

    /// When there is something to do even if no event comes.
    fn next_look(&self, held: &Held) -> Instant {
        let now = Instant::now();
        let mut next = held.renewed + self.settings.lease / 3;
        if held.cursor.position > held.kept.0 {
            next = next.min(held.kept.1 + KEEP);
        }
        if let Some((due, _)) = held.waiting.first() {
            let wait = due.duration_since(self.clock.now());
            next = next.min(now + Duration::try_from(wait).unwrap_or_default());
        }
        next
    }

    /// Finds more events that ask for mails: whether there were more events.
    async fn look_ahead(&mut self, held: &mut Held, newest: u64) -> Result<bool, Stop> {
        let after = held.backlog.looked_at();
        if newest <= after || !held.backlog.has_room() {
            return Ok(false);
        }
        let read = self.journal.read_all(after, BATCH).await.map_err(Stop::from);
        let Some(events) = unless_damaged(after + 1, read)? else {
            held.backlog.look(after + 1, None);
            return Ok(true);
        };
        for recorded in &events {
            if recorded.name == "MailFailed" {
                let heard = self.hear(held, recorded).await;
                unless_damaged(recorded.position, heard)?;
            }
            let asks = asks_for_mail(&recorded.name).then_some(&recorded.metadata.app_id);
            held.backlog.look(recorded.position, asks);
        }
        Ok(!events.is_empty())
    }

    /// Somebody may have asked for a mail to be tried again.
    async fn hear(&mut self, held: &mut Held, recorded: &RecordedEvent) -> Result<(), Stop> {
        if let Event::Delivery(DeliveryEvent::MailFailed(failed)) = self.repository.decode(recorded).await?
            && failed.asked_again
        {
            self.load_lists(held).await?;
        }
        Ok(())
    }

    /// Sends the mails that an event asks for.
    async fn handle(&mut self, held: &mut Held, position: u64) -> Result<(), Stop> {
        let events = self.journal.read_positions(&[position]).await?;
        let Some(recorded) = events.first() else { return Ok(()) };
        let event = self.repository.decode(recorded).await?;
        for mail in mails_of(&event) {
            self.attempt(held, recorded, &event, &mail).await?;
        }
        Ok(())
    }

    /// Sends the mail that has waited longest, if its time has come. False if there is none.
    async fn try_again(&mut self, held: &mut Held) -> Result<bool, Stop> {
        let now = self.clock.now();
        if held.waiting.first().is_none_or(|(due, _)| now < *due) {
            return Ok(false);
        }
        let Some((_, mail_ref)) = held.waiting.pop_first() else { return Ok(false) };
        unless_damaged(mail_ref.position, self.attempt_again(held, mail_ref).await)?;
        Ok(true)
    }

    async fn attempt_again(&mut self, held: &mut Held, mail_ref: MailRef) -> Result<(), Stop> {
        let events = self.journal.read_positions(&[mail_ref.position]).await?;
        let Some(recorded) = events.first() else { return Ok(()) };
        let event = self.repository.decode(recorded).await?;
        if let Some(mail) = mails_of(&event).iter().find(|mail| mail.kind == mail_ref.kind) {
            self.attempt(held, recorded, &event, mail).await?;
        } else if let Some(user_id) = event.person() {
            // The person was erased since.
            let mail = Failed { user_id, kind: mail_ref.kind, useless_after: None };
            self.record(held, recorded, &mail, Err(Unsent::not_made("nobody is there to get it"))).await?;
        }
        Ok(())
    }

    /// Sends a mail, unless it was sent or its time has not come.
    async fn attempt(
        &mut self,
        held: &mut Held,
        recorded: &RecordedEvent,
        event: &Event,
        mail: &Mail,
    ) -> Result<(), Stop> {
        self.stand_back(held).await?;
        let delivery = self.repository.load::<Delivery>(&EventId(recorded.id)).await?;
        let now = self.clock.now();
        if !delivery.state.is_due(mail.kind, now) {
            // Its time was put off meanwhile: by another node, or by a clock that was set back.
            if let Some(Outcome::Waits(until)) = delivery.state.outcome(mail.kind) {
                held.waiting.insert((until, MailRef { position: recorded.position, kind: mail.kind }));
            }
            return Ok(());
        }
        let outcome = if mail.expires_at.is_some_and(|end| now >= end) {
            Err(Unsent::expired())
        } else {
            let app = self.repository.load::<App>(&recorded.metadata.app_id).await?;
            let user = self.repository.load::<User>(&mail.user_id).await?;
            match self.composer.compose(recorded, event, mail, &app.state, &user.state) {
                Ok(letter) => {
                    fail::fail_point!("before-mail", |_| std::process::abort());
                    let sent = self.send(held, mail.kind, &letter).await?;
                    fail::fail_point!("after-mail", |_| std::process::abort());
                    sent
                }
                Err(unsent) => Err(unsent),
            }
        };
        let mail = Failed { user_id: mail.user_id, kind: mail.kind, useless_after: mail.expires_at };
        self.record(held, recorded, &mail, outcome).await
    }

    /// Waits while the mail server is left alone, and makes sure that nobody else sends meanwhile or soon.
    async fn stand_back(&mut self, held: &mut Held) -> Result<(), Stop> {
        while let Some(until) = self.stand_back.filter(|until| Instant::now() < *until) {
            let slice = Instant::now() + self.settings.lease / 3;
            self.sleep(until.min(slice)).await?;
            self.renew(held).await?;
        }
        self.stand_back = None;
        self.require_going_on()?;
        self.renew(held).await
    }

    /// Sends, and makes sure that nobody else does meanwhile, however long the mail server takes.
    async fn send(
        &mut self,
        held: &mut Held,
        kind: MailKind,
        letter: &compose::Letter,
    ) -> Result<Result<(), Unsent>, Stop> {
        let started = Instant::now();
        self.renew(held).await?;
        let sent = {
            let mut sending = pin!(self.post.send(letter));
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    () = tokio::time::sleep(self.settings.lease / 6) => {
                        // A journal that is away for a moment is no reason to leave a mail half said.
                        if let Err(stop @ (Stop::Lost | Stop::Ending)) = self.renew(held).await {
                            return Err(stop);
                        }
                    }
                }
            }
        };
        metrics::histogram!("watchword_mail_send_seconds").record(started.elapsed().as_secs_f64());
        match &sent {
            Ok(()) => {
                tracing::debug!(mail = kind.as_str(), "a mail was sent");
                self.pause = FIRST_PAUSE;
            }
            Err(unsent) if unsent.reason == FailureReason::Unreachable => {
                self.stand_back = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
            // The server is there.
            Err(_) => self.pause = FIRST_PAUSE,
        }
        Ok(sent)
    }

    /// Writes down what became of a mail. Nothing else is done before: what was sent and is not known to have been would be
    /// sent again.
    async fn record(
        &mut self,
        held: &mut Held,
        recorded: &RecordedEvent,
        mail: &Failed,
        outcome: Result<(), Unsent>,
    ) -> Result<(), Stop> {
        let id = EventId(recorded.id);
        let mail_ref = MailRef { position: recorded.position, kind: mail.kind };
        let kind = mail.kind.as_str();
        match &outcome {
            Ok(()) => metrics::counter!("watchword_mail_sent_total", "mail" => kind).increment(1),
            Err(unsent) => {
                let reason = unsent.reason.as_str();
                let detail = &unsent.detail;
                tracing::warn!(mail = kind, event = %id, reason, code = unsent.code, detail, "a mail was not sent");
                metrics::counter!("watchword_mail_failures_total", "reason" => reason).increment(1);
            }
        }
        let mut pause = Duration::from_millis(100);
        loop {
            let at = self.clock.now();
            let command = mail.command(id, &outcome, self.settings.policy, at);
            let (reads, delivery) = Reads::one::<Delivery>(&id);
            let decide = move |work: &mut Work| {
                work.execute(delivery, command.clone())?;
                work.is_about_mails_of(id, mail_ref.position);
                Ok::<_, DeliveryError>(work.get(delivery).outcome(mail_ref.kind))
            };
            let context =
                Context { metadata: because_of(recorded), client: Client::default(), at, idempotency: None };
            match self.dispatcher.run(context, reads, decide).await {
                Ok(committed) => {
                    match committed.value.flatten() {
                        Some(Outcome::Waits(until)) => {
                            held.waiting.insert((until, mail_ref));
                        }
                        Some(Outcome::GivenUp) => {
                            held.failed += 1;
                            metrics::counter!("watchword_mail_given_up_total", "mail" => kind).increment(1);
                            tracing::error!(mail = kind, event = %id, "a mail was given up");
                        }
                        Some(Outcome::Sent) | None => {}
                    }
                    return Ok(());
                }
                Err(DispatchError::Refused(refusal)) => {
                    tracing::error!(%refusal, event = %id, "what became of a mail was not recorded");
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, event = %id, "what became of a mail cannot be recorded yet");
                    self.sleep(Instant::now() + pause).await?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Reads the lists of mails from the journal.
    async fn load_lists(&self, held: &mut Held) -> Result<(), Stop> {
        held.waiting.clear();
        for (claim, owner) in self.journal.claims(WAITING, "").await? {
            let (Some(mail_ref), Some(id)) = (MailRef::of(&claim), owner.uuid()) else { continue };
            let delivery = self.repository.load::<Delivery>(&EventId(id)).await.map_err(Stop::from);
            let Some(delivery) = unless_damaged(mail_ref.position, delivery)? else { continue };
            if let Some(Outcome::Waits(until)) = delivery.state.outcome(mail_ref.kind) {
                held.waiting.insert((until, mail_ref));
            }
        }
        held.failed = count_given_up(&*self.journal).await?;
        Ok(())
    }

    /// Makes sure that nobody else sends for a good while.
    async fn renew(&self, held: &mut Held) -> Result<(), Stop> {
        if held.renewed.elapsed() < self.settings.lease / 6 {
            return Ok(());
        }
        let renewed = Instant::now();
        let cursor = self.journal.hold_cursor(EFFECT, &self.settings.node, self.settings.lease).await?;
        if cursor.is_none_or(|cursor| cursor.epoch != held.cursor.epoch) {
            return Err(Stop::Lost);
        }
        held.renewed = renewed;
        Ok(())
    }

    /// Stores where the cursor is, from time to time.
    async fn keep(&self, held: &mut Held) -> Result<(), Stop> {
        let (position, at) = held.kept;
        if held.cursor.position == position || at.elapsed() < KEEP {
            return Ok(());
        }
        if !self.journal.move_cursor(EFFECT, held.cursor).await? {
            return Err(Stop::Lost);
        }
        held.kept = (held.cursor.position, Instant::now());
        Ok(())
    }

    fn require_going_on(&self) -> Result<(), Stop> {
        if *self.ending.borrow() { Err(Stop::Ending) } else { Ok(()) }
    }

    async fn sleep(&self, until: Instant) -> Result<(), Stop> {
        let mut ending = self.ending.clone();
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(()),
            _ = ending.wait_for(|ending| *ending) => Err(Stop::Ending),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53")]
    fn report(&self, held: &Held, newest: u64) {
        let position = held.cursor.position;
        let (waiting, failed) = (held.waiting.len(), held.failed);
        metrics::gauge!("watchword_mail_position").set(position as f64);
        metrics::gauge!("watchword_mail_lag").set(newest.saturating_sub(position) as f64);
        metrics::gauge!("watchword_mail_waiting").set(waiting as f64);
        metrics::gauge!("watchword_mail_failed").set(failed as f64);
        let status = MailerStatus { state: "running", position, waiting, failed, error: None };
        self.status.send_if_modified(|before| std::mem::replace(before, status.clone()) != status);
    }
}

/// What cannot be read is passed over, counted and logged: the mails behind it must not wait until somebody mends the journal.
fn unless_damaged<T>(position: u64, outcome: Result<T, Stop>) -> Result<Option<T>, Stop> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Store(StoreError::Damaged(what))) => {
            tracing::error!(
                position,
                what,
                "what an event asks for, or its mails, cannot be read: no mail is sent"
            );
            metrics::counter!("watchword_mail_unreadable_total").increment(1);
            Ok(None)
        }
        Err(stop) => Err(stop),
    }
}

/// What is recorded of a mail besides how it went.
struct Failed {
    user_id: UserId,
    kind: MailKind,
    useless_after: Option<Timestamp>,
}

impl Failed {
    fn command(
        &self,
        event_id: EventId,
        outcome: &Result<(), Unsent>,
        policy: DeliveryPolicy,
        at: Timestamp,
    ) -> DeliveryCommand {
        let Self { user_id, kind: mail, useless_after } = *self;
        match outcome {
            Ok(()) => DeliveryCommand::RecordSent { event_id, user_id, mail, at },
            Err(Unsent { reason, code, .. }) => DeliveryCommand::RecordFailure {
                event_id,
                user_id,
                mail,
                reason: *reason,
                smtp_code: *code,
                policy,
                useless_after,
                at,
            },
        }
    }
}

/// The metadata of what follows from an event.
fn because_of(recorded: &RecordedEvent) -> Metadata {
    Metadata {
        app_id: recorded.metadata.app_id.clone(),
        actor: Actor::system(),
        correlation_id: recorded.metadata.correlation_id,
        causation_id: Some(recorded.id),
        request_id: None,
        traceparent: recorded.metadata.traceparent.clone(),
    }
}

#[cfg(test)]
mod tests;
