//! Apps: made, read, changed, stopped and started again by the platform.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use cqrs_es::Aggregate;
use domain::app::{App, AppCommand, AppError};
use domain::claims::ClaimKind;
use domain::setting_kinds::{has_a_link, strong_changes};
use domain::settings::{InvalidSetting, WhatIsWrong};
use domain::signing_key::PublicJwk;
use domain::text::{Lines, readable};
use domain::{AppId, AppSettings, Event, Permission, Timestamp};
use effects::senders::Senders;
use http_kit::cookies::Credentials;
use http_kit::extract::{AppScope, Body, NoBody, Params};
use http_kit::openapi::{app_settings, app_settings_patch};
use http_kit::problem::Problem;
use http_kit::request::RequestContext;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::answers::Done;
use crate::api::pagination::{Page, PageParams};
use dispatcher::{DispatchError, Read};

/// The claims that make apps listable: the journal is the list, no projection needed.
pub const CLAIM: &str = ClaimKind::App.as_str();

const MAX_NAME: usize = 100;
/// How often a change is looked at anew because the app changed meanwhile.
const MAX_LOOKS: usize = 8;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, change))
        .routes(routes!(disable))
        .routes(routes!(enable))
}

/// A new app.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApp {
    /// `[a-z0-9](-?[a-z0-9])*`, 1 to 40 characters.
    #[schema(example = "acme", min_length = 1, max_length = 40, pattern = "^[a-z0-9](-?[a-z0-9])*$")]
    app_id: String,
    /// What people call it.
    #[schema(example = "Acme", min_length = 1, max_length = 100)]
    name: String,
    /// What differs from the defaults.
    #[serde(default)]
    #[schema(schema_with = app_settings_patch, required = false)]
    settings: Map<String, Value>,
}

/// What to change of an app.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppPatch {
    /// A new name.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// Settings to change (RFC 7396): `null` brings back a default, what is not named stays.
    #[serde(default)]
    #[schema(schema_with = app_settings_patch, required = false)]
    settings: Map<String, Value>,
}

/// An app.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppBody {
    /// Its id.
    #[schema(value_type = String, example = "acme")]
    app_id: AppId,
    /// What people call it.
    name: String,
    /// All of its settings.
    #[schema(schema_with = app_settings)]
    settings: AppSettings,
    /// Whether it is stopped.
    disabled: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl AppBody {
    fn of(app_id: &AppId, app: &App) -> Self {
        Self {
            app_id: app_id.clone(),
            name: app.name.clone(),
            settings: app.settings.clone(),
            disabled: app.disabled,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// Make an app. For the platform only.
///
/// The app gets two signing keys: one that signs from now on, and the one after it.
#[utoipa::path(post, path = "/v1/apps", tag = "apps", operation_id = "create_app", request_body = NewApp,
    security(("api_key" = [])),
    responses((status = 201, description = "The app", body = AppBody),
        (status = 409, description = "`app_exists`: there is an app of this id"),
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
        .map_err(|error| Problem::invalid("/app_id", "invalid", error.to_string()))?;
    if app_id.is_platform() {
        return Err(Problem::new("app_exists"));
    }
    let name = check_name(&body.name)?;
    let settings = AppSettings::default().patched(&body.settings).map_err(invalid_setting)?;
    check_sender(&service.settings.senders, &AppSettings::default(), &settings)?;
    let context = service.context(&request, &app_id, caller.actor.clone(), idempotency);
    let at = context.at;
    let keys = service.signing.generate_pair(&app_id, settings.token_algorithm).await?;
    let id = app_id.clone();
    let committed = service
        .run_as(&caller, context, vec![Read::of::<App>(&app_id)], move |work| {
            let (settings, keys) = (Box::new(settings.clone()), keys.clone());
            let command = AppCommand::Create { app_id: id.clone(), name: name.clone(), settings, keys, at };
            work.execute::<App>(&id, command).map_err(refused)?;
            Ok(())
        })
        .await
        .map_err(|error| match error {
            DispatchError::ClaimTaken { .. } => Problem::new("app_exists"),
            other => other.into(),
        })?;
    let app = folded(&committed.events);
    Ok(Done::created(committed.position, AppBody::of(&app_id, &app)))
}

/// All apps. For the platform only.
#[utoipa::path(get, path = "/v1/apps", tag = "apps", operation_id = "list_apps", params(PageParams),
    security(("api_key" = [])),
    responses((status = 200, description = "The apps, by their ids", body = Page<AppBody>)))]
async fn list(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    Params(page): Params<PageParams>,
) -> Result<Response, Problem> {
    service.authenticator.platform(&credentials).await?;
    let claims = service.repository.journal().claims(CLAIM, "").await?;
    let ids = claims.into_iter().filter_map(|(claim, _)| AppId::parse(claim.key).ok());
    let mut ids = ids.filter(|id| !id.is_platform()).collect::<Vec<_>>();
    ids.sort();
    let page = page.of(ids)?;
    let mut items = Vec::with_capacity(page.items.len());
    for id in &page.items {
        let app = service.repository.load::<App>(id).await?;
        // A claim alone makes no app: whoever can write to the store can make one.
        if app.state.id.is_some() {
            items.push(AppBody::of(id, &app.state));
        }
    }
    Ok(Done::read(page.with(items)))
}

/// One app: for the platform, any API key of the app, and its admins.
#[utoipa::path(get, path = "/v1/apps/{app_id}", tag = "apps", operation_id = "get_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The app", body = AppBody)))]
async fn read(
    State(service): State<Arc<CommandService>>,
    credentials: Credentials,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    service.authenticator.any_admin(&app_id, &credentials).await?;
    let app = service.authenticator.existing_app(&app_id).await?;
    Ok(Done::read(AppBody::of(&app_id, &app.state)))
}

/// Change an app's name or settings: for the platform, API keys of the app with `settings:write`, and its admins.
///
/// Settings that decide where secrets go or who gets in need the platform or an admin: all but the lives of tokens and links
/// (`…_ttl`, `refresh_grace`), `password_min_length`, `locale`, and the name, colour and logo of `branding`.
///
/// A new `token_algorithm` makes two new signing keys at once; tokens signed so far stay valid, unless it changes more than
/// three times within a day.
#[utoipa::path(patch, path = "/v1/apps/{app_id}", tag = "apps", operation_id = "change_app", request_body = AppPatch,
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = []), ("user" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody),
        (status = 403, description = "`forbidden`, also for settings that `settings:write` is not enough for; `app_disabled`"),
        (status = 422, description = "`validation_failed`")))]
