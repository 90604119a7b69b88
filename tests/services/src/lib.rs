//! PostgreSQL, nats-server, a mail server and a browser as processes of a test, on loopback and with their own folders.
//! `deploy/dev-services` finds or gets the programs. A service ends when its value is dropped, or with the test's
//! process, however that ends.
//!
//! The functions panic if something does not work, as tests do.
#![deny(missing_docs)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod browser;
mod certificate;
mod cloud_events;
mod disk;
mod haproxy;
mod io_faults;
mod nats;
mod neighbour;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;
mod relay;
mod smtp;
mod switch;

pub use browser::{Browser, Scripts, Shown};
pub use cloud_events::faults_of_cloud_events;
pub use disk::Disk;
pub use haproxy::{HaProxy, TlsProxy};
pub use io_faults::{Calls, IoFault, IoFaults, What};
pub use nats::Nats;
pub use neighbour::{Watch, plants, temporary_plants};
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use process::signal;
pub use proxy::{Fault, Proxy};
pub use relay::Relay;
pub use smtp::{Smtp, SmtpTls};
pub use switch::Switch;

/// How long a service may take to start. It usually takes a fraction of a second; a loaded machine gets more time.
const START: Duration = Duration::from_mins(1);

/// The output of `deploy/dev-services paths` for a service: values by key.
fn paths(service: &str) -> Vec<(String, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/dev-services");
    let output = Command::new(script)
        .args(["paths", service])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("deploy/dev-services runs");
    assert!(output.status.success(), "deploy/dev-services cannot get {service}");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.lines().filter_map(pair).collect()
}

fn value(of: &[(String, String)], key: &str) -> String {
    of.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).expect("dev-services says it")
}

/// A port that nothing listens on. Another process may take it before it is used.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Waits until `ready` returns true.
fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + START;
    while !ready() {
        assert!(Instant::now() < deadline, "{what} does not become ready");
        std::thread::sleep(Duration::from_millis(10));
    }
}
