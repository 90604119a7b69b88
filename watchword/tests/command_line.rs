//! The binary as people run it: help, configuration, and the folders it must not touch.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

#[cfg(unix)]
#[path = "command_line/beside_a_service.rs"]
mod beside_a_service;
#[cfg(unix)]
#[path = "command_line/operators.rs"]
mod operators;
#[path = "command_line/refusals.rs"]
mod refusals;
#[path = "command_line/user_create.rs"]
mod user_create;

use refusals::assert_untouched;

/// A folder to run in, without the tester's `WATCHWORD_` variables.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchword"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATCHWORD_")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("WATCHWORD_LISTEN", "127.0.0.1:0").env("WATCHWORD_ARGON2", "m=32,t=1,p=1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Runs a command that must be refused, and returns its message.
    fn refused(&self, arguments: &[&str]) -> String {
        refusal(&self.run(arguments))
    }

    /// Starts a server and returns it with its address.
    fn serve(&self) -> Server {
        Server::start(&mut self.command(&["serve"]))
    }
}

struct Server {
    child: Child,
    url: String,
    rest: Vec<String>,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        let first = lines.next().expect("it says where it listens").expect("text");
        let url = first.split("listens on ").nth(1).expect("an address").to_owned();
        let rest = lines.map_while(Result::ok).take(2).collect();
        Self { child, url, rest }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refusal(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[test]
fn every_command_has_help() {
    let world = World::new();
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["demo"],
        &["migrate"],
        &["doctor"],
        &["export"],
        &["app"],
        &["app", "create"],
        &["app", "list"],
        &["api-key"],
        &["api-key", "create"],
        &["api-key", "list"],
        &["api-key", "revoke"],
        &["user"],
        &["user", "create"],
        &["user", "show"],
        &["user", "ban"],
        &["user", "unban"],
        &["user", "unlock"],
        &["user", "revoke-sessions"],
        &["user", "grant-role"],
        &["user", "revoke-role"],
        &["openapi"],
        &["schemas"],
    ];
    for command in commands {
        let help = succeeded(&world.run(&[*command, &["--help"]].concat()));
        assert!(help.contains("Usage:") && help.contains("--config"), "{command:?}: {help}");
    }
    assert!(fs::read_dir(world.folder.path()).expect("the folder").next().is_none(), "help made files");
}

#[test]
fn wrong_usage_is_2() {
    let world = World::new();
    for arguments in
        [&["sevre"][..], &["user", "ban", "default"], &["export", "--after", "x"], &["app", "create", "A B"]]
    {
        assert_eq!(world.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn configuration_errors_name_the_key() {
    let world = World::new();
    fs::write(world.path("watchword.toml"), "lisen = \"127.0.0.1:1\"\n").expect("written");
    let message = world.refused(&["migrate"]);
    assert!(message.contains("lisen") && message.contains("did you mean listen"), "{message}");

    fs::write(world.path("watchword.toml"), "[lockout]\nfailures = -1\n").expect("written");
    assert!(world.refused(&["migrate"]).contains("lockout.failures"));

    fs::write(world.path("watchword.toml"), "listen = \n").expect("written");
    assert!(world.refused(&["migrate"]).contains("TOML"));

    fs::remove_file(world.path("watchword.toml")).expect("removed");
    assert!(world.refused(&["migrate", "--config", "absent.toml"]).contains("absent.toml"));

    let output = world.command(&["migrate"]).env("WATCHWORD_ARGON2", "fast").output().expect("it runs");
    assert!(refusal(&output).contains("WATCHWORD_ARGON2"));
    let output = world.command(&["migrate"]).env("WATCHWORD_NATS_URL", "http://x").output().expect("it runs");
    assert!(refusal(&output).contains("WATCHWORD_NATS_URL"));
    let output = world.command(&["migrate"]).env("WATCHWORD_DATADIR", "x").output().expect("it runs");
    assert!(refusal(&output).contains("WATCHWORD_DATA_DIR"));
    let output =
        world.command(&["migrate"]).env("WATCHWORD_MASTER_KEY", "c2hvcnQ=").output().expect("it runs");
    let message = refusal(&output);
    assert!(message.contains("WATCHWORD_MASTER_KEY") && !message.contains("c2hvcnQ="), "{message}");
    assert!(!world.path("data").exists(), "a refused start made the data folder");
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_only() {
    let world = World::new();
    succeeded(&world.run(&["migrate"]));
    let data = world.path("data");
    assert_eq!(mode(&data), 0o700);
    for file in ["master.key", "admin.key"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    set_mode(&data.join("master.key"), 0o644);
    let message = world.refused(&["migrate"]);
    assert!(message.contains("master.key") && message.contains("chmod 600"), "{message}");
    let doctor = world.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("chmod 600"));
}

#[test]
fn doctor_changes_nothing_and_finds_a_flipped_byte() {
    let world = World::new();
    let mut server = world.serve();
    succeeded(&world.run(&["app", "create", "acme", "--name", "Acme Corporation", "--url", &server.url]));
    server.child.kill().expect("it is killed");
    server.child.wait().expect("it ends");
    let data = world.path("data");
    let left = contents(&data);
    let doctor = succeeded(&world.run(&["doctor"]));
    assert_untouched(&data, &left, "doctor");
    assert!(doctor.contains("every one can be read") && doctor.contains("No faults."), "{doctor}");

    succeeded(&world.run(&["migrate"]));
    succeeded(&world.run(&["doctor"]));
    let mut journal = fs::read(data.join("journal.db")).expect("read");
    let name = b"Acme Corporation";
    let at = journal.windows(name.len()).position(|bytes| bytes == name).expect("the event is in the file");
    journal[at] ^= 1;
    fs::write(data.join("journal.db"), journal).expect("written");
    let before = contents(&data);
    let doctor = world.run(&["doctor", "--json"]);
    assert_untouched(&data, &before, "doctor");
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let faults: Vec<&str> = doctor["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["verdict"] == "fault" && check["check"] == "events")
        .map(|check| check["detail"].as_str().expect("text"))
        .collect();
    assert_eq!(faults.len(), 1, "{doctor}");
    assert!(faults[0].contains("its MAC is wrong") && faults[0].contains("backup"), "{faults:?}");
    assert_eq!(world.run(&["doctor", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn missing_files_of_a_journal_are_not_made_anew() {
    for missing in ["master.key", "keys.db", "journal.db"] {
        let world = World::new();
        succeeded(&world.run(&["migrate"]));
        let data = world.path("data");
        for name in [missing.to_owned(), format!("{missing}-wal"), format!("{missing}-shm")] {
            let _ = fs::remove_file(data.join(name));
        }
        let message = world.refused(&["migrate"]);
        assert!(message.contains(missing) && message.contains("backup"), "{missing}: {message}");
        assert!(!data.join(missing).exists(), "{missing} was made anew");
    }
}

#[test]
fn one_role_needs_stores_that_several_processes_can_open() {
    let world = World::new();
    for role in ["commands", "projections"] {
        let message = world.refused(&["serve", role]);
        assert!(message.contains("SQLite") && message.contains("watchword serve"), "{message}");
    }
    assert!(!world.path("data").exists());
}

#[test]
fn a_password_of_nats_is_kept_from_others_and_from_messages() {
    let world = World::new();
    let file = world.path("watchword.toml");
    fs::write(&file, "nats_url = \"http://watchword:violet@nats\"\n").expect("it can be written");
    set_mode(&file, 0o644);
    let message = world.refused(&["serve"]);
    assert!(message.contains("chmod 600"), "{message}");
    set_mode(&file, 0o600);
    let message = world.refused(&["serve"]);
    assert!(message.contains("nats_url") && !message.contains("violet"), "{message}");
}

#[test]
fn migrate_can_be_repeated() {
    let world = World::new();
    assert!(succeeded(&world.run(&["migrate"])).contains("created"));
    assert!(succeeded(&world.run(&["migrate"])).contains("up to date"));
    let json = succeeded(&world.run(&["migrate", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["created"], false);
}

#[test]
fn one_process_at_a_time_and_commands_over_the_running_one() {
    let world = World::new();
    let server = world.serve();
    assert!(server.rest.iter().any(|line| line.contains("/docs")), "{:?}", server.rest);
    assert!(server.rest.iter().any(|line| line.contains("admin.key")), "{:?}", server.rest);

    assert!(world.refused(&["serve"]).contains("in use"));
    let message = world.refused(&["app", "create", "acme"]);
    assert!(message.contains("in use") && message.contains("--url"), "{message}");
    succeeded(&world.run(&["app", "create", "acme", "--url", &server.url]));
    assert!(world.refused(&["app", "create", "acme", "--url", &server.url]).contains("app_exists"));
    let doctor = world.run(&["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("running server"), "{doctor:?}");
}

#[test]
fn operators_work_on_a_stopped_folder() {
    let world = World::new();
    assert!(world.refused(&["app", "create", "acme"]).contains("no stores yet"));
    succeeded(&world.run(&["migrate"]));
    succeeded(&world.run(&["app", "create", "acme", "--name", "Acme"]));
    let key = succeeded(&world.run(&[
        "api-key",
        "create",
        "acme",
        "--name",
        "backend",
        "--permission",
        "users:read",
    ]));
    assert!(key.starts_with("wwk_"), "{key}");
    let absent = "01939a5f-0000-7000-8000-000000000000";
    assert!(world.refused(&["user", "ban", "acme", absent, "--reason", "x"]).contains("not_found"));

    let export = succeeded(&world.run(&["export", "--app", "acme"]));
    let types: Vec<String> = export
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event a line"))
        .map(|event| event["type"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(types.first().map(String::as_str), Some("AppCreated"));
    assert_eq!(types[types.len() - 2..], ["ApiKeyIssued", "HistoryExported"]);
    let csv = succeeded(&world.run(&["export", "--format", "csv"]));
    assert!(csv.starts_with("position,") && csv.lines().count() > types.len(), "{csv}");

    let doctor = succeeded(&world.run(&["doctor", "--json"]));
    let doctor: serde_json::Value = serde_json::from_str(&doctor).expect("JSON");
    assert_eq!(doctor["ok"], true, "{doctor}");
}

#[cfg(unix)]
#[test]
fn sigterm_ends_it_well() {
    let world = World::new();
    let mut server = world.serve();
    let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", server.child.id())]).status();
    assert!(killed.expect("a shell runs").success());
    assert!(server.child.wait().expect("it ends").success());
}

#[test]
fn documents_are_printed() {
    let world = World::new();
    let api: serde_json::Value =
        serde_json::from_str(&succeeded(&world.run(&["openapi"]))).expect("the OpenAPI document is JSON");
    for path in
        ["/v1/apps/{app_id}/auth/login", "/v1/apps/{app_id}/auth/me", "/v1/events", "/healthz", "/readyz"]
    {
        assert!(api["paths"][path].is_object(), "{path} is not described");
    }
    let schemas: serde_json::Value =
        serde_json::from_str(&succeeded(&world.run(&["schemas"]))).expect("the schemas are JSON");
    assert!(schemas["events/user/UserRegistered.v1.json"].is_object());
    succeeded(&world.run(&["schemas", "--out", "out"]));
    assert!(world.path("out/events/user/UserRegistered.v1.json").exists());
}

#[test]
fn the_demo_goes_as_it_should() {
    let world = World::new();
    let mut child = world.command(&["demo"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut story = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut story).expect("text");
    assert!(child.wait().expect("it ends").success(), "{story}");
    assert!(story.contains("went as they should") && !story.contains("WRONG"), "{story}");
    assert!(story.contains("ok: the receipt proves") && story.contains("ok: it proves nothing"), "{story}");
    for secret in ["correct horse", "wwk_"] {
        assert!(!story.contains(secret), "the demo prints {secret}");
    }
}
