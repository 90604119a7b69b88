//! Whose signatures are believed: the keys that somebody brings, and those that they endorsed in the history.

use std::path::Path;
use std::str::FromStr;

use tlog::note::{Kind, Note};
use tlog::{Checkpoint, VerifierKey};

/// What the text of an endorsement begins with. The key follows in a line of its own.
const ENDORSES: &str = "watchword checkpoint key\n";

/// Keys of a log, as an argument gives them: one as text, or a file with one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given(pub Vec<VerifierKey>);

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let keys = if let Ok(key) = text.parse() {
            vec![key]
        } else {
            let file = Path::new(text);
            let read = std::fs::read_to_string(file).map_err(|error| {
                format!("it is neither a key (<name>+<id>+<key>) nor a file that can be read: {error}")
            })?;
            let lines = read.lines().filter(|line| !line.is_empty());
            lines
                .map(|line| line.parse().map_err(|error| format!("{}: {line}: {error}", file.display())))
                .collect::<Result<Vec<VerifierKey>, _>>()?
        };
        if keys.is_empty() {
            return Err("the file has no key".to_owned());
        }
        Ok(Self(keys))
    }
}

/// The witnesses whose co-signatures a checkpoint must have.
#[derive(Clone, Debug, Default)]
pub struct Witnesses(pub Vec<VerifierKey>);

/// The keys of a log that are believed.
#[derive(Clone, Debug)]
pub struct Trust {
    keys: Vec<Trusted>,
    /// The positions at which the history adds keys that nobody endorsed who is believed.
    strangers: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Trusted {
    key: VerifierKey,
    /// The position of the event that retired it.
    retired: Option<u64>,
}

impl Trust {
    /// Believes these keys. Refuses those of witnesses.
    pub fn new(keys: Vec<VerifierKey>) -> Result<Self, String> {
        if let Some(key) = keys.iter().find(|key| key.kind() != Kind::Log) {
            return Err(format!(
                "{key} is the key of a witness: give it with --witness, and that of the log with --key"
            ));
        }
        let keys = keys.into_iter().map(|key| Trusted { key, retired: None }).collect();
        Ok(Self { keys, strangers: vec![] })
    }

    /// The history adds a key here. It is believed if one that is believed endorses it.
    pub fn add(&mut self, position: u64, key: &str, endorsement: Option<&str>) {
        let Ok(new) = key.parse::<VerifierKey>() else { return self.strangers.push(position) };
        if self.keys.iter().any(|it| it.key == new) {
            return;
        }
        let note: Option<Note> = endorsement.and_then(|text| text.parse().ok());
        let is_endorsed = new.kind() == Kind::Log
            && note.is_some_and(|note| {
                let by = |it: &Trusted| it.key.name() == new.name() && it.key.signed(&note).is_some();
                note.text == format!("{ENDORSES}{new}\n") && self.keys.iter().any(by)
            });
        if is_endorsed {
            self.keys.push(Trusted { key: new, retired: None });
        } else {
            self.strangers.push(position);
        }
    }

    /// The history retires a key here: it signs no tree with this event.
    pub fn retire(&mut self, position: u64, key: &str) {
        for it in self.keys.iter_mut().filter(|it| it.key.to_string() == key) {
            it.retired.get_or_insert(position);
        }
    }

    /// The believed keys that signed a checkpoint. If there are none, or they were retired before, says why not to believe
    /// it.
    pub fn signers(&self, note: &Note, checkpoint: &Checkpoint) -> Result<Vec<String>, String> {
        let of_log = |it: &&Trusted| it.key.name() == checkpoint.origin && it.key.signed(note).is_some();
        let signed: Vec<&Trusted> = self.keys.iter().filter(of_log).collect();
        if signed.is_empty() {
            return Err(self.why_not(note, checkpoint));
        }
        let is_retired = |it: &&Trusted| it.retired.is_some_and(|at| at <= checkpoint.size);
        if let Some(old) = signed.iter().find(|it| is_retired(it))
            && signed.iter().all(is_retired)
        {
            return Err(format!(
                "it is signed only by {}, which event {} retired: it may be in other hands",
                old.key,
                old.retired.unwrap_or_default()
            ));
        }
        Ok(signed.into_iter().map(|it| it.key.to_string()).collect())
    }

