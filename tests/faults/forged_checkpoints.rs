//! What must not be signed: a tree that somebody has changed, a journal that was put back to an older state, another last
//! signed checkpoint. The reason is told, and what was right before is signed again. A loss that the journal tells of itself
//! is signed.

use std::path::Path;
use std::process::Command;

use tests::log::{Tree, keys_of, verified};
use tests::{Bus, Server, email, of_type, until};

use crate::SETTINGS;
use crate::forged_stores::Stores;

async fn signed(server: &Server) -> String {
    server.post("/v1/audit/checkpoint").bearer(&server.platform_key()).await.expect(200).text
}

async fn keys(server: &Server) -> String {
    server.get("/v1/audit/key").bearer(&server.platform_key()).await.expect(200).text
}

/// Nothing is signed, and everybody is told why. What was signed before is still there.
async fn is_refused(server: &Server, note: &str, why: &str) {
    let key = server.platform_key();
    let refused = server.post("/v1/audit/checkpoint").bearer(&key).await.problem(503, "checkpoint_refused");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{refused}");
    assert!(server.metrics().await.contains("watchword_checkpoint_refused 1\n"));
    let ready = server.readiness().await.json();
    assert_eq!(ready["checks"]["checkpoint"]["ok"], false, "{ready}");
    let newest = server.get("/v1/audit/checkpoint").bearer(&key).await;
    assert!(newest.status == 503 || newest.text == note, "{}", newest.text);
}

/// Waits for the tree, and signs it.
async fn is_signed(server: &Server) -> String {
    let key = server.platform_key();
    until("it is signed", async || server.post("/v1/audit/checkpoint").bearer(&key).await.status == 200)
        .await;
    signed(server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_tree_and_a_forged_checkpoint_get_nothing_signed() {
    let (one, other) = (Bus::start(), Bus::start());
    for mut stores in Stores::both([&one, &other]).await {
        stores.server.default_app().register(&email("ada")).await;
        let (note, keys) = (signed(&stores.server).await, keys(&stores.server).await);
        let size = verified(&note, &keys_of(&keys)).expect("signed").size;
        stores.stop().await;

        // The tiles: what is signed next does not begin with what was signed.
        let width = usize::try_from(size).expect("small");
        let zeros = stores.bytes(&"00".repeat(32 * width));
        stores.alter("read-models", &format!("UPDATE merkle_tiles_v1 SET hashes = {zeros}")).await;
        stores.server.up().await;
        stores.server.default_app().register(&email("eve")).await;
        is_refused(&stores.server, &note, "its tiles do not give its root").await;
        stores.stop().await;

        // The head, which is not this instance's any more.
        stores.alter("read-models", "UPDATE merkle_head_v1 SET size = size + 1").await;
        stores.server.up_open().await;
        is_refused(&stores.server, &note, "its head was not written by this instance").await;

        // The tree is filled anew from the journal.
        tests::checker::forget_read_models(&mut stores.server).await;
        stores.server.up().await;
        let next = is_signed(&stores.server).await;
        let read = verified(&next, &keys_of(&keys)).expect("signed");
        assert!(read.size > size);
        assert_eq!(Tree::of(&stores.server.events().await).root(read.size), read.root);
        stores.stop().await;

        // The checkpoint that was signed last.
        stores.alter("keys", "UPDATE checkpoints SET size = 1").await;
        stores.server.up().await;
        is_refused(&stores.server, &next, "did not write the last signed checkpoint").await;
        stores.stop().await;
        stores.alter("keys", &format!("UPDATE checkpoints SET size = {}", read.size)).await;
        stores.server.up().await;
        assert_eq!(signed(&stores.server).await, next);
    }
}

fn copy(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(to.join(format!("{file}{suffix}")));
        }
        let copied = Command::new("cp").arg("-a").arg(from.join(file)).arg(to).status().expect("cp runs");
        assert!(copied.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_is_signed_only_if_it_says_that_it_went_back() {
    let mut server = Server::start_with(&SETTINGS).await;
    let keys = keys(&server).await;
    let (older, newer) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    assert!(server.terminate().await.success());
    let stores = ["journal.db", "read-models.db"];
    copy(&server.data(), older.path(), &stores);
    server.up().await;
    server.default_app().register(&email("ada")).await;
    let note = signed(&server).await;
    let size = verified(&note, &keys_of(&keys)).expect("signed").size;
    assert!(server.terminate().await.success());
    copy(&server.data(), newer.path(), &stores);

    // Journal and read models of one moment: nobody but the key store knows that there was more.
    copy(older.path(), &server.data(), &stores);
    server.up().await;
    is_refused(&server, &note, "as it was signed").await;
    // Another history of the same length, and longer.
    while (server.events().await.len() as u64) < size + 3 {
        server.default_app().register(&email("eve")).await;
        server.default_app().register(&email("eve")).await;
    }
    is_refused(&server, &note, "are not those that were signed").await;
    assert!(server.log().contains("no checkpoint is signed"));
    assert!(server.terminate().await.success());

    // The newest backup.
    copy(newer.path(), &server.data(), &stores);
    server.up().await;
    assert_eq!(signed(&server).await, note);
    assert!(server.metrics().await.contains("watchword_checkpoint_refused 0\n"));
    assert!(server.terminate().await.success());

    // The same loss with read models that know of it: the start records it, and the record is signed.
    copy(older.path(), &server.data(), &["journal.db"]);
    server.up().await;
    let events = server.events().await;
    assert_eq!(of_type(&events, "JournalWentBack").len(), 1);
    let next = is_signed(&server).await;
    let read = verified(&next, &keys_of(&keys)).expect("signed");
    let events = server.events().await;
    let record = of_type(&events, "JournalWentBack")[0]["position"].as_u64().expect("a position");
    assert!(record <= read.size && Tree::of(&events).root(read.size) == read.root);
    assert_ne!(next, note);

    // Only once: what was signed since is compared with again.
    assert!(server.terminate().await.success());
    copy(older.path(), &server.data(), &stores);
    server.up().await;
    is_refused(&server, &next, "").await;
}
