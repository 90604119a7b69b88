//! The witness of a log that is not ours: crates of others make its trees, proofs and notes, and verify what it signed.

use std::fs;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures::future::join_all;
use tests::transparency::{Log, time_of, verify};
use tests::{Witness, until};

const ORIGIN: &str = "log.example/audit";

fn log_of(entries: u64) -> Log {
    let mut log = Log::new(ORIGIN, 1);
    log.grow(entries, "event");
    log
}

/// Fails unless the witness's line signs this checkpoint of the log.
#[track_caller]
fn assert_signed(witness: &Witness, log: &Log, size: u64, line: &str) {
    let note = format!("{}{line}", log.checkpoint(size));
    let verified = verify(&note, &[&log.vkey(), &witness.vkey()]);
    assert_eq!(verified.signers, [log.origin(), "witness.example/w1"], "{note}");
    assert_eq!((verified.size, verified.root), (size, log.root(size).to_string()));
    let now = UNIX_EPOCH.elapsed().expect("it is later").as_secs();
    assert!(time_of(line).abs_diff(now) < 300, "it says when: {line}");
}

#[tokio::test]
async fn a_growing_log_is_signed_step_by_step() {
    let log = log_of(70);
    let witness = Witness::start(&[&log.vkey()]).await;
    let mut signed = 0;
    // From nothing, one entry more, within and across powers of two, and the same again.
    for size in [0, 0, 1, 2, 3, 7, 8, 8, 9, 32, 64, 70] {
        let answer = witness.add(log.request(signed, size)).await.expect(200);
        assert_eq!(answer.kind, "text/plain; charset=utf-8");
        assert_signed(&witness, &log, size, &answer.text);
        signed = size;
    }
    // Whoever does not know the size, or lags, hears it.
    for old in [0, 9, 69] {
        witness.add(log.request(old, 70)).await.conflict(70);
    }
    witness.add(log.request(9, 32)).await.conflict(70);

    let path = format!("/{}/checkpoint", "0".repeat(64));
    witness.get(&path).await.expect(404);
    let newest = witness.get(&format!("/{}/checkpoint", sha256(ORIGIN))).await.expect(200);
    let verified = verify(&newest.text, &[&log.vkey(), &witness.vkey()]);
    assert_eq!((verified.size, verified.signers.len()), (70, 2));
}

/// By another implementation than the witness's.
fn sha256(text: &str) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum is there");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")[..64].to_owned()
}

#[tokio::test]
async fn each_refusal_has_its_status() {
    let log = log_of(20);
    let (second, stranger) = (log.with_key(2), log.with_key(3));
    let mut other = Log::new("other.example", 4);
    other.grow(5, "other");
    let witness = Witness::start(&[&log.vkey(), &second.vkey(), &other.vkey()]).await;
    let add = async |body: String| witness.add(body).await;

    // Another log, another key, and a signature that the named key did not make, even beside a good one.
    let mut unknown = Log::new("unknown.example", 1);
    unknown.grow(3, "x");
    add(unknown.request(0, 3)).await.expect(404);
    add(stranger.request(0, 10)).await.expect(403);
    let misattributed = log.checkpoint(9).rsplit('\n').nth(1).expect("a line").to_owned();
    add(format!("old 0\n\n{}\n{misattributed}\n", log.text(10))).await.expect(403);
    add(format!("{}{misattributed}\n", log.request(0, 10))).await.expect(403);
    // Nothing of that counts as signed; signatures of strangers are ignored.
    let signed_by_stranger = stranger.checkpoint(10).rsplit('\n').nth(1).expect("a line").to_owned();
    let answer = add(format!("{}{signed_by_stranger}\n", log.request(0, 10))).await.expect(200);
    assert_signed(&witness, &log, 10, &answer.text);
    // The log's second key is one of the same log.
    let answer = add(second.request(10, 11)).await.expect(200);
    assert_signed(&witness, &second, 11, &answer.text);
    add(format!("old 11\n\n{}", log.checkpoint(10))).await.expect(400);
    add(log.request(10, 20)).await.conflict(11);

    // A proof of something else, none, one too many, and one where none may be.
    add(format!("old 11\n{}\n{}", log.proof(12, 20), log.checkpoint(20))).await.expect(422);
    add(format!("old 11\n\n{}", log.checkpoint(20))).await.expect(422);
    let hash = log.root(1);
    add(format!("old 11\n{}{hash}\n\n{}", log.proof(11, 20), log.checkpoint(20))).await.expect(422);
    add(format!("old 11\n{hash}\n\n{}", log.checkpoint(11))).await.expect(422);
    add(format!("old 0\n{hash}\n\n{}", other.checkpoint(5))).await.expect(422);
    // A tree of no entries has one root.
    add(format!("old 0\n\n{}", other.sign(&format!("other.example\n0\n{hash}\n")))).await.expect(422);
    add(other.request(0, 0)).await.expect(200);
    // The same size with another root.
    let forged = log.sign(&format!("{ORIGIN}\n11\n{hash}\n"));
    add(format!("old 11\n\n{forged}")).await.expect(422);
    assert!(witness.log().contains("contradicts=true"), "the proof of two histories is in the log");

    // None of it changed what is remembered.
    add(log.request(11, 11)).await.expect(200);
    add(log.request(11, 20)).await.expect(200);
    add(other.request(0, 5)).await.expect(200);
}

