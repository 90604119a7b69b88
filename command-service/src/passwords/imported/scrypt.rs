//! scrypt (RFC 7914), as PHC strings, Django and better-auth write it, and Firebase's, whose result encrypts the project's key.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use scrypt::{Params, scrypt};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

use super::pbkdf2::number;
use super::unpadded;

const KEYS: std::ops::RangeInclusive<usize> = 16..=64;
const SALTS: std::ops::RangeInclusive<usize> = 1..=128;
/// The project's key, which the hash is as long as.
const SIGNER_KEYS: std::ops::RangeInclusive<usize> = 16..=128;
const FIREBASE: &str = "$fbscrypt$";

#[derive(Clone)]
pub(crate) struct Scrypt {
    costs: Costs,
    salt: Vec<u8>,
    /// What the function must give; of Firebase, the signer key encrypted with that.
    key: Vec<u8>,
    made_by: MadeBy,
}

#[derive(Clone)]
enum MadeBy {
    /// Nobody who does something of their own.
    Plain,
    /// It hashes the NFKC form.
    BetterAuth,
    Firebase {
        signer_key: Vec<u8>,
    },
}

/// N is a power of two.
#[derive(Clone, Copy)]
struct Costs {
    log_n: u8,
    r: u32,
    p: u32,
}

impl Costs {
    /// No more than the function can count.
    fn new(log_n: u32, r: u32, p: u32) -> Option<Self> {
        let log_n = u8::try_from(log_n).ok().filter(|log_n| (1..32).contains(log_n))?;
        let within = u64::from(r) * u64::from(p) < 1 << 30 && Params::new(log_n, r, p).is_ok();
        within.then_some(Self { log_n, r, p })
    }

    fn of_n(n: u32, r: u32, p: u32) -> Option<Self> {
        if n.is_power_of_two() { Self::new(n.trailing_zeros(), r, p) } else { None }
    }

    /// Parameters of the form `ln=14,r=8,p=1`, in this order.
    fn named(text: &str, names: [&str; 3]) -> Option<Self> {
        let values: Vec<&str> = text.split(',').collect();
        let [n, r, p] = values[..] else { return None };
        let value = |text: &str, name: &str| number(text.strip_prefix(name)?.strip_prefix('=')?);
        Self::new(value(n, names[0])?, value(r, names[1])?, value(p, names[2])?)
    }
}

impl Scrypt {
    /// Whether a text claims to be one in any of the forms.
    pub(super) fn is_meant(text: &str) -> bool {
        ["$scrypt$", "scrypt$", FIREBASE].iter().any(|start| text.starts_with(start))
            || text.split_once(':').is_some_and(|(salt, _)| is_hex(salt, 32))
    }

