//! Which responses are compressed.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Extension;
use axum::response::Html;
use event_store::Clock;

use super::*;
use crate::Unchanging;

fn long() -> Json<Value> {
    Json(json!({ "items": vec!["the same again"; 1000] }))
}

async fn compressing() -> (World, Entrance) {
    let world = World::new().await;
    let inner = Router::new()
        .route("/long", get(async || long()).post(async || long()))
        .route("/short", get(async || Json(json!({ "a": "b".repeat(900) }))))
        .route("/page", get(async || Html("a page ".repeat(1000))))
        .route("/refused", get(async || (StatusCode::CONFLICT, long())))
        .route(
            "/stream",
            get(async || {
                let chunks =
                    futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
                ([(header::CONTENT_TYPE, "application/json")], HttpBody::from_stream(chunks))
            }),
        );
    let router = around(inner, world.edge(&[]));
    (world, router)
}

fn coding(answer: &Answer) -> &str {
    answer.headers.get(header::CONTENT_ENCODING).map_or("", |coding| coding.to_str().expect("ASCII"))
}

async fn asked(router: &Entrance, path: &str, accepted: &str) -> Answer {
    send(router, Request::get(path).header("accept-encoding", accepted), "").await
}

#[tokio::test]
async fn a_long_response_comes_as_it_is_asked_for() {
    let (_world, router) = compressing().await;
    let plain = send(&router, Request::get("/long"), "").await;
    assert_eq!(
        (coding(&plain), &plain.headers[header::VARY]),
        ("", &HeaderValue::from_static("accept-encoding"))
    );
    for (accepted, expected) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("GZIP;q=0.5, br;q=0.1", "gzip"),
        ("gzip;q=0, br;q=0.001", "br"),
        ("*;q=0", ""),
        ("identity", ""),
        ("deflate, x-unknown", ""),
        ("", ""),
    ] {
        let answer = asked(&router, "/long", accepted).await;
        assert_eq!((answer.status, coding(&answer)), (200, expected), "{accepted}");
        assert_eq!(answer.headers[header::VARY], "accept-encoding", "{accepted}");
        let mut body = Vec::new();
        let sent = answer.body.as_slice();
        match expected {
            "gzip" => flate2::read::GzDecoder::new(sent).read_to_end(&mut body).expect("gzip"),
            "br" => brotli::Decompressor::new(sent, 4096).read_to_end(&mut body).expect("Brotli"),
            "zstd" => zstd::Decoder::new(sent).expect("zstd").read_to_end(&mut body).expect("zstd"),
            _ => std::io::Cursor::new(sent).read_to_end(&mut body).expect("bytes"),
        };
        assert!(body == plain.body, "{accepted}");
        assert!(expected.is_empty() || answer.body.len() < plain.body.len() / 10, "{accepted}");
    }
}

/// Anybody may ask for it as often as they like.
#[tokio::test]
async fn what_is_always_the_same_is_compressed_once() {
    let world = World::new().await;
    let (unchanging, asked_for) = (Extension(Unchanging::default()), Arc::new(AtomicUsize::new(0)));
    let inner = get(async move || {
        let number = asked_for.fetch_add(1, Ordering::SeqCst);
        (unchanging, Json(json!({ "items": vec![number; 2000] })))
    });
    let router = around(Router::new().route("/same", inner), world.edge(&[]));
    for coding_asked in ["gzip", "br", "zstd"] {
        let first = asked(&router, "/same", coding_asked).await;
        assert_eq!(coding(&first), coding_asked);
        assert_eq!(first.headers[header::CONTENT_LENGTH], first.body.len().to_string().as_str());
        // Here it is not always the same, which shows.
        let second = asked(&router, "/same", coding_asked).await;
        assert!(second.body == first.body && coding(&second) == coding_asked, "{coding_asked}");
    }
    let plain = send(&router, Request::get("/same"), "").await;
    assert!(plain.body.starts_with(b"{\"items\":[6,"), "as it is made");
}

#[tokio::test]
async fn what_may_hold_a_secret_is_short_or_is_a_stream_stays_as_it_is() {
    let (_world, router) = compressing().await;
    for path in ["/short", "/page", "/refused", "/stream"] {
        let answer = asked(&router, path, "gzip, br, zstd").await;
        assert_eq!(coding(&answer), "", "{path}");
        assert!(!answer.headers.contains_key(header::VARY), "{path}");
    }
    let all = |request: http::request::Builder| request.header("accept-encoding", "gzip, br, zstd");
    assert_eq!(coding(&send(&router, all(Request::get("/long")), "").await), "zstd");
    let with_cookies = all(Request::get("/long")).header("cookie", "ww-acme-access=x");
    for request in [all(Request::post("/long")), all(Request::head("/long")), with_cookies] {
        assert_eq!(coding(&send(&router, request, "").await), "");
    }

    let world = World::new().await;
    let off = RequestLayer::new(
        Arc::clone(&world.repository),
        Arc::clone(&world.clock) as Arc<dyn Clock>,
        world.keys.instance_key(),
        vec![],
    );
    let router =
        around(Router::new().route("/long", get(async || long())), Arc::new(off.compressing_from(None)));
    assert_eq!(coding(&send(&router, all(Request::get("/long")), "").await), "");
}
