//! `HAProxy`, in front of a PostgreSQL server and its replica, or of a server that speaks no TLS.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::certificate::make_certificate;
use crate::process::Home;
use crate::{Postgres, free_port, paths, value, wait_until};

/// A `HAProxy` in its own folder. It leads to a server as long as that answers its check, then to the other one.
pub struct HaProxy {
    process: Process,
}

impl HaProxy {
    /// Starts one, as `deploy/README.md` recommends to.
    pub fn start(first: &Postgres, second: &Postgres) -> Self {
        let listen = |port| {
            format!(
                "listen postgres\n  bind 127.0.0.1:{port}\n  option pgsql-check user watchword\n\
                 \x20 default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n\
                 \x20 server first 127.0.0.1:{}\n  server second 127.0.0.1:{} backup\n",
                first.port(),
                second.port()
            )
        };
        Self { process: Process::start(Home::new("haproxy-test-"), listen) }
    }

    /// The same URL through it.
    pub fn url(&self, database: &str) -> String {
        let (user, rest) = database.split_once('@').expect("the URL has a user");
        let (_, name) = rest.split_once('/').expect("the URL has a database");
        format!("{user}@127.0.0.1:{}/{name}?sslmode=disable", self.process.port)
    }
}

/// A `HAProxy` that speaks TLS for a server on loopback, for clients that trust [`TlsProxy::certificate`] and connect to
/// `localhost`.
pub struct TlsProxy {
    process: Process,
}

impl TlsProxy {
    /// Starts one in front of this port.
    pub fn start(server: u16) -> Self {
        let home = Home::new("tls-proxy-test-");
        make_certificate(home.path());
        let listen = |port| {
            format!(
                "listen tls\n  bind 127.0.0.1:{port} ssl crt server.pem\n  server plain 127.0.0.1:{server}\n"
            )
        };
        Self { process: Process::start(home, listen) }
    }

    /// The port it listens on, at `127.0.0.1`.
    pub fn port(&self) -> u16 {
        self.process.port
    }

    /// The PEM file of the authority that signed its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.process.home.path().join("ca.pem")
    }
}

struct Process {
    port: u16,
    child: Child,
    // Last: dropping it removes the folder.
    home: Home,
}

impl Process {
    fn start(home: Home, listen: impl FnOnce(u16) -> String) -> Self {
        let program = value(&paths("haproxy"), "HAPROXY");
        let port = free_port();
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 1s\n{}",
            listen(port)
        );
        fs::write(home.path().join("haproxy.cfg"), text).expect("the folder can be written");
        let mut child = home.spawn(Command::new(program).args(["-db", "-f", "haproxy.cfg"]));
        wait_until("HAProxy", || {
            let ended = child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "HAProxy ended: {}", fs::read_to_string(home.log()).unwrap_or_default());
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { port, child, home }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.home.end(&mut self.child, "KILL");
    }
}
