//! A start whose stores are unavailable: what is answered meanwhile, and when it retries.
//!
//! A node that gave up would have to be restarted by an operator, for example after a power loss, when the database is back a
//! minute later than the nodes. So it waits as long as necessary. Errors that waiting cannot fix (a wrong password or master
//! key, a missing database, another format) end it at once.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use command_service::bootstrap::BootstrapError;
use dispatcher::DispatchError;
use event_store::{AppendError, Clock, Location, Lost, OpenError, StoreError, SystemClock};
use http_kit::Problem;
use schemas::problems;
use serde_json::json;
use tokens::PublicUrl;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::metrics;
use crate::told::told;

/// The pause before the first retry; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, so that the stores are found soon after they are back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the same reason is logged again.
const REMINDER: Duration = Duration::from_mins(1);

/// Which store an error belongs to: added as a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Journal,
    KeyStore,
    ReadModels,
}

impl Part {
    /// Its name in `/readyz`.
    fn check(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::KeyStore => "key_store",
            Self::ReadModels => "read_models",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "the journal",
            Self::KeyStore => "the key store",
            Self::ReadModels => "the read models",
        })
    }
}

/// What a start is waiting for.
#[derive(Clone, Debug)]
struct Waited {
    /// The store, if known.
    store: Part,
    /// None before the first attempt has failed.
    reason: Option<String>,
}

/// A start that may have to wait.
pub struct Waiting {
    waited: watch::Sender<Waited>,
}

/// Whether a store is on a server, which may be unavailable.
pub fn has_servers(config: &Config) -> bool {
    config.databases.is_some() || matches!(config.read_models, Location::Postgres(_))
}

impl Waiting {
    pub fn new() -> Self {
        Self { waited: watch::Sender::new(Waited { store: Part::Journal, reason: None }) }
    }

    /// After the journal went back: the stores are opened anew.
    pub fn again(lost: &Lost) -> Self {
        Self { waited: watch::Sender::new(Waited { store: Part::Journal, reason: Some(lost.to_string()) }) }
    }

