//! Reads a whole journal, and looks for what must not be.

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

mod claims;
mod mails;

use claims::Claims;
use mails::Mails;

/// How many events are read at once.
const PAGE: u64 = 1000;

/// How many faults are told one by one: where there are more, they have one cause.
const FAULTS: usize = 10;

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
    report: Report,
    versions: HashMap<StreamId, u64>,
    /// How many events could not be read, and were not missed in a stream yet.
    unread: u64,
    claims: Claims,
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
        report: Report::default(),
        versions: HashMap::new(),
        unread: 0,
        claims: Claims::default(),
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
        let lookup = LookupKey::new(repository.sealer().keys().instance_key());
        let Scan { claims, mails, versions, report, .. } = &mut scan;
        claims.compare(&**repository.journal(), &lookup, mails, versions, now, report).await?;
        scan.snapshots(repository).await?;
        std::mem::take(&mut scan.mails).tell(mailed, &mut scan.report);
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
                self.claims.see(event, &decoded);
                if let Event::User(UserEvent::UserErased(erased)) = decoded {
                    self.to_be_erased.insert(erased.user_id);
                }
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
}