async fn change(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<Body<AppPatch>, Problem>,
) -> Result<Response, Problem> {
    let caller = service.authenticator.admin(&app_id, &credentials, Permission::SettingsWrite).await?;
    let Body { value: body, .. } = body?;
    let name = body.name.as_deref().map(check_name).transpose()?;
    for _ in 0..MAX_LOOKS {
        let app = service.authenticator.existing_app(&app_id).await?;
        let wanted = app.state.settings.patched(&body.settings).map_err(invalid_setting)?;
        // Before anything is made for it; the decision asks again.
        if !caller.full_admin {
            require_weak(&app.state.settings, &wanted)?;
            require_no_link(&app.state.name, name.as_deref())?;
        }
        check_sender(&service.settings.senders, &app.state.settings, &wanted)?;
        let keys = if app.state.needs_keys_for(wanted.token_algorithm) {
            Some(service.signing.generate_pair(&app_id, wanted.token_algorithm).await?)
        } else {
            None
        };
        let context = service.context(&request, &app_id, caller.actor.clone(), None);
        let at = context.at;
        let (id, name, patch) = (app_id.clone(), name.clone(), body.settings.clone());
        let full_admin = caller.full_admin;
        let committed = service
            .run_as(&caller, context, vec![Read::of::<App>(&app_id)], move |work| {
                let app = work.get::<App>(&id);
                // Patched anew at each try: what another request changed meanwhile stays.
                let settings = app.settings.patched(&patch).map_err(invalid_setting)?;
                if !full_admin {
                    require_weak(&app.settings, &settings)?;
                    require_no_link(&app.name, name.as_deref())?;
                }
                let Some(keys) = keys_for(app, &settings, keys.as_deref()) else { return Ok(Look::Again) };
                let (name, settings) = (name.clone(), Box::new(settings));
                let command = AppCommand::Change { name, settings, keys, at };
                work.execute::<App>(&id, command).map_err(refused)?;
                Ok(Look::Done)
            })
            .await
            .map_err(Problem::from)?;
        if !matches!(committed.value, Some(Look::Again)) {
            return answer(&service, &app_id, committed.position).await;
        }
    }
    Err(Problem::overloaded("an app's algorithm kept changing"))
}

/// 403 if anything changes that decides where secrets go or who gets in.
fn require_weak(before: &AppSettings, after: &AppSettings) -> Result<(), Problem> {
    let strong = strong_changes(before, after);
    if strong.is_empty() {
        return Ok(());
    }
    let detail = format!("only the platform and admins change {}", strong.join(", "));
    Err(Problem::forbidden().detail(detail))
}

/// 403 for another name that mails would show as a link: without a branding, the app's name stands in each of them.
fn require_no_link(before: &str, name: Option<&str>) -> Result<(), Problem> {
    if name.is_some_and(|name| name != before && has_a_link(name)) {
        let detail = "only the platform and admins give a name with something that mails show as a link";
        return Err(Problem::forbidden().detail(detail));
    }
    Ok(())
}

