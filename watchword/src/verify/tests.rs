use std::path::PathBuf;

use serde_json::{Value, json};
use tlog::note::{Kind, Signer};
use tlog::proof::Plan;

use super::testing::{checkpoint, file, lines, signer, tree, write};
use super::{Fault, Verdict, Witnesses, export, receipt};

fn log_key() -> Signer {
    signer("log.example", Kind::Log, 1)
}

/// What is found in an export, against checkpoints of the first so many events of the honest one.
fn found(export: &[String], sizes: &[usize]) -> Verdict {
    let folder = tempfile::tempdir().expect("a folder");
    let honest = lines(3000);
    let path = write(folder.path(), "export.ndjson", &file(export));
    let checkpoints: Vec<PathBuf> = sizes
        .iter()
        .map(|size| {
            write(folder.path(), &format!("{size}.txt"), &checkpoint(&honest[..*size], &[&log_key()]))
        })
        .collect();
    let keys = vec![log_key().key().clone()];
    export::verify(&path, &checkpoints, keys, &Witnesses::default()).expect("it can be read")
}

fn positions(verdict: &Verdict) -> Vec<Option<u64>> {
    let mut positions: Vec<_> = verdict.faults.iter().map(|fault| fault.position).collect();
    positions.sort_unstable();
    positions
}

fn told(verdict: &Verdict) -> String {
    let told = |fault: &Fault| format!("{}\n", fault.problem);
    verdict.checked.iter().cloned().chain(verdict.faults.iter().map(told)).collect()
}

#[test]
fn an_honest_export_is_proved_by_checkpoints_of_its_size_or_of_less() {
    let lines = lines(3000);
    let verdict = found(&lines, &[3000, 1, 2049]);
    assert!(verdict.is_fine(), "{}", told(&verdict));
    let (tree, _) = tree(&lines);
    assert_eq!(verdict.facts["events"], 3000);
    assert_eq!(verdict.facts["streams"], 11);
    assert_eq!(verdict.facts["origin"], "https://log.example");
    assert_eq!(verdict.facts["root"], tree.root().to_string());
    assert_eq!(verdict.facts["proven_events"], 3000);
    assert_eq!(verdict.facts["checkpoints"].as_array().map(Vec::len), Some(3));
    let verdict = found(&lines, &[2049]);
    assert!(
        verdict.is_fine() && told(&verdict).contains("events 2050 to 3000 came after"),
        "{}",
        told(&verdict)
    );
    assert_eq!(verdict.facts["proven_events"], 2049);
}

