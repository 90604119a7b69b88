//! Tokens: signed ones (RFC 7519, RFC 9068), issued and verified with the keys that apps publish; and derived ones. Tokens
//! are stored nowhere: whether what they stand for is still valid is in the log.
#![deny(missing_docs)]

mod access;
mod derived;
pub mod org_claims;
mod organizations;
mod public_url;
mod signing;
pub mod strict_json;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod webhook_secret;

pub use access::{AccessClaims, AccessTokens, InvalidToken, LEEWAY};
pub use derived::{ApiKeyToken, DerivedTokens, DeviceToken, MagicLinkToken, RefreshToken, TokenPurpose};
pub use org_claims::{OrgClaim, OrgClaims};
pub use organizations::{InvitationToken, OrganizationKeyToken};
pub use public_url::{InvalidPublicUrl, PublicUrl};
pub use signing::{Grant, Issued, Signing, SigningError, algorithm_name};
pub use webhook_secret::WebhookSecret;
