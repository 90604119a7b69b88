//! The pages that mails link to, so that a link works before an app has pages of its own.
//!
//! They work without scripts, and their policy allows only their own style sheet, one script that shows a password as it is
//! typed, and the app's logo. Opening one changes nothing, because mail scanners open links: only submitting its form does.
//! The token is in the URL, so no referrer is sent and no cache stores the page.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use domain::Email;
use domain::app::App;
use domain::branding::{Locale, LogoUrl, text_on};
use domain::redirect_uri::{Origin, RedirectUri};
use domain::settings::SentBy;
use domain::user::User;
use effects::mailer::account_made;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_kit::accept;
use http_kit::extract::AppScope;
use http_kit::problem::Problem;
use schemas::problems;
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::CommandService;
use crate::api::fields;
use crate::pages::language::preferred;
use crate::pages::script::{SCRIPT, SOURCE};
use crate::pages::texts::{Texts, texts};

const STYLE: &str = include_str!("../../assets/page.css");

pub(crate) fn routes() -> OpenApiRouter<Arc<CommandService>> {
    OpenApiRouter::new().routes(routes!(style))
}

/// The token in a link.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkToken {
    /// The token in the mail's link.
    #[serde(default)]
    #[param(required = false)]
    pub token: String,
}

/// The purpose of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    MagicLink,
    EmailVerification,
    Disown,
    EmailChange,
    PasswordReset,
    Invitation,
}

impl Purpose {
    /// Below the app's `/auth/`: where the form of the page goes.
    fn action(self) -> &'static str {
        match self {
            Self::MagicLink => "magic-link/verify",
            Self::EmailVerification => "email-verification/confirm",
            Self::Disown => "email-verification/disown",
            Self::EmailChange => "email/change/confirm",
            Self::PasswordReset => "password-reset/confirm",
            Self::Invitation => "invitations/accept",
        }
    }
}

/// Whether a form was sent by a person's browser, which wants a page in return, and in which language.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsPage {
    pub is_form: bool,
    language: Locale,
}

impl<S: Sync> FromRequestParts<S> for AsPage {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        let is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        // A client that accepts neither gets JSON: the form's action is carried out in any case.
        let page = accept::preferred(&parts.headers, &[("application/json", false), ("text/html", true)]);
        Ok(Self { is_form: is_form && page.unwrap_or(false), language: preferred(&parts.headers) })
    }
}

/// The pages of an app.
pub(crate) struct Pages<'a> {
    app: &'a App,
    /// The path of the app's routes as clients see it.
    base: String,
    product: String,
    /// The address of the account that the page is about.
    account: Option<String>,
    locale: Locale,
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
    account: Option<&'a str>,
    /// The same as a form field for password managers.
    username: Option<&'a str>,
    /// What the person should know before choosing.
    note: Option<&'a str>,
    form: Option<Form<'a>>,
    /// An alternative action.
    other: Option<Form<'a>>,
    back: Option<Back>,
}

/// The link back to the app.
struct Back {
    href: String,
    text: String,
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
    /// The button that shows the typed password, and its script.
    show: Option<Show>,
}

struct Show {
    label: &'static str,
    script: &'static str,
}

/// The content of a page.
#[derive(Default)]
struct Content<'a> {
    title: &'a str,
    text: &'a str,
    error: Option<&'a str>,
    account: Option<String>,
    note: Option<&'a str>,
    form: Option<Form<'a>>,
    other: Option<Form<'a>>,
    /// Where the answer to the form may redirect the browser.
    leads_to: Option<&'a RedirectUri>,
}

impl CommandService {
    pub(crate) fn pages<'a>(&self, app: &'a App) -> Pages<'a> {
        let issuer = app.id.as_ref().map(|id| self.access_tokens.issuer(id)).unwrap_or_default();
        // Only the path, so that the page works under any host name.
        let base = Url::parse(&issuer).map_or_else(|_| String::new(), |url| url.path().to_owned());
        let locale = app.settings.locale.fixed().unwrap_or_default();
        Pages { app, base, product: app.product(), account: None, locale, texts: texts(locale) }
    }
}

