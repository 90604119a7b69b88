//! What operators rely on: file permissions, what a refused start leaves behind, which server `doctor` queries, and the way back
//! to a platform key.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use test_services::{Nats, Smtp, SmtpTls};

use super::{Server, World, contents, mode, refusal, set_mode, succeeded};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The findings of doctor: verdict, check and detail, a line each.
pub(super) fn doctor(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("runs");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let word = |value: &Value| value.as_str().expect("text").to_owned();
    let checks = found["checks"].as_array().expect("a list").iter();
    let lines: Vec<String> = checks
        .map(|it| format!("{} {}: {}", word(&it["verdict"]), word(&it["check"]), word(&it["detail"])))
        .collect();
    let faults = lines.iter().filter(|line| line.starts_with("fault")).count();
    assert_eq!(output.status.success(), faults == 0, "{lines:#?}");
    lines
}

#[track_caller]
pub(super) fn line<'l>(lines: &'l [String], start: &str) -> &'l str {
    lines.iter().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {lines:#?}"))
}

impl World {
    fn doctor(&self, environment: &[(&str, &str)]) -> Vec<String> {
        let mut command = self.command(&["doctor", "--json"]);
        command.envs(environment.iter().copied());
        doctor(&mut command)
    }

    /// Serves under a umask that lets everybody read new files.
    fn serve_with_a_wide_mask(&self) -> (Server, PathBuf) {
        let log = self.path("serve.log");
        let mut command = Command::new("sh");
        let serve = self.command(&["serve"]);
        command.args(["-c", "umask 022; exec \"$0\" serve"]).arg(serve.get_program());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.stderr(fs::File::create(&log).expect("made"));
        (Server::start(&mut command), log)
    }
}

fn wide(folder: &Path) -> Vec<String> {
    let files = contents(folder).into_keys();
    files.filter(|name| mode(&folder.join(name)) & 0o077 != 0).collect()
}

#[test]
fn stores_are_their_owners_only_whatever_mask_and_folder_let_others_do() {
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).expect("made");
    set_mode(&data, 0o755);
    let (mut server, _) = world.serve_with_a_wide_mask();
    succeeded(&world.run(&["app", "create", "acme", "--url", &server.url]));
    let names: Vec<String> = contents(&data).into_keys().collect();
    for name in ["journal.db-wal", "journal.db-shm", "journal.db.lock", "keys.db-wal", "read-models.db-wal"] {
        assert!(names.iter().any(|there| there == name), "{name} is not among {names:?}");
    }
    assert_eq!(wide(&data), [""; 0], "of a running server");
    server.child.kill().expect("killed");
    server.child.wait().expect("ends");
    assert_eq!(wide(&data), [""; 0], "after a kill");

    // As an earlier version left them.
    let stores: Vec<&String> = names.iter().filter(|name| name.contains(".db")).collect();
    for name in &stores {
        set_mode(&data.join(name), 0o644);
    }
    let lines = world.doctor(&[]);
    for name in &stores {
        let said = lines.iter().any(|line| {
            line.starts_with("fault data folder") && line.contains(&format!("{name}. Run: chmod 600"))
        });
        assert!(said, "{name}: {lines:#?}");
    }
    let (_server, log) = world.serve_with_a_wide_mask();
    assert_eq!(wide(&data), [""; 0], "narrowed at the start");
    let log = fs::read_to_string(log).expect("read");
    assert!(
        log.contains("other users of this machine could read this file") && log.contains("journal.db"),
        "{log}"
    );
}

/// A start refused for something outside the folder creates none.
#[test]
fn a_refused_start_leaves_no_journal_behind() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    for (change, said) in [
        (&[("WATCHWORD_LISTEN", taken.as_str())][..], taken.as_str()),
        (&[("WATCHWORD_LISTEN", "192.0.2.1:8080")], "192.0.2.1:8080"),
        (
            &[("WATCHWORD_NATS_URL", "nats://127.0.0.1:1"), ("WATCHWORD_NATS_CREDENTIALS", "absent.creds")],
            "absent.creds",
        ),
    ] {
        let world = World::new();
        let message =
            refusal(&world.command(&["serve"]).envs(change.iter().copied()).output().expect("runs"));
        assert!(message.contains(said), "{message}");
        assert!(
            !world.path("data").exists(),
            "{message}: it left {:?}",
            contents(&world.path("data")).keys()
        );
    }
}

