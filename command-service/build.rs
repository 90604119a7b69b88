//! Packs the list of common passwords, so that the binary can search it without unpacking.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

const LIST: &str = "assets/common-passwords.txt";

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    let list = fs::read_to_string(LIST).expect("the list is part of the sources");
    // A finite-state transducer shares prefixes and suffixes, and takes words in order.
    let words: BTreeSet<&str> =
        list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let set = fst::Set::from_iter(words).expect("they are in order");
    let directory = env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&directory).join("common-passwords.fst"), set.as_fst().as_bytes())
        .expect("it can be written");
}
