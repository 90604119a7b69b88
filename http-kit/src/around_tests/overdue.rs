//! Requests that would take longer than their bound.

use std::future::pending;
use std::time::Duration;

use super::*;
use crate::problem::is_writing;

/// Invariant y. Whether something was changed is said as far as it is known.
#[tokio::test]
async fn inv_y_a_request_is_answered_within_its_bound() {
    let world = World::new().await;
    let inner = Router::new()
        .route(
            "/endless",
            get(async || pending::<StatusCode>().await).post(async |_: NoBody| pending::<StatusCode>().await),
        )
        .route(
            "/writes",
            post(async || {
                is_writing(true);
                pending::<StatusCode>().await
            }),
        )
        .route(
            "/wrote",
            post(async || {
                is_writing(true);
                has_written();
                is_writing(false);
                pending::<StatusCode>().await
            }),
        );
    let edge = Arc::into_inner(world.edge(&[])).expect("nobody else has it");
    let router = around(inner, Arc::new(edge.answering_within(Duration::from_millis(50))));
    let origin = ("origin", "https://app.example");
    for (request, code) in [
        (Request::get("/endless"), "unavailable"),
        (Request::get("/endless").header(origin.0, origin.1), "unavailable"),
        (Request::post("/endless"), "unavailable"),
        (Request::post("/writes"), "outcome_unknown"),
        (Request::post("/wrote"), "outcome_unknown"),
    ] {
        let answer = send(&router, request, "").await;
        assert_eq!(answer.problem(), (503, code.to_owned()));
        assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    }
}
