//! The tree against its definition, against known vectors, and against another implementation.

use std::collections::HashMap;

use proptest::prelude::*;
use tlog::proof::{Plan, extends, includes, roots};
use tlog::tile::{TileId, TilePath, WIDTH};
use tlog::{Frontier, Hash, Node};

/// The tree's definition (RFC 9162, section 2.1.1).
fn defined(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of_nothing(),
        [leaf] => *leaf,
        _ => {
            let middle = 1 << (leaves.len() - 1).ilog2();
            Hash::node(defined(&leaves[..middle]), defined(&leaves[middle..]))
        }
    }
}

/// A log that keeps what a store keeps: tiles and the frontier.
#[derive(Default)]
struct Log {
    leaves: Vec<Hash>,
    frontier: Frontier,
    tiles: HashMap<TileId, Vec<Hash>>,
}

impl Log {
    fn of(size: u64) -> Self {
        let mut log = Self::default();
        for number in 0..size {
            log.push(&number.to_be_bytes());
        }
        log
    }

    fn push(&mut self, entry: &[u8]) {
        let leaf = Hash::leaf(entry);
        self.leaves.push(leaf);
        self.frontier.push(leaf, |node, hash| {
            if let Some(place) = node.place() {
                let tile = self.tiles.entry(node.tile()).or_default();
                assert_eq!(tile.len() as u64, place, "tiles grow without gaps");
                tile.push(hash);
            }
        });
    }

    fn hash(&self, node: Node) -> Option<Hash> {
        node.hash_in(self.tiles.get(&node.tile())?)
    }

    fn root(&self, size: u64) -> Hash {
        let all = roots(size).map(|node| self.hash(node)).collect::<Option<Vec<_>>>().expect("all are there");
        Frontier::new(size, all).expect("as many as bits").root()
    }
}

fn prefix(log: &Log, size: u64) -> &[Hash] {
    &log.leaves[..usize::try_from(size).expect("small")]
}

/// The test vectors of the reference implementation of Certificate Transparency.
#[test]
fn known_trees_have_known_roots() {
    let entries =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let known = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut log = Log::default();
    for (entry, root) in entries.iter().zip(known) {
        log.push(&hex::decode(entry).expect("hexadecimal"));
        assert_eq!(hex::encode(log.frontier.root().0), root);
    }
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex::encode(Frontier::default().root().0), nothing);
}

