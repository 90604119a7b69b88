//! Commands that an operator runs beside a service (as root, from another folder, in a container), and what the service tells its
//! operators.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_services::Nats;

use super::operators::{as_stranger, doctor, line};
use super::{Server, World, contents, mode, set_mode, succeeded};

const PATIENCE: Duration = Duration::from_mins(1);

fn is_root() -> bool {
    succeeded(&Command::new("id").arg("-u").output().expect("runs")).trim() == "0"
}

/// Files whose owner differs from the folder's, or that others can access.
fn strange(folder: &Path) -> Vec<String> {
    let owner = fs::metadata(folder).expect("it is there").uid();
    let group = fs::metadata(folder).expect("it is there").gid();
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let is_strange = |name: &String| {
        let found = fs::metadata(folder.join(name)).expect("it is there");
        found.uid() != owner || found.gid() != group || found.permissions().mode() & 0o007 != 0
    };
    names.filter(is_strange).collect()
}

/// As root if this runs as root, on the folder of a service that runs as another user.
#[test]
fn what_root_makes_or_replaces_is_the_services() {
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).expect("made");
    set_mode(&data, 0o700);
    if is_root() {
        chown(&data, Some(65534), Some(65534)).expect("given");
    }
    // From the first file on.
    for command in [
        &["migrate"][..],
        &["app", "create", "acme"],
        &["rotate-master-key"],
        &["api-key", "create", "platform", "--name", "ops", "--out", "data/ops.key"],
        &["user", "show", "default", "nobody@example.com"],
        &["end-sessions", "--all"],
        &["export"],
        &["doctor"],
    ] {
        world.run(command);
        assert_eq!(strange(&data), [""; 0], "{command:?}");
    }
    assert_eq!(mode(&data.join("ops.key")), 0o600);
    // A lost file is recreated; a file with narrower or wider group access keeps it.
    for name in ["read-models.db", "journal.db.lock"] {
        fs::remove_file(data.join(name)).expect("removed");
    }
    succeeded(&world.run(&["migrate"]));
    assert_eq!(strange(&data), [""; 0]);
    for (group, wanted) in [(65534, 0o640), (4242, 0o640), (4242, 0o400)] {
        if is_root() {
            chown(data.join("master.key"), Some(65534), Some(group)).expect("given");
        }
        set_mode(&data.join("master.key"), wanted);
        let before =
            (fs::metadata(data.join("master.key")).expect("there"), fs::read(data.join("master.key")));
        succeeded(&world.run(&["rotate-master-key"]));
        let after = fs::metadata(data.join("master.key")).expect("there");
        assert_ne!(fs::read(data.join("master.key")).expect("read"), before.1.expect("read"));
        assert_eq!(
            (after.uid(), after.gid(), mode(&data.join("master.key"))),
            (before.0.uid(), before.0.gid(), wanted)
        );
    }
    // A server that root starts by mistake, and what it leaves behind when killed.
    let mut server = world.serve();
    assert_eq!(strange(&data), ["master.key"].into_iter().filter(|_| is_root()).collect::<Vec<_>>());
    server.child.kill().expect("killed");
    server.child.wait().expect("ends");
    // The service still works with all of it.
    let server = Server::start(&mut as_stranger(&world, &["serve"]));
    drop(server);
}

