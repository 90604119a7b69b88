//! Proofs, tiles and receipts: another implementation checks them, and finds only what was signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::log::{Tree, canonical, keys_of, verified};
use tests::{Answer, Server, email};
use tlog_tiles::tlog::{Hash, check_record, check_tree, record_hash};

/// More than a tile of events.
const EVENTS: usize = 280;

/// A server with so many events, its signed checkpoint, its keys and its events.
struct Log {
    server: Server,
    keys: String,
    note: String,
    events: Vec<Value>,
}

impl Log {
    async fn new(events: usize) -> Self {
        // Nothing is signed without being asked for.
        let settings = [("WATCHWORD_RATE_LIMITS", "off"), ("WATCHWORD_CHECKPOINT_INTERVAL", "86400")];
        let server = Server::start_with(&settings).await;
        let app = server.default_app();
        let tokens = app.register(&email("ada")).await;
        let mut count = server.events().await.len();
        while count < events {
            let body = json!({ "name": format!("Ada {count}") });
            app.patch("auth/me").bearer(&tokens.access).json(&body).await.expect(200);
            count += 1;
        }
        let key = server.platform_key();
        let keys = server.get("/v1/audit/key").bearer(&key).await.expect(200).text;
        let note = server.post("/v1/audit/checkpoint").bearer(&key).await.expect(200).text;
        let events = server.events().await;
        Self { server, keys, note, events }
    }

    async fn get(&self, path: &str) -> Answer {
        self.server.get(path).bearer(&self.server.platform_key()).await
    }

    fn size(&self) -> u64 {
        self.events.len() as u64
    }
}

fn hash(text: &Value) -> Hash {
    Hash(STANDARD.decode(text.as_str().expect("a text")).expect("base64").try_into().expect("32 bytes"))
}

fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().expect("a list").iter().map(hash).collect()
}

#[tokio::test]
async fn every_event_and_every_beginning_is_proved() {
    let log = Log::new(EVENTS).await;
    let (size, tree) = (log.size(), Tree::of(&log.events));
    for of in [size, size - 1, 257, 256, 1] {
        for position in [1, of / 2 + 1, of] {
            let named = if of == size { String::new() } else { format!("&size={of}") };
            let path = format!("/v1/audit/proof/inclusion?position={position}{named}");
            let proof = log.get(&path).await.expect(200).json();
            let event = &log.events[usize::try_from(position).expect("small") - 1];
            let leaf = record_hash(canonical(event).as_bytes());
            assert_eq!((&proof["leaf_index"], &proof["size"]), (&json!(position - 1), &json!(of)), "{proof}");
            assert_eq!(hash(&proof["leaf_hash"]), leaf);
            let root = Hash(tree.root(of));
            assert_eq!(hash(&proof["root"]), root);
            check_record(&hashes(&proof["hashes"]), of, root, position - 1, leaf).expect("it is in the tree");
        }
        for from in [1, of / 2 + 1, of] {
            let path = format!("/v1/audit/proof/consistency?from={from}&to={of}");
            let proof = log.get(&path).await.expect(200).json();
            let (old, new) = (Hash(tree.root(from)), Hash(tree.root(of)));
            assert_eq!((hash(&proof["from_root"]), hash(&proof["to_root"])), (old, new));
            let hashes = hashes(&proof["hashes"]);
            if from == of {
                assert!(hashes.is_empty());
            } else {
                check_tree(&hashes, of, new, from, old).expect("it is its beginning");
            }
        }
    }
    let beyond = size + 1;
    for path in [
        format!("proof/inclusion?position={beyond}"),
        "proof/inclusion?position=0".to_owned(),
        format!("proof/inclusion?position=1&size={beyond}"),
        "proof/inclusion?position=2&size=1".to_owned(),
        "proof/inclusion?position=1&size=0".to_owned(),
        format!("proof/consistency?from=1&to={beyond}"),
        "proof/consistency?from=3&to=2".to_owned(),
        "proof/consistency?from=0".to_owned(),
        format!("receipt?position={beyond}"),
        "receipt?position=0".to_owned(),
    ] {
        log.get(&format!("/v1/audit/{path}")).await.problem(422, "validation_failed");
    }
    for path in
        ["proof/inclusion", "proof/inclusion?position=-1", "proof/consistency?to=2", "receipt?position=x"]
    {
        log.get(&format!("/v1/audit/{path}")).await.problem(400, "malformed_request");
    }
}

