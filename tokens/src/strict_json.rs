//! JSON objects without duplicate members: parsers that disagree about which one counts can be played off against each
//! other (RFC 7515 section 4 requires this for headers, RFC 8725 section 2.4 gives the reason).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Why a text is not the expected object.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJson {
    /// It is not JSON, has a duplicate member, or does not fit the type.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// It is not an object.
    #[error("the body must be a JSON object")]
    NoObject,
}

/// Parses an object.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, InvalidJson> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    NoDuplicates.deserialize(&mut deserializer).and_then(|()| deserializer.end())?;
    // A derived struct would also accept an array with its members in order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(InvalidJson::NoObject);
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// Walks any JSON and refuses an object with a duplicate member. Derived code checks only members it knows.
#[derive(Clone, Copy)]
struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(self)?;
            if !seen.insert(key) {
                return Err(A::Error::custom("an object has a duplicate member"));
            }
        }
        Ok(())
    }
}
