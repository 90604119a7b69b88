//! Reads a whole journal, and looks for what must not be.

use std::collections::{HashMap, HashSet};

use domain::app::App;
use domain::delivery::Delivery;
use domain::lockout::Lockout;
use domain::magic_link::MagicLink;
use domain::session::{Session, SessionEvent};
use domain::user::{User, UserEvent};
use domain::{AppId, Event, StreamId, Timestamp, UserId};
use effects::mailer;
use event_store::{LookupKey, Repository, StoreError};
use schemas::RecordedEvent;

use crate::commands::doctor::future::Future;

mod mails;

use mails::Mails;

/// How many events are read at once.
const PAGE: u64 = 1000;

/// How many faults are told one by one: where there are more, they have one cause.
const FAULTS: usize = 10;

/// The kinds of claims, whose owners must be there.
const CLAIMS: [&str; 8] =
    ["app", "email", "erased", "journal", "magic_link", "mail_failed", "mail_waiting", "session"];

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many events could be read.
    pub events: u64,
    /// How many streams they are in.
    pub streams: usize,
    /// How many snapshots were compared with their events.
    pub snapshots: usize,
    /// Of how many persons the key was erased.
    pub erased: usize,
    /// The first few things that are not as they should be.
    pub faults: Vec<String>,
    /// How many there are besides.
    pub more: usize,
    /// The positions of events that asked for a mail which was neither sent nor given up, though the mailer is past them.
    pub unsent_mails: Vec<u64>,
    /// What lies ahead of now.
    pub future: Future,
}

impl Report {
    fn fault(&mut self, text: String) {
        if self.faults.len() < FAULTS {
            self.faults.push(text);
        } else {
            self.more += 1;
        }
    }
}

/// What the events so far say.
struct Scan {
    lookup: LookupKey,
    report: Report,
    versions: HashMap<StreamId, u64>,
    /// How many events could not be read, and were not missed in a stream yet.
    unread: u64,
    /// Those with an address that can be read: their app, and the key of the claim that keeps it to them.
    users: HashMap<UserId, (AppId, String)>,
    /// Those that were not revoked, and when they end: however often they are refreshed, and unless they are.
    sessions: HashMap<StreamId, (Timestamp, Timestamp)>,
    erased: HashSet<UserId>,
    /// Those whose erasure is in the log.
    to_be_erased: HashSet<UserId>,
    mails: Mails,
}

/// Checks positions, versions, the MAC and shape of every event, that every sealed part can be opened or its
/// person was erased, and that the claims are those of the events. `at` hears how far it has come: how many events,
/// and the position.
pub async fn check(
    repository: &Repository,
    now: Timestamp,
    mut at: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut scan = Scan {
        lookup: LookupKey::new(repository.sealer().keys().instance_key()),
        report: Report::default(),
        versions: HashMap::new(),
        unread: 0,
        users: HashMap::new(),
        sessions: HashMap::new(),
        erased: HashSet::new(),
        to_be_erased: HashSet::new(),
        mails: Mails::default(),
    };
    scan.report.future = Future::from(now);
    // Before the end of the journal, so that what became of every mail up to there is read.
    let mailed = mailer::position(&**repository.journal()).await?;
    let head = repository.journal().head().await?;
    let mut after = 0;
    while after < head {
        for (position, event) in page(repository, after, head.min(after + PAGE)).await {
            match event {
                Ok(event) => scan.event(repository, position, &event).await,
                Err(problem) => {
                    scan.report.fault(problem);
                    scan.unread += 1;
                }
            }
        }
        after = head.min(after + PAGE);
        at(after, after);
    }
    // What was not read cannot be compared with claims and snapshots: that would only tell the same fault again.
    if scan.report.faults.is_empty() {
        scan.claims(repository, now).await?;
        scan.snapshots(repository).await?;
        std::mem::take(&mut scan.mails).compare(&**repository.journal(), mailed, &mut scan.report).await?;
    }
    scan.erasures(repository).await?;
    scan.report.streams = scan.versions.len();
    scan.report.erased = scan.erased.len();
    Ok(scan.report)
}

