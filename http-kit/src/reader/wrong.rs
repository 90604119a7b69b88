//! What a reader finds wrong, and the way to it. No text here repeats a value: it may be a password in the wrong member.

use std::fmt::{self, Display};

use schemas::field_codes::{self, FieldCode};
use serde::de::{Error, Expected, Unexpected};

/// A step into a tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Member(String),
    Item(usize),
}

/// Refused by the reader of a type.
#[derive(Debug)]
pub(super) struct Wrong {
    /// The way to it, innermost first: it grows while the error is passed on.
    way: Vec<Step>,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// This value.
    Value { code: FieldCode, detail: String },
    /// This object has no such member.
    Missing(&'static str),
    /// This object has members besides these.
    Unknown(&'static [&'static str]),
}

/// 2⁶³: a whole number that is read as a float is not smaller.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

impl Wrong {
    pub fn value(code: FieldCode, detail: impl Into<String>) -> Self {
        Self { way: Vec::new(), what: What::Value { code, detail: detail.into() } }
    }

    /// The same, seen from one step further out.
    pub fn inside(mut self, step: Step) -> Self {
        self.way.push(step);
        self
    }

    /// The way from the root.
    pub fn way(&self) -> Vec<Step> {
        self.way.iter().rev().cloned().collect()
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an invalid value")
    }
}

impl std::error::Error for Wrong {}

impl Error for Wrong {
    fn custom<T: Display>(text: T) -> Self {
        Self::value(field_codes::INVALID, text.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        if let (Unexpected::Float(number), Some(range)) = (unexpected, range_of(&expected)) {
            return if number.abs() < TOO_LARGE {
                let detail = "must be a whole number, without a point or an exponent";
                Self::value(field_codes::INVALID_TYPE, detail)
            } else {
                Self::value(field_codes::OUT_OF_RANGE, format!("must be a whole number {range}"))
            };
        }
        let detail = format!("must be {}, not {}", in_words(&expected), kind_of(unexpected));
        Self::value(field_codes::INVALID_TYPE, detail)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        match range_of(&expected) {
            Some(range) => Self::value(field_codes::OUT_OF_RANGE, format!("must be a whole number {range}")),
            None => Self::value(field_codes::INVALID, format!("must be {}", in_words(&expected))),
        }
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::value(field_codes::INVALID, format!("must be {}", in_words(&expected.to_string())))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        let names = expected.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        Self::value(field_codes::INVALID, format!("must be one of {}", names.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self { way: Vec::new(), what: What::Unknown(expected) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { way: Vec::new(), what: What::Missing(field) }
    }
}

fn kind_of(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "this",
    }
}

/// What Rust's types are called in JSON.
fn in_words(expected: &str) -> &str {
    match expected {
        "i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        text if text.starts_with("struct ") => "an object",
        text if text.starts_with("enum ") => "a string",
        text => text,
    }
}

fn range_of(expected: &str) -> Option<String> {
    Some(match expected {
        "u8" => format!("from 0 to {}", u8::MAX),
        "u16" => format!("from 0 to {}", u16::MAX),
        "u32" => format!("from 0 to {}", u32::MAX),
        "u64" | "usize" => format!("from 0 to {}", u64::MAX),
        "i32" => format!("from {} to {}", i32::MIN, i32::MAX),
        "i64" => format!("from {} to {}", i64::MIN, i64::MAX),
        _ => return None,
    })
}
