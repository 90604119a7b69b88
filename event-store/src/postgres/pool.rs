//! Connections that many share. Each wait on one is bounded, and what exceeds its bound closes the connection.
//!
//! The pool of sqlx waits for the server whenever a connection is given back, without a limit. If a server dies without a
//! word, as when its machine loses power or its network, no connection comes back for a quarter of an hour, and nobody
//! gets another one, even where the server is well again. Its driver also allows neither keep-alives nor
//! `TCP_USER_TIMEOUT`: it makes its sockets itself. So this pool never waits for a connection that is given back, closes
//! those that do not answer, and distrusts those that were idle then.
//!
//! Whoever finds none that is idle has one made, and takes that or one that comes back meanwhile, whichever is first. One
//! that nobody waits for any more when it is made is idle then.

use std::fmt;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Either, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::session::{is_connection, is_read_only, timed_out};
use crate::pools;

/// A connection that has been idle for longer may be gone: it is asked before it is used.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// How long a connection has to say that it is there, to end what its user has left unfinished, or to be made for nobody.
pub(super) const PING: Duration = Duration::from_secs(1);

type Make = dyn Fn() -> BoxFuture<'static, Result<PgConnection, sqlx::Error>> + Send + Sync;

/// A number of connections, made when they are needed. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    make: Box<Make>,
    /// For users.
    places: Arc<Semaphore>,
    /// For connections, those that are being made included.
    room: Arc<Semaphore>,
    most: u32,
    bound: Duration,
    state: Mutex<State>,
    /// One has become idle.
    came: Notify,
}

#[derive(Default)]
struct State {
    /// The last one is the one that was used last.
    idle: Vec<Idle>,
    is_closed: bool,
}

struct Idle {
    open: Open,
    since: Instant,
}

/// An open connection, and its room.
struct Open {
    connection: PgConnection,
    made: Instant,
    _room: OwnedSemaphorePermit,
}

impl Pool {
    /// At most so many connections, made like this. A statement has to be done, with the wait for a connection, within
    /// the bound.
    pub fn new(
        most: u32,
        bound: Duration,
        make: impl Fn() -> BoxFuture<'static, Result<PgConnection, sqlx::Error>> + Send + Sync + 'static,
    ) -> Self {
        let [places, room] = [(); 2]
            .map(|()| Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(Semaphore::MAX_PERMITS))));
        let (state, came) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { make: Box::new(make), places, room, most, bound, state, came }))
    }

    /// How many connections are open, or being opened.
    pub fn size(&self) -> u32 {
        self.0.most.saturating_sub(u32::try_from(self.0.room.available_permits()).unwrap_or(0))
    }

    /// How many of them are not in use.
    pub fn num_idle(&self) -> usize {
        self.state().idle.len()
    }

    /// The most that there may be.
    pub fn most(&self) -> u32 {
        self.0.most
    }

    /// Waits until all are given back, within the bound, and closes them. Later uses fail.
    pub async fn close(&self) {
        self.state().is_closed = true;
        let _ = timeout(self.0.bound, self.0.places.acquire_many(self.0.most)).await;
        self.0.places.close();
        let idle = mem::take(&mut self.state().idle);
        for Idle { open, .. } in idle {
            let _ = timeout(PING, open.connection.close()).await;
        }
    }

    /// A connection, for more than one statement.
    async fn hold(&self, until: Instant) -> Result<Held, sqlx::Error> {
        let held = timeout_at(until, self.held()).await;
        held.unwrap_or_else(|_| Err(timed_out("the database does not answer")))
    }

    async fn held(&self) -> Result<Held, sqlx::Error> {
        if self.state().is_closed {
            return Err(sqlx::Error::PoolClosed);
        }
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let place = place.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut made = pin!(self.made());
        let open = loop {
            if let Some(open) = self.idle().await {
                break open;
            }
            tokio::select! {
                biased;
                made = &mut made => break made?,
                () = self.0.came.notified() => {}
            }
        };
        let (open, place) = (Some(open), Some(place));
        Ok(Held { open, place, pool: self.clone(), is_busy: false, in_transaction: false })
    }

    /// One that is idle and works.
    async fn idle(&self) -> Option<Open> {
        loop {
            let Idle { mut open, since } = self.state().idle.pop()?;
            if pools::is_left(open.made.elapsed()) {
                continue;
            }
            if since.elapsed() < FRESH {
                return Some(open);
            }
            match timeout(PING, open.connection.ping()).await {
                Ok(Ok(())) => return Some(open),
                // The server has ended it.
                Ok(Err(_)) => {}
                Err(_) => self.is_silent(),
            }
        }
    }

    /// A new one, as soon as there is room for it. Whoever does not wait for it any more leaves it to others.
    async fn made(&self) -> Result<Open, sqlx::Error> {
        let room = Arc::clone(&self.0.room).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let (mut answer, answered) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            // Before it is known which server it leads to.
            let made = Instant::now();
            let connected = tokio::select! {
                connected = timeout(pool.0.bound, (pool.0.make)()) => connected,
                // A server that is there takes a moment. One that is not must not keep the room from others.
                () = async { answer.closed().await; sleep(PING).await } => return,
            };
            let connected = connected.unwrap_or_else(|_| Err(timed_out("the database does not answer")));
            let open = connected.map(|connection| Open { connection, made, _room: room });
            if let Err(Ok(unwanted)) = answer.send(open) {
                pool.put_back(unwanted);
            }
        });
        answered.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// Begins a transaction.
    pub async fn begin(&self) -> Result<PoolTransaction, sqlx::Error> {
        let until = Instant::now() + self.0.bound;
        let mut held = self.hold(until).await?;
        // Whoever goes away before the answer has begun one, too.
        held.in_transaction = true;
        let begun = timeout_at(until, held.start()?.execute("BEGIN")).await;
        held.finish(begun)?;
        Ok(PoolTransaction(held))
    }

    async fn all<'q, E: 'q + Execute<'q, Postgres>>(
        &self,
        query: E,
    ) -> Result<Vec<Either<PgQueryResult, PgRow>>, sqlx::Error> {
        let until = Instant::now() + self.0.bound;
        let mut held = self.hold(until).await?;
        let found = timeout_at(until, held.start()?.fetch_many(query).try_collect()).await;
        held.finish(found)
    }

    /// A connection did not answer. Those that were idle meanwhile lead to the same server.
    fn is_silent(&self) {
        metrics::counter!("watchword_postgres_failures_total", "of" => "silence").increment(1);
        self.forget_idle();
    }

    /// Closes the connections that nobody uses, so that new ones are made.
    fn forget_idle(&self) {
        let idle = mem::take(&mut self.state().idle);
        drop(idle);
    }

    fn put_back(&self, open: Open) {
        if !self.0.places.is_closed() {
            self.state().idle.push(Idle { open, since: Instant::now() });
            self.0.came.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("most", &self.0.most).finish_non_exhaustive()
    }
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let found = async move {
            let found = pool.all(query).await?;
            Ok::<_, sqlx::Error>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(found).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let found = pool.all(query).await?;
            Ok(found.into_iter().find_map(Either::right))
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let until = Instant::now() + pool.0.bound;
            let mut held = pool.hold(until).await?;
            let prepared = timeout_at(until, held.start()?.prepare_with(sql, parameters)).await;
            held.finish(prepared)
        })
    }
}

