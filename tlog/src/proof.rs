//! Proofs that an entry is in a tree, and that one tree begins another (RFC 9162, section 2.1).

use std::ops::Range;

use crate::frontier::join;
use crate::hash::{Hash, Node};

/// What a proof consists of: the hashes of these ranges of entries, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan(Vec<Range<u64>>);

impl Plan {
    /// The proof that entry `index` is in the tree of the first `size` entries (section 2.1.3.1); `None` if it is not.
    pub fn inclusion(index: u64, size: u64) -> Option<Self> {
        if index >= size {
            return None;
        }
        let (mut ranges, mut all) = (Vec::new(), 0..size);
        while all.end - all.start > 1 {
            let (left, right) = halves(&all);
            let (inside, beside) = if left.contains(&index) { (left, right) } else { (right, left) };
            ranges.push(beside);
            all = inside;
        }
        ranges.reverse();
        Some(Self(ranges))
    }

    /// The proof that the first `from` entries of the tree of the first `to` are unchanged (section 2.1.4.1). Every tree
    /// begins with the empty one and with itself, which takes no hash. `None` if `from` is larger.
    pub fn consistency(from: u64, to: u64) -> Option<Self> {
        if from > to {
            return None;
        }
        if from == 0 || from == to {
            return Some(Self(vec![]));
        }
        let (mut ranges, mut all) = (Vec::new(), 0..to);
        while all.end != from {
            let (left, right) = halves(&all);
            let (inside, beside) = if from <= left.end { (left, right) } else { (right, left) };
            ranges.push(beside);
            all = inside;
        }
        // A verifier has the root of the smaller tree, unless this is only a part of it.
        if all.start > 0 {
            ranges.push(all);
        }
        ranges.reverse();
        Some(Self(ranges))
    }

    /// The complete subtrees whose hashes it takes.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.0.iter().flat_map(complete)
    }

    /// The hashes of the proof; `None` if the hash of a subtree is not known.
    pub fn hashes(&self, hash_of: impl Fn(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
        self.0.iter().map(|range| join(&complete(range).map(&hash_of).collect::<Option<Vec<_>>>()?)).collect()
    }
}

/// The complete subtrees that the tree of the first `size` entries consists of, the largest first. Their hashes are its
/// [`crate::Frontier`].
pub fn roots(size: u64) -> impl Iterator<Item = Node> {
    complete(&(0..size))
}

/// Splits a range at the largest power of two smaller than its length.
fn halves(range: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let middle = range.start + (1 << (range.end - range.start - 1).ilog2());
    (range.start..middle, middle..range.end)
}

/// The complete subtrees that a range consists of, from the left. It begins where a subtree as large as it may begin, as all
/// ranges here do.
fn complete(range: &Range<u64>) -> impl Iterator<Item = Node> + use<> {
    let Range { mut start, end } = *range;
    std::iter::from_fn(move || {
        let height = (end - start).checked_ilog2()?;
        let node = Node { height: u8::try_from(height).ok()?, index: start >> height };
        start += 1 << height;
        Some(node)
    })
}

/// Whether a proof shows that `leaf` is entry `index` of the tree with this size and root (section 2.1.3.2).
pub fn includes(proof: &[Hash], index: u64, leaf: Hash, size: u64, root: Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut index, mut last, mut hash) = (index, size - 1, leaf);
    for &beside in proof {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            hash = Hash::node(beside, hash);
            // Levels at which the last node has no sibling are not part of the proof.
            while index != 0 && index.is_multiple_of(2) {
                index /= 2;
                last /= 2;
            }
        } else {
            hash = Hash::node(hash, beside);
        }
        index /= 2;
        last /= 2;
    }
    last == 0 && hash == root
}

/// Whether a proof shows that the first tree begins the second; each is a size and a root (section 2.1.4.2).
pub fn extends(proof: &[Hash], (from, old): (u64, Hash), (to, new): (u64, Hash)) -> bool {
    if from > to {
        return false;
    }
    if from == to {
        return proof.is_empty() && old == new;
    }
    if from == 0 {
        return proof.is_empty() && old == Hash::of_nothing();
    }
    let mut hashes = proof.iter().copied();
    // If the old tree is one complete subtree, its root is the first hash.
    let Some(first) = (if from.is_power_of_two() { Some(old) } else { hashes.next() }) else { return false };
    let ((mut index, mut last), (mut was, mut is)) = ((from - 1, to - 1), (first, first));
    while index % 2 == 1 {
        index /= 2;
        last /= 2;
    }
    for beside in hashes {
        if last == 0 {
            return false;
        }
        if index % 2 == 1 || index == last {
            was = Hash::node(beside, was);
            is = Hash::node(beside, is);
            while index != 0 && index.is_multiple_of(2) {
                index /= 2;
                last /= 2;
            }
        } else {
            is = Hash::node(is, beside);
        }
        index /= 2;
        last /= 2;
    }
    last == 0 && was == old && is == new
}