/// The events behind `after` up to `last`, or why one is not there. Where one cannot be read, the others can.
async fn page(repository: &Repository, after: u64, last: u64) -> Vec<(u64, Result<RecordedEvent, String>)> {
    let positions: Vec<u64> = (after + 1..=last).collect();
    if let Ok(events) = repository.journal().read_positions(&positions).await
        && events.len() == positions.len()
    {
        return events.into_iter().map(|event| (event.position, Ok(event))).collect();
    }
    let mut page = Vec::with_capacity(positions.len());
    for position in positions {
        let event = match repository.journal().read_positions(&[position]).await {
            Ok(events) => events.into_iter().next().ok_or_else(|| format!("event {position} is missing")),
            Err(error) => Err(format!("event {position} cannot be read: {error}")),
        };
        page.push((position, event));
    }
    page
}

impl Scan {
    async fn event(&mut self, repository: &Repository, position: u64, event: &RecordedEvent) {
        self.report.events += 1;
        let version = self.versions.entry(event.stream.clone()).or_default();
        // A version that is left out may be that of an event that could not be read, which was told already.
        let left_out = event.version.saturating_sub(*version + 1);
        if event.version <= *version || left_out > self.unread {
            let (stream, found) = (&event.stream, event.version);
            self.report
                .fault(format!("event {position} is version {found} of {stream}, behind version {version}"));
        } else {
            self.unread -= left_out;
        }
        *version = event.version;
        if event.position != position {
            self.report.fault(format!("event {} is found at position {position}", event.position));
        }
        if let (Some(person), Some(_)) = (event.person, &event.personal)
            && let Err(problem) = self.key(repository, person).await
        {
            self.report.fault(format!("event {position}: {problem}"));
        }
        match repository.decode(event).await {
            Ok(decoded) => {
                self.report.future.see(event, &decoded);
                self.mails.see(event, &decoded);
                self.remember(event, decoded);
            }
            Err(StoreError::Damaged(problem)) => self.report.fault(format!("event {position}: {problem}")),
            Err(error) => self.report.fault(format!("event {position}: {error}")),
        }
    }

    /// Whether the key of a sealed part is there, or was erased.
    async fn key(&mut self, repository: &Repository, person: UserId) -> Result<(), String> {
        let keys = repository.sealer().keys();
        // Decoding tells of a key that cannot be unwrapped.
        if self.erased.contains(&person) || !matches!(keys.data_key(person).await, Ok(None)) {
            return Ok(());
        }
        if keys.is_erased(person).await.map_err(|error| error.to_string())? {
            self.erased.insert(person);
            return Ok(());
        }
        Err(format!("the key of {person} is missing from the key store, and was never erased"))
    }

    /// Whoever was erased has no key any more.
    async fn erasures(&mut self, repository: &Repository) -> Result<(), StoreError> {
        for person in std::mem::take(&mut self.to_be_erased) {
            // One that was never made was ended with the first of its events.
            if repository.sealer().keys().data_key(person).await?.is_some() {
                self.report.fault(format!(
                    "user {person} was erased, but their key is still there: start the service, which ends it"
                ));
            }
        }
        Ok(())
    }

    fn remember(&mut self, recorded: &RecordedEvent, event: Event) {
        match event {
            Event::User(UserEvent::UserRegistered(event)) => {
                if let Some(email) = &event.personal.email {
                    let key = self.lookup.email_claim(&event.app_id, email).key;
                    self.users.insert(event.user_id, (event.app_id, key));
                }
            }
            Event::User(UserEvent::EmailChanged(event)) => {
                if let (Some(email), Some((app_id, key))) =
                    (&event.personal.email, self.users.get_mut(&event.user_id))
                {
                    *key = self.lookup.email_claim(app_id, email).key;
                }
            }
            Event::User(UserEvent::UserErased(event)) => {
                self.users.remove(&event.user_id);
                self.to_be_erased.insert(event.user_id);
            }
            Event::Session(SessionEvent::SessionStarted(event)) => {
                self.sessions.insert(recorded.stream.clone(), (event.expires_at, event.idle_expires_at));
            }
            Event::Session(SessionEvent::SessionRefreshed(event)) => {
                if let Some((_, idle)) = self.sessions.get_mut(&recorded.stream) {
                    *idle = event.idle_expires_at;
                }
            }
            Event::Session(SessionEvent::SessionRevoked(_)) => {
                self.sessions.remove(&recorded.stream);
            }
            Event::Session(SessionEvent::RefreshTokenReused(_))
            | Event::App(_)
            | Event::User(_)
            | Event::Lockout(_)
            | Event::MagicLink(_)
            | Event::Delivery(_)
            | Event::Journal(_)
            | Event::Access(_) => {}
        }
    }

