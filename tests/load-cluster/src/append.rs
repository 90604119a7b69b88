//! The journal's append compared with a raw insert: the same rows in the same columns and indexes, on one connection,
//! in groups of the same size, each durable before the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::{AppId, SessionId, StreamId, UserId};
use event_store::{
    Append, Clock, InstanceKey, Journal, Macs, NewEvent, PostgresJournal, PostgresSettings, SystemClock,
    Write,
};
use schemas::envelope::{Actor, Metadata};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use test_services::Postgres;
use tests::generator::{Failure, per_second, round};
use uuid::Uuid;

/// How many refreshes are in flight, as on a node with this many busy connections.
const CONCURRENCY: usize = 256;

/// Measures the raw insert before and after the journal, as a machine's speed drifts.
pub async fn measure(postgres: &Postgres, length: Duration) -> Result<Value, Failure> {
    let database = postgres.database();
    let macs = Macs::new(&InstanceKey::generate());
    let journal: Arc<dyn Journal> =
        Arc::new(PostgresJournal::open(&database.parse()?, PostgresSettings::default(), &macs).await?);
    let mut connection = PgConnection::connect(&database).await?;
    let mut sessions = begin(&*journal).await?;

    // Warms both up, and determines the size of the journal's groups.
    let begun = journal.head().await?;
    sessions = refresh(&journal, sessions, Duration::from_secs(1)).await?;
    let (group, _) = groups(&mut connection, begun).await?;
    let mut raw = Raw::new(&database).await?;
    raw.insert(group, Duration::from_secs(1)).await?;

    let before = raw.insert(group, length / 2).await?;
    let (head, start) = (journal.head().await?, Instant::now());
    refresh(&journal, sessions, length).await?;
    let events = per_second(journal.head().await? - head, start);
    let after = raw.insert(group, length / 2).await?;
    let (group_seen, bytes) = groups(&mut connection, head).await?;
    journal.close().await;

    let rows = f64::midpoint(before, after);
    let figure = json!({
        "raw_rows_per_second": round(rows), "events_per_second": round(events), "ratio": round(events / rows),
        "raw_rows_per_second_before": round(before), "raw_rows_per_second_after": round(after),
        "concurrency": CONCURRENCY, "raw_group": group, "group": group_seen, "bytes_per_event": bytes,
    });
    eprintln!("append: {figure}");
    Ok(figure)
}

/// The mean number of events in a transaction of the journal after a position, and the mean size of an event in bytes,
/// including its share of the indexes.
async fn groups(connection: &mut PgConnection, after: u64) -> Result<(usize, i64), Failure> {
    let (events, transactions, bytes): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT xmin::text), pg_total_relation_size('watchword.events') / max(position)
         FROM watchword.events WHERE position > $1",
    )
    .bind(after.cast_signed())
    .fetch_one(connection)
    .await?;
    Ok((usize::try_from(events / transactions.max(1))?.max(1), bytes))
}

/// A session whose tokens are refreshed, as the command sees it.
struct Session {
    id: SessionId,
    user: UserId,
    version: u64,
}

/// Creates what the guards of a refresh check, an app and users, and the sessions.
async fn begin(journal: &dyn Journal) -> Result<Vec<Session>, Failure> {
    let app = StreamId::app(&AppId::default_app());
    journal.append(append(SystemClock.new_id(), [(app, 0)])).await?;
    let mut sessions = vec![];
    for _ in 0..CONCURRENCY {
        let (id, user) = (SessionId(SystemClock.new_id()), UserId(SystemClock.new_id()));
        let streams = [(StreamId::user(user), 0), (StreamId::session(id), 0)];
        journal.append(append(user.0, streams)).await?;
        sessions.push(Session { id, user, version: 1 });
    }
    Ok(sessions)
}

/// Refreshes all sessions concurrently, each one repeatedly.
async fn refresh(
    journal: &Arc<dyn Journal>,
    sessions: Vec<Session>,
    length: Duration,
) -> Result<Vec<Session>, Failure> {
    let start = Instant::now();
    let mut workers = vec![];
    for mut session in sessions {
        let journal = Arc::clone(journal);
        workers.push(tokio::spawn(async move {
            while start.elapsed() < length {
                let mut append = append(session.user.0, [(StreamId::session(session.id), session.version)]);
                append.guards =
                    vec![(StreamId::app(&AppId::default_app()), 1), (StreamId::user(session.user), 1)];
                journal.append(append).await?;
                session.version += 1;
            }
            Ok::<_, Failure>(session)
        }));
    }
    let mut sessions = vec![];
    for worker in workers {
        sessions.push(worker.await??);
    }
    Ok(sessions)
}

