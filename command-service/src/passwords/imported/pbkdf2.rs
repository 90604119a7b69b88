//! PBKDF2 (RFC 8018), as PHC strings, passlib and Django write it. ASP.NET Core Identity has a form of its own.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{Algorithm, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512, verify};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::unpadded;

/// The names that PHC strings and passlib give it.
const PHC: [(&str, Algorithm); 4] = [
    ("pbkdf2", PBKDF2_HMAC_SHA1),
    ("pbkdf2-sha1", PBKDF2_HMAC_SHA1),
    ("pbkdf2-sha256", PBKDF2_HMAC_SHA256),
    ("pbkdf2-sha512", PBKDF2_HMAC_SHA512),
];
/// Those of Django.
const DJANGO: [(&str, Algorithm); 2] =
    [("pbkdf2_sha1", PBKDF2_HMAC_SHA1), ("pbkdf2_sha256", PBKDF2_HMAC_SHA256)];
const KEYS: std::ops::RangeInclusive<usize> = 16..=64;
const SALTS: std::ops::RangeInclusive<usize> = 1..=128;

#[derive(Clone)]
pub(crate) struct Pbkdf2 {
    algorithm: Algorithm,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    key: Vec<u8>,
}

impl Pbkdf2 {
    pub(super) fn new(algorithm: Algorithm, iterations: u32, salt: &[u8], key: &[u8]) -> Option<Self> {
        let iterations = NonZeroU32::new(iterations)?;
        let sizes_are_right = KEYS.contains(&key.len()) && SALTS.contains(&salt.len());
        sizes_are_right.then(|| Self { algorithm, iterations, salt: salt.to_vec(), key: key.to_vec() })
    }

    /// Whether a text claims to be one in either form.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with("$pbkdf2") || text.starts_with("pbkdf2_")
    }

    /// `$pbkdf2-sha256$i=600000,l=32$<salt>$<key>`, `$pbkdf2-sha256$600000$<salt>$<key>` (passlib, with `.` for `+`), or
    /// `pbkdf2_sha256$600000$<salt as text>$<padded key>` (Django).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_phc = text.starts_with('$');
        let parts: Vec<&str> = text.strip_prefix('$').unwrap_or(text).split('$').collect();
        let [name, costs, salt, key] = parts[..] else { return None };
        let known = if is_phc { &PHC[..] } else { &DJANGO[..] };
        let (_, algorithm) = known.iter().find(|(known, _)| *known == name)?;
        if !is_phc {
            let key = STANDARD.decode(key).ok()?;
            return Self::new(*algorithm, number(costs)?, salt.as_bytes(), &key);
        }
        let (salt, key) = (unpadded(&salt.replace('.', "+"))?, unpadded(&key.replace('.', "+"))?);
        let (mut iterations, mut length) = (None, None);
        for cost in costs.split(',') {
            match cost.split_once('=') {
                Some(("i", value)) if iterations.is_none() => iterations = Some(number(value)?),
                Some(("l", value)) if length.is_none() => length = Some(number(value)?),
                None if iterations.is_none() => iterations = Some(number(cost)?),
                _ => return None,
            }
        }
        let is_whole = length.is_none_or(|length| usize::try_from(length) == Ok(key.len()));
        if is_whole { Self::new(*algorithm, iterations?, &salt, &key) } else { None }
    }

    /// Each block of the key takes all the iterations.
    pub(super) fn cost(&self) -> u64 {
        let block = if self.algorithm == PBKDF2_HMAC_SHA1 {
            20
        } else if self.algorithm == PBKDF2_HMAC_SHA256 {
            32
        } else {
            64
        };
        u64::from(self.iterations.get()) * self.key.len().div_ceil(block) as u64
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        // It compares in constant time.
        verify(self.algorithm, self.iterations, &self.salt, password, &self.key).is_ok()
    }
}