#[tokio::test]
async fn what_is_malformed_or_not_offered_is_refused() {
    let log = log_of(20);
    let witness = Witness::start(&[&log.vkey()]).await;
    let good = log.request(0, 10);
    for bad in [
        String::new(),
        good.replace("old 0\n", "old 00\n"),
        good.replace("old 0\n", "old\n"),
        good.replace('\n', "\r\n"),
        good.replace("old 0\n\n", "old 0\n"),
        good.replace("old 0\n", "old 0\nnot a hash\n"),
        good.replace("\n10\n", "\nten\n"),
        good[..good.len() - 1].to_owned(),
        format!("old 0\n{}\n{}", format!("{}\n", log.root(1)).repeat(64), log.checkpoint(10)),
        log.sign("no checkpoint\n"),
    ] {
        witness.add(bad.clone()).await.expect(400);
    }
    witness.add(vec![0xFF; 10]).await.expect(400);
    witness.add("x".repeat(200 * 1024)).await.expect(413);
    witness.get("/add-checkpoint").await.expect(405);
    witness.get("/").await.expect(404);
    // One who sends no more than the beginning does not wait for ever, and holds up nobody.
    let began = Instant::now();
    let (slow, quick) = tokio::join!(slow(&witness), witness.add(good));
    quick.expect(200);
    assert!(slow.starts_with("HTTP/1.1 408 ") && began.elapsed() < Duration::from_mins(1), "{slow}");
}

/// What a client hears that sends the head and a part of the body.
async fn slow(witness: &Witness) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = witness.url("").replace("http://", "");
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("it listens");
    let head =
        format!("POST /add-checkpoint HTTP/1.1\r\nHost: {address}\r\nContent-Length: 100\r\n\r\nold 0");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn of_two_histories_one_is_signed() {
    let mut honest = log_of(10);
    let witness = Witness::start(&[&honest.vkey()]).await;
    witness.add(honest.request(0, 10)).await.expect(200);
    // The operator keeps a second copy, which goes on in another way.
    let mut forked = honest.clone();
    honest.grow(10, "for the one auditor");
    forked.grow(30, "for the other auditor");
    witness.add(honest.request(10, 15)).await.expect(200);
    // The same size, another size by any proof that the fork can make, and from the start.
    witness.add(forked.request(15, 15)).await.expect(422);
    for size in [16, 20, 32, 40] {
        for from in [1, 8, 10, 15] {
            let body = format!("old 15\n{}\n{}", forked.proof(from, size), forked.checkpoint(size));
            witness.add(body).await.expect(422);
        }
        witness.add(forked.request(0, size)).await.conflict(15);
        witness.add(forked.request(10, size)).await.conflict(15);
    }
    let answer = witness.add(honest.request(15, 20)).await.expect(200);
    assert_signed(&witness, &honest, 20, &answer.text);
}

