use axum::Json;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use domain::AppSettings;
use domain::signing_key::TokenAlgorithm;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use ipnet::IpNet;
use schemas::field_codes;
use schemas::problems;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use super::*;
use crate::entrance::{Entrance, around};
use crate::extract::{AppScope, Body, FormOrJson, NoBody, OptionalBody, Params, Segments};
use crate::forwarded::{X_FORWARDED_FOR, client_address};
use crate::limits::{Rate, RateClass, RateLimits, RateSettings};
use crate::problem::{PROBLEM_JSON, has_written};
use crate::request::RequestContext;

use tokens::testing::Signer;

use crate::testing::World;

#[path = "around_tests/bodies.rs"]
mod bodies;
#[path = "around_tests/compressed.rs"]
mod compressed;
#[path = "around_tests/overdue.rs"]
mod overdue;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    #[serde(default)]
    size: u32,
    #[serde(default)]
    extra: Option<Value>,
}

async fn make(body: Body<Thing>) -> Json<Value> {
    let Thing { name, size, extra } = body.value;
    let idempotency = body.idempotency.map(|idempotency| [idempotency.key, idempotency.fingerprint]);
    Json(json!({ "name": name, "size": size, "extra": extra, "idempotency": idempotency }))
}

async fn whoami(context: RequestContext) -> Json<Value> {
    Json(json!({ "ip": context.client.ip, "agent": context.client.user_agent, "trace": context.traceparent }))
}

async fn panics() {
    panic!("on purpose");
}

fn routes() -> Router {
    Router::new()
        .route("/v1/apps/{app_id}/things", post(make).patch(make).get(whoami))
        .route("/v1/apps/{app_id}/scope", get(async |scope: AppScope| scope.0.to_string()))
        .route("/v1/apps/{app_id}/auth/scope", get(async |scope: AppScope| scope.0.to_string()))
        .route("/nobody", post(async |_: NoBody| StatusCode::NO_CONTENT))
        .route("/optional", post(async |body: OptionalBody<Thing>| Json(body.value.map(|thing| thing.name))))
        .route("/form", post(async |body: FormOrJson<Thing>| body.value.name))
        .route("/query", get(async |Params(thing): Params<Thing>| thing.name))
        .route("/number/{n}", get(async |Segments(n): Segments<u32>| n.to_string()))
        .route("/axum/{n}", get(async |axum::extract::Path(n): axum::extract::Path<u32>| n.to_string()))
        .route("/axum", post(async |Json(thing): Json<Thing>| thing.name))
        .route("/panic", get(panics))
        .route("/put-off", get(async || Problem::overloaded("a test")))
        .route(
            "/written",
            get(async || {
                has_written();
                Problem::overloaded("a test")
            }),
        )
        .route("/unavailable", get(async || StatusCode::SERVICE_UNAVAILABLE))
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The status, and the code if it is a well-formed problem.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers[header::CONTENT_TYPE], PROBLEM_JSON);
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert_eq!(json["request_id"], self.headers["x-request-id"].to_str().expect("ASCII"));
        assert_eq!(self.headers.contains_key(header::WWW_AUTHENTICATE), self.status == 401);
        for member in ["type", "title", "detail", "code", "request_id"] {
            assert!(json[member].as_str().is_some_and(|text| !text.trim().is_empty()), "{member}: {json}");
        }
        (self.status, json["code"].as_str().expect("a code").to_owned())
    }
}

