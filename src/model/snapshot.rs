//! The whole of what is to be served, by socket.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::Protocol;

use super::listener::Listener;

/// Everything the data plane serves. Published whole; never changed afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Counts up with every published change; 0 is the empty snapshot before the first.
    pub revision: u64,
    /// The sockets wanted; no two overlap.
    pub sockets: BTreeMap<ListenAddress, Arc<Socket>>,
}

/// One address to be bound, and the listeners behind it. What is here is the same for all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// Where it is bound.
    pub address: ListenAddress,
    /// How the socket is made.
    pub options: SocketOptions,
    /// The protocol spoken.
    pub protocol: Protocol,
    /// When TLS begins.
    pub tls_mode: TlsMode,
    /// A PROXY header is mandatory on every connection.
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// At least one. Several are told apart by SNI ([`Socket::select`]); with StartTLS modes they have
    /// equal frontends.
    pub listeners: Vec<Arc<Listener>>,
}

impl Socket {
    /// The listener for a client that asked for `server_name` by SNI: an exact host name first, then a
    /// wildcard, then a listener without host names. A client that sends no SNI gets the listener without
    /// host names, or else the first. `None`: the name is nobody's.
    #[must_use]
    pub fn select(&self, server_name: Option<&str>) -> Option<&Arc<Listener>> {
        let catch_all = || self.listeners.iter().find(|listener| listener.hostnames.is_empty());
        let Some(name) = server_name else {
            return catch_all().or_else(|| self.listeners.first());
        };
        let exact = |listener: &&Arc<Listener>| listener.hostnames.iter().any(|h| h.is_exactly(name));
        let wildcard = |listener: &&Arc<Listener>| listener.hostnames.iter().any(|h| h.covers(name));
        self.listeners.iter().find(exact).or_else(|| self.listeners.iter().find(wildcard)).or_else(catch_all)
    }
}

/// When TLS begins on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Off,
    /// When the client asks for it.
    StartTls,
    /// When the client asks for it, and no login or mail before that.
    RequireStartTls,
    /// With the first byte.
    Implicit,
}

/// `proxyProtocol` on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundProxyProtocol {
    /// Peers whose header is believed.
    pub trusted_peers: Vec<IpNet>,
    /// Whether the header's source becomes the client's address.
    pub use_as_client_address: bool,
    /// What becomes of all others.
    pub untrusted_peers: UntrustedPeers,
}

/// What becomes of a peer that is not trusted with a PROXY header (quirk Q-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UntrustedPeers {
    /// Its connection is closed.
    Refuse,
    /// Its header goes to the auth service, and is not believed.
    Report,
}
