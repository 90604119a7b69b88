//! Faults: real processes under load, really killed, suspended, starved and lied to. Each test ends in the one checker
//! of `tests::checker`, which knows nothing about the fault: whatever happened, the log has everything that was
//! acknowledged, once; the bus and the read models match the log; a consumer that follows `prevposition` saw every
//! event once; ended sessions stay ended; the lag is zero again.
//!
//! | fault | where it is tested |
//! |---|---|
//! | kill -9 at any moment | `kill_9`; `tests/invariants/durability.rs` |
//! | death before and after an append, before a commit, around a publication, amid a projector's batch | `steps` |
//! | NATS absent at start | `nats_absent` |
//! | the host of NATS dies without a word, its open connections stand still | `nats_frozen` |
//! | NATS killed and stopped under load, started again | `nats_killed` |
//! | the stream's newest file cut | `nats_data_cut`; `effects/tests/relay/` |
//! | messages forged on the bus | `forged`; `watchword/tests/bus.rs`; `effects/tests/relay/` |
//! | the stream deleted | `stream_deleted` |
//! | duplicates beyond the dedupe window | the window of every test here is a second; `effects/tests/relay/` |
//! | PostgreSQL stopped, crashed, its sessions ended | `postgres`; `event-store/tests/postgres/faults.rs` |
//! | PostgreSQL killed, cut off, frozen, and its synchronous replica promoted | `failover` |
//! | a replica that lacks the newest events promoted; the former primary still there | `went_back` |
//! | the reply to a commit lost, the request lost, or late | `postgres`; `event-store/tests/postgres/faults.rs` |
//! | PostgreSQL's host dies without a word, connections stand still; read-only, full, locked by somebody | `bounds`; `event-store/tests/postgres/` |
//! | a session idle in a transaction | `postgres` |
//! | others in the database: plants, locks, notifications, transactions left open; a pooler in between; a dump without roles | `neighbours`; `event-store/tests/postgres/neighbours.rs`, `poolers.rs` |
//! | the greatest, negative and ancient numbers in leases, checkpoints, cursors, sequences and headers | `numbers` |
//! | neighbours' locks, transactions and notifications, all at once, against the documented bounds; a full table of locks; a locked read model | `locks` |
//! | what the service's role may do | `rights` |
//! | a node of two killed | `postgres`; `tests/nodes` |
//! | two nodes racing for one address, one refresh token | `tests/nodes` |
//! | a service or a server stands still for longer than every timeout | `paused` |
//! | a node of projections alone dies; its bus breaks | `roles`; `watchword/tests/bus.rs` |
//! | SIGTERM under load | `terminated` |
//! | disk full: journal, read models, NATS | `disk_full` |
//! | disk full at the first start | `first_start` |
//! | death at each step of the erasure of a person; an older key store | `erase` |
//! | each call that writes a store fails once, always, short, slow; read-only; locked | `storage` |
//! | `/readyz` against the truth, over random sequences of these | `readiness_truth` |
//! | files of stores deleted or replaced while open, the lock deleted, an older key store | `storage_files` |
//! | clock an hour off | `clock` |
//! | flipped byte in a stored event, which is poison for projectors | `flipped_byte`; `event-store/tests/sqlite.rs` |
//! | events, claims and keys that somebody without the master key has put into the stores | `forged_stores`, `forged_rows`, `forged_claims`; `event-store/tests/proofs/`, `snapshots.rs` |
//! | rows of read models that somebody has changed | `forged_read_models`; `read-models/src/tests/compared.rs` |
//! | trees and journals that must not be signed | `forged_checkpoints` |
//! | poison event | `projection-service/src/tests/running.rs`, and for several nodes `sharing.rs` beside it |
//! | a mail that cannot be made, an event that cannot be published, without a panic | `poison` |
//! | no file descriptor left | `descriptors` |
//! | rebuild during writes and reads at a steady pace; killed at random moments | `rebuild`; `tests/nodes/rebuild.rs` |
//! | the upgrade that gives events their MACs killed | `upgrade_killed` |
//! | old data directory | `old_data`; older formats of single files: `event-store/tests`, `read-models/src/tests/rows.rs` |
//! | the sender of mails killed, dead around a mail, replaced by another node | `mail`; `effects/src/mailer/tests.rs` |
//! | mail server hanging, away, deferring | `mail`; `effects/src/mailer/tests.rs` |
//! | the sender of webhooks killed, dead around a message, replaced by another node | `webhooks` |
//! | background tasks that panic, once and again and again | `tasks`; `tasks/src/tests.rs` |
//! | the log's disk full, its reader gone or asleep, stderr closed | `log`; `watchword/src/logging/outlet/tests.rs` |

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::BuildHasher;
use std::time::Duration;

use serde_json::Value;
use test_services::Nats;
use tests::{Server, until};

mod bounds;
mod clock;
mod descriptors;
mod disk_full;
mod erase;
mod failover;
mod first_start;
mod flipped_byte;
mod forged;
mod forged_checkpoints;
mod forged_claims;
mod forged_read_models;
mod forged_rows;
mod forged_stores;
mod kill_9;
mod locks;
mod log;
mod mail;
mod nats_absent;
mod nats_data_cut;
mod nats_frozen;
mod nats_killed;
mod neighbours;
mod numbers;
mod old_data;
mod paused;
mod poison;
mod postgres;
mod readiness_truth;
mod rebuild;
mod rights;
mod roles;
mod steps;
mod storage;
mod storage_files;
mod stream_deleted;
mod tasks;
mod terminated;
mod upgrade_killed;
mod webhooks;
mod went_back;

/// Cheap hashes, so that the load is on the journal; a check of the stream's end every second; and a bus that forgets
/// the ids of messages before any process is up again.
const SETTINGS: [(&str, &str); 3] = [
    ("WATCHWORD_ARGON2", "m=1024,t=1,p=1"),
    ("WATCHWORD_NATS_CHECK_INTERVAL", "1"),
    ("WATCHWORD_NATS_DUPLICATE_WINDOW", "1"),
];

/// A server with a bus.
async fn server_with(nats: &Nats) -> Server {
    server_of(nats, &[]).await
}

/// A server with a bus and these settings.
async fn server_of(nats: &Nats, settings: &[(&str, &str)]) -> Server {
    let url = nats.url();
    let environment = [&SETTINGS[..], &[("WATCHWORD_NATS_URL", url.as_str())], settings].concat();
    Server::start_with(&environment).await
}

/// What readiness reports of the relay.
async fn relay(server: &Server) -> Value {
    server.readiness().await.expect(200).json()["checks"]["relay"].clone()
}

/// Random numbers that a seed reproduces. The seed is printed, which shows if a test fails.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = env::var("FAULTS_SEED").ok().map(|seed| seed.parse().expect("FAULTS_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(()));
        println!("to get the same numbers again: FAULTS_SEED={seed}");
        Self(seed)
    }

    /// `SplitMix64` (Steele, Lea and Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Waits for a random time below this, so that a fault comes at a different moment each time.
    async fn moment(&mut self, below: Duration) {
        let micros = u64::try_from(below.as_micros()).expect("tests are short");
        tokio::time::sleep(Duration::from_micros(self.next() % micros)).await;
    }
}
