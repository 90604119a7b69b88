//! Decisions over several aggregates: synchronous and pure, each with its own refusals.
//!
//! A decision consists of facts that were looked up before (ids, the time, hashes), and decides over the aggregates it is
//! given: by reference those it only reads, as a [`Draft`](crate::draft::Draft) those it may change. So its signature states
//! what it depends on, and its caller must have read that.

pub mod address_taken;
pub mod admin;
pub mod choose_organization;
pub mod create_user;
pub mod end_sessions;
pub mod enter;
pub mod erase;
pub mod exchange_code;
pub mod import_user;
pub mod invitations;
pub mod issue_link;
pub mod live;
pub mod log_in;
pub mod mailed_tokens;
pub mod organization_roles;
pub mod organizations;
pub mod own_password;
pub mod recipient;
pub mod redeem_link;
pub mod refresh_session;
pub mod register;
pub mod start_session;
pub mod test_token;

pub use address_taken::{NotTold, TellOfRegistration};
pub use admin::{GrantRole, MayActOn, MayNotAct, NotEntitled, NotGranted};
pub use choose_organization::{ChooseOrganization, NotChosen};
pub use create_user::{CreateUser, NotCreated};
pub use end_sessions::EndAccess;
pub use enter::{AppClosed, MayNotEnter, may_enter, require_active};
pub use erase::{EraseOneself, NotErased, REAUTHENTICATION};
pub use exchange_code::{ExchangeCode, NotExchanged};
pub use import_user::{ImportUser, NotImported};
pub use invitations::{AcceptInvitation, InviterNow, NotAccepted, RegisterInvited};
pub use issue_link::{IssueLink, NotIssued};
pub use live::{NotLive, require_live};
pub use log_in::{LogIn, NotLoggedIn};
pub use mailed_tokens::{
    ChangeEmail, Disown, NotRequested, NotUsed, RequestToken, ResetPassword, VerifyEmail, Wanted,
};
pub use organization_roles::SetOrganizationRole;
pub use organizations::{CreateOrganization, NotOrganized, RemoveMember, SetMember};
pub use own_password::{ChangePassword, NotChanged, RequestEmailChange};
pub use recipient::{Recipient, TokenOfAdmin};
pub use redeem_link::{NotRedeemed, RedeemLink};
pub use refresh_session::{NotRefreshed, RefreshSession, Refreshed};
pub use register::{NotRegistered, Register};
pub use start_session::{NotStarted, StartSession};
pub use test_token::{MakeTestToken, NoTestToken};

#[cfg(test)]
mod testing;
