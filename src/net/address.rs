//! Addresses as newtypes, so that a client's address can never be taken for a backend's.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Where a client comes from: the TCP peer, or what a trusted PROXY header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// An IPv4 or IPv6 peer; IPv4-mapped addresses are unmapped when it is made.
    Ip(SocketAddr),
    /// A client of a `unix:` listener.
    Unix,
}

impl ClientAddress {
    /// From a socket's peer address; `::ffff:a.b.c.d` becomes `a.b.c.d`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// The port; 0 for a client of a UNIX socket, which has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Unix => 0,
        }
    }

    /// The IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// The address without port, as nginx writes it in `Client-IP`: `unix:` for UNIX sockets.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.ip().fmt(f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// `*`: every address of both families, as far as the host has them.
    Any {
        /// 1..=65535.
        port: u16,
    },
    /// One IPv4 or IPv6 address (or a family's wildcard, written out).
    Ip(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The TCP port, if it is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Any { port } => Some(*port),
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// The TCP port that others than this host may reach: of all addresses, not of one that was chosen.
    #[must_use]
    pub fn public_port(&self) -> Option<u16> {
        match self {
            Self::Any { port } => Some(*port),
            Self::Ip(address) if address.ip().is_unspecified() => Some(address.port()),
            Self::Ip(_) | Self::Unix(_) => None,
        }
    }

    /// Whether both cannot be bound at once: the same address, or a wildcard over it on the same port.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Any { port: a }, other) => other.port() == Some(*a),
            (other, Self::Any { port: b }) => other.port() == Some(*b),
            (Self::Ip(a), Self::Ip(b)) => {
                a.port() == b.port()
                    && a.is_ipv4() == b.is_ipv4()
                    && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
            }
            _ => false,
        }
    }
}

/// As written in manifests and logs: `*:143`, `[::1]:143`, `unix:/run/imap.sock`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, "*:{port}"),
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a backend or an auth service is reached, before names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendAddress {
    /// An endpoint.
    Ip(SocketAddr),
    /// A host name, resolved when it is used.
    Name {
        /// Without a trailing dot.
        host: String,
        /// 1..=65535.
        port: u16,
    },
    /// A UNIX socket.
    Unix(PathBuf),
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl BackendAddress {
    /// The TCP port, if it is one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Name { port, .. } => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

/// A network, or an address as the network of itself; without the bits of a host.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let network: Option<IpNet> = text.parse().ok();
    network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ListenAddress {
        ListenAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn wildcards_overlap_what_they_cover() {
        let any = ListenAddress::Any { port: 143 };
        assert!(any.overlaps(&ip("[::1]:143")) && ip("127.0.0.1:143").overlaps(&any));
        assert!(ip("0.0.0.0:143").overlaps(&ip("127.0.0.1:143")));
        assert!(!ip("0.0.0.0:143").overlaps(&ip("[::]:143")));
        assert!(!any.overlaps(&ip("127.0.0.1:993")));
        assert!(!any.overlaps(&ListenAddress::Unix("/run/a".into())));
    }

    #[test]
    fn only_wildcards_are_for_everybody() {
        assert_eq!(ListenAddress::Any { port: 143 }.public_port(), Some(143));
        assert_eq!(ip("[::]:143").public_port(), Some(143));
        assert_eq!(ip("127.0.0.1:143").public_port(), None);
        assert_eq!(ListenAddress::Unix("/run/a".into()).public_port(), None);
    }

    #[test]
    fn unmaps_ipv4_clients_of_dual_stack_sockets() {
        let client = ClientAddress::new("[::ffff:192.0.2.1]:4".parse().unwrap());
        assert_eq!(client.to_string(), "192.0.2.1");
    }
}
