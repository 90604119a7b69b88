//! What the sources say of the process: who starts what goes on in the background, and who prints.

use std::path::Path;

use tests::workspace;

use crate::{dependencies, files};

/// What starts something that nobody waits for.
const STARTS: &[&str] = &["::spawn(", ".spawn(", "thread::Builder", "spawn_blocking(", "JoinSet::"];

/// Where something is started that lasts no longer than what it is for. All else is a task of the process: `tasks::start`
/// starts it again when it fails, and shows it.
const SHORT: &[(&str, &str)] = &[
    ("tasks/src/lib.rs", "the tasks themselves"),
    ("command-service/src/admin/users/import/run.rs", "an import, which goes on without its caller"),
    ("dispatcher/src/lib.rs", "a decision, which goes on without its caller"),
    ("effects/src/mailer/transport.rs", "the file of a mail"),
    ("effects/src/webhooks/runner.rs", "the tasks of webhooks, which end with their node's turn"),
    ("event-store/src/contract.rs", "rivals in the adapters' suite"),
    ("event-store/src/kurrentdb/link.rs", "a connection; one that ends is made again by the next call"),
    (
        "event-store/src/postgres/pool.rs",
        "a new connection, and the end of what somebody has left unfinished",
    ),
    ("event-store/src/repository.rs", "a snapshot"),
    ("read-models/src/filling.rs", "the writers of a rebuild, which end with it"),
    ("read-models/src/places.rs", "the end of a file that was replaced"),
    ("http-kit/src/unread.rs", "the rest of a request"),
    ("tokens/src/signing.rs", "a new key"),
    ("watchword/src/commands/demo.rs", "the server of a demo, which ends with it"),
    ("watchword/src/commands/users/import.rs", "the file of an import, which ends with it"),
    ("watchword/src/connections.rs", "a connection"),
    ("watchword/src/logging/outlet.rs", "the last lines of a log whose task has failed for good"),
    ("watchword/src/journal_check/pages.rs", "pages of a journal that are read ahead, and end with it"),
    ("watchword/src/verify/export.rs", "threads that share the lines of a file, and end with it"),
    ("watchword/src/traces.rs", "a request to the collector, and the end of the library's own thread"),
];

/// What prints without a way to fail, and so panics.
const PRINTS: &[&str] = &["println!", "print!(", "dbg!"];

/// The sources of what runs, without tests, examples and the test programs.
fn sources() -> Vec<(String, String)> {
    let root = workspace();
    let crates = dependencies().into_keys().filter(|name| name != "tests" && name != "test-services");
    let folders = crates.map(|name| root.join(name).join("src")).filter(|folder| folder.is_dir());
    let all = folders.flat_map(|folder| files(&folder, ".rs"));
    let relative =
        |path: &Path| path.strip_prefix(root).expect("below it").to_string_lossy().replace('\\', "/");
    let named = all.map(|(path, text)| {
        // What follows is tests.
        let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
        (relative(&path), text[..end].to_owned())
    });
    named.filter(|(path, _)| !path.contains("/tests/") && !path.ends_with("tests.rs")).collect()
}

/// Lines of code with one of these words, as file and line.
fn lines_with<'a>(path: &'a str, text: &'a str, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let hits = code.filter(move |(_, line)| words.iter().any(|word| line.contains(word)));
    hits.map(move |(number, line)| format!("{path}:{}: {}", number + 1, line.trim()))
}

#[test]
fn what_lasts_is_started_where_it_is_watched() {
    let sources = sources();
    let found: Vec<String> = sources
        .iter()
        .filter(|(path, _)| !SHORT.iter().any(|(short, _)| short == path))
        .flat_map(|(path, text)| lines_with(path, text, STARTS))
        .collect();
    assert!(
        found.is_empty(),
        "start it with `tasks::start`, or say in SHORT when it ends:\n{}",
        found.join("\n")
    );
    for (path, _) in SHORT {
        let text = sources.iter().find(|(source, _)| source == path).map(|(_, text)| text);
        let starts = text.is_some_and(|text| lines_with(path, text, STARTS).next().is_some());
        assert!(starts, "{path} starts nothing: take it out of SHORT");
    }
}

#[test]
fn nothing_prints_that_panics_when_nobody_reads() {
    let found: Vec<String> = sources()
        .iter()
        .flat_map(|(path, text)| lines_with(path, text, PRINTS).collect::<Vec<_>>())
        .collect();
    assert!(found.is_empty(), "a server logs; a command writes with writeln!:\n{}", found.join("\n"));
}
