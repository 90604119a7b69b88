//! A journal and keys in a temporary directory, and read models there or in PostgreSQL.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use domain::journal::JournalEvent;
use domain::lockout::{AccountLocked, LockoutEvent, LoginFailed};
use domain::session::{
    LoginMethod, RevocationReason, SessionEvent, SessionRefreshed, SessionRevoked, SessionStarted,
};
use domain::user::{
    Client, EmailChanged, EmailVerified, ErasureReason, MailboxProof, PasswordChanged, PasswordReset,
    ProfileField, ProfileUpdated, RegistrationMethod, RoleGranted, UserBanned, UserErased, UserEvent,
    UserRegistered,
};
use domain::{
    AccessId, AppId, Email, Event, LogOrigin, Personal, Role, SessionId, StreamId, Timestamp, UserId,
};
use event_store::{
    Append, Journal, KeyStore, Location, LookupKey, MasterKey, Repository, Requested, Sealer, SqliteJournal,
    Write,
};
use schemas::envelope::{Actor, Metadata};
use test_services::Postgres;
use uuid::Uuid;

use crate::{Lease, ProjectedEvent, Projector, ReadModels};

/// The kind of database that holds the read models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Sqlite,
    Postgres,
}

pub(super) struct World {
    on: On,
    /// The first id of its events. Worlds with the same value have the same events.
    pub ids: u128,
    pub directory: tempfile::TempDir,
    pub journal: Arc<dyn Journal>,
    pub repository: Arc<Repository>,
    pub sealer: Arc<Sealer>,
    pub lookup: Arc<LookupKey>,
    /// Where the models are.
    pub location: Location,
    pub models: ReadModels,
}

/// 2027-01-15T08:00:00Z, and `seconds` later.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
}

/// The origin of the journal's events.
pub(super) fn origin() -> LogOrigin {
    LogOrigin::parse("https://login.example.com").expect("valid")
}

pub(super) fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

pub(super) fn session(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(0x5e55_0000 + n))
}

pub(super) fn registered(n: u128, email: &str, name: &str, seconds: i64) -> Event {
    Event::User(UserEvent::UserRegistered(UserRegistered {
        user_id: user(n),
        app_id: AppId::default_app(),
        method: RegistrationMethod::Password,
        at: at(seconds),
        personal: Personal {
            email: Some(Email::parse(email).expect("valid")),
            name: Some(name.to_owned()),
            ip: Some("203.0.113.77".to_owned()),
            password_hash: Some(domain::password::PasswordHash("$argon2id$secret".to_owned())),
            ..Personal::default()
        },
    }))
}

pub(super) fn started(n: u128, owner: u128, seconds: i64) -> Event {
    Event::Session(SessionEvent::SessionStarted(SessionStarted {
        session_id: session(n),
        user_id: user(owner),
        app_id: AppId::default_app(),
        method: LoginMethod::Password,
        epoch: 0,
        expires_at: at(seconds + 86_400),
        idle_expires_at: at(seconds + 3600),
        at: at(seconds),
        personal: Personal {
            ip: Some("203.0.113.77".to_owned()),
            user_agent: Some("Mozilla/Lovelace".to_owned()),
            ..Personal::default()
        },
    }))
}

pub(super) fn refreshed(n: u128, owner: u128, generation: u32, seconds: i64) -> Event {
    Event::Session(SessionEvent::SessionRefreshed(SessionRefreshed {
        session_id: session(n),
        user_id: user(owner),
        generation,
        idle_expires_at: at(seconds + 3600),
        at: at(seconds),
        personal: Personal::default(),
    }))
}

pub(super) fn revoked(n: u128, owner: u128, seconds: i64) -> Event {
    Event::Session(SessionEvent::SessionRevoked(SessionRevoked {
        session_id: session(n),
        user_id: user(owner),
        reason: RevocationReason::Logout,
        at: at(seconds),
    }))
}

pub(super) fn verified(n: u128, email: &str, earlier_access_ended: bool, seconds: i64) -> Event {
    Event::User(UserEvent::EmailVerified(EmailVerified {
        user_id: user(n),
        proof: MailboxProof::MagicLink,
        earlier_access_ended,
        profile_cleared: false,
        at: at(seconds),
        personal: Personal { email: Some(Email::parse(email).expect("valid")), ..Personal::default() },
    }))
}

