//! The only task of a node that appends: it sends the queued appends as one group, in one round trip.

use std::sync::Arc;

use domain::{AppId, StreamId};
use schemas::envelope::{Actor, Metadata};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tasks::End;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::batch::{Answers, Batch};
use super::doubt::Doubt;
use super::history::History;
use super::known::Known;
use super::pool::{FRESH, PING};
use super::reach::is_refusal;
use super::session::{PostgresSettings, is_connection, is_read_only, timed_out};
use super::ticket::Ticket;
use super::warnings::Warnings;
use crate::clock::{Clock, SystemClock};
use crate::journal::{Append, AppendError, Appended, NewEvent, StoreError, StoredIdempotency, Write};
use crate::mac::Macs;
use crate::measure;
use crate::pauses::Pauses;
use crate::storage::Why;

/// The most appends committed together: with more, the first would wait too long, and other nodes for their turn.
const GROUP: usize = 512;

type Answer = Result<Appended, AppendError>;

/// A request to the writer.
pub(super) enum Request {
    /// Appends.
    Append { append: Box<Append>, answer: oneshot::Sender<Answer>, ticket: Arc<Ticket> },
    /// Finds out whether an append would be taken, by writing so many bytes.
    Probe { size: usize, answer: oneshot::Sender<Result<(), StoreError>> },
    /// Ends the writer.
    Close,
}

pub(super) struct Writer {
    pub(super) options: PgConnectOptions,
    pub(super) settings: PostgresSettings,
    pub(super) connection: Option<Connected>,
    pub(super) head: Arc<watch::Sender<u64>>,
    pub(super) macs: Macs,
    pub(super) history: Arc<History>,
    pub(super) doubt: Arc<Doubt>,
    pub(super) warnings: Warnings,
}

/// A connection and what it knows.
pub(super) struct Connected {
    connection: PgConnection,
    known: Known,
    used: Instant,
    /// Of the server that it leads to.
    generation: u64,
}

impl Connected {
    pub(super) fn new(connection: PgConnection, generation: u64) -> Self {
        Self { connection, known: Known::default(), used: Instant::now(), generation }
    }

    /// Whether the connection still works. One that was idle is asked before anything is sent on it whose outcome would
    /// then be unknown.
    async fn lives(&mut self) -> bool {
        self.used.elapsed() < FRESH
            || timeout(PING, self.connection.ping()).await.is_ok_and(|asked| asked.is_ok())
    }
}

/// How sending a group failed.
enum Failure {
    /// Nothing was sent.
    NotSent(sqlx::Error),
    /// The database refused all of it.
    Refused(sqlx::Error),
    /// It was sent, and no answer came: some of it may be written.
    Lost(sqlx::Error),
    /// The journal went back: nothing was written.
    WentBack(StoreError),
}

impl Writer {
    /// Runs until it is asked to end, or all request senders are gone. After a panic it can run again: whoever waited for
    /// the group in hand knows that its outcome is unknown, and the connection was dropped with it.
    pub(super) async fn run(&mut self, queue: &mut mpsc::Receiver<Request>) -> End {
        let mut group = Vec::new();
        let mut closing = false;
        while !closing && queue.recv_many(&mut group, GROUP).await > 0 {
            let (mut appends, mut waiting, mut probes, mut most) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for request in group.drain(..) {
                match request {
                    Request::Append { append, answer, ticket } => {
                        if !ticket.take() {
                            continue;
                        }
                        appends.push(*append);
                        waiting.push(answer);
                    }
                    Request::Probe { size, answer } => {
                        most = most.max(size);
                        probes.push(answer);
                    }
                    Request::Close => closing = true,
                }
            }
            if !probes.is_empty() {
                let found = self.probe(most).await;
                for answer in probes {
                    let _ = answer.send(found.clone());
                }
            }
            if appends.is_empty() {
                continue;
            }
            let begun = Instant::now();
            let answers = self.append_all(&appends).await;
            measure::group(appends.len(), begun.elapsed());
            for (waiting, answer) in waiting.into_iter().zip(answers) {
                // A caller that went away can ask again with the same idempotency key.
                let _ = waiting.send(answer);
            }
        }
        if let Some(connected) = self.connection.take() {
            let _ = connected.connection.close().await;
        }
        End::Asked
    }

