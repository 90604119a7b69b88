//! What Watchword decides, and nothing else.
//!
//! Aggregates ([`app::App`], [`user::User`], [`lockout::Lockout`], [`session::Session`], [`magic_link::MagicLink`],
//! [`delivery::Delivery`], [`organization::Organization`], [`memberships::Memberships`], [`role_templates::RoleTemplates`], [`webhook::Webhook`]) take commands and answer with events or a typed refusal. Everything a decision needs (ids, the time, hashes, looked-up facts) is in the
//! command, so a decision can run again after a conflict and gives the same answer. There is no I/O, no clock and
//! no randomness in this crate.
#![deny(missing_docs)]

pub mod access;
pub mod app;
pub mod app_id;
pub mod branding;
pub mod checkpoint_keys;
pub mod claims;
pub mod decisions;
pub mod delivery;
pub mod draft;
pub mod email;
pub mod event;
pub mod events;
pub mod ids;
pub mod journal;
pub mod lockout;
pub mod magic_link;
pub mod mail;
pub mod memberships;
pub mod one_time;
pub mod organization;
pub mod password;
pub mod permission;
pub mod personal;
pub mod pkce;
pub mod redirect_uri;
pub mod role;
pub mod role_templates;
pub mod session;
pub mod setting_kinds;
pub mod settings;
pub mod signing_key;
pub mod stored;
pub mod text;
pub mod time;
pub mod time_zone;
pub mod user;
pub mod web_url;
pub mod webhook;

pub use access::AccessId;
pub use app::ApiKeyId;
pub use app_id::AppId;
pub use draft::{Draft, Loaded};
pub use email::Email;
pub use event::{EventInfo, Stream, StreamId};
pub use events::Recorded;
pub use ids::{DeviceId, EventId, SessionId, UserId};
pub use jiff::Timestamp;
pub use journal::{CheckpointKeyId, JournalId, LogOrigin};
pub use magic_link::MagicLinkId;
pub use organization::{InvitationId, OrganizationId, OrganizationKeyId};
pub use permission::Permission;
pub use personal::Personal;
pub use role::Role;
pub use settings::AppSettings;
pub use time_zone::TimeZoneName;
pub use webhook::WebhookId;

events::aggregates! {
    /// An app was created or changed.
    App(app::AppEvent),
    /// A user was created, changed or erased.
    User(user::UserEvent),
    /// A login failed, or an account was locked for a while.
    Lockout(lockout::LockoutEvent),
    /// A session began, was refreshed or ended.
    Session(session::SessionEvent),
    /// A magic link was sent, replaced or used.
    MagicLink(magic_link::MagicLinkEvent),
    /// A mail was sent, or failed.
    Delivery(delivery::DeliveryEvent),
    /// The journal itself began.
    Journal(journal::JournalEvent),
    /// A webhook was created, changed or deleted.
    Webhook(webhook::WebhookEvent),
    /// Somebody read or exported other people's data.
    Access(access::AccessEvent),
    /// An organization was created, changed or deleted, or its members changed.
    Organization(organization::OrganizationEvent),
    /// An app said what roles allow in its organizations.
    RoleTemplates(role_templates::RoleTemplatesEvent),
    /// A person joined or left an organization.
    Memberships(memberships::MembershipsEvent),
}