    /// A snapshot must say what the events say.
    async fn snapshots(&mut self, repository: &Repository) -> Result<(), StoreError> {
        for stream in repository.journal().snapshots().await? {
            let fault = match stream.aggregate() {
                "app" => repository.check_snapshot::<App>(&stream).await,
                "user" => repository.check_snapshot::<User>(&stream).await,
                "lockout" => repository.check_snapshot::<Lockout>(&stream).await,
                "session" => repository.check_snapshot::<Session>(&stream).await,
                "magic_link" => repository.check_snapshot::<MagicLink>(&stream).await,
                "delivery" => repository.check_snapshot::<Delivery>(&stream).await,
                _ => Ok(Some("it is of no aggregate that this program knows".to_owned())),
            };
            match fault {
                Ok(None) => self.report.snapshots += 1,
                Ok(Some(fault)) => self.report.fault(format!("the snapshot of {stream}: {fault}")),
                Err(StoreError::Damaged(fault)) => {
                    self.report.fault(format!("the snapshot of {stream} cannot be compared: {fault}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Claims are written with the events they come from, so each must fit the other.
    async fn claims(&mut self, repository: &Repository, now: Timestamp) -> Result<(), StoreError> {
        let mut owners = HashMap::new();
        let mut addresses = HashMap::new();
        for kind in CLAIMS {
            let claims = repository.journal().claims(kind, "").await?;
            for (claim, owner) in &claims {
                if !self.versions.contains_key(owner) {
                    self.report.fault(format!(
                        "the {kind} claim {} is held by {owner}, which has no event",
                        claim.key
                    ));
                }
                if kind == "erased"
                    && !owner.uuid().is_some_and(|person| self.to_be_erased.contains(&UserId(person)))
                {
                    self.report.fault(format!(
                        "the erased claim {} is held by {owner}, but no event says so",
                        claim.key
                    ));
                }
                if kind == "app" && owner.as_str() != format!("app-{}", claim.key) {
                    self.report.fault(format!(
                        "the app claim {} is held by {owner}, which is not that app",
                        claim.key
                    ));
                }
                if kind == "session"
                    && self.versions.contains_key(owner)
                    && !self.sessions.contains_key(owner)
                {
                    self.report.fault(format!(
                        "the session claim {} is still held, but the session was revoked",
                        claim.key
                    ));
                }
            }
            if kind == "email" {
                let held = claims.iter().map(|(claim, owner)| (claim.key.clone(), owner.clone()));
                addresses.extend(held);
            }
            owners.insert(kind, claims.into_iter().map(|(_, owner)| owner).collect::<HashSet<_>>());
        }
        let missing = |kind: &str, stream: &StreamId| !owners[kind].contains(stream);
        for (user, (_, key)) in &self.users {
            match addresses.get(key) {
                Some(owner) if *owner == StreamId::user(*user) => {}
                Some(owner) => self.report.fault(format!(
                    "the email claim {key} is held by {owner}, but the address is that of user {user}: neither is found by it"
                )),
                None => self.report.fault(format!(
                    "no claim keeps the address of user {user} to them: it can be registered again"
                )),
            }
        }
        let by_address: HashMap<&str, UserId> =
            self.users.iter().map(|(user, (_, key))| (key.as_str(), *user)).collect();
        for (key, owner) in &addresses {
            // One that nobody has any more is that of an erased person, whose address cannot be read.
            let reads = owner.uuid().map(UserId).is_some_and(|user| self.users.contains_key(&user));
            if reads && !by_address.contains_key(key.as_str()) {
                self.report.fault(format!(
                    "the email claim {key} is held by {owner}, whose address is another: nobody else can register it"
                ));
            }
        }
        for (stream, (end, idle_end)) in &self.sessions {
            if now < *end && now < *idle_end && missing("session", stream) {
                self.report.fault(format!(
                    "no claim lists {stream}, so that revoking all sessions of its user would miss it"
                ));
            }
        }
        for stream in self.versions.keys().filter(|stream| stream.aggregate() == "app") {
            if missing("app", stream) {
                self.report.fault(format!("no claim keeps the id of {stream}: it can be taken again"));
            }
        }
        for stream in self.versions.keys().filter(|stream| stream.aggregate() == "journal") {
            if missing("journal", stream) {
                self.report
                    .fault(format!("no claim keeps the origin that {stream} gives to events: it can change"));
            }
        }
        Ok(())
    }
}
