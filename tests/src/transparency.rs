//! A transparency log and a verifier of co-signatures that are not ours: the crates `signed_note`, `tlog_tiles` and
//! `ed25519-dalek` make the trees, the proofs and the notes, and judge the signatures.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use signed_note::{Note, Signer, StandardSigner, StandardVerifier, Verifier, VerifierList};
use tlog_tiles::checkpoint::Checkpoint;
use tlog_tiles::tlog::{
    Hash, HashReader, prove_tree, record_hash, stored_hash_index, stored_hashes_for_record_hash, tree_hash,
};

/// A log. A clone is a fork: both have the history so far.
#[derive(Clone)]
pub struct Log {
    origin: String,
    seed: [u8; 32],
    entries: u64,
    hashes: Vec<Hash>,
}

struct Stored<'a>(&'a [Hash]);

impl HashReader for Stored<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::tlog::Error> {
        Ok(indexes.iter().map(|index| self.0[usize::try_from(*index).expect("it fits")]).collect())
    }
}

impl Log {
    /// An empty log whose key follows from a number.
    pub fn new(origin: &str, key: u8) -> Self {
        Self { origin: origin.to_owned(), seed: [key; 32], entries: 0, hashes: Vec::new() }
    }

    /// The same log with another key.
    #[must_use]
    pub fn with_key(&self, key: u8) -> Self {
        Self { seed: [key; 32], ..self.clone() }
    }

    /// Appends so many entries, which consist of their number and this text.
    pub fn grow(&mut self, entries: u64, text: &str) {
        for _ in 0..entries {
            let leaf = record_hash(format!("{text} {}", self.entries).as_bytes());
            let hashes = stored_hashes_for_record_hash(self.entries, leaf, &Stored(&self.hashes));
            let hashes = hashes.expect("all hashes are there");
            debug_assert_eq!(stored_hash_index(0, self.entries), self.hashes.len() as u64);
            self.hashes.extend(hashes);
            self.entries += 1;
        }
    }

    /// Takes back all entries but the first.
    pub fn truncate(&mut self, size: u64) {
        self.entries = size;
        self.hashes.truncate(usize::try_from(stored_hash_index(0, size)).expect("it fits"));
    }

    /// Its unique name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.entries
    }

    /// Its public key.
    pub fn vkey(&self) -> String {
        signed_note::new_ed25519_verifier_key(
            &self.origin,
            &SigningKey::from_bytes(&self.seed).verifying_key(),
        )
    }

    /// The root of the tree of its first entries.
    pub fn root(&self, size: u64) -> Hash {
        tree_hash(size, &Stored(&self.hashes)).expect("all hashes are there")
    }

    /// The checkpoint of its first entries, signed.
    pub fn checkpoint(&self, size: u64) -> String {
        self.sign(&self.text(size))
    }

    /// The text of that checkpoint.
    pub fn text(&self, size: u64) -> String {
        format!("{}\n{size}\n{}\n", self.origin, self.root(size))
    }

    /// Any text, signed by its key.
    pub fn sign(&self, text: &str) -> String {
        let mut note = Note::new(text.as_bytes(), &[]).expect("a text");
        note.add_sigs(&[&self.signer()]).expect("it signs");
        String::from_utf8(note.to_bytes()).expect("text")
    }

    fn signer(&self) -> impl Signer + use<> {
        let vkey = self.vkey();
        let id = vkey.split('+').nth(1).expect("a vkey has an id");
        let secret = STANDARD.encode([&[1], self.seed.as_slice()].concat());
        StandardSigner::new(&format!("PRIVATE+KEY+{}+{id}+{secret}", self.origin)).expect("a key")
    }

    /// The lines of the proof that the first tree begins the second.
    pub fn proof(&self, from: u64, to: u64) -> String {
        if from == 0 {
            return String::new();
        }
        let hashes = prove_tree(to, from, &Stored(&self.hashes)).expect("all hashes are there");
        hashes.iter().flat_map(|hash| [hash.to_string(), "\n".to_owned()]).collect()
    }

    /// The body with which it asks a witness to sign a size, which signed another one before.
    pub fn request(&self, old: u64, size: u64) -> String {
        format!("old {old}\n{}\n{}", self.proof(old, size), self.checkpoint(size))
    }
}

/// The public key of a witness (C2SP tlog-cosignature).
pub struct CosignatureVerifier {
    name: String,
    id: u32,
    key: VerifyingKey,
}

impl CosignatureVerifier {
    /// Reads a vkey, and fails unless it is that of a witness.
    pub fn new(vkey: &str) -> Self {
        let mut parts = vkey.trim().splitn(3, '+');
        let mut part = || parts.next().expect("a vkey has three parts");
        let (name, id, key) = (part(), part(), STANDARD.decode(part()).expect("base64"));
        let id = u32::from_str_radix(id, 16).expect("an id");
        assert_eq!((key[0], id), (4, signed_note::key_id(name, &key)), "{vkey}");
        let key = key[1..].try_into().expect("32 bytes");
        Self { name: name.to_owned(), id, key: VerifyingKey::from_bytes(&key).expect("a key") }
    }
}

impl Verifier for CosignatureVerifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((time, signature)) = signature.split_first_chunk() else { return false };
        let signed =
            [format!("cosignature/v1\ntime {}\n", u64::from_be_bytes(*time)).as_bytes(), text].concat();
        Signature::from_slice(signature).is_ok_and(|it| self.key.verify_strict(&signed, &it).is_ok())
    }
}

/// The public key of a witness that signs nothing, which follows from a number.
pub fn idle_witness(name: &str, key: u8) -> String {
    let public = SigningKey::from_bytes(&[key; 32]).verifying_key().to_bytes();
    let typed = [&[4], public.as_slice()].concat();
    format!("{name}+{:08x}+{}", signed_note::key_id(name, &typed), STANDARD.encode(typed))
}

/// What others read in a signed checkpoint.
#[derive(Debug, PartialEq)]
pub struct Verified {
    /// The size of the tree.
    pub size: u64,
    /// Its root, in base64.
    pub root: String,
    /// The names of the keys that signed it.
    pub signers: Vec<String>,
}

/// Reads a checkpoint. Fails unless at least one of these keys, of logs and witnesses, signed it.
pub fn verify(note: &str, vkeys: &[&str]) -> Verified {
    let read = |vkey: &&str| -> Box<dyn Verifier> {
        match StandardVerifier::new(vkey.trim()) {
            Ok(of_log) => Box::new(of_log),
            Err(_) => Box::new(CosignatureVerifier::new(vkey)),
        }
    };
    let known = VerifierList::new(vkeys.iter().map(read).collect());
    let note = Note::from_bytes(note.as_bytes()).expect("a note");
    let (signatures, _) = note.verify(&known).expect("the known signatures verify");
    let checkpoint = Checkpoint::from_bytes(note.text()).expect("a checkpoint");
    Verified {
        size: checkpoint.size(),
        root: checkpoint.hash().to_string(),
        signers: signatures.iter().map(|signature| signature.name().to_owned()).collect(),
    }
}

/// The time that a witness says of a line that it signed, in seconds since 1970.
pub fn time_of(line: &str) -> u64 {
    let signature = line.trim().rsplit(' ').next().expect("a signature");
    let bytes = STANDARD.decode(signature).expect("base64");
    u64::from_be_bytes(bytes[4..12].try_into().expect("eight bytes"))
}
