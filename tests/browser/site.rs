//! The web site of an app.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Client;
use serde_json::{Value, json};
use tests::{App, Server};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A site with its app. Its page at `/` has a script that requests a link and exchanges the code, with PKCE; at
/// `/callback` the site itself exchanges the code, and the page has no script; the one at `/cookies` lives on cookies.
pub struct Site<'s> {
    pub app: App<'s>,
    pub origin: String,
    task: JoinHandle<()>,
}

impl<'s> Site<'s> {
    /// Starts a site on its own port, and creates its app with these additional settings.
    pub async fn start(server: &'s Server, mut settings: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let origin = format!("http://{}", listener.local_addr().expect("it is bound"));
        settings["origins"] = json!([origin]);
        settings["redirect_uris"] = json!([format!("{origin}/"), format!("{origin}/callback")]);
        let app = server.create_app(settings).await;
        let pages = Pages { client: server.client().clone(), auth: server.url(&app.path("auth")) };
        Self { app, origin, task: tokio::spawn(serve(listener, pages)) }
    }

    /// The address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Pages {
    client: Client,
    /// The address of the app's routes.
    auth: String,
}

async fn serve(listener: TcpListener, pages: Pages) {
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        let pages = pages.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let pages = pages.clone();
            async move { Ok::<_, Infallible>(pages.answer(&request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Pages {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let page = match (request.uri().path(), request.uri().query()) {
            ("/", _) => include_str!("app.html").replace("{{auth}}", &self.auth),
            ("/cookies", _) => include_str!("cookies.html").replace("{{auth}}", &self.auth),
            ("/callback", Some(query)) => greeting(&self.exchange(query).await),
            (path, _) => panic!("no link leads to {path}"),
        };
        let html =
            Response::builder().status(StatusCode::OK).header("content-type", "text/html; charset=utf-8");
        html.body(page.into()).expect("a response can be built")
    }

    async fn exchange(&self, query: &str) -> Value {
        let code =
            query.split('&').find_map(|pair| pair.strip_prefix("code=")).expect("it comes with a code");
        let call = self.client.post(format!("{}/exchange", self.auth)).json(&json!({ "code": code }));
        let answer = call.send().await.expect("the server answers");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.expect("the server answers with JSON")
    }
}

fn greeting(tokens: &Value) -> String {
    let email = tokens["user"]["email"].as_str().expect("a user is logged in");
    format!(
        "<!doctype html><html lang=\"en\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\"><title>A site</title>\
         <h1>Hello, {email}</h1>"
    )
}
