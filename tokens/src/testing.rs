//! For tests of this crate and its users: keys that sign anything.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::signing_key::{PublicJwk, TokenAlgorithm};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The public URL of the tests.
pub const BASE: &str = "https://auth.example";

/// A key pair that signs tokens.
pub struct Signer {
    /// The published half.
    pub public: PublicJwk,
    /// The private half.
    pub key: EncodingKey,
}

impl Signer {
    /// A new pair for this algorithm and key id.
    pub fn new(alg: TokenAlgorithm, kid: &str) -> Self {
        let b64 = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let jwk = |kty: &str, crv: &str, x, y| PublicJwk {
            kty: kty.to_owned(),
            usage: "sig".to_owned(),
            alg,
            kid: kid.to_owned(),
            crv: Some(crv.to_owned()),
            x,
            y,
            n: None,
            e: None,
        };
        let random = aws_lc_rs::rand::SystemRandom::new();
        match alg {
            TokenAlgorithm::Es256 => {
                let pkcs8 =
                    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())
                    .expect("a key");
                let point = pair.public_key().as_ref();
                let public = jwk("EC", "P-256", b64(&point[1..33]), b64(&point[33..]));
                Self { public, key: EncodingKey::from_ec_der(pkcs8.as_ref()) }
            }
            TokenAlgorithm::EdDsa => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
                let public = jwk("OKP", "Ed25519", b64(pair.public_key().as_ref()), None);
                Self { public, key: EncodingKey::from_ed_der(pkcs8.as_ref()) }
            }
            TokenAlgorithm::Rs256 => {
                unimplemented!("making RSA keys takes long; the tests of `signing` make them")
            }
        }
    }

    /// Signs any claims under any header.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let alg = match self.public.alg {
            TokenAlgorithm::Es256 => Algorithm::ES256,
            TokenAlgorithm::EdDsa => Algorithm::EdDSA,
            TokenAlgorithm::Rs256 => Algorithm::RS256,
        };
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, alg).expect("signs");
        format!("{message}.{signature}")
    }

    /// The header of its tokens.
    pub fn header(&self) -> Value {
        json!({ "typ": "at+jwt", "alg": self.public.alg, "kid": self.public.kid })
    }

    /// Signs claims under its header.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }
}