/// The same as a user without write access.
pub(super) fn as_stranger(world: &World, arguments: &[&str]) -> Command {
    set_mode(world.folder.path(), 0o755);
    let mut command = world.command(arguments);
    // Root may write anywhere.
    if succeeded(&Command::new("id").arg("-u").output().expect("runs")).trim() == "0" {
        let binary = world.path("watchword");
        fs::copy(command.get_program(), &binary).expect("copied");
        set_mode(&binary, 0o755);
        let mut other = Command::new(binary);
        for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            other.env(name, value);
        }
        other.args(arguments).current_dir(world.folder.path()).stdin(Stdio::null()).uid(65534).gid(65534);
        command = other;
    }
    command
}

#[test]
fn doctor_names_what_cannot_be_written() {
    let world = World::new();
    // Nothing there yet, and no place to create it.
    set_mode(world.folder.path(), 0o555);
    let lines = doctor(&mut as_stranger_without_leave(&world));
    assert!(line(&lines, "fault data folder").contains("cannot be written by this user"), "{lines:#?}");
    // An empty folder of another user.
    set_mode(world.folder.path(), 0o755);
    let data = world.path("data");
    fs::create_dir(&data).expect("made");
    set_mode(&data, 0o555);
    let lines = doctor(&mut as_stranger(&world, &["doctor", "--json"]));
    assert!(line(&lines, "fault data folder").contains("data cannot be written by this user"), "{lines:#?}");
    let message = refusal(&as_stranger(&world, &["serve"]).output().expect("runs"));
    assert!(message.contains("data") && message.contains("ermission denied"), "{message}");
    // An initialized one is fine for its owner, except one of its files.
    set_mode(&data, 0o755);
    succeeded(&world.run(&["migrate"]));
    assert!(!world.doctor(&[]).iter().any(|line| line.starts_with("fault")), "{:#?}", world.doctor(&[]));
    let lines = doctor(&mut as_stranger(&world, &["doctor", "--json"]));
    assert!(lines.iter().any(|line| line.contains("journal.db cannot be written")), "{lines:#?}");
}

fn as_stranger_without_leave(world: &World) -> Command {
    let command = as_stranger(world, &["doctor", "--json"]);
    set_mode(world.folder.path(), 0o555);
    command
}

#[test]
fn a_platform_key_that_others_can_read_is_refused() {
    let world = World::new();
    succeeded(&world.run(&["migrate"]));
    let key = world.path("data").join("admin.key");
    let before = contents(&world.path("data"));
    for wide in [0o644, 0o604, 0o602] {
        set_mode(&key, wide);
        for command in [&["serve"][..], &["migrate"], &["app", "list"]] {
            let message = world.refused(command);
            assert!(message.contains("admin.key") && message.contains("chmod 600"), "{wide:o}: {message}");
        }
    }
    assert_eq!(contents(&world.path("data")), before);
    set_mode(&key, 0o600);
    world.serve();
}

#[test]
fn doctor_asks_the_server_of_its_own_folder() {
    let (ours, other) = (World::new(), World::new());
    let theirs = other.serve();
    let port = theirs.url.strip_prefix("http://").expect("an address").to_owned();
    let at_their_port = [("WATCHWORD_LISTEN", port.as_str())];

    // Ours listens elsewhere than configured, and is still queried.
    let server = ours.serve();
    let lines = ours.doctor(&at_their_port);
    assert!(line(&lines, "ok server: ready at").contains(&server.url), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains(&port)), "{lines:#?}");

    // If it cannot be identified, nothing is reported about the other one.
    fs::remove_file(ours.path("data").join("serving.json")).expect("removed");
    let lines = ours.doctor(&at_their_port);
    assert!(line(&lines, "warning server").contains("cannot determine"), "{lines:#?}");
    assert!(
        !lines.iter().any(|line| line.starts_with("ok projector") || line.contains("ready at")),
        "{lines:#?}"
    );

    // The record of another instance, as in a copied folder.
    fs::copy(other.path("data/serving.json"), ours.path("data/serving.json")).expect("copied");
    let file = fs::read_to_string(ours.path("data/serving.json")).expect("read");
    let server_port = server.url.strip_prefix("http://").expect("an address");
    fs::write(ours.path("data/serving.json"), file.replace(&port, server_port)).expect("written");
    let lines = ours.doctor(&[]);
    assert!(line(&lines, "warning server").contains("another instance"), "{lines:#?}");
    drop(theirs);
}

