//! What a listener may connect to, and which backends may get the client's identity.
//!
//! A listener in the namespace of its `MailServer` may connect to anything. A `MailListener` in another namespace may
//! not, because backends may trust our address, and the author of the `MailListener` may not own them. It may connect
//! to the Pods of the Services that it names, and to what the `MailServer` allows. For a name, the resolved addresses
//! are checked before each connection.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use serde::Serialize;

use super::hostname::Hostname;
use crate::net::BackendAddress;

/// What a listener may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// Anything: the listener is in the namespace of the `MailServer`.
    #[default]
    Anywhere,
    /// Only the allowed targets: the listener is in another namespace.
    Within(Arc<Bounds>),
}

/// The allowed targets of a listener in another namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// The listener's namespace, for messages.
    pub namespace: String,
    /// `namespace/name` of the `MailServer`, for messages.
    pub server: String,
    /// Pods and cluster IPs of the Services that the listener names, with their ports.
    pub own: BTreeSet<SocketAddr>,
    /// `allowedListeners.backends.networks`.
    pub networks: Vec<IpNet>,
    /// `allowedListeners.backends.hosts`.
    pub hosts: Vec<Hostname>,
    /// `allowedListeners.backends.introductions`.
    pub introductions: Introductions,
}

/// Which backends may get PROXY headers, XCLIENT and IMAP's ID from a listener in another namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub enum Introductions {
    /// None.
    #[default]
    Never,
    /// Those in [`Bounds::own`].
    OwnServices,
    /// All that it may connect to.
    Always,
}

/// A refused connection, which the owner of the `MailServer` can allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an object of namespace {namespace} may not connect to {target}: it is not a Pod of a Service that the object \
     names, and MailServer {server} does not allow it in spec.allowedListeners.backends"
)]
pub struct NotAllowed {
    target: String,
    namespace: String,
    server: String,
}

impl Reach {
    /// Tells whether a connection to this address is allowed. `host` is the name that resolved to it. `is_ours` tells
    /// whether an address belongs to this machine.
    #[must_use]
    pub fn permits(&self, host: Option<&str>, target: SocketAddr, is_ours: impl Fn(IpAddr) -> bool) -> bool {
        let Self::Within(bounds) = self else { return true };
        let target = canonical(target);
        bounds.own.contains(&target)
            || bounds.has_network(target.ip(), &is_ours)
            || host.is_some_and(|host| bounds.has_host(host))
                && is_public(target.ip())
                && !is_ours(target.ip())
    }

    /// Tells whether `address` may be allowed, before its name is resolved.
    #[must_use]
    pub fn could_permit(&self, address: &BackendAddress) -> bool {
        match (self, address) {
            (Self::Anywhere, _) => true,
            (Self::Within(_), BackendAddress::Unix(_)) => false,
            (Self::Within(_), BackendAddress::Ip(target)) => self.permits(None, *target, |_| false),
            (Self::Within(bounds), BackendAddress::Name { host, .. }) => {
                !bounds.networks.is_empty() || bounds.has_host(host)
            }
        }
    }

    /// Allows to send client information to the own Pods too.
    #[must_use]
    pub fn with_own_introduced(mut self) -> Self {
        if let Self::Within(bounds) = &mut self
            && bounds.introductions == Introductions::Never
        {
            Arc::make_mut(bounds).introductions = Introductions::OwnServices;
        }
        self
    }

    /// Keeps the listener's own Pods of `before` allowed.
    pub fn keep_own(&mut self, before: &Self) {
        if let (Self::Within(bounds), Self::Within(before)) = (self, before)
            && bounds.namespace == before.namespace
        {
            Arc::make_mut(bounds).own.extend(&before.own);
        }
    }

    /// Tells whether the backend at this address may get the client's identity. `None` is a UNIX socket.
    #[must_use]
    pub fn introduces(&self, target: Option<SocketAddr>) -> bool {
        let Self::Within(bounds) = self else { return true };
        match bounds.introductions {
            Introductions::Never => false,
            Introductions::OwnServices => {
                target.is_some_and(|target| bounds.own.contains(&canonical(target)))
            }
            Introductions::Always => true,
        }
    }

