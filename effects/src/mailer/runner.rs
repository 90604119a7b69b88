//! The mailer's loop, on the node that holds its cursor.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dispatcher::{Context, DispatchError, Dispatcher, Reads, Work};
use domain::app::App;
use domain::delivery::{Delivery, DeliveryError, DeliveryEvent, FailureReason, Outcome};
use domain::mail::{Mail, MailKind, asks_for_mail, mails_of};
use domain::user::{Client, User};
use domain::{Event, EventId, Timestamp};
use event_store::{Clock, Journal, Repository, StoreError};
use schemas::RecordedEvent;
use tasks::End;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backlog::Backlog;
use super::compose::Composer;
use super::failed::{Failed, unless_damaged, unless_it_panics, unless_unreadable};
use super::lists::{MailRef, WAITING, count_given_up};
use super::transport::{MailTransport, Unsent};
use super::{BATCH, EFFECT, GATHER, MailerSettings, compose};
use crate::cursor::{
    Claimant, EffectStatus, Ending, FIRST_PAUSE, HeldCursor, Interruptions, LONGEST_PAUSE, Stop, because_of,
};
use crate::handle::Perform;

pub(super) struct Runner {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) repository: Arc<Repository>,
    pub(super) dispatcher: Dispatcher,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) composer: Composer,
    pub(super) post: MailTransport,
    pub(super) settings: MailerSettings,
    pub(super) status: watch::Sender<EffectStatus>,
    pub(super) ending: Ending,
    /// Until when an unreachable mail server is not contacted.
    pub(super) stand_back: Option<Instant>,
    /// The length of the next such pause.
    pub(super) pause: Duration,
}

/// The state while the cursor is held.
struct Held {
    pub(super) cursor: HeldCursor,
    pub(super) backlog: Backlog,
    /// The mails waiting for a retry, by time.
    pub(super) waiting: BTreeSet<(Timestamp, MailRef)>,
    pub(super) failed: usize,
}

impl Perform for Runner {
    const NAME: &'static str = "mailer";
    const LAST: Duration = Duration::from_secs(3);
    const CUT_OFF: &'static str = "a mail was still in progress: if it was sent, it will be sent again";

    async fn run(&mut self) -> End {
        let mut interruptions = Interruptions::of(Self::NAME);
        loop {
            let stop = self.work().await;
            if matches!(stop, Stop::Lost) {
                // The other node reports them.
                metrics::gauge!("watchword_mail_waiting").set(0.0);
                metrics::gauge!("watchword_mail_failed").set(0.0);
            }
            if let Some(end) = interruptions.after(stop, &self.status, &self.ending).await {
                return end;
            }
        }
    }
}

impl Runner {
    /// Takes the cursor, and sends for as long as possible.
    async fn work(&mut self) -> Stop {
        let mut held = match self.take().await {
            Ok(held) => held,
            Err(stop) => return stop,
        };
        let Err(stop) = self.follow(&mut held).await;
        if matches!(stop, Stop::Ending) {
            held.cursor.let_go().await;
        }
        stop
    }

    /// Waits until no other node holds the cursor.
    async fn take(&mut self) -> Result<Held, Stop> {
        let claimant = Claimant {
            journal: &self.journal,
            effect: EFFECT,
            node: &self.settings.node,
            lease: self.settings.lease,
            status: &self.status,
            ending: &self.ending,
        };
        let cursor = claimant.take().await?;
        let position = cursor.position();
        let backlog = Backlog::after(position);
        let mut held = Held { cursor, backlog, waiting: BTreeSet::new(), failed: 0 };
        self.load_lists(&mut held).await?;
        tracing::info!(position, waiting = held.waiting.len(), "this node sends the mails");
        Ok(held)
    }

    async fn follow(&mut self, held: &mut Held) -> Result<std::convert::Infallible, Stop> {
        let mut journal_head = self.journal.watch_head();
        loop {
            held.cursor.renew().await?;
            let newest = *journal_head.borrow_and_update();
            let has_looked = self.look_ahead(held, newest).await?;
            let next = held.backlog.next();
            if let Some(position) = next {
                unless_unreadable(position, Box::pin(self.handle(held, position))).await?;
                held.backlog.done(position);
            }
            held.cursor.set_position(held.backlog.position());
            // Alternately, so that neither new mails nor retries wait for all of the others.
            let tried = self.try_again(held).await?;
            held.cursor.keep().await?;
            self.report(held, newest);
            if !has_looked && next.is_none() && !tried {
                let next = self.next_look(held);
                tokio::select! {
                    changed = journal_head.changed() => {
                        changed.map_err(|_| StoreError::Unavailable("the journal was closed".into()))?;
                        self.ending.sleep(Instant::now() + GATHER).await?;
                    }
                    slept = self.ending.sleep(next) => slept?,
                }
            }
        }
    }

    /// When there is something to do even without a new event.
    fn next_look(&self, held: &Held) -> Instant {
        let mut next = held.cursor.next_look();
        if let Some((due, _)) = held.waiting.first() {
            let wait = due.duration_since(self.clock.now());
            next = next.min(Instant::now() + Duration::try_from(wait).unwrap_or_default());
        }
        next
    }

