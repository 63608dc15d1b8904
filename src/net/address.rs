//! Addresses as separate types, so that a client's address cannot be used as a backend's.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

/// The address of a client: the TCP peer, or the source in a trusted PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// An IPv4 or IPv6 address and port. [`ClientAddress::new`] converts IPv4-mapped addresses to IPv4.
    Ip(SocketAddr),
    /// A client of a UNIX socket.
    Unix,
}

impl ClientAddress {
    /// Converts a socket's peer address; `::ffff:a.b.c.d` becomes `a.b.c.d`.
    #[must_use]
    pub fn new(peer: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// Returns the port; 0 for a UNIX socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Unix => 0,
        }
    }

    /// Returns the IP address; `None` for a UNIX socket.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// Formats the address without its port, as in nginx's `Client-IP`; `unix:` for UNIX sockets.
impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write_ip(address.ip(), f),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

/// The address that a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenAddress {
    /// `*`: all addresses of each family that the host supports.
    Any {
        /// 1..=65535.
        port: u16,
    },
    /// One IPv4 or IPv6 address, possibly the wildcard of a family.
    Ip(SocketAddr),
    /// A UNIX socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns the TCP port; `None` for a UNIX socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Any { port } => Some(*port),
            Self::Ip(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// Returns the TCP port if other hosts may reach it: only for wildcards, not for one selected address.
    #[must_use]
    pub fn public_port(&self) -> Option<u16> {
        match self {
            Self::Any { port } => Some(*port),
            Self::Ip(address) if address.ip().is_unspecified() => Some(address.port()),
            Self::Ip(_) | Self::Unix(_) => None,
        }
    }

    /// Tells whether both cannot be bound at once: they are equal, or one is a wildcard that contains the other.
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

/// Formats the address as in manifests and logs: `*:143`, `[::1]:143`, `unix:/run/imap.sock`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, "*:{port}"),
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The address of a backend, an auth service or a name server, before names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name. It is resolved for each connection.
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
            Self::Ip(SocketAddr::V4(address)) => {
                write_ip((*address.ip()).into(), f)?;
                f.write_char(':')?;
                f.write_str(itoa::Buffer::new().format(address.port()))
            }
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for BackendAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl BackendAddress {
    /// Returns the TCP port; `None` for a UNIX socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Name { port, .. } => Some(*port),
            Self::Unix(_) => None,
        }
    }

    /// Returns the address without its port: an IP address, a host name, or `unix:/path`.
    #[must_use]
    pub fn host(&self) -> String {
        match self {
            Self::Ip(address) => address.ip().to_string(),
            Self::Name { host, .. } => host.clone(),
            Self::Unix(_) => self.to_string(),
        }
    }
}

/// Writes an address as its own `Display` does. Each login writes several, and that of IPv4 is slow.
fn write_ip(ip: IpAddr, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let IpAddr::V4(ip) = ip else { return fmt::Display::fmt(&ip, f) };
    let mut digits = itoa::Buffer::new();
    let [first, rest @ ..] = ip.octets();
    f.write_str(digits.format(first))?;
    rest.into_iter().try_for_each(|octet| {
        f.write_char('.')?;
        f.write_str(digits.format(octet))
    })
}

/// Parses a network, or an address as a network with only itself. Clears the host bits.
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
