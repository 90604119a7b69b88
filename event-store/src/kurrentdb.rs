//! The journal in KurrentDB (formerly EventStoreDB), which several nodes share.
//!
//! **One stream holds the whole journal**, each event at the revision `position - 1`. A node decides an append on what
//! it knows up to some position and sends it for exactly that position: the server accepts all of its events, or
//! refuses all of them because another node wrote first. Then the node reads the new events and decides again. So one
//! condition, which the server checks, covers everything that an append requires: the versions of the streams it
//! writes, its guards, its claims and its idempotency key hold exactly, at every position of the log.
//!
//! What the server cannot answer (a stream's version, a claim's holder), each node looks up in its **replica**: a
//! `SQLite` file that it fills from the stream by deciding every append again. The replica is not a source of truth: it
//! can be deleted and is rebuilt from the stream. Before a node answers from it, it asks the stream's leader for newer
//! events.
//!
//! As in the other adapters: one order without gaps, all or nothing across streams, guards, claims, idempotency keys,
//! acknowledged means durable (on a majority of the cluster). What differs:
//!
//! - An aggregate's stream with an event that no node of this instance wrote in this form accepts no appends; other
//!   streams are unaffected. The event is set apart in the replica, so that readers see that it is false.
//! - Nodes compete for each position. The loser reads and tries again, for [`KurrentSettings::patience`] at most; then
//!   it gives up with [`AppendError::Unavailable`], and nothing is written. If it knows of
//!   other writers, the winner waits for a group of theirs before its next one, at most four times as long as such a
//!   group has taken lately, or two round trips.
//! - All appends of all nodes go through one stream, so there is one group of appends at a time, and one round trip each.
//! - An append larger than the server's `MaxAppendSize` (1 MiB by default) is refused.
//! - Which node performs an effect, such as sending mail, and its progress are kept in a second stream,
//!   `<stream>-effect-<effect>`, which every node reads.
//! - Reads ask the leader. A leader that was cut off from its cluster may answer for some seconds before it notices,
//!   and misses what is appended meanwhile. Appends are not affected, as they need the majority.
//! - Each node keeps its own snapshots and forgets idempotency keys independently.
//! - The streams' `$acl` is set when they are created: only the node's account may read and append. Administrators of
//!   the server can truncate or delete them; KurrentDB cannot forbid that. A node that finds its replica ahead of the
//!   stream, or diverged from it, stops with an error.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{StreamId, Timestamp};
use eventstore::ClientSettings;
use futures::FutureExt;
use schemas::envelope::RecordedEvent;
use tasks::Weight;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::journal::{
    Append, AppendError, Appended, Claim, Cursor, Journal, OpenError, Snapshot, StoreError, StoredIdempotency,
};
use crate::mac::Macs;
use crate::master_key::JournalMark;
use crate::requests;
use crate::sqlite::SqliteJournal;
use crate::storage::{LastWrite, Why};
use cursors::Cursors;
use link::Target;
use log::{Failure, Log};
use replica::Replica;
pub use rights::KurrentRights;
use writer::{Request, Writer};

mod cursors;
mod entry;
mod follower;
mod link;
mod log;
mod protocol;
mod replica;
mod rights;
mod writer;

/// How many requests can queue for the writer; further ones wait for a place.
const QUEUE: usize = 1024;

/// Where a KurrentDB server or cluster is, and how to log in: `esdb://user:password@host:2113?tls=true`,
/// `esdb+discover://…` for a cluster, or the same with `kurrentdb`. With `tlsCaFile=<path>`, only the certificate
/// authority in that file is trusted.
///
/// `Display` and `Debug` omit user, password and parameters.
#[derive(Clone)]
pub struct KurrentUrl {
    settings: ClientSettings,
    access: Option<Access>,
}

/// A name and a password.
#[derive(Clone)]
struct Access {
    user: String,
    password: String,
}

/// The text is not a URL of a KurrentDB server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a KurrentDB URL such as esdb://user:password@host:2113: {0}")]
pub struct InvalidKurrentUrl(String);

