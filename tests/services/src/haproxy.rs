//! A `HAProxy` in front of a PostgreSQL server and its replica.

use std::fs;
use std::process::{Child, Command};

use crate::process::Home;
use crate::{Postgres, free_port, paths, value, wait_until};

/// A `HAProxy` in its own folder. It leads to a server as long as that answers its check, then to the other one.
pub struct HaProxy {
    port: u16,
    child: Child,
    // Last: dropping it removes the folder.
    home: Home,
}

impl HaProxy {
    /// Starts one, as `deploy/README.md` recommends to.
    pub fn start(first: &Postgres, second: &Postgres) -> Self {
        let program = value(&paths("haproxy"), "HAPROXY");
        let home = Home::new("haproxy-test-");
        let port = free_port();
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  timeout check 1s\n\
             listen postgres\n  bind 127.0.0.1:{port}\n  option pgsql-check user watchword\n\
             \x20 default-server check inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n\
             \x20 server first 127.0.0.1:{}\n  server second 127.0.0.1:{} backup\n",
            first.port(),
            second.port()
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

    /// The same URL through it.
    pub fn url(&self, database: &str) -> String {
        let (user, rest) = database.split_once('@').expect("the URL has a user");
        let (_, name) = rest.split_once('/').expect("the URL has a database");
        format!("{user}@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        self.home.end(&mut self.child, "KILL");
    }
}