#[test]
fn doctor_says_which_folder_it_looked_at_and_how_to_name_another() {
    let (service, elsewhere) = (World::new(), World::new());
    succeeded(&service.run(&["migrate"]));
    // No folder is configured.
    let lines = elsewhere.doctor_here(&[]);
    let said = line(&lines, "warning data folder: ");
    let looked = elsewhere.path("data");
    let looked = looked.strip_prefix("/").expect("absolute").display().to_string();
    assert!(said.contains(&looked) && said.contains("no stores yet"), "{said}");
    assert!(said.contains("--data") && said.contains("--config"), "{said}");
    assert!(!elsewhere.path("data").exists());
    // Configured in each way.
    let data = service.path("data").display().to_string();
    let lines = elsewhere.doctor_here(&["--data", &data]);
    line(&lines, &format!("ok data folder: {data}"));
    line(&lines, "ok journal: ");
    let config = service.path("watchword.toml");
    fs::write(&config, format!("data_dir = \"{data}\"\n")).expect("written");
    line(&elsewhere.doctor_here(&["--config", config.to_str().expect("UTF-8")]), "ok journal: ");
    // The command line overrides the environment.
    let mut command = elsewhere.command(&["doctor", "--json", "--data", &data]);
    line(&doctor(command.env("WATCHWORD_DATA_DIR", "/nowhere")), "ok journal: ");
    // A new folder that was configured is not a mistake.
    let lines = elsewhere.doctor_here(&["--data", "new"]);
    assert!(line(&lines, "ok data folder: ").contains("new: no stores yet"), "{lines:#?}");
}

impl World {
    fn doctor_here(&self, more: &[&str]) -> Vec<String> {
        doctor(&mut self.command(&[&["doctor", "--json"][..], more].concat()))
    }
}

/// Only the data folder is writable, and there is no place for temporary files.
#[test]
fn doctor_needs_no_place_for_temporary_files() {
    let world = World::new();
    let mut server = world.serve();
    succeeded(&world.run(&["app", "create", "acme", "--url", &server.url]));
    let without = |command: &mut Command| {
        command.env("TMPDIR", "/nonexistent").env("SQLITE_TMPDIR", "/nonexistent");
        doctor(command)
    };
    for running in [true, false] {
        if !running {
            // Killed, so its logs are still there.
            server.child.kill().expect("killed");
            server.child.wait().expect("ends");
        }
        let lines = without(&mut world.command(&["doctor", "--json"]));
        assert!(!lines.iter().any(|line| line.starts_with("fault")), "{lines:#?}");
        if is_root() {
            let data = world.path("data");
            let script = format!(
                "mount --bind {0} {0} && mount -o remount,ro,bind / && exec \"$0\" \"$@\"",
                data.display()
            );
            let told = world.command(&["doctor", "--json"]);
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script]).arg(told.get_program()).args(told.get_args());
            for (name, value) in told.get_envs().filter_map(|(name, value)| Some((name, value?))) {
                command.env(name, value);
            }
            command.current_dir(world.folder.path()).stdin(Stdio::null());
            let lines = without(&mut command);
            assert!(!lines.iter().any(|line| line.starts_with("fault")), "read-only: {lines:#?}");
        }
    }
}

/// Reads a child's lines on both outputs until one contains this text, and the rest after it has ended.
fn lines_until(child: &mut Child, said: &str) -> Vec<String> {
    let (sender, lines) = std::sync::mpsc::channel();
    let outputs: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().expect("a pipe")), Box::new(child.stderr.take().expect("a pipe"))];
    for output in outputs {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    drop(sender);
    let (mut all, mut signalled) = (Vec::new(), false);
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        if line.contains(said) && !signalled {
            signalled = true;
            let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status();
            assert!(kill.expect("runs").success());
        }
        all.push(line);
    }
    assert!(signalled, "nothing said {said}: {all:#?}");
    child.wait().expect("ends");
    all
}

