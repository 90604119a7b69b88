//! Keys, sealing, and that no file contains personal data in the clear.

use std::fs;
use std::sync::Arc;

use domain::user::{Client, Origin, Profile, RegistrationMethod, User, UserCommand, UserEvent};
use domain::{AppId, Email, Event, Stream, UserId};
use event_store::contract::{Nodes, nothing};
use event_store::repository::Loaded;
use event_store::{
    Append, Clock, Journal, KeyStore, MasterKey, OpenError, Repository, Sealer, SqliteJournal, StoreError,
    SystemClock, Write,
};
use futures::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use test_services::Postgres;
use uuid::Uuid;

use place::{FORMAT_1_MASTER, FORMAT_1_PERSON, Place};

macro_rules! on_both {
    ($($name:ident)*) => {
        mod in_a_file {
            use super::*;

            $(#[tokio::test]
            async fn $name() {
                contract::$name(Place::File(TempDir::new().expect("makes a directory"))).await;
            })*
        }

        mod in_postgres {
            use super::*;

            $(#[tokio::test]
            async fn $name() {
                contract::$name(Place::Database(Postgres::shared().database())).await;
            })*
        }
    };
}

mod checkpoints;
mod place;

struct Fixture {
    directory: TempDir,
    master: MasterKey,
    repository: Repository,
}

impl Fixture {
    async fn new() -> Self {
        let directory = TempDir::new().expect("makes a directory");
        let master = MasterKey::generate();
        let repository = repository(&directory, &master).await;
        Self { directory, master, repository }
    }

    fn sealer(&self) -> &Sealer {
        self.repository.sealer()
    }

    async fn append(&self, user: UserId, expected: u64, events: &[UserEvent]) {
        let mut encoded = Vec::new();
        for event in events {
            let event = Event::from(event.clone());
            encoded.push(self.repository.encode(&event, SystemClock.new_id()).await.expect("encodes"));
        }
        let write = Write { stream: User::stream(&user), expected, events: encoded };
        self.repository.journal().append(Append { writes: vec![write], ..nothing() }).await.expect("appends");
    }
}

async fn repository(directory: &TempDir, master: &MasterKey) -> Repository {
    let journal = SqliteJournal::open(&directory.path().join("journal.db"), &event_store::contract::macs())
        .await
        .expect("opens");
    let keys = KeyStore::open(&directory.path().join("keys.db"), master).await.expect("opens");
    Repository::new(Arc::new(journal), Arc::new(Sealer::new(Arc::new(keys))), 100)
}

