//! Two nodes and one witness.

use serde_json::json;
use test_services::Postgres;
use tests::transparency::verify;
use tests::{Server, Witness, email, until};

use super::{node, node_with};

/// Something happens, and a checkpoint of it is signed.
async fn sign(node: &Server, key: &str) -> String {
    node.default_app().register(&email("ada")).await;
    node.post("/v1/audit/checkpoint").bearer(key).await.expect(200).text
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_ask_one_witness_at_once_have_one_history_signed() {
    let database = Postgres::shared().database();
    let mut one = node(&database).await;
    let key = one.platform_key();
    let vkey = one.get("/v1/audit/key").bearer(&key).await.expect(200).text.trim().to_owned();
    let witness = Witness::start(&[&vkey]).await;
    let list = json!([{"key": witness.vkey(), "url": witness.url("")}]).to_string();
    let settings = [("WATCHWORD_WITNESSES", list.as_str()), ("WATCHWORD_CHECKPOINT_INTERVAL", "1")];
    one.terminate().await;
    for (name, value) in settings {
        one.set_environment(name, value);
    }
    one.up().await;
    let two = node_with(&database, &settings).await;
    let vkeys = [vkey.as_str(), &witness.vkey()];
    for _ in 0..10 {
        let (here, there) = tokio::join!(sign(&one, &key), sign(&two, &key));
        let size = [here, there].iter().map(|note| verify(note, &vkeys).size).max();
        until("the witness has signed", async || {
            let note = two.get("/v1/audit/checkpoint").bearer(&key).await.expect(200).text;
            let verified = verify(&note, &vkeys);
            Some(verified.size) >= size && verified.signers.len() == 2
        })
        .await;
    }
    for node in [&one, &two] {
        let metrics = node.get("/metrics").bearer(&key).await.expect(200).text;
        let mut lines = metrics.lines();
        assert!(!lines.any(|line| line.starts_with("watchword_witness_failures_total{")), "{metrics}");
    }
    assert!(!witness.log().contains("refused a checkpoint"), "{}", witness.log());
}