    /// Returns the error for a refused connection.
    #[must_use]
    pub fn refusal(&self, target: &impl fmt::Display) -> NotAllowed {
        let (namespace, server) = match self {
            Self::Anywhere => Default::default(),
            Self::Within(bounds) => (bounds.namespace.clone(), bounds.server.clone()),
        };
        NotAllowed { target: target.to_string(), namespace, server }
    }
}

impl Bounds {
    fn has_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| pattern.is_exactly(host) || pattern.covers(host))
    }

    /// Tells whether a network allows the address. An address of this machine, or a special one, needs its own network;
    /// a wider network does not allow it.
    fn has_network(&self, ip: IpAddr, is_ours: &impl Fn(IpAddr) -> bool) -> bool {
        let mut networks = self.networks.iter().filter(|network| network.contains(&ip)).peekable();
        if networks.peek().is_none() {
            return false;
        }
        if let Some(special) = special(ip) {
            return networks.any(|network| special.contains(network));
        }
        let is_alone = |network: &IpNet| network.prefix_len() == network.max_prefix_len();
        networks.any(is_alone) || !is_ours(ip)
    }
}

/// Converts IPv4-mapped addresses to IPv4.
fn canonical(target: SocketAddr) -> SocketAddr {
    SocketAddr::new(target.ip().to_canonical(), target.port())
}

/// Returns the special range of an address: this machine, its link, multicast or reserved.
#[must_use]
pub fn special(ip: IpAddr) -> Option<&'static IpNet> {
    SPECIAL.iter().find(|network| network.contains(&ip))
}

/// Tells whether the address is on the internet, not in a cluster or private network.
fn is_public(ip: IpAddr) -> bool {
    let is_within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
    match ip {
        IpAddr::V4(_) => special(ip).is_none() && !is_within(&NOT_PUBLIC),
        IpAddr::V6(_) => is_within(&GLOBAL_UNICAST) && !is_within(&NOT_PUBLIC),
    }
}

/// Unspecified, loopback, link-local (metadata services), multicast and reserved addresses, and the IPv6 metadata
/// services of AWS.
static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    networks(&[
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fd00:ec2::/32",
        "fe80::/10",
        "ff00::/8",
    ])
});

/// Private and shared addresses (RFC 1918, RFC 6598), those for protocols, documentation and benchmarks, and IPv6 forms
/// of IPv4 (Teredo, 6to4).
static NOT_PUBLIC: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    networks(&[
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
    ])
});

/// The IPv6 addresses that are routed on the internet.
static GLOBAL_UNICAST: LazyLock<Vec<IpNet>> = LazyLock::new(|| networks(&["2000::/3"]));

