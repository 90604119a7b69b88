//! The client's address behind proxies, and how a proxy that is not configured as trusted is detected: behind it every
//! client has the proxy's address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use crate::crowd::Owner;
use crate::limits::address_key;

/// This many requests are enough evidence.
const ENOUGH: u32 = 20;
/// A proxy may have several addresses or instances.
const MOST_PROXIES: usize = 4;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The evidence from the first requests.
#[derive(Default)]
pub(crate) struct Forwarded {
    seen: Mutex<Seen>,
    /// Whether the question is decided.
    is_over: AtomicBool,
    /// Whether the log says that a proxy writes something else than addresses.
    is_odd: AtomicBool,
}

#[derive(Default)]
struct Seen {
    peers: BTreeSet<IpAddr>,
    requests: u32,
}

impl Forwarded {
    /// Notes a request that does not come from a trusted proxy. Returns true at most once: when enough requests have
    /// come, all from a few addresses and all with a forwarding header.
    pub(crate) fn notices(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        if self.is_over.load(Ordering::Relaxed) {
            return false;
        }
        let passes_on =
            [X_FORWARDED_FOR, header::FORWARDED, X_REAL_IP].iter().any(|name| headers.contains_key(name));
        if !passes_on {
            // A request from this machine, such as a probe, is not from a client; any other request comes directly from
            // one.
            if !peer.to_canonical().is_loopback() {
                self.is_over.store(true, Ordering::Relaxed);
            }
            return false;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.peers.insert(peer);
        seen.requests += 1;
        let is_enough = seen.peers.len() > MOST_PROXIES || seen.requests >= ENOUGH;
        // Under the lock: it was decided meanwhile, or it is now, once.
        is_enough && !self.is_over.swap(true, Ordering::Relaxed) && seen.peers.len() <= MOST_PROXIES
    }

    /// The client's address; says once if a proxy does not write addresses.
    pub(crate) fn client_address(&self, peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
        client_address(peer, headers, trusted).unwrap_or_else(|known| {
            if !self.is_odd.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %peer,
                    "a trusted proxy passed on an X-Forwarded-For that is not an address where the client's should be: such \
                     requests count as those of the last proxy that is known, with one rate limit for all of them"
                );
            }
            known
        })
    }
}

/// Whether an address is one of our proxies.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// Whose connections those of a peer are.
pub fn peer_of(peer: IpAddr, trusted: &[IpNet]) -> Owner {
    let key = address_key(Some(peer));
    if is_trusted(peer.to_canonical(), trusted) { Owner::Proxy(key) } else { Owner::Client(key) }
}

/// The right-most hop that is not one of our proxies: everything left of it is unverified. An error if a proxy wrote
/// something else than an address; it has the last address that is known.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Result<IpAddr, IpAddr> {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return Ok(client);
    }
    // A value that is no text has no commas either.
    let hops = headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or("?"));
    let hops = hops.flat_map(|value| value.split(',')).map(str::trim).collect::<Vec<_>>();
    // Empty elements of a list are none (RFC 9110 section 5.6.1.2).
    for hop in hops.into_iter().rev().filter(|hop| !hop.is_empty()) {
        // A hop that is not an address cannot be skipped: who is behind it is unknown.
        client = parse_hop(hop).ok_or(client)?;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    Ok(client)
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, `fe80::1%eth0`, and each of them in
/// quotes and after `for=`, as in `Forwarded` (RFC 7239).
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = match hop.split_at_checked(4) {
        Some((name, rest)) if name.eq_ignore_ascii_case("for=") => rest,
        _ => hop,
    };
    let hop = hop.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(hop).trim();
    let (bare, port) = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        // An IPv6 address without brackets has more than one colon, and no port.
        None => match hop.split_once(':') {
            Some((v4, port)) if !port.contains(':') => (v4, &hop[hop.len() - port.len() - 1..]),
            _ => (hop, ""),
        },
    };
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if !(port.is_empty() || port.strip_prefix(':').is_some_and(is_port)) {
        return None;
    }
    // The zone is a name of the proxy's own (RFC 4007), and one client has one.
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    Some(address.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: Option<&str>) -> HeaderMap {
        let name = name.map(|name| HeaderName::try_from(name).expect("a name"));
        name.into_iter().map(|name| (name, HeaderValue::from_static("192.0.2.7"))).collect()
    }

    fn notices(requests: impl IntoIterator<Item = (&'static str, Option<&'static str>)>) -> Vec<usize> {
        let forwarded = Forwarded::default();
        let told = requests
            .into_iter()
            .map(|(peer, name)| forwarded.notices(peer.parse().expect("an address"), &headers(name)));
        told.enumerate().filter(|(_, told)| *told).map(|(place, _)| place + 1).collect()
    }

    #[test]
    fn an_untrusted_proxy_is_noticed_once() {
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            assert_eq!(notices((0..90).map(|_| ("10.0.0.7", Some(name)))), [20], "{name}");
        }
        // Two proxies, one on this machine, and an operator beside it.
        let two = ["10.0.0.7", "10.0.0.8"].into_iter().cycle().take(60);
        assert_eq!(notices(two.map(|peer| (peer, Some("x-forwarded-for")))), [20]);
        assert_eq!(notices((0..60).map(|_| ("::ffff:127.0.0.1", Some("x-forwarded-for")))), [20]);
        let beside = (0..60).map(|place| ("127.0.0.1", (place % 2 == 0).then_some("x-forwarded-for")));
        assert_eq!(notices(beside), [39]);
    }

    #[test]
    fn an_address_is_read_in_every_way_that_proxies_write_it() {
        let v4 = [
            "192.0.2.7",
            "192.0.2.7:4711",
            "\"192.0.2.7\"",
            "\"192.0.2.7:80\"",
            "for=192.0.2.7",
            "::ffff:192.0.2.7",
        ];
        for hop in v4 {
            assert_eq!(parse_hop(hop).map(|it| it.to_string()).as_deref(), Some("192.0.2.7"), "{hop}");
        }
        let v6 = [
            "2001:db8::7",
            "[2001:db8::7]",
            "[2001:db8::7]:4711",
            "\"[2001:db8::7]:4711\"",
            "For=\"[2001:db8::7]\"",
            "2001:DB8::7%eth0",
        ];
        for hop in v6 {
            assert_eq!(parse_hop(hop).map(|it| it.to_string()).as_deref(), Some("2001:db8::7"), "{hop}");
        }
        for hop in [
            "unknown",
            "_hidden",
            "\"192.0.2.7",
            "192.0.2.7:",
            "192.0.2.7:x",
            "[2001:db8::7",
            "[2001:db8::7]x",
            "login.example.com",
            "",
            "\"\"",
            "192.0.2.7 192.0.2.8",
        ] {
            // A port may be empty (RFC 3986 section 3.2.3).
            assert_eq!(parse_hop(hop).is_some(), hop == "192.0.2.7:", "{hop}");
        }
    }

    #[test]
    fn direct_clients_are_not_a_proxy() {
        let once = (0..90).map(|place| ("192.0.2.1", (place != 5).then_some("x-forwarded-for")));
        assert_eq!(notices(once), [0; 0]);
        let many =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"].into_iter().cycle().take(90);
        assert_eq!(notices(many.map(|peer| (peer, Some("x-forwarded-for")))), [0; 0]);
        assert_eq!(notices((0..90).map(|_| ("10.0.0.7", None))), [0; 0]);
        assert_eq!(notices((0..19).map(|_| ("10.0.0.7", Some("x-forwarded-for")))), [0; 0]);
    }
}