/// An append with one event for each of these streams, like that of a refresh.
fn append<const N: usize>(user: Uuid, streams: [(StreamId, u64); N]) -> Append {
    let (at, request) = (SystemClock.now(), SystemClock.new_id());
    let write = |(stream, expected): (StreamId, u64)| {
        let data = data(&stream, expected, user);
        let event = NewEvent {
            id: SystemClock.new_id(),
            name: "SessionRefreshed".into(),
            schema_version: 1,
            data,
            person: Some(UserId(user)),
            personal: None,
        };
        Write { stream, expected, events: vec![event] }
    };
    Append {
        writes: streams.into_iter().map(write).collect(),
        guards: vec![],
        taken: vec![],
        released: vec![],
        idempotency: None,
        metadata: Metadata {
            app_id: AppId::default_app(),
            actor: Actor::user(UserId(user)),
            correlation_id: request,
            causation_id: None,
            request_id: Some(request.to_string()),
            traceparent: None,
        },
        at,
    }
}

fn data(stream: &StreamId, generation: u64, user: Uuid) -> String {
    format!(
        r#"{{"at":"2026-03-01T12:00:00.123456Z","generation":{generation},"idle_expires_at":"2026-03-15T12:00:00.123456Z","session_id":"{}","user_id":"{user}"}}"#,
        stream.as_str().trim_start_matches("session-"),
    )
}

/// The limit: a table like the journal's, and one statement, which is one transaction, for each group.
struct Raw {
    connection: PgConnection,
    sessions: Vec<(String, Uuid)>,
    metadata: String,
    next: i64,
}

impl Raw {
    async fn new(database: &str) -> Result<Self, Failure> {
        let mut connection = PgConnection::connect(database).await?;
        sqlx::raw_sql("CREATE TABLE public.raw (LIKE watchword.events INCLUDING ALL)")
            .execute(&mut connection)
            .await?;
        sqlx::raw_sql("SET synchronous_commit = on").execute(&mut connection).await?;
        let session =
            |_| (StreamId::session(SessionId(SystemClock.new_id())).to_string(), SystemClock.new_id());
        let sessions: Vec<_> = (0..CONCURRENCY).map(session).collect();
        let like = append(sessions[0].1, []);
        Ok(Self { connection, sessions, metadata: serde_json::to_string(&like.metadata)?, next: 1 })
    }

    /// Rows per second.
    async fn insert(&mut self, group: usize, length: Duration) -> Result<f64, Failure> {
        let (first, start) = (self.next, Instant::now());
        while start.elapsed() < length {
            self.insert_group(group).await?;
        }
        Ok(per_second((self.next - first).cast_unsigned(), start))
    }

    async fn insert_group(&mut self, group: usize) -> Result<(), Failure> {
        let at = SystemClock.now().as_microsecond();
        let end = self.next + i64::try_from(group)?;
        let count = i64::try_from(self.sessions.len())?;
        let positions: Vec<i64> = (self.next..end).collect();
        let session = |position: &i64| {
            let index = usize::try_from(position % count).expect("it is not negative");
            &self.sessions[index]
        };
        let streams: Vec<&str> = positions.iter().map(|position| session(position).0.as_str()).collect();
        let persons: Vec<Uuid> = positions.iter().map(|position| session(position).1).collect();
        let versions: Vec<i64> = positions.iter().map(|position| position / count + 1).collect();
        let data: Vec<String> = positions
            .iter()
            .zip(&versions)
            .map(|(position, version)| {
                let (stream, user) = session(position);
                data(&StreamId::from_stored(stream.clone()), version.cast_unsigned(), *user)
            })
            .collect();
        sqlx::query(
            "INSERT INTO public.raw
             SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::integer[],
                 $7::bigint[], $8::text[], $9::text[], $10::text[], $11::uuid[], $12::bytea[], $13::bytea[])",
        )
        .bind(&positions)
        .bind(positions.iter().map(|_| SystemClock.new_id()).collect::<Vec<_>>())
        .bind(&streams)
        .bind(&versions)
        .bind(vec!["SessionRefreshed"; group])
        .bind(vec![1_i32; group])
        .bind(vec![at; group])
        .bind(vec!["default"; group])
        .bind(vec![self.metadata.as_str(); group])
        .bind(&data)
        .bind(&persons)
        .bind(vec![None::<&[u8]>; group])
        .bind(vec![[7_u8; 16]; group])
        .execute(&mut self.connection)
        .await?;
        self.next = end;
        Ok(())
    }
}
