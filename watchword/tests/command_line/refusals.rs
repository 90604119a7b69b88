//! A refused start has changed nothing.

use super::*;

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).expect("made");
    fs::write(data.join("thesis.odt"), "chapter one").expect("written");
    let before = contents(&data);
    for command in [&["migrate"][..], &["serve"], &["export"]] {
        let message = world.refused(command);
        assert!(message.contains("thesis.odt") && message.contains("data_dir"), "{message}");
    }
    assert_eq!(contents(&data), before);
}

#[test]
fn a_journal_of_something_else_is_left_alone() {
    let world = World::new();
    succeeded(&world.run(&["migrate"]));
    let journal = world.path("data").join("journal.db");
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _ = fs::remove_file(world.path("data").join(name));
    }
    fs::write(&journal, "this is no database, and long enough to be read as the header of one".repeat(100))
        .expect("written");
    let before = contents(&world.path("data"));
    let message = world.refused(&["migrate"]);
    assert!(message.contains("journal.db"), "{message}");
    assert_eq!(contents(&world.path("data")), before);
}

const ANOTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Fails unless all files are byte-for-byte unchanged, with none added or removed.
#[track_caller]
pub(super) fn assert_untouched(folder: &Path, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    let after = contents(folder);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in before {
        assert!(after[name] == *bytes, "{what}: {name} was changed");
    }
}

#[test]
fn a_wrong_master_key_opens_nothing() {
    let world = World::new();
    succeeded(&world.run(&["migrate"]));
    let data = world.path("data");
    let stores = ["admin.key", "journal.db", "journal.db.lock", "keys.db", "master.key", "read-models.db"];
    for round in 0..20 {
        // An orderly close leaves nothing beside the stores, so there is no log to fold in.
        let before = contents(&data);
        assert_eq!(before.keys().collect::<Vec<_>>(), stores, "round {round}");
        for command in [&["migrate"][..], &["serve"], &["export"]] {
            let output =
                world.command(command).env("WATCHWORD_MASTER_KEY", ANOTHER_KEY).output().expect("it runs");
            let message = refusal(&output);
            assert!(message.contains("master key") && !message.contains(ANOTHER_KEY), "{message}");
            assert_untouched(&data, &before, "refused");
        }
        succeeded(&world.run(&["app", "create", &format!("app-{round}")]));
    }
}

#[cfg(unix)]
#[test]
fn what_a_kill_left_is_not_touched_by_a_refusal() {
    let world = World::new();
    let mut server = world.serve();
    succeeded(&world.run(&["app", "create", "acme", "--url", &server.url]));
    server.child.kill().expect("it is killed");
    server.child.wait().expect("it ends");
    let data = world.path("data");
    let left = contents(&data);
    for store in ["journal.db", "keys.db", "read-models.db"] {
        assert!(!left[&format!("{store}-wal")].is_empty(), "{store} has a log to be read");
    }
    let refuse = |change: &str, changed: &dyn Fn(), said: &str| {
        changed();
        let before = contents(&data);
        for command in [&["serve"][..], &["migrate"]] {
            let mut command = world.command(command);
            if change == "another master key" {
                command.env("WATCHWORD_MASTER_KEY", ANOTHER_KEY);
            }
            let message = refusal(&command.output().expect("it runs"));
            assert!(message.contains(said), "{change}: {message}");
            assert_untouched(&data, &before, change);
        }
        let doctor = world.run(&["doctor"]);
        assert_untouched(&data, &before, change);
        assert_eq!(doctor.status.success(), change == "another master key", "{change}: {doctor:?}");
        for name in before.keys().filter(|name| !left.contains_key(*name)) {
            fs::remove_file(data.join(name)).expect("removed");
        }
        for (name, bytes) in &left {
            fs::write(data.join(name), bytes).expect("written");
        }
        set_mode(&data.join("master.key"), 0o600);
    };
    let patch = |name: &'static str, at: usize, bytes: &'static [u8]| {
        let (data, mut file) = (data.clone(), left[name].clone());
        file[at..at + bytes.len()].copy_from_slice(bytes);
        move || fs::write(data.join(name), &file).expect("written")
    };
    let remove = |name: &'static str| {
        let data = data.clone();
        move || fs::remove_file(data.join(name)).expect("removed")
    };
    refuse("another master key", &|| {}, "another master key");
    refuse("no master key", &remove("master.key"), "master.key");
    refuse("no key store", &remove("keys.db"), "keys.db");
    refuse("no journal", &remove("journal.db"), "journal.db");
    refuse("a newer journal", &patch("journal.db", 60, &[0, 0, 0, 99]), "newer");
    refuse("a newer key store", &patch("keys.db", 60, &[0, 0, 0, 99]), "newer");
    refuse("a foreign journal", &patch("journal.db", 0, b"foreign"), "journal.db");
    refuse("a foreign key store", &patch("keys.db", 68, &[0, 0, 0, 1]), "keys.db");
    let foreign = || {
        // With its log, a file that lost its first page is still complete.
        remove("read-models.db-wal")();
        patch("read-models.db", 0, b"foreign")();
    };
    refuse("foreign read models", &foreign, "read-models.db");
    assert!(succeeded(&world.run(&["export"])).contains("acme"), "all is there still");
    succeeded(&world.run(&["migrate"]));
    assert!(!contents(&data).keys().any(|name| name.ends_with("-wal") || name.ends_with("-shm")));
}
