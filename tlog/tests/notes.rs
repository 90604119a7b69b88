//! Signed notes and checkpoints, as another implementation reads and writes them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use signed_note::{Note as TheirNote, StandardVerifier, Verifier, VerifierList};
use tlog::note::{Kind, Misattributed, Signer};
use tlog::{Checkpoint, Hash, Note, VerifierKey};

fn signer(name: &str, kind: Kind) -> Signer {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    Signer::new(name, kind, pkcs8.as_ref()).expect("a key")
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: "login.example.com/auth".to_owned(), size: 42, root: Hash::leaf(b"root") }
}

fn signed(signers: &[&Signer]) -> Note {
    let text = checkpoint().to_string();
    Note { signatures: signers.iter().map(|signer| signer.sign(&text, 1_800_000_000)).collect(), text }
}

/// The example of the specification (and of Go's `note` package).
#[test]
fn the_known_note_verifies() {
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let verifier: VerifierKey = key.parse().expect("a key");
    assert_eq!(verifier.to_string(), key);
    let note: Note = note.parse().expect("a note");
    assert_eq!(verifier.signed(&note), Some(0));
    let changed = Note { text: note.text.replace("problem", "Problem"), ..note };
    assert_eq!(verifier.signed(&changed), None);
}

#[test]
fn another_implementation_reads_our_notes() {
    let (log, other) = (signer("login.example.com/auth", Kind::Log), signer("other.example", Kind::Log));
    let note = signed(&[&log, &other]).to_string();
    let verifier = StandardVerifier::new(&log.key().to_string()).expect("our vkey");
    assert_eq!((verifier.name(), verifier.key_id()), ("login.example.com/auth", log.key().id()));
    let known = VerifierList::new(vec![Box::new(verifier)]);
    let theirs = TheirNote::from_bytes(note.as_bytes()).expect("a note");
    let (known, others) = theirs.verify(&known).expect("it verifies");
    assert_eq!((known.len(), others.len()), (1, 1));
    let read = tlog_tiles::checkpoint::Checkpoint::from_bytes(theirs.text()).expect("a checkpoint");
    assert_eq!(
        (read.origin(), read.size(), read.hash().0),
        ("login.example.com/auth", 42, checkpoint().root.0)
    );
}

#[test]
fn a_note_reads_as_it_was_written_and_only_its_signers_signed_it() {
    let (log, witness) = (signer("log.example", Kind::Log), signer("witness.example", Kind::Witness));
    let note = signed(&[&log, &witness]);
    let read: Note = note.to_string().parse().expect("a note");
    assert_eq!(read, note);
    assert_eq!(log.key().signed(&read), Some(0));
    assert_eq!(witness.key().signed(&read), Some(1_800_000_000));
    assert_eq!(signer("log.example", Kind::Log).key().signed(&read), None, "another key of the name");
    let vkey = witness.key().to_string();
    assert_eq!(vkey.parse(), Ok(witness.key().clone()));
    assert_eq!(Checkpoint::parse(&read.text), Ok(checkpoint()));
}

#[test]
fn a_note_that_misattributes_a_signature_is_malformed() {
    let seeded = |name, kind| Signer::from_seed(name, kind, &[7; 32]).expect("a key");
    let (log, witness) = (seeded("log.example", Kind::Log), seeded("witness.example", Kind::Witness));
    let stranger = signer("stranger.example", Kind::Log);
    let known = [log.key().clone(), witness.key().clone()];
    let note = signed(&[&log, &witness, &stranger]);
    assert_eq!(note.verified(&known), Ok(note.signatures[..2].to_vec()));
    assert_eq!(note.verified(&known[1..]), Ok(note.signatures[1..2].to_vec()));
    assert_eq!(note.verified(&[]), Ok(vec![]));
    let changed = Note { text: note.text.replace("42", "43"), ..note };
    assert_eq!(changed.verified(&known), Err(Misattributed));
    // Nobody here knows better.
    assert_eq!(changed.verified(&[signer("log.example", Kind::Log).key().clone()]), Ok(vec![]));
}

#[test]
fn what_is_no_note_no_key_and_no_checkpoint_is_refused() {
    let note = signed(&[&signer("log.example", Kind::Log)]).to_string();
    for wrong in [
        "",
        "\n",
        "\n\n",
        "text\n\n",
        "text\n\n\n",
        "text\n\u{2014} log.example AAAAAAAA\n",
        note.trim_end(),
        &note.replace('\u{2014}', "-"),
        &note.replace("log.example ", "log.example  "),
        &note.replace('\n', "\r\n"),
    ] {
        assert!(wrong.parse::<Note>().is_err(), "{wrong:?}");
    }
    let key = signer("log.example", Kind::Log).key().to_string();
    for wrong in
        ["", "+", "log.example", &key[..key.len() - 1], &key.replace("log", "lag"), &format!(" {key}")]
    {
        assert!(wrong.parse::<VerifierKey>().is_err(), "{wrong}");
    }
    let text = checkpoint().to_string();
    for wrong in
        ["", "a\n1\n", text.trim_end(), &text.replace("42", "+42"), &text.replace("42", "042"), &text[5..9]]
    {
        assert!(Checkpoint::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Checkpoint::parse(&format!("{text}extension\n")).is_ok());
}
