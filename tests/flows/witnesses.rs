//! Witnesses sign the checkpoints of a server, and crates of others verify what an auditor gets.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tests::transparency::{idle_witness, verify};
use tests::{Answer, Server, Witness, email, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server, and the keys that sign its checkpoints.
struct Logged {
    server: Server,
    vkey: String,
}

impl Logged {
    async fn start() -> Self {
        let server = Server::start_with(&[("WATCHWORD_CHECKPOINT_INTERVAL", "1")]).await;
        let key = server.get("/v1/audit/key").bearer(&server.platform_key()).await.expect(200);
        Self { vkey: key.text.trim().to_owned(), server }
    }

    /// Starts it again with these witnesses: their keys and addresses.
    async fn ask(&mut self, witnesses: &[(String, String)]) {
        let list: Vec<_> = witnesses.iter().map(|(key, url)| json!({"key": key, "url": url})).collect();
        self.server.terminate().await;
        self.server.set_environment("WATCHWORD_WITNESSES", &json!(list).to_string());
        self.server.up().await;
    }

    /// Something happens, and a checkpoint of it is signed.
    async fn sign(&self) -> u64 {
        self.server.default_app().register(&email("ada")).await;
        let note =
            self.server.post("/v1/audit/checkpoint").bearer(&self.server.platform_key()).await.expect(200);
        verify(&note.text, &[&self.vkey]).size
    }

    async fn newest(&self) -> String {
        let key = self.server.platform_key();
        self.server.get("/v1/audit/checkpoint").bearer(&key).await.expect(200).text
    }

    /// Waits until the newest checkpoint, of at least this size, is signed by the log and these witnesses, and no others.
    async fn signed_by(&self, size: u64, witnesses: &[&Witness]) {
        let vkeys: Vec<_> = witnesses.iter().map(|witness| witness.vkey()).collect();
        let vkeys: Vec<_> =
            [self.vkey.as_str()].into_iter().chain(vkeys.iter().map(String::as_str)).collect();
        self.signed_with(size, &vkeys).await;
    }

    /// Waits until the newest checkpoint, of at least this size, is signed with these keys, and no others.
    async fn signed_with(&self, size: u64, vkeys: &[&str]) {
        until("all have signed", async || {
            let note = self.newest().await;
            let lines = note.lines().filter(|line| line.starts_with('\u{2014}')).count();
            let verified = verify(&note, vkeys);
            verified.size >= size && verified.signers.len() == vkeys.len() && lines == vkeys.len()
        })
        .await;
    }

    async fn metric(&self, name: &str, witness: &str) -> Option<u64> {
        let start = format!("{name}{{witness=\"{witness}\"}} ");
        self.server.metrics().await.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    }

    /// Brings signatures that somebody else got from a witness.
    async fn bring(&self, lines: &str) -> Answer {
        let call = self.server.post("/v1/audit/checkpoint/cosignatures");
        call.bearer(&self.server.platform_key()).body("text/plain", lines.to_owned()).await
    }
}

fn at(witness: &Witness) -> (String, String) {
    (witness.vkey(), witness.url(""))
}

#[tokio::test]
async fn two_witnesses_sign_each_checkpoint_and_one_that_was_away_catches_up() {
    let mut log = Logged::start().await;
    let one = Witness::start(&[&log.vkey]).await;
    let mut other = Witness::named("witness.example/w2", &[&log.vkey]);
    other.up().await;
    log.ask(&[at(&one), at(&other)]).await;
    let size = log.sign().await;
    log.signed_by(size, &[&one, &other]).await;

    // The one that is there signs on.
    other.kill();
    let size = log.sign().await;
    log.signed_by(size, &[&one]).await;
    until("the other one has failed", async || {
        log.metric("watchword_witness_failures_total", "witness.example/w2").await.is_some_and(|it| it > 0)
    })
    .await;
    let doctor = log.server.command(&["doctor"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("witness.example/w1 answers") && said.contains("w2 does not sign"), "{said}");

    // Back, it signs the newest one, whatever it missed.
    let size = log.sign().await;
    other.up().await;
    log.signed_by(size, &[&one, &other]).await;
    assert!(log.metric("watchword_witness_cosigned_size", "witness.example/w2").await >= Some(size));

    // A new process knows nothing of what they have signed.
    log.server.kill();
    log.server.up().await;
    let size = log.sign().await;
    log.signed_by(size, &[&one, &other]).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

/// An operator keeps two copies of the journal, which go on differently, one for each of two auditors.
#[tokio::test]
async fn an_operator_who_forks_the_journal_gets_one_history_signed() {
    let mut log = Logged::start().await;
    let witness = Witness::start(&[&log.vkey]).await;
    log.ask(&[at(&witness)]).await;
    log.server.default_app().register(&email("ada")).await;
    log.server.terminate().await;

    let list = json!([{"key": witness.vkey(), "url": witness.url("")}]).to_string();
    let settings = [("WATCHWORD_CHECKPOINT_INTERVAL", "1"), ("WATCHWORD_WITNESSES", list.as_str())];
    let mut fork = Logged { server: Server::new(&settings), vkey: log.vkey.clone() };
    copy(&log.server.data(), &fork.server.data());
    log.server.up().await;
    let size = log.sign().await;
    log.signed_by(size, &[&witness]).await;

    // The same key signs both, and each history is whole in itself.
    fork.server.up().await;
    let mut forked = fork.sign().await;
    while forked <= size + 2 {
        forked = fork.sign().await;
    }
    until("the witness has refused", async || {
        fork.metric("watchword_witness_failures_total", "witness.example/w1").await.is_some_and(|it| it > 0)
    })
    .await;
    fork.signed_by(forked, &[]).await;
    let said = fork.server.log();
    assert!(
        said.contains("has signed another history") || said.contains("has signed a checkpoint of"),
        "{said}"
    );
    assert!(fork.metric("watchword_witness_cosigned_size", "witness.example/w1").await.is_none());
    // For the other auditor nothing changes.
    let size = log.sign().await;
    log.signed_by(size, &[&witness]).await;
}

/// Answers each request by what this makes of the connection.
async fn stranger<F: Future<Output = ()> + Send>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            answer(stream).await;
        }
    });
    url
}

