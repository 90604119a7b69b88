//! How an operator's command reaches the service: over HTTP to a running server, or directly into the router of an
//! instance opened for this command. Routes, checks and events are the same.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, Response, header};
use http_body::Body as _;
use http_kit::Entrance;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tower::ServiceExt;
use url::Url;

/// How often a copy is asked for while read models are behind, after which pause, and how long it may take.
const COPIES: u32 = 60;
const BETWEEN_COPIES: Duration = Duration::from_secs(1);
const LONGEST_COPY: Duration = Duration::from_hours(1);

const NDJSON: &str = "application/x-ndjson";

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body if it is JSON, otherwise null.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    fn new(status: u16, headers: HeaderMap, text: String) -> Self {
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, json, text }
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The refusal's text for people.
    pub fn refusal(&self) -> String {
        let text = |member: &str| self.json.get(member).and_then(Value::as_str);
        let mut message = match (text("title"), text("detail")) {
            (Some(title), Some(detail)) => format!("{title}: {detail}"),
            (Some(title), None) => title.to_owned(),
            _ => format!("the answer was HTTP status {}", self.status),
        };
        for error in self.json["errors"].as_array().into_iter().flatten() {
            let place = error["pointer"].as_str().or(error["parameter"].as_str());
            if let (Some(place), Some(detail)) = (place, error["detail"].as_str()) {
                let _ = write!(message, "; {place}: {detail}");
            }
        }
        match text("code") {
            Some(code) => format!("{message} ({code})"),
            None => message,
        }
    }
}

/// A client over HTTP.
#[derive(Clone)]
pub struct HttpClient {
    base: Url,
    client: reqwest::Client,
}

impl HttpClient {
    pub fn new(base: Url) -> anyhow::Result<Self> {
        if base.scheme() != "http" {
            bail!(
                "{base} cannot be used: this client supports plain http only. Run the command on the machine of the \
                 server and give its listen address, such as --url http://127.0.0.1:8080"
            );
        }
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            // The key must go only to the named server.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Plain http needs no certificates, and the machine may have none.
            .tls_certs_only([])
            .build()?;
        Ok(Self { base, client })
    }

    /// The URL of a path. The server may be mounted below a prefix.
    fn at(&self, path: &str) -> anyhow::Result<Url> {
        Ok(format!("{}{path}", self.base.as_str().trim_end_matches('/')).parse()?)
    }

    /// A GET request whose answer is streamed, over the same connections.
    pub fn get(&self, path: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        Ok(self.client.get(self.at(path)?))
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&SecretString>,
        headers: &[(&'static str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.client.request(method, self.at(path)?);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer.expose_secret());
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer_to(request).await
    }

    /// Posts NDJSON.
    async fn send_lines(&self, path: &str, bearer: &SecretString, lines: Vec<u8>) -> anyhow::Result<Answer> {
        let request = self.client.post(self.at(path)?).bearer_auth(bearer.expose_secret());
        self.answer_to(request.header(header::CONTENT_TYPE, NDJSON).body(lines)).await
    }

    async fn answer_to(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let response = request
            .send()
            .await
            .with_context(|| format!("no answer from {}. Is the server running?", self.base))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer::new(status, headers, response.text().await.context("the answer broke off")?))
    }
}

/// Where commands are sent, and the key that authorizes them.
pub enum Channel {
    Server { client: HttpClient, key: SecretString },
    Embedded { router: Entrance, key: SecretString },
}

impl Channel {
    /// The items of all pages of a list.
    pub async fn all(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let begins = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}{begins}limit=200{cursor}");
            let mut answer = self.send(Method::GET, &page, None).await?;
            if !answer.is_success() {
                bail!("refused: {}", answer.refusal());
            }
            if let Some(page) = answer.json["items"].as_array_mut() {
                items.append(page);
            }
            let Some(next) = answer.json["next_cursor"].as_str() else { return Ok(items) };
            let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            cursor = format!("&cursor={next}");
        }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        self.send_for("application/json", method, path, body).await
    }

    /// Posts NDJSON.
    pub async fn send_lines(&self, path: &str, lines: Vec<u8>) -> anyhow::Result<Answer> {
        match self {
            Self::Server { client, key } => client.send_lines(path, key, lines).await,
            Self::Embedded { router, key } => {
                let body = Some((NDJSON, Body::from(lines)));
                answer(embedded_with(router, key, "application/json", Method::POST, path, body).await?).await
            }
        }
    }

    /// As [`Channel::send`], for an answer of this media type.
    pub async fn send_for(
        &self,
        accept: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        match self {
            Self::Server { client, key } => {
                client.send(method, path, Some(key), &[("accept", accept.to_owned())], body).await
            }
            Self::Embedded { router, key } => {
                answer(embedded(router, key, accept, method, path, body).await?).await
            }
        }
    }

    /// Writes the body of a GET as it comes. While read models are behind, as those of a folder that was just opened may be,
    /// it is asked for again.
    pub async fn copy(&self, path: &str, to: &mut impl Write) -> anyhow::Result<()> {
        for _ in 0..COPIES {
            let refused = match self {
                Self::Server { client, key } => {
                    let asked = client.get(path)?.timeout(LONGEST_COPY).bearer_auth(key.expose_secret());
                    let mut response = asked.send().await.context("no answer. Is the server running?")?;
                    let (status, headers) = (response.status(), response.headers().clone());
                    if status.is_success() {
                        while let Some(part) = response.chunk().await.context("the answer broke off")? {
                            to.write_all(&part)?;
                        }
                        return Ok(());
                    }
                    Answer::new(status.as_u16(), headers, response.text().await?)
                }
                Self::Embedded { router, key } => {
                    let response = embedded(router, key, "application/json", Method::GET, path, None).await?;
                    if response.status().is_success() {
                        let mut body = response.into_body();
                        while let Some(frame) =
                            poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
                        {
                            if let Ok(part) = frame.context("the answer broke off")?.into_data() {
                                to.write_all(&part)?;
                            }
                        }
                        return Ok(());
                    }
                    answer(response).await?
                }
            };
            if refused.status != 503 {
                bail!("refused: {}", refused.refusal());
            }
            tokio::time::sleep(BETWEEN_COPIES).await;
        }
        bail!("the read models do not catch up with the journal: try again later")
    }
}

/// Sends a request into the router, with a body of JSON.
async fn embedded(
    router: &Entrance,
    key: &SecretString,
    accept: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Response<Body>> {
    let body = body.map(serde_json::to_vec).transpose()?;
    let body = body.map(|body| ("application/json", Body::from(body)));
    embedded_with(router, key, accept, method, path, body).await
}

/// The same with a body of that media type.
async fn embedded_with(
    router: &Entrance,
    key: &SecretString,
    accept: &str,
    method: Method,
    path: &str,
    body: Option<(&str, Body)>,
) -> anyhow::Result<Response<Body>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, accept)
        .header(header::AUTHORIZATION, format!("Bearer {}", key.expose_secret()));
    let body = match body {
        Some((media_type, body)) => {
            request = request.header(header::CONTENT_TYPE, media_type);
            body
        }
        None => Body::empty(),
    };
    let mut request = request.body(body)?;
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 0))));
    Ok(router.clone().oneshot(request).await?)
}

/// The whole answer.
async fn answer(response: Response<Body>) -> anyhow::Result<Answer> {
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.context("the answer broke off")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer::new(parts.status.as_u16(), parts.headers, text))
}
