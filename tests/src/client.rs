use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::{PASSWORD, Server, documented};

pub(crate) fn new() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .no_proxy()
        .tls_certs_only([])
        .build()
        .expect("a client can be built")
}

/// The codes of refusals that are about members, parameters or headers, and name all of them.
const NAMES_PLACES: [&str; 5] =
    ["malformed_request", "validation_failed", "invalid_email", "weak_password", "redirect_uri_not_allowed"];

/// An email address that is unique in this process.
pub fn email(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{name}.{}@example.org", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request, sent by awaiting it.
pub struct Call {
    request: reqwest::RequestBuilder,
}

impl Call {
    pub(crate) fn new(request: reqwest::RequestBuilder) -> Self {
        Self { request }
    }

    /// The same request once more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { request: self.request.try_clone().expect("no body is a stream") }
    }

    /// With this credential.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        Self { request: self.request.bearer_auth(token) }
    }

    /// With this JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body) }
    }

    /// With exactly these bytes.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.header("content-type", content_type).body(body) }
    }

    /// With a form as the body.
    #[must_use]
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        Self { request: self.request.form(fields) }
    }

    /// With this header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value) }
    }

    /// Sends it; after an error it is unknown whether the server carried it out.
    pub async fn attempt(self) -> Result<Answer, reqwest::Error> {
        let (client, request) = self.request.build_split();
        let request = request?;
        let (method, path) = (request.method().to_string(), request.url().path().to_owned());
        let response = client.execute(request).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await?;
        let answer = Answer { status, headers, text };
        if status >= 400 && !answer.is_page() {
            answer.check_problem();
        }
        if status < 300 && method != "HEAD" && answer.header("content-type") == Some("application/json") {
            let differences = documented::differences(&method, &path, status, &answer.json());
            assert!(differences.is_empty(), "{method} {path} {status}: {differences:?}");
        }
        Ok(answer)
    }

    /// Sends it and returns the status, even if it is 500.
    pub async fn status(self) -> u16 {
        self.stream().await.status().as_u16()
    }

    /// Sends it and returns the response, for bodies without an end.
    pub async fn stream(self) -> reqwest::Response {
        self.request.send().await.expect("the server answers")
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.attempt().await.expect("the server answers") })
    }
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Answer {
    /// Fails unless the status is this one.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "the check is useful without the return value")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Whether it is an HTML page.
    pub fn is_page(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/html"))
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("headers are ASCII"))
    }

    /// Fails unless this is a problem with that status and code; returns the document.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.json()["code"].as_str()), (status, Some(code)), "{}", self.text);
        self.json()
    }

    /// The problem document without the members that always differ.
    #[track_caller]
    pub fn anonymous_problem(&self) -> Value {
        let mut problem = self.json();
        problem.as_object_mut().expect("a problem is an object").remove("request_id");
        problem
    }

    /// Checks what holds for every refusal.
    #[track_caller]
    fn check_problem(&self) {
        let status = self.status;
        assert!(status < 500 || status == 503, "{status}: {}", self.text);
        let kind = self.header("content-type").unwrap_or("no content type");
        assert!(kind.starts_with("application/problem+json"), "{status} with {kind}: {}", self.text);
        let problem = self.json();
        let code = problem["code"].as_str().expect("a problem has a code");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(
            problem["type"].as_str().is_some_and(|it| it.ends_with(&format!("/problems/{code}"))),
            "{problem}"
        );
        for member in ["type", "title", "detail", "request_id"] {
            let is_told = problem[member].as_str().is_some_and(|text| !text.trim().is_empty());
            assert!(is_told, "{member} is missing: {problem}");
        }
        assert_eq!(self.header("x-request-id"), problem["request_id"].as_str(), "{problem}");
        if status == 401 {
            let asked_for = self.header("www-authenticate").unwrap_or_default();
            let is_client = problem["error"] == "invalid_client";
            assert!(asked_for.starts_with(if is_client { "Basic " } else { "Bearer" }), "{problem}");
        }
        if status == 429 || code == "overloaded" || code == "unavailable" {
            assert!(self.header("retry-after").is_some_and(|it| it.parse::<u32>().is_ok()), "{problem}");
        }
        if NAMES_PLACES.contains(&code) {
            let errors = problem["errors"]
                .as_array()
                .unwrap_or_else(|| panic!("it says not what is wrong: {problem}"));
            assert!(!errors.is_empty() && errors.len() <= 50, "{problem}");
            for error in errors {
                let is_in = |member: &str| error[member].is_string();
                let has_texts =
                    is_in("code") && error["detail"].as_str().is_some_and(|text| !text.trim().is_empty());
                assert!(has_texts && is_in("pointer") != is_in("parameter"), "{problem}");
            }
        }
    }

    /// The answer's tokens.
    #[track_caller]
    pub fn tokens(&self) -> Tokens {
        Tokens::from(&self.json())
    }

    /// The consistency token of a command that was done.
    #[track_caller]
    pub fn consistency(&self) -> &str {
        self.header("consistency-token").expect("a command answers with a consistency token")
    }
}

