//! Signing keys and the access tokens they sign (RFC 9068).

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::app::App;
use domain::signing_key::{PublicJwk, TokenAlgorithm};
use domain::user::User;
use domain::{AppId, SessionId, Timestamp};
use event_store::{KeyStore, StoreError, measure};
use quick_cache::sync::Cache;
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::access::{AccessClaims, AccessTokens};
use crate::org_claims::OrgClaims;

/// How many parsed keys are cached: parsing one costs more than signing with it.
const PARSED_KEYS: usize = 1000;
/// The approximate size of one; RSA keys are the largest.
const PARSED_BYTES: u64 = 4096;

/// Generates signing keys and issues access tokens.
pub struct Signing {
    key_store: Arc<KeyStore>,
    tokens: Arc<AccessTokens>,
    parsed: Cache<(AppId, String), Arc<ParsedKey>>,
}

/// The content of an access token.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// The app, whose current key signs.
    pub app: &'a App,
    /// The user it is issued to.
    pub user: &'a User,
    /// The session it belongs to.
    pub session_id: SessionId,
    /// Its place among the session's access tokens.
    pub issued: Issued,
    /// The user's organizations.
    pub orgs: OrgClaims,
    /// The most bytes that the token may have, as far as leaving organizations out achieves it.
    pub most: Option<usize>,
    /// When it was issued: the time of the event, so that a repeated request gets the same token.
    pub at: Timestamp,
    /// Its lifetime in seconds.
    pub ttl: i64,
}

/// What issued an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// A login or a refresh: the generation of the refresh token that comes with it.
    WithRefresh(u32),
    /// The choice of an organization, the how manieth of the session. It comes without a refresh token.
    ByChoice(u32),
}

/// Why no token was issued.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The key store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The app, user or key does not exist, or the key is broken.
    #[error("no access token could be signed: {0}")]
    Key(&'static str),
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    kid: &'a str,
}

impl Signing {
    /// Private keys are kept in the store; the tokens are verified by `tokens`.
    pub fn new(key_store: Arc<KeyStore>, tokens: Arc<AccessTokens>) -> Self {
        Self { key_store, tokens, parsed: Cache::new(PARSED_KEYS) }
    }

    /// Reports the number of cached keys.
    pub fn measure(&self) {
        let (parsed, bytes) = (&self.parsed, self.parsed.len() as u64 * PARSED_BYTES);
        measure::cache("signing_keys", parsed.len(), bytes, parsed.hits(), parsed.misses());
    }

    /// The issuer of an app's tokens.
    pub fn issuer(&self, app_id: &AppId) -> String {
        self.tokens.issuer(app_id)
    }

    /// Generates a key. Its private half is in the key store when this returns, so that an event can publish it.
    pub async fn generate(
        &self,
        app_id: &AppId,
        algorithm: TokenAlgorithm,
    ) -> Result<PublicJwk, SigningError> {
        // Generating an RSA key takes long.
        let made = tokio::task::spawn_blocking(move || new_key(algorithm)).await;
        let (public, pkcs8) = made.map_err(|_| SigningError::Key("generating a key was interrupted"))??;
        self.key_store.put_signing_key(app_id, &public.kid, algorithm_name(algorithm), &pkcs8).await?;
        Ok(public)
    }

