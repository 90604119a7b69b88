//! Follows the journal's head: by notifications at each commit, and by polling in case one is missed.

use std::pin::pin;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use sqlx::postgres::{PgListener, PgPool};
use tasks::End;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::reach::Reach;
use super::session::PostgresSettings;

/// The channel on which `append` sends the new head.
const CHANNEL: &str = "watchword_head";

/// Runs until it is dropped.
pub(super) async fn follow(
    pool: PgPool,
    settings: PostgresSettings,
    reach: Arc<Reach>,
    head: Arc<watch::Sender<u64>>,
) -> End {
    let mut looks = interval(settings.poll);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Err(error) = listen(&pool, &reach, &head, &mut looks).await {
            tracing::warn!(%error, "no notifications of new events: polling every {:?}", settings.poll);
            metrics::counter!("watchword_postgres_failures_total", "of" => "listen").increment(1);
        }
        looks.tick().await;
        look(&pool, &reach, &head).await;
    }
}

async fn listen(
    pool: &PgPool,
    reach: &Reach,
    head: &watch::Sender<u64>,
    looks: &mut tokio::time::Interval,
) -> Result<(), sqlx::Error> {
    let mut listener = reach.bounded(PgListener::connect_with(pool)).await?;
    listener.listen(CHANNEL).await?;
    // Commits before LISTEN took effect send no notification.
    look(pool, reach, head).await;
    let mut notifications = pin!(listener.into_stream());
    loop {
        tokio::select! {
            notification = notifications.next() => match notification {
                Some(notification) => {
                    if let Ok(position) = notification?.payload().parse() {
                        raise(head, position);
                    }
                }
                None => return Ok(()),
            },
            _ = looks.tick() => look(pool, reach, head).await,
        }
    }
}

async fn look(pool: &PgPool, reach: &Reach, head: &watch::Sender<u64>) {
    match reach.bounded(super::read_head(pool).boxed()).await {
        Ok(position) => raise(head, position),
        Err(error) => tracing::warn!(%error, "the journal's head cannot be read"),
    }
}

fn raise(head: &watch::Sender<u64>, position: u64) {
    head.send_if_modified(|known| std::mem::replace(known, position.max(*known)) < position);
}