impl Pages<'_> {
    /// Uses the reader's language, unless the app has chosen one.
    pub fn read_by(mut self, reader: AsPage) -> Self {
        self.locale = self.app.settings.locale.fixed().unwrap_or(reader.language);
        self.texts = texts(self.locale);
        self
    }

    /// Shows the account's address; for readers who have proven control of the mailbox.
    pub fn about(mut self, email: Option<&Email>) -> Self {
        self.account = email.map(|email| email.as_str().to_owned());
        self
    }

    /// The page with the button that uses a token. `leads_to` is a magic link's redirect target.
    pub fn ask(&self, purpose: Purpose, token: &str, leads_to: Option<&RedirectUri>) -> Response {
        let text = self.named(self.texts.of(purpose).ask);
        self.render(StatusCode::OK, Content { text: &text, leads_to, ..self.asking(purpose, token) })
    }

    /// The same for a user who may not have made the account: it shows when and from where the account was made, and
    /// offers to erase it.
    pub fn ask_of(&self, purpose: Purpose, token: &str, user: &User) -> Response {
        let text = self.named(self.texts.of(purpose).ask);
        let note = account_made(self.locale, user.created_at, user.made_from.as_deref());
        let texts = self.texts.of(Purpose::Disown);
        let (action, token_of_it) = (self.path(Purpose::Disown.action()), Some(token));
        let disown = Form { action, button: texts.title, token: token_of_it, field: None };
        let other = (purpose != Purpose::Disown).then_some(disown);
        let content = Content { text: &text, note: Some(&note), other, ..self.asking(purpose, token) };
        self.render(StatusCode::OK, content)
    }

    /// The page for a reader who has to do the rest in the app, after a login.
    pub fn tell(&self, purpose: Purpose) -> Response {
        let texts = self.texts.of(purpose);
        let text = self.named(texts.ask);
        self.render(StatusCode::OK, Content { title: texts.title, text: &text, ..Content::default() })
    }

    /// The page after a token was used.
    pub fn done(&self, purpose: Purpose) -> Response {
        let texts = self.texts.of(purpose);
        let text = self.named(texts.done);
        self.render(StatusCode::OK, Content { title: texts.done_title, text: &text, ..Content::default() })
    }

    /// The page for a verification link that was already used.
    pub fn already_verified(&self) -> Response {
        let text = self.named(self.texts.already);
        self.render(
            StatusCode::OK,
            Content { title: self.texts.already_title, text: &text, ..Content::default() },
        )
    }

    /// The page to request a mail on, for a person without a link who wants a new password.
    pub fn request(&self, purpose: Purpose) -> Response {
        let text = self.named(self.texts.request);
        let action = self.path("password-reset/request");
        let form =
            Form { action, button: self.texts.request_button, token: None, field: Some(self.email_field()) };
        let title = self.texts.of(purpose).title;
        self.render(StatusCode::OK, Content { title, text: &text, form: Some(form), ..Content::default() })
    }

    /// Whether mails requested on a page are sent.
    pub fn sends_mail(&self) -> bool {
        self.app.settings.delivery == SentBy::Platform
    }

    /// The page after a mail was requested.
    pub fn sent(&self) -> Response {
        let content = Content { title: self.texts.sent_title, text: self.texts.sent, ..Content::default() };
        self.render(StatusCode::ACCEPTED, content)
    }

    /// The page for an invalid or expired token, with a way to request a new one.
    pub fn dead(&self, purpose: Purpose, token: &str) -> Response {
        // If the app sends its mails itself, only its server gets new tokens.
        let asks_itself = self.sends_mail();
        let is_unknown = token.is_empty();
        let again = match purpose {
            // An incompletely copied link reveals neither its account nor its destination.
            Purpose::MagicLink if is_unknown && self.app.settings.redirect_uris.is_empty() => "",
            Purpose::MagicLink if is_unknown => self.texts.of(Purpose::PasswordReset).again,
            _ => self.texts.of(purpose).again,
        };
        let text =
            if asks_itself { format!("{} {again}", self.texts.dead) } else { self.texts.dead.to_owned() };
        let form = match purpose {
            _ if !asks_itself => None,
            Purpose::MagicLink if is_unknown => {
                let leads_somewhere = !self.app.settings.redirect_uris.is_empty();
                leads_somewhere.then(|| ("magic-link/verify/again", None, Some(self.email_field())))
            }
            // The old link determines the destination of the new one.
            Purpose::MagicLink => Some(("magic-link/verify/again", Some(token), None)),
            Purpose::EmailVerification => {
                Some(("email-verification/request", None, Some(self.email_field())))
            }
            Purpose::PasswordReset => Some(("password-reset/request", None, Some(self.email_field()))),
            // The first needs a login to be requested again; the second is of no use to a person without an account.
            Purpose::EmailChange | Purpose::Disown | Purpose::Invitation => None,
        };
        let form = form.map(|(action, token, field)| {
            let action = self.path(action);
            Form { action, button: self.texts.send_again, token, field }
        });
        let content =
            Content { title: self.texts.dead_title, text: text.trim_end(), form, ..Content::default() };
        self.render(StatusCode::BAD_REQUEST, content)
    }

    /// The page of a refusal.
    pub fn refused(&self, purpose: Purpose, token: &str, problem: Problem) -> Response {
        let status = problem.status();
        let mut page = match problem.kind() {
            problems::INVALID_OR_EXPIRED_TOKEN => self.dead(purpose, token),
            problems::WEAK_PASSWORD => {
                let text = self.named(self.texts.of(purpose).ask);
                let n = self.app.settings.password_min_length.to_string();
                let reason = problem.told(fields::REASON).and_then(Value::as_str).unwrap_or_default();
                let error = self.texts.weak_password(reason).replace("{n}", &n);
                let error = Some(error.as_str());
                self.render(status, Content { text: &text, error, ..self.asking(purpose, token) })
            }
            kind => {
                let (title, text) = (self.texts.refused_title, self.texts.refusal(kind));
                self.render(status, Content { title, text, ..Content::default() })
            }
        };
        // Headers of the refusal: when to try again, and what the surrounding layer counts.
        let (parts, _) = problem.into_response().into_parts();
        page.extensions_mut().extend(parts.extensions);
        for (name, value) in parts.headers {
            // Its length belongs to another body.
            let is_new =
                |name: &HeaderName| *name != header::CONTENT_LENGTH && !page.headers().contains_key(name);
            if let Some(name) = name.filter(is_new) {
                page.headers_mut().append(name, value);
            }
        }
        page
    }

    fn asking<'a>(&'a self, purpose: Purpose, token: &'a str) -> Content<'a> {
        let texts = self.texts.of(purpose);
        let field = (purpose == Purpose::PasswordReset).then(|| self.password_field());
        let form =
            Form { action: self.path(purpose.action()), button: texts.button, token: Some(token), field };
        let label = if purpose == Purpose::EmailChange { self.texts.address } else { self.texts.account };
        let account = self.account.as_deref().map(|account| label.replace("{email}", account));
        Content { title: texts.title, account, form: Some(form), ..Content::default() }
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
            show: Some(Show { label: self.texts.show_password, script: SCRIPT }),
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
            show: None,
        }
    }

    pub fn path(&self, action: &str) -> String {
        format!("{}/auth/{action}", self.base)
    }

    fn product(&self) -> &str {
        &self.product
    }

    fn named(&self, text: &str) -> String {
        text.replace("{product}", self.product())
    }

    /// The app's location according to its settings: its first web origin, or its first redirect URI.
    fn back(&self) -> Option<Back> {
        let settings = &self.app.settings;
        let home = settings.origins.first().cloned();
        let home = home.or_else(|| settings.redirect_uris.first().map(RedirectUri::origin))?;
        Some(Back { href: format!("{}/", home.as_str()), text: self.named(self.texts.back) })
    }

    fn render(&self, status: StatusCode, content: Content<'_>) -> Response {
        let Content { title, text, error, account, note, form, other, leads_to } = content;
        let logo = self.app.settings.branding.logo.as_ref();
        let runs_script =
            form.as_ref().and_then(|form| form.field.as_ref()).is_some_and(|field| field.show.is_some());
        let asks = status == StatusCode::OK && form.is_some();
        let page = PageTemplate {
            lang: self.locale.tag(),
            product: self.product(),
            logo: logo.map(LogoUrl::as_str),
            style: self.path("page.css"),
            title,
            error,
            text,
            account: account.as_deref(),
            username: self.account.as_deref(),
            // A page with a question shows no link back.
            back: if asks { None } else { self.back() },
            note,
            form,
            other,
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
            (header::CONTENT_SECURITY_POLICY, policy(logo, leads_to, runs_script)),
        ];
        (status, headers, html).into_response()
    }
}

