//! The pages that mails link to, so that a link works before an app has pages of its own.
//!
//! They need no script, and nothing on them may be run or loaded but their own style sheet and the app's logo. Looking at
//! one changes nothing: mail scanners open links, and so only the form on it does something. The token is in the address, so
//! no other site is told the address, and no cache keeps the page.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use domain::app::App;
use domain::branding::{Colour, LogoUrl};
use domain::redirect_uri::{Origin, RedirectUri};
use domain::settings::Delivery;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::page_texts::{Texts, texts};

const STYLE: &str = include_str!("../assets/page.css");
/// Of pages and mails of apps that have none: it goes with white text.
pub(crate) const COLOUR: &str = "#1d4ed8";

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(style)).route("/auth/page.css", axum::routing::get(style))
}

/// The token of a link.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkToken {
    /// What the mail's link carries.
    #[serde(default)]
    #[param(required = false)]
    pub token: String,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    MagicLink,
    EmailVerification,
    EmailChange,
    PasswordReset,
}

impl Purpose {
    /// Below the app's `/auth/`: where the form of the page goes.
    fn action(self) -> &'static str {
        match self {
            Self::MagicLink => "magic-link/verify",
            Self::EmailVerification => "email-verification/confirm",
            Self::EmailChange => "email/change/confirm",
            Self::PasswordReset => "password-reset/confirm",
        }
    }
}

/// Whether a form was sent by a person's browser, which wants a page in return.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsPage(pub bool);

impl<S: Sync> FromRequestParts<S> for AsPage {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let has = |name: HeaderName, text: &str| {
            let mut values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.any(|value| value.to_ascii_lowercase().contains(text))
        };
        let is_form = has(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        Ok(Self(is_form && has(header::ACCEPT, "text/html")))
    }
}

/// The pages of an app.
pub(crate) struct Pages<'a> {
    app: &'a App,
    /// The path of the app's routes, as clients reach it.
    base: String,
    product: String,
    texts: &'static Texts,
}

#[derive(Template)]
#[template(path = "pages/page.html")]
struct PageTemplate<'a> {
    lang: &'static str,
    product: &'a str,
    logo: Option<&'a str>,
    style: String,
    title: &'a str,
    error: Option<&'a str>,
    text: &'a str,
    form: Option<Form<'a>>,
}

struct Form<'a> {
    action: String,
    button: &'static str,
    token: Option<&'a str>,
    field: Option<Field>,
}

struct Field {
    label: &'static str,
    name: &'static str,
    kind: &'static str,
    autocomplete: &'static str,
    hint: String,
    min_length: Option<u32>,
}

/// What stands on a page.
#[derive(Default)]
struct Content<'a> {
    title: &'a str,
    text: &'a str,
    error: Option<&'a str>,
    form: Option<Form<'a>>,
    /// Where the form's answer may send the browser.
    leads_to: Option<&'a RedirectUri>,
}

impl CommandService {
    pub(crate) fn pages<'a>(&self, app: &'a App) -> Pages<'a> {
        let issuer = app.id.as_ref().map(|id| self.access_tokens.issuer(id)).unwrap_or_default();
        // The path alone, so that the page works under whatever name the service was reached.
        let base = Url::parse(&issuer).map_or_else(|_| String::new(), |url| url.path().to_owned());
        Pages { app, base, product: app.product(), texts: texts(app.settings.locale) }
    }
}

