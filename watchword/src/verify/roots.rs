//! The tree of a history while it is read, and its roots at the sizes that somebody wants to compare.

use std::collections::BTreeMap;

use tlog::{Frontier, Hash};

/// The tree so far.
#[derive(Debug, Default)]
pub struct Roots {
    /// How many events it has. An event that cannot be read ends it: no tree follows from there on.
    tree: Frontier,
    has_ended: bool,
    wanted: BTreeMap<u64, Option<Hash>>,
}

impl Roots {
    /// An empty tree, whose roots at these sizes are wanted.
    pub fn wanted(sizes: impl IntoIterator<Item = u64>) -> Self {
        let tree = Frontier::default();
        let wanted = sizes.into_iter().map(|size| (size, (size == 0).then(|| tree.root()))).collect();
        Self { tree, has_ended: false, wanted }
    }

    /// The next event.
    pub fn push(&mut self, leaf: Hash) {
        if self.has_ended {
            return;
        }
        self.tree.push(leaf, |_, _| ());
        if let Some(root) = self.wanted.get_mut(&self.tree.size()) {
            *root = Some(self.tree.root());
        }
    }

    /// What follows is not in its place, or cannot be read.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// The root of the tree of all events; `None` if one of them ended it.
    pub fn root(&self) -> Option<Hash> {
        (!self.has_ended).then(|| self.tree.root())
    }

    /// The root at a size that was wanted; `None` if the tree never had this size.
    pub fn at(&self, size: u64) -> Option<Hash> {
        self.wanted.get(&size).copied().flatten()
    }
}
