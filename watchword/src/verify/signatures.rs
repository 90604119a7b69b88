//! The signatures of the checkpoint that was signed last: those of the log by keys of this instance, and those of its witnesses.

use event_store::SignedCheckpoint;
use event_store::checkpoint_keys::KeyRecord;
use tlog::note::Signature;
use tlog::{Checkpoint, Note, VerifierKey};

use super::trust::{Trust, Witnesses};
use super::{Verdict, export};

/// The checkpoint that was signed last, as the key store has it, and who can have signed it.
pub struct Signed<'a> {
    pub checkpoint: &'a SignedCheckpoint,
    /// What is kept as the lines of witnesses.
    pub cosignatures: &'a [String],
    /// The name of the log.
    pub log: String,
    /// All keys that this instance has made.
    pub keys: Vec<KeyRecord>,
    /// Of the configured witnesses.
    pub witnesses: Vec<VerifierKey>,
}

impl Signed<'_> {
    /// Checks that the note says what was signed, by a key that had not retired, and that the lines of witnesses are theirs.
    pub fn check(&self, verdict: &mut Verdict) {
        let SignedCheckpoint { size, root, note, .. } = self.checkpoint;
        let expected = Checkpoint { origin: self.log.clone(), size: *size, root: *root };
        let read = note.parse::<Note>().ok().filter(|note| note.text == expected.to_string());
        let Some(note) = read else {
            return verdict.fault(None, about("its note is not about what was signed"));
        };
        match self.believed().and_then(|trust| trust.signers(&note, &expected)) {
            Ok(signers) => {
                let times = self.cosigned(&note, verdict);
                let signers = signers.join(" and ");
                verdict.say(about(&format!("it is signed by {signers}{}", export::told(&times))));
            }
            Err(why) => verdict.fault(None, about(&why)),
        }
    }

    fn believed(&self) -> Result<Trust, String> {
        let keys: Result<Vec<VerifierKey>, _> = self.keys.iter().map(|it| it.key.parse()).collect();
        let mut trust = Trust::new(keys.map_err(|error| error.to_string())?)?;
        for (key, retired) in self.keys.iter().filter_map(|it| Some((&it.key, it.retired?))) {
            trust.retire(retired, key);
        }
        Ok(trust)
    }

    /// When each configured witness signed. Anybody who can write to the key store can put a line there, so each is verified.
    fn cosigned(&self, note: &Note, verdict: &mut Verdict) -> Vec<(String, u64)> {
        let mut times = Vec::new();
        for line in self.cosignatures {
            let Some(signature) = Signature::parse(line.trim_end_matches('\n')) else {
                verdict.fault(None, about(&format!("a line beside it is no signature: {}", line.trim_end())));
                continue;
            };
            let name = signature.name().to_owned();
            let Some(key) = self.witnesses.iter().find(|key| key.name() == name) else {
                let why = "was not checked, as no witness of this name is configured";
                verdict.say(about(&format!("the signature of {name} {why}")));
                continue;
            };
            let alone = Note { text: note.text.clone(), signatures: vec![signature] };
            match Witnesses(vec![key.clone()]).times(&alone) {
                Ok(time) => times.extend(time),
                Err(_) => verdict.fault(
                    None,
                    about(&format!(
                        "the signature in the name of the witness {name} is not one of its key {key}: somebody else wrote it to \
                         the key store. It is not served"
                    )),
                ),
            }
        }
        times
    }
}

fn about(what: &str) -> String {
    format!("the last signed checkpoint: {what}")
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use domain::journal::CheckpointKeyId;
    use tlog::note::Kind;
    use tlog::{Hash, Signer};
    use uuid::Uuid;

    use super::*;
    use crate::verify::testing::signer;

    const LOG: &str = "log.example";

    fn record(signer: &Signer, added: u64, retired: Option<u64>) -> KeyRecord {
        let id = CheckpointKeyId(Uuid::from_u128(u128::from(added)));
        KeyRecord { id, key: signer.key().to_string(), added, retired }
    }

    fn checkpoint(size: u64, signers: &[&Signer]) -> SignedCheckpoint {
        let root = Hash::of_nothing();
        let text = Checkpoint { origin: LOG.to_owned(), size, root }.to_string();
        let signatures = signers.iter().map(|signer| signer.sign(&text, 0)).collect();
        let (note, last, epochs) = (Note { text, signatures }.to_string(), Uuid::nil(), vec![]);
        SignedCheckpoint { size, root, last, note, epochs, signed_at: Timestamp::UNIX_EPOCH }
    }

    /// What is said of it, and whether nothing is wrong.
    fn said(
        checkpoint: &SignedCheckpoint,
        lines: &[String],
        keys: &[KeyRecord],
        witness: &Signer,
    ) -> (bool, String) {
        let (keys, witnesses) = (keys.to_vec(), vec![witness.key().clone()]);
        let mut verdict = Verdict::default();
        Signed { checkpoint, cosignatures: lines, log: LOG.to_owned(), keys, witnesses }.check(&mut verdict);
        (verdict.is_fine(), verdict.sentences().collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn only_keys_of_the_instance_that_had_not_retired_sign_and_only_witnesses_co_sign() {
        let [first, second, stranger] = [1, 2, 3].map(|seed| signer(LOG, Kind::Log, seed));
        let [witness, other] = [4, 5].map(|seed| signer("w.example", Kind::Witness, seed));
        let keys = [record(&first, 2, Some(20)), record(&second, 10, None)];
        let check =
            |checkpoint: &SignedCheckpoint, lines: &[String]| said(checkpoint, lines, &keys, &witness);

        for signers in [&[&first][..], &[&second], &[&second, &first]] {
            let (is_fine, text) = check(&checkpoint(19, signers), &[]);
            assert!(is_fine && text.contains(&signers[0].key().to_string()), "{text}");
        }
        let (is_fine, text) = check(&checkpoint(20, &[&first]), &[]);
        assert!(!is_fine && text.contains("which event 20 retired"), "{text}");
        let (is_fine, text) = check(&checkpoint(19, &[&stranger]), &[]);
        assert!(!is_fine && text.contains("none of its signatures"), "{text}");
        let (is_fine, _) = check(&checkpoint(19, &[]), &[]);
        assert!(!is_fine, "nobody signed it");
        let moved = SignedCheckpoint { size: 18, ..checkpoint(19, &[&second]) };
        let (is_fine, text) = check(&moved, &[]);
        assert!(!is_fine && text.contains("not about what was signed"), "{text}");

        let signed = checkpoint(19, &[&second]);
        let text_of = |size| Checkpoint { origin: LOG.to_owned(), size, root: signed.root }.to_string();
        let line = |by: &Signer, size| by.sign(&text_of(size), 77).to_string();
        let (is_fine, text) = check(&signed, &[line(&witness, 19)]);
        assert!(is_fine && text.contains("co-signed by w.example+"), "{text}");
        for wrong in [line(&witness, 18), line(&other, 19)] {
            let (is_fine, text) = check(&signed, &[wrong]);
            assert!(!is_fine && text.contains("is not one of its key"), "{text}");
        }
        let (is_fine, text) = check(&signed, &["x\n".to_owned()]);
        assert!(!is_fine && text.contains("is no signature"), "{text}");
        let unknown = signer("u.example", Kind::Witness, 6);
        let (is_fine, text) = check(&signed, &[line(&unknown, 19)]);
        assert!(is_fine && text.contains("u.example was not checked"), "{text}");
    }
}
