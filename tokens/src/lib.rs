//! Tokens: those that are signed (RFC 7519, RFC 9068), made and verified, with the keys that apps publish; and those that are
//! derived from what they stand for. Nothing about a token is stored: whether what it stands for still lives is in the log.
#![deny(missing_docs)]

mod access;
mod derived;
mod public_url;
mod signing;
pub mod strict_json;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use access::{AccessClaims, AccessTokens, InvalidToken, LEEWAY};
pub use derived::{ApiKeyToken, DerivedTokens, DeviceToken, MagicLinkToken, RefreshToken, TokenPurpose};
pub use public_url::{InvalidPublicUrl, PublicUrl};
pub use signing::{Grant, Signing, SigningError, algorithm_name};
