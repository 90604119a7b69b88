//! What the first process of a container does besides its work.

/// Puts away processes that were left behind. Whoever's parent has ended becomes a child of the first process, here the commands of
/// a container engine that took too long: nobody else hears of their end, and each would keep its place for good.
///
/// Only for a process that starts none itself.
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
            // One signal may stand for several of them.
            while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
            if ended.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// There is no such process here.
#[cfg(not(unix))]
pub fn reap_orphans_as_first_process() -> anyhow::Result<()> {
    Ok(())
}

/// What the system calls this machine. It is asked, as not every service sees where it is written down.
pub fn hostname() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    if name.is_empty() { "node".to_owned() } else { name }
}
