//! The last step of the demo: an event is proven to somebody who does not trust the operator.

use anyhow::Context;
use axum::http::Method;

use super::tour::{Expected, Tour};
use crate::verify::receipt;

/// Has a receipt made of the user's registration, and checks it with the log's public key.
pub async fn prove(tour: &mut Tour, user: &str) -> anyhow::Result<()> {
    tour.step(
        "Ada's registration is proven",
        "An auditor need not trust the operator. All events are the leaves of a Merkle tree, and the log signs its root. A \
         receipt is an event with the hashes that lead from it to that root. It is checked here as `watchword verify \
         --receipt` does it years later on another machine: with the public key of the log, and nothing else.",
    );
    let admin = tour.admin();
    let key = tour.call(Method::GET, "/v1/audit/key", Some(&admin), None, Expected::status(200)).await?.text;
    tour.fact(&format!("  {}", key.trim()));
    let path = "/v1/audit/checkpoint";
    let signed = tour.call(Method::POST, path, Some(&admin), None, Expected::status(200)).await?.text;
    for line in signed.lines().filter(|line| !line.is_empty()) {
        tour.fact(&format!("  {line}"));
    }
    let path = format!("/v1/apps/default/audit/events?user_id={user}&type=UserRegistered");
    let position = tour.query(&path).await?["items"][0]["position"].clone();
    let path = format!("/v1/audit/receipt?position={position}");
    let receipt = tour.call(Method::GET, &path, Some(&admin), None, Expected::status(200)).await?.text;
    let keys = || key.lines().map(str::parse).collect::<Result<Vec<_>, _>>().context("the key is no vkey");
    let verdict = receipt::verify_text(&receipt, keys()?)?;
    for sentence in verdict.sentences() {
        tour.say(sentence);
    }
    tour.check(verdict.is_fine(), "the receipt proves her registration, with the public key alone");
    tour.say(
        "Somebody wants her to have registered by a link in a mail, and changes that word in the receipt:",
    );
    let changed = receipt.replacen("\"password\"", "\"magic_link\"", 1);
    let verdict = receipt::verify_text(&changed, keys()?)?;
    for sentence in verdict.sentences() {
        tour.say(sentence);
    }
    tour.check(!verdict.is_fine() && changed != receipt, "it proves nothing any more");
    tour.expect_events(&[]).await
}