/// The result of a login.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
    /// The session.
    pub session: String,
    /// The user's id.
    pub user_id: String,
    /// The user.
    pub user: Value,
}

impl Tokens {
    #[track_caller]
    fn from(body: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no tokens: {body}")).to_owned();
        assert_eq!(body["token_type"], "Bearer");
        assert!(body["expires_in"].as_u64().is_some_and(|seconds| seconds > 0), "{body}");
        let tokens = Self {
            access: text(&body["access_token"]),
            refresh: text(&body["refresh_token"]),
            session: text(&body["session_id"]),
            user_id: text(&body["user"]["id"]),
            user: body["user"].clone(),
        };
        assert!(tokens.refresh.starts_with("wwr_"), "refresh tokens can be told by their prefix");
        tokens
    }
}

/// An app on a server.
#[derive(Clone)]
pub struct App<'a> {
    /// Its server.
    pub server: &'a Server,
    /// Its id.
    pub id: String,
}

impl<'a> App<'a> {
    pub(crate) fn new(server: &'a Server, id: String) -> Self {
        Self { server, id }
    }

    /// A path below the app.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}/{rest}", self.id)
    }

    /// A GET below the app.
    pub fn get(&self, rest: &str) -> Call {
        self.server.get(self.path(rest))
    }

    /// A POST below the app.
    pub fn post(&self, rest: &str) -> Call {
        self.server.post(self.path(rest))
    }

    /// A PUT below the app.
    pub fn put(&self, rest: &str) -> Call {
        self.server.put(self.path(rest))
    }

    /// A PATCH below the app.
    pub fn patch(&self, rest: &str) -> Call {
        self.server.patch(self.path(rest))
    }

    /// A DELETE below the app.
    pub fn delete(&self, rest: &str) -> Call {
        self.server.delete(self.path(rest))
    }

    /// Registers a user with [`PASSWORD`].
    pub async fn register(&self, email: &str) -> Tokens {
        self.post("auth/register")
            .json(&json!({"email": email, "password": PASSWORD}))
            .await
            .expect(201)
            .tokens()
    }

    /// A login.
    pub fn login(&self, email: &str, password: &str) -> Call {
        self.post("auth/login").json(&json!({"email": email, "password": password}))
    }

    /// A refresh.
    pub fn refresh(&self, token: &str) -> Call {
        self.post("auth/refresh").json(&json!({"refresh_token": token}))
    }

    /// `GET /me`.
    pub fn me(&self, access_token: &str) -> Call {
        self.get("auth/me").bearer(access_token)
    }

    /// Creates an API key with these permissions, and returns its id and the key.
    pub async fn api_key(&self, permissions: &[&str]) -> (String, String) {
        let answer = self
            .post("admin/api-keys")
            .bearer(&self.server.platform_key())
            .json(&json!({"name": "A test's key", "permissions": permissions}))
            .await
            .expect(201)
            .json();
        let id = answer["id"].as_str().expect("an API key has an id").to_owned();
        let key = answer["key"].as_str().expect("a new API key is shown once").to_owned();
        assert!(key.starts_with("wwk_"));
        (id, key)
    }

    /// Creates a webhook of these events, and returns its id and its secret.
    pub async fn webhook(&self, url: &str, events: &[&str]) -> (String, String) {
        let answer = self
            .post("admin/webhooks")
            .bearer(&self.server.platform_key())
            .json(&json!({"url": url, "events": events}))
            .await
            .expect(201)
            .json();
        let text = |name: &str| answer[name].as_str().expect("a new webhook has both").to_owned();
        (text("id"), text("secret"))
    }

    /// Verifies an address as the owner of the mailbox would. For that the app briefly delivers mails itself.
    pub async fn verify(&self, email: &str) {
        let key = self.server.platform_key();
        let set = async |settings: Value| {
            let body = json!({ "settings": settings });
            self.server.patch(format!("/v1/apps/{}", self.id)).bearer(&key).json(&body).await.expect(200);
        };
        let app = self.server.get(format!("/v1/apps/{}", self.id)).bearer(&key).await.expect(200).json();
        set(json!({"delivery": "app"})).await;
        let token = self.mailed_token(&key, "email-verification/request", &json!({"email": email})).await;
        self.post("auth/email-verification/confirm").json(&json!({"token": token})).await.expect(200);
        set(json!({"delivery": app["settings"]["delivery"]})).await;
    }

    /// Registers an admin: the platform grants the role, which the next login carries.
    pub async fn register_admin(&self, email: &str) -> Tokens {
        self.register_admin_as(email, "admin").await
    }

    /// The same, in an app that calls its admins so.
    pub async fn register_admin_as(&self, email: &str, role: &str) -> Tokens {
        let user = self.register(email).await;
        self.verify(email).await;
        self.put(&format!("admin/users/{}/roles/{role}", user.user_id))
            .bearer(&self.server.platform_key())
            .await
            .expect_success();
        self.login(email, PASSWORD).await.expect(200).tokens()
    }

    /// Requests a mail as the server of an app that delivers mails itself, and returns its token.
    pub async fn mailed_token(&self, server_key: &str, route: &str, body: &Value) -> String {
        let answer =
            self.post(&format!("auth/{route}")).bearer(server_key).json(body).await.expect(202).json();
        answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Creates an organization as this user, who is its owner.
    pub async fn create_organization(&self, access_token: &str, name: &str) -> Value {
        self.post("orgs").bearer(access_token).json(&json!({"name": name})).await.expect(201).json()
    }

    /// Makes an API key of an organization, and returns it with its text.
    pub async fn organization_key(&self, access_token: &str, org_id: &str, permissions: &[&str]) -> Value {
        let body = json!({"name": "ci", "permissions": permissions});
        let path = format!("orgs/{org_id}/api-keys");
        self.post(&path).bearer(access_token).json(&body).await.expect(201).json()
    }

    /// Bans a user.
    pub async fn ban(&self, user_id: &str) -> Answer {
        self.post(&format!("admin/users/{user_id}/ban"))
            .bearer(&self.server.platform_key())
            .json(&json!({"reason": "a test"}))
            .await
            .expect_success()
    }
}

impl Answer {
    /// Fails unless it was refused for its credential: 401, 403 or 404.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "the check is useful without the return value")]
    pub fn expect_refusal(self) -> Self {
        assert!(matches!(self.status, 401 | 403 | 404), "{}: {}", self.status, self.text);
        self
    }

    /// Fails unless the status is a 2xx.
    #[track_caller]
    #[expect(clippy::return_self_not_must_use, reason = "the check is useful without the return value")]
    pub fn expect_success(self) -> Self {
        assert!((200..300).contains(&self.status), "{}: {}", self.status, self.text);
        self
    }
}

/// The claims of a token, unverified.
pub fn claims_of(token: &str) -> Value {
    part_of(token, 1)
}

/// The header of a token, unverified.
pub fn jwt_header_of(token: &str) -> Value {
    part_of(token, 0)
}

fn part_of(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a JWT has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("a JWT is base64url")).expect("a JWT is JSON")
}