    /// The routes meanwhile. On the internal address they include `details` and metrics.
    pub fn router(&self, public_url: &PublicUrl, details: bool) -> Router {
        let waited = self.waited.subscribe();
        let readyz = async move || readiness(&waited.borrow(), details);
        let mut router = Router::new()
            .route("/healthz", get(async || Json(json!({ "status": "ok" }))))
            .route("/readyz", get(readyz));
        if details {
            router = router.route("/metrics", get(async || metrics::render()));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        http_kit::waiting(router, clock, public_url.prefix())
    }

    /// Retries until it works, or until it is certain that it never will.
    pub async fn until_there<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        let mut told_last: Option<(String, Instant)> = None;
        loop {
            let error = match attempt().await {
                Ok(opened) => {
                    if told_last.is_some() {
                        tracing::info!(
                            "the stores are available after {:.1} s",
                            begun.elapsed().as_secs_f64()
                        );
                    }
                    return Ok(opened);
                }
                Err(error) if may_pass(&error) => error,
                Err(error) => return Err(error),
            };
            let store = error.downcast_ref().copied().unwrap_or(Part::Journal);
            let reason = told(&error);
            let is_new =
                told_last.as_ref().is_none_or(|(last, at)| *last != reason || at.elapsed() >= REMINDER);
            if is_new {
                tracing::warn!(store = store.check(), "waiting: {reason}. Retrying until it works");
                told_last = Some((reason.clone(), Instant::now()));
            }
            self.waited.send_replace(Waited { store, reason: Some(reason) });
            tokio::time::sleep(jittered(pause, SystemClock.new_id().as_u128())).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

/// Between half and all of it, so that nodes waiting for the same server do not retry in step.
fn jittered(pause: Duration, random: u128) -> Duration {
    let share = u32::try_from(random & 0xFFFF).expect("16 bits");
    pause / 2 + pause / 2 * share / 0xFFFF
}

fn readiness(waited: &Waited, details: bool) -> Problem {
    const WHERE: &str = "the node is waiting for it; the log says why";
    let detail = match &waited.reason {
        Some(reason) if details => reason.clone(),
        _ => WHERE.to_owned(),
    };
    let mut checks = json!({});
    checks[waited.store.check()] = json!({ "ok": false, "state": "waiting", "detail": detail });
    Problem::new(problems::NOT_READY)
        .detail(format!("The service is starting and waits for {}", waited.store))
        .member("checks", checks)
        .retry_after(1)
}

/// Whether waiting may help.
fn may_pass(error: &anyhow::Error) -> bool {
    let mut known = error.chain().filter_map(may_pass_alone);
    // The outermost cause that knows decides.
    known.next().unwrap_or(false)
}

/// What a single cause says about that; `None` if it does not know.
fn may_pass_alone(cause: &(dyn Error + 'static)) -> Option<bool> {
    let of_store = |error: &StoreError| matches!(error, StoreError::Unavailable(_));
    let of_dispatch = |error: &DispatchError<_>| match error {
        DispatchError::Store(error) => of_store(error),
        DispatchError::Unknown(_) | DispatchError::Contended => true,
        _ => false,
    };
    if let Some(error) = cause.downcast_ref::<OpenError>() {
        return Some(error.may_pass());
    }
    if let Some(error) = cause.downcast_ref::<read_models::OpenError>() {
        return Some(error.may_pass());
    }
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return Some(of_store(error));
    }
    if let Some(error) = cause.downcast_ref::<AppendError>() {
        return Some(matches!(error, AppendError::Unavailable(_) | AppendError::Unknown(_)));
    }
    match cause.downcast_ref::<BootstrapError>() {
        Some(BootstrapError::Store(error)) => Some(of_store(error)),
        Some(BootstrapError::Dispatch(error)) => Some(of_dispatch(error)),
        Some(BootstrapError::Signing(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::{Context, anyhow};

    use super::*;

    fn away() -> anyhow::Error {
        let error = OpenError::Away { path: "postgres://db/x".to_owned(), reason: "refused".to_owned() };
        anyhow::Error::new(error).context(Part::KeyStore)
    }

    #[test]
    fn what_may_pass_is_waited_for_and_nothing_else() {
        let sql = |kind: std::io::ErrorKind| sqlx::Error::Io(kind.into());
        let read_models = |source| read_models::OpenError::Unreachable { database: "x".to_owned(), source };
        let unavailable = || StoreError::Unavailable("x".into());
        for passes in [
            away(),
            anyhow::Error::new(read_models(sql(std::io::ErrorKind::ConnectionRefused)))
                .context(Part::ReadModels),
            anyhow::Error::new(read_models(sqlx::Error::PoolTimedOut)),
            anyhow::Error::new(unavailable()),
            anyhow::Error::new(BootstrapError::Store(unavailable())).context("the first apps"),
            anyhow::Error::new(BootstrapError::Dispatch(DispatchError::Store(unavailable()))),
            anyhow::Error::new(AppendError::Unknown("x".to_owned())),
        ] {
            assert!(may_pass(&passes), "{passes:?}");
        }
        for stays in [
            anyhow!("the master key is missing"),
            anyhow::Error::new(OpenError::WrongMasterKey("x".to_owned())).context(Part::KeyStore),
            OpenError::Newer { path: "x".to_owned(), found: 9, known: 5 }.into(),
            OpenError::Failed { path: "x".to_owned(), reason: "password authentication failed".to_owned() }
                .into(),
            read_models(sql(std::io::ErrorKind::InvalidData)).into(),
            read_models(sqlx::Error::Tls("unknown issuer".into())).into(),
            StoreError::Damaged("x".to_owned()).into(),
        ] {
            assert!(!may_pass(&stays), "{stays:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_tried_again_soon_and_not_too_often() {
        let (waiting, tries, begun) = (Waiting::new(), AtomicU32::new(0), Instant::now());
        let opened = waiting.until_there(async || {
            tries.fetch_add(1, Ordering::Relaxed);
            if begun.elapsed() < Duration::from_mins(10) { Err(away()) } else { Ok(()) }
        });
        opened.await.expect("it is there");
        assert!(begun.elapsed() <= Duration::from_mins(10) + LONGEST_PAUSE);
        let tries = tries.load(Ordering::Relaxed);
        assert!((120..=260).contains(&tries), "{tries}");
        assert_eq!(waiting.waited.borrow().store, Part::KeyStore);
    }

    #[tokio::test]
    async fn what_never_will_be_ends_it_at_once() {
        let refused = Waiting::new()
            .until_there(async || {
                Err::<(), _>(OpenError::WrongMasterKey("x".to_owned())).context(Part::KeyStore)
            })
            .await
            .expect_err("is refused");
        assert!(told(&refused).contains("another master key"), "{refused:?}");
    }

    #[test]
    fn pauses_differ_within_bounds() {
        let pause = Duration::from_secs(4);
        assert_eq!(jittered(pause, 0), pause / 2);
        assert_eq!(jittered(pause, u128::MAX), pause);
        let some = jittered(pause, 0x7FFF);
        assert!(some > pause / 2 && some < pause);
    }
}