/// Something other than Watchword listens there.
#[test]
fn doctor_takes_no_other_program_for_a_server() {
    let world = World::new();
    let server = world.serve();
    let web = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = web.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in web.incoming().flatten() {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        }
    });
    fs::remove_file(world.path("data").join("serving.json")).expect("removed");
    let lines = world.doctor(&[("WATCHWORD_LISTEN", &address)]);
    assert!(line(&lines, "warning server").contains("not Watchword"), "{lines:#?}");
    drop(server);
}

#[test]
fn doctor_talks_to_the_mail_server_before_it_calls_it_well() {
    let world = World::new();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let plain = Smtp::start();
    let (tls, starttls) = (Smtp::start_with_tls(SmtpTls::Wrapped), Smtp::start_with_tls(SmtpTls::StartTls));
    let certificate = tls.certificate().display().to_string();
    let certificate_of_starttls = starttls.certificate().display().to_string();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let login = "mailer:secret%20of%20the%20mailer";
    let smtps = format!("smtps://{login}@localhost:{}", tls.port());
    let upgraded = format!("smtp://{login}@localhost:{}?tls=required", starttls.port());
    for (url, certificate, expected) in [
        (plain.url(), "", "ok mail: sent to"),
        (smtps.clone(), certificate.as_str(), "ok mail: sent to"),
        (upgraded, certificate_of_starttls.as_str(), "ok mail: sent to"),
        // Nothing listening, a silent server, a wrong password, an unknown authority, missing TLS.
        (format!("smtp://{nobody}"), "", "fault mail"),
        (format!("smtp://{}", silent.local_addr().expect("an address")), "", "fault mail"),
        (smtps.replace("secret", "guess"), certificate.as_str(), "fault mail"),
        (smtps.clone(), certificate_of_starttls.as_str(), "fault mail"),
        (format!("{}?tls=required", plain.url()), "", "fault mail"),
    ] {
        let lines = world.doctor(&[
            ("WATCHWORD_MAIL_URL", &url),
            ("SSL_CERT_FILE", certificate),
            ("WATCHWORD_MAIL_SENDER", "no-reply@example.com"),
        ]);
        let said = line(&lines, expected);
        assert!(!said.contains("secret") && !said.contains("guess"), "{said}");
        if expected.starts_with("ok") && url.contains("mailer") {
            assert!(said.contains("with TLS and login"), "{said}");
        }
    }
    assert!(plain.mails().is_empty() && tls.mails().is_empty(), "it sends nothing");
}

#[test]
fn doctor_connects_to_nats_of_a_folder_that_is_stopped_or_new() {
    let world = World::new();
    let server = Nats::start();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let nobody = format!("nats://{nobody}");
    for state in ["new", "stopped"] {
        let lines = world.doctor(&[("WATCHWORD_NATS_URL", &server.url())]);
        assert!(line(&lines, "ok NATS").contains("nats-server 2."), "{state}: {lines:#?}");
        let lines = world.doctor(&[("WATCHWORD_NATS_URL", &nobody)]);
        assert!(line(&lines, "warning NATS").contains("nats_url"), "{state}: {lines:#?}");
        if state == "new" {
            succeeded(&world.run(&["migrate"]));
        }
    }
    for (name, value) in [
        ("WATCHWORD_OTLP_ENDPOINT", format!("http://{}", nobody.trim_start_matches("nats://"))),
        (
            "WATCHWORD_BREACHED_PASSWORDS_URL",
            format!("http://{}/range/", nobody.trim_start_matches("nats://")),
        ),
    ] {
        let lines = world.doctor(&[(name, &value)]);
        assert!(
            lines.iter().any(|line| line.starts_with("warning") && line.contains("takes no connection")),
            "{lines:#?}"
        );
    }
}

