//! The signals that end the process.

use std::future::Future;

use anyhow::Context;

/// Catches SIGTERM, SIGINT and SIGHUP from now on; the future ends with the first. There is nothing that a hangup could
/// make the service open anew: its log is stderr, and its settings hold until it ends.
#[cfg(unix)]
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let catch = |kind| signal(kind).context("cannot install signal handlers");
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    // `nohup` ignores it for its program.
    let mut hangup = if ignores_hangup() { None } else { Some(catch(SignalKind::hangup())?) };
    Ok(async move {
        let hangup = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup => {}
        }
    })
}

/// Whether whoever started the process made it ignore SIGHUP; only Linux tells it.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 << (rustix::process::Signal::HUP.as_raw() - 1) != 0)
}

/// Ends on Ctrl-C.
#[cfg(not(unix))]
pub fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
