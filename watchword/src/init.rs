//! The extra duties of a container's first process.

/// Reaps orphaned processes. The first process inherits them, for example the commands of a container engine that took too long;
/// unreaped, each would occupy an entry of the process table.
///
/// Only for a process that starts no children itself.
#[cfg(unix)]
pub fn reap_orphans_as_first_process() -> anyhow::Result<()> {
    use std::sync::Arc;

    use rustix::process::{WaitOptions, wait};
    use tasks::{End, Weight};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::sync::Mutex;

    if std::process::id() != 1 {
        return Ok(());
    }
    let ended = Arc::new(Mutex::new(signal(SignalKind::child())?));
    tasks::start("orphans", Weight::Usual, move || {
        let ended = Arc::clone(&ended);
        async move {
            let mut ended = ended.lock().await;
            loop {
                // One signal may stand for several processes.
                while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
                if ended.recv().await.is_none() {
                    return End::Unasked;
                }
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
