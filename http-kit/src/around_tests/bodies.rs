//! Which bodies are accepted.

use super::*;

#[tokio::test]
async fn bodies_are_strict() {
    let (_world, router) = router().await;
    let ok =
        send(&router, post_to(THINGS), r#" {"name":"a","extra":{"b":[1,null,true,1.5,"\u00e4"]}} "#).await;
    assert_eq!(ok.status, 200);
    let deep = format!(r#"{{"name":"a","extra":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let bad: &[&[u8]] = &[
        b"",
        b" ",
        b"null",
        b"[]",
        b"\"a\"",
        b"{",
        b"{}",
        b"{\"name\":\"a\"} x",
        b"{\"name\":\"a\"}{}",
        b"{\"name\":\"a\",}",
        b"{'name':'a'}",
        b"{\"name\":1}",
        b"{\"name\":null}",
        b"{\"name\":\"a\",\"size\":-1}",
        b"{\"name\":\"a\",\"size\":1.5}",
        b"{\"name\":\"a\",\"size\":4294967296}",
        b"{\"name\":\"a\",\"size\":\"1\"}",
        b"{\"name\":\"a\",\"admin\":true}",
        b"{\"name\":\"a\",\"name\":\"b\"}",
        b"{\"name\":\"a\",\"n\\u0061me\":\"b\"}",
        b"{\"name\":\"a\",\"extra\":{\"x\":1,\"x\":1}}",
        b"{\"name\":\"a\",\"extra\":[{\"x\":{\"y\":1,\"y\":2}}]}",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":\"\xc3\"}",
        b"{\"name\":\"\xed\xa0\x80\"}",
        b"{\"name\":\"\\ud800\"}",
        b"{\"name\":\"a\nb\"}",
        b"{\"name\":\"a\",\"extra\":NaN}",
        b"\xff\xfe{\0}\0",
        deep.as_bytes(),
    ];
    for body in bad {
        let answer = send(&router, post_to(THINGS), body.to_vec()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(answer.problem(), (400, "malformed_request".to_owned()), "{shown}");
    }
}

#[tokio::test]
async fn content_types_and_sizes() {
    let (_world, router) = router().await;
    let body = r#"{"name":"a"}"#;
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
    ] {
        let answer = send(&router, Request::post(THINGS).header("content-type", kind), body).await;
        assert_eq!(answer.status, 200, "{kind}");
    }
    for kind in [
        "text/plain",
        "application/jsonp",
        "application/merge-patch+json",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded",
        "",
        "json",
    ] {
        let answer = send(&router, Request::post(THINGS).header("content-type", kind), body).await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()), "{kind}");
    }
    assert_eq!(send(&router, Request::post(THINGS), body).await.problem().0, 415);
    let twice = post_to(THINGS).header("content-type", "text/plain");
    assert_eq!(send(&router, twice, body).await.problem().0, 415);

    let of = |length: usize| format!("{{\"name\":\"{}\"}}", "a".repeat(length - 11));
    assert_eq!(send(&router, post_to(THINGS), of(64 * 1024)).await.status, 200);
    let large = (413, "payload_too_large".to_owned());
    assert_eq!(send(&router, post_to(THINGS), of(64 * 1024 + 1)).await.problem(), large);
    let stream = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
    assert_eq!(send(&router, post_to(THINGS), HttpBody::from_stream(stream)).await.problem(), large);
    let announced = post_to(THINGS).header("content-length", "9999999999");
    assert_eq!(send(&router, announced, body).await.problem(), large);
}

#[tokio::test]
async fn a_byte_order_mark_is_skipped() {
    let (_world, router) = router().await;
    let answer = send(&router, post_to(THINGS), b"\xef\xbb\xbf{\"name\":\"a\"}".to_vec()).await;
    assert_eq!((answer.status, answer.json()["name"].as_str()), (200, Some("a")));
    let form = Request::post("/form").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(&router, form, b"\xef\xbb\xbfname=a".to_vec()).await.body, b"a");
    assert_eq!(send(&router, post_to("/optional"), b"\xef\xbb\xbf".to_vec()).await.body, b"null");
    for body in [&b"\xef\xbb\xbf\xef\xbb\xbf{\"name\":\"a\"}"[..], b"{\"name\":\xef\xbb\xbf\"a\"}"] {
        assert_eq!(send(&router, post_to(THINGS), body.to_vec()).await.problem().0, 400);
    }
}