    /// Finds more events that request mails. Returns whether there were more events.
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
                unless_unreadable(recorded.position, self.hear(held, recorded)).await?;
            }
            let asks = asks_for_mail(&recorded.name).then_some(&recorded.metadata.app_id);
            held.backlog.look(recorded.position, asks);
        }
        Ok(!events.is_empty())
    }

    /// A retry may have been requested.
    async fn hear(&mut self, held: &mut Held, recorded: &RecordedEvent) -> Result<(), Stop> {
        if let Event::Delivery(DeliveryEvent::MailFailed(failed)) = self.repository.decode(recorded).await?
            && failed.asked_again
        {
            self.load_lists(held).await?;
        }
        Ok(())
    }

    /// Sends the mails that an event requests.
    async fn handle(&mut self, held: &mut Held, position: u64) -> Result<(), Stop> {
        let events = self.journal.read_positions(&[position]).await?;
        let Some(recorded) = events.first() else { return Ok(()) };
        let event = self.repository.decode(recorded).await?;
        for mail in mails_of(&event) {
            self.attempt(held, recorded, &event, &mail).await?;
        }
        Ok(())
    }

    /// Sends the mail with the earliest retry time, if it is due. False if none is.
    async fn try_again(&mut self, held: &mut Held) -> Result<bool, Stop> {
        let now = self.clock.now();
        if held.waiting.first().is_none_or(|(due, _)| now < *due) {
            return Ok(false);
        }
        let Some((_, mail_ref)) = held.waiting.pop_first() else { return Ok(false) };
        unless_unreadable(mail_ref.position, Box::pin(self.attempt_again(held, mail_ref))).await?;
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
            self.record(held, recorded, &mail, Err(Unsent::not_made("the recipient was erased"))).await?;
        }
        Ok(())
    }

    /// Sends a mail, unless it was sent or is not due.
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
            // Its retry was postponed meanwhile, by another node or because the clock was set back.
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
            let sending = async {
                match self.composer.compose(recorded, event, mail, &app.state, &user.state) {
                    Ok(letter) => {
                        fail::fail_point!("before-mail", |_| std::process::abort());
                        let sent = self.send(held, mail.kind, &letter).await?;
                        fail::fail_point!("after-mail", |_| std::process::abort());
                        Ok(sent)
                    }
                    Err(unsent) => Ok(Err(unsent)),
                }
            };
            unless_it_panics(Box::pin(sending)).await?
        };
        let mail = Failed { user_id: mail.user_id, kind: mail.kind, useless_after: mail.expires_at };
        self.record(held, recorded, &mail, outcome).await
    }

    /// Waits until the mail server may be contacted again, and renews the lease meanwhile.
    async fn stand_back(&mut self, held: &mut Held) -> Result<(), Stop> {
        while let Some(until) = self.stand_back.filter(|until| Instant::now() < *until) {
            let slice = Instant::now() + self.settings.lease / 3;
            self.ending.sleep(until.min(slice)).await?;
            held.cursor.renew().await?;
        }
        self.stand_back = None;
        self.ending.require_going_on()?;
        held.cursor.renew().await
    }

    /// Sends, and renews the lease meanwhile, however long the mail server takes.
    async fn send(
        &mut self,
        held: &mut Held,
        kind: MailKind,
        letter: &compose::Letter,
    ) -> Result<Result<(), Unsent>, Stop> {
        let started = Instant::now();
        held.cursor.renew().await?;
        let sent = {
            let mut sending = pin!(self.post.send(letter));
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    () = tokio::time::sleep(self.settings.lease / 6) => {
                        // A journal that is briefly unavailable is no reason to abort a mail halfway.
                        if let Err(stop @ (Stop::Lost | Stop::Ending)) = held.cursor.renew().await {
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
            // The server is reachable.
            Err(_) => self.pause = FIRST_PAUSE,
        }
        Ok(sent)
    }

    /// Records the outcome of a mail. Nothing else is done before: a sent mail without a record would be sent again.
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
            let context = Context {
                metadata: because_of(recorded),
                client: Client::default(),
                at,
                idempotency: None,
                is_first: false,
            };
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
                    tracing::error!(%refusal, event = %id, "the outcome of a mail was not recorded");
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(%error, event = %id, "the outcome of a mail cannot be recorded yet");
                    self.ending.sleep(Instant::now() + pause).await?;
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

    #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53")]
    fn report(&self, held: &Held, newest: u64) {
        let position = held.cursor.position();
        let (waiting, failed) = (held.waiting.len(), held.failed);
        metrics::gauge!("watchword_mail_position").set(position as f64);
        metrics::gauge!("watchword_mail_lag").set(newest.saturating_sub(position) as f64);
        metrics::gauge!("watchword_mail_waiting").set(waiting as f64);
        metrics::gauge!("watchword_mail_failed").set(failed as f64);
        let status = EffectStatus { state: "running", position, waiting, failed, error: None };
        self.status.send_if_modified(|before| std::mem::replace(before, status.clone()) != status);
    }
}
