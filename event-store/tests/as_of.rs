//! The past of random histories: each aggregate at each position, and the position of each time.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use domain::app::App;
use domain::delivery::Delivery;
use domain::lockout::Lockout;
use domain::magic_link::MagicLink;
use domain::memberships::Memberships;
use domain::organization::Organization;
use domain::role_templates::RoleTemplates;
use domain::session::Session;
use domain::user::User;
use domain::webhook::Webhook;
use domain::{
    AppId, Event, EventId, MagicLinkId, OrganizationId, Recorded, SessionId, Stream, StreamId, Timestamp,
    UserId, WebhookId,
};
use event_store::contract::{append, macs, nothing, stream};
use event_store::repository::as_of::{DISORDER, position_at};
use event_store::{Append, Clock, Journal, KeyStore, MasterKey, Repository, Sealer, SystemClock, Write};
use event_store::{SqliteJournal, StoreError};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// One event of each kind and version.
fn samples() -> Vec<Event> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/goldens");
    let sample = |path: &Path| -> Event {
        let golden: Value = serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
        let stream = StreamId::from_stored(golden["stream"].as_str().expect("text").to_owned());
        let version = golden["schema_version"].as_u64().and_then(|it| it.try_into().ok()).expect("a version");
        let personal = golden.get("personal").map(|personal| personal.to_string().into_bytes());
        let (name, data) = (golden["name"].as_str().expect("text"), golden["data"].to_string());
        schemas::decode(&stream, name, version, &data, personal.as_deref()).expect("decodes")
    };
    let files = fs::read_dir(folder).expect("there are goldens").map(|file| file.expect("readable").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|path| sample(path)).collect()
}

fn id(number: u8) -> Uuid {
    Uuid::from_u128(number.into())
}

fn app_id(number: u8) -> AppId {
    AppId::parse(format!("app{number}")).expect("valid")
}

/// The stream of that number of the event's aggregate. `None`: its events are folded into nothing.
fn stream_of(event: &Event, number: u8) -> Option<StreamId> {
    Some(match event {
        Event::App(_) => App::stream(&app_id(number)),
        Event::User(_) => User::stream(&UserId(id(number))),
        Event::Lockout(_) => Lockout::stream(&UserId(id(number))),
        Event::Session(_) => Session::stream(&SessionId(id(number))),
        Event::MagicLink(_) => MagicLink::stream(&MagicLinkId(id(number))),
        Event::Delivery(_) => Delivery::stream(&EventId(id(number))),
        Event::Organization(_) => Organization::stream(&OrganizationId(id(number))),
        Event::RoleTemplates(_) => RoleTemplates::stream(&AppId::default_app()),
        Event::Memberships(_) => Memberships::stream(&UserId(id(number))),
        Event::Webhook(_) => Webhook::stream(&WebhookId(id(number))),
        Event::Journal(_) | Event::Access(_) => return None,
    })
}

struct World {
    _directory: TempDir,
    repository: Repository,
    history: Vec<(StreamId, Event, Timestamp)>,
}

impl World {
    async fn new() -> Self {
        let directory = TempDir::new().expect("makes a directory");
        let journal = SqliteJournal::open(&directory.path().join("journal.db"), &macs()).await;
        let journal: Arc<dyn Journal> = Arc::new(journal.expect("opens"));
        let keys = KeyStore::open(&directory.path().join("keys.db"), &MasterKey::generate()).await;
        let sealer = Arc::new(Sealer::new(Arc::new(keys.expect("opens"))));
        Self { _directory: directory, repository: Repository::new(journal, sealer, 10), history: vec![] }
    }

    fn journal(&self) -> &dyn Journal {
        &**self.repository.journal()
    }

    async fn write(&mut self, stream: StreamId, event: Event, at: Timestamp) {
        let expected = self.history.iter().filter(|(other, ..)| *other == stream).count() as u64;
        let encoded = self.repository.encode(&event, SystemClock.new_id()).await.expect("encodes");
        let write = Write { stream: stream.clone(), expected, events: vec![encoded] };
        self.journal().append(Append { writes: vec![write], at, ..nothing() }).await.expect("appends");
        self.history.push((stream, event, at));
    }

    /// The state at a position is the fold of the prefix, however often it is asked for and whatever was loaded before.
    async fn check<A: Recorded + serde::Serialize>(
        &self,
        id: &A::Id,
        position: usize,
    ) -> Result<(), StoreError> {
        let (mut state, mut version) = (A::default(), 0);
        for (stream, event, _) in &self.history[..position] {
            if *stream == A::stream(id) {
                state.apply(event.clone().try_into().ok().expect("its own event"));
                version += 1;
            }
        }
        let past = self.repository.load_as_of::<A>(id, position as u64).await?;
        let json = |state: &A| serde_json::to_value(state).expect("serializes");
        assert_eq!(
            (past.version, json(&past.state)),
            (version, json(&state)),
            "{:?} at {position}",
            A::stream(id)
        );
        if position == self.history.len() {
            let present = self.repository.load::<A>(id).await?;
            assert_eq!((past.version, json(&past.state)), (present.version, json(&present.state)));
        }
        Ok(())
    }

