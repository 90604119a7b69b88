//! What an API key may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A permission of an API key within its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Permission {
    /// Everything, in every app. Only platform keys have it.
    #[serde(rename = "platform")]
    Platform,
    /// Read users, their sessions and the stats.
    #[serde(rename = "users:read")]
    UsersRead,
    /// Create, change, ban and erase users, revoke their sessions.
    #[serde(rename = "users:write")]
    UsersWrite,
    /// Everything about organizations.
    #[serde(rename = "orgs:*")]
    Orgs,
    /// Read organizations and who is in them.
    #[serde(rename = "orgs:read")]
    OrgsRead,
    /// Create, change and delete organizations, and decide who is in them.
    #[serde(rename = "orgs:write")]
    OrgsWrite,
    /// Read the audit log. A key of the platform with it reads the signed tree of the whole journal, and nothing else.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// Read the event feed.
    #[serde(rename = "events:read")]
    EventsRead,
    /// Change the app's settings and providers.
    #[serde(rename = "settings:write")]
    SettingsWrite,
    /// Issue and revoke API keys, rotate signing keys.
    #[serde(rename = "keys:write")]
    KeysWrite,
    /// Create access tokens for a user.
    #[serde(rename = "tokens:create")]
    TokensCreate,
    /// Read the metrics, which cover the whole instance. Only the platform can grant it.
    #[serde(rename = "metrics:read")]
    MetricsRead,
}

impl Permission {
    /// Every permission within an app: what its admins may do, and give to its keys.
    pub const OF_AN_APP: [Self; 10] = [
        Self::UsersRead,
        Self::UsersWrite,
        Self::Orgs,
        Self::OrgsRead,
        Self::OrgsWrite,
        Self::AuditRead,
        Self::EventsRead,
        Self::SettingsWrite,
        Self::KeysWrite,
        Self::TokensCreate,
    ];

    /// What a key of the platform may have in place of [`Permission::Platform`]: each is about the whole instance.
    pub const OF_THE_PLATFORM: [Self; 2] = [Self::MetricsRead, Self::AuditRead];

    /// What it contains besides itself: whoever has it may do this too, and give it to a key. [`Permission::Platform`] contains
    /// nothing by itself: only a key of the platform may do everything.
    pub fn contained(self) -> &'static [Self] {
        match self {
            Self::Orgs => &[Self::OrgsRead, Self::OrgsWrite],
            Self::Platform
            | Self::UsersRead
            | Self::UsersWrite
            | Self::OrgsRead
            | Self::OrgsWrite
            | Self::AuditRead
            | Self::EventsRead
            | Self::SettingsWrite
            | Self::KeysWrite
            | Self::TokensCreate
            | Self::MetricsRead => &[],
        }
    }

    /// Whether a key of the platform may have these: everything alone, or some of [`Permission::OF_THE_PLATFORM`].
    pub fn fit_the_platform(permissions: &[Self]) -> bool {
        let limited = permissions.iter().all(|permission| Self::OF_THE_PLATFORM.contains(permission));
        permissions == [Self::Platform] || (limited && !permissions.is_empty())
    }
}
