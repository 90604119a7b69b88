//! Pools of connections, with what all of them have in common.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;

/// Connections to a SQLite file. None is closed for its age: a file has no server to spare.
pub fn sqlite() -> SqlitePoolOptions {
    // The task that closes old connections of sqlx 0.9.0 can count their number down past zero when a pool is closed or busy at
    // the wrong moment, and then occupies a thread for good: <https://github.com/transact-rs/sqlx/issues/3645>. Without a
    // lifetime or an idle time there is no such task.
    SqlitePoolOptions::new().test_before_acquire(false).idle_timeout(None).max_lifetime(None)
}

/// Connections to a PostgreSQL server. None is closed for its age, as in [`sqlite`]: one that the server has closed is replaced
/// when it is used, and so is one that led to another server.
pub fn postgres() -> PgPoolOptions {
    PgPoolOptions::new().idle_timeout(None).max_lifetime(None).before_acquire(|_, state| {
        let is_left = is_left(state.age);
        Box::pin(async move { Ok(!is_left) })
    })
}

/// Whether a connection of this age is from before [`leave`].
pub(crate) fn is_left(age: Duration) -> bool {
    locked().is_some_and(|left| age >= left.elapsed())
}

/// When an address was last found to lead to another server than before.
static LEFT: Mutex<Option<Instant>> = Mutex::new(None);

/// Closes all present connections to PostgreSQL servers when they are asked for next: journal, keys and read models must not
/// be on different ones.
pub(crate) fn leave() {
    *locked() = Some(Instant::now());
}

fn locked() -> MutexGuard<'static, Option<Instant>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}