    /// Sends a group until there is an answer. Sending it again is harmless: the database knows the events by their
    /// ids.
    async fn append_all(&mut self, appends: &[Append]) -> Vec<Answer> {
        let (batch, begun) = (Batch::new(appends, &self.macs), Instant::now());
        let mut pauses = Pauses::new(self.settings.patience);
        let (mut is_unknown, mut was_read_only) = (false, false);
        loop {
            let (error, again) = match self.send(&batch).await {
                Err(Failure::WentBack(error)) => {
                    let text = error.to_string();
                    let error = if is_unknown {
                        AppendError::Unknown(text)
                    } else {
                        AppendError::Unavailable(text.into())
                    };
                    return vec![Err(error); appends.len()];
                }
                // Ours or others' events may be on this server alone.
                Ok(answers) if self.doubt.is_raised() => {
                    if begun.elapsed() < self.settings.patience
                        && self.doubt.settled(self.settings.answer).await
                    {
                        // Whether they still are in the journal, and with which answer.
                        is_unknown = true;
                        continue;
                    }
                    let unknown =
                        || AppendError::Unknown("the synchronous replica may not have them".to_owned());
                    let answers = batch.read(&answers).into_iter();
                    return answers.map(|answer| answer.and_then(|_| Err(unknown()))).collect();
                }
                Ok(answers) => {
                    let head = answers.head.cast_unsigned();
                    // Its commit came after all others up to there, and waited as they should have.
                    self.doubt.confirmed(head);
                    self.head.send_if_modified(|known| std::mem::replace(known, head.max(*known)) < head);
                    let mut answers = batch.read(&answers);
                    if let Some((position, event)) = batch.newest(&answers) {
                        self.history.seen.see(position, event);
                    }
                    self.check_replays(appends, &mut answers).await;
                    return answers;
                }
                // Nothing was sent, so the failure can be reported at once.
                Err(Failure::NotSent(error)) => {
                    // A server that says why it lets nobody in, such as that there are too many, will not soon say
                    // something else.
                    let is_told = error.as_database_error().is_some() && !is_connection(&error);
                    let is_certain = is_refusal(&error) || is_told;
                    let limit = if is_certain { self.settings.grace } else { self.settings.answer };
                    let again = is_unknown || begun.elapsed() < limit;
                    (error, again)
                }
                Err(Failure::Lost(error)) => {
                    is_unknown = true;
                    (error, true)
                }
                Err(Failure::Refused(error)) => {
                    // An append that the database refuses must not fail its neighbours.
                    if appends.len() > 1 && is_about_the_data(&error) {
                        tracing::error!(%error, "a group of appends was refused: sending each alone");
                        return self.append_each(appends).await;
                    }
                    // Behind the same address there may be another server by now: that is found out at once.
                    let is_new = is_read_only(&error) && !std::mem::replace(&mut was_read_only, true);
                    let again = is_passing(&error) || is_new || is_unknown && is_read_only(&error);
                    (error, again)
                }
            };
            tracing::warn!(%error, "the journal could not append");
            metrics::counter!("watchword_postgres_failures_total", "of" => "append").increment(1);
            if !again || !pauses.next().await {
                let why = Why::of(&error);
                let error =
                    if is_unknown { AppendError::Unknown(why.text) } else { AppendError::Unavailable(why) };
                return vec![Err(error); appends.len()];
            }
        }
    }

    /// Appends as much as it says where nothing stays, which finds a lock that somebody else has and an events table without
    /// room, and writes a row that stays, for which a synchronous replica may be missing.
    async fn probe(&mut self, size: usize) -> Result<(), StoreError> {
        let bound = self.settings.answer_timeout();
        let macs = self.macs.clone();
        let appends = [probing(size)];
        let batch = Batch::new(&appends, &macs);
        let probed = async {
            let mut connected = match self.connection.take() {
                Some(connected) => connected,
                None => self.connect().await?,
            };
            let mut transaction = connected.connection.begin().await?;
            batch.send(&mut transaction, &connected.known, (0, Uuid::nil())).await?;
            transaction.rollback().await?;
            // The table says how far effects are, and no effect has this name.
            let wrote = sqlx::query(
                "INSERT INTO watchword.effects VALUES ('probe', 0, 0, NULL, clock_timestamp())
                 ON CONFLICT (name) DO UPDATE SET until = excluded.until",
            );
            wrote.execute(&mut connected.connection).await?;
            self.connection = Some(connected);
            Ok(())
        };
        let probed: Result<(), sqlx::Error> =
            timeout(bound, probed).await.unwrap_or_else(|_| Err(timed_out("no answer")));
        Ok(probed?)
    }

    /// Checks the MAC of what the database says was written before under an idempotency key. Unchecked, it could answer
    /// a request with another request's events.
    async fn check_replays(&mut self, appends: &[Append], answers: &mut [Answer]) {
        for (append, answer) in appends.iter().zip(answers) {
            let (Some(once), Ok(Appended { first, last, replayed: true })) = (&append.idempotency, &*answer)
            else {
                continue;
            };
            let stored = StoredIdempotency { fingerprint: once.fingerprint, first: *first, last: *last };
            let found = match self.mac_of_key(&once.key).await {
                Ok(found) => found,
                Err(error) => {
                    *answer = Err(AppendError::Unavailable(Why::of(&error)));
                    continue;
                }
            };
            if let Err(wrong) = self.macs.check_idempotency(&once.key, &stored, found.as_deref()) {
                *answer = Err(AppendError::Damaged(wrong));
            }
        }
    }

