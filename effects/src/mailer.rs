//! The mailer: sends the mails that events request ([`domain::mail`]), each once.
//!
//! It is an effect, not a projection. Its cursor is kept beside the journal and starts at the newest event, so that neither a
//! replay nor a rebuild sends anything; only one node at a time holds it. The outcome of a mail is itself an event, `MailSent`
//! or `MailFailed`, on a stream named after the requesting event. That stream is loaded before a mail is sent, and one mail is
//! in progress at a time. So a crash, a lost lease or a lost answer can repeat at most one mail, and that mail is identical,
//! because its whole content follows from the event.
//!
//! A failed mail waits for its retry ([`domain::delivery::DeliveryPolicy`]) while others proceed; a mail that was given up
//! stays listed until a retry is requested. Both lists are claims in the journal: they change in the same append as the
//! outcome, and need no read model to catch up. If the mail server is unreachable, the mailer pauses for growing intervals, in
//! which no mail uses up attempts. There is no jitter: a single sender with one mail at a time causes no thundering herd.

mod backlog;
mod compose;
mod failed;
mod headers;
mod links;
mod lists;
mod runner;
mod transport;
mod url;
mod words;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatcher::Dispatcher;
pub use domain::delivery::DeliveryPolicy;
use event_store::{Clock, Journal, Repository, StoreError};
use tasks::{Task, Weight};
use tokens::{AccessTokens, DerivedTokens};
use tokio::sync::watch;

use self::compose::Composer;
pub use self::lists::{MailRef, count_given_up, given_up, kind};
use self::runner::Runner;
pub use self::transport::{MailServer, MailTransport, Patience};
pub use self::url::{InvalidMailUrl, MailUrl};
pub use self::words::{account_made, disown_title};
use crate::cursor::{EffectStatus, Ending, FIRST_PAUSE};
use crate::senders::Senders;

/// The name of its cursor. It never changes.
const EFFECT: &str = "mail";
/// How many events are read at once.
const BATCH: usize = 200;
/// How long events may gather before they are processed: a mail is not faster for less.
const GATHER: Duration = Duration::from_millis(50);
/// How long the last mail may take at shutdown.
const LAST_MAIL: Duration = Duration::from_secs(3);

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct MailerSettings {
    /// The unique name of this node.
    pub node: String,
    /// After how long another node takes over from a silent one. Longer than a mail may take.
    pub lease: Duration,
    /// How often a mail is tried, and the pauses in between.
    pub policy: DeliveryPolicy,
    /// The allowed senders.
    pub senders: Senders,
}

impl MailerSettings {
    /// The lease of a node: longer than the [`MailTransport`] waits for a mail server.
    pub const LEASE: Duration = Duration::from_secs(30);
}

/// The mailer's dependencies.
pub struct MailerParts {
    /// Aggregates and events.
    pub repository: Arc<Repository>,
    /// Records the outcome of mails.
    pub dispatcher: Dispatcher,
    /// The current time.
    pub clock: Arc<dyn Clock>,
    /// Derives the tokens in links.
    pub tokens: DerivedTokens,
    /// Knows the base of links.
    pub access_tokens: Arc<AccessTokens>,
    /// Delivers the mails.
    pub post: MailTransport,
    pub settings: MailerSettings,
}

/// Sends until it is shut down.
pub struct Mailer {
    status: watch::Receiver<EffectStatus>,
    ending: watch::Sender<bool>,
    task: Mutex<Option<Task>>,
}

impl Mailer {
    /// Starts sending.
    pub fn start(parts: MailerParts) -> Self {
        let MailerParts { repository, dispatcher, clock, tokens, access_tokens, post, settings } = parts;
        let (status, seen) = watch::channel(EffectStatus::STARTING);
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
            ending: Ending(ending.subscribe()),
            stand_back: None,
            pause: FIRST_PAUSE,
        };
        let runner = Arc::new(tokio::sync::Mutex::new(runner));
        let task = tasks::start("mailer", Weight::Usual, move || {
            let runner = Arc::clone(&runner);
            async move { runner.lock().await.run().await }
        });
        Self { status: seen, ending, task: Mutex::new(Some(task)) }
    }

    /// Its state.
    pub fn status(&self) -> EffectStatus {
        self.status.borrow().clone()
    }

    /// Stops it after the mail in progress, but does not wait for an unresponsive mail server.
    pub async fn shutdown(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().expect("no holder panics").take();
        if let Some(mut task) = task
            && tokio::time::timeout(LAST_MAIL, task.ended()).await.is_err()
        {
            tracing::warn!("a mail was still in progress: if it was sent, it will be sent again");
            task.abort();
            task.ended().await;
        }
    }
}

/// Creates the cursor if there is none yet. Mails requested from then on are sent, even by a process that starts later.
/// Otherwise this writes nothing, so that a start does not wait for a database that takes no writes for a while.
pub async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    if position(journal).await?.is_some() {
        return Ok(());
    }
    journal.hold_cursor(EFFECT, "nobody", Duration::ZERO).await.map(|_| ())
}

/// The position of the last event that the mailer had finished when the cursor was last stored, on whichever node.
pub async fn position(journal: &dyn Journal) -> Result<Option<u64>, StoreError> {
    journal.cursor_position(EFFECT).await
}

#[cfg(test)]
mod tests;
