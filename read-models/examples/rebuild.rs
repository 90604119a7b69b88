//! How fast read models are rebuilt, compared with reading and decoding the same events alone, measured in the same run.
//!
//! ```text
//! cargo run --release -p read-models --example rebuild [-- EVENTS | --quick] [--each]
//! ```
//!
//! Makes a journal of a million events (`--quick`: 200 000) in a temporary folder, of a mix as a busy app has it: mostly refreshed
//! sessions, then logins, logouts and failed logins, few registrations. Then it rebuilds all read models, in files and in
//! PostgreSQL (which `deploy/dev-services` finds), and with `--each` each of them alone. Everything shares the machine's cores.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::lockout::{LockoutEvent, LoginFailed};
use domain::session::{
    LoginMethod, RevocationReason, SessionEvent, SessionRefreshed, SessionRevoked, SessionStarted,
};
use domain::user::{
    Client, EmailVerified, MailboxProof, ProfileUpdated, RegistrationMethod, UserEvent, UserRegistered,
};
use domain::{AppId, Email, Event, LogOrigin, Personal, SessionId, StreamId, Timestamp, UserId};
use event_store::{
    Append, Journal, KeyStore, Location, LookupKey, MasterKey, Repository, Requested, Sealer, SqliteJournal,
    Write,
};
use read_models::{Projector, ReadModels, RebuildSettings};
use schemas::envelope::{Actor, Metadata};
use test_services::Postgres;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

const EVENTS: u64 = 1_000_000;
const QUICK: u64 = 200_000;
/// How many events are appended, or read, at a time.
const CHUNK: usize = 2000;
/// How many events a session has: its start, refreshes, and in the end a logout.
const OF_A_SESSION: u64 = 12;
/// How many sessions a person has.
const SESSIONS: u64 = 4;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let asked = arguments.iter().find_map(|argument| argument.parse().ok());
    let count = asked.unwrap_or(if has("--quick") { QUICK } else { EVENTS });
    let folder = tempfile::tempdir()?;
    let keys = Arc::new(KeyStore::open(&folder.path().join("keys.db"), &MasterKey::generate()).await?);
    let journal: Arc<dyn Journal> =
        Arc::new(SqliteJournal::open(&folder.path().join("journal.db"), &keys.macs()).await?);
    let sealer = Arc::new(Sealer::new(Arc::clone(&keys)));
    let repository = Arc::new(Repository::new(Arc::clone(&journal), Arc::clone(&sealer), 10_000));
    let begun = Instant::now();
    fill(&repository, count).await?;
    eprintln!("{count} events made in {:.1} s", begun.elapsed().as_secs_f64());

    let limit = rate(count, || read(&repository)).await?;
    eprintln!("read and decoded alone: {limit:.0} events/s");
    let postgres: Location = Postgres::shared().database().parse()?;
    for (name, location) in [("files", at(folder.path(), "all.db")), ("PostgreSQL", postgres)] {
        let lookup = Arc::new(LookupKey::new(keys.instance_key()));
        let models = ReadModels::open(&location, Arc::clone(&sealer), lookup).await?;
        models.know_origin(&LogOrigin::parse("https://login.example.com").expect("valid"));
        let all = models.projectors();
        let made = rate(count, || rebuild(&models, &repository, &all)).await?;
        println!("{name}: {made:.0} events/s, {:.2} of reading and decoding alone", made / limit);
        if has("--each") {
            for projector in all {
                let name = projector.name();
                let made =
                    rate(count, || rebuild(&models, &repository, std::slice::from_ref(&projector))).await?;
                println!("  {name} alone: {made:.0} events/s");
            }
        }
        models.close().await;
    }
    Ok(())
}

fn at(folder: &Path, name: &str) -> Location {
    Location::File(folder.join(name))
}

