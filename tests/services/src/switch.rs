//! An address that leads to one of several servers, as that of a cluster does after a failover.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An address, and the server it leads to for now.
pub struct Switch {
    port: u16,
    server: Arc<AtomicU16>,
    cuts: watch::Sender<u64>,
}

impl Switch {
    /// An address that leads to the server on this port.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let server = Arc::new(AtomicU16::new(server));
        let cuts = watch::Sender::new(0);
        let (target, cut) = (Arc::clone(&server), cuts.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                // From now on: one that is cut while it connects is cut, too.
                let mut cut = cut.subscribe();
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::Acquire))).await
                else {
                    continue;
                };
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { port, server, cuts }
    }

    /// The same URL through this address.
    pub fn url(&self, database: &str) -> String {
        let (user, rest) = database.split_once('@').expect("the URL has a user");
        let (_, name) = rest.split_once('/').expect("the URL has a database");
        format!("{user}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    /// New connections lead to the server on this port. Existing ones stay where they are.
    pub fn turn(&self, server: u16) {
        self.server.store(server, Ordering::Release);
    }

    /// Breaks all existing connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}
