//! Claims: names that at most one stream holds at any position in the log, such as an address within an app.
//!
//! They follow from events. Each aggregate says what its events do to them ([`Claiming`]); an append takes and releases
//! claims accordingly, and a reader of the log computes the same again.

use std::fmt;

use jiff::Timestamp;

use crate::app_id::AppId;
use crate::email::Email;
use crate::ids::{EventId, SessionId, UserId};
use crate::mail::MailKind;
use crate::organization::Slug;
use crate::webhook::WebhookId;

/// What is claimed. The name under which a journal keeps it must hold no personal data, so the holder of the keys makes
/// that name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub enum Claimed {
    /// The id of an app: together they are the list of all apps.
    App(AppId),
    /// An address within an app, which keeps it to one account.
    Email {
        app_id: AppId,
        /// The address; absent once it is no longer readable.
        email: Option<Email>,
    },
    /// A place in the list of erased persons, so that a crash between the event and the end of a person's key does not
    /// leave the key.
    Erased(UserId),
    /// The place of the newest magic link to an address.
    MagicLink {
        app_id: AppId,
        /// The address; absent once it is no longer readable.
        email: Option<Email>,
    },
    /// A place in the list of mails that were given up.
    MailFailed(EventId, MailKind),
    /// A place in the list of mails that are tried again.
    MailWaiting(EventId, MailKind),
    /// The origin of the journal's events.
    Origin,
    /// A place in the list of a user's sessions.
    Session { user_id: UserId, session_id: SessionId },
    /// The name of an organization in URLs, which is its own within an app.
    Slug { app_id: AppId, slug: Slug },
    /// A place in the list of an app's webhooks.
    Webhook { app_id: AppId, webhook_id: WebhookId },
    /// A place in the list of the events, by their positions, that a webhook did not accept and is sent no more.
    WebhookFailed(WebhookId, u64),
    /// A place in the list of the events that a webhook is sent again.
    WebhookWaiting(WebhookId, u64),
}

impl Claimed {
    /// Its kind.
    pub fn kind(&self) -> ClaimKind {
        match self {
            Self::App(_) => ClaimKind::App,
            Self::Email { .. } => ClaimKind::Email,
            Self::Erased(_) => ClaimKind::Erased,
            Self::MagicLink { .. } => ClaimKind::MagicLink,
            Self::MailFailed(..) => ClaimKind::MailFailed,
            Self::MailWaiting(..) => ClaimKind::MailWaiting,
            Self::Origin => ClaimKind::Journal,
            Self::Session { .. } => ClaimKind::Session,
            Self::Slug { .. } => ClaimKind::Slug,
            Self::Webhook { .. } => ClaimKind::Webhook,
            Self::WebhookFailed(..) => ClaimKind::WebhookFailed,
            Self::WebhookWaiting(..) => ClaimKind::WebhookWaiting,
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $Kind:ident = $name:literal),+ $(,)?) => {
        /// A kind of claim. Claims of different kinds never conflict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ClaimKind {
            $($(#[$doc])* $Kind),+
        }

        impl ClaimKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$Kind),+];

            /// The name it is stored under, which never changes.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$Kind => $name),+
                }
            }
        }
    };
}

kinds! {
    /// [`Claimed::App`].
    App = "app",
    /// [`Claimed::Email`].
    Email = "email",
    /// [`Claimed::Erased`].
    Erased = "erased",
    /// [`Claimed::Origin`].
    Journal = "journal",
    /// [`Claimed::MagicLink`].
    MagicLink = "magic_link",
    /// [`Claimed::MailFailed`].
    MailFailed = "mail_failed",
    /// [`Claimed::MailWaiting`].
    MailWaiting = "mail_waiting",
    /// [`Claimed::Session`].
    Session = "session",
    /// [`Claimed::Slug`].
    Slug = "slug",
    /// [`Claimed::Webhook`].
    Webhook = "webhook",
    /// [`Claimed::WebhookFailed`].
    WebhookFailed = "webhook_failed",
    /// [`Claimed::WebhookWaiting`].
    WebhookWaiting = "webhook_waiting",
}

impl fmt::Display for ClaimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an event does to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimChange {
    /// The event's stream takes it. If another stream holds it, the event cannot be appended.
    Take(Claimed),
    /// The event's stream takes it until a time, after which it may be released without an event.
    TakeUntil(Claimed, Timestamp),
    /// The stream that holds it extends that time.
    Extend(Claimed, Timestamp),
    /// The stream that holds it, whichever it is, releases it.
    Release(Claimed),
}

/// Events that say what they do to claims. Those of an aggregate without claims say nothing.
pub trait Claiming {
    /// What the event does to claims, in order. `held` is what its stream held before.
    fn claims(&self, _held: &Holding) -> Vec<ClaimChange> {
        vec![]
    }
}

/// A claim that a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields' names say what they hold")]
pub struct Held {
    pub claimed: Claimed,
    /// When it may be released without an event, if ever.
    pub until: Option<Timestamp>,
}

/// The claims that one stream holds by its own events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding(Vec<Held>);

impl Holding {
    /// Applies the next event of the stream, and returns what it does to claims, its own and those of others.
    pub fn see(&mut self, event: &impl Claiming) -> Vec<ClaimChange> {
        let changes = event.claims(self);
        for change in &changes {
            match change {
                ClaimChange::Take(claimed) => self.take(claimed, None),
                ClaimChange::TakeUntil(claimed, until) => self.take(claimed, Some(*until)),
                ClaimChange::Extend(claimed, until) => {
                    if let Some(held) = self.0.iter_mut().find(|held| held.claimed == *claimed) {
                        held.until = Some(*until);
                    }
                }
                ClaimChange::Release(claimed) => self.0.retain(|held| held.claimed != *claimed),
            }
        }
        changes
    }

    /// All claims held.
    pub fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }

    /// The claims of a kind.
    pub fn of(&self, kind: ClaimKind) -> impl Iterator<Item = &Claimed> {
        self.0.iter().map(|held| &held.claimed).filter(move |claimed| claimed.kind() == kind)
    }

    /// Whether no claim is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, claimed: &Claimed, until: Option<Timestamp>) {
        self.0.retain(|held| held.claimed != *claimed);
        self.0.push(Held { claimed: claimed.clone(), until });
    }
}

impl FromIterator<Claimed> for Holding {
    fn from_iter<I: IntoIterator<Item = Claimed>>(claimed: I) -> Self {
        Self(claimed.into_iter().map(|claimed| Held { claimed, until: None }).collect())
    }
}

#[cfg(test)]
mod tests;