/// Many ask at once, with two histories: what was signed is one.
#[tokio::test]
async fn of_competing_requests_one_is_signed() {
    let base = log_of(8);
    let witness = Witness::start(&[&base.vkey()]).await;
    witness.add(base.request(0, 8)).await.expect(200);
    let (mut one, mut other) = (base.clone(), base.clone());
    one.grow(40, "one");
    other.grow(40, "other");
    let mut signed = 8;
    for _ in 0..4 {
        let bodies = (signed + 1..signed + 9).flat_map(|size| {
            let logs =
                [&one, &other].map(|log| (log.root(size).to_string(), size, log.request(signed, size)));
            logs.into_iter()
        });
        let answers = bodies.map(async |(root, size, body)| (root, size, witness.add(body).await));
        let answers = join_all(answers).await;
        let won: Vec<_> = answers.iter().filter(|(.., answer)| answer.status == 200).collect();
        let [(root, size, _)] = won.as_slice() else { panic!("one is signed: {answers:?}") };
        for (.., answer) in answers.iter().filter(|(.., answer)| answer.status != 200) {
            // Of a later round, or of the other history.
            assert!(matches!(answer.status, 409 | 422), "{answer:?}");
        }
        signed = *size;
        // From the first on, only the history that won can go on.
        if one.root(signed).to_string() != *root {
            std::mem::swap(&mut one, &mut other);
        }
        assert_eq!(one.root(signed).to_string(), *root);
        other = one.clone();
    }
}

/// Killed at any moment and started again, it has signed one history. The kernel decides when.
#[tokio::test]
async fn a_killed_witness_never_signs_a_second_history() {
    let base = log_of(8);
    let mut witness = Witness::start(&[&base.vkey()]).await;
    witness.add(base.request(0, 8)).await.expect(200);
    // Each round has two histories that begin with what was answered, and differ from the next entry on.
    let (mut signed, mut last) = (8, base);
    for round in 0..15_u64 {
        let mut forks = [last.clone(), last.clone()];
        forks[0].grow(60, &format!("one {round}"));
        forks[1].grow(60, &format!("other {round}"));
        let until_killed = async |log: &Log| {
            let (mut old, mut answered) = (signed, Vec::new());
            for size in signed + 1..=signed + 60 {
                match witness.attempt(log.request(old, size)).await {
                    Ok(answer) if answer.status == 200 => {
                        answered.push(size);
                        old = size;
                    }
                    // The other history was first, or it is gone.
                    Ok(_) | Err(_) => break,
                }
            }
            answered
        };
        let pid = witness.pid();
        let kill = async {
            tokio::time::sleep(Duration::from_millis(round * 7 % 60)).await;
            test_services::signal(pid, "KILL");
        };
        let (one, other, ()) = tokio::join!(until_killed(&forks[0]), until_killed(&forks[1]), kill);
        assert!(one.is_empty() || other.is_empty(), "round {round}: both were signed: {one:?}, {other:?}");
        witness.ended().await;
        witness.up().await;
        // What was answered holds; what was on its way may.
        let newest = witness.get(&format!("/{}/checkpoint", sha256(ORIGIN))).await.expect(200);
        let newest = verify(&newest.text, &[&last.vkey(), &witness.vkey()]);
        let answered = one.iter().chain(&other).copied().max().unwrap_or(signed);
        assert!(newest.size >= answered, "round {round}: it forgot {answered}: {newest:?}");
        let continued = forks.iter().find(|log| log.root(newest.size).to_string() == newest.root);
        let continued = continued.expect("it is one of the two histories");
        for (log, answered) in forks.iter().zip([&one, &other]).filter(|(_, answered)| !answered.is_empty()) {
            let (size, root) = (answered[answered.len() - 1], log.root(answered[answered.len() - 1]));
            assert_eq!(continued.root(size), root, "round {round}");
        }
        signed = newest.size;
        last = continued.clone();
        last.truncate(signed);
    }
}

