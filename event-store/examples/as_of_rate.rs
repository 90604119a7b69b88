//! Measures how long it takes to see one person as of a moment in a long log: `cargo run --release -p event-store --example
//! as_of_rate [events]`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::user::{ProfileUpdated, RegistrationMethod, User, UserEvent, UserRegistered};
use domain::{AppId, Event, Personal, Stream, Timestamp, UserId};
use event_store::contract::{append, event, macs, nothing, stream};
use event_store::repository::as_of::position_at;
use event_store::{
    Append, Clock, Journal, KeyStore, MasterKey, PostgresJournal, PostgresSettings, Repository, Sealer,
    SqliteJournal, SystemClock, Write,
};
use test_services::Postgres;

const TOGETHER: usize = 500;
/// Each append has an event of a person in it: so each of them has many events, all over the log.
const PEOPLE: u64 = 500;
const ASKED: u64 = 500;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events: usize = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let keys = KeyStore::open(&folder.path().join("keys.db"), &MasterKey::generate()).await?;
    let sealer = Arc::new(Sealer::new(Arc::new(keys)));
    let journal = SqliteJournal::open(&folder.path().join("journal.db"), &macs()).await?;
    measure("SQLite", Arc::new(journal), &sealer, events).await?;

    let server = Postgres::start();
    let settings = PostgresSettings::default();
    let journal = PostgresJournal::open(&server.database().parse()?, settings, &macs()).await?;
    measure("PostgreSQL", Arc::new(journal), &sealer, events).await
}

async fn measure(
    store: &str,
    journal: Arc<dyn Journal>,
    sealer: &Arc<Sealer>,
    events: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let repository = Repository::new(Arc::clone(&journal), Arc::clone(sealer), 1000);
    let begun = Instant::now();
    fill(&repository, events).await?;
    let head = journal.head().await?;
    println!("{store}: {head} events written in {:.0?}", begun.elapsed());
    let mut took = [Vec::new(), Vec::new()];
    for number in 0..ASKED {
        // All over the log, in no order.
        let place = (number * 7919) % ASKED * (head / ASKED);
        let id = person(number);
        let begun = Instant::now();
        let position = position_at(&*journal, time(place), head).await?;
        repository.load_as_of::<User>(&id, position).await?;
        took[0].push(begun.elapsed());
        let begun = Instant::now();
        repository.load_as_of::<User>(&id, place).await?;
        took[1].push(begun.elapsed());
    }
    for (by, mut took) in ["a time", "a position"].into_iter().zip(took) {
        took.sort();
        let at = |part: usize| -> Duration { took[took.len() * part / 1000] };
        let slowest = took[took.len() - 1];
        println!(
            "{store}: a person as of {by}: median {:.1?}, 99 % in {:.1?}, slowest {slowest:.1?}",
            at(500),
            at(990)
        );
    }
    journal.close().await;
    Ok(())
}

fn person(number: u64) -> UserId {
    UserId(uuid::Uuid::from_u128(u128::from(number % PEOPLE) + 1))
}

/// A second for each position.
fn time(position: u64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + position.cast_signed()).expect("in range")
}

async fn fill(repository: &Repository, events: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut versions = vec![0; usize::try_from(PEOPLE)?];
    for number in 0..events.div_ceil(TOGETHER) as u64 {
        let id = person(number);
        let at = time(number * TOGETHER as u64 + 1);
        let version = &mut versions[usize::try_from(number % PEOPLE)?];
        let personal = Personal { name: Some(format!("Ada {number}")), ..Personal::default() };
        let happened = if *version == 0 {
            let (app_id, method) = (AppId::default_app(), RegistrationMethod::Admin);
            UserEvent::UserRegistered(UserRegistered { user_id: id, app_id, method, at, personal })
        } else {
            UserEvent::ProfileUpdated(ProfileUpdated { user_id: id, cleared: BTreeSet::new(), at, personal })
        };
        let happened = repository.encode(&Event::from(happened), SystemClock.new_id()).await?;
        let own = Write { stream: User::stream(&id), expected: *version, events: vec![happened] };
        *version += 1;
        let others = append(&stream(&event().id.to_string()), 0, TOGETHER - 1).writes;
        let writes = [vec![own], others].concat();
        repository.journal().append(Append { writes, at, ..nothing() }).await?;
    }
    Ok(())
}