/// Events in a second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
async fn rate(count: u64, run: impl AsyncFnOnce() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begun = Instant::now();
    run().await?;
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

async fn rebuild(
    models: &ReadModels,
    repository: &Arc<Repository>,
    projectors: &[Arc<dyn Projector>],
) -> Result<(), Failure> {
    let settings = RebuildSettings {
        node: "measured".to_owned(),
        lease: Duration::from_secs(10),
        events_per_second: None,
    };
    models.rebuild(repository, projectors, &settings, |_| {}).await?;
    Ok(())
}

/// Reads and decodes all events, as a rebuild does.
async fn read(repository: &Arc<Repository>) -> Result<(), Failure> {
    let head = repository.journal().head().await?;
    let (mut next, mut reading) = (0, std::collections::VecDeque::new());
    loop {
        while reading.len() < 2 && next < head {
            let (repository, after) = (Arc::clone(repository), next);
            reading.push_back(tokio::spawn(async move {
                for recorded in repository.journal().read_all(after, CHUNK).await? {
                    repository.decode(&recorded).await?;
                }
                Ok::<_, Failure>(())
            }));
            next += CHUNK as u64;
        }
        let Some(read) = reading.pop_front() else { return Ok(()) };
        read.await??;
    }
}

/// Appends so many events.
async fn fill(repository: &Repository, count: u64) -> Result<(), Failure> {
    let mut versions: HashMap<StreamId, u64> = HashMap::new();
    let mut made = 0;
    let client = Client { ip: Some("203.0.113.77".to_owned()), user_agent: Some("Mozilla/5.0".to_owned()) };
    let mut history = (0..).flat_map(person);
    while made < count {
        let mut writes: Vec<Write> = Vec::new();
        let at = Timestamp::from_second(1_800_000_000 + i64::try_from(made / 100)?)?;
        for (stream, user, event) in history.by_ref().take(CHUNK.min(usize::try_from(count - made)?)) {
            let actor = Actor::user(user);
            let requested = Requested { client: &client, actor: &actor };
            let id = Uuid::from_u128(0x7000_0000_0000 + u128::from(made));
            let new = repository.encode_for(&event, id, &requested).await?;
            let version = versions.entry(stream.clone()).or_default();
            match writes.iter_mut().rev().take(20).find(|write| write.stream == stream) {
                Some(write) => write.events.push(new),
                None => writes.push(Write { stream, expected: *version, events: vec![new] }),
            }
            *version += 1;
            made += 1;
        }
        let metadata = Metadata {
            app_id: AppId::default_app(),
            actor: Actor::system(),
            correlation_id: Uuid::nil(),
            causation_id: None,
            request_id: None,
            traceparent: None,
        };
        let (guards, taken, released) = (vec![], vec![], vec![]);
        let append = Append { writes, guards, taken, released, idempotency: None, metadata, at };
        repository.journal().append(append).await?;
    }
    Ok(())
}

/// What one person does.
fn person(n: u64) -> Vec<(StreamId, UserId, Event)> {
    let (app_id, user_id) = (AppId::default_app(), UserId(Uuid::from_u128(u128::from(n) + 1)));
    let at = |seconds: u64| {
        let second = 1_800_000_000 + i64::try_from(n * 20 + seconds).unwrap_or_default();
        Timestamp::from_second(second).expect("in range")
    };
    let email = || Email::parse(&format!("person{n}@example.com")).expect("valid");
    let mut events = Vec::new();
    let mut about_user = |event| events.push((StreamId::user(user_id), user_id, Event::User(event)));
    about_user(UserEvent::UserRegistered(UserRegistered {
        user_id,
        app_id: app_id.clone(),
        method: RegistrationMethod::Password,
        at: at(0),
        personal: Personal {
            email: Some(email()),
            name: Some(format!("Ada Lovelace the {n}th")),
            password_hash: Some(domain::password::PasswordHash("$argon2id$secret".to_owned())),
            ..Personal::default()
        },
    }));
    about_user(UserEvent::EmailVerified(EmailVerified {
        user_id,
        proof: MailboxProof::MagicLink,
        earlier_access_ended: false,
        profile_cleared: false,
        at: at(1),
        personal: Personal { email: Some(email()), ..Personal::default() },
    }));
    about_user(UserEvent::ProfileUpdated(ProfileUpdated {
        user_id,
        cleared: std::collections::BTreeSet::default(),
        at: at(2),
        personal: Personal { name: Some("Ada King".to_owned()), ..Personal::default() },
    }));
    for failures in 1..=2 {
        let failed = LoginFailed { user_id, failures, device_id: None, at: at(3) };
        events.push((StreamId::lockout(user_id), user_id, Event::Lockout(LockoutEvent::LoginFailed(failed))));
    }
    for session in 0..SESSIONS {
        let session_id = SessionId(Uuid::from_u128(0x5e55_0000_0000 + u128::from(n * SESSIONS + session)));
        let mut about = |event| events.push((StreamId::session(session_id), user_id, Event::Session(event)));
        about(SessionEvent::SessionStarted(SessionStarted {
            session_id,
            user_id,
            app_id: app_id.clone(),
            method: LoginMethod::Password,
            epoch: 0,
            expires_at: at(86_400),
            idle_expires_at: at(3600),
            at: at(4),
            personal: Personal { user_agent: Some("Mozilla/5.0".to_owned()), ..Personal::default() },
        }));
        for generation in 1..OF_A_SESSION - 1 {
            about(SessionEvent::SessionRefreshed(SessionRefreshed {
                session_id,
                user_id,
                generation: u32::try_from(generation).unwrap_or_default(),
                idle_expires_at: at(3600 + generation),
                at: at(5 + generation),
                personal: Personal::default(),
            }));
        }
        let (reason, at) = (RevocationReason::Logout, at(40));
        about(SessionEvent::SessionRevoked(SessionRevoked { session_id, user_id, reason, at }));
    }
    events
}