/// Everything a process logs, from first to last line, whatever happens to it.
#[test]
fn with_json_every_line_of_the_log_is_json() {
    let all_json = |lines: &[String], said: &[&str]| {
        assert!(!lines.is_empty());
        for line in lines {
            let read: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            for member in ["timestamp", "level"] {
                assert!(read[member].is_string(), "{member} in {line}");
            }
        }
        for part in said {
            assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:#?}");
        }
    };
    let world = World::new();
    let json = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("WATCHWORD_LOG_FORMAT", "json").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = json(&["serve"])
        .env("WATCHWORD_INTERNAL_LISTEN", "127.0.0.1:0")
        .env("WATCHWORD_RATE_LIMITS", "off")
        .spawn()
        .expect("starts");
    let lines = lines_until(&mut child, "metrics and readiness");
    all_json(
        &lines,
        &["listens on http://", "documentation: ", "platform key: in ", "rate limits are off", "stopping"],
    );

    // Exits before and after logging was started.
    let failing = |command: &mut Command| {
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).expect("text") + &String::from_utf8_lossy(&output.stderr);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    all_json(
        &failing(json(&["serve"]).env("WATCHWORD_LISTEN", "nowhere")),
        &["WATCHWORD_LISTEN", "\"ERROR\""],
    );
    all_json(&failing(json(&["serve"]).env("WATCHWORD_LISTNE", "x")), &["WATCHWORD_LISTEN"]);
    all_json(
        &failing(json(&["serve"]).env("WATCHWORD_LISTEN", "192.0.2.1:1")),
        &["cannot listen on 192.0.2.1:1"],
    );
    fs::write(world.path("watchword.toml"), "log_format = \"json\"\nlisten = 7\n").expect("written");
    all_json(&failing(world.command(&["serve"]).env_remove("WATCHWORD_LISTEN")), &["listen"]);
    fs::remove_file(world.path("watchword.toml")).expect("removed");
    set_mode(&world.path("data").join("master.key"), 0o644);
    all_json(&failing(&mut json(&["serve"])), &["master.key"]);
}

