//! The KurrentDB journal: the contract, with one node and with several, and failures between a node and its server.
//!
//! With `WATCHWORD_TEST_ESDB_URL` (`esdb://admin:changeit@localhost:2113?tls=false`) the tests run against that server:
//! each has its own stream there, which it leaves behind. Otherwise a stand-in in this process, which implements only
//! the protocol, is used. Each test prints which of them it ran on. Failures happen in a relay before the server, so
//! that both can be tested; what only a server could do, such as changing what is stored, the stand-in does.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_store::contract::{self, Nodes};
use event_store::{
    Clock, JournalMark, KurrentJournal, KurrentSettings, KurrentUrl, Macs, OpenError, SystemClock,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

mod access;
mod faults;
mod forged;
mod protocol;
mod relay;
mod replicas;
mod server;

use relay::Relay;
use server::Server;

const VARIABLE: &str = "WATCHWORD_TEST_ESDB_URL";

/// A journal of its own on a server, and a folder for its nodes' replicas.
struct World {
    stand_in: Option<Server>,
    relay: Option<Relay>,
    /// The URL of the server.
    text: String,
    /// The URL of the server, or of the relay before it.
    url: KurrentUrl,
    stream: String,
    folder: TempDir,
}

impl World {
    /// On the server that the variable names, or the stand-in.
    async fn new() -> Self {
        match server_url(std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value)))) {
            Some(url) => {
                let world = Self::on(None, &url);
                let there = TcpStream::connect(world.url.address()).await;
                there.unwrap_or_else(|error| panic!("{VARIABLE}: no answer from {}: {error}", world.url));
                say(&format!("the server at {}", world.url));
                world
            }
            None => Self::stand_in().await,
        }
    }

    /// As [`World::new`], behind a relay that can break connections.
    async fn relayed() -> Self {
        let world = Self::new().await;
        let address = world.url.address();
        let relay = Relay::start(address.clone()).await;
        let through = world.text.replacen(&address, &format!("127.0.0.1:{}", relay.port()), 1);
        assert_ne!(through, world.text, "{VARIABLE} names host and port");
        assert!(
            through.contains("tls=false"),
            "{VARIABLE}: the relay needs an unencrypted connection: tls=false"
        );
        Self { url: through.parse().expect("a URL"), relay: Some(relay), ..world }
    }

    async fn stand_in() -> Self {
        let server = Server::start().await;
        say("a stand-in, which proves less than a server");
        let url = server.url();
        Self::on(Some(server), &url)
    }

    fn on(stand_in: Option<Server>, url: &str) -> Self {
        let stream = format!("watchword-test-{}", SystemClock.new_id());
        let folder = tempfile::tempdir().expect("a folder");
        let (text, url) = (url.to_owned(), url.parse().expect("a URL"));
        Self { stand_in, relay: None, text, url, stream, folder }
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("there is one")
    }

    fn server(&self) -> &Server {
        self.stand_in.as_ref().expect("it is the stand-in")
    }

    /// Timeouts short enough for a test and long enough for a busy machine.
    fn settings(&self) -> KurrentSettings {
        KurrentSettings {
            stream: self.stream.clone(),
            answer_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            answer: Duration::from_secs(20),
            ..KurrentSettings::default()
        }
    }

    /// As [`World::settings`], for a node that gives up soon.
    fn hasty(&self) -> KurrentSettings {
        KurrentSettings {
            patience: Duration::from_millis(200),
            answer_timeout: Duration::from_secs(2),
            ..self.settings()
        }
    }

    fn replica(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.db"))
    }

    async fn try_open(&self, node: &str, settings: KurrentSettings) -> Result<KurrentJournal, OpenError> {
        let (macs, mark) = (contract::macs(), Some(JournalMark::default()));
        KurrentJournal::open(&self.url, &self.replica(node), settings, &macs, mark).await
    }

    /// A node of another instance, or of one with events from before MACs.
    async fn open_as(
        &self,
        node: &str,
        macs: &Macs,
        mark: Option<JournalMark>,
    ) -> Result<KurrentJournal, OpenError> {
        KurrentJournal::open(&self.url, &self.replica(node), self.settings(), macs, mark).await
    }

    async fn open(&self, node: &str) -> KurrentJournal {
        self.try_open(node, self.settings()).await.expect("opens")
    }

    async fn two_nodes(&self) -> Nodes {
        Nodes::new(vec![Arc::new(self.open("one").await), Arc::new(self.open("two").await)])
    }
}

