//! The extra duties of a container's first process.

/// Reaps orphaned processes. The first process inherits them, for example the commands of a container engine that took too long;
/// unreaped, each would occupy an entry of the process table.
///
/// Only for a process that starts no children itself.
#[cfg(unix)]
pub fn reap_orphans_as_first_process() -> anyhow::Result<()> {
    use rustix::process::{WaitOptions, wait};
    use tokio::signal::unix::{SignalKind, signal};

    if std::process::id() != 1 {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        loop {
            // One signal may stand for several processes.
            while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
            if ended.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// Not needed on this platform.
#[cfg(not(unix))]
pub fn reap_orphans_as_first_process() -> anyhow::Result<()> {
    Ok(())
}

/// The host name, by system call, because not every service can read the file that holds it.
pub fn hostname() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() { "node".to_owned() } else { name }
}
