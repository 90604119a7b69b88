//! The body of a request: the size that the sender believes to be signed, a proof, and the new checkpoint.

use std::str::FromStr;

use tlog::{Checkpoint, Hash, Note};

use super::Refusal;

/// The most hashes of a proof: the height of the largest tree.
const MAX_PROOF: usize = 63;

/// A request to sign a checkpoint.
#[derive(Debug)]
pub struct Request {
    /// The size of the newest checkpoint that the witness signed, as the sender knows it.
    pub old: u64,
    /// That the tree of this size begins the new one.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub note: Note,
    /// The text of the note.
    pub checkpoint: Checkpoint,
}

impl FromStr for Request {
    type Err = Refusal;

    fn from_str(body: &str) -> Result<Self, Refusal> {
        let (head, note) = body.split_once("\n\n").ok_or(Refusal::Malformed(
            "the body is `old <size>`, the hashes of the proof, an empty line, and the signed checkpoint",
        ))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(size);
        let old = old.ok_or(Refusal::Malformed("the first line is not `old <size>`"))?;
        let proof = lines.map(Hash::parse).collect::<Option<Vec<_>>>();
        let proof = proof.ok_or(Refusal::Malformed("a line of the proof is not a SHA-256 hash in base64"))?;
        if proof.len() > MAX_PROOF {
            return Err(Refusal::Malformed("the proof has more than 63 hashes"));
        }
        let note: Note = note.parse().map_err(|_| Refusal::Malformed("the checkpoint is no signed note"))?;
        let checkpoint = Checkpoint::parse(&note.text)
            .map_err(|_| Refusal::Malformed("the signed note is no checkpoint"))?;
        Ok(Self { old, proof, note, checkpoint })
    }
}

/// A number has one form: neither a sign nor leading zeros.
fn size(text: &str) -> Option<u64> {
    text.parse().ok().filter(|size: &u64| size.to_string() == text)
}

#[cfg(test)]
mod tests {
    use tlog::note::Kind;
    use tlog::{Hash, Signer};

    use super::*;

    #[test]
    fn only_what_the_specification_allows_is_read() {
        let hash = Hash::of_nothing();
        let signer = Signer::from_seed("log.example", Kind::Log, &[1; 32]).expect("a key");
        let text = Checkpoint { origin: "log.example".to_owned(), size: 7, root: hash }.to_string();
        let note = Note { signatures: vec![signer.sign(&text, 0)], text };
        let read = |head: &str| format!("{head}\n\n{note}").parse::<Request>();
        let request = read(&format!("old 3\n{hash}\n{hash}")).expect("a request");
        assert_eq!((request.old, request.proof, request.checkpoint.size), (3, vec![hash; 2], 7));
        assert_eq!(request.note, note);
        assert!(read("old 0").is_ok() && read(&format!("old 1{}", format!("\n{hash}").repeat(63))).is_ok());
        for wrong in [
            "",
            "old",
            "old ",
            "old  1",
            "old 01",
            "old +1",
            "old -1",
            "old 1 ",
            "old 1\r",
            "new 1",
            "old 18446744073709551616",
            "old 1\nnot base64",
            "old 1\nAAAA",
            &format!("old 1{}", format!("\n{hash}").repeat(64)),
        ] {
            assert!(matches!(read(wrong), Err(Refusal::Malformed(_))), "{wrong:?}");
        }
        for wrong in
            ["", "old 1\n", "old 1\n\n", "old 1\n\ntext\n", "old 1\n\na\nb\nc\n\n\u{2014} a AAAAAAAA\n"]
        {
            assert!(matches!(wrong.parse::<Request>(), Err(Refusal::Malformed(_))), "{wrong:?}");
        }
    }
}