fn person(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

async fn registered(user_id: UserId) -> Vec<UserEvent> {
    let command = UserCommand::Register {
        user_id,
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        email: Email::parse("visible@secret.example").expect("valid"),
        proof: None,
        password_hash: None,
        profile: Profile { name: Some("Visible Name".to_owned()), ..Profile::default() },
        origin: Origin::default(),
        client: Client { ip: Some("203.0.113.77".to_owned()), user_agent: Some("VisibleAgent/1".to_owned()) },
        at: SystemClock.now(),
    };
    decided(&mut User::default(), command).await
}

async fn decided(user: &mut User, command: UserCommand) -> Vec<UserEvent> {
    let sink = cqrs_es::event_sink::EventSink::default();
    cqrs_es::Aggregate::handle(user, command, &(), &sink).await.expect("decides");
    sink.collect().await
}

/// What every key store must do, wherever it is located.
mod contract {
    use super::*;

    pub async fn opens_only_what_was_sealed_for_the_same_place(place: Place) {
        let vault = place.sealer(&MasterKey::generate()).await;
        let sealed = vault.seal(person(1), b"place", b"secret").await.expect("seals");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(vault.open(person(1), b"place", &sealed).await, Ok(Some(b"secret".to_vec())));
        assert!(matches!(vault.open(person(1), b"other", &sealed).await, Err(StoreError::Damaged(_))));
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(vault.open(person(1), b"place", &changed).await.is_err(), "byte {place}");
            assert!(vault.open(person(1), b"place", &sealed[..place]).await.is_err(), "cut at {place}");
        }
        vault.seal(person(2), b"place", b"other").await.expect("seals");
        assert!(matches!(vault.open(person(2), b"place", &sealed).await, Err(StoreError::Damaged(_))));
        assert_eq!(vault.open(person(3), b"place", &sealed).await, Ok(None), "there never was such a key");
    }

    pub async fn an_erased_key_is_gone_for_good(place: Place) {
        let master = MasterKey::generate();
        let mut vault = place.sealer(&master).await;
        let sealed = vault.seal(person(1), b"", b"secret").await.expect("seals");
        assert!(!vault.keys().is_erased(person(1)).await.expect("reads"));
        vault.keys().erase_data_key(person(1)).await.expect("erases");
        for _ in 0..2 {
            assert!(vault.keys().is_erased(person(1)).await.expect("reads"));
            assert_eq!(vault.open(person(1), b"", &sealed).await, Ok(None));
            assert_eq!(vault.seal(person(1), b"", b"more").await, Err(StoreError::Erased(person(1))));
            vault.keys().close().await;
            vault = place.sealer(&master).await;
        }
    }

    pub async fn racing_creators_get_one_key(place: Place) {
        let vault = place.sealer(&MasterKey::generate()).await;
        let sealed = join_all((0..16).map(|_| vault.seal(person(1), b"", b"secret"))).await;
        for sealed in sealed {
            let sealed = sealed.expect("seals");
            assert_eq!(vault.open(person(1), b"", &sealed).await, Ok(Some(b"secret".to_vec())));
        }
    }

    pub async fn another_master_key_is_refused(place: Place) {
        let master = MasterKey::generate();
        place.open(&master).await.expect("makes it").close().await;
        let refusal = place.open(&MasterKey::generate()).await.err().expect("is refused");
        assert!(matches!(refusal, OpenError::WrongMasterKey(_)), "{refusal}");
        place.open(&master).await.expect("the right one opens").check().await.expect("is in order");
    }

    pub async fn the_master_key_is_replaced_and_nothing_else(place: Place) {
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let vault = place.sealer(&old).await;
        let sealed = vault.seal(person(1), b"place", b"secret").await.expect("seals");
        let instance = vault.keys().instance_key().derive("a test");
        let app = AppId::default_app();
        vault.keys().put_signing_key(&app, "kid", "ES256", b"a private key").await.expect("keeps");
        assert!(vault.keys().rotate_master_key(&new, &old).await.is_err(), "that is not the current one");
        vault.keys().rotate_master_key(&old, &new).await.expect("rotates");
        assert!(vault.keys().rotate_master_key(&old, &new).await.is_err(), "it no longer is");

        // Processes that have it open are unaffected.
        vault.keys().check().await.expect("is in order");
        let later = vault.seal(person(2), b"place", b"later").await.expect("seals");
        vault.keys().close().await;
        let refusal = place.open(&old).await.err().expect("is refused");
        assert!(matches!(refusal, OpenError::WrongMasterKey(_)), "{refusal}");
        let vault = place.sealer(&new).await;
        assert_eq!(vault.keys().instance_key().derive("a test"), instance);
        assert_eq!(vault.open(person(1), b"place", &sealed).await, Ok(Some(b"secret".to_vec())));
        assert_eq!(vault.open(person(2), b"place", &later).await, Ok(Some(b"later".to_vec())));
        let signing = vault.keys().signing_key(&app, "kid").await.expect("reads").expect("is there");
        assert_eq!(signing.as_slice(), b"a private key");
    }

    pub async fn a_store_of_format_1_opens_with_all_its_keys(place: Place) {
        place.make_format_1().await;
        let refusal = place.open(&MasterKey::generate()).await.err().expect("is refused");
        assert!(matches!(refusal, OpenError::WrongMasterKey(_)), "{refusal}");
        let (old, new) = (MasterKey::from_base64(FORMAT_1_MASTER).expect("a key"), MasterKey::generate());
        let of_the_person = UserId(FORMAT_1_PERSON.parse().expect("an id"));
        let mut instance = None;
        for _ in 0..2 {
            let keys = place.open(&old).await.expect("opens");
            assert!(keys.data_key(of_the_person).await.expect("is unwrapped").is_some());
            let derived = keys.instance_key().derive("a test");
            assert_eq!(*instance.get_or_insert(derived.clone()), derived);
            keys.close().await;
        }
        let keys = place.open(&old).await.expect("opens");
        keys.rotate_master_key(&old, &new).await.expect("rotates");
        keys.close().await;
        assert!(matches!(place.open(&old).await.err(), Some(OpenError::WrongMasterKey(_))));
        let keys = place.open(&new).await.expect("opens");
        assert!(keys.data_key(of_the_person).await.expect("is unwrapped").is_some());
        assert_eq!(Some(keys.instance_key().derive("a test")), instance);
    }

    pub async fn signing_keys_are_kept_wrapped(place: Place) {
        let keys = place.open(&MasterKey::generate()).await.expect("opens");
        let (app, other) = (AppId::default_app(), AppId::parse("other").expect("valid"));
        keys.put_signing_key(&app, "kid-1", "ES256", b"the private half of a key").await.expect("keeps");
        let found = keys.signing_key(&app, "kid-1").await.expect("reads").expect("is there");
        assert_eq!(found.as_slice(), b"the private half of a key");
        assert!(keys.signing_key(&app, "kid-2").await.expect("reads").is_none());
        assert!(keys.signing_key(&other, "kid-1").await.expect("reads").is_none());
        let dump = place.dump();
        assert!(dump.len() > 100 && !dump.contains("the private half"));
    }
}

