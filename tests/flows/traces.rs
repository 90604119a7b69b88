//! What a trace collector receives, and that no request waits for it.

use std::time::Duration;

use serde_json::json;
use tests::collector::{Collector, Span};
use tests::{PASSWORD, Server, email, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn traced_by(collector: &Collector, sampling: &str) -> Server {
    let endpoint = collector.endpoint();
    Server::start_with(&[("WATCHWORD_OTLP_ENDPOINT", &endpoint), ("WATCHWORD_OTLP_SAMPLING", sampling)]).await
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_registration_is_one_trace_from_its_caller_to_the_read_models() {
    let collector = Collector::start().await;
    let mut server = traced_by(&collector, "1").await;
    let body = json!({"email": email("ada"), "password": PASSWORD, "name": "Ada Lovelace"});
    let call = server.default_app().post("auth/register").json(&body);
    call.header("traceparent", &format!("00-{TRACE}-{CALLER}-01")).await.expect(201);

    // Two events, which six projectors apply; the request, its hash, its decision and its append.
    let spans = collector.trace(TRACE, 16).await;
    let one = |name: &str| {
        let found = named(&spans, name);
        assert_eq!(found.len(), 1, "{name} in {spans:?}");
        found[0]
    };
    let request = one("POST /v1/apps/{app_id}/auth/register");
    assert_eq!((request.parent.as_str(), request.kind, request.failed), (CALLER, 2, false));
    assert_eq!(request.attributes["http.request.method"], "POST");
    assert_eq!(request.attributes["http.route"], "/v1/apps/{app_id}/auth/register");
    assert_eq!(request.attributes["http.response.status_code"], "201");
    assert_eq!(request.process["service.name"], "watchword");
    assert_eq!(request.process["watchword.role"], "all");
    assert_eq!(one("hash password").parent, request.id);
    assert_eq!(one("dispatch").parent, request.id);
    let append = one("append");
    assert_eq!(
        (&append.parent, append.attributes["watchword.append.outcome"].as_str()),
        (&one("dispatch").id, "done")
    );
    let events = server.events().await;
    let own: Vec<_> = events.iter().filter(|event| event["traceparent"].is_string()).collect();
    assert_eq!(append.attributes["watchword.append.events"], own.len().to_string());
    let models = server.names_of_read_models(&server.platform_key()).await;
    assert!(models.len() >= 5, "{models:?}");
    for event in own {
        // Consumers of the events continue the trace of the request.
        assert_eq!(event["traceparent"], format!("00-{TRACE}-{}-01", request.id));
        let position = event["position"].to_string();
        for model in &models {
            let applied = named(&spans, &format!("apply {model}"));
            let of_event: Vec<_> =
                applied.iter().filter(|it| it.attributes["watchword.event.position"] == position).collect();
            assert_eq!(of_event.len(), 1, "{model} in {spans:?}");
            assert_eq!((&of_event[0].parent, of_event[0].kind), (&request.id, 5));
            assert_eq!(of_event[0].attributes["watchword.event.type"], event["type"].as_str().unwrap());
        }
    }

    // The last spans are not lost with the process, and probes make none.
    let last = "0af7651916cd43dd8448eb211c80319c";
    server.get("/v1/me").header("traceparent", &format!("00-{last}-{CALLER}-01")).await;
    server.terminate().await;
    let spans = collector.spans();
    assert_eq!(spans.iter().filter(|span| span.trace == last).count(), 1);
    assert!(spans.iter().all(|span| !span.name.contains("/readyz")), "{spans:?}");
}

#[tokio::test]
async fn callers_decide_what_is_traced_and_else_the_share_does() {
    let collector = Collector::start().await;
    let mut server = traced_by(&collector, "0").await;
    let call = |flags: &str| {
        let call = server.default_app().login(&email("nobody"), PASSWORD);
        call.header("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}"))
    };
    call("00").await.problem(401, "invalid_credentials");
    server.default_app().login(&email("nobody"), PASSWORD).await.problem(401, "invalid_credentials");
    call("01").await.problem(401, "invalid_credentials");
    server.terminate().await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:?}");
    let requests = named(&spans, "POST /v1/apps/{app_id}/auth/login");
    assert_eq!(requests.len(), 1, "{spans:?}");
    assert_eq!(requests[0].attributes["watchword.problem"], "invalid_credentials");
    assert!(!requests[0].failed, "a refusal is not a failure");
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_is_away() {
    // Nothing listens at its address any more.
    let endpoint = Collector::start().await.endpoint();
    let mut server = Server::start_with(&[("WATCHWORD_OTLP_ENDPOINT", &endpoint)]).await;
    let tokens = server.default_app().register(&email("ada")).await;
    server.default_app().me(&tokens.access).await.expect(200);
    until("what is not sent is counted", async || {
        server.metrics().await.contains("\nwatchword_trace_spans_total{outcome=\"failed\"}")
    })
    .await;
    for _ in 0..3 {
        server.default_app().me(&tokens.access).await.expect(200);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(server.terminate().await.success());
    assert_eq!(server.log().matches("the trace collector fails").count(), 1, "it is said once");
}
