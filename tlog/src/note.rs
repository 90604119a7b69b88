//! Signed notes: a text, and the Ed25519 signatures of those who vouch for it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What separates the text from the signatures, and begins each of them.
const SIGNATURE: &str = "\u{2014} ";

/// The longest note that is read, in bytes, and how many signatures one may have.
const MAX_LENGTH: usize = 1 << 20;
const MAX_SIGNATURES: usize = 100;

/// The kinds of key, as the first byte of a public key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signs the text of the note.
    Log,
    /// A witness, which signs the time and the text (C2SP tlog-cosignature).
    Witness,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }
}

/// A public key, with the name of its owner. As text it is a *vkey*: `<name>+<id>+<key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: Kind,
    public: [u8; 32],
}

/// A text is no vkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no key: a vkey is <name>+<id in 8 hexadecimal digits>+<key in base64>, of Ed25519")]
pub struct NoKey;

impl VerifierKey {
    /// A key of this name; `None` if it cannot be one: it is empty, or has a space or a plus sign.
    pub fn new(name: impl Into<String>, kind: Kind, public: [u8; 32]) -> Option<Self> {
        let name = name.into();
        is_name(&name).then_some(Self { name, kind, public })
    }

    /// The name of its owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What tells it from other keys of the name.
    pub fn id(&self) -> u32 {
        let mut context = Context::new(&SHA256);
        context.update(self.name.as_bytes());
        context.update(b"\n");
        context.update(&self.typed());
        let hash = context.finish();
        u32::from_be_bytes(hash.as_ref()[..4].try_into().expect("four bytes"))
    }

    fn typed(&self) -> Vec<u8> {
        [&[self.kind.byte()], self.public.as_slice()].concat()
    }

    /// When this key signed the note: the time of a witness's signature, 0 for others. `None` if it did not.
    pub fn signed(&self, note: &Note) -> Option<u64> {
        let id = self.id();
        let mine = note.signatures.iter().filter(|it| it.name == self.name && it.id == id);
        mine.filter_map(|it| self.verify(&note.text, &it.bytes)).max()
    }

    fn verify(&self, text: &str, signature: &[u8]) -> Option<u64> {
        let key = ParsedPublicKey::new(&ED25519, self.public).ok()?;
        match self.kind {
            Kind::Log => key.verify_sig(text.as_bytes(), signature).ok().map(|()| 0),
            Kind::Witness => {
                let (time, signature) = signature.split_first_chunk()?;
                let time = u64::from_be_bytes(*time);
                key.verify_sig(cosigned(time, text).as_bytes(), signature).ok().map(|()| time)
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id(), STANDARD.encode(self.typed()))
    }
}

impl FromStr for VerifierKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        // Base64 may have a plus sign, a name has none.
        let mut parts = text.trim_end_matches('\n').splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoKey);
        };
        let key = STANDARD.decode(key).map_err(|_| NoKey)?;
        let (kind, public) = match key.split_first() {
            Some((1, public)) => (Kind::Log, public),
            Some((4, public)) => (Kind::Witness, public),
            _ => return Err(NoKey),
        };
        let public = public.try_into().map_err(|_| NoKey)?;
        let key = Self::new(name, kind, public).ok_or(NoKey)?;
        if format!("{:08x}", key.id()) == id { Ok(key) } else { Err(NoKey) }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// What a witness signs.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// One signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    id: u32,
    bytes: Vec<u8>,
}

impl Signature {
    /// The name of the key that is said to have made it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a line of a note, without its line break.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix(SIGNATURE)?.split_once(' ')?;
        let signature = STANDARD.decode(signature).ok()?;
        let (id, signature) = signature.split_first_chunk()?;
        let is_one = is_name(name) && !signature.is_empty();
        is_one.then(|| Self { name: name.to_owned(), id: u32::from_be_bytes(*id), bytes: signature.to_vec() })
    }
}

/// The line of a note.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = [self.id.to_be_bytes().as_slice(), &self.bytes].concat();
        writeln!(f, "{SIGNATURE}{} {}", self.name, STANDARD.encode(signature))
    }
}

/// A text with signatures, which are not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, which ends with a line break.
    pub text: String,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

/// A signature with the name and the id of a known key was not made by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a signature is not that of the key that it names")]
pub struct Misattributed;

impl Note {
    /// The signatures by these keys; those of other keys are ignored. One that only claims to be of such a key makes the
    /// whole note malformed, says the specification.
    pub fn verified(&self, keys: &[VerifierKey]) -> Result<Vec<Signature>, Misattributed> {
        let keys: Vec<_> = keys.iter().map(|key| (key, key.id())).collect();
        let mut verified = Vec::new();
        for signature in &self.signatures {
            let mut claimed =
                keys.iter().filter(|(key, id)| key.name == signature.name && *id == signature.id);
            match claimed.clone().find(|(key, _)| key.verify(&self.text, &signature.bytes).is_some()) {
                Some(_) => verified.push(signature.clone()),
                None if claimed.next().is_some() => return Err(Misattributed),
                None => {}
            }
        }
        Ok(verified)
    }
}

/// Bytes are no signed note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no signed note: a text, an empty line, and signatures that begin with a dash")]
pub struct NoNote;

impl FromStr for Note {
    type Err = NoNote;

    fn from_str(note: &str) -> Result<Self, NoNote> {
        if note.len() > MAX_LENGTH || note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoNote);
        }
        // The text may have empty lines.
        let end = note.rfind("\n\n").ok_or(NoNote)?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoNote)?;
        let signatures = lines.split('\n').map(Signature::parse).collect::<Option<Vec<_>>>();
        let signatures = signatures.filter(|all| all.len() <= MAX_SIGNATURES).ok_or(NoNote)?;
        Ok(Self { text: text.to_owned(), signatures })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

/// A private key that signs notes.
pub struct Signer {
    pair: Ed25519KeyPair,
    key: VerifierKey,
}

impl Signer {
    /// Reads a private key (PKCS #8); `None` if it is none, or cannot have this name.
    pub fn new(name: impl Into<String>, kind: Kind, pkcs8: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, key: VerifierKey::new(name, kind, public)? })
    }

    /// The key that follows from a seed, which is 32 random bytes (RFC 8032, section 5.1.5); `None` if it cannot have this
    /// name.
    pub fn from_seed(name: impl Into<String>, kind: Kind, seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, key: VerifierKey::new(name, kind, public)? })
    }

    /// Its public half.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Signs a text, which ends with a line break. A witness says that it saw it at this time, in seconds since 1970.
    pub fn sign(&self, text: &str, time: u64) -> Signature {
        let bytes = match self.key.kind {
            Kind::Log => self.pair.sign(text.as_bytes()).as_ref().to_vec(),
            Kind::Witness => {
                let signature = self.pair.sign(cosigned(time, text).as_bytes());
                [time.to_be_bytes().as_slice(), signature.as_ref()].concat()
            }
        };
        Signature { name: self.key.name.clone(), id: self.key.id(), bytes }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, …)", self.key)
    }
}
