//! Creating apps.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cqrs_es::Aggregate;
use dispatcher::{DispatchError, Reads};
use domain::app::{App, AppCommand};
use domain::{AppId, AppSettings, Event};
use http_kit::cookies::Credentials;
use http_kit::extract::Body;
use http_kit::openapi::app_settings_patch;
use http_kit::problem::{Problem, both};
use http_kit::request::RequestContext;
use schemas::field_codes;
use schemas::problems;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::apps::read::AppBody;
use crate::apps::settings::{check_sender, invalid_settings};
use crate::apps::{check_name, refused};

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A new app.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApp {
    /// `[a-z0-9](-?[a-z0-9])*`, 1 to 40 characters.
    #[schema(example = "acme", min_length = 1, max_length = 40, pattern = "^[a-z0-9](-?[a-z0-9])*$")]
    app_id: String,
    /// The name shown to people.
    #[schema(example = "Acme", min_length = 1, max_length = 100)]
    name: String,
    /// Settings that differ from the defaults.
    #[serde(default)]
    #[schema(schema_with = app_settings_patch, required = false)]
    settings: Map<String, Value>,
}

/// Create an app.
///
/// The app gets two signing keys: the current and the next one. Needs a platform key.
#[utoipa::path(post, path = "/v1/apps", tag = "platform", operation_id = "create_app", request_body = NewApp,
    security(("api_key" = [])),
    responses((status = 201, description = "The app", body = AppBody),
        (status = 409, description = "`app_exists`: the app id is taken"),
        (status = 422, description = "`validation_failed`")))]
async fn create(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    body: Result<Body<NewApp>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.platform(&credentials).await?;
    let Body { value: body, idempotency } = body?;
    let app_id = AppId::parse(body.app_id.as_str())
        .map_err(|error| Problem::invalid("/app_id", field_codes::INVALID, error.to_string()));
    let settings =
        AppSettings::default().patched(&AppSettings::without_nulls(body.settings)).map_err(invalid_settings);
    let ((app_id, name), settings) = both(both(app_id, check_name(&body.name)), settings)?;
    if app_id.is_platform() {
        return Err(Problem::new(problems::APP_EXISTS));
    }
    check_sender(&service.settings.senders, &AppSettings::default(), &settings)?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let keys = service.signing.generate_pair(&app_id, settings.token_algorithm).await?;
    let id = app_id.clone();
    let (reads, app_at) = Reads::one::<App>(&app_id);
    let committed = service
        .run_as(&caller, context, reads, move |work| {
            let (settings, keys) = (Box::new(settings.clone()), keys.clone());
            let command = AppCommand::Create { app_id: id.clone(), name: name.clone(), settings, keys, at };
            work.execute(app_at, command).map_err(refused)?;
            Ok(())
        })
        .await
        .map_err(|error| match error {
            DispatchError::ClaimTaken { .. } => Problem::new(problems::APP_EXISTS),
            other => other.into(),
        })?;
    let app = folded(&committed.events);
    Ok(Done::created(committed.position, AppBody::of(&app_id, &app)))
}

/// The app that these events created: the same at every replay, regardless of later changes.
fn folded(events: &[Event]) -> App {
    let mut app = App::default();
    for event in events {
        if let Event::App(event) = event {
            app.apply(event.clone());
        }
    }
    app
}
