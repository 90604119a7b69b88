//! A process that does not outlive the test.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

use crate::wait_until;

/// The folder of a service, and a shell that waits until this process is gone, then ends the service and removes the
/// folder. The shell notices by its standard input, which ends with this process even if that is killed.
pub(crate) struct Home {
    directory: PathBuf,
    lifeline: Option<ChildStdin>,
    janitor: Child,
}

const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
if pid=$(cat pid 2>/dev/null); then
    kill -QUIT "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.05; done
    kill -KILL "$pid" 2>/dev/null
fi
cd / && rm -rf "$1"
"#;

impl Home {
    pub(crate) fn new(prefix: &str) -> Self {
        let directory = TempDir::with_prefix(prefix).expect("a temporary directory can be made").keep();
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR, "sh"])
            .arg(&directory)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let lifeline = janitor.stdin.take();
        Self { directory, lifeline, janitor }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Starts the service in its folder.
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        let log = File::options().create(true).append(true).open(self.log()).expect("the log can be opened");
        let child = command
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the service can be started");
        let mut pid = File::create(self.directory.join("pid")).expect("the folder can be written");
        writeln!(pid, "{}", child.id()).expect("the folder can be written");
        child
    }

    /// Sends a signal to the service and waits until it is gone.
    pub(crate) fn end(&self, child: &mut Child, signal_name: &str) {
        signal(child.id(), signal_name);
        // One that stands still, as a failed test may leave it, would never end.
        let _ = signal_if_alive(child.id(), "CONT");
        child.wait().expect("it can be waited for");
        fs::remove_file(self.directory.join("pid")).expect("it was written at the start");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.janitor.wait();
    }
}

/// Sends a signal by its name, such as `KILL`. After `STOP` it returns once the process stands still.
pub fn signal(pid: u32, name: &str) {
    assert!(signal_if_alive(pid, name), "signal {name} to {pid}");
}

/// Like [`signal`]; returns whether there is such a process.
pub(crate) fn signal_if_alive(pid: u32, name: &str) -> bool {
    // The standard library sends only SIGKILL, and only to children; every shell has `kill` built in.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    let is_sent = status.expect("a shell runs").success();
    if is_sent && name == "STOP" {
        // One thread takes the signal and halts the others: until it gets its turn, they still answer.
        wait_until("a process stands still", || stands_still(pid));
    }
    is_sent
}

/// Whether each thread of a process is stopped, or the process is gone.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| match fs::read_to_string(thread.path().join("stat")) {
        // The name stands in parentheses, and may contain some itself.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X'])),
        Err(_) => true,
    })
}