/// Digits and nothing else: no sign, no leading zero.
pub(super) fn number(text: &str) -> Option<u32> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NFC, NFD, VIOLET, check};
    use super::super::{ImportedHash, NotImported};

    fn is_pbkdf2(hash: &ImportedHash) -> bool {
        matches!(hash, ImportedHash::Pbkdf2(_))
    }

    /// Made with passlib 1.7.4.
    #[test]
    fn verifies_what_passlib_made() {
        check(
            is_pbkdf2,
            &[
                ("$pbkdf2$1000$ovTe./.fsxZibI1xrtUaQw$eALJj8cy6yoTkt3FayoUuoW3FsY", VIOLET),
                (
                    "$pbkdf2-sha256$1000$BGCMMcY4RyjlvNf6v/deKw$kEUzT5Eo2JA3QONvqkm5rZ.T3KyJJ9zx3rxImPTfedY",
                    VIOLET,
                ),
                (
                    "$pbkdf2-sha512$1000$HUNozfmfc67VWqtV6v0/xw$iDdhWrch2vb59bK.meYrv.RQEoe1UXDUC9sPW.35avLMK/oGWeP9JJdJritB8pGsjfA.S38wVL7RAG54SiJCjw",
                    VIOLET,
                ),
                ("$pbkdf2$1000$13qvFQIgRGitVUrJ.R8DoA$Rv3HRHMIvc.NqgZpOL8B2Nw62tQ", NFC),
                (
                    "$pbkdf2-sha256$1000$/P/fW6vVOofQGuP8n5PyXg$4cwAxmcfxp1DMxQ3uW.kBOKpU7e/iKR6NFY8VluXW/0",
                    NFC,
                ),
                ("$pbkdf2$1000$5zznnJPSmpPSOmdsTen9fw$zei9zUQ4lRSDrJadEOKMXe4au9Y", NFD),
                (
                    "$pbkdf2-sha512$1000$0/o/J8TYO6cUAgCAUCoFoA$BUpZ0bkVJUCqe.IILCf91Zu0Oq0gA0eUYyvBP1eTpCLPIvpO6oVWiQrFGRv9mzvNXEcyuqCSjTxNBJpbefYcOw",
                    NFD,
                ),
            ],
        );
    }

    /// Made with Django 5.2.19, with fewer iterations than its own.
    #[test]
    fn verifies_what_django_made() {
        check(
            is_pbkdf2,
            &[
                (
                    "pbkdf2_sha256$1200$AbCdEfGhIjKlMnOpQrStUv$RtN3UULge9xcN+tq0PWeisQphsKfg+XdSNqJxssLEaE=",
                    VIOLET,
                ),
                ("pbkdf2_sha1$1200$AbCdEfGhIjKlMnOpQrStUv$a2VqM/zBbhMXY5wgv9NP5BL+gXY=", VIOLET),
                (
                    "pbkdf2_sha256$1200$AbCdEfGhIjKlMnOpQrStUv$UcAM42v+O5YtzFjxod0yaVrKjh/FKnFaiGxGnOLF0M0=",
                    NFC,
                ),
                ("pbkdf2_sha1$1200$AbCdEfGhIjKlMnOpQrStUv$CXkhn1kQW3PlI8r40grTcKLLazQ=", NFD),
            ],
        );
    }

    /// Keycloak derives 64 bytes whatever the function. Made so with Python's `hashlib.pbkdf2_hmac`, and written as PHC
    /// strings, as the import does with its objects.
    #[test]
    fn verifies_keys_of_several_blocks() {
        check(
            is_pbkdf2,
            &[
                (
                    "$pbkdf2-sha1$i=1000,l=64$nZqcoEXMTjaojI16Py8k7Q$GTYw1WL0bsVD9m4MjcwjbXZAuesQDKXWP874818tGpWja0zpSC0YJJEtQAE597FkNSfi9D8Za7+9zYs8Jm7nPQ",
                    VIOLET,
                ),
                (
                    "$pbkdf2-sha256$i=1000$j3PXLuHXNlabltmjDEIVqg$dIF1V+22SNTEnvttpx6RxmlwHVZBwB3wlL/NU51OxdX4BqSZ7qsPN1eZaLS9JmpttBNdGv9QYc4B122QO1adeQ",
                    VIOLET,
                ),
                (
                    "$pbkdf2-sha512$i=1000,l=64$NThbn7Hv/uHmN1BoEeAAWw$dw3ny52octLf1LUoH3IP/hcynoW1XCqjLzEW9739sgoV7cGyPqzQXwaQuxZPAlMQdgfMBb8aq4f7Hai/kQ25dQ",
                    NFC,
                ),
                (
                    "$pbkdf2-sha256$i=1000,l=64$HhQX5PxhI2JHFpg281VhaA$OcpPMixGLzsW3j470UByAqjSeNX2Ze37ANw9wanHOI4zuiPIihKERenst4ko2U+WcGoqOGheCX1aJPD2BvzaJg",
                    NFD,
                ),
            ],
        );
        let of_keycloak = "$pbkdf2-sha1$i=1000,l=64$nZqcoEXMTjaojI16Py8k7Q$GTYw1WL0bsVD9m4MjcwjbXZAuesQDKXWP874818tGpWja0zpSC0YJJEtQAE597FkNSfi9D8Za7+9zYs8Jm7nPQ";
        assert_eq!(
            ImportedHash::parse(of_keycloak).expect("a hash").cost(),
            4000,
            "64 bytes are four blocks of SHA-1"
        );
    }

    #[test]
    fn other_parameters_are_refused() {
        let key = "dIF1V+22SNTEnvttpx6RxmlwHVZBwB3wlL/NU51OxdU";
        for (text, why) in [
            (format!("$pbkdf2-md5$i=1000$c2FsdHNhbHQ${key}"), "another function"),
            (format!("pbkdf2_sha512$1000$salt${key}="), "a function that Django does not have"),
            (format!("$pbkdf2-sha256$i=0$c2FsdHNhbHQ${key}"), "no iterations"),
            (format!("$pbkdf2-sha256$i=01$c2FsdHNhbHQ${key}"), "a leading zero"),
            (format!("$pbkdf2-sha256$i=+1$c2FsdHNhbHQ${key}"), "a sign"),
            (format!("$pbkdf2-sha256$i=4294967296$c2FsdHNhbHQ${key}"), "too many iterations to write"),
            (format!("$pbkdf2-sha256$i=1,i=1$c2FsdHNhbHQ${key}"), "a repeated parameter"),
            (format!("$pbkdf2-sha256$i=1,x=1$c2FsdHNhbHQ${key}"), "an unknown parameter"),
            (format!("$pbkdf2-sha256$l=32$c2FsdHNhbHQ${key}"), "a missing parameter"),
            (format!("$pbkdf2-sha256$i=1,l=31$c2FsdHNhbHQ${key}"), "another length"),
            (format!("$pbkdf2-sha256$i=1$$${key}"), "no salt"),
            ("$pbkdf2-sha256$i=1$c2FsdHNhbHQ$c2FsdHNhbHQ".to_owned(), "a short key"),
            (format!("$pbkdf2-sha256$i=1$c2FsdHNhbHQ${}", "AAAA".repeat(22)), "a long key"),
            (format!("$pbkdf2-sha256$i=1$c2FsdHNhbHQ${key}$"), "something behind it"),
        ] {
            let refused = ImportedHash::parse(&text).err();
            assert_eq!(refused, Some(NotImported::Malformed("PBKDF2")), "{why}");
        }
    }
}