#[test]
fn a_missing_public_url_is_told_where_others_can_come() {
    for (listen, url, level, said) in [
        ("0.0.0.0:0", None, "WARN", "others cannot reach"),
        ("127.0.0.1:0", None, "INFO", "on this machine alone"),
        ("0.0.0.0:0", Some("https://login.example.com"), "", ""),
    ] {
        let world = World::new();
        let mut command = world.command(&["serve"]);
        command.env("WATCHWORD_LISTEN", listen).env("WATCHWORD_LOG_FORMAT", "json");
        if let Some(url) = url {
            command.env("WATCHWORD_PUBLIC_URL", url);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let lines = lines_until(&mut child, "platform key");
        let told: Vec<&String> = lines.iter().filter(|line| line.contains("WATCHWORD_PUBLIC_URL")).collect();
        assert_eq!(told.len(), usize::from(url.is_none()), "{lines:#?}");
        assert!(told.iter().all(|line| line.contains(level) && line.contains(said)), "{told:?}");
    }
}

const BROUGHT: &str = "an-operators-own-secret-of-44-characters-xyz=";

/// A platform key from a secret: created outside, admitted at the start, listed, revoked.
#[test]
fn a_secret_brings_the_platform_key() {
    let world = World::new();
    let file = world.path("platform.key");
    fs::write(&file, format!("{BROUGHT}\n")).expect("written");
    set_mode(&file, 0o600);
    let with = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("WATCHWORD_ADMIN_KEY_FILE", &file);
        command
    };
    let migrated = succeeded(&with(&["migrate"]).output().expect("runs"));
    assert!(migrated.contains("platform key the one of the configuration"), "{migrated}");
    assert!(!world.path("data").join("admin.key").exists(), "no other one is made");
    let mut server = Server::start(&mut with(&["serve"]));
    assert!(server.rest.iter().any(|line| line.contains("platform key: the one of the configuration")));
    // On the command line, which also reads it from there, and for anybody who has it.
    succeeded(&with(&["app", "create", "acme", "--url", &server.url]).output().expect("runs"));
    let key_file = ["--admin-key-file", file.to_str().expect("UTF-8")];
    let listed = world
        .run(&[&["api-key", "list", "platform", "--json", "--url", &server.url][..], &key_file].concat());
    let listed: Value = serde_json::from_str(&succeeded(&listed)).expect("JSON");
    assert_eq!(listed["items"].as_array().expect("a list").len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["name"], "platform key of the configuration");
    let id = listed["items"][0]["id"].as_str().expect("an id").to_owned();
    let lines = doctor(&mut with(&["doctor", "--json"]));
    assert!(line(&lines, "ok server: ready").contains(&server.url), "{lines:#?}");
    line(&lines, "ok projector: users");
    // No stored byte reveals it.
    server.child.kill().expect("killed");
    server.child.wait().expect("ends");
    for (name, bytes) in contents(&world.path("data")) {
        assert!(!bytes.windows(BROUGHT.len()).any(|window| window == BROUGHT.as_bytes()), "{name}");
    }
    // A second start does not admit it again; a revoked key stays revoked, and there is a way back.
    let mut server = Server::start(&mut with(&["serve"]));
    let count = |server: &Server| {
        let listed =
            with(&["api-key", "list", "platform", "--json", "--url", &server.url]).output().expect("runs");
        let listed: Value = serde_json::from_str(&succeeded(&listed)).expect("JSON");
        listed["items"].as_array().expect("a list").len()
    };
    assert_eq!(count(&server), 1);
    succeeded(&with(&["api-key", "revoke", "platform", &id, "--url", &server.url]).output().expect("runs"));
    let refused = with(&["app", "list", "--url", &server.url]).output().expect("runs");
    assert!(super::refusal(&refused).contains("unauthenticated"));
    server.child.kill().expect("killed");
    server.child.wait().expect("ends");
    let server = Server::start(&mut with(&["serve"]));
    let refused = with(&["app", "list", "--url", &server.url]).output().expect("runs");
    assert!(super::refusal(&refused).contains("unauthenticated"), "it came back by a start");
    drop(server);
    let own = succeeded(&world.run(&["api-key", "create", "platform", "--name", "back"]));
    // A key created by an instance can be configured as well, as its text.
    let server = Server::start(world.command(&["serve"]).env("WATCHWORD_ADMIN_KEY", own.trim()));
    let with_own =
        world.command(&["app", "list", "--url", &server.url]).env("WATCHWORD_ADMIN_KEY", own.trim()).output();
    assert!(succeeded(&with_own.expect("runs")).contains("acme"));
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_by_name() {
    let world = World::new();
    let file = world.path("secret");
    let run = |environment: &[(&str, &str)]| {
        let output = world.command(&["migrate"]).envs(environment.iter().copied()).output().expect("runs");
        super::refusal(&output)
    };
    let path = file.to_str().expect("UTF-8");
    let absent = run(&[("WATCHWORD_ADMIN_KEY_FILE", path)]);
    assert!(absent.contains("WATCHWORD_ADMIN_KEY_FILE") && absent.contains(path), "{absent}");
    assert_eq!(absent.matches("No such file").count(), 1, "{absent}");
    fs::write(&file, BROUGHT).expect("written");
    for wide in [0o644, 0o604, 0o602] {
        set_mode(&file, wide);
        let told = run(&[("WATCHWORD_ADMIN_KEY_FILE", path)]);
        assert!(told.contains(path) && told.contains("chmod 600"), "{wide:o}: {told}");
    }
    set_mode(&file, 0o640);
    let both = run(&[("WATCHWORD_ADMIN_KEY_FILE", path), ("WATCHWORD_ADMIN_KEY", BROUGHT)]);
    assert!(both.contains("WATCHWORD_ADMIN_KEY_FILE") && both.contains("leave out one"), "{both}");
    for wrong in ["short", &"a".repeat(31), &"a".repeat(257), "with spaces in it, which no header carries so"]
    {
        let told = run(&[("WATCHWORD_ADMIN_KEY", wrong)]);
        assert!(
            told.contains("WATCHWORD_ADMIN_KEY") && told.contains("openssl") && !told.contains(wrong),
            "{told}"
        );
    }
    let of_another = format!("wwk_{}", "A".repeat(80));
    let told = run(&[("WATCHWORD_ADMIN_KEY", &of_another)]);
    assert!(told.contains("another instance") && !told.contains(&of_another), "{told}");
    // Other secrets, the configuration file, and the message about a wrong value.
    fs::write(&file, "c2hvcnQ=\n").expect("written");
    let told = run(&[("WATCHWORD_MASTER_KEY_FILE", path)]);
    assert!(told.contains("master_key") && !told.contains("c2hvcnQ="), "{told}");
    fs::write(&file, "smtp://user@localhost\n").expect("written");
    fs::write(world.path("watchword.toml"), format!("mail_url_file = \"{path}\"\n")).expect("written");
    assert!(run(&[]).contains("mail_url_file"));
    fs::write(world.path("watchword.toml"), "listen_file = \"x\"\n").expect("written");
    assert!(run(&[]).contains("listen_file"), "only of what may be a secret");
}

/// The first process of a container reaps orphans.
#[test]
fn the_first_process_leaves_no_zombies() {
    // Without root, it is first in a namespace of its own.
    let (as_root, into): (&[&str], &[&str]) = if is_root() {
        (&[], &[])
    } else {
        (&["--user", "--map-root-user"], &["--user", "--preserve-credentials"])
    };
    let world = World::new();
    let serve = world.command(&["serve"]);
    let mut command = Command::new("unshare");
    command
        .args(as_root)
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(serve.get_program())
        .arg("serve");
    for (name, value) in serve.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        command.env(name, value);
    }
    command.current_dir(world.folder.path()).stdin(Stdio::null());
    let server = Server::start(&mut command);
    let children = |of: u32| -> Vec<u32> {
        let listed = fs::read_dir(format!("/proc/{of}/task")).expect("it runs").filter_map(Result::ok);
        let listed = listed.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        listed
            .flat_map(|line| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let first = children(server.child.id())[0];
    for round in 0..3 {
        // They run as long as this file exists, after their parent has ended.
        let file = world.path(&format!("wait-{round}"));
        fs::write(&file, "").expect("written");
        let script =
            format!("for it in 1 2 3; do (while test -e {}; do sleep 0.05; done) & done", file.display());
        let inside = Command::new("nsenter")
            .args(["--target", &first.to_string(), "--pid"])
            .args(into)
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .status();
        assert!(inside.expect("runs").success());
        let deadline = Instant::now() + PATIENCE;
        while children(first).len() < 3 {
            assert!(Instant::now() < deadline, "they are the first process's children now");
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::remove_file(&file).expect("removed");
        while !children(first).is_empty() {
            assert!(Instant::now() < deadline, "{:?} stay", children(first));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// NATS is queried even if the server is stopped or its stores are missing.
#[test]
fn doctor_asks_nats_whatever_became_of_the_stores() {
    let mut nats = Nats::start();
    let url = nats.url();
    let world = World::new();
    let look = |more: &[(&str, &str)]| {
        let mut command = world.command(&["doctor", "--json"]);
        command.env("WATCHWORD_NATS_URL", &url).envs(more.iter().copied());
        doctor(&mut command)
    };
    let away = [
        ("WATCHWORD_JOURNAL_URL", "postgres://a:b@127.0.0.1:9/x"),
        ("WATCHWORD_MASTER_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
    ];
    line(&look(&[]), "ok NATS: nats-server");
    line(&look(&away), "ok NATS: nats-server");
    succeeded(&world.run(&["migrate"]));
    line(&look(&[]), "ok NATS: nats-server");
    let server = world.serve();
    line(&look(&[]), "ok NATS: nats-server");
    drop(server);
    // A store is lost.
    fs::rename(world.path("data").join("keys.db"), world.path("keys.db")).expect("moved");
    line(&look(&[]), "ok NATS: nats-server");
    nats.kill();
    line(&look(&[]), "warning NATS");
    line(&look(&away), "warning NATS");
}
