//! The names of the API keys that caused events.

use std::collections::{BTreeMap, BTreeSet};

use domain::app::AppEvent;
use domain::{ApiKeyId, AppId, Event};
use http_kit::Problem;
use http_kit::auth::{AdminCaller, Caller};
use schemas::envelope::{ActorKind, RecordedEvent};

use crate::ProjectionService;
use crate::answers::refused;

/// The names of the API keys in a part of the log. They never change, and a key's own events precede those that it
/// caused.
pub(crate) struct KeyNames {
    /// The app whose keys may be named; `None` for any app.
    only: Option<AppId>,
    /// `None`: looked up and not found.
    known: BTreeMap<ApiKeyId, Option<String>>,
}

impl KeyNames {
    /// An app's admins need not know the names of the platform's keys.
    pub(crate) fn of(caller: &AdminCaller, app_id: &AppId) -> Self {
        let of_platform = matches!(&caller.caller, Caller::ApiKey { app_id, .. } if app_id.is_platform());
        Self { only: Some(app_id.clone()).filter(|_| !of_platform), known: BTreeMap::new() }
    }

    pub(crate) fn get(&self, event: &RecordedEvent) -> Option<String> {
        self.known.get(&key_of(event)?).cloned().flatten()
    }

    /// Looks up the names for these events.
    pub(crate) async fn learn(
        &mut self,
        service: &ProjectionService,
        events: &[RecordedEvent],
    ) -> Result<(), Problem> {
        let unknown: BTreeSet<ApiKeyId> =
            events.iter().filter_map(key_of).filter(|key| !self.known.contains_key(key)).collect();
        let unknown = Vec::from_iter(unknown);
        let made = service.models.audit_log().keys_made(&unknown).await.map_err(refused)?;
        self.known.extend(unknown.into_iter().map(|key| (key, None)));
        let mut positions: Vec<u64> = made.iter().map(|(_, position)| *position).collect();
        positions.sort_unstable();
        for event in service.journal().read_positions(&positions).await? {
            if self.only.as_ref().is_some_and(|app_id| *app_id != event.metadata.app_id) {
                continue;
            }
            if let Ok(Event::App(AppEvent::ApiKeyIssued(issued))) = service.repository.decode(&event).await {
                self.known.insert(issued.key_id, Some(issued.name));
            }
        }
        Ok(())
    }
}

/// The API key that caused an event.
fn key_of(event: &RecordedEvent) -> Option<ApiKeyId> {
    let actor = &event.metadata.actor;
    let id = actor.id.as_ref().filter(|_| actor.kind == ActorKind::ApiKey)?;
    id.parse().ok().map(ApiKeyId)
}
