//! An auditor who trusts one key: what `watchword verify` and a program that shares no code with it say of an export, of
//! receipts and of tiles. Trees, proofs and tiles are made here by another implementation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::log::{Tree, canonical, keys_of, verified};
use tests::{Server, Witness, email, until, workspace};

use crate::python;

/// What an auditor has.
struct Held {
    folder: PathBuf,
    /// The key that they were given, which signs no longer.
    key: String,
    /// The key that signs now.
    newest: String,
    events: Vec<Value>,
    /// The number of events in the newest checkpoint.
    size: u64,
}

impl Held {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().expect("it is in a folder")).expect("it can be made");
        fs::write(&path, text).expect("it can be written");
        path
    }
}

/// What happened, with two rotations of the log's key, and checkpoints before and after.
async fn history(server: &mut Server) -> Held {
    let platform = server.platform_key();
    let app = server.create_app(json!({})).await;
    let key = server.get("/v1/audit/key").bearer(&platform).await.expect(200).text;
    let sign = async || server.post("/v1/audit/checkpoint").bearer(&platform).await.expect(200).text;
    let mut notes = Vec::new();
    for number in 0..3 {
        for name in ["ada", "grace"] {
            app.register(&email(name)).await;
        }
        notes.push(sign().await);
        if number < 2 {
            server.post("/v1/audit/key/rotate").bearer(&platform).await.expect(200);
        }
    }
    let keys = server.get("/v1/audit/key").bearer(&platform).await.expect(200).text;
    let size = verified(&notes[2], &keys_of(&keys)).expect("it is signed").size;
    assert!(verified(&notes[2], &keys_of(&key)).is_none(), "the first key has retired");
    assert!(server.terminate().await.success());
    let output = server.command(&["export"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let events = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let folder = server.data().with_file_name("auditor");
    let newest = keys_of(&keys)[0].to_owned();
    let held = Held { folder, key: key.trim().to_owned(), newest, events, size };
    held.write("export.ndjson", &text);
    for (number, note) in notes.iter().enumerate() {
        held.write(&format!("{number}.txt"), note);
    }
    held
}

/// The exit code, and what was said.
fn run(mut command: Command) -> (Option<i32>, Value) {
    let output = command.output().expect("it runs");
    let told = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&output.stderr).into_owned()));
    (output.status.code(), told)
}

/// Python with what the auditor's program needs; `None` without Python.
fn auditor() -> Option<PathBuf> {
    python::environment(&workspace().join("clients/auditor/requirements.txt"), "auditor-venv")
}

fn ask(python: &Path, key: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(python);
    command.arg(workspace().join("clients/auditor/auditor.py")).args(arguments);
    command.args(["--json", "--key", key]);
    run(command)
}

fn says(told: &Value, texts: &[&str]) {
    let all = told.to_string();
    for text in texts {
        assert!(all.contains(text), "{text}: {told:#}");
    }
}

/// A receipt whose proof another implementation made.
fn receipt(held: &Held, tree: &Tree, position: u64) -> Value {
    let hashes = tree.inclusion(position - 1, held.size);
    let note = fs::read_to_string(held.path("2.txt")).expect("it is there");
    json!({
        "position": position,
        "event": held.events[usize::try_from(position - 1).expect("small")],
        "size": held.size,
        "hashes": hashes.iter().map(|hash| STANDARD.encode(hash)).collect::<Vec<_>>(),
        "checkpoint": note,
    })
}

/// What both programs say of an export against all checkpoints; nothing of the other one without Python.
struct Both<'a> {
    server: &'a Server,
    held: &'a Held,
    python: Option<PathBuf>,
}

