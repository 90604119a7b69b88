//! The KurrentDB journal: the contract, alone and with several nodes; and what breaks between a node and its server.
//!
//! With `WATCHWORD_TEST_ESDB_URL` (`esdb://admin:changeit@localhost:2113?tls=false`) the contract is held against that
//! server: each test has a stream of its own there, which it leaves behind. Without it, a server in this process stands
//! in, which knows the protocol and nothing else; each test then says so, as that shows less. What is done about
//! faults is always shown on the stand-in, which makes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_store::contract::{self, Nodes};
use event_store::{
    Clock, JournalMark, KurrentJournal, KurrentSettings, KurrentUrl, Macs, OpenError, SystemClock,
};
use tempfile::TempDir;

mod access;
mod faults;
mod forged;
mod protocol;
mod replicas;
mod server;

use server::Server;

const VARIABLE: &str = "WATCHWORD_TEST_ESDB_URL";

/// A journal of its own on a server, and a folder for its nodes' replicas.
struct World {
    stand_in: Option<Server>,
    url: KurrentUrl,
    stream: String,
    folder: TempDir,
}

impl World {
    /// On the server that the variable names, or the stand-in.
    async fn new() -> Self {
        if let Ok(url) = std::env::var(VARIABLE) {
            return Self::on(None, &url);
        }
        println!("no {VARIABLE}: this ran on a stand-in, and has not been shown on a KurrentDB server");
        Self::stand_in().await
    }

    async fn stand_in() -> Self {
        let server = Server::start().await;
        let url = server.url();
        Self::on(Some(server), &url)
    }

    fn on(stand_in: Option<Server>, url: &str) -> Self {
        let stream = format!("watchword-test-{}", SystemClock.new_id());
        let folder = tempfile::tempdir().expect("a folder");
        Self { stand_in, url: url.parse().expect("a URL"), stream, folder }
    }

    fn server(&self) -> &Server {
        self.stand_in.as_ref().expect("it is the stand-in")
    }

    /// Waits that are short enough for a test, and long enough for a busy machine.
    fn settings(&self) -> KurrentSettings {
        KurrentSettings {
            stream: self.stream.clone(),
            answer_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(15),
            answer: Duration::from_secs(20),
            ..KurrentSettings::default()
        }
    }

    /// As [`World::settings`], for a node that soon gives up.
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

    /// A node of another instance, or of one whose events are of before there were MACs.
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
}

// Snapshots are a node's own, and each node forgets idempotency keys by itself.
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
}

/// On one thread all appends are queued before the writer runs once: one group.
#[tokio::test]
async fn neighbours_in_one_group() {
    let world = World::new().await;
    contract::a_refusal_spares_its_neighbours(Arc::new(world.open("one").await)).await;
}
