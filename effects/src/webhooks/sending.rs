//! Sends one event to one webhook.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use domain::webhook::WebhookSettings;
use domain::{AppId, WebhookId};
use event_store::StoreError;
use futures::FutureExt;
use schemas::RecordedEvent;
use tokio::time::Instant;

use super::message::{NotAccepted, body};
use super::runner::Shared;

/// What is sent where.
pub(super) struct Target {
    pub id: WebhookId,
    pub app_id: AppId,
    pub settings: WebhookSettings,
}

/// The outcome of a message.
pub(super) struct Done {
    pub position: u64,
    /// Absent if there is no such event any more.
    pub event: Option<Arc<RecordedEvent>>,
    pub is_retry: bool,
    pub outcome: Result<Result<(), NotAccepted>, StoreError>,
    pub took: Duration,
}

/// Sends an event.
pub(super) async fn send(
    shared: Arc<Shared>,
    target: Arc<Target>,
    position: u64,
    is_retry: bool,
    is_failing: bool,
) -> Done {
    let slots = if is_failing { &shared.slots_of_failing } else { &shared.slots };
    let _slot = slots.acquire().await;
    let started = Instant::now();
    let found = shared.event(position).await;
    let (event, outcome) = match found {
        Ok(None) => (None, Ok(Ok(()))),
        Err(error) => (None, Err(error)),
        Ok(Some(event)) => {
            let sending = AssertUnwindSafe(post(&shared, &target, &event)).catch_unwind().await;
            // The panic hook has logged it already.
            let outcome = sending.unwrap_or_else(|_| Ok(Err(NotAccepted::not_made("making it panicked"))));
            (Some(event), outcome)
        }
    };
    Done { position, event, is_retry, outcome, took: started.elapsed() }
}

async fn post(
    shared: &Shared,
    target: &Target,
    event: &RecordedEvent,
) -> Result<Result<(), NotAccepted>, StoreError> {
    let WebhookSettings { url, include_personal, .. } = &target.settings;
    let body = match body(&shared.repository, &shared.origin, event, *include_personal).await {
        Ok(body) => body,
        Err(StoreError::Damaged(what)) => return Ok(Err(NotAccepted::not_made(what))),
        Err(error) => return Err(error),
    };
    fail::fail_point!("before-webhook", |_| std::process::abort());
    let sent = shared.messages.send(target.id, url, event.id, body).await;
    fail::fail_point!("after-webhook", |_| std::process::abort());
    Ok(sent)
}
