//! The instance's report on itself.

use std::sync::Arc;
use std::time::Duration;

use command_service::{CommandService, KeySwitch};
use effects::relay::{Relay, RelayStatus};
use effects::{Effect, EffectStatus};
use event_store::{Journal, KeyStore, Repository, StoreError};
use http_kit::{Authenticator, RateLimits};
use projection_service::{BusStatus, NotaryStatus, ProjectionService, ProjectionStatus};
use read_models::ReadModels;
use serde_json::{Value, json};
use tokens::AccessTokens;

use super::clock::LatestTime;
use super::storage::{StorageWatch, not_writable};
use crate::logging;

/// What to do about a key store that is older than the journal.
const OLDER_KEYS: &str = "people in the journal have no key: the key store is from an older backup. Stop the service and restore \
    keys.db from the newest backup, of the same moment as journal.db or later; `watchword doctor` says whose events cannot be read";

/// How long readiness waits for a small write.
const ANSWER: Duration = Duration::from_secs(4);

/// The inputs of readiness and metrics.
pub struct Health {
    pub(super) storage: StorageWatch,
    pub(super) latest: LatestTime,
    pub authenticator: Arc<Authenticator>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) repository: Arc<Repository>,
    pub(super) access_tokens: Arc<AccessTokens>,
    pub(super) limits: Arc<RateLimits>,
    pub(super) commands: Option<Arc<CommandService>>,
    pub(super) key_store: Arc<KeyStore>,
    pub(super) read_models: Option<Arc<ReadModels>>,
    pub(super) projections: Option<Arc<ProjectionService>>,
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) mailer: Option<Arc<Effect>>,
    pub(super) webhooks: Option<Arc<Effect>>,
}

impl Health {
    /// Identifies the instance.
    pub fn instance(&self) -> String {
        self.key_store.instance_key().public_id()
    }

