//! The right edge of a tree, from which it grows.

use crate::hash::{Hash, Node};

/// The roots of the complete subtrees that a tree consists of, the largest first: one for each bit in the binary form of its
/// size. They are enough to append entries and to compute the root, and they are few: 30 for a billion entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// A frontier with these roots; `None` if a tree of this size has another number of them.
    pub fn new(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    /// The number of entries.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Appends an entry by its leaf hash, and names each subtree that it completes, itself included, from the bottom up.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(Node, Hash)) {
        let (mut node, mut hash) = (Node { height: 0, index: self.size }, leaf);
        complete(node, hash);
        // A right child completes its parent.
        while node.index % 2 == 1 {
            let left = self.roots.pop().expect("there is one for each bit of the size");
            hash = Hash::node(left, hash);
            node = Node { height: node.height + 1, index: node.index / 2 };
            complete(node, hash);
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        join(&self.roots).unwrap_or_else(Hash::of_nothing)
    }
}

/// The hash of neighbouring complete subtrees, each smaller than the one to its left.
pub(crate) fn join(roots: &[Hash]) -> Option<Hash> {
    roots.iter().copied().rev().reduce(|right, left| Hash::node(left, right))
}
