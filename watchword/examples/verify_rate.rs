//! Measures how fast `watchword verify` reads a history, at the instance and offline, beside what the machine can hash:
//!
//! ```sh
//! cargo build --release -p watchword && cargo run --release -p watchword --example verify_rate [events]
//! ```

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, ensure};
use domain::claims::{ClaimChange, Holding};
use domain::session::Session;
use domain::user::User;
use domain::{AppId, Event, LogOrigin, SessionId, Stream, StreamId, UserId};
use event_store::{
    Append, Clock, JournalMark, KeyStore, LookupKey, MasterKey, Repository, Sealer, SqliteJournal,
    SystemClock, Write,
};
use schemas::{Actor, Metadata};
use secrecy::ExposeSecret;
use serde_json::Value;
use tlog::note::{Kind, Note, Signer};
use tlog::{Checkpoint, Frontier, Hash};

/// Sessions of each person, and refreshes of each session.
const SESSIONS: u64 = 20;
const REFRESHES: u64 = 9;
const EACH: u64 = 1 + SESSIONS * (1 + REFRESHES);

/// Each rate is the best of so many.
const ROUNDS: usize = 3;

const ORIGIN: &str = "https://log.example";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let events: u64 = env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let here = env::current_exe()?;
    let binary = here.ancestors().nth(2).context("it is in a folder")?.join("watchword");
    ensure!(binary.exists(), "build {} first, as the head of this file says", binary.display());
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    fs::create_dir(&data)?;
    let begun = Instant::now();
    fill(&data, events).await?;
    println!("a journal was written in {:.0?}", begun.elapsed());

    let export = folder.path().join("export.ndjson");
    let mut exporting = watchword(&binary, &data, &["export"]);
    ensure!(exporting.stdout(fs::File::create(&export)?).status()?.success(), "the export failed");
    let (hashed, size, root) = limit(&fs::read(&export)?);
    let bytes = fs::metadata(&export)?.len();
    println!("{size} events of {} bytes each; all cores hash {hashed:.0}/s in memory", bytes / size);

    let signer = signer()?;
    let text = Checkpoint { origin: "log.example".to_owned(), size, root }.to_string();
    let note = Note { signatures: vec![signer.sign(&text, 0)], text };
    let checkpoint = folder.path().join("checkpoint.txt");
    fs::write(&checkpoint, note.to_string())?;
    let [export, checkpoint] = [&export, &checkpoint].map(|path| path.display().to_string());
    let key = signer.key().to_string();
    let offline = ["verify", "--file", &export, "--checkpoint", &checkpoint, "--key", &key];
    for (name, arguments) in [("offline", &offline[..]), ("at the instance", &["verify"])] {
        let mut best = 0.0_f64;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let output = watchword(&binary, &data, arguments).output()?;
            let rate = rate(size, begun.elapsed());
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            best = best.max(rate);
        }
        println!("verify {name}: {best:.0} events/s, {:.3} of the limit", best / hashed);
    }
    Ok(())
}

fn watchword(binary: &Path, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(arguments).env("WATCHWORD_DATA_DIR", data).env("WATCHWORD_LOG_ORIGIN", ORIGIN);
    command
}

#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn rate(events: u64, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

fn signer() -> anyhow::Result<Signer> {
    let form = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    Signer::new("log.example", Kind::Log, &[form.as_slice(), &[7; 32]].concat()).context("a key")
}

/// How many lines all cores hash in a second and nothing else, how many there are, and the root of their tree.
fn limit(export: &[u8]) -> (f64, u64, Hash) {
    let lines: Vec<&[u8]> =
        export.strip_suffix(b"\n").unwrap_or(export).split(|byte| *byte == b'\n').collect();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let leaves: Vec<Hash> = thread::scope(|scope| {
        let part = |lines: &'_ [&[u8]]| lines.iter().map(|line| Hash::leaf(line)).collect::<Vec<_>>();
        let parts: Vec<_> =
            lines.chunks(lines.len().div_ceil(cores)).map(|lines| scope.spawn(move || part(lines))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("it ends")).collect()
    });
    let took = begun.elapsed();
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.push(leaf, |_, _| ());
    }
    (rate(tree.size(), took), tree.size(), tree.root())
}