#[test]
fn a_change_that_breaks_the_form_is_named_by_its_position() {
    let honest = lines(3000);
    for (from, to, why) in [
        (r#""position":1234"#, r#""position":1234.0"#, "shortest form"),
        (r#""specversion":"1.0""#, r#""specversion":"1.1""#, "specversion"),
        (r#""user_id":"0000"#, r#""user_id":"x000"#, "cannot read ProfileUpdated v1"),
        ("ProfileUpdated.v1", "ProfileUpdated.v8", "dataschema"),
        (r#""personal":"AQEB"#, r#""personal":"AgEB"#, "sealed part is not one"),
        ("{", "{ ", "canonical"),
        ("https://log.example/", "https://other.example/", "it is of the log https://other.example"),
    ] {
        let mut lines = honest.clone();
        lines[1233] = lines[1233].replacen(from, to, 1);
        assert_ne!(lines[1233], honest[1233], "{from}");
        let verdict = found(&lines, &[3000, 1000]);
        let told = told(&verdict);
        let at = positions(&verdict);
        assert!(at.contains(&Some(1234)) && told.contains(why), "{from}: {told}");
        assert!(at.iter().flatten().all(|at| [1234, 1235].contains(at)), "{from}: {told}");
    }
}

#[test]
fn a_change_that_keeps_the_form_is_shown_by_the_root_and_narrowed_down() {
    let mut lines = lines(3000);
    lines[1233] = lines[1233].replace("2023-11-14T22:33:54Z", "2023-11-14T22:33:53Z");
    let verdict = found(&lines, &[3000, 1000, 2000]);
    let told = told(&verdict);
    assert_eq!(positions(&verdict), [None, None], "{told}");
    assert!(told.contains("from 1001 to 2000 was changed") && told.contains("from 1001 to 3000"), "{told}");
    assert_eq!(verdict.facts["proven_events"], 1000);
}

#[test]
fn what_is_removed_moved_or_added_is_named_by_its_position() {
    let honest = lines(3000);
    let mut removed = honest.clone();
    removed.drain(1233..1235);
    let verdict = found(&removed, &[3000, 1000]);
    let text = told(&verdict);
    assert!(
        text.contains("event 1234: it and those up to event 1235 are missing (before line 1234)"),
        "{text}"
    );
    assert!(text.contains("version 125 of user-"), "the streams show it, too: {text}");
    assert!(text.contains("has only 2998 events: at least 2 are missing"), "{text}");
    assert_eq!(verdict.facts["proven_events"], 1000);

    let mut swapped = honest.clone();
    swapped.swap(1233, 1234);
    let verdict = found(&swapped, &[3000]);
    assert!(told(&verdict).contains("its root cannot be compared"), "{}", told(&verdict));
    assert_eq!(positions(&verdict), [None, Some(1234)], "{}", told(&verdict));
    assert!(
        told(&verdict).contains("out of order: it stands behind event 1235 (line 1235)"),
        "{}",
        told(&verdict)
    );

    let mut twice = honest.clone();
    twice.insert(1500, honest[1233].clone());
    let verdict = found(&twice, &[3000]);
    let text = told(&verdict);
    assert!(text.contains("event 1234: it is there twice, or behind later ones (line 1501)"), "{text}");

    let mut same_id = honest.clone();
    same_id[1233] =
        same_id[1233].replace("0000000007d2", "0000000004d3").replace("0000000004d2", "0000000004d3");
    let text = told(&found(&same_id, &[1000]));
    assert!(text.contains("event 1235: it has the id of event 1234"), "{text}");
}

#[test]
fn a_cut_tail_a_cut_line_and_another_file_are_named() {
    let honest = lines(3000);
    let text = told(&found(&honest[..2990], &[3000, 2000]));
    assert!(text.contains("the file has only 2990 events: at least 10 are missing"), "{text}");
    let mut cut = honest.clone();
    cut[2999].truncate(100);
    let verdict = found(&cut, &[2000]);
    assert_eq!(positions(&verdict), [Some(3000)], "{}", told(&verdict));
    let text = told(&found(&["a".to_owned(), String::new()], &[3000]));
    assert!(text.contains("event 1: it is not canonical JSON") && text.contains("event 2: "), "{text}");
    let text = told(&found(&[], &[1]));
    assert!(text.contains("the file has only 0 events"), "{text}");
    let text = told(&found(&honest[1000..], &[3000]));
    assert!(text.contains("event 1: it and those up to event 1000 are missing (before line 1)"), "{text}");
}

#[test]
fn signatures_of_others_prove_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = lines(20);
    let export = write(folder.path(), "export.ndjson", &file(&lines));
    let (witness, stranger) = (signer("w.example", Kind::Witness, 3), signer("log.example", Kind::Log, 4));
    let verify = |signers: &[&Signer], witnesses: &[&Signer]| {
        let note = write(folder.path(), "note.txt", &checkpoint(&lines, signers));
        let witnesses = Witnesses(witnesses.iter().map(|it| it.key().clone()).collect());
        let verdict = export::verify(&export, &[note], vec![log_key().key().clone()], &witnesses);
        verdict.expect("it can be read")
    };
    let key = log_key();
    let verdict = verify(&[&key, &witness], &[&witness]);
    assert!(verdict.is_fine() && told(&verdict).contains("co-signed by w.example"), "{}", told(&verdict));
    assert!(!verify(&[&key], &[&witness]).is_fine());
    assert!(!verify(&[&stranger], &[]).is_fine());
    assert!(verify(&[&stranger, &key], &[]).is_fine());
}

#[test]
fn a_receipt_proves_one_event_at_its_position() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = lines(300);
    let (_, leaves) = tree(&lines);
    let receipt = |position: u64| {
        let plan = Plan::inclusion(position - 1, 300).expect("it is in the tree");
        let hash_of = |node: tlog::Node| {
            let first = usize::try_from(node.index << node.height).ok()?;
            tlog::Hash::of_complete(&leaves[first..first + (1 << node.height)])
        };
        let index = usize::try_from(position - 1).expect("small");
        json!({
            "position": position,
            "event": serde_json::from_str::<Value>(&lines[index]).expect("JSON"),
            "size": 300,
            "hashes": plan.hashes(hash_of).expect("all are known"),
            "checkpoint": checkpoint(&lines, &[&log_key()]),
        })
    };
    let verify = |receipt: &Value, keys: &[&Signer]| {
        let path = write(folder.path(), "receipt.json", &format!("{receipt:#}"));
        let keys = keys.iter().map(|it| it.key().clone()).collect();
        receipt::verify(&path, keys, &Witnesses::default())
    };
    for position in [1, 2, 256, 257, 300] {
        let verdict = verify(&receipt(position), &[&log_key()]).expect("a receipt");
        assert!(verdict.is_fine(), "{position}: {}", told(&verdict));
    }
    let honest = receipt(17);
    let changed = |path: &str, value: Value| {
        let mut receipt = honest.clone();
        *receipt.pointer_mut(path).expect("it is there") = value;
        verify(&receipt, &[&log_key()])
    };
    for (path, value) in [
        ("/position", json!(18)),
        ("/size", json!(299)),
        ("/event/time", json!("2023-11-14T22:13:30Z")),
        ("/event/data/at", json!("2023-11-14T22:13:38Z")),
        ("/event/appid", json!("other")),
        ("/hashes/3", receipt(18)["hashes"][4].clone()),
        ("/hashes", json!([])),
        ("/checkpoint", checkpoint(&lines[..299], &[&log_key()]).into()),
        ("/checkpoint", checkpoint(&lines, &[&signer("log.example", Kind::Log, 9)]).into()),
        ("/event", receipt(18)["event"].clone()),
    ] {
        let verdict = changed(path, value.clone()).expect("a receipt");
        assert!(!verdict.is_fine(), "{path} {value}");
    }
    assert!(changed("/hashes/0", json!("short")).is_err());
    assert!(changed("/checkpoint", json!("no note")).is_err());
    assert!(!verify(&honest, &[&signer("log.example", Kind::Log, 9)]).expect("a receipt").is_fine());
}