    async fn check_all(&self, position: usize) -> Result<(), StoreError> {
        for number in 0..STREAMS {
            self.check::<App>(&app_id(number), position).await?;
            self.check::<User>(&UserId(id(number)), position).await?;
            self.check::<Lockout>(&UserId(id(number)), position).await?;
            self.check::<Session>(&SessionId(id(number)), position).await?;
            self.check::<MagicLink>(&MagicLinkId(id(number)), position).await?;
            self.check::<Delivery>(&EventId(id(number)), position).await?;
            self.check::<Webhook>(&WebhookId(id(number)), position).await?;
        }
        Ok(())
    }
}

/// How many streams each aggregate has.
const STREAMS: u8 = 2;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds").block_on(future)
}

fn time(microsecond: i64) -> Timestamp {
    Timestamp::from_microsecond(1_800_000_000_000_000 + microsecond).expect("in range")
}

/// The last position that is not later, by looking at every event.
fn last_until(times: &[Timestamp], time: Timestamp) -> u64 {
    times.iter().rposition(|at| *at <= time).map_or(0, |index| index as u64 + 1)
}

/// A journal whose events have these times: so many at once.
async fn with_times(appends: &[(i64, usize)]) -> (TempDir, SqliteJournal, Vec<Timestamp>) {
    let directory = TempDir::new().expect("makes a directory");
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), &macs()).await.expect("opens");
    let mut times = Vec::new();
    for (at, events) in appends {
        let (stream, at) = (stream("a"), time(*at));
        let append = Append { at, ..append(&stream, times.len() as u64, *events) };
        journal.append(append).await.expect("appends");
        times.extend(std::iter::repeat_n(at, *events));
    }
    (directory, journal, times)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_state_at_a_position_is_the_fold_of_the_prefix_and_a_time_means_its_last_position(
        steps in prop::collection::vec((any::<Index>(), 0..STREAMS, -30_i64..30), 1..60),
        positions in prop::collection::vec(any::<Index>(), 4),
    ) {
        run(async {
            let samples: Vec<Event> = samples().into_iter().filter(|it| stream_of(it, 0).is_some()).collect();
            let mut world = World::new().await;
            for (n, (sample, number, disorder)) in (0_i64..).zip(&steps) {
                let event = sample.get(&samples).clone();
                let stream = stream_of(&event, *number).expect("an aggregate");
                world.write(stream, event, time(10 * n + disorder)).await;
            }
            let head = world.history.len();
            for position in positions.iter().map(|it| it.index(head + 1)).chain([0, head]) {
                world.check_all(position).await.expect("reads");
            }
            let times: Vec<Timestamp> = world.history.iter().map(|(.., at)| *at).collect();
            for at in &times {
                let found = position_at(world.journal(), *at, head as u64).await.expect("finds");
                prop_assert_eq!(found, last_until(&times, *at));
                world.check_all(usize::try_from(found).expect("small")).await.expect("reads");
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_time_is_exact_while_clocks_differ_by_less_than_the_disorder(
        appends in prop::collection::vec((0_i64..200, 1_usize..40), 1..60),
        asked in prop::collection::vec(-300_i64..6_300, 20),
    ) {
        run(async {
            // 100 apart, and up to 200 early: at most two appends stand behind a later one, 80 events.
            let appends: Vec<_> = (0..).zip(appends).map(|(n, (early, events))| (100 * n - early, events)).collect();
            let (_directory, journal, times) = with_times(&appends).await;
            for asked in asked.into_iter().chain(appends.iter().map(|(at, _)| *at)) {
                let found = position_at(&journal, time(asked), times.len() as u64).await.expect("finds");
                prop_assert_eq!(found, last_until(&times, time(asked)), "{}", asked);
            }
            Ok(())
        })?;
    }

    #[test]
    fn whatever_clocks_did_the_log_passes_the_time_there_and_what_follows_changes_nothing(
        appends in prop::collection::vec((0_i64..1_000, 1_usize..DISORDER + 50), 1..8),
        asked in 0_i64..1_000,
        later in prop::collection::vec((1_000_i64..1_010, 1_usize..2 * DISORDER), 0..4),
    ) {
        run(async {
            let (_directory, journal, times) = with_times(&[appends.clone(), later].concat()).await;
            let head = appends.iter().map(|(_, events)| *events as u64).sum();
            let found = position_at(&journal, time(asked), head).await.expect("finds");
            let at = |position: u64| times[usize::try_from(position - 1).expect("small")];
            prop_assert!(found == 0 || at(found) <= time(asked));
            prop_assert!(found == head || at(found + 1) > time(asked));
            let now = position_at(&journal, time(asked), times.len() as u64).await.expect("finds");
            prop_assert_eq!(now, found);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_event_with_a_false_mac_is_no_past() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("journal.db");
    let journal = SqliteJournal::open(&path, &macs()).await.expect("opens");
    journal.append(append(&stream("a"), 0, 3)).await.expect("appends");
    journal.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut forging = sqlx::ConnectOptions::connect(&options).await.expect("opens");
    sqlx::raw_sql("DROP TRIGGER events_are_never_changed; UPDATE events SET at = at - 1 WHERE position = 2")
        .execute(&mut forging)
        .await
        .expect("forges");
    drop(forging);
    let journal = SqliteJournal::open(&path, &macs()).await.expect("opens");
    let found = position_at(&journal, SystemClock.now(), 3).await;
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
}