    async fn mac_of_key(&mut self, key: &[u8; 32]) -> Result<Option<Vec<u8>>, sqlx::Error> {
        let mut connected = match self.connection.take() {
            Some(connected) => connected,
            None => self.connect().await?,
        };
        let asked = sqlx::query_scalar("SELECT mac FROM watchword.idempotency WHERE key = $1")
            .bind(key.as_slice())
            .fetch_optional(&mut connected.connection);
        let found = timeout(self.settings.answer_timeout(), asked).await;
        let found: Option<Option<Vec<u8>>> = found.unwrap_or_else(|_| Err(timed_out("no answer")))?;
        self.connection = Some(connected);
        Ok(found.flatten())
    }

    async fn append_each(&mut self, appends: &[Append]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(appends.len());
        for append in appends {
            answers.extend(Box::pin(self.append_all(std::slice::from_ref(append))).await);
        }
        answers
    }

    /// A new connection, to a server with the history that this node knows.
    async fn connect(&self) -> Result<Connected, sqlx::Error> {
        let connection = self.settings.connect_to(&self.options, &self.history).await?;
        Ok(Connected::new(connection, self.history.generation()))
    }

    /// The connection is put back only after success, so that a broken one is never reused.
    async fn send(&mut self, batch: &Batch<'_>) -> Result<Answers, Failure> {
        let history = Arc::clone(&self.history);
        history.seen.check().map_err(Failure::WentBack)?;
        let mut open = self.connection.take();
        if let Some(connected) = &mut open
            && (connected.generation != history.generation() || !connected.lives().await)
        {
            open = None;
        }
        let mut connected = match open {
            Some(connected) => connected,
            None => self.connect().await.map_err(Failure::NotSent)?,
        };
        let sent = batch.send(&mut connected.connection, &connected.known, history.seen.newest());
        let (sent, has_warned) = self.warnings.of(timeout(self.settings.answer_timeout(), sent)).await;
        let sent = sent.unwrap_or_else(|_| Err(timed_out("no answer")));
        if has_warned {
            tracing::warn!(
                "the wait for a synchronous replica was cancelled: it may not have the newest events"
            );
            self.doubt.raise();
        }
        match sent {
            // Others already write elsewhere: what this server says of the outcome is not the last word.
            Ok(said) if connected.generation != history.generation() => {
                let error = timed_out("the journal has moved to another server");
                Err(if said.is_some() { Failure::Lost(error) } else { Failure::NotSent(error) })
            }
            // It says what the journal has instead.
            Ok(None) => {
                history.look(&mut connected.connection).await.map_err(Failure::NotSent)?;
                Err(Failure::WentBack(StoreError::Unavailable("the journal changes".into())))
            }
            Ok(Some(answers)) => {
                connected.known.learn(batch, &answers);
                connected.used = Instant::now();
                self.connection = Some(connected);
                Ok(answers)
            }
            Err(error) if error.as_database_error().is_some() && !is_connection(&error) => {
                Err(Failure::Refused(error))
            }
            Err(error) => {
                // It may have been committed without waiting for a synchronous replica.
                self.doubt.raise();
                Err(Failure::Lost(error))
            }
        }
    }
}

/// An append of about so many bytes, of a stream that never is.
fn probing(size: usize) -> Append {
    const OF_AN_ID: usize = 32;
    // Incompressible enough.
    let ids = (0..size.div_ceil(OF_AN_ID)).map(|_| SystemClock.new_id().simple().to_string());
    let event = NewEvent {
        id: SystemClock.new_id(),
        name: "Probe".into(),
        schema_version: 1,
        data: ids.collect(),
        person: None,
        personal: None,
    };
    let metadata = Metadata {
        app_id: AppId::platform(),
        actor: Actor::system(),
        correlation_id: event.id,
        causation_id: None,
        request_id: None,
        traceparent: None,
    };
    let stream = StreamId::from_stored(format!("probe-{}", event.id));
    Append {
        writes: vec![Write { stream, expected: 0, events: vec![event] }],
        guards: vec![],
        taken: vec![],
        released: vec![],
        idempotency: None,
        metadata,
        at: SystemClock.now(),
    }
}

fn code(error: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

/// Class 40: deadlocks and failed serialization.
fn is_passing(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code.starts_with("40"))
}

/// Classes 22 and 23: values that the database refuses.
fn is_about_the_data(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}