/// The session `kept` stays active.
pub(super) fn email_changed(n: u128, from: &str, to: &str, kept: u128, seconds: i64) -> Event {
    Event::User(UserEvent::EmailChanged(EmailChanged {
        user_id: user(n),
        session_id: session(kept),
        at: at(seconds),
        personal: Personal {
            email: Some(Email::parse(to).expect("valid")),
            previous_email: Some(Email::parse(from).expect("valid")),
            ..Personal::default()
        },
    }))
}

fn new_password() -> Personal {
    let hash = domain::password::PasswordHash("$argon2id$other".to_owned());
    Personal { password_hash: Some(hash), ..Personal::default() }
}

pub(super) fn erased(n: u128, seconds: i64) -> Event {
    let reason = ErasureReason::Requested;
    Event::User(UserEvent::UserErased(UserErased { user_id: user(n), reason, at: at(seconds) }))
}

pub(super) fn password_reset(n: u128, seconds: i64) -> Event {
    let personal = new_password();
    Event::User(UserEvent::PasswordReset(PasswordReset { user_id: user(n), at: at(seconds), personal }))
}

/// The session `kept` stays active.
pub(super) fn password_changed(n: u128, kept: u128, seconds: i64) -> Event {
    let (user_id, session_id, personal) = (user(n), session(kept), new_password());
    Event::User(UserEvent::PasswordChanged(PasswordChanged {
        user_id,
        session_id,
        at: at(seconds),
        personal,
    }))
}

/// A new database of the server that all tests share.
pub(super) fn database() -> Location {
    Postgres::shared().database().parse().expect("a URL")
}

fn location(on: On, path: PathBuf) -> Location {
    match on {
        On::Sqlite => Location::File(path),
        On::Postgres => database(),
    }
}

fn stream_of(event: &Event) -> StreamId {
    match event {
        Event::App(_) => StreamId::app(&AppId::default_app()),
        Event::User(event) => StreamId::user(event.user_id()),
        Event::Lockout(_) => StreamId::lockout(event.person().expect("a lockout belongs to a person")),
        Event::Session(SessionEvent::SessionStarted(event)) => StreamId::session(event.session_id),
        Event::Session(SessionEvent::SessionRefreshed(event)) => StreamId::session(event.session_id),
        Event::Session(SessionEvent::RefreshTokenReused(event)) => StreamId::session(event.session_id),
        Event::Session(SessionEvent::ActiveOrganizationChosen(event)) => StreamId::session(event.session_id),
        Event::Session(SessionEvent::SessionRevoked(event)) => StreamId::session(event.session_id),
        Event::MagicLink(event) => StreamId::magic_link(event.link_id()),
        Event::Delivery(event) => StreamId::delivery(event.event_id()),
        Event::Journal(JournalEvent::JournalCreated(event)) => StreamId::journal(event.journal_id),
        Event::Journal(JournalEvent::JournalWentBack(event)) => StreamId::journal(event.journal_id),
        Event::Journal(JournalEvent::CheckpointKeyAdded(event)) => StreamId::journal(event.journal_id),
        Event::Journal(JournalEvent::CheckpointKeyRetired(event)) => StreamId::journal(event.journal_id),
        Event::Organization(event) => StreamId::organization(event.organization_id()),
        // Which stream of another aggregate is nothing to a read model.
        _ => StreamId::access(AccessId(Uuid::nil())),
    }
}