    /// Whether the service can do its work, and each check with its progress.
    pub async fn check(&self) -> (bool, Value) {
        let read_models = async {
            match &self.read_models {
                Some(read_models) => Some(read_models.check().await),
                None => None,
            }
        };
        // Ready means that an append would be taken.
        let (journal, key_store, read_models, appends, keeps) = tokio::join!(
            self.read_journal(),
            self.key_store.check(),
            read_models,
            answered(self.journal.can_append()),
            answered(self.key_store.can_write())
        );
        let mut ready = true;
        let mut judge =
            |store: &'static str, read: Result<Value, StoreError>, written: Result<(), StoreError>| {
                let details = match (read, written) {
                    (Ok(details), Ok(())) => return details,
                    (_, Err(error)) => {
                        tracing::error!(store, %error, "not ready: a store cannot be written");
                        not_writable(&error)
                    }
                    (Err(error), Ok(())) => {
                        tracing::error!(store, %error, "not ready: a store cannot be read");
                        json!({ "ok": false, "detail": "it cannot be read; the log says why" })
                    }
                };
                ready = false;
                details
            };
        let ok = |()| json!({ "ok": true });
        let damaged = self.key_store.macs().damage();
        let is_whole = damaged.is_empty();
        let mut checks = json!({
            "journal": judge("journal", journal.map(|head| json!({ "ok": is_whole, "head": head })), appends),
            "key_store": judge("key store", key_store.map(ok), keeps),
        });
        // Requests that depend on these events are refused; everything else works.
        if !is_whole {
            let positions: Vec<u64> = damaged.iter().map(|(position, _)| *position).collect();
            checks["journal"]["damaged"] = positions.into();
            checks["journal"]["detail"] =
                "these events are not as this instance wrote them; the log and `watchword doctor` say why"
                    .into();
        }
        // The requests of these people are refused; those of others are answered.
        let without_key = self.key_store.missing();
        if without_key > 0 && checks["key_store"]["ok"] == true {
            checks["key_store"] =
                json!({ "ok": false, "state": "older", "missing": without_key, "detail": OLDER_KEYS });
        }
        if let Some(read_models) = read_models {
            checks["read_models"] = judge("read models", read_models.map(ok), Ok(()));
        }
        if let Some(behind) = self.latest.check() {
            checks["clock"] = behind;
        }
        checks["storage"] = self.storage.check();
        if let Some(projections) = &self.projections {
            let projectors: Vec<Value> = projections.status().iter().map(projector).collect();
            ready &= projectors.iter().all(|projector| projector["ok"] == true);
            checks["projectors"] = projectors.into();
        }
        if let Some(projections) = &self.projections {
            checks["checkpoint"] = checkpoint_check(&projections.notary_status());
        }
        if let Some(bus) = self.projections.as_ref().and_then(|projections| projections.bus_status()) {
            checks["bus"] = bus_check(&bus);
        }
        // Unpublished events do not prevent logins: they are reported, and the service stays ready.
        if let Some(relay) = &self.relay {
            checks["relay"] = relay_check(&relay.status());
        }
        if let Some(mailer) = &self.mailer {
            checks["mailer"] = mailer_check(&mailer.status());
        }
        if let Some(webhooks) = &self.webhooks {
            checks["webhooks"] = webhooks_check(&webhooks.status());
        }
        let tasks = tasks::statuses();
        ready &= tasks.iter().all(|task| !task.is_vital || task.state == "running");
        checks["tasks"] = tasks_check(&tasks);
        checks["log"] = log_check(&logging::standing());
        (ready, checks)
    }

    /// Updates gauges. It queries no store, so that it works when none answers.
    pub fn measure(&self) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact past 2^53 events")]
        metrics::gauge!("journal_head").set(*self.journal.watch_head().borrow() as f64);
        crate::descriptors::measure();
        self.journal.measure();
        self.repository.measure();
        self.key_store.measure();
        if let Some(read_models) = &self.read_models {
            read_models.measure();
        }
        self.access_tokens.measure();
        self.limits.measure();
        if let Some(commands) = &self.commands {
            commands.measure();
        }
        if let Some(projections) = &self.projections {
            projections.measure();
        }
    }

    /// The scheduled switches of signing keys, for details: it looks at every app.
    pub async fn signing_keys(&self) -> Option<Value> {
        let switches = match self.commands.as_ref()?.key_switches().await {
            Ok(switches) => switches,
            Err(error) => {
                tracing::warn!(%error, "the signing keys could not be read");
                return Some(json!({ "ok": true, "detail": "they cannot be read; the log says why" }));
            }
        };
        let one = |switch: &KeySwitch| json!({ "app_id": switch.app_id, "kid": switch.kid, "alg": switch.alg, "signs_from": switch.signs_from });
        Some(json!({ "ok": true, "scheduled": switches.iter().map(one).collect::<Vec<_>>() }))
    }

    /// Reads the newest event, and returns its position.
    async fn read_journal(&self) -> Result<u64, StoreError> {
        let head = self.journal.head().await?;
        match self.journal.read_positions(&[head]).await {
            Ok(events) if head > 0 && events.is_empty() => {
                Err(StoreError::Damaged("the newest event is missing".to_owned()))
            }
            // Distinguished from a journal that cannot be read.
            Err(StoreError::Damaged(_)) if !self.key_store.macs().damage().is_empty() => Ok(head),
            Err(error) => Err(error),
            Ok(events) => {
                for event in &events {
                    self.latest.see(event.at);
                    self.repository.saw(event.at);
                }
                Ok(head)
            }
        }
    }
}

