//! Reads types from a tree. The values of parameters are text: numbers, booleans and closed sets are recognized in it.

use std::slice;

use schemas::field_codes;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::tree::Node;
use super::wrong::{Step, Wrong};

type Result<T> = std::result::Result<T, Wrong>;

impl Node {
    fn refused(&self, expected: &str) -> Wrong {
        let found = match self {
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Unsigned(value) => Unexpected::Unsigned(*value),
            Self::Signed(value) => Unexpected::Signed(*value),
            Self::Float(value) => Unexpected::Float(*value),
            Self::Text(_) | Self::Word(_) => Unexpected::Str(""),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
            Self::Null | Self::Unset | Self::LeftOut | Self::Anything => Unexpected::Unit,
        };
        Wrong::invalid_type(found, &expected)
    }
}

fn whole_number<'de, V: Visitor<'de>>(node: &'de Node, visitor: V) -> Result<V::Value> {
    let Node::Word(text) = node else {
        return match node {
            Node::Anything => visitor.visit_u64(0),
            _ => node.deserialize_any(visitor),
        };
    };
    if let Ok(number) = text.parse::<i64>() {
        visitor.visit_i64(number)
    } else if let Ok(number) = text.parse::<u64>() {
        visitor.visit_u64(number)
    } else if is_all_digits(text.strip_prefix('-').unwrap_or(text)) {
        Err(Wrong::value(field_codes::OUT_OF_RANGE, "the number is too large"))
    } else {
        Err(Wrong::value(field_codes::INVALID_TYPE, "must be a whole number"))
    }
}

fn is_all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn number<'de, V: Visitor<'de>>(node: &'de Node, visitor: V) -> Result<V::Value> {
    match node {
        Node::Word(text) => match text.parse() {
            Ok(number) => visitor.visit_f64(number),
            Err(_) => Err(Wrong::value(field_codes::INVALID_TYPE, "must be a number")),
        },
        Node::Anything => visitor.visit_f64(0.0),
        _ => node.deserialize_any(visitor),
    }
}

fn text<'de, V: Visitor<'de>>(node: &'de Node, visitor: V) -> Result<V::Value> {
    match node {
        Node::Anything => visitor.visit_str(""),
        _ => node.deserialize_any(visitor),
    }
}

macro_rules! forward {
    ($($method:ident)+ => $to:ident) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            $to(self, visitor)
        })+
    };
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Node::Null | Node::Unset | Node::LeftOut | Node::Anything => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(*value),
            Node::Unsigned(value) => visitor.visit_u64(*value),
            Node::Signed(value) => visitor.visit_i64(*value),
            Node::Float(value) => visitor.visit_f64(*value),
            Node::Text(text) | Node::Word(text) => visitor.visit_str(text),
            Node::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Node::Object(members) => visitor.visit_map(Members::new(members, &[])),
        }
    }

    forward!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 => whole_number);
    forward!(deserialize_f32 deserialize_f64 => number);
    forward!(deserialize_char deserialize_str deserialize_string deserialize_identifier => text);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Node::Word(text) if text.eq_ignore_ascii_case("true") => visitor.visit_bool(true),
            Node::Word(text) if text.eq_ignore_ascii_case("false") => visitor.visit_bool(false),
            Node::Word(_) => Err(Wrong::value(field_codes::INVALID_TYPE, "must be true or false")),
            Node::Anything => visitor.visit_bool(false),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        text(self, visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        text(self, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Node::Null | Node::Unset | Node::LeftOut | Node::Anything => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Node::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Node::Anything => visitor.visit_seq(Items([].iter().enumerate())),
            _ => Err(self.refused("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self {
            Node::Object(members) => visitor.visit_map(Members::new(members, &[])),
            Node::Anything => visitor.visit_map(Members::new(&[], &[])),
            // The type of any JSON object would take `null` for an empty one.
            _ => Err(self.refused("an object")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self {
            Node::Object(members) => visitor.visit_map(Members::new(members, fields)),
            Node::Anything => self.deserialize_map(visitor),
            // A derived reader would also take a list with the members in order.
            _ => Err(self.refused("an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let name: &str = match self {
            Node::Text(text) => text,
            Node::Word(text) => {
                variants.iter().find(|name| name.eq_ignore_ascii_case(text)).copied().unwrap_or(text)
            }
            Node::Anything => variants.first().copied().unwrap_or_default(),
            _ => return Err(self.refused("a string")),
        };
        let name: StrDeserializer<'_, Wrong> = name.into_deserializer();
        visitor.visit_enum(name)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
}

/// The items of a list without those that are left out. Each keeps its number.
struct Items<'de>(std::iter::Enumerate<slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let Some((at, item)) = self.0.find(|(_, item)| !matches!(item, Node::LeftOut)) else {
            return Ok(None);
        };
        seed.deserialize(item).map(Some).map_err(|wrong| wrong.inside(Step::Item(at)))
    }
}

/// The members of an object without those that are left out, and without known ones that are not set.
struct Members<'de> {
    rest: slice::Iter<'de, (String, Node)>,
    known: &'static [&'static str],
    value: Option<&'de (String, Node)>,
}

impl<'de> Members<'de> {
    fn new(members: &'de [(String, Node)], known: &'static [&'static str]) -> Self {
        Self { rest: members.iter(), known, value: None }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        let known = self.known;
        self.value = self.rest.find(|(name, value)| match value {
            Node::LeftOut => false,
            Node::Unset => !known.contains(&name.as_str()),
            _ => true,
        });
        let Some((name, _)) = self.value else { return Ok(None) };
        let name: StrDeserializer<'_, Wrong> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let Some((name, value)) = self.value.take() else {
            return Err(Wrong::custom("a value was asked for before its name"));
        };
        seed.deserialize(value).map_err(|wrong| wrong.inside(Step::Member(name.clone())))
    }
}
