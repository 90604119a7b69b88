//! The hashes of a tree, and their places in it.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 hash. As text it is base64, as in checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; Hash::LENGTH]);

impl Hash {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// The hash of an entry (RFC 9162, section 2.1.1). The first byte keeps entries and inner nodes apart.
    pub fn leaf(entry: &[u8]) -> Self {
        Self::of(&[&[0], entry])
    }

    /// The hash of a node with these children.
    pub fn node(left: Self, right: Self) -> Self {
        Self::of(&[&[1], &left.0, &right.0])
    }

    /// The root of a tree without entries.
    pub fn of_nothing() -> Self {
        Self::of(&[])
    }

    fn of(parts: &[&[u8]]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let mut hash = [0; Self::LENGTH];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }

    /// The root of a complete subtree with these leaves, or with these nodes one level up; `None` unless their number is a
    /// power of two.
    pub fn of_complete(below: &[Self]) -> Option<Self> {
        if !below.len().is_power_of_two() {
            return None;
        }
        let mut level = below.to_vec();
        while level.len() > 1 {
            level = level.chunks_exact(2).map(|pair| Self::node(pair[0], pair[1])).collect();
        }
        level.first().copied()
    }

    /// Reads base64.
    pub fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Reads hashes that follow each other; `None` if the last one is incomplete.
    pub fn list(bytes: &[u8]) -> Option<Vec<Self>> {
        let (hashes, rest) = bytes.as_chunks();
        rest.is_empty().then(|| hashes.iter().copied().map(Self).collect())
    }

    /// Hashes as bytes, one after the other.
    pub fn bytes(hashes: &[Self]) -> Vec<u8> {
        hashes.iter().flat_map(|hash| hash.0).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a hash is 32 bytes in base64"))
    }
}

/// The place of a complete subtree: it holds the entries `index << height` up to, but not including, `(index + 1) << height`.
/// Its hash never changes, however the tree grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The length of the way down to an entry.
    pub height: u8,
    /// Its number among those of the same height, from the left.
    pub index: u64,
}