on_both! {
    opens_only_what_was_sealed_for_the_same_place
    an_erased_key_is_gone_for_good
    racing_creators_get_one_key
    another_master_key_is_refused
    the_master_key_is_replaced_and_nothing_else
    a_store_of_format_1_opens_with_all_its_keys
    signing_keys_are_kept_wrapped
}

/// Racing nodes agree on one key, and a node soon drops a cached key that another one erased.
#[tokio::test]
async fn nodes_share_keys_and_their_erasure() {
    let place = Place::Database(Postgres::shared().database());
    let master = MasterKey::generate();
    let (one, two) = (place.sealer(&master).await, place.sealer(&master).await);
    let (from_one, from_two) =
        tokio::join!(one.seal(person(1), b"", b"secret"), two.seal(person(1), b"", b"secret"));
    for sealed in [from_one.expect("seals"), from_two.expect("seals")] {
        for vault in [&one, &two] {
            assert_eq!(vault.open(person(1), b"", &sealed).await, Ok(Some(b"secret".to_vec())));
        }
    }
    let sealed = one.seal(person(1), b"", b"secret").await.expect("seals");
    one.keys().erase_data_key(person(1)).await.expect("erases");
    assert!(two.keys().is_erased(person(1)).await.expect("reads"));
    tokio::time::sleep(std::time::Duration::from_millis(5100)).await;
    assert_eq!(two.open(person(1), b"", &sealed).await, Ok(None));
    assert_eq!(two.seal(person(1), b"", b"more").await, Err(StoreError::Erased(person(1))));
}

/// The service can create and erase keys, but not delete their rows: an erased key stays erased.
#[tokio::test]
async fn the_service_cannot_delete_keys() {
    let server = Postgres::shared();
    let url = server.database();
    let place = Place::Database(url.clone());
    place.sealer(&MasterKey::generate()).await.seal(person(1), b"", b"secret").await.expect("seals");
    for table in ["data_keys", "signing_keys", "meta"] {
        let refused = format!(
            "SET ROLE watchword_service; DO $$ BEGIN DELETE FROM watchword_keys.{table};
             RAISE 'deleted'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
        );
        server.psql(&url, &refused);
    }
    assert_eq!(server.psql(&url, "SELECT count(*) FROM watchword_keys.data_keys"), "1\n");
    let locked_out = "SET ROLE watchword_service; DO $$ BEGIN UPDATE watchword_keys.meta SET value = '';
         RAISE 'changed'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";
    server.psql(&url, locked_out);
}

/// What an old master key opened must no longer be in the file: others may have seen that key.
#[tokio::test]
async fn nothing_of_the_old_wrapping_is_left_in_the_file() {
    let directory = TempDir::new().expect("makes a directory");
    let path = directory.path().join("keys.db");
    let (old, new) = (MasterKey::generate(), MasterKey::generate());
    let keys = KeyStore::open(&path, &old).await.expect("opens");
    let options = SqliteConnectOptions::new().filename(&path).read_only(true);
    let mut file = options.connect().await.expect("opens");
    let wrapped: Vec<u8> = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'instance'")
        .fetch_one(&mut file)
        .await
        .expect("reads");
    file.close().await.expect("closes");
    let is_stored = |what: &[u8]| {
        ["keys.db", "keys.db-wal"].iter().any(|name| {
            let bytes = fs::read(directory.path().join(name)).unwrap_or_default();
            bytes.windows(what.len()).any(|window| window == what)
        })
    };
    assert!(is_stored(&wrapped));
    keys.rotate_master_key(&old, &new).await.expect("rotates");
    assert!(!is_stored(&wrapped));
}

#[tokio::test]
async fn a_refusal_leaves_what_a_kill_left() {
    let fixture = Fixture::new().await;
    fixture.sealer().seal(person(1), b"place", b"secret").await.expect("seals");
    let left = TempDir::new().expect("makes a directory");
    let contents = || {
        ["keys.db", "keys.db-wal", "keys.db-shm"]
            .map(|name| fs::read(left.path().join(name)).unwrap_or_default())
    };
    for name in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        fs::copy(fixture.directory.path().join(name), left.path().join(name)).expect("copies");
    }
    let before = contents();
    assert!(!before[1].is_empty(), "the log holds the newest key");
    let path = left.path().join("keys.db");
    let refusal = KeyStore::open(&path, &MasterKey::generate()).await.err().expect("is refused");
    assert!(matches!(refusal, OpenError::WrongMasterKey(_)), "{refusal}");
    let looked = KeyStore::look(&path, &fixture.master).await.expect("looks");
    assert!(looked.data_key(person(1)).await.expect("reads").is_some());
    assert!(matches!(looked.create_data_key(person(2)).await, Err(StoreError::Unavailable(_))));
    looked.close().await;
    assert!(contents() == before, "something was touched");
    let keys = KeyStore::open(&path, &fixture.master).await.expect("opens");
    assert!(keys.data_key(person(1)).await.expect("reads").is_some());
    keys.check().await.expect("is as it should be");
    keys.close().await;
    assert!(!left.path().join("keys.db-wal").exists() && !left.path().join("keys.db-shm").exists());
    assert!(keys.check().await.is_err(), "it is closed");
}