impl Pages<'_> {
    /// The page with the button that uses a token. `leads_to` is where a magic link sends the browser.
    pub fn ask(&self, purpose: Purpose, token: &str, leads_to: Option<&RedirectUri>) -> Response {
        let text = self.named(self.texts.of(purpose).ask);
        self.render(StatusCode::OK, Content { text: &text, leads_to, ..self.asking(purpose, token) })
    }

    /// The page after a token was used.
    pub fn done(&self, purpose: Purpose) -> Response {
        let texts = self.texts.of(purpose);
        let text = self.named(texts.done);
        self.render(StatusCode::OK, Content { title: texts.done_title, text: &text, ..Content::default() })
    }

    /// The page after a mail was asked for.
    pub fn sent(&self) -> Response {
        let content = Content { title: self.texts.sent_title, text: self.texts.sent, ..Content::default() };
        self.render(StatusCode::ACCEPTED, content)
    }

    /// The page of a token that is good for nothing, with a way to another.
    pub fn dead(&self, purpose: Purpose, token: &str) -> Response {
        let text = format!("{} {}", self.texts.dead, self.texts.of(purpose).again);
        // Only the app's own server gets new tokens there.
        let asks_itself = self.app.settings.delivery == Delivery::Platform;
        let text = if asks_itself { &text } else { self.texts.dead };
        let form = match purpose {
            _ if !asks_itself => None,
            // The old link says where a new one goes, if it was made here at all.
            Purpose::MagicLink if token.is_empty() => None,
            Purpose::MagicLink => Some(("magic-link/verify/again", Some(token), None)),
            Purpose::EmailVerification => {
                Some(("email-verification/request", None, Some(self.email_field())))
            }
            Purpose::PasswordReset => Some(("password-reset/request", None, Some(self.email_field()))),
            // Only whoever is logged in can ask for it.
            Purpose::EmailChange => None,
        };
        let form = form.map(|(action, token, field)| {
            let action = self.path(action);
            Form { action, button: self.texts.send_again, token, field }
        });
        let content = Content { title: self.texts.dead_title, text, form, ..Content::default() };
        self.render(StatusCode::BAD_REQUEST, content)
    }

    /// The page of a refusal.
    pub fn refused(&self, purpose: Purpose, token: &str, problem: Problem) -> Response {
        let status = problem.status();
        let mut page = match problem.code() {
            "invalid_or_expired_token" => self.dead(purpose, token),
            "weak_password" => {
                let text = self.named(self.texts.of(purpose).ask);
                let error = Some(self.texts.weak_password);
                self.render(status, Content { text: &text, error, ..self.asking(purpose, token) })
            }
            code => {
                let (title, text) = (self.texts.refused_title, self.texts.refusal(code));
                self.render(status, Content { title, text, ..Content::default() })
            }
        };
        // What else goes with the refusal: when to try again, and what the layer around counts.
        let (parts, _) = problem.into_response().into_parts();
        page.extensions_mut().extend(parts.extensions);
        for (name, value) in parts.headers {
            // Its length is that of another body.
            let is_new =
                |name: &HeaderName| *name != header::CONTENT_LENGTH && !page.headers().contains_key(name);
            if let Some(name) = name.filter(is_new) {
                page.headers_mut().append(name, value);
            }
        }
        page
    }

    fn asking<'a>(&self, purpose: Purpose, token: &'a str) -> Content<'a> {
        let texts = self.texts.of(purpose);
        let field = (purpose == Purpose::PasswordReset).then(|| self.password_field());
        let form =
            Form { action: self.path(purpose.action()), button: texts.button, token: Some(token), field };
        Content { title: texts.title, form: Some(form), ..Content::default() }
    }

    fn password_field(&self) -> Field {
        let min_length = self.app.settings.password_min_length;
        Field {
            label: self.texts.password_label,
            name: "new_password",
            kind: "password",
            autocomplete: "new-password",
            hint: self.texts.password_hint.replace("{n}", &min_length.to_string()),
            min_length: Some(min_length),
        }
    }

    fn email_field(&self) -> Field {
        Field {
            label: self.texts.email_label,
            name: "email",
            kind: "email",
            autocomplete: "email",
            hint: self.texts.email_hint.to_owned(),
            min_length: None,
        }
    }

    fn path(&self, action: &str) -> String {
        format!("{}/auth/{action}", self.base)
    }

    fn product(&self) -> &str {
        &self.product
    }

    fn named(&self, text: &str) -> String {
        text.replace("{product}", self.product())
    }

    fn render(&self, status: StatusCode, content: Content<'_>) -> Response {
        let Content { title, text, error, form, leads_to } = content;
        let logo = self.app.settings.branding.logo.as_ref();
        let page = PageTemplate {
            lang: self.app.settings.locale.tag(),
            product: self.product(),
            logo: logo.map(LogoUrl::as_str),
            style: self.path("page.css"),
            title,
            error,
            text,
            form,
        };
        let html = match page.render() {
            Ok(html) => html,
            Err(error) => return Problem::internal(error).into_response(),
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::CONTENT_SECURITY_POLICY, policy(logo, leads_to)),
        ];
        (status, headers, html).into_response()
    }
}

/// No script, nothing inline, and nothing from elsewhere but the logo (CSP Level 3).
fn policy(logo: Option<&LogoUrl>, leads_to: Option<&RedirectUri>) -> HeaderValue {
    // The origin alone, as a source of a policy can have no query.
    let logo = logo.map(LogoUrl::origin);
    let images = logo.as_ref().map_or("'none'", Origin::as_str);
    // Some browsers hold the redirect after a form against this, and every redirect that the app's own page answers with,
    // whose hosts nobody here knows.
    let forms = match leads_to.map(RedirectUri::as_str) {
        None => "'self'",
        Some(uri) if uri.starts_with("https:") => "'self' https:",
        // This machine's, under whatever name: no source of a policy is an IPv6 address.
        Some(_) => "'self' https: http:",
    };
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src {images}; form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("origins are visible ASCII")
}

/// The style sheet of an app's pages, with the app's colour.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/page.css", tag = "pages", operation_id = "page_style",
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "A style sheet", body = String, content_type = "text/css")))]
pub(crate) async fn style(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let colour = app.state.settings.branding.colour.as_ref().map_or(COLOUR, Colour::as_str);
    let css = format!(":root{{--accent:{colour};--on-accent:{}}}\n{STYLE}", text_on(colour));
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, css).into_response())
}

/// Black or white, whichever can be read better on a colour (WCAG 2.2, relative luminance): never below 4.5 to 1.
pub(crate) fn text_on(colour: &str) -> &'static str {
    let channel = |range: std::ops::Range<usize>| {
        let value =
            colour.get(range).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default();
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = 0.2126 * channel(1..3) + 0.7152 * channel(3..5) + 0.0722 * channel(5..7);
    // Where the contrasts to black and to white are equal: (l + 0.05)² = 1.05 · 0.05.
    if luminance > 0.179 { "#000000" } else { "#ffffff" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_be_read_on_every_colour() {
        for (colour, text) in [
            ("#000000", "#ffffff"),
            ("#ffffff", "#000000"),
            (COLOUR, "#ffffff"),
            ("#ffd400", "#000000"),
            ("#767676", "#000000"),
        ] {
            assert_eq!(text_on(colour), text, "{colour}");
        }
    }

    #[test]
    fn a_policy_names_origins_and_nothing_else() {
        let logo = LogoUrl::parse("https://cdn.example/a/logo.png?v=2").expect("valid");
        let uri = RedirectUri::parse("https://app.example/callback").expect("valid");
        let local = RedirectUri::parse("http://localhost:5173/callback").expect("valid");
        let text = |logo, uri| policy(logo, uri).to_str().expect("ASCII").to_owned();
        assert_eq!(
            text(None, None),
            "default-src 'none'; style-src 'self'; img-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        assert!(text(Some(&logo), None).contains("img-src https://cdn.example;"));
        assert!(text(None, Some(&uri)).contains("form-action 'self' https:;"));
        assert!(text(None, Some(&local)).contains("form-action 'self' https: http:;"));
    }
}