    /// `$scrypt$ln=14,r=8,p=1$<salt>$<key>` (PHC), `scrypt$<n>$<salt as text>$<r>$<p>$<padded key>` (Django),
    /// `$fbscrypt$v=1,n=14,r=8,p=1,ss=<separator>,sk=<signer key>$<salt>$<hash>` (Firebase, as Supabase writes it) or
    /// `<32 hexadecimal digits>:<128 of them>` (better-auth).
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(FIREBASE) {
            return Self::of_firebase(rest);
        }
        if let Some((salt, key)) = text.split_once(':') {
            let is_whole = is_hex(salt, 32) && is_hex(key, 128);
            let costs = Costs::new(14, 16, 1)?;
            // The digits of the salt are its bytes.
            let made = |key| Self::new(costs, salt.as_bytes(), key, MadeBy::BetterAuth);
            return if is_whole { hex::decode(key).ok().and_then(made) } else { None };
        }
        let parts: Vec<&str> = text.split('$').collect();
        match parts[..] {
            ["", "scrypt", costs, salt, key] => {
                let costs = Costs::named(costs, ["ln", "r", "p"])?;
                Self::new(costs, &unpadded(salt)?, unpadded(key)?, MadeBy::Plain)
            }
            ["scrypt", n, salt, r, p, key] => {
                let costs = Costs::of_n(number(n)?, number(r)?, number(p)?)?;
                Self::new(costs, salt.as_bytes(), STANDARD.decode(key).ok()?, MadeBy::Plain)
            }
            _ => None,
        }
    }

    fn new(costs: Costs, salt: &[u8], key: Vec<u8>, made_by: MadeBy) -> Option<Self> {
        let sizes_are_right = SALTS.contains(&salt.len()) && KEYS.contains(&key.len());
        sizes_are_right.then(|| Self { costs, salt: salt.to_vec(), key, made_by })
    }

    fn of_firebase(rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('$').collect();
        let [params, salt, hash] = parts[..] else { return None };
        let (costs, keys) = params.strip_prefix("v=1,")?.split_once(",ss=")?;
        let (separator, signer_key) = keys.split_once(",sk=")?;
        let decoded = |text: &str| STANDARD.decode(text).ok();
        let (salt, signer_key, hash) =
            ([decoded(salt)?, decoded(separator)?].concat(), decoded(signer_key)?, decoded(hash)?);
        let costs = Costs::named(costs, ["n", "r", "p"])?;
        let sizes_are_right = SALTS.contains(&salt.len())
            && SIGNER_KEYS.contains(&signer_key.len())
            && hash.len() == signer_key.len();
        sizes_are_right.then_some(Self { costs, salt, key: hash, made_by: MadeBy::Firebase { signer_key } })
    }

    /// It reads and writes so many blocks of 128 bytes, twice.
    pub(super) fn cost(&self) -> u64 {
        let Costs { log_n, r, p } = self.costs;
        (u64::from(r) * u64::from(p)).saturating_mul(1 << log_n)
    }

    /// In bytes.
    pub(super) fn memory(&self) -> u64 {
        let Costs { log_n, r, p } = self.costs;
        (128 * u64::from(r)).saturating_mul((1 << log_n) + u64::from(p))
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        match &self.made_by {
            MadeBy::Plain => self.gives(password),
            MadeBy::BetterAuth => {
                let Ok(text) = std::str::from_utf8(password) else { return false };
                self.gives(Zeroizing::new(text.nfkc().collect::<String>()).as_bytes())
            }
            MadeBy::Firebase { signer_key } => self.encrypts(password, signer_key).unwrap_or(false),
        }
    }

    fn gives(&self, password: &[u8]) -> bool {
        let mut key = Zeroizing::new(vec![0; self.key.len()]);
        self.derive(password, &mut key).is_some() && verify_slices_are_equal(&key, &self.key).is_ok()
    }

    /// AES-256-CTR with a counter that begins at 0: to decrypt is to encrypt.
    fn encrypts(&self, password: &[u8], signer_key: &[u8]) -> Option<bool> {
        let mut key = Zeroizing::new([0; 32]);
        self.derive(password, &mut *key)?;
        let key = DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, &*key).ok()?).ok()?;
        let mut hash = self.key.clone();
        let plain = key.decrypt(&mut hash, DecryptionContext::Iv128(FixedLength::from([0; 16]))).ok()?;
        Some(verify_slices_are_equal(plain, signer_key).is_ok())
    }

    fn derive(&self, password: &[u8], key: &mut [u8]) -> Option<()> {
        let Costs { log_n, r, p } = self.costs;
        scrypt(password, &self.salt, &Params::new(log_n, r, p).ok()?, key).ok()
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NFC, NFD, VIOLET, check};
    use super::super::{ImportedHash, NotImported};

    fn is_scrypt(hash: &ImportedHash) -> bool {
        matches!(hash, ImportedHash::Scrypt(_))
    }

    /// Made with passlib 1.7.4.
    #[test]
    fn verifies_what_passlib_made() {
        check(
            is_scrypt,
            &[
                (
                    "$scrypt$ln=10,r=8,p=2$4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA",
                    VIOLET,
                ),
                (
                    "$scrypt$ln=10,r=8,p=2$mtMaAyDk3HtPqRWCsDZm7A$FhW6hjkYgXLBMblX3OArWrAo8LcZe1Jr0/ILDmeDdYQ",
                    NFC,
                ),
                (
                    "$scrypt$ln=10,r=8,p=2$XutdKyWEsFZqjZEyppQyBg$ByY/tK9iUyh5tTffeFUreamIXHR5fO8B+W6AnrFGVCM",
                    NFD,
                ),
            ],
        );
    }

    /// Made with Django 5.2.19.
    #[test]
    fn verifies_what_django_made() {
        check(
            is_scrypt,
            &[
                (
                    "scrypt$1024$wpA0pDb9YHfVaB3dN5W5CU$8$5$Zqa7YkuFLooBPtoRmzSVciXyB8qSulMQowntIjLHx6qAkqAiprI0yvgpwdlVObiM8/Ft/j7SncNtAqpbdEWDLQ==",
                    VIOLET,
                ),
                (
                    "scrypt$1024$539dB58oVmGWWsuNJYLMk7$8$5$yraSf+dGr/hxiFV0SYe4PMNLHYJU499bv6bbVqC/EQFYRe1ggyI5mRcR6kovQ7kw2qU1VlYReIOis5qGP5uDJQ==",
                    NFD,
                ),
            ],
        );
    }

    /// Made with `@better-auth/utils` 0.5.1 (`hashPassword`), with the parameters that it always has. It normalizes, so the
    /// last one is of both forms.
    #[test]
    fn verifies_what_better_auth_made() {
        check(
            is_scrypt,
            &[(
                "419ba91c661e18dbcb26b4c35692c101:192b49b7daa90e8c7fcbf4d362f50425549931d2be9b5118f1cd71f932e19b17cbe2adf302b03f166dce7fb5be42d02c512ab268887eed6ad0d07b0abb9a905b",
                VIOLET,
            )],
        );
        let of_nfd = "db022d2a7ffc76d57458186e1a322e9d:075cb2e0c760c713955fb5341439e82b16b609cd1f0ced04b5795b02cfb78e6e1017f97283a5210d3d2235b9b0657de111f8997fe0196ac285c1dee227fc31dd";
        let parsed = ImportedHash::parse(of_nfd).expect("a hash");
        assert!(parsed.matches(NFD.as_bytes()) && parsed.matches(NFC.as_bytes()));
        assert!(!parsed.matches(VIOLET.as_bytes()) && !parsed.matches(b"\xff"));
    }

    /// The first is the example of <https://github.com/firebase/scrypt>; the others were made with `firebase-scrypt` 2.2.0,
    /// with less memory.
    #[test]
    fn verifies_what_firebase_made() {
        let signer_key =
            "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==";
        let hash = |costs: &str, hash: &str| {
            format!("$fbscrypt$v=1,{costs},p=1,ss=Bw==,sk={signer_key}$42xEC+ixf3L2lw==${hash}")
        };
        let example =
            "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ==";
        let violet =
            "8U4JWV1CAWeRIm10PEFsJHHhgNx0f2OfbWit9h4P+R78zELPVG1iwA9f/efGikv/mrWOnbwHT9hxBDanEGDLfw==";
        let nfc = "YlQAt4j5yYUeZgeDBcCSLwzlFIK4k+0R7Eiw30EN0LHrcuLf3HlmGYZMl5ZCF8FyN61UecQrpSS5i3shlI4zRg==";
        let nfd = "pVYF7HGT6jAUJVH07APOk3ur9GLHAmGC6JmkxNGPQB/5uixPNcA7bgvyUDZrUpUlP/DPlqo1Uf3t8ui6aEJabA==";
        check(
            is_scrypt,
            &[
                (&hash("n=14,r=8", example), "user1password"),
                (&hash("n=10,r=4", violet), VIOLET),
                (&hash("n=10,r=4", nfc), NFC),
                (&hash("n=10,r=4", nfd), NFD),
            ],
        );
        for text in [
            hash("n=0,r=8", example),
            hash("n=32,r=8", example),
            hash("n=14", example),
            hash("n=14,r=8", "AAAA"),
            format!("$fbscrypt$v=2,n=14,r=8,p=1,ss=Bw==,sk={signer_key}$42xEC+ixf3L2lw==${example}"),
            format!("$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==$42xEC+ixf3L2lw==${example}"),
        ] {
            assert_eq!(ImportedHash::parse(&text).err(), Some(NotImported::Malformed("scrypt")), "{text}");
        }
    }

    #[test]
    fn other_parameters_are_refused() {
        let rest = "4ZwzxhgDgHDu/f+fsxZiLA$e5K/+hHySFyL9TLJVEoyIJx1pAiytT7hXBGt6sOVkOA";
        for (text, why) in [
            (format!("$scrypt$ln=0,r=8,p=1${rest}"), "N is 1"),
            (format!("$scrypt$ln=32,r=8,p=1${rest}"), "N is too large"),
            (format!("$scrypt$ln=14,r=0,p=1${rest}"), "no blocks"),
            (format!("$scrypt$ln=14,r=8,p=0${rest}"), "no lanes"),
            (format!("$scrypt$ln=14,r=1073741824,p=1${rest}"), "too many blocks"),
            (format!("$scrypt$ln=14,r=65536,p=65536${rest}"), "too many of both"),
            (format!("$scrypt$ln=14,r=8${rest}"), "a parameter is missing"),
            (format!("$scrypt$ln=14,r=8,p=1,x=1${rest}"), "an unknown parameter"),
            ("scrypt$1000$salt$8$5$Zqa7YkuFLooBPtoRmzSVcg==".to_owned(), "no power of two"),
            (format!("{}:{}", "0".repeat(32), "0".repeat(127)), "half a byte"),
            (format!("{}:{}", "0".repeat(32), "g".repeat(128)), "no digits"),
        ] {
            assert_eq!(ImportedHash::parse(&text).err(), Some(NotImported::Malformed("scrypt")), "{why}");
        }
    }
}
