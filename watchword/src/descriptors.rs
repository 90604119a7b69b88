//! File descriptors: the most files and connections that the process may have open.

use http_kit::places::Shares;

/// How many stay free of clients' connections: for the stores, the bus, mail and further services.
const RESERVE: std::ops::RangeInclusive<u64> = 64..=512;

/// Raises the limit as far as the system allows without privileges, and returns it. The lower default is for programs that
/// use `select(2)`.
#[cfg(unix)]
pub fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays at {:?}", before.current);
            before.current
        }
    }
}

/// Not known on this platform.
#[cfg(not(unix))]
pub fn raise() -> Option<u64> {
    None
}

/// How many clients' connections there can be with such a limit.
fn connections(limit: u64) -> usize {
    let reserve = (limit / 8).clamp(*RESERVE.start(), *RESERVE.end()).min(limit / 2);
    usize::try_from(limit - reserve).unwrap_or(usize::MAX).max(1)
}

/// Raises the limit, and lowers what needs more than it. Says so.
pub fn fit(most_connections: &mut usize, in_flight: &mut Shares) {
    if let Some(limit) = raise() {
        fit_into(limit, most_connections, in_flight);
    }
    metrics::gauge!("watchword_http_connections_max")
        .set(u32::try_from(*most_connections).unwrap_or(u32::MAX));
}

fn fit_into(limit: u64, most_connections: &mut usize, in_flight: &mut Shares) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("process_max_fds").set(limit as f64);
    let possible = connections(limit);
    let advice = "raise the limit of open files (LimitNOFILE= in a unit, ulimit -n, --ulimit nofile=)";
    if *most_connections > possible {
        tracing::warn!(
            "this process may open {limit} files: there is room for {possible} connections, not {most_connections} \
             (http.connections); {advice}"
        );
        *most_connections = possible;
    }
    if in_flight.total > *most_connections {
        tracing::warn!(
            "limits.in_flight is {most_connections}, not {}: no more connections are possible; {advice}, or http.connections",
            in_flight.total
        );
        *in_flight = in_flight.at_most(*most_connections);
    }
}

/// Updates the gauge of open descriptors.
pub fn measure() {
    // Only Linux tells it.
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One is that of the folder.
        let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
        metrics::gauge!("process_open_fds").set(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_not_for_connections() {
        for (limit, free) in
            [(1, 1), (64, 32), (256, 192), (1024, 896), (20_000, 19_488), (1 << 40, (1 << 40) - 512)]
        {
            assert_eq!(connections(limit), free, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let limit = raise();
        #[cfg(unix)]
        assert_eq!(limit, rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum);
    }

    #[test]
    fn what_needs_more_than_the_limit_is_lowered() {
        let (mut connections, mut in_flight) = (16_384, Shares::of(4096));
        fit_into(20_000, &mut connections, &mut in_flight);
        assert_eq!((connections, in_flight), (16_384, Shares::of(4096)));
        fit_into(1024, &mut connections, &mut in_flight);
        assert_eq!((connections, in_flight), (896, Shares::of(896)));
    }
}
