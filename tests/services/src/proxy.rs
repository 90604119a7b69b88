//! A network between a node and its database that loses messages on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// What happens to the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The append is carried out, and the connection breaks before the answer comes.
    LoseReply,
    /// The connection breaks before it arrives.
    LoseRequest,
    /// The append is delayed, and arrives long after the node has given up waiting.
    Late(Duration),
}

/// A network between a node and its database.
pub struct Proxy {
    port: u16,
    next: Arc<Mutex<Option<Fault>>>,
}

impl Proxy {
    /// Starts a proxy in front of the server that listens on this port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let next: Arc<Mutex<Option<Fault>>> = Arc::default();
        let faults = Arc::clone(&next);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await;
                if let Ok(server) = server {
                    tokio::spawn(carry(client, server, Arc::clone(&faults)));
                }
            }
        });
        Self { port, next }
    }

    /// The same URL through the proxy.
    pub fn url(&self, database: &str) -> String {
        let (user, rest) = database.split_once('@').expect("the URL has a user");
        let (_, name) = rest.split_once('/').expect("the URL has a database");
        format!("{user}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    /// Makes the next append fail like this.
    pub async fn break_next(&self, fault: Fault) {
        *self.next.lock().await = Some(fault);
    }

    /// Whether the requested fault has happened.
    pub async fn is_done(&self) -> bool {
        self.next.lock().await.is_none()
    }
}

/// A connection whose client has named the append function is the one that appends.
async fn carry(mut client: TcpStream, mut server: TcpStream, faults: Arc<Mutex<Option<Fault>>>) {
    let appends = AtomicBool::new(false);
    let (mut request, mut reply) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut lose_reply = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &request[..read];
                if bytes.windows(17).any(|window| window == b"watchword.append(") {
                    appends.store(true, Ordering::Relaxed);
                    // This only prepares the function; the next message calls it.
                } else if appends.load(Ordering::Relaxed)
                    && bytes[0] == b'B'
                    && let Some(fault) = faults.lock().await.take()
                {
                    match fault {
                        Fault::LoseReply => lose_reply = true,
                        Fault::LoseRequest => return,
                        Fault::Late(by) => {
                            let late = bytes.to_vec();
                            tokio::spawn(async move {
                                tokio::time::sleep(by).await;
                                let _ = server.write_all(&late).await;
                                // The answer is read and discarded.
                                let mut answer = vec![0; 1 << 16];
                                let _ = tokio::time::timeout(Duration::from_secs(2), server.read(&mut answer)).await;
                            });
                            // The node waits in vain.
                            let _ = client.read(&mut request).await;
                            return;
                        }
                    }
                }
                if server.write_all(&request[..read]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut reply) => {
                let Ok(read @ 1..) = read else { return };
                if lose_reply {
                    return;
                }
                if client.write_all(&reply[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
