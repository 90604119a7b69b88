//! The reader of bodies, forms and queries: what fits is one value of its type, and of what does not fit every wrong member
//! is named.
//!
//! A derived `Deserialize` stops at the first error. The reader leaves what was refused out and reads again, so that it finds
//! the next, and puts a stand-in where a member is missing. A value that was read this way is dropped. JSON that fits, and has
//! no `null` in it, never comes here: it is read by `serde_json` alone.

mod time;
mod tree;
mod values;
mod wrong;

use schemas::field_codes::{self, FieldCode};
use serde::de::DeserializeOwned;
use tokens::strict_json;

use crate::problem::{MAX_ERRORS, Problem};
use tree::Node;
use wrong::{Step, What, Wrong};

pub use time::Time;

/// Names of unknown members are cut after so many characters: they are returned.
const MAX_NAME: usize = 100;

/// What `null` means as the value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// The same as no member (`application/json`).
    LeftOut,
    /// It removes (`application/merge-patch+json`, RFC 7396).
    Remove,
}

/// Where members are: how an error names them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Body,
    Query,
}

/// Reads a JSON object.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8], nulls: Nulls) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::malformed(field_codes::MISSING, "a JSON body is needed"));
    }
    let may_have_nulls = bytes.windows(4).any(|it| it == b"null");
    if (nulls == Nulls::Remove || !may_have_nulls)
        && let Ok(value) = strict_json::parse(bytes)
    {
        return Ok(value);
    }
    let mut tree = serde_json::from_slice(bytes)
        .map_err(|error| Problem::malformed(field_codes::INVALID, error.to_string()))?;
    if !matches!(tree, Node::Object(_)) {
        return Err(Problem::malformed(field_codes::INVALID_TYPE, "the body must be a JSON object"));
    }
    let repeated = tree.take_repeated();
    if nulls == Nulls::LeftOut {
        tree.unset_nulls();
    }
    read(tree, repeated, Source::Body)
}

/// Reads a line of NDJSON as the body of a request is read: `null` is the same as no member.
pub fn line<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    json(bytes, Nulls::LeftOut)
}

/// Whether a body is the JSON `null`.
pub(crate) fn is_null(bytes: &[u8]) -> bool {
    bytes.trim_ascii() == b"null"
}

/// Reads the pairs of a form.
pub(crate) fn form<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Problem> {
    read_pairs(pairs, Source::Body)
}

/// Reads the pairs of a query.
pub(crate) fn query<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, Problem> {
    read_pairs(pairs, Source::Query)
}

fn read_pairs<T: DeserializeOwned>(pairs: Vec<(String, String)>, source: Source) -> Result<T, Problem> {
    let mut tree = Node::of_pairs(pairs);
    let repeated = tree.take_repeated();
    read(tree, repeated, source)
}

fn read<T: DeserializeOwned>(tree: Node, repeated: Vec<Vec<Step>>, source: Source) -> Result<T, Problem> {
    let mut reading = Reading { tree, source, problem: None, count: 0, is_cut: false };
    for way in repeated {
        reading.note(&way, field_codes::REPEATED, "must be given only once".to_owned());
    }
    loop {
        match T::deserialize(&reading.tree) {
            Ok(value) => return reading.problem.map_or(Ok(value), Err),
            Err(wrong) => {
                if reading.is_cut || !reading.leave_out(&wrong) {
                    return Err(reading.refusal());
                }
            }
        }
    }
}

struct Reading {
    tree: Node,
    source: Source,
    problem: Option<Problem>,
    count: usize,
    /// There are more than an answer lists.
    is_cut: bool,
}

impl Reading {
    /// Notes what is wrong and takes it out. False if there is nothing to take out, so that reading again would not help.
    fn leave_out(&mut self, wrong: &Wrong) -> bool {
        let mut way = wrong.way();
        match &wrong.what {
            What::Value { code, detail } => {
                let Some(node) = self.tree.at(&way) else { return false };
                if way.is_empty() || matches!(node, Node::LeftOut | Node::Anything) {
                    return false;
                }
                // The texts of value types are ours, but those of libraries may quote.
                let quotes = matches!(&*node, Node::Text(text) | Node::Word(text) if is_quoted(text, detail));
                let detail =
                    if quotes { "is not a valid value of this member".to_owned() } else { detail.clone() };
                *node = Node::LeftOut;
                self.note(&way, *code, detail);
            }
            What::Missing(name) => {
                let Some(Node::Object(members)) = self.tree.at(&way) else { return false };
                // Noted before, if it was refused.
                let refused = members.iter_mut().find(|(known, _)| known == name);
                let mut is_noted = false;
                match refused {
                    Some((_, value)) if matches!(value, Node::LeftOut | Node::Unset) => {
                        is_noted = matches!(value, Node::LeftOut);
                        *value = Node::Anything;
                    }
                    Some(_) => return false,
                    None => members.push(((*name).to_owned(), Node::Anything)),
                }
                if !is_noted {
                    way.push(Step::Member((*name).to_owned()));
                    self.note(&way, field_codes::MISSING, "is required".to_owned());
                }
            }
            What::Unknown(known) => {
                let Some(Node::Object(members)) = self.tree.at(&way) else { return false };
                let mut unknown = Vec::new();
                for (name, value) in members.iter_mut().filter(|(name, _)| !known.contains(&name.as_str())) {
                    if !matches!(value, Node::LeftOut) {
                        *value = Node::LeftOut;
                        unknown.push(name.clone());
                    }
                }
                if unknown.is_empty() {
                    return false;
                }
                let (code, detail) = match self.source {
                    Source::Body => (field_codes::UNKNOWN_MEMBER, "there is no such member here"),
                    Source::Query => (field_codes::UNKNOWN_PARAMETER, "there is no such parameter here"),
                };
                for name in unknown {
                    way.push(Step::Member(name));
                    self.note(&way, code, detail.to_owned());
                    way.pop();
                }
            }
        }
        true
    }

    fn note(&mut self, way: &[Step], code: FieldCode, detail: String) {
        if self.count == MAX_ERRORS {
            self.is_cut = true;
            return;
        }
        self.count += 1;
        let problem =
            self.problem.take().unwrap_or_else(|| Problem::new(schemas::problems::MALFORMED_REQUEST));
        self.problem = Some(match self.source {
            Source::Body => problem.field(pointer(way), code, detail),
            Source::Query => problem.parameter(name(way), code, detail),
        });
    }

    fn refusal(self) -> Problem {
        let problem = self.problem.unwrap_or_else(|| {
            Problem::malformed(field_codes::INVALID, "the request does not fit its schema")
        });
        if self.is_cut { problem.cut() } else { problem }
    }
}

/// Whether a text contains what was sent. So few characters are in any text.
fn is_quoted(sent: &str, text: &str) -> bool {
    sent.len() > 3 && (text.contains(sent) || text.contains(&sent.escape_debug().to_string()))
}

/// The JSON Pointer (RFC 6901).
fn pointer(way: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Item(at) => format!("/{at}"),
        Step::Member(name) => format!("/{}", short(name).replace('~', "~0").replace('/', "~1")),
    };
    way.iter().map(step).collect()
}

/// The name of a parameter.
fn name(way: &[Step]) -> String {
    match way.first() {
        Some(Step::Member(name)) => short(name),
        _ => String::new(),
    }
}

fn short(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests;
