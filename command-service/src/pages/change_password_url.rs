//! The page to change a password on, at the URL that password managers request ([A well-known URL for changing
//! passwords](https://w3c.github.io/webappsec-change-password-url/)).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::redirect_uri::RedirectUri;
use domain::settings::SentBy;
use http::{StatusCode, header};
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(change_password))
}

/// Get the page to change a password on.
///
/// The page sends a mail with a link. An app on a domain of its own redirects its `/.well-known/change-password` here, or to a
/// page of its own.
#[utoipa::path(get, path = "/v1/apps/{app_id}/.well-known/change-password", tag = "auth",
    operation_id = "get_change_password_page",
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 302, description = "To the page, or to the app's own if it sends its mails itself",
            headers(("Location" = String, description = "The target"))),
        (status = 404, description = "`not_found`: no such app, or one that sends its mails itself and has no page")))]
async fn change_password(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.app(&app_id).await?;
    let settings = &app.state.settings;
    let page = match settings.delivery {
        SentBy::Platform => service.pages(&app.state).path("password-reset"),
        // The mail that our page promises would not be sent.
        SentBy::App => {
            let own = settings.links.password_reset.as_ref().ok_or_else(Problem::not_found)?;
            RedirectUri::as_str(own).to_owned()
        }
    };
    let headers = [(header::LOCATION, page), (header::CACHE_CONTROL, "no-cache".to_owned())];
    Ok((StatusCode::FOUND, headers).into_response())
}
