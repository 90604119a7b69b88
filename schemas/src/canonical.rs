//! Whether a text is canonical JSON (RFC 8785). It is read once, and nothing is built of it: an auditor asks this of every
//! event of a history.

use std::cmp::Ordering;

use serde_json::Value;

use crate::envelope::canonical_json;

/// How deep arrays and objects may be nested.
const DEPTH: u32 = 100;

/// Integers of this many digits are exact, and their canonical form is their digits.
const EXACT: usize = 15;

/// Where a text stops being canonical JSON, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct NotCanonical {
    /// The number of the byte, from 1.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Checks that a text is one JSON value in the form that RFC 8785 gives it.
pub fn check(text: &str) -> Result<(), NotCanonical> {
    let mut reader = Reader { text, at: 0, depth: DEPTH };
    reader.value()?;
    if reader.at < text.len() { reader.wrong("something follows the value") } else { Ok(()) }
}

/// The form that RFC 8785 gives to a value.
pub fn text(value: &Value) -> String {
    canonical_json(value)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// How much deeper it may go.
    depth: u32,
}

impl<'t> Reader<'t> {
    fn wrong<T>(&self, what: &'static str) -> Result<T, NotCanonical> {
        Err(NotCanonical { at: self.at + 1, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past this byte, if it is next.
    fn passes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self) -> Result<(), NotCanonical> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<(), NotCanonical>) -> Result<(), NotCanonical> {
        self.at += 1;
        self.depth = match self.depth.checked_sub(1) {
            Some(depth) => depth,
            None => return self.wrong("it is nested too deeply"),
        };
        read(self)?;
        self.depth += 1;
        Ok(())
    }

    fn object(&mut self) -> Result<(), NotCanonical> {
        if self.passes(b'}') {
            return Ok(());
        }
        let mut before: Option<&str> = None;
        loop {
            let start = self.at;
            let name = self.string()?;
            if let Some(before) = before
                && order(before, name) != Ordering::Less
            {
                self.at = start;
                return self.wrong("the members are not in order, or one is there twice");
            }
            before = Some(name);
            if !self.passes(b':') {
                return self.wrong("a colon is expected");
            }
            self.value()?;
            if self.passes(b'}') {
                return Ok(());
            }
            if !self.passes(b',') {
                return self.wrong("a comma or the end of the object is expected");
            }
        }
    }

    fn array(&mut self) -> Result<(), NotCanonical> {
        if self.passes(b']') {
            return Ok(());
        }
        loop {
            self.value()?;
            if self.passes(b']') {
                return Ok(());
            }
            if !self.passes(b',') {
                return self.wrong("a comma or the end of the array is expected");
            }
        }
    }

    /// The text between the quotes, escapes and all.
    fn string(&mut self) -> Result<&'t str, NotCanonical> {
        if !self.passes(b'"') {
            return self.wrong("a string is expected");
        }
        let start = self.at;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            let Some(plain) = plain else { return self.wrong("the string does not end") };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at - 1]);
                }
                b'\\' => self.escape()?,
                _ => return self.wrong("a control character is not escaped"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotCanonical> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        let length = match rest {
            [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            // The others have a shorter form.
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..]
            | [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return self.wrong("this is not escaped as it should be"),
        };
        self.at += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotCanonical> {
        let rest = &self.text[self.at..];
        let is_part = |byte: u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        let number = &rest[..rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_plain = digits.len() <= EXACT && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_canonical = if is_plain {
            number == "0" || (!digits.is_empty() && !digits.starts_with('0'))
        } else {
            let value: Option<Value> = serde_json::from_str(number).ok();
            let text = value.and_then(|value| serde_json_canonicalizer::to_string(&value).ok());
            text.as_deref() == Some(number)
        };
        if !is_canonical {
            return self.wrong("the number is not in its shortest form");
        }
        self.at += number.len();
        Ok(())
    }

    fn literal(&mut self) -> Result<(), NotCanonical> {
        let literals = ["true", "false", "null"];
        match literals.iter().find(|literal| self.text[self.at..].starts_with(**literal)) {
            Some(literal) => {
                self.at += literal.len();
                Ok(())
            }
            None => self.wrong("a value is expected"),
        }
    }
}

/// The order of names: by their UTF-16 code units.
fn order(before: &str, name: &str) -> Ordering {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii() && byte != b'\\');
    if is_plain(before) && is_plain(name) {
        return before.cmp(name);
    }
    unescaped(before).encode_utf16().cmp(unescaped(name).encode_utf16())
}

fn unescaped(name: &str) -> String {
    // It was read as a string, so it is one.
    serde_json::from_str(&format!("\"{name}\"")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::check;

    /// What another library makes of it.
    fn is_canonical(text: &str) -> bool {
        let value: Result<Value, _> = serde_json::from_str(text);
        value.is_ok_and(|value| serde_json_canonicalizer::to_string(&value).is_ok_and(|it| it == text))
    }

    fn value() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-100..100_i64).prop_map(Value::from),
        ];
        let text = || prop_oneof![".{0,8}", "[\u{0}-\u{2f}\\\\\"\u{e000}-\u{e003}\u{10000}-\u{10003}a]{0,4}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever is changed in it.
        #[test]
        fn it_agrees_with_another_library(
            value in value(),
            at in any::<prop::sample::Index>(),
            new in prop_oneof![Just(String::new()), "[ \\\\\"0-9eE+.,:{}\u{0}-\u{1f}a-fnu\u{e9}-]{1,3}"],
            cut in 0..3_usize,
        ) {
            let canonical = serde_json_canonicalizer::to_string(&value).expect("a value");
            prop_assert_eq!(check(&canonical), Ok(()), "{}", canonical);
            let spaced = serde_json::to_string_pretty(&value).expect("a value");
            prop_assert_eq!(check(&spaced).is_ok(), is_canonical(&spaced), "{}", spaced);
            let mut chars: Vec<char> = canonical.chars().collect();
            let start = at.index(chars.len() + 1);
            chars.splice(start..(start + cut).min(chars.len()), new.chars());
            let changed: String = chars.into_iter().collect();
            prop_assert_eq!(check(&changed).is_ok(), is_canonical(&changed), "{}", changed);
        }
    }

    #[test]
    fn it_says_what_is_wrong_and_where() {
        for (text, at, what) in [
            (r#"{"a":1, "b":2}"#, 8, "a string is expected"),
            (r#"{"b":1,"a":2}"#, 8, "the members are not in order"),
            (r#"{"a":1,"a":2}"#, 8, "one is there twice"),
            (r#"{"a":"\u0041"}"#, 7, "not escaped as it should be"),
            (r#"{"a":"\u001F"}"#, 7, "not escaped as it should be"),
            (r#"{"a":1.0}"#, 6, "shortest form"),
            (r#"{"a":-0}"#, 6, "shortest form"),
            (r#"{"a":1"#, 7, "the end of the object"),
            (r#"{"a":"#, 6, "a value is expected"),
            ("{} ", 3, "something follows"),
            ("", 1, "a value is expected"),
        ] {
            let wrong = check(text).expect_err(text);
            assert!(wrong.at == at && wrong.what.contains(what), "{text}: {wrong}");
        }
        assert!(check(&"[".repeat(100_000)).is_err());
    }
}