/// Every proof of every tree up to a size holds for what it is about, and for nothing else.
#[test]
fn all_proofs_of_small_trees_hold_for_one_thing_only() {
    const SIZE: u64 = 40;
    let log = Log::of(SIZE);
    let other = Hash::leaf(b"other");
    for size in 1..=SIZE {
        let root = defined(prefix(&log, size));
        assert_eq!(log.root(size), root);
        for index in 0..size {
            let proof = Plan::inclusion(index, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
            let proof = proof.expect("all hashes are there");
            let leaf = log.leaves[usize::try_from(index).expect("small")];
            assert!(includes(&proof, index, leaf, size, root), "{index} in {size}");
            assert!(!includes(&proof, index, other, size, root));
            assert!(!includes(&proof, index, leaf, size, other));
            for wrong in (0..size + 2).filter(|wrong| *wrong != index) {
                assert!(!includes(&proof, wrong, leaf, size, root), "{index} in {size}, as {wrong}");
            }
            assert!(!includes(&[proof.as_slice(), &[other]].concat(), index, leaf, size, root));
            if let Some((_, rest)) = proof.split_last() {
                assert!(!includes(rest, index, leaf, size, root));
            }
        }
        for from in 0..=size {
            let proof = Plan::consistency(from, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
            let proof = proof.expect("all hashes are there");
            let old = defined(prefix(&log, from));
            assert!(extends(&proof, (from, old), (size, root)), "{from} to {size}");
            assert!(!extends(&proof, (from, other), (size, root)), "{from} to {size}");
            // Every tree begins with the empty one.
            assert_eq!(extends(&proof, (from, old), (size, other)), from == 0, "{from} to {size}");
            assert!(!extends(&[proof.as_slice(), &[other]].concat(), (from, old), (size, root)));
            if let Some((_, rest)) = proof.split_last() {
                assert!(!extends(rest, (from, old), (size, root)));
            }
        }
    }
    assert_eq!(Plan::inclusion(3, 3), None);
    assert_eq!(Plan::inclusion(0, 0), None);
    assert_eq!(Plan::consistency(4, 3), None);
}

/// The library that Cloudflare runs its logs with.
struct Theirs<'a>(&'a Log);

impl tlog_tiles::tlog::HashReader for Theirs<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::tlog::Hash>, tlog_tiles::tlog::Error> {
        let hash = |index: &u64| {
            let (height, index) = tlog_tiles::tlog::split_stored_hash_index(*index);
            tlog_tiles::tlog::Hash(self.0.hash(Node { height, index }).expect("it is there").0)
        };
        Ok(indexes.iter().map(hash).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn roots_and_proofs_are_those_of_the_definition(size in 1_u64..1500, at in any::<u64>(), from in any::<u64>()) {
        let log = Log::of(size);
        let (index, from) = (at % size, from % size + 1);
        let root = defined(&log.leaves);
        prop_assert_eq!(log.frontier.root(), root);
        let inclusion = Plan::inclusion(index, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
        let leaf = log.leaves[usize::try_from(index).expect("small")];
        prop_assert!(includes(&inclusion.expect("a proof"), index, leaf, size, root));
        let consistency = Plan::consistency(from, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
        prop_assert!(extends(&consistency.expect("a proof"), (from, defined(prefix(&log, from))), (size, root)));
    }

    #[test]
    fn another_implementation_makes_the_same_proofs(size in 1_u64..1500, at in any::<u64>(), from in any::<u64>()) {
        use tlog_tiles::tlog;
        let log = Log::of(size);
        let (index, from) = (at % size, from % size + 1);
        prop_assert_eq!(tlog::tree_hash(size, &Theirs(&log)).expect("a root").0, log.frontier.root().0);
        let theirs = tlog::prove_record(size, index, &Theirs(&log)).expect("a proof");
        let ours = Plan::inclusion(index, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
        let bytes = |hashes: Vec<tlog::Hash>| hashes.into_iter().map(|hash| Hash(hash.0)).collect::<Vec<_>>();
        prop_assert_eq!(bytes(theirs), ours.expect("a proof"));
        let theirs = tlog::prove_tree(size, from, &Theirs(&log)).expect("a proof");
        let ours = Plan::consistency(from, size).and_then(|plan| plan.hashes(|node| log.hash(node)));
        prop_assert_eq!(bytes(theirs), ours.expect("a proof"));
    }

    #[test]
    fn a_path_names_one_tile(level in 0_u8..8, number in any::<u64>(), small in any::<bool>(), width in 1..=WIDTH) {
        let number = if small { number % 3000 } else { number >> 10 };
        let path = TilePath { content: tlog::tile::Content::Hashes(level), number, width };
        prop_assert_eq!(path.to_string().parse(), Ok(path));
        let theirs = tlog_tiles::tile::Tile::new(8, level, number, u32::try_from(width).expect("small"), false);
        prop_assert_eq!(theirs.path(), format!("tile/8/{path}"));
    }
}

#[test]
fn other_paths_name_nothing() {
    for path in [
        "",
        "0",
        "0/",
        "0/1",
        "0/0001",
        "0/x000/001",
        "0/001.p/0",
        "0/001.p/256",
        "0/001.p/01",
        "0/001.p/",
        "8/000",
        "00/000",
        "+0/000",
        "0/+01",
        "0/x1/001",
        "0/001/002",
        "0/x001",
        "entries/001.p/1/",
        "data/001",
        "0/001.p/1.p/1",
    ] {
        assert!(path.parse::<TilePath>().is_err(), "{path}");
    }
}

#[test]
fn the_frontier_refuses_what_cannot_be_one() {
    assert_eq!(Frontier::new(0, vec![]), Some(Frontier::default()));
    assert_eq!(Frontier::new(3, vec![Hash::of_nothing()]), None);
    assert_eq!(Hash::list(&[0; 33]), None);
}