/// Whether what was looked up before a decision still held at it.
pub(crate) enum Look {
    Done,
    Again,
}

/// The keys that go with these settings, if any must. `None`: others than those that were made are needed, since
/// somebody changed the algorithm meanwhile.
#[expect(clippy::option_option, reason = "whether it can be told, and what it is")]
fn keys_for(
    app: &App,
    settings: &AppSettings,
    made: Option<&[PublicJwk; 2]>,
) -> Option<Option<Box<[PublicJwk; 2]>>> {
    if !app.needs_keys_for(settings.token_algorithm) {
        return Some(None);
    }
    made.filter(|keys| keys[0].alg == settings.token_algorithm).map(|keys| Some(Box::new(keys.clone())))
}

/// Stop an app: its logins, tokens and API keys. For the platform only.
#[utoipa::path(post, path = "/v1/apps/{app_id}/disable", tag = "apps", operation_id = "disable_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody)))]
async fn disable(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    switch(&service, &request, &credentials, app_id, body, |at| AppCommand::Disable { at }).await
}

/// Start a stopped app again. For the platform only.
#[utoipa::path(post, path = "/v1/apps/{app_id}/enable", tag = "apps", operation_id = "enable_app",
    params(("app_id" = String, Path, description = "The app")),
    security(("api_key" = [])),
    responses((status = 200, description = "The app as it is now", body = AppBody)))]
async fn enable(
    State(service): State<Arc<CommandService>>,
    request: RequestContext,
    credentials: Credentials,
    AppScope(app_id): AppScope,
    body: Result<NoBody, Problem>,
) -> Result<Response, Problem> {
    switch(&service, &request, &credentials, app_id, body, |at| AppCommand::Enable { at }).await
}

async fn switch(
    service: &CommandService,
    request: &RequestContext,
    credentials: &Credentials,
    app_id: AppId,
    body: Result<NoBody, Problem>,
    command: impl Fn(Timestamp) -> AppCommand + Send + 'static,
) -> Result<Response, Problem> {
    let caller = service.authenticator.platform(credentials).await?;
    service.authenticator.existing_app(&app_id).await?;
    let NoBody { idempotency } = body?;
    let context = service.context(request, &app_id, caller.actor.clone(), idempotency);
    let (at, id) = (context.at, app_id.clone());
    let committed = service
        .run_as(&caller, context, vec![Read::of::<App>(&app_id)], move |work| {
            work.execute::<App>(&id, command(at)).map_err(refused)
        })
        .await
        .map_err(Problem::from)?;
    answer(service, &app_id, committed.position).await
}

async fn answer(service: &CommandService, app_id: &AppId, position: u64) -> Result<Response, Problem> {
    let app = service.repository.load::<App>(app_id).await?;
    Ok(Done::ok(position, AppBody::of(app_id, &app.state)))
}

/// The app that these events made: the same at every replay, whatever happened to it since.
fn folded(events: &[Event]) -> App {
    let mut app = App::default();
    for event in events {
        if let Event::App(event) = event {
            app.apply(event.clone());
        }
    }
    app
}

/// A name for something that is no person.
pub(crate) fn check_name(name: &str) -> Result<String, Problem> {
    let name = readable(name, MAX_NAME, Lines::One);
    let name = name.map_err(|error| Problem::invalid("/name", "invalid", error.to_string()))?;
    Ok(name.to_owned())
}

fn invalid_setting(error: InvalidSetting) -> Problem {
    let InvalidSetting { what, pointer, detail } = error;
    match what {
        WhatIsWrong::Shape => Problem::malformed(format!("/settings{pointer}: {detail}")),
        WhatIsWrong::Value => Problem::invalid(format!("/settings{pointer}"), "invalid", detail),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` gives")]
pub(crate) fn refused(error: AppError) -> Problem {
    match error {
        AppError::Exists => Problem::new("app_exists"),
        AppError::Absent | AppError::NoSuchKey => Problem::not_found(),
        AppError::Permissions => Problem::invalid("/permissions", "invalid", error.to_string()),
        AppError::TooManyKeys => Problem::new("too_many_api_keys"),
    }
}

/// Refuses settings with a sender that may not be one. What was set under another list stays until it is changed: its mails
/// come from the instance's own sender, and answers go to it.
fn check_sender(senders: &Senders, before: &AppSettings, after: &AppSettings) -> Result<(), Problem> {
    match &after.branding.sender {
        Some(sender) if before.branding.sender.as_ref() != Some(sender) && !senders.allow(sender) => {
            let detail = "mails may not come from this domain: whoever runs this instance lists it in \
                          mail.sender_domains first";
            Err(Problem::invalid("/settings/branding/sender", "invalid", detail))
        }
        _ => Ok(()),
    }
}
