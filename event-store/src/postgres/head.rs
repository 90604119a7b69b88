//! Follows the journal's head: it is looked up after a notification, which each commit sends, and from time to time in case
//! one is missed.
//!
//! Anybody who may connect to the database can notify. So a notification is a reason to look and no more: the number in it is
//! not believed, and however many there are, there is a limit to how often is looked.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification};
use tasks::End;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};

use super::history::History;
use super::pool::Pool;
use super::reach::Reach;
use super::session::{PostgresSettings, timed_out};
use crate::pools;

/// The channel on which `append` sends the new head.
const CHANNEL: &str = "watchword_head";
/// The least time between two looks after notifications.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// The most notifications after which is looked: somebody may send them without end.
const MOST_AT_ONCE: usize = 1000;

/// What follows the head of the journal, and the server that it is on.
#[derive(Clone)]
pub(super) struct Follower {
    pub(super) options: PgConnectOptions,
    pub(super) pool: Pool,
    pub(super) settings: PostgresSettings,
    pub(super) reach: Arc<Reach>,
    pub(super) history: Arc<History>,
    pub(super) head: Arc<watch::Sender<u64>>,
}

impl Follower {
    /// Runs until it is dropped.
    pub(super) async fn run(self) -> End {
        tokio::select! {
            end = self.follow_head() => end,
            end = self.look_around() => end,
        }
    }

    /// Finds out now and then which server the address leads to, and what that has.
    async fn look_around(&self) -> End {
        loop {
            sleep(self.settings.look).await;
            if let Err(error) = self.history.look_afresh(&self.settings, &self.options).await {
                tracing::debug!(%error, "the database's address leads to no usable server");
            }
        }
    }

    async fn follow_head(&self) -> End {
        let poll = self.settings.poll;
        let mut looks = interval(poll);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(error) = self.listen(&mut looks).await {
                tracing::warn!(%error, "no notifications of new events: polling every {poll:?}");
                metrics::counter!("watchword_postgres_failures_total", "of" => "listen").increment(1);
            }
            looks.tick().await;
            self.look().await;
        }
    }

    async fn listen(&self, looks: &mut Interval) -> Result<(), sqlx::Error> {
        let generation = self.history.generation();
        let listener = self.reach.bounded(listener(&self.options, &self.settings).boxed()).await?;
        // Commits before LISTEN took effect send no notification.
        self.look().await;
        let mut notifications = pin!(listener.into_stream());
        let (mut is_deaf, mut looked) = (false, Instant::now());
        loop {
            tokio::select! {
                notification = notifications.next() => {
                    let Some(notification) = notification else { return Ok(()) };
                    is_deaf = false;
                    let mut announced = announced(&notification?);
                    sleep_until(looked + BETWEEN_LOOKS).await;
                    // One look is enough for all that have come meanwhile.
                    for _ in 0..MOST_AT_ONCE {
                        let Some(notification) = notifications.next().now_or_never() else { break };
                        let Some(notification) = notification else { return Ok(()) };
                        announced = announced.max(self::announced(&notification?));
                    }
                    // What this node has written itself is known already.
                    if announced > *self.head.borrow() {
                        looked = Instant::now();
                        self.look().await;
                    }
                },
                _ = looks.tick() => {
                    // A connection that nothing comes through any more looks like one on which nothing happens.
                    if is_deaf {
                        return Err(timed_out("news came, and no notification of them"));
                    }
                    is_deaf = self.look().await;
                    if self.history.generation() != generation {
                        // The listener is still at the server before.
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether there are news that nobody has told of.
    async fn look(&self) -> bool {
        match self.reach.bounded(self.history.look(&self.pool).boxed()).await {
            Ok(position) => raise(&self.head, position),
            Err(error) => {
                tracing::warn!(%error, "the journal's head cannot be read");
                false
            }
        }
    }
}

/// What a notification says that the head is: 0 if it is none of ours.
fn announced(notification: &PgNotification) -> u64 {
    notification.payload().parse().unwrap_or_default()
}

async fn listener(
    options: &PgConnectOptions,
    settings: &PostgresSettings,
) -> Result<PgListener, sqlx::Error> {
    // A pool of its own: one that sqlx waits for in vain when it is given back is nobody else's.
    let own = settings.clone();
    let own = pools::postgres()
        .max_connections(1)
        .acquire_timeout(settings.answer)
        .after_connect(move |connection, _| {
            let own = own.clone();
            Box::pin(async move { own.prepare(connection).await })
        })
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&own).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

fn raise(head: &watch::Sender<u64>, position: u64) -> bool {
    head.send_if_modified(|known| std::mem::replace(known, position.max(*known)) < position)
}
