//! Records which server holds a data folder, and at which address. `doctor` reads it; otherwise it could only query whatever
//! listens at the configured address.

use std::net::SocketAddr;
use std::path::Path;

use event_store::durable;
use serde_json::{Value, json};

/// The name of the file.
pub const FILE: &str = "serving.json";

/// A server that holds the folder, or held it until it was killed.
#[derive(Debug, PartialEq, Eq)]
pub struct Serving {
    /// The instance's name in `/readyz`.
    pub instance: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Serving {
    /// Writes the record into the folder.
    pub fn leave(&self, folder: &Path) -> std::io::Result<()> {
        let path = folder.join(FILE);
        let text = json!({ "instance": self.instance, "address": self.address }).to_string();
        // That of an earlier server, which was killed, is replaced.
        durable::put(&path, text.as_bytes())
    }

    /// Reads the last record, if it is readable.
    pub fn read(folder: &Path) -> Option<Self> {
        let found: Value = serde_json::from_str(&std::fs::read_to_string(folder.join(FILE)).ok()?).ok()?;
        Some(Self {
            instance: found["instance"].as_str()?.to_owned(),
            address: found["address"].as_str()?.parse().ok()?,
        })
    }

    /// Removes the record on an orderly exit.
    pub fn take_away(folder: &Path) {
        let _ = std::fs::remove_file(folder.join(FILE));
    }
}
