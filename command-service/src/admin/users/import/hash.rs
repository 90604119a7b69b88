//! The password hash of a line: the text that its system stores, or an object of its parts.

use std::fmt;

use http_kit::problem::Problem;
use schemas::field_codes::{self, FieldCode};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// As it is in the line.
pub(crate) enum Hash {
    Text(String),
    Parts(Box<Parts>),
}

/// The parts of a hash: what its algorithm needs, and nothing else. Binary values are in base64.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parts {
    algorithm: String,
    hash: String,
    #[serde(default)]
    salt: Option<String>,
    #[serde(default)]
    iterations: Option<u32>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    r: Option<u32>,
    #[serde(default)]
    p: Option<u32>,
}

/// What all hashes of a Firebase project have in common.
#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirebaseConfig {
    signer_key: String,
    salt_separator: String,
    rounds: u32,
    mem_cost: u32,
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;

        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Hash, E> {
                Ok(Hash::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Hash, A::Error> {
                Parts::deserialize(MapAccessDeserializer::new(map)).map(|parts| Hash::Parts(Box::new(parts)))
            }
        }

        deserializer.deserialize_any(TextOrParts)
    }
}

impl Hash {
    /// As its system would store it.
    pub(super) fn text(&self, firebase: Option<&FirebaseConfig>) -> Result<String, Problem> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Parts(parts) => parts.text(firebase),
        }
    }
}

impl Parts {
    fn text(&self, firebase: Option<&FirebaseConfig>) -> Result<String, Problem> {
        let Self { algorithm, hash, .. } = self;
        let whole = |prefixes: &[&str]| {
            self.require_only(&[])?;
            if prefixes.iter().any(|prefix| hash.starts_with(prefix)) {
                Ok(hash.clone())
            } else {
                let detail = format!("a hash of {algorithm} begins with {}", prefixes.join(" or "));
                Err(wrong("hash", field_codes::INVALID, detail))
            }
        };
        match algorithm.as_str() {
            "argon2" => whole(&["$argon2"]),
            "bcrypt" => whole(&["$2"]),
            "sha-crypt" => whole(&["$5$", "$6$"]),
            "pbkdf2-sha1" | "pbkdf2-sha256" | "pbkdf2-sha512" => {
                self.require_only(&["salt", "iterations"])?;
                let (salt, iterations) = (self.salt()?, needed("iterations", self.iterations)?);
                Ok(format!("${algorithm}$i={iterations}${}${}", unpadded(salt), unpadded(hash)))
            }
            "scrypt" => {
                self.require_only(&["salt", "n", "r", "p"])?;
                let (n, r, p) = (needed("n", self.n)?, needed("r", self.r)?, needed("p", self.p)?);
                if !n.is_power_of_two() {
                    return Err(wrong("n", field_codes::INVALID, "must be a power of two".to_owned()));
                }
                let (ln, salt) = (n.trailing_zeros(), unpadded(self.salt()?));
                Ok(format!("$scrypt$ln={ln},r={r},p={p}${salt}${}", unpadded(hash)))
            }
            "firebase-scrypt" => {
                self.require_only(&["salt"])?;
                let Some(FirebaseConfig { signer_key, salt_separator, rounds, mem_cost }) = firebase else {
                    let detail = "needs the project's parameters: send them as a first line, \
                                  {\"firebase_hash_config\": {…}}";
                    return Err(wrong("algorithm", field_codes::INVALID, detail.to_owned()));
                };
                let [separator, key] = [salt_separator, signer_key].map(|text| standard(text));
                let (salt, hash) = (standard(self.salt()?), standard(hash));
                Ok(format!("$fbscrypt$v=1,n={mem_cost},r={rounds},p=1,ss={separator},sk={key}${salt}${hash}"))
            }
            _ => {
                let detail = "must be argon2, bcrypt, sha-crypt, pbkdf2-sha1, pbkdf2-sha256, pbkdf2-sha512, scrypt or \
                              firebase-scrypt";
                Err(wrong("algorithm", field_codes::INVALID, detail.to_owned()))
            }
        }
    }

    fn salt(&self) -> Result<&str, Problem> {
        needed("salt", self.salt.as_deref())
    }

