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
use tokens::{AccessTokens, DerivedTokens};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::compose::Composer;
pub use self::lists::{MailRef, count_given_up, given_up, kind};
use self::runner::Runner;
pub use self::transport::{MailServer, MailTransport, Patience};
pub use self::url::{InvalidMailUrl, MailUrl};
pub use self::words::{account_made, disown_title};
use crate::senders::Senders;

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

#[cfg(test)]
mod tests;
