//! Changing webhooks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::webhook::{Webhook, WebhookCommand, WebhookSettings};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, Segments};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookBody, WebhookSegments, authorize, parse, refused, require_may_act_on, shown};
use crate::CommandService;
use crate::api::answers::Done;
use crate::api::fields;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// What to change of a webhook; absent members stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) struct WebhookPatch {
    /// Where events are sent.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>, example = "https://hooks.acme.example/watchword", max_length = 2048)]
    url: Option<Option<String>>,
    /// Which events are sent.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 100)]
    events: Option<Option<Vec<String>>>,
    /// Whether anything is sent.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<bool>)]
    enabled: Option<Option<bool>>,
    /// What it is for; `""` removes it.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>, max_length = 200)]
    description: Option<Option<String>>,
    /// Whether personal data is sent, too.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<bool>)]
    include_personal: Option<Option<bool>>,
}

/// Change a webhook.
///
/// Absent members stay; the secret always does. A webhook that is enabled is sent the events from then on: `…/replay` sends
/// those before. Needs the permissions `settings:write` and `events:read`; a webhook with personal data needs the platform or
/// an admin.
#[utoipa::path(patch, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}", tag = "webhooks",
    operation_id = "change_webhook",
    request_body(content((WebhookPatch = "application/json"), (WebhookPatch = "application/merge-patch+json"))),
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The webhook as it is now", body = WebhookBody),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
    body: Result<Body<WebhookPatch>, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let Body { value: body, .. } = body?;
    let id = segments.id();
    let networks = &service.settings.webhook_networks;
    let url = body.url.map(|url| parse::url(&url.unwrap_or_default(), networks)).transpose();
    let events = body.events.map(|events| parse::events(&events.unwrap_or_default())).transpose();
    let description = body.description.map(|text| parse::description(text.as_deref())).transpose();
    // Checked before the values, which would tell whether there is such a webhook.
    let now = service.repository.load::<Webhook>(&id).await?;
    now.state.of(&app_id).ok_or_else(Problem::not_found)?;
    let ((url, events), description) = both(both(url, events), description)?;
    let (enabled, include_personal) = (
        body.enabled.map(|enabled| enabled.unwrap_or(true)),
        body.include_personal.map(Option::unwrap_or_default),
    );
    let context = service.context(&request, &app_id, caller.actor.clone(), None);
    let at = context.at;
    let (reads, webhook) = Reads::one::<Webhook>(&id);
    let (app, maker) = (app_id.clone(), caller.clone());
    let committed = service
        .run_as(&maker, context, reads, move |work| {
            let before = work.get(webhook).of(&app).ok_or_else(Problem::not_found)?;
            let mut settings: WebhookSettings = before.clone();
            require_may_act_on(&caller, before)?;
            if let Some(url) = &url {
                settings.url.clone_from(url);
            }
            if let Some(events) = &events {
                settings.events.clone_from(events);
            }
            if let Some(description) = &description {
                settings.description.clone_from(description);
            }
            settings.enabled = enabled.unwrap_or(settings.enabled);
            settings.include_personal = include_personal.unwrap_or(settings.include_personal);
            require_may_act_on(&caller, &settings)?;
            work.execute(webhook, WebhookCommand::Change { settings, at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    let webhook = shown(&service, &app_id, id).await?.ok_or_else(Problem::not_found)?;
    Ok(Done::ok(committed.position, webhook))
}