/// Writes what people do mostly: they register, log in, and refresh.
async fn fill(data: &Path, events: u64) -> anyhow::Result<()> {
    let master_key = MasterKey::generate();
    event_store::durable::create(
        &data.join("master.key"),
        master_key.to_base64().expose_secret().as_bytes(),
    )?;
    let keys = Arc::new(KeyStore::open(&data.join("keys.db"), &master_key).await?);
    let journal = Arc::new(SqliteJournal::open(&data.join("journal.db"), &keys.macs()).await?);
    keys.mark(&master_key, &JournalMark::default()).await?;
    let repository = Repository::new(journal, Arc::new(Sealer::new(Arc::clone(&keys))), 1);
    let lookup = LookupKey::new(keys.instance_key());
    event_store::origin::establish(&**repository.journal(), &SystemClock, &LogOrigin::parse(ORIGIN)?).await?;
    for number in 0..events.div_ceil(EACH) {
        append(&repository, &lookup, number).await?;
    }
    repository.journal().close().await;
    keys.close().await;
    Ok(())
}

async fn append(repository: &Repository, lookup: &LookupKey, number: u64) -> anyhow::Result<()> {
    let user_id = UserId(SystemClock.new_id());
    let mut streams = vec![(User::stream(&user_id), vec!["UserRegistered"])];
    let mut session = vec!["SessionStarted"];
    session.extend((0..REFRESHES).map(|_| "SessionRefreshed"));
    streams
        .extend((0..SESSIONS).map(|_| (Session::stream(&SessionId(SystemClock.new_id())), session.clone())));
    let (mut writes, mut taken) = (Vec::new(), Vec::new());
    for (stream, names) in streams {
        let (mut holding, mut events) = (Holding::default(), Vec::new());
        for (generation, name) in names.into_iter().enumerate() {
            let event = event(&stream, name, user_id, generation, number)?;
            for change in holding.see(&event) {
                if let ClaimChange::Take(claimed) | ClaimChange::TakeUntil(claimed, _) = change {
                    let claim = lookup.claim(&claimed, |_, _| None).context("it has a name")?;
                    taken.push((claim, stream.clone()));
                }
            }
            events.push(repository.encode(&event, SystemClock.new_id()).await?);
        }
        writes.push(Write { stream, expected: 0, events });
    }
    let metadata = Metadata {
        app_id: AppId::default_app(),
        actor: Actor::anonymous(),
        correlation_id: SystemClock.new_id(),
        causation_id: None,
        request_id: None,
        traceparent: None,
    };
    let (guards, released, at) = (vec![], vec![], SystemClock.now());
    let append = Append { writes, guards, taken, released, idempotency: None, metadata, at };
    repository.journal().append(append).await?;
    Ok(())
}

/// The golden event of this name, of somebody else.
fn event(stream: &StreamId, name: &str, user_id: UserId, n: usize, person: u64) -> anyhow::Result<Event> {
    let mut golden: Value = serde_json::from_str(match name {
        "UserRegistered" => include_str!("../../schemas/goldens/UserRegistered.v1.json"),
        "SessionStarted" => include_str!("../../schemas/goldens/SessionStarted.v1.json"),
        _ => include_str!("../../schemas/goldens/SessionRefreshed.v1.json"),
    })?;
    let data = &mut golden["data"];
    data["user_id"] = user_id.to_string().into();
    if name != "UserRegistered" {
        data["session_id"] = stream.uuid().context("it has an id")?.to_string().into();
    }
    if name == "SessionRefreshed" {
        data["generation"] = n.into();
    }
    let data = data.to_string();
    let personal = golden.get_mut("personal").map(|personal| {
        if name == "UserRegistered" {
            personal["email"] = format!("person-{person}@example.com").into();
        }
        personal.to_string().into_bytes()
    });
    Ok(schemas::decode(stream, name, 1, &data, personal.as_deref())?)
}