impl FromStr for KurrentUrl {
    type Err = InvalidKurrentUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !crate::location::is_kurrent(text) {
            return Err(InvalidKurrentUrl("it does not start with esdb:// or kurrentdb://".to_owned()));
        }
        let (_, rest) = text.split_once("://").unwrap_or_default();
        if rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@')) {
            return Err(InvalidKurrentUrl(
                "there is an @ behind the host. In a user name or password write %40 for @, %2F for /, %3F for ? and %23 for #"
                    .to_owned(),
            ));
        }
        let settings: ClientSettings =
            text.parse().map_err(|error: eventstore::ClientSettingsParseError| {
                // If there is an inner error, the outer one repeats the text, which may contain a password.
                let reason = error.error().map_or_else(|| error.message().to_owned(), ToString::to_string);
                InvalidKurrentUrl(reason)
            })?;
        if settings.hosts().iter().any(|host| host.host.is_empty()) {
            return Err(InvalidKurrentUrl("it names no host".to_owned()));
        }
        if !settings.is_tls_certificate_verification_enabled() {
            return Err(InvalidKurrentUrl(
                "with tlsVerifyCert=false the password would go to any server that answers. Name the file of the authority's \
                 certificate instead: tlsCaFile=/etc/watchword/ca.crt"
                    .to_owned(),
            ));
        }
        Ok(Self { settings, access: access(text) })
    }
}

/// The user and password of a URL: the text before the last `@` of the authority part.
fn access(text: &str) -> Option<Access> {
    let (_, rest) = text.trim().split_once("://")?;
    let hosts = rest.split(['/', '?', '#']).next()?;
    let (access, _) = hosts.rsplit_once('@')?;
    let (user, password) = access.split_once(':').unwrap_or((access, ""));
    let access = Access { user: percent_decoded(user), password: percent_decoded(password) };
    Some(access).filter(|access| !access.user.is_empty())
}

/// Decodes escapes such as `%2F`.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| *first == b'%');
        let escaped =
            escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl KurrentUrl {
    /// Host and port; for a cluster, the first one named.
    pub fn address(&self) -> String {
        self.settings.hosts().first().map_or_else(String::new, |host| format!("{}:{}", host.host, host.port))
    }
}

impl fmt::Display for KurrentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.settings.is_dns_discovery_enabled() { "esdb+discover://" } else { "esdb://" })?;
        for (i, endpoint) in self.settings.hosts().iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            write!(f, "{separator}{}:{}", endpoint.host, endpoint.port)?;
        }
        Ok(())
    }
}

impl fmt::Debug for KurrentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How the journal in KurrentDB is used. The defaults suit a server nearby.
#[derive(Clone, Debug)]
pub struct KurrentSettings {
    /// The stream that holds the journal. Nothing else may write to it.
    pub stream: String,
    /// How long the server may take to answer.
    pub answer_timeout: Duration,
    /// How long to retry after the connection failed or another node wrote first, before reporting an error.
    pub patience: Duration,
    /// How long a caller waits for an answer, whatever happens in the background.
    pub answer: Duration,
    /// How often to look for events of other nodes when no request does.
    pub poll: Duration,
}

impl Default for KurrentSettings {
    fn default() -> Self {
        Self {
            stream: "watchword".to_owned(),
            answer_timeout: Duration::from_secs(3),
            patience: Duration::from_secs(4),
            answer: Duration::from_secs(5),
            poll: Duration::from_millis(100),
        }
    }
}

/// A journal in KurrentDB.
pub struct KurrentJournal {
    requests: mpsc::Sender<Request>,
    /// All that this node knows of the journal.
    replica: SqliteJournal,
    cursors: Cursors,
    mark: JournalMark,
    answer: Duration,
    last: LastWrite,
}

