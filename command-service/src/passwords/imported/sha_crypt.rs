//! SHA-2 crypt (`$5$`, `$6$`), as in `/etc/shadow`: <https://www.akkadia.org/drepper/SHA-crypt.txt>.

use sha_crypt::{PasswordVerifier, ShaCrypt as Function};

use super::pbkdf2::number;

const ROUNDS: std::ops::RangeInclusive<u32> = 1000..=999_999_999;
/// Of a hash that does not say.
const ROUNDS_UNSAID: u32 = 5000;
const SALTS: std::ops::RangeInclusive<usize> = 1..=16;
/// About how many PBKDF2 iterations take as long as one round: it hashes password and salt anew.
const ROUND: u64 = 4;

#[derive(Clone)]
pub(crate) struct ShaCrypt {
    rounds: u32,
    text: String,
}

impl ShaCrypt {
    /// Whether a text claims to be one.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with("$5$") || text.starts_with("$6$")
    }

    /// `$6$rounds=5000$<salt>$<hash>`; without rounds there are 5000.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hash_length = if text.starts_with("$5$") { 43 } else { 86 };
        let (first, rest) = text.get(3..)?.split_once('$')?;
        let (rounds, salt, hash) = match first.strip_prefix("rounds=") {
            Some(rounds) => {
                let (salt, hash) = rest.split_once('$')?;
                (number(rounds)?, salt, hash)
            }
            None => (ROUNDS_UNSAID, first, rest),
        };
        let is_digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
        let is_whole = ROUNDS.contains(&rounds)
            && SALTS.contains(&salt.len())
            && hash.len() == hash_length
            && is_digits(salt)
            && is_digits(hash);
        is_whole.then(|| Self { rounds, text: text.to_owned() })
    }

    pub(super) fn cost(&self) -> u64 {
        ROUND * u64::from(self.rounds)
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        // It compares in constant time.
        Function::default().verify_password(password, self.text.as_str()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NFC, NFD, VIOLET, check};
    use super::super::{ImportedHash, NotImported};

    /// Made with passlib 1.7.4, which agrees with glibc.
    #[test]
    fn verifies_what_passlib_made() {
        let long = "0123456789".repeat(10);
        check(
            |hash| matches!(hash, ImportedHash::ShaCrypt(_)),
            &[
                ("$5$rounds=1000$FnobcAGjo3WK/Eim$azZJpsSGpM9ENiWKpEmHKFMYouj/kgRnhN0aGbUaZFD", VIOLET),
                (
                    "$6$rounds=1000$nQfJZXjADPnlomFn$1eT0M2EebNP8.CXtbr0OgJYHuKs0KoYzsY8i1jfVB3UyWS.MfHaZ/iaX7lrYioRGZKvRpdHWZ4CmnlGOAQDJB1",
                    VIOLET,
                ),
                ("$5$rounds=1000$sNY4ZiUzu3pDqvlr$tJ7L5th0A9O/so38vn3BEGP2F3ijUxH.D3XhsYswCa4", NFC),
                (
                    "$6$rounds=1000$HPWQXz4M14NGD9nd$yhug7TgAqSSg0b9jMIqNIZhIs8fE/lnqdB.W8dPsR0TgTovCC8pmE0aQWdbNnzjM3DNFrmSVPeziQQ4fiR1Z4/",
                    NFD,
                ),
                ("$5$9e1WTMbZRHkbRKud$.GVL2zL61I3xDvwqsioRN4/jRMzQI8qk9gDWXHya9P8", VIOLET),
                (
                    "$6$Vfw38hfZUoMj8Fdh$TRRt.e/GoJt9/TmRyOhXRyQy2CKt9IfcNBOAf2CsXZA2D6Tm/tdI7HLqf3yKe1CHt2fJq0zeX4tTVXcqs8QqN/",
                    VIOLET,
                ),
                ("$5$rounds=1000$ecvzmQ80Z4RqY05s$LLAgD99GijpeOGwRqdajHRmk.aJNCVZD50Gxqhq7tE0", &long),
                (
                    "$6$rounds=1000$tUjCcNxDNsFw5ZM.$Nm5M4d9hgorZS0emphDY6zzhgbOnxrvtlpFdEs7OXKu9byuZNlOASNXE4swwghdEBz0v7FPM4YI8jttj3SB9y1",
                    &long,
                ),
            ],
        );
    }

    #[test]
    fn other_parameters_are_refused() {
        let hash = "azZJpsSGpM9ENiWKpEmHKFMYouj/kgRnhN0aGbUaZFD";
        for (text, why) in [
            (format!("$5$rounds=999$FnobcAGjo3WK/Eim${hash}"), "too few rounds"),
            (format!("$5$rounds=1000000000$FnobcAGjo3WK/Eim${hash}"), "too many"),
            (format!("$5$rounds=01000$FnobcAGjo3WK/Eim${hash}"), "a leading zero"),
            (format!("$5$rounds=1000${hash}"), "no salt"),
            (format!("$5$FnobcAGjo3WK/Eim0${hash}"), "a long salt"),
            (format!("$5$Fnob:AGjo3WK/Eim${hash}"), "a salt of other characters"),
            (format!("$6$FnobcAGjo3WK/Eim${hash}"), "half a hash"),
            (format!("$5$FnobcAGjo3WK/Eim${}é", &hash[..41]), "a hash of other characters"),
        ] {
            assert_eq!(
                ImportedHash::parse(&text).err(),
                Some(NotImported::Malformed("SHA-2 crypt")),
                "{why}"
            );
        }
    }
}
