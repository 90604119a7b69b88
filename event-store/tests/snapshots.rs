//! A snapshot is used only if this instance wrote it, for this stream and version, and the journal still has the event
//! that it was taken at.

use std::sync::Arc;

use domain::app::{App, AppCreated, AppDisabled, AppEnabled, AppEvent};
use domain::settings::AppSettings;
use domain::user::{Client, Origin, Profile, RegistrationMethod, User, UserCommand};
use domain::{AppId, Email, Event, Stream, StreamId, UserId};
use event_store::contract::{Nodes, macs, nothing};
use event_store::{
    Append, Clock, Journal, KeyStore, MasterKey, PostgresJournal, PostgresSettings, Repository, Sealer,
    Snapshot, SqliteJournal, StoreError, SystemClock, Write,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use test_services::Postgres;
use uuid::Uuid;

/// How many events the long streams have. The snapshot is at the last one.
const LONG: u64 = 120;

struct World {
    directory: TempDir,
    /// The URL of the database, if the journal is in one.
    database: Option<String>,
    sealer: Arc<Sealer>,
    journal: Arc<dyn Journal>,
}

async fn in_postgres(url: &str) -> Arc<dyn Journal> {
    let url = url.parse().expect("a URL");
    Arc::new(PostgresJournal::open(&url, PostgresSettings::default(), &macs()).await.expect("opens"))
}

impl World {
    async fn new(database: Option<String>) -> Self {
        let directory = TempDir::new().expect("makes a directory");
        let keys = KeyStore::open(&directory.path().join("keys.db"), &MasterKey::generate()).await;
        let sealer = Arc::new(Sealer::new(Arc::new(keys.expect("opens"))));
        let journal: Arc<dyn Journal> = match &database {
            Some(url) => in_postgres(url).await,
            None => Arc::new(
                SqliteJournal::open(&directory.path().join("journal.db"), &macs()).await.expect("opens"),
            ),
        };
        Self { directory, database, sealer, journal }
    }

    async fn both() -> [Self; 2] {
        [Self::new(None).await, Self::new(Some(Postgres::shared().database())).await]
    }

    /// Goes on with a node that has not seen what was removed meanwhile: one that has finds, rightly, that the journal went
    /// back. A file has one node.
    async fn on_another_node(mut self) -> Self {
        if let Some(url) = &self.database {
            self.journal = in_postgres(url).await;
        }
        self
    }

    /// A repository with an empty cache, and a count of the events that are read.
    fn fresh(&self) -> (Repository, Arc<Nodes>) {
        let nodes = Arc::new(Nodes::new(vec![Arc::clone(&self.journal)]));
        (Repository::new(Arc::clone(&nodes) as Arc<dyn Journal>, Arc::clone(&self.sealer), 10), nodes)
    }

    async fn write(&self, stream: StreamId, expected: u64, events: Vec<Event>) {
        let (repository, _) = self.fresh();
        let mut encoded = Vec::new();
        for event in events {
            encoded.push(repository.encode(&event, SystemClock.new_id()).await.expect("encodes"));
        }
        let write = Write { stream, expected, events: encoded };
        self.journal.append(Append { writes: vec![write], ..nothing() }).await.expect("appends");
    }

    /// An app that was disabled and enabled many times, with a snapshot.
    async fn long_app(&self, id: &str) -> StreamId {
        let app_id = AppId::parse(id).expect("an id");
        let stream = App::stream(&app_id);
        let at = SystemClock.now();
        let created =
            AppCreated { app_id: app_id.clone(), name: id.to_owned(), settings: AppSettings::default(), at };
        let mut events = vec![Event::from(AppEvent::AppCreated(created))];
        for number in 1..LONG {
            events.push(Event::from(if number % 2 == 0 {
                AppEvent::AppEnabled(AppEnabled { at })
            } else {
                AppEvent::AppDisabled(AppDisabled { at })
            }));
        }
        self.write(stream.clone(), 0, events).await;
        self.fresh().0.load_stream::<App>(&stream).await.expect("loads");
        self.kept(&stream).await;
        stream
    }

    /// A person with a long history and a snapshot.
    async fn long_user(&self, number: u128) -> StreamId {
        let user_id = UserId(Uuid::from_u128(number));
        let mut state = User::default();
        let register = UserCommand::Register {
            user_id,
            app_id: AppId::default_app(),
            method: RegistrationMethod::Password,
            email: Email::parse("ada@example.org").expect("valid"),
            proof: None,
            password_hash: None,
            profile: Profile::default(),
            origin: Origin::default(),
            client: Client::default(),
            at: SystemClock.now(),
        };
        let mut events = decided(&mut state, register).await;
        while (events.len() as u64) < LONG {
            let name = Some(Some(format!("Name {}", events.len())));
            let patch = domain::user::ProfilePatch { name, ..Default::default() };
            events.extend(
                decided(&mut state, UserCommand::UpdateProfile { patch, at: SystemClock.now() }).await,
            );
        }
        let stream = User::stream(&user_id);
        self.write(stream.clone(), 0, events).await;
        self.fresh().0.load_stream::<User>(&stream).await.expect("loads");
        self.kept(&stream).await;
        stream
    }

    async fn kept(&self, stream: &StreamId) -> Snapshot {
        // A loaded machine gets more time.
        for _ in 0..12_000 {
            if let Some(snapshot) = self.journal.load_snapshot(stream).await.expect("reads") {
                return snapshot;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the snapshot of {stream} is kept soon");
    }

    /// What an administrator of the store can do.
    async fn alter(&self, sqlite: &str, postgres: &str) {
        if let Some(url) = &self.database {
            Postgres::shared().psql(url, postgres);
            return;
        }
        let path = self.directory.path().join("journal.db");
        let mut file =
            sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.expect("opens");
        file.execute(AssertSqlSafe(sqlite.to_owned())).await.expect("changes");
        file.close().await.expect("closes");
    }

    async fn put(&self, stream: &StreamId, Snapshot { version, state }: &Snapshot) {
        let hex = hex::encode(state);
        self.alter(
            &format!("INSERT OR REPLACE INTO snapshots VALUES ('{stream}', {version}, x'{hex}')"),
            &format!(
                "DELETE FROM watchword.snapshots WHERE stream = '{stream}';
                 INSERT INTO watchword.snapshots VALUES ('{stream}', {version}, '\\x{hex}')"
            ),
        )
        .await;
    }

    /// How many events it takes to load an app, and whether it is disabled.
    async fn load_app(&self, stream: &StreamId) -> (usize, u64, bool) {
        let (repository, nodes) = self.fresh();
        let loaded = repository.load_stream::<App>(stream).await.expect("loads");
        let read = nodes.events_read();
        // Reading that much stores a snapshot in the background: what the test puts there must come after it.
        while read >= 100 && nodes.snapshots_kept() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        (read, loaded.version, loaded.state.disabled)
    }
}

async fn decided(user: &mut User, command: UserCommand) -> Vec<Event> {
    let sink = cqrs_es::event_sink::EventSink::default();
    cqrs_es::Aggregate::handle(user, command, &(), &sink).await.expect("decides");
    sink.collect().await.into_iter().map(Event::from).collect()
}

/// A snapshot of version 0.1, and what an attacker would put there.
fn plain(form: u8, app: &App) -> Vec<u8> {
    [&[form, 0], serde_json::to_vec(app).expect("serializes").as_slice()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_snapshot_decides_nothing() {
    for world in World::both().await {
        let (stream, other) = (world.long_app("victim").await, world.long_app("other").await);
        let genuine = world.kept(&stream).await;
        assert_eq!(genuine.version, LONG);
        assert_eq!(
            world.load_app(&stream).await,
            (1, LONG, true),
            "the snapshot saves reading all but its event"
        );

        // An app that says it was never disabled.
        let forged = App {
            disabled: false,
            ..world.fresh().0.load_stream::<App>(&stream).await.expect("loads").state.clone()
        };
        let of_other = world.kept(&other).await.state;
        let form = genuine.state[0];
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut state = genuine.state.clone();
            change(&mut state);
            state
        };
        let cases: Vec<(&str, u64, Vec<u8>)> = vec![
            ("the form of 0.1", LONG, plain(2, &forged)),
            ("without a MAC", LONG, plain(form, &forged)),
            ("a MAC of zeros", LONG, [&[form][..], &[0; 48], &plain(form, &forged)[1..]].concat()),
            ("the MAC of the genuine one", LONG, [&genuine.state[..49], &plain(form, &forged)[1..]].concat()),
            ("another stream's", LONG, of_other),
            ("an older version", LONG - 1, genuine.state.clone()),
            ("a later version", LONG + 1, genuine.state.clone()),
            ("version 0", 0, genuine.state.clone()),
            ("empty", LONG, vec![]),
            ("cut off", LONG, genuine.state[..40].to_vec()),
            ("a bit of the MAC", LONG, with(&|state| state[1] ^= 1)),
            ("a bit of the event's id", LONG, with(&|state| state[33] ^= 1)),
            ("a bit of the kind", LONG, with(&|state| state[49] ^= 1)),
            ("the last bit", LONG, with(&|state| *state.last_mut().expect("there") ^= 1)),
        ];
        for (what, version, state) in cases {
            world.put(&stream, &Snapshot { version, state }).await;
            let fault = world.fresh().0.check_snapshot::<App>(&stream).await.expect("checks");
            // The older form was once accepted, and is now ignored.
            let is_old = ["the form of 0.1", "empty"].contains(&what);
            assert_eq!(fault.is_none(), is_old, "{what}: {fault:?}");
            let (read, loaded, disabled) = world.load_app(&stream).await;
            assert_eq!((loaded, disabled), (LONG, true), "{what}");
            // The new snapshot reads one more.
            assert!(read as u64 >= LONG, "{what}: all events are read, not {read}");
            while version < LONG && world.kept(&stream).await.version < LONG {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
        world.put(&stream, &genuine).await;
        assert_eq!(world.load_app(&stream).await, (1, LONG, true));
        assert_eq!(world.fresh().0.check_snapshot::<App>(&stream).await, Ok(None));

        // A genuine older snapshot is as good a start: later events are read.
        world
            .write(
                stream.clone(),
                LONG,
                vec![AppEvent::AppEnabled(AppEnabled { at: SystemClock.now() }).into()],
            )
            .await;
        assert_eq!(world.load_app(&stream).await, (2, LONG + 1, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_of_a_person_is_bound_to_them_too() {
    for world in World::both().await {
        let (ada, eve) = (world.long_user(1).await, world.long_user(2).await);
        let (of_ada, of_eve) = (world.kept(&ada).await, world.kept(&eve).await);
        assert_eq!(world.fresh().0.check_snapshot::<User>(&ada).await, Ok(None));
        world.put(&ada, &of_eve).await;
        world.put(&eve, &of_ada).await;
        for (stream, number) in [(&ada, 1), (&eve, 2)] {
            let (repository, nodes) = world.fresh();
            let loaded = repository.load_stream::<User>(stream).await.expect("loads");
            assert!(nodes.events_read() as u64 >= LONG);
            assert_eq!(loaded.state.id, Some(UserId(Uuid::from_u128(number))));
            assert!(repository.check_snapshot::<User>(stream).await.expect("checks").is_some());
        }
    }
}

/// If a ban was removed from the journal, or everything after it, the snapshot shows that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_missing_are_noticed_when_their_stream_is_loaded() {
    for world in World::both().await {
        let stream = world.long_app("victim").await;
        let without = |which: &str| {
            (
                format!("DROP TRIGGER IF EXISTS events_are_never_deleted; DELETE FROM events WHERE {which}"),
                format!(
                    "ALTER TABLE watchword.events DISABLE TRIGGER USER; DELETE FROM watchword.events WHERE {which}"
                ),
            )
        };
        let (sqlite, postgres) = without(&format!("version = {LONG}"));
        world.alter(&sqlite, &postgres).await;
        let world = world.on_another_node().await;
        let error = world.fresh().0.load_stream::<App>(&stream).await.expect_err("is refused");
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains("version 120")), "{error}");
        assert!(world.fresh().0.check_snapshot::<App>(&stream).await.expect("checks").is_some());

        // Without the snapshot a missing last event goes unnoticed; one in between does not.
        world.alter("DELETE FROM snapshots", "DELETE FROM watchword.snapshots").await;
        assert_eq!(world.load_app(&stream).await.1, LONG - 1);
        world.kept(&stream).await;
        world.alter("DELETE FROM snapshots", "DELETE FROM watchword.snapshots").await;
        let (sqlite, postgres) = without("version = 7");
        world.alter(&sqlite, &postgres).await;
        let error = world.fresh().0.load_stream::<App>(&stream).await.expect_err("is refused");
        assert!(matches!(&error, StoreError::Damaged(what) if what.contains("version 7")), "{error}");
    }
}

/// An attacker who has the service's password.
#[tokio::test]
async fn the_service_can_keep_snapshots_through_a_function_only() {
    let world = World::new(Some(Postgres::shared().database())).await;
    let stream = world.long_app("victim").await;
    let kept = world.kept(&stream).await;
    let options: sqlx::postgres::PgConnectOptions =
        world.database.as_deref().expect("a database").parse().expect("a URL");
    let mut connection = options.connect().await.expect("connects");
    connection.execute("SET ROLE watchword_service").await.expect("sets");
    for statement in [
        "INSERT INTO watchword.snapshots VALUES ('app-x', 1, '')",
        "UPDATE watchword.snapshots SET state = ''",
        "DELETE FROM watchword.snapshots",
        "TRUNCATE watchword.snapshots",
    ] {
        let error = connection.execute(statement).await.expect_err(statement);
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    for (name, version) in [("app-victim", LONG + 1), ("app-victim", 1), ("app-nobody", 1)] {
        let keep = format!("SELECT watchword.keep_snapshot('{name}', {version}, '')");
        connection.execute(AssertSqlSafe(keep)).await.expect("does nothing");
    }
    assert_eq!(world.journal.snapshots().await, Ok(vec![stream.clone()]));
    assert_eq!(world.kept(&stream).await, kept);
}