impl KurrentJournal {
    /// Opens the journal on this server, with the replica at this path, which is created if missing and brought up to
    /// date. For a new one that takes a while.
    ///
    /// Refuses a replica that another process has open or that does not belong to the stream.
    ///
    /// Nothing in the stream is ever rewritten, so events from before MACs keep their checksums. `mark` says, by a
    /// digest, which of them are accepted; without a mark all present ones are, and [`KurrentJournal::mark`] returns
    /// them.
    pub async fn open(
        url: &KurrentUrl,
        replica: &Path,
        settings: KurrentSettings,
        macs: &Macs,
        mark: Option<JournalMark>,
    ) -> Result<Self, OpenError> {
        let whole = mark.as_ref().map_or(u64::MAX, |mark| mark.unkeyed);
        let denied = |reason| OpenError::Denied { path: url.to_string(), reason };
        let target = Arc::new(Target::new(url, None).map_err(denied)?);
        let (replica, reading) = Replica::open(replica, macs, whole).await?;
        let log = Log::new(&target, &settings.stream, settings.answer_timeout);
        let cursors = Cursors::new(&target, settings.clone());
        let answer = settings.answer;
        let mut writer = Writer::new(log, replica, settings, macs.believing_nothing_else(), mark);
        if let Err(failure) = writer.begin(&target).await {
            reading.close_readers().await;
            return Err(match failure {
                Failure::Damaged(what) => {
                    OpenError::Damaged { path: reading.path().display().to_string(), what }
                }
                Failure::Denied(reason) => denied(reason),
                Failure::Refused(reason) => OpenError::Failed { path: url.to_string(), reason },
                other => OpenError::Away { path: url.to_string(), reason: other.text().to_owned() },
            });
        }
        let (requests, queue) = mpsc::channel(QUEUE);
        let mark = writer.mark();
        tasks::start_with("journal_writer", Weight::Vital, (writer, queue), |(writer, queue)| {
            writer.run(queue).boxed()
        });
        Ok(Self { requests, replica: reading, cursors, mark, answer, last: LastWrite::default() })
    }

    /// Which events of the stream carry no MAC, for [`KeyStore::mark`](crate::KeyStore::mark).
    pub fn mark(&self) -> &JournalMark {
        &self.mark
    }

    /// Waits until the replica has everything that was written before this call.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let asked = requests::ask(&self.requests, |answer| Request::CatchUp { answer });
        self.answered(asked).await
    }

    /// Waits no longer than a caller waits for an answer.
    async fn answered<T>(&self, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let silent = || StoreError::Unavailable("the server does not answer".into());
        timeout(self.answer, asked).await.unwrap_or_else(|_| Err(silent()))
    }

    /// As [`KurrentJournal::catch_up`], unless the replica has everything up to this position: nothing is ever inserted
    /// before existing events.
    async fn catch_up_to(&self, position: u64) -> Result<(), StoreError> {
        if *self.replica.watch_head().borrow() >= position { Ok(()) } else { self.catch_up().await }
    }
}