    /// Generates so many keys.
    pub async fn generate_some(
        &self,
        app_id: &AppId,
        algorithm: TokenAlgorithm,
        count: usize,
    ) -> Result<Vec<PublicJwk>, SigningError> {
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            keys.push(self.generate(app_id, algorithm).await?);
        }
        Ok(keys)
    }

    /// Generates the two keys for a new app or a new algorithm.
    pub async fn generate_pair(
        &self,
        app_id: &AppId,
        algorithm: TokenAlgorithm,
    ) -> Result<Box<[PublicJwk; 2]>, SigningError> {
        let first = self.generate(app_id, algorithm).await?;
        let next = self.generate(app_id, algorithm).await?;
        Ok(Box::new([first, next]))
    }

    /// Issues an access token.
    pub async fn access_token(&self, grant: &Grant<'_>) -> Result<String, SigningError> {
        let app_id = grant.app.id.as_ref().ok_or(SigningError::Key("there is no such app"))?;
        let user_id = grant.user.id.ok_or(SigningError::Key("there is no such user"))?;
        let jwk = grant.app.signing_key(grant.at).ok_or(SigningError::Key("the app has no signing key"))?;
        let iat = grant.at.as_second();
        let orgs = grant.orgs.clone();
        let mut claims = AccessClaims {
            iss: self.issuer(app_id),
            sub: user_id,
            aud: app_id.to_string(),
            client_id: app_id.to_string(),
            exp: iat + grant.ttl,
            iat,
            nbf: None,
            jti: token_id(grant.session_id, grant.issued, (iat, iat + grant.ttl)).to_string(),
            sid: grant.session_id,
            roles: grant.user.roles.iter().cloned().collect(),
            email_verified: grant.user.email_verified,
            orgs: None,
            orgs_truncated: false,
            org_id: None,
            org_role: None,
            org_permissions: None,
        };
        let header = Header { typ: "at+jwt", alg: algorithm_name(jwk.alg), kid: &jwk.kid };
        let mut token = encoded(&header);
        token.push('.');
        token.push_str(&with_orgs(&mut claims, orgs, room(grant.most, &token, jwk.alg)));
        let signature = self.parsed_key(app_id, jwk).await?.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    async fn parsed_key(&self, app_id: &AppId, jwk: &PublicJwk) -> Result<Arc<ParsedKey>, SigningError> {
        let name = (app_id.clone(), jwk.kid.clone());
        if let Some(key) = self.parsed.get(&name) {
            return Ok(key);
        }
        let pkcs8 = self.key_store.signing_key(app_id, &jwk.kid).await?;
        let pkcs8 =
            pkcs8.ok_or(SigningError::Key("the private half of a signing key is not in the key store"))?;
        let key = Arc::new(ParsedKey::parse(jwk.alg, &pkcs8)?);
        self.parsed.insert(name, key.clone());
        Ok(key)
    }
}

/// A private key ready to sign.
enum ParsedKey {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

impl ParsedKey {
    fn parse(algorithm: TokenAlgorithm, pkcs8: &[u8]) -> Result<Self, SigningError> {
        let parsed = match algorithm {
            TokenAlgorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).map(Self::Es256)
            }
            TokenAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(pkcs8).map(Self::EdDsa),
            TokenAlgorithm::Rs256 => RsaKeyPair::from_pkcs8(pkcs8).map(Self::Rs256),
        };
        parsed.map_err(|_| SigningError::Key("a stored signing key is broken"))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        const FAILED: SigningError = SigningError::Key("signing failed");
        Ok(match self {
            Self::Es256(key) => {
                key.sign(&SystemRandom::new(), message).map_err(|_| FAILED)?.as_ref().to_vec()
            }
            Self::EdDsa(key) => key.sign(message).as_ref().to_vec(),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| FAILED)?;
                signature
            }
        })
    }
}

/// The algorithm's name in a token's header.
pub fn algorithm_name(algorithm: TokenAlgorithm) -> &'static str {
    match algorithm {
        TokenAlgorithm::Es256 => "ES256",
        TokenAlgorithm::EdDsa => "EdDSA",
        TokenAlgorithm::Rs256 => "RS256",
    }
}

fn encoded(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("plain members serialize"))
}

/// How many characters are left for the claims.
fn room(most: Option<usize>, before: &str, algorithm: TokenAlgorithm) -> usize {
    let signature = match algorithm {
        TokenAlgorithm::Es256 | TokenAlgorithm::EdDsa => 64_usize,
        TokenAlgorithm::Rs256 => 256,
    };
    let dot = 1;
    let others = before.len() + dot + (signature * 4).div_ceil(3);
    most.map_or(usize::MAX, |most| most.saturating_sub(others))
}

/// The claims with the organizations, encoded. Where they would be longer than this, organizations are left out.
fn with_orgs(claims: &mut AccessClaims, mut orgs: OrgClaims, most: usize) -> String {
    let shorter: [fn(&mut OrgClaims); 2] = [OrgClaims::leave_out, OrgClaims::leave_out_permissions];
    let mut shorter = shorter.into_iter();
    loop {
        claims.orgs = orgs.orgs().cloned();
        claims.orgs_truncated = orgs.are_truncated();
        let active = orgs.active();
        claims.org_id = active.map(|active| active.id);
        claims.org_role = active.map(|active| active.role.clone());
        claims.org_permissions = active.and_then(|active| active.permissions.clone());
        let text = encoded(claims);
        match shorter.next().filter(|_| text.len() > most) {
            Some(leave_out) => leave_out(&mut orgs),
            None => return text,
        }
    }
}

