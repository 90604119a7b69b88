//! Identifiers. All are UUIDs (version 7, made by the caller's clock); each kind is a type of its own. Those that several
//! aggregates use are here, the others beside their aggregate.

/// Declares a kind of identifier.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            serde::Serialize,
            serde::Deserialize,
            schemars::JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
pub(crate) use id;

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
    /// An event, as the cause of something.
    EventId
);

impl DeviceId {
    /// A session is a device: wrong passwords of both are counted together.
    pub fn of(session_id: SessionId) -> Self {
        Self(session_id.0)
    }
}