#[tokio::test]
async fn tiles_are_files_of_a_static_log_and_end_with_the_checkpoint() {
    let log = Log::new(EVENTS).await;
    let rest = log.size() - 256;
    let tile = async |path: &str| {
        log.server.get(format!("/v1/audit/tile/{path}")).bearer(&log.server.platform_key()).await
    };
    let bytes = async |path: &str| {
        let answer = log
            .server
            .get(format!("/v1/audit/tile/{path}"))
            .bearer(&log.server.platform_key())
            .stream()
            .await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
        answer.bytes().await.expect("it comes").to_vec()
    };
    // Events behind their lengths, and their hashes.
    let leaves: Vec<Hash> = log.events.iter().map(|event| record_hash(canonical(event).as_bytes())).collect();
    let (entries, last) = (bytes("entries/000").await, bytes(&format!("entries/001.p/{rest}")).await);
    let mut expected: Vec<u8> = Vec::new();
    for event in &log.events {
        let text = canonical(event);
        expected.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
        expected.extend(text.into_bytes());
    }
    assert_eq!([entries, last].concat(), expected);
    let flat = |hashes: &[Hash]| hashes.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>();
    assert_eq!(bytes("0/000").await, flat(&leaves[..256]));
    assert_eq!(bytes("0/000.p/7").await, flat(&leaves[..7]), "as it was when the log was smaller");
    assert_eq!(bytes(&format!("0/001.p/{rest}")).await, flat(&leaves[256..]));
    let above = bytes("1/000.p/1").await;
    assert_eq!(above, Tree::of(&log.events[..256]).root(256));

    // What is not signed yet is not there.
    log.server.default_app().register(&email("eve")).await;
    let beyond = rest + 1;
    for path in [
        format!("0/001.p/{beyond}"),
        format!("entries/001.p/{beyond}"),
        "0/001".to_owned(),
        "entries/001".to_owned(),
        "1/000".to_owned(),
        "2/000".to_owned(),
        "0/x001/000".to_owned(),
        "0/x999/x999/000.p/3".to_owned(),
        "0/1".to_owned(),
        "0/000.p/256".to_owned(),
        "64/000".to_owned(),
        "data/000".to_owned(),
    ] {
        tile(&path).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_receipt_proves_its_event_offline() {
    let log = Log::new(1).await;
    let body = json!({"name": "auditor", "permissions": ["audit:read"]});
    let path = "/v1/apps/platform/admin/api-keys";
    let made = log.server.post(path).bearer(&log.server.platform_key()).json(&body).await.expect(201).json();
    let auditor = made["key"].as_str().expect("a key").to_owned();
    // The newest event, which no checkpoint covers yet, gets one signed.
    let events = log.server.events().await;
    for position in [1, events.len()] {
        let path = format!("/v1/audit/receipt?position={position}");
        let receipt = log.server.get(&path).bearer(&auditor).await.expect(200).json();
        let members: Vec<&String> = receipt.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["checkpoint", "event", "hashes", "position", "size"]);
        let note = receipt["checkpoint"].as_str().expect("a note");
        let signed = verified(note, &keys_of(&log.keys)).expect("it is signed");
        assert_eq!((&receipt["size"], &receipt["position"]), (&json!(signed.size), &json!(position)));
        assert_eq!(
            (&receipt["event"], &receipt["event"]["position"]),
            (&events[position - 1], &json!(position))
        );
        let leaf = record_hash(canonical(&receipt["event"]).as_bytes());
        let index = position as u64 - 1;
        let hashes = hashes(&receipt["hashes"]);
        check_record(&hashes, signed.size, Hash(signed.root), index, leaf).expect("it is in the tree");
        let mut other = receipt["event"].clone();
        other["data"]["at"] = json!("2026-01-01T00:00:00Z");
        let leaf = record_hash(canonical(&other).as_bytes());
        assert!(check_record(&hashes, signed.size, Hash(signed.root), index, leaf).is_err());
    }
    assert_ne!(log.get("/v1/audit/checkpoint").await.expect(200).text, log.note);
    for path in [
        "/v1/audit/proof/inclusion?position=1",
        "/v1/audit/proof/consistency?from=1",
        "/v1/audit/tile/entries/000.p/1",
        "/v1/audit/tile/0/000.p/1",
    ] {
        let answer = log.server.get(path).bearer(&auditor).stream().await;
        assert_eq!(answer.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn an_event_that_no_tile_could_hold_is_refused() {
    let server = Server::start().await;
    let create = async |count: usize| {
        let uri = |number| format!("https://acme.example/{number:02}{}", "a".repeat(1950));
        let uris: Vec<String> = (0..count).map(uri).collect();
        let body = json!({"app_id": "acme", "name": "Acme", "settings": {"redirect_uris": uris}});
        server.post("/v1/apps").bearer(&server.platform_key()).json(&body).await
    };
    let before = server.events().await;
    let refused = create(31).await.problem(413, "event_too_long");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("61440 bytes")), "{refused}");
    assert_eq!(server.events().await, before);
    create(29).await.expect(201);
}
