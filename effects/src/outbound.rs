//! Which addresses this service may connect to at the request of an app.
//!
//! Whoever configures an app chooses hosts, but not what is reachable from the operator's network: that would let them ask
//! the databases, the cloud's metadata service and this service itself on their behalf. So connections go to public
//! addresses, and to others only where the operator allows it. The address counts that a name resolves to at the moment
//! of the connection, since a name can be pointed anywhere at any time.

mod client;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

pub use self::client::{NoAnswer, OutboundClient};

/// The networks beyond the public ones that the operator allows, also without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedNetworks(Vec<IpNet>);

/// Why nothing is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It is not public, and the operator does not allow it.
    #[error("the address is not a public one, and the operator does not allow it (allowed_webhook_networks)")]
    Private,
    /// It would be reached without TLS.
    #[error(
        "https is needed: the operator allows http only in networks of his own (allowed_webhook_networks)"
    )]
    Insecure,
}

impl AllowedNetworks {
    /// These networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Checks an address that is about to be connected to.
    pub fn check(&self, address: IpAddr, is_secure: bool) -> Result<(), Unreachable> {
        // An IPv4 address in the clothes of an IPv6 one (RFC 4291 section 2.5.5.2) is that IPv4 address.
        let address = address.to_canonical();
        if self.0.iter().any(|network| network.contains(&address)) {
            Ok(())
        } else if !is_public(address) {
            Err(Unreachable::Private)
        } else if !is_secure {
            Err(Unreachable::Insecure)
        } else {
            Ok(())
        }
    }

    /// Checks what can be known of a URL without looking its host up: an address in it, and whether there is anything that
    /// may be reached without TLS.
    pub fn check_url(&self, url: &Url) -> Result<(), Unreachable> {
        let is_secure = url.scheme() == "https";
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into(), is_secure),
            Some(Host::Ipv6(address)) => self.check(address.into(), is_secure),
            _ if is_secure || !self.0.is_empty() => Ok(()),
            _ => Err(Unreachable::Insecure),
        }
    }
}

/// Whether an address belongs to the public internet: not to any block that is set aside for something else (IANA registries
/// of special-purpose addresses, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        // Shared between customers of a provider (RFC 6598).
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        // Protocol assignments, and the former relays of 6to4.
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        // Benchmarks.
        || (a == 198 && (b == 18 || b == 19))
        // Documentation.
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        // Multicast, reserved, broadcast.
        || a >= 224;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only 2000::/3 is assigned to the internet. That leaves out loopback, local and multicast addresses, and NAT64, which
    // leads to any IPv4 address.
    let is_global = a & 0xe000 == 0x2000;
    let special = (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) // Teredo, benchmarks, ORCHID; documentation.
        || a == 0x2002 // 6to4, which leads to any IPv4 address.
        || (a == 0x3fff && b < 0x1000); // Documentation.
    is_global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(networks: &str, address: &str, is_secure: bool) -> Result<(), Unreachable> {
        let networks = networks.split_whitespace().map(|network| network.parse().expect("a network"));
        AllowedNetworks::new(networks).check(address.parse().expect("an address"), is_secure)
    }

    #[test]
    fn only_public_addresses_are_reached_and_only_with_tls() {
        for public in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
        ] {
            assert_eq!(check("", public, true), Ok(()), "{public}");
            assert_eq!(check("", public, false), Err(Unreachable::Insecure), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert_eq!(check("", private, true), Err(Unreachable::Private), "{private}");
        }
    }

    #[test]
    fn the_operator_allows_networks_of_his_own() {
        let networks = "10.0.0.0/8 127.0.0.1/32 fd00::/8";
        for allowed in ["10.9.9.9", "127.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
            assert_eq!(check(networks, allowed, false), Ok(()), "{allowed}");
        }
        for other in ["127.0.0.2", "::1", "192.168.0.1"] {
            assert_eq!(check(networks, other, true), Err(Unreachable::Private), "{other}");
        }
        assert_eq!(check(networks, "1.1.1.1", false), Err(Unreachable::Insecure));
    }

    #[test]
    fn what_a_url_shows_is_refused_before_anything_is_looked_up() {
        let check = |networks: &[&str], url: &str| {
            let networks = networks.iter().map(|network| network.parse().expect("a network"));
            AllowedNetworks::new(networks).check_url(&url.parse().expect("a URL"))
        };
        assert_eq!(check(&[], "https://hooks.example/"), Ok(()));
        assert_eq!(check(&[], "http://hooks.example/"), Err(Unreachable::Insecure));
        assert_eq!(check(&["10.0.0.0/8"], "http://hooks.example/"), Ok(()), "decided when it is resolved");
        // The parser turns every form of an address into that address.
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data/",
        ] {
            assert_eq!(check(&["10.0.0.0/8"], url), Err(Unreachable::Private), "{url}");
        }
    }
}