/// Allows only the pages' own script, nothing inline, and nothing external except the logo (CSP Level 3).
fn policy(logo: Option<&LogoUrl>, leads_to: Option<&RedirectUri>, runs_script: bool) -> HeaderValue {
    let scripts = if runs_script { format!(" script-src {};", *SOURCE) } else { String::new() };
    // Only the origin, because a source expression cannot have a query.
    let logo = logo.map(LogoUrl::origin);
    let images = logo.as_ref().map_or("'none'", Origin::as_str);
    // Some browsers apply `form-action` to the redirect after a form, and to every further redirect by the app's own
    // page, whose hosts are unknown here.
    let forms = match leads_to.map(RedirectUri::as_str) {
        None => "'self'",
        Some(uri) if uri.starts_with("https:") => "'self' https:",
        // The local machine under any name: a source expression cannot be an IPv6 address.
        Some(_) => "'self' https: http:",
    };
    let policy = format!(
        "default-src 'none';{scripts} style-src 'self'; img-src {images}; form-action {forms}; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("origins are visible ASCII")
}

/// Get the style sheet of an app's pages.
///
/// It uses the colour of the app's `branding`.
#[utoipa::path(get, path = "/v1/apps/{app_id}/auth/page.css", tag = "auth", operation_id = "get_page_style",
    params(("app_id" = String, Path, description = "The app")),
    responses((status = 200, description = "A style sheet", body = String, content_type = "text/css")))]
pub(crate) async fn style(
    State(service): State<Arc<CommandService>>,
    AppScope(app_id): AppScope,
) -> Result<Response, Problem> {
    let app = service.authenticator.existing_app(&app_id).await?;
    let colour = app.state.settings.branding.accent();
    let css = format!(":root{{--accent:{colour};--on-accent:{}}}\n{STYLE}", text_on(colour));
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, css).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_origins_and_nothing_else() {
        let logo = LogoUrl::parse("https://cdn.example/a/logo.png?v=2").expect("valid");
        let uri = RedirectUri::parse("https://app.example/callback").expect("valid");
        let local = RedirectUri::parse("http://localhost:5173/callback").expect("valid");
        let text = |logo, uri| policy(logo, uri, false).to_str().expect("ASCII").to_owned();
        assert_eq!(
            text(None, None),
            "default-src 'none'; style-src 'self'; img-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        assert!(text(Some(&logo), None).contains("img-src https://cdn.example;"));
        assert!(text(None, Some(&uri)).contains("form-action 'self' https:;"));
        assert!(text(None, Some(&local)).contains("form-action 'self' https: http:;"));
    }
}