#[async_trait]
impl Journal for KurrentJournal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let sent =
            requests::append(&self.requests, append, |append, answer| Request::Append { append, answer });
        let silent = || AppendError::Unknown("the server does not answer".to_owned());
        self.last.noted(timeout(self.answer, sent).await.unwrap_or_else(|_| Err(silent())))
    }

    async fn can_append(&self) -> Result<(), StoreError> {
        if let Some(known) = self.last.recent() {
            return Ok(known?);
        }
        // Nothing is ever appended to a stream that is not an event: the server is asked for its end instead.
        let asked = self.catch_up().await;
        match &asked {
            Ok(()) => self.last.succeeded(),
            Err(StoreError::Unavailable(why)) => self.last.failed(why, 1),
            Err(_) => {}
        }
        asked
    }

    fn last_append(&self) -> Result<(), Why> {
        self.last.outcome()
    }

    async fn newest_streams(&self, aggregate: &str, limit: u32) -> Result<Vec<StreamId>, StoreError> {
        self.replica.newest_streams(aggregate, limit).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after_version: u64,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.catch_up().await?;
        self.replica.read_stream(stream, after_version).await
    }

    async fn read_streams(&self, wanted: &[(StreamId, u64)]) -> Result<Vec<Vec<RecordedEvent>>, StoreError> {
        self.catch_up().await?;
        self.replica.read_streams(wanted).await
    }

    async fn read_all(&self, after: u64, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        self.catch_up_to(after.saturating_add(limit as u64)).await?;
        self.replica.read_all(after, limit).await
    }

    async fn read_positions(&self, positions: &[u64]) -> Result<Vec<RecordedEvent>, StoreError> {
        self.catch_up_to(positions.iter().copied().max().unwrap_or(0)).await?;
        self.replica.read_positions(positions).await
    }

    async fn positions_of(&self, name: &str, after: u64, until: u64) -> Result<Vec<u64>, StoreError> {
        self.catch_up_to(until).await?;
        self.replica.positions_of(name, after, until).await
    }

    async fn head(&self) -> Result<u64, StoreError> {
        self.catch_up().await?;
        self.replica.head().await
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        self.replica.watch_head()
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn versions(&self, streams: &[StreamId]) -> Result<Vec<u64>, StoreError> {
        self.catch_up().await?;
        self.replica.versions(streams).await
    }

    async fn claim_owner(&self, claim: &Claim) -> Result<Option<StreamId>, StoreError> {
        self.catch_up().await?;
        self.replica.claim_owner(claim).await
    }

    async fn claims(&self, kind: &str, prefix: &str) -> Result<Vec<(Claim, StreamId)>, StoreError> {
        self.catch_up().await?;
        self.replica.claims(kind, prefix).await
    }

    async fn idempotent(&self, key: &[u8; 32]) -> Result<Option<StoredIdempotency>, StoreError> {
        self.catch_up().await?;
        self.replica.idempotent(key).await
    }

    /// On this node only: each node forgets independently.
    async fn forget_idempotency(
        &self,
        after: Option<[u8; 32]>,
        before: Timestamp,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        requests::ask(&self.requests, |answer| Request::Forget { after, before, answer }).await
    }

    async fn load_snapshot(&self, stream: &StreamId) -> Result<Option<Snapshot>, StoreError> {
        self.replica.load_snapshot(stream).await
    }

    async fn save_snapshot(&self, stream: &StreamId, snapshot: Snapshot) -> Result<(), StoreError> {
        let stream = stream.clone();
        requests::ask(&self.requests, |answer| Request::Snapshot { stream, snapshot, answer }).await
    }

    async fn snapshots(&self) -> Result<Vec<StreamId>, StoreError> {
        self.replica.snapshots().await
    }

    async fn cursor_position(&self, effect: &str) -> Result<Option<u64>, StoreError> {
        self.answered(self.cursors.position(effect)).await
    }

    async fn hold_cursor(
        &self,
        effect: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<Option<Cursor>, StoreError> {
        self.answered(self.cursors.hold(effect, holder, lasts, self.head())).await
    }

    async fn move_cursor(&self, effect: &str, cursor: Cursor) -> Result<bool, StoreError> {
        self.answered(self.cursors.shift(effect, cursor)).await
    }

    async fn release_cursor(&self, effect: &str, cursor: Cursor) -> Result<(), StoreError> {
        self.answered(self.cursors.release(effect, cursor)).await
    }

    async fn close(&self) {
        self.replica.close_readers().await;
        // This fails if the writer has ended already, which is fine.
        let _ = self.requests.send(Request::Close).await;
        let mut head = self.replica.watch_head();
        // The writer holds the sending end, so this ends when the writer is gone.
        while head.changed().await.is_ok() {}
        self.replica.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_shown_without_their_secrets() {
        for (text, shown) in [
            ("esdb://ada:hunter2@db.example:2113?tls=false", "esdb://db.example:2113"),
            ("kurrentdb://ada:hunter2@db.example", "esdb://db.example:2113"),
            ("esdb+discover://ada:hunter2@cluster.example:2114", "esdb+discover://cluster.example:2114"),
            ("esdb://ada:hunter2@a:1111,b:2222?tls=false", "esdb://a:1111,b:2222"),
        ] {
            let url: KurrentUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hunter2"));
        }
        for wrong in [
            "",
            "postgres://host/db",
            "esdb://",
            "esdb://ada:hunter2@host:port",
            "esdb://host?tls=perhaps",
            "esdb://ada:12/hunter2@host",
        ] {
            let error = wrong.parse::<KurrentUrl>().expect_err(wrong).to_string();
            assert!(error.contains("esdb://user:password@host:2113"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_password_goes_only_to_a_server_with_a_verified_certificate() {
        let error = "esdb://ada:hunter2@db.example?tlsVerifyCert=false"
            .parse::<KurrentUrl>()
            .expect_err("is refused");
        assert!(error.to_string().contains("tlsCaFile="), "{error}");
    }

    #[test]
    fn a_name_and_a_password_may_have_any_character() {
        for (text, user, password) in [
            ("esdb://ada:hunter2@host", "ada", "hunter2"),
            ("esdb://ada:p%40ss%3Aw%2Frd%25@host:2113?tls=false", "ada", "p@ss:w/rd%"),
            ("esdb+discover://a%20b:c%zz@one,two", "a b", "c%zz"),
            ("kurrentdb://ada@host", "ada", ""),
        ] {
            let access = text.parse::<KurrentUrl>().expect(text).access.expect("names somebody");
            assert_eq!((access.user.as_str(), access.password.as_str()), (user, password));
        }
        assert!("esdb://host?tls=false".parse::<KurrentUrl>().expect("a URL").access.is_none());
    }
}
