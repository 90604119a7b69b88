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
use tokens::{AccessTokens, DerivedTokens};

use self::compose::Composer;
pub use self::lists::{MailRef, count_given_up, given_up, kind};
use self::runner::Runner;
pub use self::transport::{MailServer, MailTransport, Patience};
pub use self::url::{InvalidMailUrl, MailUrl};
pub use self::words::{account_made, disown_title};
use crate::cursor::FIRST_PAUSE;
use crate::handle::{self, Effect};
use crate::senders::Senders;

/// The name of its cursor. It never changes.
const EFFECT: &str = "mail";
/// How many events are read at once.
const BATCH: usize = 200;
/// How long events may gather before they are processed: a mail is not faster for less.
const GATHER: Duration = Duration::from_millis(50);

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

/// Starts sending.
pub fn start(parts: MailerParts) -> Effect {
    let MailerParts { repository, dispatcher, clock, tokens, access_tokens, post, settings } = parts;
    Effect::start(|status, ending| Runner {
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
        ending,
        stand_back: None,
        pause: FIRST_PAUSE,
    })
}

/// Makes sure that mails requested from now on are sent.
pub async fn begin(journal: &dyn Journal) -> Result<(), StoreError> {
    handle::begin(journal, EFFECT).await
}

/// The position of the last event that the mailer had finished when the cursor was last stored, on whichever node.
pub async fn position(journal: &dyn Journal) -> Result<Option<u64>, StoreError> {
    journal.cursor_position(EFFECT).await
}

#[cfg(test)]
mod tests;