    /// Refuses members that the algorithm does not have.
    fn require_only(&self, members: &[&str]) -> Result<(), Problem> {
        let given = [
            ("salt", self.salt.is_some()),
            ("iterations", self.iterations.is_some()),
            ("n", self.n.is_some()),
            ("r", self.r.is_some()),
            ("p", self.p.is_some()),
        ];
        match given.iter().find(|(name, is_given)| *is_given && !members.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                let detail = format!("hashes of {} have no such member", self.algorithm);
                Err(wrong(name, field_codes::UNKNOWN_MEMBER, detail))
            }
        }
    }
}

fn needed<T>(name: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| wrong(name, field_codes::MISSING, "is required".to_owned()))
}

fn wrong(member: &str, code: FieldCode, detail: String) -> Problem {
    Problem::invalid(format!("/password_hash/{member}"), code, detail)
}

/// In the alphabet of PHC strings, without padding.
fn unpadded(text: &str) -> String {
    standard(text).trim_end_matches('=').to_owned()
}

/// In the usual alphabet: Firebase has two.
fn standard(text: &str) -> String {
    text.replace('-', "+").replace('_', "/")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Hash {
        serde_json::from_value(value.clone()).expect("a hash")
    }

    #[test]
    fn parts_become_what_their_system_stores() {
        let config = json!({ "signer_key": "a-_z", "salt_separator": "Bw==", "rounds": 8, "mem_cost": 14 });
        let firebase: FirebaseConfig = serde_json::from_value(config).expect("a configuration");
        for (value, text) in [
            (json!("$2b$12$x"), "$2b$12$x"),
            (json!({ "algorithm": "bcrypt", "hash": "$2b$12$x" }), "$2b$12$x"),
            (json!({ "algorithm": "argon2", "hash": "$argon2i$x" }), "$argon2i$x"),
            (json!({ "algorithm": "sha-crypt", "hash": "$6$x" }), "$6$x"),
            (
                json!({ "algorithm": "pbkdf2-sha256", "salt": "c2E=", "iterations": 27_500, "hash": "aA==" }),
                "$pbkdf2-sha256$i=27500$c2E$aA",
            ),
            (
                json!({ "algorithm": "scrypt", "salt": "c2E=", "n": 16_384, "r": 8, "p": 1, "hash": "aA==" }),
                "$scrypt$ln=14,r=8,p=1$c2E$aA",
            ),
            (
                json!({ "algorithm": "firebase-scrypt", "salt": "c2E=", "hash": "-_A=" }),
                "$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=a+/z$c2E=$+/A=",
            ),
        ] {
            let written =
                read(&value).text(Some(&firebase)).unwrap_or_else(|problem| panic!("{}", problem.text()));
            assert_eq!(written, text, "{value}");
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (value, pointer, code) in [
            (json!({ "algorithm": "md5", "hash": "x" }), "algorithm", "invalid"),
            (json!({ "algorithm": "bcrypt", "hash": "$6$x" }), "hash", "invalid"),
            (json!({ "algorithm": "bcrypt", "hash": "$2b$", "salt": "x" }), "salt", "unknown_member"),
            (json!({ "algorithm": "pbkdf2-sha1", "hash": "x", "salt": "x" }), "iterations", "missing"),
            (json!({ "algorithm": "pbkdf2-sha1", "hash": "x", "iterations": 1 }), "salt", "missing"),
            (
                json!({ "algorithm": "scrypt", "hash": "x", "salt": "x", "n": 3, "r": 1, "p": 1 }),
                "n",
                "invalid",
            ),
            (
                json!({ "algorithm": "scrypt", "hash": "x", "salt": "x", "n": 0, "r": 1, "p": 1 }),
                "n",
                "invalid",
            ),
            (json!({ "algorithm": "firebase-scrypt", "hash": "x", "salt": "x" }), "algorithm", "invalid"),
        ] {
            let problem = read(&value).text(None).expect_err("refused");
            let error = &problem.errors()[0];
            assert_eq!(error.pointer, Some(format!("/password_hash/{pointer}")), "{value}");
            assert_eq!(error.code, code, "{value}");
        }
        for value in [json!(1), json!({ "hash": "x" }), json!({ "algorithm": "bcrypt", "hash": "x", "x": 1 })]
        {
            assert!(serde_json::from_value::<Hash>(value.clone()).is_err(), "{value}");
        }
    }
}
