//! What the sources look like: which room of the command service may know which, how long a file may be, and what nothing
//! may be called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tests::workspace;

use crate::{dependencies, files};

/// The rooms of the command service, highest first: each uses only those that come after it.
const ROOMS: &[&str] = &[
    "bootstrap",
    "housekeeping",
    "admin",
    "magic_link",
    "accounts",
    "invitations",
    "mailed_tokens",
    "erase",
    "sessions",
    "organization_keys",
    "organizations",
    "api_keys",
    "webhooks",
    "keys",
    "checkpoint_keys",
    "apps",
    "callers",
    "pages",
    "api",
    "service",
    "imports",
    "locate",
    "passwords",
];

/// The crates that decide, and those that act on what was decided: what they know comes from the log.
const DECIDES: &[&str] = &["domain", "dispatcher", "command-service", "effects", "tokens", "http-kit"];

/// The most lines of a file that gives no reason for more.
const LINES: usize = 500;
/// What the reason stands behind, in a line of its own in the file's first comment.
const LONG: &str = "//! Longer than most, as ";

/// Names that say nothing about what is behind them, as a word of the name of a file, a module or a type.
const SAY_NOTHING: &[&str] = &[
    "base", "common", "helper", "helpers", "manager", "managers", "misc", "stuff", "things", "util", "utils",
];

/// Banned names that say nothing about the thing they name.
const TAKEN_BACK: &[&str] = &["Edge", "Look", "NotIn", "Post", "entitled", "mailed", "proven"];

/// A source file of a crate, without its comments.
struct Source {
    /// Below `src`, with slashes.
    path: String,
    code: String,
}

/// The code of a crate, but not that of its tests.
fn sources(package: &str) -> Vec<Source> {
    let root = workspace().join(package).join("src");
    let all = files(&root, ".rs").into_iter().map(|(path, text)| {
        let path = path.strip_prefix(&root).expect("below it").to_string_lossy().replace('\\', "/");
        Source { path, code: without_comments(&text) }
    });
    all.filter(|source| !source.path.starts_with("tests")).collect()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn room_of(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or_default()
}

/// The parts of a path like `a::{b::c, d}`, as far as its first names: `b` and `d` of `{b::c, d}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut part) = (0, Vec::new(), String::new());
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(part.trim()));
                part.clear();
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    names.push(name(part.trim()));
    names.retain(|name| !name.is_empty());
    names
}

fn is_name(character: Option<char>) -> bool {
    character.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// What follows each place where a word stands.
fn after<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let whole = move |at: &usize| !is_name(code[..*at].chars().next_back());
    code.match_indices(word).map(|(at, _)| at).filter(whole).map(move |at| &code[at + word.len()..])
}

/// The first names behind the paths of a file that begin at the root of the crate: `crate::…`, and `super::…` as often as
/// leads there.
fn from_root(path: &str, code: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = after(code, "crate::").flat_map(first_names).collect();
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let up = "super::".repeat(module.split('/').count());
    names.extend(after(code, &up).flat_map(first_names));
    names
}

/// For each name that `lib.rs` shows of a room, the room.
fn shown(lib: &str) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    for path in after(lib, "pub use crate::") {
        let path = path.split(';').next().unwrap_or_default();
        if let Some((room, rest)) = path.split_once("::") {
            for part in rest.trim_matches(['{', '}']).split(',') {
                let name = part.rsplit(" as ").next().unwrap_or_default().trim();
                rooms.insert(name.to_owned(), room.to_owned());
            }
        }
    }
    rooms
}

/// The names of what a room adds to the service itself: a call of them is an arrow, too.
fn methods(code: &str) -> Vec<String> {
    let blocks = code.match_indices("\nimpl CommandService {").map(|(at, _)| {
        let block = &code[at + 1..];
        &block[..block.find("\n}").unwrap_or(block.len())]
    });
    let lines =
        blocks.flat_map(str::lines).filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    lines.flat_map(|line| after(line, "fn ")).flat_map(first_names).collect()
}