fn networks(text: &[&str]) -> Vec<IpNet> {
    text.iter().filter_map(|network| network.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(own: &[&str], networks: &[&str], hosts: &[&str]) -> Reach {
        Reach::Within(Arc::new(Bounds {
            own: own.iter().map(|address| address.parse().unwrap()).collect(),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            hosts: hosts.iter().map(|host| Hostname::new(host)).collect(),
            ..Bounds::default()
        }))
    }

    fn permits(reach: &Reach, host: Option<&str>, target: &str) -> bool {
        let ours: IpAddr = "10.9.9.9".parse().unwrap();
        reach.permits(host, target.parse().unwrap(), |ip| ip == ours)
    }

    #[test]
    fn a_listener_of_the_owner_goes_anywhere() {
        assert!(permits(&Reach::Anywhere, None, "127.0.0.1:25"));
        assert!(Reach::Anywhere.introduces(None));
        assert!(Reach::Anywhere.could_permit(&BackendAddress::Unix("/run/a".into())));
    }

    #[test]
    fn by_default_only_own_services_are_reached_and_only_at_their_ports() {
        let reach = reach(&["10.1.2.3:143"], &[], &[]);
        assert!(permits(&reach, None, "10.1.2.3:143") && permits(&reach, Some("x.test"), "10.1.2.3:143"));
        assert!(permits(&reach, None, "[::ffff:10.1.2.3]:143"), "it is the same address");
        for target in ["10.1.2.3:25", "10.1.2.4:143", "8.8.8.8:25", "127.0.0.1:25", "[::1]:25"] {
            assert!(!permits(&reach, None, target), "{target}");
        }
        assert!(!reach.could_permit(&BackendAddress::Unix("/run/a".into())));
    }

    #[test]
    fn an_allowed_network_is_reached_by_whatever_name() {
        let reach = reach(&[], &["10.0.0.0/8", "2001:db8::/64"], &[]);
        assert!(permits(&reach, None, "10.1.2.3:25") && permits(&reach, Some("any.test"), "10.1.2.3:25"));
        assert!(permits(&reach, None, "[2001:db8::7]:25") && permits(&reach, None, "[::ffff:10.1.2.3]:25"));
        assert!(!permits(&reach, None, "11.0.0.1:25") && !permits(&reach, None, "[2001:db8:1::7]:25"));
    }

    #[test]
    fn wide_networks_include_neither_this_machine_nor_its_link() {
        let all = reach(&[], &["0.0.0.0/0", "::/0"], &[]);
        assert!(permits(&all, None, "10.1.2.3:25") && permits(&all, None, "[2001:db8::7]:25"));
        for target in ["127.0.0.1:9090", "169.254.169.254:80", "0.0.0.0:25", "10.9.9.9:9090", "224.0.0.1:25"]
        {
            assert!(!permits(&all, None, target), "{target}");
            assert!(!permits(&all, None, &format!("[::ffff:{}", target.replace(':', "]:"))), "{target}");
        }
        for target in ["[::1]:25", "[::]:25", "[fe80::1]:25", "[ff02::1]:25"] {
            assert!(!permits(&all, None, target), "{target}");
        }
        let named = reach(&[], &["127.0.0.0/8", "169.254.169.254/32", "10.9.9.9/32", "::1/128"], &[]);
        for target in ["127.0.0.1:25", "169.254.169.254:80", "10.9.9.9:25", "[::1]:25"] {
            assert!(permits(&named, None, target), "{target}");
        }
    }

    #[test]
    fn an_allowed_host_leads_to_the_internet_and_never_into_the_cluster() {
        let reach = reach(&[], &[], &["imap.example.com", "*.example.net"]);
        assert!(permits(&reach, Some("IMAP.example.com"), "8.8.8.8:993"));
        assert!(permits(&reach, Some("a.example.net"), "[2a00:1450::1]:993"));
        assert!(
            !permits(&reach, Some("other.example.com"), "8.8.8.8:993")
                && !permits(&reach, None, "8.8.8.8:993")
        );
        let inside = [
            "10.1.2.3:25",
            "172.20.0.1:25",
            "192.168.1.1:25",
            "100.64.0.1:25",
            "127.0.0.1:25",
            "169.254.169.254:80",
            "[fd00::1]:25",
            "[::1]:25",
            "[fe80::1]:25",
            "[64:ff9b::a01:203]:25",
            "[::ffff:10.1.2.3]:25",
            "[2002:a01:203::1]:25",
        ];
        for target in inside {
            assert!(!permits(&reach, Some("a.example.net"), target), "{target}");
        }
        let name = |host: &str| BackendAddress::Name { host: host.to_owned(), port: 25 };
        assert!(reach.could_permit(&name("a.example.net")) && !reach.could_permit(&name("a.example.org")));
    }

    #[test]
    fn introductions_go_where_the_owner_said() {
        let of = |introductions| {
            let own = BTreeSet::from(["10.1.2.3:25".parse().unwrap()]);
            let reach = Reach::Within(Arc::new(Bounds { own, introductions, ..Bounds::default() }));
            let to = |target: &str| reach.introduces(Some(target.parse().unwrap()));
            (to("10.1.2.3:25"), to("[::ffff:10.1.2.3]:25"), to("10.1.2.4:25"), reach.introduces(None))
        };
        assert_eq!(of(Introductions::Never), (false, false, false, false));
        assert_eq!(of(Introductions::OwnServices), (true, true, false, false));
        assert_eq!(of(Introductions::Always), (true, true, true, true));
    }

    #[test]
    fn every_range_is_one() {
        assert_eq!((SPECIAL.len(), NOT_PUBLIC.len(), GLOBAL_UNICAST.len()), (8, 12, 1));
    }
}