#[tokio::test]
async fn merge_patches_are_for_patch() {
    let (_world, router) = router().await;
    let patch = |kind: &str| Request::patch(THINGS).header("content-type", kind.to_owned());
    for kind in
        ["application/json", "application/merge-patch+json", "Application/Merge-Patch+JSON; charset=utf-8"]
    {
        assert_eq!(send(&router, patch(kind), r#"{"name":"a"}"#).await.status, 200, "{kind}");
    }
    let answer = send(&router, patch("application/json-patch+json"), "[]").await;
    assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()));
    assert!(answer.json()["detail"].as_str().is_some_and(|it| it.contains("application/merge-patch+json")));
    assert!(!answer.headers.contains_key(header::ACCEPT_ENCODING), "it is not about a coding");
    // The same text of the other type is another request.
    let mut fingerprints = vec![];
    for kind in ["application/json", "application/merge-patch+json", "application/json"] {
        let request = patch(kind).header("idempotency-key", "one");
        fingerprints.push(send(&router, request, r#"{"name":"a"}"#).await.json()["idempotency"].clone());
    }
    assert_eq!(fingerprints[0], fingerprints[2]);
    assert_eq!(fingerprints[0][0], fingerprints[1][0]);
    assert_ne!(fingerprints[0][1], fingerprints[1][1]);
}

#[tokio::test]
async fn a_coded_body_is_refused_as_such() {
    let (_world, router) = router().await;
    let coded = |coding: &str| post_to(THINGS).header("content-encoding", coding.to_owned());
    for coding in ["gzip", "br", "zstd", "deflate", "x-unknown", "identity, gzip", "\"", "gzip\u{e4}"] {
        let answer = send(&router, coded(coding), r#"{"name":"a"}"#).await;
        assert_eq!(answer.problem(), (415, "unsupported_content_encoding".to_owned()), "{coding}");
        assert_eq!(answer.headers[header::ACCEPT_ENCODING], "identity");
    }
    for coding in ["identity", "Identity", "identity, IDENTITY", ""] {
        assert_eq!(send(&router, coded(coding), r#"{"name":"a"}"#).await.status, 200, "{coding}");
    }
    let twice = coded("identity").header("content-encoding", "gzip");
    assert_eq!(send(&router, twice, r#"{"name":"a"}"#).await.problem().0, 415);
    // Nothing is not coded.
    let nothing = Request::post("/nobody").header("content-encoding", "gzip");
    assert_eq!(send(&router, nothing, "").await.status, 204);
    let form = Request::post("/form").header("content-type", "application/x-www-form-urlencoded");
    let answer = send(&router, form.header("content-encoding", "gzip"), "name=a").await;
    assert_eq!(answer.problem(), (415, "unsupported_content_encoding".to_owned()));
}

#[tokio::test]
async fn other_bodies_and_parameters() {
    let (_world, router) = router().await;
    assert_eq!(send(&router, Request::post("/nobody"), "").await.status, 204);
    assert_eq!(send(&router, post_to("/nobody"), "").await.status, 204);
    assert_eq!(send(&router, post_to("/nobody"), "{}").await.status, 204);
    assert_eq!(send(&router, post_to("/nobody"), " null\n").await.status, 204);
    assert_eq!(send(&router, post_to("/optional"), "null").await.body, b"null");
    assert_eq!(send(&router, post_to("/nobody"), "{\"a\":1}").await.problem().0, 400);
    assert_eq!(send(&router, Request::post("/nobody"), "x").await.problem().0, 415);
    assert_eq!(send(&router, Request::post("/optional"), "").await.body, b"null");
    assert_eq!(send(&router, post_to("/optional"), r#"{"name":"a"}"#).await.body, b"\"a\"");
    assert_eq!(send(&router, post_to("/optional"), "{}").await.problem().0, 400);
    let form = || Request::post("/form").header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(send(&router, form(), "name=a%20b+c&size=1").await.body, b"a b c");
    for bad in ["", "name=a&name=b", "name=a&x=1", "size=1", "name=a&size=x"] {
        assert_eq!(send(&router, form(), bad).await.problem().0, 400, "{bad}");
    }
    assert_eq!(send(&router, form(), "name=a#b").await.body, b"a#b");
    assert_eq!(send(&router, form(), b"name=\xff".to_vec()).await.problem().0, 400);
    assert_eq!(send(&router, post_to("/form"), r#"{"name":"j"}"#).await.body, b"j");
    assert_eq!(send(&router, Request::get("/query?name=a"), "").await.body, b"a");
    for bad in ["/query", "/query?name=a&name=b", "/query?name=a&size=x", "/query?name=a&y=1"] {
        assert_eq!(
            send(&router, Request::get(bad), "").await.problem(),
            (400, "malformed_request".to_owned())
        );
    }
    assert_eq!(send(&router, Request::get("/number/7"), "").await.body, b"7");
    for bad in ["/number/x", "/number/-1", "/number/%ff", "/number/", "/nowhere"] {
        assert_eq!(
            send(&router, Request::get(bad), "").await.problem(),
            (404, "not_found".to_owned()),
            "{bad}"
        );
    }
    assert_eq!(send(&router, Request::get("/v1/apps/acme/scope"), "").await.body, b"acme");
    assert_eq!(send(&router, Request::get("/auth/scope"), "").await.body, b"default");
    for bad in ["ACME", "a.b", "a%00b", "-", "a%2Fb", "%ff"] {
        let answer = send(&router, Request::get(format!("/v1/apps/{bad}/scope")), "").await;
        assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn a_body_without_content_may_have_any_type() {
    let (_world, router) = router().await;
    for kind in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/octet-stream",
        "multipart/form-data",
        "application/json; charset=latin1",
        "nonsense",
        "",
    ] {
        let to = |path: &str| Request::post(path).header("content-type", kind);
        assert_eq!(send(&router, to("/nobody"), "").await.status, 204, "{kind:?}");
        assert_eq!(send(&router, to("/optional"), "").await.body, b"null", "{kind:?}");
        for path in [THINGS, "/form"] {
            let answer = send(&router, to(path), "").await;
            assert_eq!(answer.problem(), (400, "malformed_request".to_owned()), "{kind:?} {path}");
        }
    }
    for path in ["/nobody", "/optional", THINGS] {
        let answer = send(&router, Request::post(path).header("content-type", "text/plain"), "{}").await;
        assert_eq!(answer.problem(), (415, "unsupported_media_type".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn an_answer_that_cannot_wait_for_the_body_says_so() {
    let (_world, router) = router().await;
    let stream = |chunks: usize| {
        let chunk = Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]);
        HttpBody::from_stream(futures::stream::iter(
            std::iter::repeat_with(move || chunk.as_ref().map(Clone::clone).map_err(|_| unreachable!()))
                .take(chunks),
        ))
    };
    for (method, path) in
        [("POST", "/absent"), ("PUT", THINGS), ("POST", THINGS), ("POST", "/axum"), ("GET", "/query")]
    {
        for (chunks, closes) in [(0, false), (1, false), (31, false), (64, true)] {
            let request = Request::builder().method(method).uri(path).header("content-type", "text/plain");
            let answer = send(&router, request, stream(chunks)).await;
            assert!(answer.status >= 400, "{path}");
            assert_eq!(answer.headers.contains_key("connection"), closes, "{method} {path} {chunks}");
        }
    }
    // A client that waits for `100 Continue` does not get it, and learns that it never will.
    let request = Request::post("/absent").header("expect", "100-continue");
    assert_eq!(send(&router, request, "x").await.headers["connection"], "close");
    let request = post_to(THINGS).header("expect", "100-continue");
    let read = send(&router, request, r#"{"name":"a"}"#).await;
    assert_eq!((read.status, read.headers.contains_key("connection")), (200, false));
    // Its length alone shows that it is too large.
    let request = post_to(THINGS).header("content-length", "99999999");
    let answer = send(&router, request, vec![b' '; 3 * 1024 * 1024]).await;
    assert_eq!(
        (answer.problem().0, &answer.headers["connection"]),
        (413, &HeaderValue::from_static("close"))
    );
}
