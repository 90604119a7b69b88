//! Creating webhooks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::Reads;
use domain::webhook::{Webhook, WebhookCommand, WebhookEvent, WebhookSettings};
use domain::{Event, WebhookId};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use schemas::problems;
use serde::{Deserialize, Serialize};
use tokens::WebhookSecret;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{WebhookBody, authorize, listed, parse, refused, require_may_act_on, shown};
use crate::CommandService;
use crate::api::answers::Done;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A new webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// Where events are sent, with `https`. `http` and private addresses need the operator's `allowed_webhook_networks`. The
    /// event log keeps it, so it is no place for a secret.
    #[schema(example = "https://hooks.acme.example/watchword", max_length = 2048)]
    url: String,
    /// Which events are sent: `*` for all, `user.*` for those of an aggregate, `UserRegistered` for one.
    #[schema(min_items = 1, max_items = 100)]
    events: Vec<String>,
    /// Whether anything is sent.
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 200)]
    description: Option<String>,
    /// Whether personal data is sent, too. Only the platform and admins can decide that.
    #[serde(default)]
    #[schema(default = false)]
    include_personal: bool,
}

fn yes() -> bool {
    true
}

/// A new webhook, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedWebhook {
    #[serde(flatten)]
    webhook: WebhookBody,
    /// The secret that its messages are signed with, shown only once.
    #[schema(example = "whsec_…")]
    secret: String,
}

/// Create a webhook.
///
/// From now on, events of the app that match are sent to its URL, one `CloudEvent` in each request. Requests are signed
/// ([Standard Webhooks](https://www.standardwebhooks.com)) with the secret that only this answer shows (and its repetition
/// under the same `Idempotency-Key`). Needs the permissions `settings:write` and `events:read`; a webhook with personal data
/// needs the platform or an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/webhooks", tag = "webhooks", operation_id = "create_webhook",
    params(("app_id" = String, Path, description = "The app")), request_body = NewWebhook,
    security(("api_key" = []), ("user" = [])),
    responses((status = 201, description = "The webhook, with its secret", body = CreatedWebhook),
        (status = 409, description = "`too_many_webhooks`"),
        (status = 422, description = "`validation_failed`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<NewWebhook>, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let Body { value: body, idempotency } = body?;
    let url = parse::url(&body.url, &service.settings.webhook_networks);
    let ((url, events), description) =
        both(both(url, parse::events(&body.events)), parse::description(body.description.as_deref()))?;
    let NewWebhook { enabled, include_personal, .. } = body;
    let settings = WebhookSettings { url, events, include_personal, description, enabled };
    require_may_act_on(&caller, &settings)?;
    let mut context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    // A repetition of the request that made the last one is not one too many.
    let replayed = service.dispatcher.replayed::<(), Problem>(&mut context).await?;
    let committed = if let Some(replayed) = replayed {
        replayed
    } else {
        // Requests at the same moment may add a few more: the limit only keeps the list short.
        if listed(&service, &app_id).await?.len() >= service.settings.webhooks_of_an_app.get() {
            return Err(Problem::new(problems::TOO_MANY_WEBHOOKS));
        }
        let at = context.at;
        let webhook_id = WebhookId(service.clock.new_id());
        let mut reads = Reads::new();
        let webhook = reads.new_one::<Webhook>(&webhook_id);
        let app = app_id.clone();
        let committed = service.run_as(&caller, context, reads, move |work| {
            let (app_id, settings) = (app.clone(), settings.clone());
            work.execute(webhook, WebhookCommand::Create { webhook_id, app_id, settings, at })
                .map_err(refused)
        });
        committed.await.map_err(Problem::from)?
    };
    // Taken from the event, not from this request's id: a repetition gets the original webhook.
    let created = committed.events.iter().find_map(|event| match event {
        Event::Webhook(WebhookEvent::WebhookCreated(created)) => Some(created.webhook_id),
        _ => None,
    });
    let created = created.ok_or_else(|| Problem::internal("the committed events create no webhook"))?;
    let webhook = shown(&service, &app_id, created).await?.ok_or_else(Problem::not_found)?;
    let secret = WebhookSecret::of(&service.tokens, created).text();
    Ok(Done::created(committed.position, CreatedWebhook { webhook, secret }))
}
