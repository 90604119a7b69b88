//! The blind index of users: keyed tokens of the beginnings of words of names and addresses, and of what lists filter by.

use std::collections::BTreeSet;

use domain::{Personal, Role};
use event_store::LookupKey;

use crate::text::{beginnings, begins, words};

/// A keyed token.
pub(super) type Token = [u8; 8];

/// The longest indexed beginning, in characters. What goes on after it is compared with the opened data.
pub(super) const LONGEST: usize = 8;
/// The most tokens of a person's words: beyond any name, and short enough that nobody makes the index large by theirs.
const MOST: usize = 256;

/// The tokens that find a person by name and address, in order.
pub(super) fn tokens(lookup: &LookupKey, app: &str, personal: &Personal) -> BTreeSet<Token> {
    let mut texts = BTreeSet::new();
    for word in of(personal) {
        for rest in beginnings(&word) {
            for (at, c) in rest.char_indices().take(LONGEST) {
                if texts.len() < MOST {
                    texts.insert(rest[..at + c.len_utf8()].to_owned());
                }
            }
        }
    }
    texts.iter().map(|text| token(lookup, app, text)).collect()
}

/// The token of a search word.
pub(super) fn search_token(lookup: &LookupKey, app: &str, word: &str) -> Token {
    let end = word.char_indices().nth(LONGEST).map_or(word.len(), |(at, _)| at);
    token(lookup, app, &word[..end])
}

/// Whether tokens say all about a search word.
pub(super) fn is_whole(word: &str) -> bool {
    word.chars().count() <= LONGEST
}

/// The tokens of what a user is: status, verification, roles.
pub(super) fn marks<'a>(
    lookup: &LookupKey,
    app: &str,
    banned: bool,
    verified: bool,
    roles: impl IntoIterator<Item = &'a Role>,
) -> BTreeSet<Token> {
    let roles = roles.into_iter().map(|role| role_mark(lookup, app, role));
    [status_mark(lookup, app, banned), verified_mark(lookup, app, verified)]
        .into_iter()
        .chain(roles)
        .collect()
}

pub(super) fn status_mark(lookup: &LookupKey, app: &str, banned: bool) -> Token {
    mark(lookup, app, if banned { "banned" } else { "active" })
}

pub(super) fn verified_mark(lookup: &LookupKey, app: &str, verified: bool) -> Token {
    mark(lookup, app, if verified { "verified" } else { "unverified" })
}

pub(super) fn role_mark(lookup: &LookupKey, app: &str, role: &Role) -> Token {
    mark(lookup, app, &format!("role {role}"))
}

/// Whether each search word begins a word of the name or the address.
pub(super) fn matches(search: &[String], personal: &Personal) -> bool {
    let present: Vec<String> = of(personal).collect();
    search.iter().all(|wanted| present.iter().any(|word| begins(word, wanted)))
}

/// The words of a person's name and address.
fn of(personal: &Personal) -> impl Iterator<Item = String> {
    let texts = [personal.name.as_deref(), personal.email.as_ref().map(domain::Email::as_str)];
    texts.into_iter().flatten().flat_map(words)
}

/// Tokens differ by app, so that the table does not show who is a user of two apps.
fn token(lookup: &LookupKey, app: &str, text: &str) -> Token {
    lookup.token(&format!("{app}\u{0}{text}"))
}

/// No word begins with a control character.
fn mark(lookup: &LookupKey, app: &str, text: &str) -> Token {
    token(lookup, app, &format!("\u{1}{text}"))
}