/// Prints what a test ran on, even if it passes and its output is captured.
fn say(on: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "{}: on {on}", thread.name().unwrap_or("a test"));
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The server to test on. A variable that looks as if it was meant to name one, but does not, is a mistake that must be
/// reported.
fn server_url(variables: impl Iterator<Item = (String, String)>) -> Option<String> {
    let mut url = None;
    for (name, value) in variables {
        let upper = name.to_uppercase();
        let is_like = ["ESDB", "KURRENT", "EVENTSTORE"].iter().any(|it| upper.contains(it));
        if name == VARIABLE {
            assert!(!value.trim().is_empty(), "{VARIABLE} is empty: unset it to use the stand-in");
            url = Some(value);
        } else if upper.starts_with("WATCHWORD_TEST") || (is_like && upper.contains("TEST")) {
            panic!("these tests do not know {name}: name the server with {VARIABLE}");
        }
    }
    url
}

#[test]
fn a_mistyped_variable_is_no_silent_stand_in() {
    let read = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        std::panic::catch_unwind(|| server_url(pairs.into_iter())).ok()
    };
    assert_eq!(read(&[("PATH", "/bin"), ("WATCHWORD_LOG", "warn")]), Some(None));
    let url = "esdb://localhost:2113?tls=false";
    assert_eq!(read(&[(VARIABLE, url)]), Some(Some(url.to_owned())));
    for mistyped in [
        "WATCHWORD_TEST_ESBD_URL",
        "WATCHWORD_TEST_KURRENTDB_URL",
        "watchword_test_esdb_url",
        "TEST_ESDB_URL",
    ] {
        assert_eq!(read(&[(mistyped, url)]), None, "{mistyped}");
    }
    assert_eq!(read(&[(VARIABLE, " ")]), None);
}

macro_rules! contract {
    ($module:ident: $($name:ident)*) => {
        mod $module {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let world = World::new().await;
                contract::$name(Arc::new($module(&world).await)).await;
            })*
        }
    };
}

async fn one_node(world: &World) -> KurrentJournal {
    world.open("one").await
}

async fn two_nodes(world: &World) -> Nodes {
    world.two_nodes().await
}

contract! {
    one_node:
    reads_back_what_was_written
    checks_expected_versions
    checks_guards
    checks_claims
    is_idempotent
    forgets_old_idempotency_keys
    writes_all_or_nothing
    survives_racing_writers
    gets_one_origin
    shows_no_gap_to_a_reader_that_follows
    a_refusal_spares_its_neighbours
    keeps_snapshots
    keeps_cursors_of_effects
    knows_where_it_stood_at_a_time
}

// Each node keeps its own snapshots and forgets idempotency keys independently.
contract! {
    two_nodes:
    reads_back_what_was_written
    checks_expected_versions
    checks_guards
    checks_claims
    is_idempotent
    writes_all_or_nothing
    survives_racing_writers
    gets_one_origin
    shows_no_gap_to_a_reader_that_follows
    a_refusal_spares_its_neighbours
    keeps_cursors_of_effects
    knows_where_it_stood_at_a_time
}

/// On one thread all appends are queued before the writer runs once: one group.
#[tokio::test]
async fn neighbours_in_one_group() {
    let world = World::new().await;
    contract::a_refusal_spares_its_neighbours(Arc::new(world.open("one").await)).await;
}
