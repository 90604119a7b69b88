//! Reads a whole journal and checks its consistency.

use std::collections::{HashMap, HashSet};

use domain::app::App;
use domain::delivery::Delivery;
use domain::lockout::Lockout;
use domain::magic_link::MagicLink;
use domain::session::Session;
use domain::user::{User, UserEvent};
use domain::{Event, StreamId, Timestamp, UserId};
use effects::mailer;
use event_store::{LookupKey, Repository, StoreError};
use schemas::RecordedEvent;

use crate::commands::doctor::future::Future;

mod admins;
mod claims;
mod mails;

pub use admins::AdminCount;
use admins::Admins;
use claims::Claims;
use mails::Mails;

/// How many events are read at once.
const PAGE: u64 = 1000;

/// How many faults are listed: more of them share a cause.
const FAULTS: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The number of readable events.
    pub events: u64,
    /// How many streams they are in.
    pub streams: usize,
    /// The number of snapshots compared with their events.
    pub snapshots: usize,
    /// The number of persons whose key was destroyed.
    pub erased: usize,
    /// The first faults.
    pub faults: Vec<String>,
    /// The number of further faults.
    pub more: usize,
    /// The positions of events that requested a mail which was neither sent nor given up, although the mailer is past
    /// them.
    pub unsent_mails: Vec<u64>,
    /// Timestamps in the future.
    pub future: Future,
    /// Who controls apps, by app.
    pub admins: Vec<AdminCount>,
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

/// The state derived from the events so far.
struct Scan {
    report: Report,
    versions: HashMap<StreamId, u64>,
    /// The number of unreadable events that have not yet shown up as a gap in a stream.
    unread: u64,
    claims: Claims,
    erased: HashSet<UserId>,
    /// The persons whose erasure is in the log.
    to_be_erased: HashSet<UserId>,
    mails: Mails,
    admins: Admins,
}

/// Checks positions, versions, and the MAC and shape of every event; that every sealed part can be opened or its person
/// was erased; and that the claims match the events. `at` receives the progress: the number of events, and the
/// position.
pub async fn check(
    repository: &Repository,
    now: Timestamp,
    mut at: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut scan = Scan {
        report: Report::default(),
        versions: HashMap::new(),
        unread: 0,
        claims: Claims::default(),
        erased: HashSet::new(),
        to_be_erased: HashSet::new(),
        mails: Mails::default(),
        admins: Admins::default(),
    };
    scan.report.future = Future::from(now);
    // Read before the end of the journal, so that the outcome of every mail up to there is read.
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
    // Events that could not be read would show up again as false faults in claims and snapshots.
    if scan.report.faults.is_empty() {
        let lookup = LookupKey::new(repository.sealer().keys().instance_key());
        let Scan { claims, mails, versions, report, .. } = &mut scan;
        claims.compare(&**repository.journal(), &lookup, mails, versions, now, report).await?;
        scan.snapshots(repository).await?;
        std::mem::take(&mut scan.mails).tell(mailed, &mut scan.report);
    }
    scan.erasures(repository).await?;
    scan.report.streams = scan.versions.len();
    scan.report.erased = scan.erased.len();
    scan.report.admins = scan.admins.count();
    Ok(scan.report)
}

/// The events after `after` up to `last`, or why one is missing. If one is unreadable, the others are still read.
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
        // A missing version may belong to an unreadable event that was already reported.
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
                self.claims.see(event, &decoded);
                self.admins.see(event, &decoded);
                if let Event::User(UserEvent::UserErased(erased)) = decoded {
                    self.to_be_erased.insert(erased.user_id);
                }
            }
            Err(StoreError::Damaged(problem)) => self.report.fault(format!("event {position}: {problem}")),
            Err(error) => self.report.fault(format!("event {position}: {error}")),
        }
    }

    /// Whether the key of a sealed part exists, or was destroyed.
    async fn key(&mut self, repository: &Repository, person: UserId) -> Result<(), String> {
        let keys = repository.sealer().keys();
        // Decoding reports a key that cannot be unwrapped.
        if self.erased.contains(&person) || !matches!(keys.data_key(person).await, Ok(None)) {
            return Ok(());
        }
        if keys.is_erased(person).await.map_err(|error| error.to_string())? {
            self.erased.insert(person);
            return Ok(());
        }
        Err(format!("the key of {person} is missing from the key store, and was never erased"))
    }

    /// An erased person must have no key.
    async fn erasures(&mut self, repository: &Repository) -> Result<(), StoreError> {
        for person in std::mem::take(&mut self.to_be_erased) {
            // A key that never existed was destroyed with the person's first event.
            if repository.sealer().keys().data_key(person).await?.is_some() {
                self.report.fault(format!(
                    "user {person} was erased, but their key still exists: start the service, which destroys it"
                ));
            }
        }
        Ok(())
    }

    /// A snapshot must match its events.
    async fn snapshots(&mut self, repository: &Repository) -> Result<(), StoreError> {
        for stream in repository.journal().snapshots().await? {
            let fault = match stream.aggregate() {
                "app" => repository.check_snapshot::<App>(&stream).await,
                "user" => repository.check_snapshot::<User>(&stream).await,
                "lockout" => repository.check_snapshot::<Lockout>(&stream).await,
                "session" => repository.check_snapshot::<Session>(&stream).await,
                "magic_link" => repository.check_snapshot::<MagicLink>(&stream).await,
                "delivery" => repository.check_snapshot::<Delivery>(&stream).await,
                _ => Ok(Some("it belongs to no aggregate that this program knows".to_owned())),
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
}