async fn send(router: &Entrance, request: http::request::Builder, body: impl Into<HttpBody>) -> Answer {
    let request = request.body(body.into()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn router() -> (World, Entrance) {
    let world = World::new().await;
    let router = around(routes(), world.edge(&[]));
    (world, router)
}

fn post_to(path: &str) -> http::request::Builder {
    Request::post(path).header("content-type", "application/json")
}

const THINGS: &str = "/v1/apps/acme/things";

#[tokio::test]
async fn every_failure_is_a_problem() {
    let (_world, router) = router().await;
    let answer = send(&router, Request::delete(THINGS), "").await;
    assert_eq!(answer.problem(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.headers[header::ALLOW], "POST,PATCH,GET,HEAD");
    assert_eq!(send(&router, Request::get("/panic"), "").await.problem(), (500, "internal".to_owned()));
    assert_eq!(
        send(&router, Request::get("/unavailable"), "").await.problem(),
        (503, "overloaded".to_owned())
    );
    assert_eq!(send(&router, Request::get("/axum/x"), "").await.problem().0, 400);
    assert_eq!(send(&router, Request::post("/axum"), "x").await.problem().0, 415);
    assert_eq!(send(&router, post_to("/axum"), "x").await.problem().0, 400);
    assert_eq!(send(&router, Request::builder().method("BREW").uri(THINGS), "").await.problem().0, 405);
}

/// "Nothing was changed" is said only if it is true.
#[tokio::test]
async fn inv_c_who_has_written_is_not_put_off() {
    let (_world, router) = router().await;
    assert_eq!(send(&router, Request::get("/put-off"), "").await.problem(), (503, "overloaded".to_owned()));
    assert_eq!(
        send(&router, Request::get("/written"), "").await.problem(),
        (503, "outcome_unknown".to_owned())
    );
}

#[tokio::test]
async fn a_problem_looks_like_this() {
    let world = World::new().await;
    let failing = async || {
        Problem::invalid("/email", problems::INVALID_EMAIL, "not a valid email address")
            .detail("One member is invalid")
    };
    let limited = async || Problem::new(problems::RATE_LIMITED).retry_after(30);
    let inner = Router::new().route("/", get(failing)).route("/limited", get(limited));
    let router = around(inner, world.edge(&[]));
    let answer = send(&router, Request::get("/").header("x-request-id", "req-1"), "").await;
    answer.problem();
    insta::assert_json_snapshot!(answer.json(), @r#"
    {
      "code": "validation_failed",
      "detail": "One member is invalid",
      "errors": [
        {
          "code": "invalid_email",
          "detail": "not a valid email address",
          "pointer": "/email"
        }
      ],
      "request_id": "req-1",
      "status": 422,
      "title": "A value is not acceptable",
      "type": "/problems/validation_failed"
    }
    "#);
    let answer = send(&router, Request::get("/limited"), "").await;
    assert_eq!(answer.headers[header::RETRY_AFTER], "30");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.problem(), (429, "rate_limited".to_owned()));
}

#[tokio::test]
async fn idempotency_names_caller_route_and_body() {
    let (_world, router) = router().await;
    let of = async |key: &'static str, credential: &'static str, path: &'static str, body: &'static str| {
        let request = post_to(path).header("idempotency-key", key).header("authorization", credential);
        let value = send(&router, request, body).await.json()["idempotency"].clone();
        (value[0].to_string(), value[1].to_string())
    };
    let (a, b) = (r#"{"name":"a"}"#, r#"{"name":"b"}"#);
    let first = of("k", "Bearer x", THINGS, a).await;
    assert_eq!(of("k", "Bearer x", THINGS, a).await, first);
    let other_body = of("k", "Bearer x", THINGS, b).await;
    assert!(other_body.0 == first.0 && other_body.1 != first.1);
    for other in [
        of("l", "Bearer x", THINGS, a).await,
        of("k", "Bearer y", THINGS, a).await,
        of("k", "Bearer x", "/v1/apps/other/things", a).await,
    ] {
        assert!(other.0 != first.0 && other.1 == first.1);
    }
    let without = send(&router, post_to(THINGS), a).await;
    assert_eq!(without.json()["idempotency"], Value::Null);
    for bad in ["", "a b", "a\tb", &"k".repeat(256)] {
        let answer = send(&router, post_to(THINGS).header("idempotency-key", bad), a).await;
        assert_eq!(answer.problem(), (400, "malformed_request".to_owned()), "{bad:?}");
    }
    let bytes = HeaderValue::from_bytes("schlüssel".as_bytes()).expect("opaque bytes");
    assert_eq!(send(&router, post_to(THINGS).header("idempotency-key", bytes), a).await.problem().0, 400);
    let twice = post_to(THINGS).header("idempotency-key", "a").header("idempotency-key", "a");
    assert_eq!(send(&router, twice, a).await.problem().0, 400);
    let longest = post_to(THINGS).header("idempotency-key", "k".repeat(255));
    assert_eq!(send(&router, longest, a).await.status, 200);
}

#[tokio::test]
async fn ids_are_echoed_or_made() {
    let (_world, router) = router().await;
    let echo = async |id: &str| {
        let answer = send(&router, Request::get("/nowhere").header("x-request-id", id), "").await;
        answer.problem();
        answer.headers["x-request-id"].to_str().expect("ASCII").to_owned()
    };
    assert_eq!(echo("abc-123_X.y:z").await, "abc-123_X.y:z");
    for bad in ["", "a b", "a\"b", "{\"level\":\"error\"}", &"a".repeat(129)] {
        let made = echo(bad).await;
        assert_eq!(Uuid::parse_str(&made).expect("a UUID").get_version_num(), 7, "{bad}");
    }
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (text, kept) in [
        (trace, true),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
        ("x", false),
    ] {
        let answer = send(&router, Request::get(THINGS).header("traceparent", text), "").await;
        assert_eq!(answer.json()["trace"].is_string(), kept, "{text}");
    }
}

#[test]
fn only_trusted_proxies_are_trusted_with_addresses() {
    let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|net| net.parse::<IpNet>().expect("a network"));
    let client = |peer: &str, forwarded: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(value).expect("a value"));
        }
        match client_address(peer.parse().expect("an address"), &headers, &trusted) {
            Ok(address) => address.to_string(),
            Err(known) => format!("{known}?"),
        }
    };
    // Directly from a client, whatever it claims.
    assert_eq!(client("192.0.2.1", &[]), "192.0.2.1");
    assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
    assert_eq!(client("::ffff:192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
    // Through one proxy, or several.
    assert_eq!(client("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
    assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
    assert_eq!(client("10.0.0.1", &["198.51.100.1, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
    assert_eq!(client("10.0.0.1", &["198.51.100.1", "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
    assert_eq!(client("2001:db8:1::1", &["2001:db8:2::7"]), "2001:db8:2::7");
    assert_eq!(client("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
    assert_eq!(client("10.0.0.1", &["[2001:db8:2::7]:4711, [2001:db8:1::1]"]), "2001:db8:2::7");
    assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    // A hop that is not an address ends the walk at the last known hop.
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2?");
    assert_eq!(client("10.0.0.1", &["<script>"]), "10.0.0.1?");
    assert_eq!(client("10.0.0.1", &["198.51.100.1, \"[2001:db8:2::7]:4711\""]), "2001:db8:2::7");
    // An empty element is none.
    assert_eq!(client("10.0.0.1", &["192.0.2.1,, 10.0.0.2"]), "192.0.2.1");
}

#[tokio::test]
async fn rate_limits_follow_the_client_behind_the_proxy() {
    let world = World::new().await;
    let rate = Rate { requests: 2.try_into().expect("not zero"), seconds: 60.try_into().expect("not zero") };
    let limits = Arc::new(RateLimits::new(&RateSettings { credentials: rate, ..RateSettings::default() }));
    let inner = Router::new()
        .route("/login", get(whoami))
        .route_layer(limits.layer(RateClass::Credentials))
        .layer(limits.layer(RateClass::General));
    let router = around(inner, world.edge(&["10.0.0.0/8"]));
    let from = async |peer: &'static str, forwarded: &'static str| {
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4711);
        let request =
            Request::get("/login").header("x-forwarded-for", forwarded).extension(ConnectInfo(peer));
        send(&router, request, "").await
    };
    let first = from("10.0.0.1", "192.0.2.1").await;
    assert_eq!(first.json()["ip"], "192.0.2.1");
    assert_eq!(first.headers["ratelimit-policy"], "\"credentials\";q=2;w=60");
    assert_eq!(first.headers["ratelimit"], "\"credentials\";r=1;t=30");
    assert_eq!(from("10.0.0.1", "192.0.2.1").await.status, 200);
    let refused = from("10.0.0.1", "203.0.113.9, 192.0.2.1").await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    assert_eq!(refused.headers["ratelimit"], "\"credentials\";r=0;t=30");
    assert_eq!(refused.headers[header::RETRY_AFTER], "30");
    assert_eq!(from("10.0.0.1", "192.0.2.2").await.status, 200);
    // A client that is not a proxy gains nothing by claiming other addresses.
    assert_eq!(from("192.0.2.3", "198.51.100.1").await.status, 200);
    assert_eq!(from("192.0.2.3", "198.51.100.2").await.status, 200);
    assert_eq!(from("192.0.2.3", "198.51.100.3").await.status, 429);
}

#[tokio::test]
async fn only_an_apps_origins_may_call() {
    let (world, router) = router().await;
    let signer = Signer::new(TokenAlgorithm::EdDsa, "one");
    let origins = json!({ "origins": ["https://app.example"] });
    let settings: AppSettings = serde_json::from_value(origins).expect("settings");
    world.app(&AppId::parse("acme").expect("valid"), &signer, settings.clone()).await;
    world.app(&AppId::parse("bare").expect("valid"), &signer, AppSettings::default()).await;
    let cookies = AppSettings { cookies: true, ..settings.clone() };
    world.app(&AppId::default_app(), &signer, cookies).await;
    world.app(&AppId::platform(), &signer, settings).await;
    let call = async |method: &'static str, path: &'static str, origin: &'static str| {
        let request = Request::builder().method(method).uri(path).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        send(&router, request, "").await
    };
    let allowed = |answer: &Answer| {
        answer
            .headers
            .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)
            .map(|value| value.to_str().expect("ASCII").to_owned())
    };
    let preflight = call("OPTIONS", THINGS, "https://app.example").await;
    assert_eq!((preflight.status, allowed(&preflight).as_deref()), (204, Some("https://app.example")));
    assert!(!preflight.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    let may_be_sent = preflight.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().expect("ASCII");
    let may_be_sent: Vec<_> = may_be_sent.split(',').map(str::trim).collect();
    for name in [
        "authorization",
        "content-type",
        "idempotency-key",
        "consistency-token",
        "last-event-id",
        "x-csrf-token",
    ] {
        assert!(may_be_sent.contains(&name), "{name}: a stream could not be resumed from a browser");
    }
    let answer = call("GET", THINGS, "https://app.example").await;
    assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some("https://app.example")));
    assert_eq!(answer.headers[header::VARY], "Origin");
    let answer = call("GET", "/auth/scope", "https://app.example").await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    for (path, origin) in [
        (THINGS, "https://evil.example"),
        (THINGS, "https://app.example.evil.example"),
        (THINGS, "http://app.example"),
        (THINGS, "null"),
        ("/v1/apps/bare/things", "https://app.example"),
        ("/v1/apps/absent/things", "https://app.example"),
        ("/v1/apps/platform/things", "https://app.example"),
        ("/query", "https://app.example"),
    ] {
        for method in ["OPTIONS", "GET"] {
            assert_eq!(allowed(&call(method, path, origin).await), None, "{method} {path} {origin}");
        }
    }
}

#[tokio::test]
async fn without_the_layer_it_fails_closed() {
    let answer = send(&routes().into(), post_to(THINGS), r#"{"name":"a"}"#).await;
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn every_problem_has_all_that_a_problem_has() {
    let world = World::new().await;
    for kind in problems::REGISTRY {
        let router = Router::new().route("/", get(async || Problem::new(kind)));
        let answer = send(&around(router, world.edge(&[])), Request::get("/"), "").await;
        assert_eq!(answer.problem(), (kind.status, kind.code.to_owned()));
        assert!(kind.explanation.starts_with(answer.json()["detail"].as_str().expect("text")));
    }
    let empty = || Problem::new(problems::MALFORMED_REQUEST).detail(" ");
    let field = || {
        Problem::invalid("/name", field_codes::TOO_LONG, "at most 3").field("/x", field_codes::INVALID, "no")
    };
    let router =
        Router::new().route("/empty", get(async move || empty())).route("/field", get(async move || field()));
    let router = around(router, world.edge(&[]));
    assert_eq!(send(&router, Request::get("/empty"), "").await.problem().0, 400);
    assert_eq!(send(&router, Request::get("/field"), "").await.json()["detail"], "/name: at most 3; /x: no");
}

#[tokio::test]
async fn another_name_of_a_route_answers_as_the_route_and_is_seen_as_it_came() {
    let world = World::new().await;
    let seen = async |uri: axum::extract::OriginalUri, scope: AppScope| format!("{} {}", scope.0, uri.0);
    let named = Router::new().route("/v1/apps/{app_id}/auth/register", get(seen));
    let router = around(named, world.edge(&[]));
    for (path, app) in [
        ("/v1/apps/acme/auth/register", "acme"),
        ("/v1/apps/acme/auth/signup?a=%20b", "acme"),
        ("/auth/register", "default"),
        ("/auth/signup?a=b", "default"),
    ] {
        let answer = send(&router, Request::get(path), "").await;
        assert_eq!(String::from_utf8_lossy(&answer.body), format!("{app} {path}"));
    }
    let wrong = send(&router, Request::delete("/auth/signup"), "").await;
    assert_eq!((wrong.problem().0, &wrong.headers["allow"]), (405, &"GET,HEAD".parse().expect("a value")));
    assert_eq!(send(&router, Request::get("/auth/absent"), "").await.problem().0, 404);
}

#[tokio::test]
async fn a_router_below_a_path_answers_there_and_nowhere_else() {
    let world = World::new().await;
    let edge = Arc::into_inner(world.edge(&[])).expect("not shared").below("/auth");
    let routes = routes()
        .route("/healthz", get(async || "ok"))
        .route("/v1/apps/{app_id}/auth/login", get(async || "an alias"));
    let service = around(routes, Arc::new(edge)).below("/auth");
    for (path, status) in [
        ("/auth/number/7", 200),
        ("/auth/query?name=a%20b", 200),
        ("/auth/auth/login", 200),
        ("/auth/login", 404),
        ("/number/7", 404),
        ("/authnumber/7", 404),
        ("/auth", 404),
        ("/auth/", 404),
        ("/AUTH/number/7", 404),
        ("/other/number/7", 404),
        ("/healthz", 200),
        ("/auth/healthz", 200),
        ("/healthz/x", 404),
    ] {
        let answer = send(&service, Request::get(path), "").await;
        assert_eq!(answer.status, status, "{path}");
        if status == 404 {
            assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{path}");
            assert_eq!(answer.json()["type"], "/auth/problems/not_found");
        }
    }
    let query = send(&service, Request::get("/auth/query?name=a%20b"), "").await;
    assert_eq!(query.body, b"a b");
}