/// The names behind `service.` and `self.` that are called.
fn calls(code: &str) -> BTreeSet<String> {
    let owners = ["service", "self"].iter().flat_map(|owner| after(code, owner));
    let behind = owners.filter_map(|rest| rest.trim_start().strip_prefix('.'));
    let called = behind.filter(|rest| {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[name..].starts_with(['(', ':'])
    });
    called.flat_map(first_names).collect()
}

/// The arrows of the rooms that lead up, one a line: file, room, and what of it is used.
fn arrows_up(sources: &[Source], rooms: &[&str]) -> Vec<String> {
    let rank = |room: &str| rooms.iter().position(|other| *other == room);
    let lib = sources.iter().find(|source| source.path == "lib.rs");
    let shown = lib.map(|lib| shown(&lib.code)).unwrap_or_default();
    let mut owners = BTreeMap::new();
    for source in sources {
        owners.extend(methods(&source.code).into_iter().map(|name| (name, room_of(&source.path).to_owned())));
    }
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.path != "lib.rs") {
        let room = room_of(&source.path);
        let paths = from_root(&source.path, &source.code).into_iter().map(|name| {
            let room = shown.get(&name).unwrap_or(&name).clone();
            (room, name)
        });
        let calls =
            calls(&source.code).into_iter().filter_map(|name| Some((owners.get(&name)?.clone(), name)));
        for (other, name) in paths.chain(calls) {
            if other != room && rank(&other).is_some_and(|other| Some(other) < rank(room)) {
                found.push(format!("{}: {room} must not know {other} ({name})", source.path));
            }
        }
    }
    found
}

#[test]
fn rooms_know_only_those_below_them() {
    let sources = sources("command-service");
    let found: BTreeSet<&str> =
        sources.iter().map(|source| room_of(&source.path)).filter(|room| *room != "lib").collect();
    assert_eq!(
        found,
        ROOMS.iter().copied().collect(),
        "each room has its place in ROOMS, and each place a room"
    );
    let up = arrows_up(&sources, ROOMS);
    assert!(up.is_empty(), "what is shared belongs into the room whose thing it is:\n{}", up.join("\n"));
}

#[test]
fn an_arrow_up_is_seen_however_it_is_written() {
    let lib = "mod high;\nmod low;\npub use crate::high::{Shown, hidden as Other};";
    let high = "\nimpl CommandService {\n    pub fn done_above(&self) {}\n}\n";
    for (path, code) in [
        ("low.rs", "use crate::high::Thing;"),
        ("low.rs", "use crate::{\n    low::A,\n    high::{B, C},\n};"),
        ("low.rs", "fn f() { crate::high::f() }"),
        ("low.rs", "use crate::Shown;"),
        ("low.rs", "use crate::{A, Other};"),
        ("low.rs", "use super::high;"),
        ("low/mod.rs", "use super::high::Thing;"),
        ("low/one.rs", "use super::super::high::Thing;"),
        ("low.rs", "fn f() { service.done_above() }"),
        ("low.rs", "fn f() { self.service\n    .done_above() }"),
        ("low.rs", "fn f() { self.done_above::<A>() }"),
    ] {
        let source = |path: &str, code: &str| Source { path: path.to_owned(), code: code.to_owned() };
        let sources = [source("lib.rs", lib), source("high.rs", high), source(path, code)];
        assert_eq!(arrows_up(&sources, &["high", "low"]).len(), 1, "{code}");
        assert!(arrows_up(&sources, &["low", "high"]).is_empty(), "down: {code}");
    }
}

#[test]
fn what_decides_knows_no_read_model() {
    let dependencies = dependencies();
    for package in DECIDES {
        let (mut known, mut next) = (BTreeSet::new(), vec![(*package).to_owned()]);
        while let Some(package) = next.pop() {
            if known.insert(package.clone()) {
                next.extend(dependencies.get(&package).into_iter().flatten().cloned());
            }
        }
        for other in ["read-models", "projection-service"] {
            assert!(!known.contains(other), "{package} decides, and so must not know {other}");
        }
    }
}

