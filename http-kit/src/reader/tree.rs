//! Any input as a tree that keeps what a map would lose: repeated members.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::wrong::Step;

/// A value of a body or a query.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    /// The `null` of a member: the same as none, if there is such a member.
    Unset,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// The value of a parameter, which is text whatever its type.
    Word(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
    /// A refused value: its reader does not see it.
    LeftOut,
    /// In place of an absent member that must be there: whatever its reader expects.
    Anything,
}

impl Node {
    /// The pairs of a query or a form.
    pub fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        Self::Object(pairs.into_iter().map(|(name, value)| (name, Self::Word(value))).collect())
    }

    /// Takes repeated members out, and gives the way to each.
    pub fn take_repeated(&mut self) -> Vec<Vec<Step>> {
        let mut found = Vec::new();
        self.walk(&mut Vec::new(), &mut found);
        found
    }

    fn walk(&mut self, way: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        match self {
            Self::List(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    way.push(Step::Item(at));
                    item.walk(way, found);
                    way.pop();
                }
            }
            Self::Object(members) => {
                let mut seen = HashSet::new();
                let repeated: HashSet<String> = members
                    .iter()
                    .filter(|(name, _)| !seen.insert(name.as_str()))
                    .map(|(name, _)| name.clone())
                    .collect();
                let mut noted = HashSet::new();
                for (name, value) in members.iter_mut() {
                    way.push(Step::Member(name.clone()));
                    if repeated.contains(name) {
                        // Once for all of them.
                        if noted.insert(name.clone()) {
                            found.push(way.clone());
                        }
                        *value = Self::LeftOut;
                    } else {
                        value.walk(way, found);
                    }
                    way.pop();
                }
            }
            _ => {}
        }
    }

    /// Makes members that are `null` ones that are not set. An item of a list has a place, so it stays.
    pub fn unset_nulls(&mut self) {
        match self {
            Self::List(items) => items.iter_mut().for_each(Self::unset_nulls),
            Self::Object(members) => {
                for (_, value) in members {
                    if matches!(value, Self::Null) { *value = Self::Unset } else { value.unset_nulls() }
                }
            }
            _ => {}
        }
    }

    /// What a way leads to.
    pub fn at(&mut self, way: &[Step]) -> Option<&mut Self> {
        let Some((step, rest)) = way.split_first() else { return Some(self) };
        let next = match (self, step) {
            (Self::List(items), Step::Item(at)) => items.get_mut(*at),
            (Self::Object(members), Step::Member(name)) => {
                members.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
            }
            _ => None,
        };
        next?.at(rest)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
