//! The harness of the end-to-end tests. It builds the real binary once, starts it on a free loopback port with its own
//! data directory, and provides a small HTTP client. It uses no crate of this workspace, so that a test knows only what
//! a client can know.
//!
//! Every answer is checked against general rules: a refusal is a complete problem document, and nothing is a 5xx unless
//! a test expects it. If a server panicked, its test fails when the server is dropped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

mod bus;
pub mod checker;
mod client;
pub mod collector;
mod documented;
pub mod generator;
pub mod log;
pub mod paced;
mod receiver;
mod server;
pub mod stalls;
pub mod transparency;
mod witness;
pub mod workload;

pub use bus::Bus;
pub use client::{Answer, App, Call, Tokens, claims_of, email, jwt_header_of};
pub use receiver::{Message, Reaction, Receiver, assert_ordered, webhook_positions};
pub use server::{Output, Server, free_port};
pub use witness::{Asked, Witness};

/// A password that every app accepts.
pub const PASSWORD: &str = "violet-Kettle-93-harbour";

/// How long a test waits for what must come. It usually takes a fraction of a second; a loaded machine gets more time.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until a condition holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The path of the server's binary, built on the first call, with the fail points of the fault tests. `TEST_BINARY`
/// names another one.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = env::var_os("TEST_BINARY") {
            return path.into();
        }
        let mut arguments = vec!["build", "-p", "watchword", "--bin", "watchword", "--message-format=json"];
        if cfg!(debug_assertions) {
            let features = if cfg!(feature = "kurrentdb") { "fail-points,kurrentdb" } else { "fail-points" };
            arguments.extend(["--features", features]);
        } else {
            // Measured binaries have no fail points.
            arguments.push("--release");
        }
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(workspace())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo build -p watchword failed");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .next_back()
            .expect("cargo names the executable it built")
    })
}

/// The root of the repository.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

/// Fails unless the events are a log without gaps: positions 1, 2, 3 …, each naming its predecessor, and versions 1, 2,
/// 3 … in every stream.
pub fn assert_gapless(events: &[Value]) {
    let mut versions = std::collections::HashMap::new();
    let mut ids = std::collections::HashSet::new();
    for (event, position) in events.iter().zip(1_u64..) {
        assert_eq!(event["position"], position, "positions are gapless");
        assert_eq!(event["prevposition"], position - 1, "an event names its predecessor");
        let version = versions.entry(event["subject"].to_string()).or_insert(0_u64);
        *version += 1;
        assert_eq!(event["streamversion"], *version, "versions of {} are contiguous", event["subject"]);
        assert!(ids.insert(event["id"].to_string()), "the id {} is used twice", event["id"]);
    }
}

/// The events of a type.
pub fn of_type<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == name).collect()
}

/// Every file in a folder and its subfolders, with its content. Files that disappear meanwhile are left out.
pub fn files_under(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            files.push((path, bytes));
        }
    }
    files
}
