//! Events that a webhook did not accept: listing them, and sending them again.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Reads, Work};
use domain::claims::ClaimKind;
use domain::delivery::{Delivery, DeliveryCommand, DeliveryError, Outcome, WebhookFailure};
use domain::webhook::Webhook;
use domain::{EventId, Timestamp, WebhookId};
use event_store::lookup::messages_to;
use http_kit::Page;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, NoBody, Params, Segments};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use schemas::problems;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{WebhookSegments, authorize, require_may_act_on};
use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::PageParams;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(retry))
}

type WebhookDeliveryPage = Page<WebhookDeliveryBody>;

/// Whether an event is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookDeliveryStatus)]
enum Status {
    /// It is sent again.
    Waiting,
    /// It was given up.
    Failed,
}

impl Status {
    fn claims(self) -> &'static str {
        match self {
            Self::Waiting => ClaimKind::WebhookWaiting.as_str(),
            Self::Failed => ClaimKind::WebhookFailed.as_str(),
        }
    }
}

/// An event that a webhook did not accept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
struct WebhookDeliveryBody {
    /// The id of the delivery.
    #[schema(example = "1042")]
    id: String,
    /// The event.
    #[schema(value_type = Uuid)]
    event_id: EventId,
    /// Its name.
    #[schema(example = "UserRegistered")]
    event_type: String,
    /// Its position.
    position: u64,
    /// Whether it is sent again.
    status: Status,
    /// How often it was sent.
    attempts: u32,
    /// Why the last attempt failed.
    #[schema(value_type = String, example = "status")]
    reason: WebhookFailure,
    /// The status of the last answer; null if there was none.
    #[schema(required)]
    status_code: Option<u16>,
    /// When the first attempt failed.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    first_failed_at: Option<Timestamp>,
    /// When the last attempt failed.
    #[schema(value_type = String, format = DateTime)]
    failed_at: Timestamp,
    /// When it is sent again; null if it was given up.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListDeliveries {
    /// Only those that are sent again (`waiting`), or that were given up (`failed`).
    #[param(inline)]
    status: Option<Status>,
    /// The maximum number of items: 1 to 200, 20 if absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// How many items to skip: at most 10 000.
    #[param(minimum = 0, maximum = 10000)]
    offset: Option<i64>,
    /// The `next_cursor` of the previous page, instead of an offset.
    cursor: Option<String>,
}

/// List the events that a webhook did not accept.
///
/// Those that are sent again, with the later events of their streams, and those that were given up. What was accepted is not
/// listed: the events `WebhookDelivered` say how much that is. Needs the permissions `settings:write` and `events:read`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/deliveries", tag = "webhooks",
    operation_id = "list_webhook_deliveries",
    params(("app_id" = String, Path, description = "The app"),
        ("webhook_id" = Uuid, Path, description = "The webhook"), ListDeliveries),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The events, oldest first", body = WebhookDeliveryPage)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<WebhookSegments>,
    Params(params): Params<ListDeliveries>,
) -> Result<Response, Problem> {
    authorize(&service, &app_id, &credentials).await?;
    let id = segments.id();
    let webhook = service.repository.load::<Webhook>(&id).await?;
    webhook.state.of(&app_id).ok_or_else(Problem::not_found)?;
    let ListDeliveries { status, limit, offset, cursor } = params;
    let kinds = status.map_or_else(|| vec![Status::Waiting, Status::Failed], |status| vec![status]);
    let mut positions = Vec::new();
    for kind in kinds {
        let claims = service.repository.journal().claims(kind.claims(), &messages_to(id)).await?;
        positions.extend(claims.iter().filter_map(|(claim, _)| position_of(&claim.key)));
    }
    positions.sort_unstable();
    let page = PageParams { limit, offset, cursor }.of(positions)?;
    let mut items = Vec::with_capacity(page.items.len());
    for event in service.repository.journal().read_positions(&page.items).await? {
        let delivery = service.repository.load::<Delivery>(&EventId(event.id)).await?;
        // A claim alone shows nothing: anybody who can write to the store can forge one.
        let Some(attempted) = delivery.state.webhooks.get(&id) else { continue };
        let Some((reason, status_code)) = attempted.failure else { continue };
        let (status, retry_at) = match attempted.outcome {
            Outcome::Waits(until) => (Status::Waiting, Some(until)),
            Outcome::GivenUp => (Status::Failed, None),
            Outcome::Sent => continue,
        };
        items.push(WebhookDeliveryBody {
            id: event.position.to_string(),
            event_id: EventId(event.id),
            event_type: event.name,
            position: event.position,
            status,
            attempts: attempted.attempts,
            reason,
            status_code,
            first_failed_at: attempted.first_failed_at,
            failed_at: attempted.at,
            retry_at,
        });
    }
    Ok(Done::read(page.with(items)))
}

fn position_of(key: &str) -> Option<u64> {
    key.rsplit('/').next()?.parse().ok()
}

/// The path parameters that identify a delivery.
#[derive(Deserialize)]
struct DeliverySegments {
    webhook_id: Uuid,
    delivery_id: String,
}

/// Retry a delivery.
///
/// The event is sent at once, and again for as long as a new one. Later events of its stream do not wait for it, as they were
/// sent meanwhile. Needs the permissions `settings:write` and `events:read`; a webhook with personal data needs the platform
/// or an admin.
#[utoipa::path(post, path = "/v1/apps/{app_id}/admin/webhooks/{webhook_id}/deliveries/{delivery_id}/retry",
    tag = "webhooks", operation_id = "retry_webhook_delivery",
    params(("app_id" = String, Path, description = "The app"), ("webhook_id" = Uuid, Path, description = "The webhook"),
        ("delivery_id" = String, Path, description = "The delivery")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 204, description = "The event is sent again"),
        (status = 409, description = "`webhook_delivered` or `webhook_disabled`")))]
async fn retry(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    Segments(segments): Segments<DeliverySegments>,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    let caller = authorize(&service, &app_id, &credentials).await?;
    let NoBody { idempotency } = body?;
    let webhook_id = WebhookId(segments.webhook_id);
    let position = segments.delivery_id.parse().map_err(|_| Problem::not_found())?;
    let events = service.repository.journal().read_positions(&[position]).await?;
    let event = events.first().filter(|event| event.metadata.app_id == app_id);
    let event_id = EventId(event.ok_or_else(Problem::not_found)?.id);
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let mut reads = Reads::new();
    let webhook = reads.of::<Webhook>(&webhook_id);
    let delivery = reads.of::<Delivery>(&event_id);
    let maker = caller.clone();
    let committed = service
        .run_as(&maker, context, reads, move |work: &mut Work| {
            let settings = work.get(webhook).of(&app_id).ok_or_else(Problem::not_found)?;
            require_may_act_on(&caller, settings)?;
            if !settings.enabled {
                return Err(Problem::new(problems::WEBHOOK_DISABLED));
            }
            work.execute(delivery, DeliveryCommand::Redeliver { webhook_id, at }).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    Ok(Done::no_content(committed.position))
}

fn refused(error: DeliveryError) -> Problem {
    match error {
        DeliveryError::Delivered => Problem::new(problems::WEBHOOK_DELIVERED),
        DeliveryError::Absent | DeliveryError::Sent | DeliveryError::Expired => Problem::not_found(),
    }
}
