use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;

use super::world::*;

#[tokio::test]
async fn a_session_that_was_ended_is_never_shown() {
    let world = World::new().await;
    world.register(1, "ada@example.com", "Ada").await;
    world.log_in(1, 1).await;
    let position = world.log_in(2, 1).await;
    let path = format!("/v1/apps/acme/admin/users/{}/sessions", user(1));
    let (status, list) = world.get(FULL, &path, Some(position)).await;
    assert_eq!((status, &list["total"]), (200, &2.into()));
    assert_eq!(list["items"][0]["id"], session(2).to_string());
    assert_eq!(list["items"][0]["ip"], "203.0.113.77");
    // The read model is paused, but the aggregate knows.
    assert!(world.service.pause("sessions").await);
    world.log_out(2, 1).await;
    let (_, list) = world.get(FULL, &path, None).await;
    assert_eq!(list["items"].as_array().expect("items").len(), 1);
    assert_eq!((&list["items"][0]["id"], &list["total"]), (&session(1).to_string().into(), &1.into()));
    world.clock.advance(jiff::SignedDuration::from_hours(2));
    let (_, list) = world.get(FULL, &path, None).await;
    assert_eq!(list["items"], json!([]), "they have expired");
}

#[tokio::test]
async fn every_route_asks_who_is_calling() {
    let world = World::new().await;
    let position = world.register(1, "ada@example.com", "Ada").await;
    let of_user = format!("/v1/apps/acme/admin/users/{}", user(1));
    let sessions = format!("{of_user}/sessions");
    let (users, stats) = ("/v1/apps/acme/admin/users", "/v1/apps/acme/admin/stats");
    let (audit, events) = ("/v1/apps/acme/audit/events", "/v1/apps/acme/events");
    let answer = async |key, path: &str| world.get(key, path, Some(position)).await.0;
    for path in [users, &of_user, &sessions, stats, audit, events] {
        assert_eq!(answer(FULL, path).await, 200, "{path}");
        assert_eq!(answer(PLATFORM, path).await, 200, "{path}");
        assert_eq!(answer(STRANGER, path).await, 404, "{path}");
        assert_eq!(answer(AUDITOR, path).await, if path == audit { 200 } else { 403 }, "{path}");
    }
    for path in ["/v1/events", "/v1/projections"] {
        assert_eq!(answer(PLATFORM, path).await, 200, "{path}");
        assert_eq!(answer(FULL, path).await, 403, "{path}");
    }
    assert_eq!(answer(FULL, "/v1/apps/acme/auth/sessions").await, 401, "a key is not a user");
    let elsewhere = format!("/v1/apps/other/admin/users/{}", user(1));
    assert_eq!(answer(STRANGER, &elsewhere).await, 404, "a user of another app");
    assert_eq!(answer(FULL, "/v1/apps/acme/admin/users/nonsense").await, 404);
}

#[tokio::test]
async fn lists_refuse_what_the_contract_excludes() {
    let world = World::new().await;
    let refused = async |query: &str| {
        let (status, body) = world.get(FULL, &format!("/v1/apps/acme/admin/users?{query}"), None).await;
        format!("{status} {} {}", body["code"].as_str().unwrap_or("-"), body["errors"][0]["parameter"])
    };
    same(&refused("limit=0").await, "422 validation_failed \"limit\"");
    same(&refused("limit=201").await, "422 validation_failed \"limit\"");
    same(&refused("offset=10001").await, "422 validation_failed \"offset\"");
    same(&refused("cursor=x").await, "422 validation_failed \"cursor\"");
    same(&refused("query=--").await, "422 validation_failed \"query\"");
    same(&refused("role=No%20Role").await, "422 validation_failed \"role\"");
    same(&refused("limit=many").await, "400 malformed_request \"limit\"");
    same(&refused("status=asleep").await, "400 malformed_request \"status\"");
    same(&refused("limit=200&offset=10000").await, "200 - null");
}

fn same(actual: &str, expected: &str) {
    assert_eq!(actual, expected);
}

#[tokio::test]
async fn the_audit_log_opens_what_its_reader_may_see_and_never_a_hash() {
    let world = World::new().await;
    let position = world.register(1, "ada@example.com", "=cmd|' /C calc'!A0").await;
    let path = "/v1/apps/acme/audit/events?type=UserRegistered";
    let (_, list) = world.get(FULL, path, Some(position)).await;
    assert_eq!(list["total"], 1);
    assert_eq!(
        list["items"][0]["personal"],
        json!({ "email": "ada@example.com", "name": "=cmd|' /C calc'!A0" })
    );
    assert_eq!(list["items"][0]["actor"], json!({ "kind": "system", "id": null, "name": null }));
    let (_, list) = world.get(AUDITOR, path, Some(position)).await;
    assert_eq!(list["items"][0]["personal"], json!(null));

    let lines = text(world.send(FULL, path, "application/x-ndjson", Some(position)).await).await;
    let recorded = world.journal.read_positions(&[position]).await.expect("reads");
    assert_eq!(
        lines,
        format!("{}\n", recorded[0].to_canonical_json(&origin())),
        "the same bytes as everywhere else"
    );

    let table = text(world.send(FULL, path, "text/csv", Some(position)).await).await;
    let rows: Vec<&str> = table.trim_end().split("\r\n").collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[1].contains("ada@example.com") && !table.contains("argon2"), "{table}");
    let table = text(world.send(AUDITOR, path, "text/csv", Some(position)).await).await;
    assert!(!table.contains("ada@"), "{table}");
}

