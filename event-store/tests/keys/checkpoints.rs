//! The checkpoint that was signed last.

use std::fs;

use domain::AppId;
use event_store::{Clock, KeyStore, MasterKey, SignedCheckpoint, StoreError, SystemClock};
use futures::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use test_services::Postgres;
use uuid::Uuid;

use crate::place::Place;

/// What every key store must do, wherever it is located.
mod contract {
    use super::*;

    /// What was signed last changes only from what it was, whoever is first.
    pub async fn one_of_racing_nodes_advances_the_checkpoint(place: Place) {
        let master = MasterKey::generate();
        let keys = place.open(&master).await.expect("opens");
        assert_eq!(keys.checkpoint().await, Ok(None));
        assert!(!keys.lacks_checkpoints());
        for size in 1..=3 {
            let before = keys.checkpoint().await.expect("reads");
            let candidates: Vec<_> = (0..8).map(|node| checkpoint(size, node)).collect();
            let tried =
                candidates.iter().map(|candidate| keys.advance_checkpoint(before.as_ref(), candidate));
            let tried: Vec<bool> = join_all(tried).await.into_iter().map(|it| it.expect("answers")).collect();
            let winners: Vec<_> = candidates.iter().zip(&tried).filter(|(_, won)| **won).collect();
            assert_eq!(winners.len(), 1, "{tried:?}");
            let kept = keys.checkpoint().await.expect("reads").expect("there is one");
            assert_eq!(&kept.checkpoint, winners[0].0);
            // From one that it no longer is, and from none.
            for stale in [before.as_ref(), None] {
                assert_eq!(keys.advance_checkpoint(stale, &checkpoint(9, 9)).await, Ok(false));
            }
        }
        keys.close().await;
        let keys = place.open(&master).await.expect("opens again");
        assert_eq!(keys.checkpoint().await.expect("reads").expect("there is one").checkpoint.size, 3);
    }

    pub async fn a_checkpoint_that_somebody_else_wrote_is_refused(place: Place) {
        let keys = place.open(&MasterKey::generate()).await.expect("opens");
        assert_eq!(keys.advance_checkpoint(None, &checkpoint(5, 1)).await, Ok(true));
        for change in
            ["size = 4", "note = 'another'", "signed_at = signed_at + 1", "epochs = root", "mac = root"]
        {
            let put_back = place.alter(change).await;
            let refused = keys.checkpoint().await;
            assert!(matches!(refused, Err(StoreError::Damaged(_))), "{change}: {refused:?}");
            put_back.await;
            keys.checkpoint().await.expect("it is as it was").expect("there is one");
        }
    }

    /// The newest signature of each witness, as long as it is of the newest checkpoint.
    pub async fn witnesses_sign_the_newest_checkpoint(place: Place) {
        let keys = place.open(&MasterKey::generate()).await.expect("opens");
        let (one, two) = (checkpoint(5, 1), checkpoint(6, 1));
        let line = |witness: &str| format!("\u{2014} {witness} AAAAAAECAwQ=\n");
        assert_eq!(
            keys.keep_cosignature(&one, "a.example", &line("a.example")).await,
            Ok(false),
            "there is none"
        );
        assert_eq!(keys.advance_checkpoint(None, &one).await, Ok(true));
        for witness in ["b.example", "a.example", "b.example"] {
            assert_eq!(keys.keep_cosignature(&one, witness, &line(witness)).await, Ok(true));
        }
        assert_eq!(
            keys.keep_cosignature(&two, "a.example", &line("a.example")).await,
            Ok(false),
            "of another"
        );
        assert_eq!(keys.keep_cosignature(&one, "c.example", "no signature\n").await, Ok(true));
        let kept = keys.checkpoint().await.expect("reads").expect("there is one");
        assert_eq!(kept.cosignatures.len(), 3);
        assert_eq!(kept.note(), format!("{}{}{}", one.note, line("a.example"), line("b.example")));
        assert_eq!(keys.advance_checkpoint(Some(&kept), &two).await, Ok(true));
        let newest = keys.checkpoint().await.expect("reads").expect("there is one");
        assert_eq!(newest.note(), two.note, "none has signed this one yet");
        assert_eq!(keys.keep_cosignature(&one, "a.example", &line("a.example")).await, Ok(false), "too late");
        assert_eq!(keys.keep_cosignature(&two, "a.example", &line("a.example")).await, Ok(true));
        let newest = keys.checkpoint().await.expect("reads").expect("there is one");
        assert_eq!(newest.cosignatures, [line("a.example")]);
    }
}

on_both! {
    one_of_racing_nodes_advances_the_checkpoint
    a_checkpoint_that_somebody_else_wrote_is_refused
    witnesses_sign_the_newest_checkpoint
}

/// One that a node signed, as another one would not.
fn checkpoint(size: u64, node: u8) -> SignedCheckpoint {
    SignedCheckpoint {
        size,
        root: tlog::Hash([node; 32]),
        last: Uuid::from_u128(size.into()),
        note: format!("login.example.com\n{size}\nroot\n\n\u{2014} login.example.com AAAAAA{node:02}\n"),
        epochs: vec![Uuid::from_u128(7)],
        signed_at: SystemClock.now(),
    }
}

/// A store of the format before checkpoints is only looked at: it opens, and has none. The next start upgrades it.
#[tokio::test]
async fn a_store_of_format_3_is_looked_at_and_upgraded() {
    let directory = TempDir::new().expect("makes a directory");
    let (path, master) = (directory.path().join("keys.db"), MasterKey::generate());
    let place = Place::File(directory);
    let keys = place.open(&master).await.expect("makes it");
    let app = AppId::default_app();
    keys.put_signing_key(&app, "kid", "ES256", b"a private key").await.expect("keeps");
    keys.close().await;
    let mut file = SqliteConnectOptions::new().filename(&path).connect().await.expect("opens");
    file.execute("DROP TABLE checkpoints; DROP TABLE cosignatures; PRAGMA user_version = 3")
        .await
        .expect("writes");
    file.close().await.expect("closes");
    let before = fs::read(&path).expect("reads");

    let looked = KeyStore::look(&path, &master).await.expect("it can be looked at");
    assert!(looked.lacks_checkpoints());
    assert_eq!(looked.checkpoint().await, Ok(None));
    assert!(looked.signing_key(&app, "kid").await.expect("reads").is_some());
    looked.close().await;
    assert_eq!(fs::read(&path).expect("reads"), before, "nothing was changed");

    let keys = place.open(&master).await.expect("upgrades it");
    assert!(!keys.lacks_checkpoints() && keys.signing_key(&app, "kid").await.expect("reads").is_some());
    assert_eq!(keys.advance_checkpoint(None, &checkpoint(1, 1)).await, Ok(true));
}