/// All sources of the workspace, their paths from its root.
fn all_sources() -> Vec<(String, String)> {
    let root = workspace();
    let folders = fs::read_dir(root).expect("it can be listed").filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        (path.is_dir() && !name.starts_with('.') && name != "target").then_some(path)
    });
    let relative = |path: &Path| path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
    folders.flat_map(|folder| files(&folder, ".rs")).map(|(path, text)| (relative(&path), text)).collect()
}

/// What is wrong with a file's length, if something is.
fn wrong_length(text: &str) -> Option<String> {
    let lines = text.lines().count();
    let reason = text.lines().take_while(|line| line.starts_with("//!")).find_map(|it| it.strip_prefix(LONG));
    match reason {
        None if lines > LINES => Some(format!(
            "{lines} lines: split it where a second thing begins, or write `{LONG}…` into its first comment"
        )),
        Some(_) if lines <= LINES => Some(format!("{lines} lines need no reason")),
        Some(reason) if reason.len() < 20 => Some(format!("{reason:?} is no reason")),
        _ => None,
    }
}

#[test]
fn files_are_short_or_say_why_not() {
    let wrong: Vec<String> = all_sources()
        .iter()
        .filter_map(|(path, text)| wrong_length(text).map(|what| format!("{path}: {what}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_long_file_needs_a_reason_and_a_short_one_none() {
    let reason = format!("//! A file.\n{LONG}it is one long table of its kind.\n");
    let long = "x\n".repeat(LINES);
    assert!(wrong_length(&long).is_none() && wrong_length(&format!("{long}x\n")).is_some());
    assert!(wrong_length(&format!("{reason}{long}")).is_none() && wrong_length(&reason).is_some());
    assert!(wrong_length(&format!("{LONG}so.\n{long}")).is_some());
    assert!(wrong_length(&format!("{long}{reason}")).is_some(), "it stands at the head");
}

/// The words of a name in either case: `a_file` and `AType` are two each.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for character in name.chars() {
        if character.is_uppercase() || !character.is_alphanumeric() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (character.is_alphanumeric(), words.last_mut()) {
            word.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The names that a file declares for modules and types.
fn declared(code: &str) -> BTreeSet<String> {
    let kinds = ["mod ", "struct ", "enum ", "trait ", "type ", "union "];
    kinds.iter().flat_map(|kind| after(code, kind)).flat_map(first_names).collect()
}

/// The names of a file and of what it declares that say nothing.
fn bad_names(path: &str, text: &str) -> Vec<String> {
    let stems = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    let names = stems.chain(declared(&without_comments(text)));
    let is_bad = |name: &String| {
        words(name).iter().any(|word| SAY_NOTHING.contains(&word.as_str()))
            || TAKEN_BACK.contains(&name.as_str())
    };
    names.filter(is_bad).collect()
}

#[test]
fn names_say_something() {
    let bad: Vec<String> = all_sources()
        .iter()
        // What this file shows below is bad on purpose.
        .filter(|(path, _)| !path.ends_with("house/rooms.rs"))
        .flat_map(|(path, text)| bad_names(path, text).into_iter().map(move |name| format!("{path}: {name}")))
        .collect();
    assert!(bad.is_empty(), "call it by what it is:\n{}", bad.join("\n"));
}

#[test]
fn a_name_that_says_nothing_is_seen() {
    for (path, text) in [
        ("a/src/utils.rs", ""),
        ("a/src/http_helpers/mod.rs", ""),
        ("a/src/b.rs", "pub mod common;"),
        ("a/src/b.rs", "struct SessionManager {"),
        ("a/src/b.rs", "pub(crate) enum Look {"),
        ("a/src/proven.rs", ""),
    ] {
        assert_eq!(bad_names(path, text).len(), 1, "{path} {text}");
    }
    assert!(bad_names("a/src/base64.rs", "struct Uncommon;\n// struct Utils;\nfn is_common() {}").is_empty());
}