#[tokio::test]
async fn stalled_exports_take_no_more_than_their_places() {
    let world = World::new().await;
    let position = world.register(1, "ada@example.com", "Ada").await;
    let path = "/v1/apps/acme/audit/events";
    let export = || world.send(FULL, path, "application/x-ndjson", Some(position));
    let mut held = vec![];
    for _ in 0..4 {
        let response = export().await;
        assert_eq!(response.status(), 200);
        held.push(response);
    }
    let refused = export().await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert!(text(refused).await.contains("share is 4"));
    assert_eq!(
        world.send(AUDITOR, path, "text/csv", Some(position)).await.status(),
        503,
        "the app has used its share"
    );
    let (status, _) = world.get(AUDITOR, path, Some(position)).await;
    assert_eq!(status, 200, "a page needs no place");
    drop(held.pop());
    assert_eq!(export().await.status(), 200);
}

#[tokio::test]
async fn an_export_has_every_event_once() {
    let world = World::new().await;
    let mut position = 0;
    for n in 0..20 {
        position = world.register(n, &format!("user{n}@example.com"), "Somebody").await;
    }
    // Without the records of the exports and pages themselves.
    let path = "/v1/apps/acme/audit/events?type=UserRegistered,AppCreated,ApiKeyIssued";
    let lines = text(world.send(FULL, path, "application/x-ndjson", Some(position)).await).await;
    assert_eq!(lines.lines().count(), 23, "20 users, the app and its 2 keys");
    // Pages give the same.
    let (mut seen, mut cursor) = (vec![], None);
    loop {
        let query = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (_, page) = world.get(FULL, &format!("{path}&limit=5{query}"), Some(position)).await;
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["position"].as_u64()));
        assert_eq!(page["total"], 23);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 23);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn a_stream_goes_on_live_resumes_and_ends_with_the_process() {
    let world = World::new().await;
    let first = world.register(1, "ada@example.com", "Ada").await;
    let path = format!("/v1/apps/acme/events?type=UserRegistered&after={}", first - 1);
    let response = world.send(FULL, &path, "text/event-stream", None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut body = response.into_body();
    let mut frame = async || {
        let frame = tokio::time::timeout(Duration::from_mins(1), body.frame()).await.expect("in time");
        let bytes = frame.map(|frame| frame.expect("good").into_data().expect("data"));
        bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8"))
    };
    let begin = frame().await.expect("a comment");
    assert!(begin.starts_with(':') && begin.len() < 512, "so that proxies pass the head on: {begin}");
    let event = frame().await.expect("an event");
    assert!(event.contains(&format!("id: {first}\n")), "{event}");
    let recorded = world.journal.read_positions(&[first]).await.expect("reads");
    assert!(event.contains(&format!("data: {}\n", recorded[0].to_canonical_json(&origin()))), "{event}");
    world.log_in(1, 1).await;
    let second = world.register(2, "grace@example.com", "Grace").await;
    let event = frame().await.expect("an event");
    assert!(event.contains(&format!("id: {second}\n")), "other types are left out: {event}");
    world.service.end_streams();
    assert_eq!(frame().await, None);
}

#[tokio::test]
async fn the_whole_journal_is_for_the_platform() {
    let world = World::new().await;
    let position = world.register(1, "ada@example.com", "Ada").await;
    let (_, page) = world.get(PLATFORM, "/v1/events?limit=3", Some(position)).await;
    assert_eq!((&page["total"], &page["next_cursor"]), (&position.into(), &"3".into()));
    assert_eq!(page["items"][0]["specversion"], "1.0");
    let (_, page) = world.get(PLATFORM, "/v1/events?app_id=acme&type=UserRegistered", Some(position)).await;
    assert_eq!((&page["total"], &page["items"][0]["position"]), (&1.into(), &position.into()));
    let (_, projections) = world.get(PLATFORM, "/v1/projections", None).await;
    let items = projections["items"].as_array().expect("items").iter();
    let names: Vec<_> = items.map(|item| item["name"].as_str().expect("a name")).collect();
    assert_eq!(names, read_models::NAMES);
}

#[tokio::test]
async fn an_event_that_no_entry_can_hold_is_told_from_a_missing_tile() {
    let world = World::new().await;
    let (journal, clock) = (&*world.journal, &*world.clock);
    event_store::origin::establish(journal, clock, &origin()).await.expect("it begins");
    world.service.notary.keyring().establish(journal, clock).await.expect("a key");
    // The dispatcher would refuse it; earlier versions did not.
    let long = world.register(1, "ada@example.com", &"a".repeat(50_000)).await;
    let (status, receipt) = world.get(PLATFORM, &format!("/v1/audit/receipt?position={long}"), None).await;
    assert_eq!((status, &receipt["position"]), (200, &json!(long)), "{receipt}");
    let tile = format!("/v1/audit/tile/entries/000.p/{long}");
    let (status, refused) = world.get(PLATFORM, &tile, None).await;
    assert_eq!((status, &refused["code"]), (404, &json!("entry_too_long")), "{refused}");
    let detail = refused["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&format!("event {long} has ")), "{detail}");
    for there in [format!("entries/000.p/{}", long - 1), format!("0/000.p/{long}")] {
        let answer = world.send(PLATFORM, &format!("/v1/audit/tile/{there}"), "*/*", None).await;
        assert_eq!(answer.status(), 200, "{there}");
    }
}
