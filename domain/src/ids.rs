//! Identifiers. All are UUIDs (version 7, made by the caller's clock); each kind is a type of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A person's account in one app.
    UserId
);
id!(
    /// One login on one device: a chain of refresh tokens.
    SessionId
);
id!(
    /// A device that somebody has logged in with: what its token names. It is made from the login, and says nothing else.
    DeviceId
);
id!(
    /// An API key. The id is public; the key itself is derived and stored nowhere.
    ApiKeyId
);
id!(
    /// A magic link, from its mail to the session that it led to.
    MagicLinkId
);
id!(
    /// An event, as the cause of something.
    EventId
);
id!(
    /// A journal: the log of one instance.
    JournalId
);
id!(
    /// Somebody's look at somebody's data within an hour.
    AccessId
);

impl DeviceId {
    /// A session is a device: wrong passwords of both are counted together.
    pub fn of(session_id: SessionId) -> Self {
        Self(session_id.0)
    }
}