/// A connection in use. When it is dropped, it goes back unless it is lost.
struct Held {
    open: Option<Open>,
    place: Option<OwnedSemaphorePermit>,
    pool: Pool,
    /// A statement has begun, and its end was not seen.
    is_busy: bool,
    in_transaction: bool,
}

impl Held {
    /// The connection, for a statement whose outcome is given to [`Held::finish`].
    fn start(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.is_busy = true;
        let lost = || std::io::Error::new(std::io::ErrorKind::NotConnected, "the connection was lost").into();
        self.open.as_mut().map(|open| &mut open.connection).ok_or_else(lost)
    }

    fn finish<T>(&mut self, ended: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        let Ok(ended) = ended else {
            self.open = None;
            self.pool.is_silent();
            return Err(timed_out("the database does not answer"));
        };
        self.is_busy = false;
        if let Err(error) = &ended {
            // The server may have become a replica, with another one in its place.
            let refuses_writes = is_read_only(error);
            if refuses_writes || is_connection(error) {
                self.open = None;
            }
            if refuses_writes {
                self.pool.forget_idle();
            }
        }
        ended
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (pool, place) = (self.pool.clone(), self.place.take());
        let Some(mut open) = self.open.take() else { return };
        let in_transaction = self.in_transaction;
        if !self.is_busy && !in_transaction {
            pool.put_back(open);
            return;
        }
        // Its user went away in the middle of something.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let connection = &mut open.connection;
            let ended = async {
                connection.ping().await?;
                if in_transaction { connection.execute("ROLLBACK").await.map(drop) } else { Ok(()) }
            };
            // Else it is closed: it did not end in time, or the server is gone.
            if let Ok(Ok(())) = timeout(PING, ended).await {
                pool.put_back(open);
            }
            drop(place);
        });
    }
}

/// A transaction. If it is dropped, it is rolled back.
pub struct PoolTransaction(Held);

impl PoolTransaction {
    /// The connection, for a statement. What came of it has to be given to [`PoolTransaction::finish`].
    pub fn start(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.start()
    }

    /// How long a statement may take.
    pub fn bound(&self) -> Duration {
        self.0.pool.0.bound
    }

    /// Closes the connection if the statement exceeded its bound, or found the connection lost.
    pub fn finish<T>(&mut self, ended: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        self.0.finish(ended)
    }

    /// Commits. If this fails, it may still have been committed.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let bound = self.bound();
        let committed = timeout(bound, self.0.start()?.execute("COMMIT")).await;
        self.0.finish(committed)?;
        self.0.in_transaction = false;
        Ok(())
    }
}