async fn answering(head: &'static str, body: String) -> String {
    stranger(move |mut stream| {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn hostile_witnesses_hold_up_nothing_and_nothing_of_theirs_is_kept() {
    let mut log = Logged::start().await;
    let witness = Witness::start(&[&log.vkey]).await;
    let key = |number: u8| idle_witness(&format!("hostile.example/{number}"), number);
    // A signature of another key than its own, and one that claims to be its own.
    let line = |vkey: &str, bytes: &[u8]| {
        use base64::Engine as _;
        let mut parts = vkey.split('+');
        let (name, id) = (parts.next().expect("a name"), parts.next().expect("an id"));
        let signature = [&hex::decode(id).expect("hexadecimal"), bytes].concat();
        format!("\u{2014} {name} {}\n", base64::engine::general_purpose::STANDARD.encode(signature))
    };
    let (of_log, own) = (line(&log.vkey, &[1; 64]), line(&key(1), &[1; 72]));
    let endless = stranger(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let silent = stranger(|stream| async move {
        tokio::time::sleep(Duration::from_mins(5)).await;
        drop(stream);
    })
    .await;
    let redirect = stranger({
        let to = witness.url("/add-checkpoint");
        move |mut stream| {
            let answer =
                format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
            async move {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let size = "409 Conflict\r\nContent-Type: text/x.tlog.size";
    let hostile = [
        answering("200 OK", format!("{of_log}{own}")).await,
        answering("200 OK", of_log).await,
        answering("200 OK", "no signature".to_owned()).await,
        answering(size, "99999999999999999999999\n".to_owned()).await,
        answering(size, "18446744073709551615\n".to_owned()).await,
        answering(size, "1\n".to_owned()).await,
        answering("500 Internal Server Error", String::new()).await,
        endless,
        silent,
        redirect,
        "http://127.0.0.1:1".to_owned(),
    ];
    let hostile: Vec<_> = (1..).zip(hostile).map(|(number, url)| (key(number), url)).collect();
    let all: Vec<_> = hostile.iter().cloned().chain([at(&witness)]).collect();
    log.ask(&all).await;
    for _ in 0..3 {
        let began = Instant::now();
        let size = log.sign().await;
        log.signed_by(size, &[&witness]).await;
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }
    // The silent one is given up after ten seconds, too.
    for number in 1..=hostile.len() {
        let name = format!("hostile.example/{number}");
        until("each has failed", async || {
            log.metric("watchword_witness_failures_total", &name).await.is_some_and(|failures| failures > 0)
        })
        .await;
        assert!(log.metric("watchword_witness_cosigned_size", &name).await.is_none());
    }
    log.server.terminate().await;
}

#[tokio::test]
async fn signatures_can_be_brought_for_a_witness_that_is_out_of_reach() {
    let mut log = Logged::start().await;
    let witness = Witness::start(&[&log.vkey]).await;
    let mut stranger = Witness::named("witness.example/stranger", &[&log.vkey]);
    stranger.up().await;
    log.server.set_environment("WATCHWORD_CHECKPOINT_INTERVAL", "3600");
    log.ask(&[(witness.vkey(), "http://127.0.0.1:1".to_owned())]).await;
    log.sign().await;
    let first = log.newest().await;
    let of_first = witness.add(format!("old 0\n\n{first}")).await.expect(200).text;
    let note = log.bring(&of_first).await.expect(200).text;
    assert_eq!(note, format!("{first}{of_first}"));
    log.signed_by(0, &[&witness]).await;
    // Again, and in other forms.
    log.bring(&of_first).await.expect(200);
    for malformed in ["", "\n", "x\n", of_first.trim_end(), &of_first.replace('\n', "\r\n")] {
        log.bring(malformed).await.problem(400, "malformed_request");
    }
    let json = log.server.post("/v1/audit/checkpoint/cosignatures").bearer(&log.server.platform_key());
    json.json(&json!([of_first])).await.problem(415, "unsupported_media_type");
    let of_stranger = stranger.add(format!("old 0\n\n{first}")).await.expect(200).text;
    log.bring(&format!("{of_first}{of_stranger}")).await.problem(422, "not_a_cosignature");
    log.bring(&of_stranger.replace("/stranger", "/w1")).await.problem(422, "not_a_cosignature");

    // Of an older checkpoint, it is none of the newest.
    log.sign().await;
    log.bring(&of_first).await.problem(422, "not_a_cosignature");
    log.signed_by(0, &[]).await;
}

/// The exit code of `verify`, and what it says.
fn checked(server: &Server) -> (Option<i32>, String) {
    let output = server.command(&["verify"]).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_witness_signs_while_a_key_that_it_knows_does_and_goes_on_with_the_next() {
    let mut log = Logged::start().await;
    let mut witness = Witness::start(&[&log.vkey]).await;
    log.ask(&[at(&witness)]).await;
    let size = log.sign().await;
    log.signed_by(size, &[&witness]).await;

    let rotate = log.server.post("/v1/audit/key/rotate").bearer(&log.server.platform_key());
    let keys = rotate.await.expect(200).text;
    let (newer, older) = (keys.lines().next().expect("a key").to_owned(), log.vkey.clone());
    let size = log.sign().await;
    log.signed_with(size, &[&newer, &older, &witness.vkey()]).await;

    // The older key retires, and nobody has told the witness of the next one.
    log.server.terminate().await;
    log.server.set_environment("WATCHWORD_CHECKPOINT_KEY_OVERLAP", "1");
    log.server.up().await;
    until("the older key has retired", async || {
        let keys = log.server.get("/v1/audit/key").bearer(&log.server.platform_key()).await;
        keys.expect(200).text == format!("{newer}\n")
    })
    .await;
    log.vkey = newer.clone();
    let size = log.sign().await;
    log.signed_by(size, &[]).await;
    log.server.says("it does not know the key that signs checkpoints").await;

    // It has signed with the one, and remembers that with the other, and without the one.
    for logs in [&[older.as_str(), newer.as_str()][..], &[newer.as_str()]] {
        witness.kill();
        witness.set_logs(logs);
        witness.up().await;
        let size = log.sign().await;
        log.signed_by(size, &[&witness]).await;
    }

    log.server.terminate().await;
    let (code, said) = checked(&log.server);
    assert!(code == Some(0) && said.contains("co-signed by witness.example/w1+"), "{said}");
    // Somebody who can write to the key store.
    let path = log.server.data().join("keys.db");
    let mut file = SqliteConnectOptions::new().filename(path).connect().await.expect("it opens");
    let changed =
        "UPDATE cosignatures SET line = substr(line, 1, length(line) - 9) || 'AAAA' || substr(line, -5)";
    file.execute(changed).await.expect("it can be changed");
    file.close().await.expect("it closes");
    let (code, said) = checked(&log.server);
    assert!(code == Some(1) && said.contains("in the name of the witness witness.example/w1"), "{said}");
}