/// The `jti`: unique per token, but the same when a token is derived again. Version 8 (RFC 9562 section 5.8). Two tokens by the
/// same choice differ in their times.
fn token_id(session_id: SessionId, issued: Issued, (iat, exp): (i64, i64)) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"watchword jti");
    context.update(session_id.0.as_bytes());
    match issued {
        Issued::WithRefresh(generation) => context.update(&generation.to_be_bytes()),
        Issued::ByChoice(number) => {
            context.update(b"choice");
            context.update(&number.to_be_bytes());
            context.update(&iat.to_be_bytes());
            context.update(&exp.to_be_bytes());
        }
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn new_key(algorithm: TokenAlgorithm) -> Result<(PublicJwk, Zeroizing<Vec<u8>>), SigningError> {
    const FAILED: SigningError = SigningError::Key("a key could not be generated");
    let failed = |_| FAILED;
    let base64 = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
    let random = SystemRandom::new();
    let mut public = PublicJwk {
        kty: String::new(),
        usage: "sig".to_owned(),
        alg: algorithm,
        kid: String::new(),
        crv: None,
        x: None,
        y: None,
        n: None,
        e: None,
    };
    let pkcs8 = match algorithm {
        TokenAlgorithm::Es256 => {
            let pkcs8 =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref());
            let key = key.map_err(|_| FAILED)?;
            // An uncompressed point (SEC 1 section 2.3.3): 4, x, y.
            let [4, point @ ..] = key.public_key().as_ref() else { return Err(FAILED) };
            let (x, y) = point.split_at(32);
            "EC".clone_into(&mut public.kty);
            public.crv = Some("P-256".to_owned());
            (public.x, public.y) = (base64(x), base64(y));
            Zeroizing::new(pkcs8.as_ref().to_vec())
        }
        TokenAlgorithm::EdDsa => {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(failed)?;
            let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| FAILED)?;
            "OKP".clone_into(&mut public.kty);
            public.crv = Some("Ed25519".to_owned());
            public.x = base64(key.public_key().as_ref());
            Zeroizing::new(pkcs8.as_ref().to_vec())
        }
        TokenAlgorithm::Rs256 => {
            let key = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
            let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
            let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
            "RSA".clone_into(&mut public.kty);
            (public.n, public.e) = (base64(&parts.n), base64(&parts.e));
            Zeroizing::new(pkcs8.as_ref().to_vec())
        }
    };
    public.kid = thumbprint(&public);
    Ok((public, pkcs8))
}

/// RFC 7638 section 3: SHA-256 of the required members in lexicographic order, without white space.
fn thumbprint(jwk: &PublicJwk) -> String {
    let members = [
        ("crv", jwk.crv.as_ref()),
        ("e", jwk.e.as_ref()),
        ("kty", Some(&jwk.kty)),
        ("n", jwk.n.as_ref()),
        ("x", jwk.x.as_ref()),
        ("y", jwk.y.as_ref()),
    ];
    let members =
        members.iter().filter_map(|(name, value)| Some(format!(r#""{name}":"{}""#, value.as_ref()?)));
    let json = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7638 section 3.1.
    #[test]
    fn thumbprint_is_that_of_the_rfc() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV\
                 4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c\
                 7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1j\
                 F44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = PublicJwk {
            kty: "RSA".to_owned(),
            usage: "sig".to_owned(),
            alg: TokenAlgorithm::Rs256,
            kid: String::new(),
            crv: None,
            x: None,
            y: None,
            n: Some(n.to_owned()),
            e: Some("AQAB".to_owned()),
        };
        assert_eq!(thumbprint(&jwk), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn every_algorithm_makes_keys_that_sign() {
        for algorithm in [TokenAlgorithm::Es256, TokenAlgorithm::EdDsa, TokenAlgorithm::Rs256] {
            let (public, pkcs8) = new_key(algorithm).expect("a key");
            assert_eq!(public.kid.len(), 43);
            assert!(
                !ParsedKey::parse(algorithm, &pkcs8).expect("its own").sign(b"x").expect("signs").is_empty()
            );
        }
    }
}
