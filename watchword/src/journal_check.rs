//! Reads a whole journal and checks its consistency.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use domain::app::App;
use domain::delivery::Delivery;
use domain::lockout::Lockout;
use domain::magic_link::MagicLink;
use domain::session::Session;
use domain::user::{User, UserEvent};
use domain::webhook::Webhook;
use domain::{Event, LogOrigin, StreamId, Timestamp, UserId};
use effects::mailer;
use event_store::{LookupKey, Repository, StoreError};

use crate::commands::doctor::future::Future;
use crate::verify::roots::Roots;

mod admins;
mod claims;
mod following;
mod mails;
mod pages;

pub use admins::AdminCount;
use admins::Admins;
use claims::Claims;
pub use following::Following;
use mails::Mails;
use pages::{KeyFound, Pages, Seen};

/// What to do about a journal with faults.
pub const RESTORE: &str = "Stop the server, keep a copy of the data folder, and restore journal.db and keys.db from a \
                           backup of the same moment, then run this again";

/// How many faults are listed: more of them share a cause.
const FAULTS: usize = 10;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The event that it is about, if it is about one.
    pub position: Option<u64>,
    /// What is wrong with it.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The tree of the events, if it is to be computed.
#[derive(Debug)]
pub struct Tree {
    /// The origin of the journal, which is part of each event's bytes.
    pub origin: LogOrigin,
    /// What is wanted of it.
    pub roots: Roots,
}

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
    pub faults: Vec<Fault>,
    /// The number of further faults.
    pub more: usize,
    /// The positions of events that requested a mail which was neither sent nor given up, although the mailer is past
    /// them.
    pub unsent_mails: Vec<u64>,
    /// Timestamps in the future.
    pub future: Future,
    /// Who controls apps, by app.
    pub admins: Vec<AdminCount>,
    /// The roots of the tree, if they were asked for.
    pub roots: Option<Roots>,
}

impl Report {
    fn fault(&mut self, text: String) {
        self.note(Fault { position: None, text });
    }

    fn fault_at(&mut self, position: u64, text: String) {
        self.note(Fault { position: Some(position), text });
    }

    fn note(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS {
            self.faults.push(fault);
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
/// was erased; and that the claims match the events. Computes the roots that `tree` wants. `at` receives the progress: the
/// number of events, and the position.
pub async fn check(
    repository: &Arc<Repository>,
    now: Timestamp,
    tree: Option<Tree>,
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
    let origin = tree.as_ref().map(|tree| tree.origin.clone());
    scan.report.roots = tree.map(|tree| tree.roots);
    // Read before the end of the journal, so that the outcome of every mail up to there is read.
    let mailed = mailer::position(&**repository.journal()).await?;
    let head = repository.journal().head().await?;
    let mut pages = Pages::new(repository, head, origin);
    while let Some(page) = pages.next().await {
        for (position, event) in page.events {
            match event {
                Ok(seen) => scan.event(position, seen),
                Err(problem) => {
                    scan.report.fault_at(position, problem);
                    scan.unread += 1;
                    if let Some(roots) = &mut scan.report.roots {
                        roots.end();
                    }
                }
            }
        }
        at(page.last, page.last);
    }
    // Events that could not be read would show up again as false faults in claims and snapshots.
    if scan.report.faults.is_empty() {
        let lookup = LookupKey::new(repository.sealer().keys().instance_key());
        let Scan { claims, mails, versions, report, .. } = &mut scan;
        claims.compare(&**repository.journal(), &lookup, mails, (versions, head), now, report).await?;
        scan.snapshots(repository).await?;
        std::mem::take(&mut scan.mails).tell(mailed, &mut scan.report);
    }
    scan.erasures(repository).await?;
    scan.report.streams = scan.versions.len();
    scan.report.erased = scan.erased.len();
    scan.report.admins = scan.admins.count();
    Ok(scan.report)
}

impl Scan {
    fn event(&mut self, position: u64, seen: Seen) {
        let Seen { recorded: event, decoded, leaf, key } = seen;
        self.report.events += 1;
        let version = self.versions.entry(event.stream.clone()).or_default();
        // A missing version may belong to an unreadable event that was already reported.
        let left_out = event.version.saturating_sub(*version + 1);
        if event.version <= *version || left_out > self.unread {
            let (stream, found) = (&event.stream, event.version);
            let text = format!("event {position} is version {found} of {stream}, behind version {version}");
            self.report.fault_at(position, text);
        } else {
            self.unread -= left_out;
        }
        *version = event.version;
        if event.position != position {
            let text = format!("event {} is found at position {position}", event.position);
            self.report.fault_at(position, text);
        }
        if let (Some(roots), Some(leaf)) = (&mut self.report.roots, leaf) {
            roots.push(leaf);
        }
        match key {
            KeyFound::There => {}
            KeyFound::Erased(person) => drop(self.erased.insert(person)),
            KeyFound::Missing(problem) => {
                self.report.fault_at(position, format!("event {position}: {problem}"));
            }
        }
        match decoded {
            Ok(decoded) => {
                self.report.future.see(&event, &decoded);
                self.mails.see(&event, &decoded);
                self.claims.see(&event, &decoded);
                self.admins.see(&event, &decoded);
                if let Event::User(UserEvent::UserErased(erased)) = decoded {
                    self.to_be_erased.insert(erased.user_id);
                }
            }
            Err(problem) => self.report.fault_at(position, format!("event {position}: {problem}")),
        }
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
                "webhook" => repository.check_snapshot::<Webhook>(&stream).await,
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