impl World {
    pub async fn new(on: On) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let keys = KeyStore::open(&path("keys.db"), &MasterKey::generate()).await.expect("opens");
        let lookup = Arc::new(LookupKey::new(keys.instance_key()));
        let macs = keys.macs();
        let sealer = Arc::new(Sealer::new(Arc::new(keys)));
        let journal: Arc<dyn Journal> =
            Arc::new(SqliteJournal::open(&path("journal.db"), &macs).await.expect("opens"));
        let location = location(on, path("read-models.db"));
        let models = ReadModels::open(&location, sealer.clone(), lookup.clone()).await.expect("opens");
        models.know_origin(&origin());
        Self {
            on,
            ids: 0,
            location,
            repository: Arc::new(Repository::new(journal.clone(), sealer.clone(), 100)),
            models,
            directory,
            journal,
            sealer,
            lookup,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// More read models, on the same kind of database: a file of this name, or a new database.
    pub fn other(&self, name: &str) -> Location {
        location(self.on, self.path(name))
    }

    pub async fn open(&self, location: &Location) -> ReadModels {
        let models =
            ReadModels::open(location, self.sealer.clone(), self.lookup.clone()).await.expect("opens");
        models.know_origin(&origin());
        models
    }

    /// Appends an event to its stream, by its person, at a time.
    pub async fn append(&self, event: &Event, seconds: i64) {
        let actor = event.person().map_or_else(Actor::system, Actor::user);
        self.append_by(event, seconds, actor, None).await;
    }

    /// The same, by anybody, from this address.
    pub async fn append_by(&self, event: &Event, seconds: i64, actor: Actor, ip: Option<&str>) {
        let stream = stream_of(event);
        let expected = self.journal.read_stream(&stream, 0).await.expect("reads").len() as u64;
        let id = Uuid::from_u128(self.ids + u128::from(self.journal.head().await.expect("reads")));
        let client = Client { ip: ip.map(str::to_owned), user_agent: None };
        let requested = Requested { client: &client, actor: &actor };
        let new = self.repository.encode_for(event, id, &requested).await.expect("encodes");
        let append = Append {
            writes: vec![Write { stream, expected, events: vec![new] }],
            guards: vec![],
            taken: vec![],
            released: vec![],
            idempotency: None,
            metadata: Metadata {
                app_id: AppId::default_app(),
                actor,
                correlation_id: id,
                causation_id: None,
                request_id: None,
                traceparent: None,
            },
            at: at(seconds),
        };
        self.journal.append(append).await.expect("appends");
    }

    pub async fn events(&self, after: u64) -> Vec<ProjectedEvent> {
        let mut events = Vec::new();
        for recorded in self.journal.read_all(after, 1000).await.expect("reads") {
            let decoded = self.repository.decode(&recorded).await;
            events.push(ProjectedEvent { recorded: Arc::new(recorded), decoded });
        }
        events
    }

    /// Applies all of a long journal.
    pub async fn catch_up_pages(&self, models: &ReadModels) {
        let head = self.journal.head().await.expect("reads");
        let mut after = 0;
        while after < head {
            self.catch_up(models, 1000).await;
            after += 1000;
        }
    }

    /// Applies what each projector has not applied yet, in batches of this size.
    pub async fn catch_up(&self, models: &ReadModels, size: usize) {
        for projector in models.projectors() {
            let checkpoint = models.checkpoint(&*projector).await.expect("reads");
            for batch in self.events(checkpoint).await.chunks(size) {
                models.apply(&*projector, batch, Lease::UNSHARED).await.expect("applies");
            }
        }
    }
}

/// A whole read model as text.
pub(super) async fn dump(models: &ReadModels, name: &str) -> String {
    models.dump(&*projector(models, name)).await.expect("dumps")
}

pub(super) fn projector(models: &ReadModels, name: &str) -> Arc<dyn Projector> {
    models.projectors().into_iter().find(|projector| projector.name() == name).expect("there is one")
}

/// Two users; the first logs in twice, refreshes, logs out once, changes her name; the second is banned.
pub(super) async fn small_world(on: On) -> World {
    let world = World::new(on).await;
    let user_event = |event| Event::User(event);
    let renamed = ProfileUpdated {
        user_id: user(1),
        cleared: BTreeSet::from([ProfileField::Phone]),
        at: at(50),
        personal: Personal { name: Some("Ada King".to_owned()), ..Personal::default() },
    };
    let role = Role::parse("editor").expect("valid");
    // On the heap: the futures of all tests that wait for this one hold it.
    let history = vec![
        registered(1, "ada@example.com", "Ada Lovelace", 0),
        registered(2, "grace@example.org", "Grace Hopper", 10),
        started(1, 1, 20),
        started(2, 1, 30),
        refreshed(1, 1, 1, 40),
        user_event(UserEvent::ProfileUpdated(renamed)),
        user_event(UserEvent::RoleGranted(RoleGranted {
            user_id: user(1),
            role,
            access_ended: false,
            admin_role_changes: None,
            at: at(55),
        })),
        revoked(2, 1, 60),
        user_event(UserEvent::UserBanned(UserBanned {
            user_id: user(2),
            access_ended: false,
            at: at(70),
            personal: Personal::default(),
        })),
        Event::Lockout(LockoutEvent::LoginFailed(LoginFailed {
            user_id: user(1),
            failures: 1,
            device_id: None,
            at: at(80),
        })),
        Event::Lockout(LockoutEvent::AccountLocked(AccountLocked {
            user_id: user(1),
            device_id: None,
            until: at(140),
            at: at(80),
        })),
        refreshed(1, 1, 2, 90_000),
    ];
    for (n, event) in history.iter().enumerate() {
        let seconds = if n + 1 == history.len() { 90_000 } else { i64::try_from(n).expect("small") * 10 };
        world.append(event, seconds).await;
    }
    world.catch_up(&world.models, 1000).await;
    world
}
