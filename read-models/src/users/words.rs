//! The blind index of names and addresses: keyed tokens of beginnings of their words.

use std::collections::BTreeSet;

use domain::{AppId, Personal};
use event_store::LookupKey;

/// The lengths of indexed beginnings, in characters. A search uses the longest that fits and filters the decrypted
/// candidates, so a few lengths are enough and the index stays small.
const LENGTHS: [usize; 3] = [3, 5, 8];

/// The words of a text, in lower case.
pub(super) fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The tokens that find a person.
pub(super) fn tokens(lookup: &LookupKey, app: &str, personal: &Personal) -> BTreeSet<[u8; 8]> {
    let texts = [personal.name.as_deref(), personal.email.as_ref().map(domain::Email::as_str)];
    let mut tokens = BTreeSet::new();
    for word in texts.into_iter().flatten().flat_map(words) {
        for length in LENGTHS {
            match beginning(&word, length) {
                Some(text) => tokens.insert(token(lookup, app, text)),
                None => break,
            };
        }
    }
    tokens
}

/// The token of a search word; `None` if it is shorter than every indexed length.
pub(super) fn search_token(lookup: &LookupKey, app: &AppId, word: &str) -> Option<[u8; 8]> {
    let text = LENGTHS.iter().rev().find_map(|&length| beginning(word, length))?;
    Some(token(lookup, app.as_str(), text))
}

/// Whether each search word begins a word of the name or the address.
pub(super) fn matches(search: &[String], personal: &Personal) -> bool {
    let texts = [personal.name.as_deref(), personal.email.as_ref().map(domain::Email::as_str)];
    let present: Vec<String> = texts.into_iter().flatten().flat_map(words).collect();
    search.iter().all(|wanted| present.iter().any(|word| word.starts_with(wanted)))
}

fn beginning(word: &str, length: usize) -> Option<&str> {
    match word.char_indices().nth(length) {
        Some((end, _)) => Some(&word[..end]),
        None => (word.chars().count() == length).then_some(word),
    }
}

/// Tokens differ by app, so that the table does not show who is a user of two apps.
fn token(lookup: &LookupKey, app: &str, text: &str) -> [u8; 8] {
    lookup.token(&format!("{app}\u{0}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_everything_else() {
        assert_eq!(words("Ada M. O'Brien-Łoś"), ["ada", "m", "o", "brien", "łoś"]);
        assert_eq!(words("ada+x@example.com"), ["ada", "x", "example", "com"]);
    }

    #[test]
    fn beginnings_count_characters() {
        assert_eq!(beginning("łoś", 3), Some("łoś"));
        assert_eq!(beginning("łoś", 5), None);
        assert_eq!(beginning("lovelace", 5), Some("lovel"));
    }
}