/// A task that is started again usually is within seconds. Without a vital one the process is not ready.
fn tasks_check(tasks: &[tasks::Status]) -> Value {
    let list = tasks.iter().map(|task| {
        let tasks::Status { name, state, restarts, .. } = task;
        json!({ "name": name, "ok": *state == "running", "state": state, "restarts": restarts })
    });
    let mut check = json!({
        "ok": tasks.iter().all(|task| task.state == "running"),
        "restarts": tasks.iter().map(|task| task.restarts).sum::<u64>(),
        "list": list.collect::<Vec<_>>(),
    });
    if check["ok"] == false {
        check["detail"] = "some have failed and wait to be started again; the log says why".into();
    }
    check
}

/// Nothing depends on the log, but somebody should know that it has no more.
fn log_check(standing: &logging::Standing) -> Value {
    let logging::Standing { lost, trouble } = standing;
    let mut check = json!({ "ok": trouble.is_none(), "lost": lost });
    if let Some(trouble) = trouble {
        check["detail"] = format!("no lines are written for now: {trouble}").into();
    }
    check
}

/// A disk that does not answer is as bad as one that refuses.
async fn answered(asked: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    let silent = || StoreError::Unavailable("it does not answer".into());
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(silent()))
}

/// A lagging or paused projector is no reason to send requests elsewhere: no decision depends on it.
fn projector(status: &ProjectionStatus) -> Value {
    let mut check = json!({
        "name": status.name,
        "ok": status.state != "failed",
        "state": status.state,
        "position": status.position,
        "lag": status.lag,
    });
    if let Some(position) = status.failed_position {
        check["failed_position"] = position.into();
        check["detail"] = format!(
            "it is stuck at event {position}; the log, GET /v1/projections and `watchword doctor` say why"
        )
        .into();
    }
    check
}

/// Requests do not depend on it, but auditors do.
fn checkpoint_check(status: &NotaryStatus) -> Value {
    let NotaryStatus { size, signed_at, refused } = status;
    let mut check = json!({ "ok": refused.is_none(), "size": size, "signed_at": signed_at });
    if let Some(why) = refused {
        check["detail"] = format!("no checkpoint is signed: {why}").into();
    }
    check
}

/// Rejected messages are read from the journal instead: nothing fails, but an operator should know.
fn bus_check(status: &BusStatus) -> Value {
    let BusStatus { forged, unmarked, unreadable, last_refused, error } = status;
    let mut check = json!({
        "ok": *forged == 0 && error.is_none(),
        "state": if error.is_none() { "following" } else { "away" },
        "forged": forged, "unmarked": unmarked, "unreadable": unreadable, "last_refused": last_refused,
    });
    if *forged > 0 {
        check["detail"] =
            "messages of the stream are not this instance's, and were rejected: find out who can write \
            to it, see «When the stream is wrong» in deploy/README.md"
                .into();
    } else if error.is_some() {
        check["detail"] = "events come from the journal, not from NATS; the log says why".into();
    }
    check
}

/// A stopped relay does not prevent logins.
fn relay_check(status: &RelayStatus) -> Value {
    let RelayStatus { state, position, lag, error } = status;
    let mut check = json!({ "ok": error.is_none(), "state": state, "position": position, "lag": lag });
    if let Some(error) = error {
        check["detail"] = format!("events are not published for now: {error}").into();
    }
    check
}

/// Receivers that accept nothing do not prevent logins.
fn webhooks_check(status: &EffectStatus) -> Value {
    let EffectStatus { state, position, waiting, error, .. } = status;
    let mut check =
        json!({ "ok": error.is_none(), "state": state, "position": position, "waiting": waiting });
    if error.is_some() {
        check["detail"] = "no webhook is sent anything for now; the log says why".into();
    }
    check
}

/// Waiting or failed mails do not prevent logins with a password.
fn mailer_check(status: &EffectStatus) -> Value {
    let EffectStatus { state, position, waiting, failed, error } = status;
    let mut check = json!({
        "ok": error.is_none(), "state": state, "position": position, "waiting": waiting, "failed": failed,
    });
    if error.is_some() {
        check["detail"] = "no mail is sent for now; the log says why".into();
    }
    check
}
