//! A pgbouncer in front of a PostgreSQL server.

use std::fs;
use std::process::{Child, Command};

use crate::postgres::PASSWORD;
use crate::process::Home;
use crate::{Postgres, free_port, paths, value, wait_until};

/// A pgbouncer in its own folder, which leads to a server's databases as its superuser.
pub struct PgBouncer {
    port: u16,
    child: Child,
    // Last: dropping it removes the folder.
    home: Home,
}

impl PgBouncer {
    /// Starts one with this `pool_mode`, and more lines for its configuration.
    pub fn start(server: &Postgres, pool_mode: &str, configuration: &str) -> Self {
        let found = paths("pgbouncer");
        let (user, group) = (value(&found, "PGBOUNCER_USER"), value(&found, "PGBOUNCER_GROUP"));
        let home = Home::new("pgbouncer-test-");
        let port = free_port();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres password={PASSWORD}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = 40\n{configuration}\n",
            server.port()
        );
        fs::write(home.path().join("pgbouncer.ini"), text).expect("the folder can be written");
        let program = value(&found, "PGBOUNCER");
        let mut command = if user.is_empty() {
            Command::new(program)
        } else {
            // It refuses to run as root.
            let owner = format!("{user}:");
            let status = Command::new("chown").args(["-R", &owner]).arg(home.path()).status();
            assert!(status.expect("chown runs").success());
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &group, "--clear-groups", "--", &program]);
            command
        };
        let mut child = home.spawn(command.arg("pgbouncer.ini"));
        wait_until("pgbouncer", || {
            let ended = child.try_wait().expect("it can be waited for");
            assert!(
                ended.is_none(),
                "pgbouncer ended: {}",
                fs::read_to_string(home.log()).unwrap_or_default()
            );
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { port, child, home }
    }

    /// The URL of the same database through it.
    pub fn url(&self, database: &str) -> String {
        let (_, name) = database.rsplit_once('/').expect("a URL has a path");
        format!("postgres://postgres:any@127.0.0.1:{}/{name}", self.port)
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.log()).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.home.end(&mut self.child, "KILL");
    }
}
