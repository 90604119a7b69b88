//! Changing an app's name and settings.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use dispatcher::{Premise, Reads};
use domain::app::{App, AppCommand};
use domain::{AppSettings, Permission};
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body};
use http_kit::openapi::app_settings_patch;
use http_kit::problem::{Problem, both};
use http_kit::reader::Nulls;
use http_kit::request::RequestContext;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::fields;
use crate::apps::read::{AppBody, answer};
use crate::apps::settings::{
    check_sender, invalid_settings, require_no_link, require_not_of_the_platform, require_weak,
};
use crate::apps::{check_name, refused};

/// How often to retry a change because the app changed meanwhile.
const MAX_LOOKS: usize = 8;

pub(super) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change))
}

/// What to change of an app.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "absent, null and a value are three things")]
pub(crate) struct AppPatch {
    /// A new name.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100)]
    name: Option<Option<String>>,
    /// Settings to change; absent ones stay. `""` removes what a setting may lack. In a merge patch, `null` restores the
    /// default, of all settings if it is `null` itself.
    #[serde(default, deserialize_with = "fields::nullable")]
    #[schema(schema_with = app_settings_patch, required = false)]
    settings: Option<Option<Map<String, Value>>>,
}

/// Change an app.
///
/// Changes its name, its settings or both; absent members stay. For the platform, API keys of the app with `settings:write`,
/// and the app's admins.
///
/// Settings that decide where secrets go or who gets in need the platform or an admin: all except lifetimes of tokens and
/// links (`…_ttl`, `refresh_grace`), `password_min_length`, `locale`, `time_zone`, and the name, colour and logo of `branding`. Only the
/// platform changes `admin_role`.
///
/// A new `token_algorithm` publishes two new signing keys. The first signs in `key_propagation` seconds, once verifiers know it;
/// until then, the current key signs. `GET …/admin/keys` says when. Tokens signed earlier stay valid.
#[utoipa::path(patch, path = "/v1/apps/{app_id}", tag = "platform", operation_id = "change_app",
    request_body(content((AppPatch = "application/json"), (AppPatch = "application/merge-patch+json"))),
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody),
        (status = 403, description = "`forbidden`, also for settings that `settings:write` does not cover; `app_disabled`"),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    nulls: Nulls,
    body: Result<Body<AppPatch>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::SettingsWrite).await?;
    let Body { value: body, .. } = body?;
    let (full_admin, is_platform) = (caller.full_admin, caller.is_platform());
    let patch = match (body.settings, nulls) {
        (None, _) => Map::new(),
        (Some(None), _) => AppSettings::all_to_default(),
        (Some(Some(settings)), Nulls::Remove) => settings,
        (Some(Some(settings)), Nulls::LeftOut) => AppSettings::without_nulls(settings),
    };
    let name = body.name.as_ref().map(|name| check_name(name.as_deref().unwrap_or_default())).transpose();
    for _ in 0..MAX_LOOKS {
        let app = service.authenticator.existing_app(&app_id).await?;
        let wanted = app.state.settings.patched(&patch).map_err(invalid_settings);
        let (name, wanted) = both(name.clone(), wanted)?;
        // Checked before any key is generated; the decision checks again.
        if !is_platform {
            require_not_of_the_platform(&app.state.settings, &wanted)?;
        }
        if !full_admin {
            require_weak(&app.state.settings, &wanted)?;
            require_no_link(&app.state.name, name.as_deref())?;
        }
        check_sender(&service.settings.senders, &app.state.settings, &wanted)?;
        let count = app.state.keys_needed_for(wanted.token_algorithm, service.clock.now());
        let keys = service.signing.generate_some(&app_id, wanted.token_algorithm, count).await?;
        let context = service.context(&request, &app_id, caller.actor.clone(), None);
        let at = context.at;
        let patch = patch.clone();
        let (reads, app_at) = Reads::one::<App>(&app_id);
        let committed = service
            .run_as(&caller, context, reads, move |work| {
                let app = work.get(app_at);
                // Patched again at each try, so that concurrent changes of other settings survive.
                let settings = app.settings.patched(&patch).map_err(invalid_settings)?;
                if !is_platform {
                    require_not_of_the_platform(&app.settings, &settings)?;
                }
                if !full_admin {
                    require_weak(&app.settings, &settings)?;
                    require_no_link(&app.name, name.as_deref())?;
                }
                let needed = app.keys_needed_for(settings.token_algorithm, at);
                // The algorithm changed meanwhile, so the generated keys do not fit.
                if keys.len() < needed || keys.iter().any(|key| key.alg != settings.token_algorithm) {
                    return Ok(Premise::Changed);
                }
                let keys = keys[..needed].to_vec();
                let (name, settings) = (name.clone(), Box::new(settings));
                let command = AppCommand::Change { name, settings, keys, at };
                work.execute(app_at, command).map_err(refused)?;
                Ok(Premise::Held)
            })
            .await
            .map_err(Problem::from)?;
        if !matches!(committed.value, Some(Premise::Changed)) {
            return answer(&service, &app_id, committed.position).await;
        }
    }
    Err(Problem::overloaded("an app's algorithm kept changing"))
}
