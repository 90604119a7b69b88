//! A relay between a node and its server: it forwards what both send, and drops, cuts or delays it when a test says so.
//! Of the protocol (HTTP/2 in the clear) it reads only where calls begin and end, so it works before any server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What happens to the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call is carried out, and the answer is lost.
    LoseReply,
    /// The call itself is lost.
    LoseRequest,
    /// The call is carried out when the test says so, long after the client has given up.
    Late,
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    late: Vec<(Vec<u8>, Server)>,
    is_down: bool,
    is_silent: bool,
    connections: JoinSet<()>,
    calls: usize,
}

/// A relay on a port of this machine, until it is dropped.
pub(crate) struct Relay {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Server {
    reading: OwnedReadHalf,
    writing: OwnedWriteHalf,
    frames: Frames,
}

impl Relay {
    /// Starts a relay before the server at this address.
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let relayed = relay(client, server.clone(), Arc::clone(&shared));
                let mut state = lock(&shared);
                if !state.is_down {
                    state.connections.spawn(relayed);
                }
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Makes the next calls fail like this, in this order.
    pub(crate) fn fail(&self, faults: &[Fault]) {
        lock(&self.state).faults.extend(faults);
    }

    /// How many calls were made.
    pub(crate) fn calls(&self) -> usize {
        lock(&self.state).calls
    }

    /// Cuts all connections and refuses new ones, or accepts them again.
    pub(crate) fn set_down(&self, is_down: bool) {
        let mut state = lock(&self.state);
        state.is_down = is_down;
        state.connections.abort_all();
    }

    /// Receives everything and forwards nothing, or forwards again; what was sent meanwhile is lost.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        let mut state = lock(&self.state);
        state.is_silent = is_silent;
        if !is_silent {
            state.connections.abort_all();
        }
    }

    /// Delivers delayed calls, which are then carried out.
    pub(crate) async fn deliver(&self) {
        let late = std::mem::take(&mut lock(&self.state).late);
        for (bytes, mut server) in late {
            server.writing.write_all(&bytes).await.expect("the server is there");
            server.until_answered().await;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    async fn until_answered(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = self.reading.read(&mut buffer).await {
            if self.frames.push(&buffer[..length]).ended > 0 {
                return;
            }
        }
    }
}

async fn relay(client: TcpStream, server: String, state: Arc<Mutex<State>>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("is open");
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (reading, writing) = server.into_split();
    let mut server = Server { reading, writing, frames: Frames::default() };
    // A client first sends the connection preface.
    let mut frames = Frames { skipped: PREFACE, ..Frames::default() };
    let (mut said, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            length = from_client.read(&mut said) => {
                let Ok(length @ 1..) = length else { return };
                let begun = frames.push(&said[..length]).begun;
                let fault = {
                    let mut state = lock(&state);
                    if state.is_silent {
                        continue;
                    }
                    state.calls += begun;
                    if begun > 0 { state.faults.pop_front() } else { None }
                };
                match fault {
                    Some(Fault::LoseRequest) => return,
                    Some(Fault::Late) => {
                        let mut bytes = said[..length].to_vec();
                        // Read the whole request: the rest follows immediately.
                        while !frames.is_ended {
                            let Ok(length @ 1..) = from_client.read(&mut said).await else { return };
                            frames.push(&said[..length]);
                            bytes.extend_from_slice(&said[..length]);
                        }
                        lock(&state).late.push((bytes, server));
                        return;
                    }
                    Some(Fault::LoseReply) => {
                        if server.writing.write_all(&said[..length]).await.is_err() {
                            return;
                        }
                        while !frames.is_ended {
                            let Ok(length @ 1..) = from_client.read(&mut said).await else { return };
                            frames.push(&said[..length]);
                            if server.writing.write_all(&said[..length]).await.is_err() {
                                return;
                            }
                        }
                        server.until_answered().await;
                        return;
                    }
                    None => {
                        if server.writing.write_all(&said[..length]).await.is_err() {
                            return;
                        }
                    }
                }
            }
            length = server.reading.read(&mut answered) => {
                let Ok(length @ 1..) = length else { return };
                server.frames.push(&answered[..length]);
                if !lock(&state).is_silent && to_client.write_all(&answered[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The length of the connection preface before a client's first frame.
const PREFACE: usize = 24;

/// Where calls begin and end, in the frames that one side sends.
#[derive(Default)]
struct Frames {
    skipped: usize,
    bytes: Vec<u8>,
    /// Whether the last frame ends a call from this side.
    is_ended: bool,
}

#[derive(Default)]
struct Seen {
    begun: usize,
    ended: usize,
}

impl Frames {
    fn push(&mut self, bytes: &[u8]) -> Seen {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const END_STREAM: u8 = 1;
        let skipped = self.skipped.min(bytes.len());
        self.skipped -= skipped;
        self.bytes.extend_from_slice(&bytes[skipped..]);
        let mut seen = Seen::default();
        while let Some([a, b, c, kind, flags, ..]) = self.bytes.get(..9) {
            let length = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if self.bytes.len() < length {
                break;
            }
            if [DATA, HEADERS].contains(kind) {
                seen.begun += usize::from(*kind == HEADERS);
                self.is_ended = flags & END_STREAM != 0;
                seen.ended += usize::from(self.is_ended);
            }
            self.bytes.drain(..length);
        }
        seen
    }
}
