//! A network in front of a server that stands still without a word, and leads elsewhere on request.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// After how long a server ends the session of a client that it does not reach.
const SERVER_NOTICES: Duration = Duration::from_secs(10);

/// The address of a server. What stands still stays so: no connection of before is ever closed or answered again, as when
/// a machine has lost its power or its network.
pub struct Relay {
    port: u16,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy)]
struct State {
    /// The port of the server.
    server: u16,
    /// How many connections were made.
    made: u64,
    /// How many of them stand still: the first ones.
    frozen: u64,
    /// Whether new connections are accepted, and led nowhere.
    is_dead: bool,
}

impl Relay {
    /// Starts one in front of the server that listens on this port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(watch::Sender::new(State { server, made: 0, frozen: 0, is_dead: false }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.send_modify(|state| {
                    state.made += 1;
                    if state.is_dead {
                        state.frozen = state.made;
                    }
                });
                let number = shared.borrow().made;
                tokio::spawn(carry(client, number, shared.subscribe()));
            }
        });
        Self { port, state }
    }

    /// The port it listens on, at `127.0.0.1`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same URL of a database through the relay.
    pub fn url(&self, database: &str) -> String {
        let (user, rest) = database.split_once('@').expect("the URL has a user");
        let (_, name) = rest.split_once('/').expect("the URL has a database");
        format!("{user}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    /// From now on nothing passes, on open connections and on new ones.
    pub fn freeze(&self) {
        self.state.send_modify(|state| {
            state.frozen = state.made;
            state.is_dead = true;
        });
    }

    /// The connections that are open now stand still; new ones are led to the server.
    pub fn freeze_open(&self) {
        self.state.send_modify(|state| state.frozen = state.made);
    }

    /// New connections are led to the server on this port.
    pub fn lead_to(&self, server: u16) {
        self.state.send_modify(|state| {
            state.server = server;
            state.is_dead = false;
        });
    }
}

async fn carry(mut client: TcpStream, number: u64, mut state: watch::Receiver<State>) {
    let port = state.borrow().server;
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let is_frozen = async { state.wait_for(|state| state.frozen >= number).await.is_ok() };
    let still = tokio::select! {
        biased;
        still = is_frozen => still,
        _ = copy_bidirectional(&mut client, &mut server) => false,
    };
    if still {
        // Both ends stay open, and nothing comes through. The server's kernel notices at some time that its client is gone.
        sleep(SERVER_NOTICES).await;
        drop(server);
        pending::<()>().await;
    }
}