/// A start on an existing journal uses the bus right away, before it is connected.
#[test]
fn a_start_with_nats_there_does_not_say_that_it_is_away() {
    let world = World::new();
    let nats = Nats::start();
    for round in 0..3 {
        let log = world.path(&format!("serve-{round}.log"));
        let mut command = world.command(&["serve"]);
        command.env("WATCHWORD_NATS_URL", nats.url()).stderr(fs::File::create(&log).expect("made"));
        let server = Server::start(&mut command);
        succeeded(&world.run(&["app", "create", &format!("app-{round}"), "--url", &server.url]));
        let published = || {
            world.doctor(&[]).iter().any(|line| line.starts_with("ok relay") && line.contains(" 0 behind"))
        };
        for _ in 0..2400 {
            if published() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(published(), "round {round}: {:#?}", world.doctor(&[]));
        let log = fs::read_to_string(&log).expect("read");
        assert!(log.contains("NATS is connected"), "round {round}: {log}");
        assert!(!log.contains("cannot be reached") && !log.contains("interrupted"), "round {round}: {log}");
    }
}

#[test]
fn a_lost_platform_key_is_made_anew() {
    let world = World::new();
    succeeded(&world.run(&["migrate"]));
    let data = world.path("data");
    fs::remove_file(data.join("admin.key")).expect("removed");
    let first = succeeded(&world.run(&["api-key", "create", "platform", "--name", "after the loss"]));
    assert!(first.starts_with("wwk_"), "{first}");
    // Into a file, never over an existing one.
    let file = world.path("ops.key");
    let out = ["api-key", "create", "platform", "--name", "ops", "--out", "ops.key"];
    succeeded(&world.run(&out));
    assert_eq!(mode(&file), 0o600);
    assert!(world.refused(&out).contains("ops.key"));

    let listed = |arguments: &[&str]| {
        let list = succeeded(&world.run(&[arguments, &["--json"]].concat()));
        let list: Value = serde_json::from_str(&list).expect("JSON");
        list["items"].as_array().expect("items").clone()
    };
    let keys = listed(&["api-key", "list", "platform"]);
    let names: Vec<&str> = keys.iter().map(|key| key["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["first platform key", "after the loss", "ops"]);
    assert!(keys.iter().all(|key| key["permissions"] == serde_json::json!(["platform"])), "{keys:?}");

    // Rotation: with the new one, over a running server, the old ones are revoked.
    {
        let server = world.serve();
        let with = ["--url", &server.url, "--admin-key-file", "ops.key"];
        for key in &keys[..2] {
            let id = key["id"].as_str().expect("an id");
            succeeded(&world.run(&[&["api-key", "revoke", "platform", id][..], &with].concat()));
        }
        let list = succeeded(&world.run(&[&["api-key", "list", "platform"][..], &with].concat()));
        assert!(list.contains("ops") && !list.contains("after the loss"), "{list}");
        // Over a running server another one needs a key; the lost one no longer works.
        fs::write(world.path("old.key"), &first).expect("written");
        set_mode(&world.path("old.key"), 0o600);
        let create =
            ["api-key", "create", "platform", "--name", "x", "--url", &server.url, "--admin-key-file"];
        assert!(world.refused(&[&create[..], &["old.key"]].concat()).contains("unauthenticated"));
        assert!(succeeded(&world.run(&[&create[..], &["ops.key"]].concat())).starts_with("wwk_"));
    }
    // Even when all of them are revoked.
    for key in listed(&["api-key", "list", "platform"]) {
        world.run(&["api-key", "revoke", "platform", key["id"].as_str().expect("an id")]);
    }
    assert!(world.refused(&["app", "list"]).contains("api-key create platform"));
    succeeded(&world.run(&["api-key", "create", "platform", "--name", "back"]));
    assert_eq!(listed(&["api-key", "list", "platform"]).len(), 1);
    // And it is in the history.
    let history = succeeded(&world.run(&["export", "--app", "platform"]));
    assert_eq!(history.matches("\"type\":\"ApiKeyIssued\"").count(), 5, "{history}");
    for wrong in [
        &["api-key", "create", "platform", "--name", "x", "--permission", "users:read"][..],
        &["api-key", "create", "default", "--name", "x"],
        &["api-key", "create", "default", "--name", "x", "--permission", "platform"],
    ] {
        assert_eq!(world.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn lists_and_people_by_address() {
    let world = World::new();
    let server = world.serve();
    let at = ["--url", server.url.as_str()];
    succeeded(&world.run(&[&["app", "create", "acme", "--name", "Acme Corporation"][..], &at].concat()));
    let apps = succeeded(&world.run(&[&["app", "list"][..], &at].concat()));
    let rows: Vec<&str> = apps.lines().map(|line| line.split_whitespace().next().expect("a cell")).collect();
    assert_eq!(rows, ["app_id", "acme", "default"], "{apps}");
    assert!(apps.contains("Acme Corporation"), "{apps}");
    let create = ["api-key", "create", "acme", "--name", "backend", "--permission", "users:read,users:write"];
    let key = succeeded(&world.run(&[&create[..], &at].concat()));
    let keys = succeeded(&world.run(&[&["api-key", "list", "acme"][..], &at].concat()));
    assert!(keys.contains("backend") && keys.contains("users:read,users:write"), "{keys}");
    assert!(!keys.contains(key.trim()), "a list shows no key");

    let register = |app: &str, address: &str| {
        let body = format!("{{\"email\":\"{address}\",\"password\":\"violet-Kettle-93\"}}");
        let url = format!("{}/v1/apps/{app}/auth/register", server.url);
        let output = Command::new("curl")
            .args(["-sS", "-f", "-H", "Content-Type: application/json", "-d", &body, &url])
            .output()
            .expect("curl runs");
        let answer: Value = serde_json::from_str(&succeeded(&output)).expect("JSON");
        answer["user"]["id"].as_str().expect("an id").to_owned()
    };
    let ada = register("acme", "ada.love+lace@example.com");
    register("acme", "ada.love@example.com");
    register("default", "ada.love+lace@example.com");
    let show = |address: &str| {
        let mut output = world.run(&[&["user", "show", "acme", address, "--json"][..], &at].concat());
        // The list of users may lag a moment behind.
        for _ in 0..2400 {
            if output.status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
            output = world.run(&[&["user", "show", "acme", address, "--json"][..], &at].concat());
        }
        let user: Value = serde_json::from_str(&succeeded(&output)).expect("JSON");
        user["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(show("ada.love+lace@example.com"), ada);
    assert_eq!(show("ADA.Love+Lace@Example.COM"), ada);
    assert_eq!(show(&ada), ada);
    let ban = ["user", "ban", "acme", "ada.love+lace@example.com", "--reason", "x"];
    succeeded(&world.run(&[&ban[..], &at].concat()));
    let nobody = ["user", "show", "acme", "nobody@example.com"];
    assert!(world.refused(&[&nobody[..], &at].concat()).contains("no user of acme has the address"));
    let nonsense = ["user", "show", "acme", "ada"];
    assert!(world.refused(&[&nonsense[..], &at].concat()).contains("neither"));
    drop(server);

    // The same with the folder of a stopped server.
    let user = succeeded(&world.run(&["user", "show", "acme", "ada.love+lace@example.com"]));
    assert!(user.contains(&ada) && user.contains("\"banned\": true"), "{user}");
    assert!(world.refused(&nobody).contains("no user of acme has the address"));
    assert_eq!(succeeded(&world.run(&["app", "list"])).lines().count(), 3);
    assert!(succeeded(&world.run(&["api-key", "list", "acme"])).contains("backend"));
    let message = world.refused(&["export", "--app", "acne"]);
    assert!(message.contains("no app acne"), "{message}");
}

#[test]
fn wrong_toml_is_told_with_line_and_column() {
    let world = World::new();
    for (toml, place) in [
        ("listen = \n", "line 1, column 10"),
        ("listen = \"127.0.0.1:1\"\n[mail\nsender = \"a\"\n", "line 2, column 6"),
        ("# ü\nlog = \"info\"\nlog = \"info\"\n", "line 3, column 1"),
        ("log = \"info\"\n\n  x y\n", "line 3, column 5"),
    ] {
        fs::write(world.path("watchword.toml"), toml).expect("written");
        let message = world.refused(&["migrate"]);
        assert!(message.contains("watchword.toml") && message.contains(place), "{toml:?}: {message}");
    }
}