impl Both<'_> {
    fn ours(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        run(self.server.command(&[&["verify", "--json"], arguments].concat()))
    }

    fn theirs(&self, key: &str, arguments: &[&str]) -> Option<(Option<i32>, Value)> {
        self.python.as_ref().map(|python| ask(python, key, arguments))
    }

    /// Of an export. Both find the same, each in its own words.
    fn of_export(&self, file: &str, code: i32, ours: &[&str], theirs: &[&str], more: &[&str]) {
        let notes = ["0.txt", "1.txt", "2.txt"].map(|name| self.held.path(name));
        let notes: Vec<&str> = notes.iter().flat_map(|note| ["--checkpoint", note]).collect();
        let key = &self.held.key;
        let told = self.ours(&[&["--file", file, "--key", key], &notes[..]].concat());
        assert_eq!(told.0, Some(code), "{file}: {}", told.1);
        says(&told.1, ours);
        if let Some(told) = self.theirs(key, &[&["export", file], &notes[..], more].concat()) {
            assert_eq!(told.0, Some(code), "{file}: {}", told.1);
            says(&told.1, theirs);
        }
    }

    fn of_receipt(&self, receipt: &Value, code: i32) {
        let file = self.held.write("receipt.json", &format!("{receipt:#}"));
        let told = self.ours(&["--receipt", &file, "--key", &self.held.newest]);
        assert_eq!(told.0, Some(code), "{receipt:#}: {}", told.1);
        if let Some(told) = self.theirs(&self.held.newest, &["receipt", &file]) {
            assert_eq!(told.0, Some(code), "{receipt:#}: {}", told.1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_proves_an_export_a_receipt_and_tiles_and_any_change_is_found() {
    let mut server = Server::start_with(&[("WATCHWORD_ARGON2", "m=1024,t=1,p=1")]).await;
    let held = history(&mut server).await;
    let tree = Tree::of(&held.events);
    let both = Both { server: &server, held: &held, python: auditor() };
    let honest = ["endorsed by", "have its root", "chosen at random", "no witness was named"];
    let proven = format!("the first {} events have the root", held.size);
    both.of_export(&held.path("export.ndjson"), 0, &[&proven], &honest, &[]);
    let (code, told) = both.ours(&[]);
    assert_eq!(code, Some(0), "{told}");
    says(&told, &[&format!("the last signed checkpoint: the first {} events have its root", held.size)]);
    changes(&both, &tree);

    let position = held.size - 1;
    let honest = receipt(&held, &tree, position);
    both.of_receipt(&honest, 0);
    for (member, value) in [
        ("/position", json!(position - 1)),
        ("/event/actorkind", json!("system")),
        ("/size", json!(held.size - 1)),
        ("/hashes/0", json!(STANDARD.encode([0; 32]))),
        ("/checkpoint", json!(fs::read_to_string(held.path("1.txt")).expect("it is there"))),
    ] {
        let mut other = honest.clone();
        *other.pointer_mut(member).expect("it is there") = value;
        both.of_receipt(&other, 1);
    }

    let (mirror, earlier) = (held.path("mirror"), held.path("1.txt"));
    let keys = held.write("keys.txt", &format!("{}\n{}\n", held.newest, held.key));
    if let Some((code, told)) = both.theirs(&keys, &["log", &mirror, "--earlier", &earlier]) {
        assert_eq!(code, Some(0), "{told}");
        says(&told, &["hashes in the tiles have its root", "are unchanged in the newest"]);
    }
}

/// What the server itself serves: its tiles, its proofs and its receipts, co-signed by a witness.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_tiles_proofs_and_receipts_satisfy_both_programs() {
    let settings = [("WATCHWORD_ARGON2", "m=1024,t=1,p=1"), ("WATCHWORD_CHECKPOINT_INTERVAL", "86400")];
    let mut server = Server::start_with(&settings).await;
    let platform = server.platform_key();
    let key = server.get("/v1/audit/key").bearer(&platform).await.expect(200).text.trim().to_owned();
    let witness = Witness::start(&[key.as_str()]).await;
    let witnesses = json!([{"key": witness.vkey(), "url": witness.url("")}]).to_string();
    assert!(server.terminate().await.success());
    server.set_environment("WATCHWORD_WITNESSES", &witnesses);
    server.up().await;
    let get = async |path: &str| server.get(path).bearer(&platform).await.expect(200);
    let sign = async || server.post("/v1/audit/checkpoint").bearer(&platform).await.expect(200).text;
    let (folder, mut position) = (server.data().with_file_name("auditor"), 0);
    let file = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    fs::create_dir_all(&folder).expect("it can be made");
    fs::write(file("token"), &platform).expect("it can be written");
    fs::write(file("earlier.txt"), sign().await).expect("it can be written");
    for name in ["ada", "grace", "mary"] {
        server.default_app().register(&email(name)).await;
        position = server.events().await.len();
    }
    sign().await;
    until("the witness has signed", async || {
        let note = get("/v1/audit/checkpoint").await.text;
        note.matches('\u{2014}').count() == 2
    })
    .await;

    let receipt = get(&format!("/v1/audit/receipt?position={position}")).await.json();
    fs::write(file("receipt.json"), receipt.to_string()).expect("it can be written");
    let told = run(server.command(&["verify", "--json", "--receipt", &file("receipt.json"), "--key", &key]));
    assert_eq!(told.0, Some(0), "{}", told.1);
    let Some(python) = auditor() else { return };
    let (base, vkey) = (format!("{}/v1/audit", server.base()), witness.vkey());
    let by_witness = ["--witness", &vkey];
    let of_receipt = ["receipt", &file("receipt.json")];
    let of_log = ["log", &base, "--token-file", &file("token"), "--earlier", &file("earlier.txt")];
    let (code, told) = ask(&python, &key, &[&of_receipt[..], &by_witness].concat());
    assert_eq!(code, Some(0), "{told}");
    says(&told, &["is in that tree", "co-signed by"]);
    let (code, told) = ask(&python, &key, &of_log);
    assert_eq!(code, Some(0), "{told}");
    says(
        &told,
        &[
            "hashes in the tiles have its root",
            "are unchanged in the newest",
            "the server's inclusion and consistency proofs",
        ],
    );
    // Another witness has not signed.
    let other = Witness::start(&[key.as_str()]).await.vkey();
    let (code, told) = ask(&python, &key, &[&of_receipt[..], &["--witness", &other]].concat());
    assert_eq!(code, Some(1), "{told}");
    says(&told, &["did not co-sign it"]);
}

/// Each change of the export is found, and where.
fn changes(both: &Both<'_>, tree: &Tree) {
    let held = both.held;
    // A mirror of the log, in which another implementation has put the hashes.
    let leaves: Vec<u8> = (0..held.size).flat_map(|index| tree.leaf(index)).collect();
    let newest = fs::read_to_string(held.path("2.txt")).expect("it is there");
    held.write("mirror/checkpoint", &newest);
    let tile = held.write(&format!("mirror/tile/0/000.p/{}", held.size), "");
    fs::write(tile, leaves).expect("it can be written");
    let mirror = held.path("mirror");

    let position = held.size - 1;
    let (at, before, after) = (usize::try_from(position - 1).expect("small"), position - 1, position + 1);
    let lines: Vec<String> = held.events.iter().map(canonical).collect();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = lines.clone();
        change(&mut changed);
        assert_ne!(changed, lines);
        held.write("changed.ndjson", &(changed.join("\n") + "\n"))
    };
    // The root shows it, and only tiles say where.
    let file = changed(&|lines| lines[at] = lines[at].replacen("Z\",\"type\"", "1Z\",\"type\"", 1));
    let named = format!("event {position}: it is not the one that was signed");
    let ours = ["was changed, or belongs to another history"];
    both.of_export(&file, 1, &ours, &["was changed", &named], &["--log", &mirror]);

    let file = changed(&|lines| drop(lines.remove(at)));
    let (ours, theirs) =
        (format!("event {position}: it is missing"), format!("event {after} follows event {before}"));
    both.of_export(&file, 1, &[&ours], &[&theirs], &[]);

    let file = changed(&|lines| lines.swap(at, at - 1));
    let (ours, theirs) = (
        format!("event {before}: it is out of order"),
        format!("event {position} follows event {}", before - 1),
    );
    both.of_export(&file, 1, &[&ours], &[&theirs], &[]);

    let file = changed(&|lines| lines.truncate(at));
    let (ours, theirs) = (format!("the file has only {at} events"), format!("the file only {at}"));
    both.of_export(&file, 1, &[&ours], &[&theirs], &[]);
}