    fn why_not(&self, note: &Note, checkpoint: &Checkpoint) -> String {
        let origin = &checkpoint.origin;
        if !self.keys.iter().any(|it| it.key.name() == origin) {
            let names: Vec<&str> = self.keys.iter().map(|it| it.key.name()).collect();
            return format!("it is about the log {origin}, but the keys are those of {}", names.join(", "));
        }
        let by: Vec<&str> = note.signatures.iter().map(tlog::note::Signature::name).collect();
        let by = by.join(", ");
        let text = format!(
            "none of its signatures ({by}) is a valid one of a key that was given, or that such a key endorsed"
        );
        if self.strangers.is_empty() {
            return text;
        }
        let at: Vec<String> = self.strangers.iter().map(u64::to_string).collect();
        let at = at.join(", ");
        format!(
            "{text}. The history adds keys that none of these endorsed (events {at}): if you know a later key, give that one"
        )
    }
}

impl Witnesses {
    /// When each of them co-signed a note, in seconds since 1970; or who did not.
    pub fn times(&self, note: &Note) -> Result<Vec<(String, u64)>, String> {
        let time = |key: &VerifierKey| {
            let signed = if key.kind() == Kind::Witness { key.signed(note) } else { None };
            signed
                .map(|time| (key.to_string(), time))
                .ok_or_else(|| format!("it has no valid co-signature of the witness {key}"))
        };
        self.0.iter().map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use tlog::note::{Kind, Note, Signer};
    use tlog::{Checkpoint, Hash};

    use super::{Trust, Witnesses};
    use crate::verify::testing::signer;

    fn endorsement(by: &Signer, of: &Signer) -> String {
        let text = format!("watchword checkpoint key\n{}\n", of.key());
        Note { signatures: vec![by.sign(&text, 0)], text }.to_string()
    }

    fn checkpoint(size: u64, signers: &[&Signer]) -> (Note, Checkpoint) {
        let checkpoint = Checkpoint { origin: "log.example".to_owned(), size, root: Hash::of_nothing() };
        let text = checkpoint.to_string();
        let signatures = signers.iter().map(|signer| signer.sign(&text, 77)).collect();
        (Note { text, signatures }, checkpoint)
    }

    fn believes(trust: &Trust, size: u64, signers: &[&Signer]) -> Result<usize, String> {
        let (note, checkpoint) = checkpoint(size, signers);
        trust.signers(&note, &checkpoint).map(|by| by.len())
    }

    #[test]
    fn keys_are_believed_from_one_endorsement_to_the_next() {
        let [first, second, third] = [1, 2, 3].map(|seed| signer("log.example", Kind::Log, seed));
        let mut trust = Trust::new(vec![first.key().clone()]).expect("a log's key");
        trust.add(3, &first.key().to_string(), None);
        assert_eq!(believes(&trust, 9, &[&first]), Ok(1));
        let refused = believes(&trust, 9, &[&second]).expect_err("it is not known");
        assert!(refused.contains("none of its signatures"), "{refused}");
        // Nobody endorses itself, or another key than the one that is added.
        trust.add(10, &second.key().to_string(), Some(&endorsement(&second, &second)));
        trust.add(11, &second.key().to_string(), Some(&endorsement(&first, &third)));
        trust.add(12, &second.key().to_string(), None);
        let refused = believes(&trust, 20, &[&second]).expect_err("it is not endorsed");
        assert!(refused.contains("(events 10, 11, 12)"), "{refused}");
        trust.add(13, &second.key().to_string(), Some(&endorsement(&first, &second)));
        trust.add(14, &third.key().to_string(), Some(&endorsement(&second, &third)));
        assert_eq!(believes(&trust, 20, &[&third]), Ok(1));
        assert_eq!(believes(&trust, 20, &[&third, &second]), Ok(2));
        // A retired key signs no tree in which it is retired.
        trust.retire(21, &second.key().to_string());
        assert_eq!(believes(&trust, 20, &[&second]), Ok(1));
        let refused = believes(&trust, 21, &[&second]).expect_err("it is retired");
        assert!(refused.contains("which event 21 retired"), "{refused}");
        assert_eq!(believes(&trust, 21, &[&third, &second]), Ok(2));
    }

    #[test]
    fn a_key_of_another_name_or_kind_does_not_count() {
        let (other, witness) = (signer("other.example", Kind::Log, 1), signer("w.example", Kind::Witness, 2));
        let trust = Trust::new(vec![other.key().clone()]).expect("a log's key");
        let refused = believes(&trust, 1, &[&other]).expect_err("it is of another log");
        assert!(refused.contains("the keys are those of other.example"), "{refused}");
        assert!(Trust::new(vec![witness.key().clone()]).is_err());
        let (note, _) = checkpoint(1, &[&other, &witness]);
        let times = Witnesses(vec![witness.key().clone()]).times(&note);
        assert_eq!(times, Ok(vec![(witness.key().to_string(), 77)]));
        assert!(Witnesses(vec![other.key().clone()]).times(&note).is_err(), "a log is no witness");
    }
}
