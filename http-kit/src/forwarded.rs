//! The client's address behind proxies, and how a proxy that is not configured as trusted is detected: behind it every
//! client has the proxy's address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// This many requests are enough evidence.
const ENOUGH: u32 = 20;
/// A proxy may have several addresses or instances.
const MOST_PROXIES: usize = 4;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The evidence from the first requests.
#[derive(Default)]
pub(crate) struct Forwarded(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    peers: BTreeSet<IpAddr>,
    requests: u32,
    /// Whether the question is decided.
    is_over: bool,
}

impl Forwarded {
    /// Notes a request that does not come from a trusted proxy. Returns true at most once: when enough requests have
    /// come, all from a few addresses and all with a forwarding header.
    pub(crate) fn notices(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_over {
            return false;
        }
        let passes_on =
            [X_FORWARDED_FOR, header::FORWARDED, X_REAL_IP].iter().any(|name| headers.contains_key(name));
        if !passes_on {
            // A request from this machine, such as a probe, is not from a client; any other request comes directly from
            // one.
            seen.is_over = !peer.to_canonical().is_loopback();
            return false;
        }
        seen.peers.insert(peer);
        seen.requests += 1;
        seen.is_over = seen.peers.len() > MOST_PROXIES || seen.requests >= ENOUGH;
        seen.is_over && seen.peers.len() <= MOST_PROXIES
    }
}

/// Whether an address is one of our proxies.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The right-most hop that is not one of our proxies: everything left of it is unverified.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let hops = headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default());
    let hops = hops.flat_map(|value| value.split(',')).map(str::trim).collect::<Vec<_>>();
    for hop in hops.into_iter().rev() {
        // A hop that is not an address cannot be skipped: who is behind it is unknown.
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
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