fn assert_nowhere(directory: &TempDir, needles: &[&[u8]]) {
    let mut files = 0;
    for entry in fs::read_dir(directory.path()).expect("lists") {
        let entry = entry.expect("lists");
        let bytes = fs::read(entry.path()).expect("reads");
        files += 1;
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
            assert!(!found, "{} holds {:?}", entry.file_name().display(), String::from_utf8_lossy(needle));
        }
    }
    assert!(files >= 2, "there was something to look at");
}

const PERSONAL: [&[u8]; 5] = [b"visible", b"secret.example", b"203.0.113.77", b"Agent/1", b"Changed Name"];

/// Invariant n, for the files of the journal and the key store.
#[tokio::test]
async fn inv_n_no_personal_data_lies_open_in_any_byte() {
    let fixture = Fixture::new().await;
    let user = person(1);
    let events = registered(user).await;
    fixture.append(user, 0, &events).await;
    let loaded = fixture.repository.load::<User>(&user).await.expect("loads");
    assert_eq!(loaded.state.email, Some(Email::parse("visible@secret.example").expect("valid")));
    assert_eq!(loaded.state.name.as_deref(), Some("Visible Name"));
    assert_nowhere(&fixture.directory, &PERSONAL);

    fixture.sealer().keys().erase_data_key(user).await.expect("erases");
    fixture.repository.evict(&User::stream(&user));
    let erased = fixture.repository.load::<User>(&user).await.expect("loads");
    assert_eq!((erased.version, erased.state.email.clone()), (1, None));
}

/// A long stream is read from its snapshot, which is sealed like the events.
#[tokio::test]
async fn snapshots_shorten_loading_and_are_sealed() {
    let fixture = Fixture::new().await;
    let user = person(1);
    let mut state = User::default();
    let mut events = registered(user).await;
    for event in &events {
        cqrs_es::Aggregate::apply(&mut state, event.clone());
    }
    while events.len() < 120 {
        let at = SystemClock.now();
        let name = Some(Some(format!("Changed Name {}", events.len())));
        let patch = domain::user::ProfilePatch { name, ..Default::default() };
        // `handle` applies what it decides.
        events.extend(decided(&mut state, UserCommand::UpdateProfile { patch, at }).await);
    }
    fixture.append(user, 0, &events).await;
    let stream = User::stream(&user);
    let loaded = fixture.repository.load::<User>(&user).await.expect("loads");
    assert_eq!(loaded.version, 120);
    let journal = fixture.repository.journal();
    let mut waited = 0;
    while journal.load_snapshot(&stream).await.expect("reads").is_none() {
        waited += 1;
        assert!(waited < 500, "the snapshot is kept soon");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_nowhere(&fixture.directory, &PERSONAL);

    // With the snapshot, only the event that it was taken at is read.
    let nodes = Arc::new(Nodes::new(vec![Arc::clone(journal)]));
    let repository =
        Repository::new(Arc::clone(&nodes) as Arc<dyn Journal>, Arc::clone(fixture.repository.sealer()), 10);
    let again = repository.load::<User>(&user).await.expect("loads");
    assert_eq!((again.version, nodes.events_read()), (120, 1));
    assert_eq!(again.state.name, Some("Changed Name 119".to_owned()));
    assert_eq!(again.state.email, loaded.state.email);

    // A snapshot that cannot be opened is ignored: everything is in the journal.
    fixture.sealer().keys().erase_data_key(user).await.expect("erases");
    fixture.repository.evict(&stream);
    let erased = fixture.repository.load::<User>(&user).await.expect("loads");
    assert_eq!((erased.version, erased.state.name.clone()), (120, None));
}

#[tokio::test]
async fn an_older_state_never_replaces_a_newer_one() {
    let fixture = Fixture::new().await;
    let stream = User::stream(&person(1));
    let loaded = |version| Arc::new(Loaded { version, state: User::default() });
    fixture.repository.put(&stream, loaded(5));
    fixture.repository.put(&stream, loaded(4));
    assert_eq!(fixture.repository.load::<User>(&person(1)).await.expect("loads").version, 5);
    fixture.repository.evict(&stream);
    assert_eq!(fixture.repository.load::<User>(&person(1)).await.expect("loads").version, 0);
}
