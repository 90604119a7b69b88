//! The keys that sign an app's access tokens: their public halves and their place in the rotation.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A JWS algorithm (RFC 7518, RFC 8037) that access tokens can be signed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TokenAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits.
    #[serde(rename = "RS256")]
    Rs256,
}

/// The public half of a signing key as a JWK (RFC 7517). `kid` is its thumbprint (RFC 7638).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublicJwk {
    /// Key type: `EC`, `OKP` or `RSA`.
    pub kty: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The algorithm the key is for.
    pub alg: TokenAlgorithm,
    /// The RFC 7638 thumbprint, base64url.
    pub kid: String,
    /// The curve, for `EC` and `OKP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The x coordinate or the Ed25519 public key, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// The y coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The RSA modulus, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The RSA exponent, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// The status of a key at some time, see [`crate::app::App::status_of`]. All of these are in the JWKS; a retired key is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    /// Published ahead of its use, so that verifiers know it when it starts to sign.
    Next,
    /// Signs.
    Current,
    /// No longer signs, but tokens it signed may still be valid.
    Previous,
}

/// A signing key of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The public half.
    pub public: PublicJwk,
    /// Its place in the rotation as events alone say it: `Current` is the last that signs or is to sign, `Next` one that no
    /// moment is set for. At some time it is [`crate::app::App::status_of`].
    pub status: KeyStatus,
    /// When it was published, if that is known.
    #[serde(default)]
    pub published_at: Option<Timestamp>,
    /// From when on it signs, if that is set and known.
    #[serde(default)]
    pub signs_from: Option<Timestamp>,
    /// When it stops signing, if that is set and known.
    #[serde(default)]
    pub superseded_at: Option<Timestamp>,
}

/// The maximum lifetime of an access token in seconds, whatever the app's settings.
pub const LONGEST_TOKEN: u32 = 86_400;

/// The maximum number of previous keys whose tokens may still be valid. A rotation that would make one more waits.
pub const MAX_PREVIOUS: usize = 12;

impl SigningKey {
    /// Whether every token that it signed has expired.
    pub fn is_spent(&self, at: Timestamp) -> bool {
        let longest = SignedDuration::from_secs(LONGEST_TOKEN.into());
        self.status == KeyStatus::Previous
            && self.superseded_at.is_some_and(|since| at.duration_since(since) > longest)
    }
}