/// Ended right before and right after the write.
#[tokio::test]
async fn a_signature_leaves_only_after_it_is_remembered() {
    for (point, remembered) in [("before-witness-write", 0), ("after-witness-write", 5)] {
        let mut log = log_of(9);
        let mut witness = Witness::new(&[&log.vkey()]);
        witness.set_environment("FAILPOINTS", &format!("{point}=return"));
        witness.up().await;
        assert!(witness.attempt(log.request(0, 5)).await.is_err(), "it ended");
        witness.ended().await;
        witness.set_environment("FAILPOINTS", "");
        witness.up().await;
        if remembered > 0 {
            let mut fork = Log::new(ORIGIN, 1);
            fork.grow(9, "other");
            witness.add(fork.request(0, 5)).await.conflict(remembered);
            witness.add(fork.request(remembered, 9)).await.expect(422);
        }
        log.grow(1, "event");
        witness.add(log.request(remembered, 9)).await.expect(200);
    }
}

#[tokio::test]
async fn files_that_are_missing_damaged_or_in_use_are_refused() {
    let log = log_of(9);
    let mut witness = Witness::start(&[&log.vkey()]).await;
    witness.add(log.request(0, 5)).await.expect(200);
    let second = Witness::new(&[&log.vkey()]);
    fs::copy(witness.key_file(), second.key_file()).expect("copied");
    let said = second.refused();
    assert!(said.contains("is missing, but the key in"), "{said}");
    // The same files while they are in use.
    let said = witness.refused();
    assert!(said.contains("cannot listen on") || said.contains("another process uses"), "{said}");
    witness.kill();

    let (key, state) = (witness.key_file(), witness.state_file());
    #[cfg(unix)]
    for file in [&key, &state] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(file).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    let kept = fs::read_to_string(&state).expect("text");
    let other_key = {
        let mut other = Witness::start(&[&log.vkey()]).await;
        other.kill();
        fs::read_to_string(other.key_file()).expect("text")
    };
    for (damaged, why) in [
        (String::new(), "is damaged"),
        ("{}".to_owned(), "it has no format"),
        (kept[..kept.len() / 2].to_owned(), "is damaged"),
        (kept.replace("\"version\": 1", "\"version\": 2"), "format 2"),
        (kept.replace(ORIGIN, "log.example/other"), "was not signed with the key"),
        (kept.replacen("\\n5\\n", "\\n4\\n", 1), "was not signed with the key"),
    ] {
        assert_ne!(damaged, kept);
        fs::write(&state, &damaged).expect("written");
        let said = witness.refused();
        assert!(
            said.contains(why) && said.contains("new witness") || said.contains("new one"),
            "{why}: {said}"
        );
        assert_eq!(fs::read_to_string(&state).expect("text"), damaged, "a refused start changes nothing");
    }
    fs::remove_file(&state).expect("removed");
    assert!(witness.refused().contains("is missing, but the key in"));
    fs::write(&state, &kept).expect("written");

    let own_key = fs::read_to_string(&key).expect("text");
    fs::remove_file(&key).expect("removed");
    assert!(witness.refused().contains("is missing, but the state file"));
    for (text, why) in [
        (other_key.as_str(), "was not signed with the key"),
        ("nonsense", "holds no key"),
        (&own_key.replace("/w1+", "/w2+"), "holds no key"),
    ] {
        fs::write(&key, text).expect("written");
        #[cfg(unix)]
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
        let said = witness.refused();
        assert!(said.contains(why), "{said}");
    }
    fs::write(&key, &own_key).expect("written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
        let said = witness.refused();
        assert!(said.contains("chmod"), "{said}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    }
    // All is as it was.
    witness.up().await;
    until("it signs again", async || witness.add(log.request(5, 9)).await.status == 200).await;
}

#[tokio::test]
async fn a_key_that_is_none_of_a_log_is_wrong_usage() {
    let log = log_of(1);
    let witness = Witness::start(&[&log.vkey()]).await;
    let vkey = witness.vkey();
    for (keys, why) in
        [(vec![vkey.as_str()], "key of a witness"), (vec!["nonsense"], "no key"), (vec![], "--log")]
    {
        let output = Witness::new(&keys).command().output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(why), "{said}");
    }
}
