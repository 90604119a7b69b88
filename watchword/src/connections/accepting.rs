//! Accepting connections, and what is done while the system gives none.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::Room;

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_millis(50);
/// After so long without a failure, it is over.
const CALM: Duration = Duration::from_mins(1);

/// A listener that says when it cannot accept.
pub struct Accepting {
    listener: TcpListener,
    failed: Option<Instant>,
}

impl Accepting {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, failed: None }
    }

    /// The next connection.
    pub async fn next(&mut self, room: &Room) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if self.failed.is_some_and(|failed| failed.elapsed() > CALM) {
                        self.failed = None;
                        tracing::info!("connections are accepted again without failures");
                    }
                    return accepted;
                }
                // The client has gone.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.say(&error);
                    // One that only waits gives its descriptor to one that asks.
                    room.crowd.end_one();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn say(&mut self, error: &Error) {
        let is_first = self.failed.is_none();
        self.failed = Some(Instant::now());
        let (reason, advice) = if lacks_descriptors(error) {
            ("descriptors", "; raise the limit of open files (LimitNOFILE= in a unit, ulimit -n)")
        } else {
            ("other", "")
        };
        metrics::counter!("watchword_accept_failures_total", "reason" => reason).increment(1);
        if is_first {
            tracing::error!(%error, "connections cannot be accepted: new clients wait{advice}");
        }
    }
}

fn is_of_one_connection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(unix)]
pub(super) fn lacks_descriptors(error: &Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(not(unix))]
pub(super) fn lacks_descriptors(_: &Error) -> bool {
    false
}
