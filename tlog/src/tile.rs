//! Tiles: up to 256 neighbouring hashes of one level, which are stored, published and cached together.
//!
//! A tile at level 0 holds leaf hashes, one at level 1 the roots of full tiles at level 0, and so on. A full tile never
//! changes; the last one of each level may be partial. All other hashes of the tree follow from those in tiles.

use std::fmt;
use std::str::FromStr;

use crate::hash::{Hash, Node};

/// The number of levels of the tree in a tile.
const HEIGHT: u8 = 8;
/// The number of hashes in a full tile.
pub const WIDTH: u64 = 1 << HEIGHT;
/// The highest level that a tree of less than 2^64 entries has.
const MAX_LEVEL: u8 = 63 / HEIGHT;

/// Which tile, apart from how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Its level.
    pub level: u8,
    /// Its number in the level, from the left.
    pub number: u64,
}

impl TileId {
    /// How many hashes it has in a tree of this size.
    pub fn width(self, size: u64) -> u64 {
        let hashes = size.checked_shr(u32::from(self.level * HEIGHT)).unwrap_or(0);
        hashes.saturating_sub(self.number.saturating_mul(WIDTH)).min(WIDTH)
    }
}

impl Node {
    /// The tile that its hash is in or follows from.
    pub fn tile(self) -> TileId {
        let (level, above) = (self.height / HEIGHT, self.height % HEIGHT);
        TileId { level, number: self.index >> (HEIGHT - above) }
    }

    /// The number of its hash in its tile; `None` if it only follows from others.
    pub fn place(self) -> Option<u64> {
        self.height.is_multiple_of(HEIGHT).then_some(self.index % WIDTH)
    }

    /// Its hash, from the hashes of its tile; `None` if there are too few.
    pub fn hash_in(self, tile: &[Hash]) -> Option<Hash> {
        let above = self.height % HEIGHT;
        let first = usize::try_from((self.index << above) % WIDTH).ok()?;
        Hash::of_complete(tile.get(first..first + (1 << above))?)
    }
}

/// What a path of a tile names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Hashes of this level.
    Hashes(u8),
    /// The entries themselves.
    Entries,
}

/// The path of a tile below `tile/`: `0/x001/067`, `entries/x001/067.p/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    /// What it holds.
    pub content: Content,
    /// Its number, from the left.
    pub number: u64,
    /// How many hashes or entries it holds: 1 to 256.
    pub width: u64,
}

/// A path does not name a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no such tile: a path is <level>/<number>, such as 0/x001/067, and .p/<width> after it for a partial tile"
)]
pub struct NoTile;

impl FromStr for TilePath {
    type Err = NoTile;

    fn from_str(path: &str) -> Result<Self, NoTile> {
        let (content, number) = path.split_once('/').ok_or(NoTile)?;
        let content = match content {
            "entries" => Content::Entries,
            level => Content::Hashes(level.parse().ok().filter(|level| *level <= MAX_LEVEL).ok_or(NoTile)?),
        };
        let (number, width) = match number.split_once(".p/") {
            Some((number, width)) => {
                (number, width.parse().ok().filter(|width| (1..WIDTH).contains(width)).ok_or(NoTile)?)
            }
            None => (number, WIDTH),
        };
        let digits = number.split('/').map(|group| group.strip_prefix('x').unwrap_or(group));
        let number = digits.collect::<String>().parse().map_err(|_| NoTile)?;
        let tile = Self { content, number, width };
        // Each tile has one path only.
        if tile.to_string() == path { Ok(tile) } else { Err(NoTile) }
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "{level}")?,
            Content::Entries => f.write_str("entries")?,
        }
        let mut groups = vec![self.number % 1000];
        let mut rest = self.number / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for (number, group) in groups.iter().enumerate().rev() {
            write!(f, "/{}{group:03}", if number > 0 { "x" } else { "" })?;
        }
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// A bundle of entries: each behind its length, in two bytes. `None` if one is longer than that allows.
pub fn bundle<'e>(entries: impl IntoIterator<Item = &'e [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend(entry);
    }
    Some(bundle)
}
