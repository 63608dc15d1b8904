//! The whole of what is to be served, by socket.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use ipnet::IpNet;

use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::Protocol;

use super::listener::{Listener, ListenerId};

/// Everything the data plane serves. Published whole; never changed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts up with every published change; 0 is the empty snapshot before the first.
    pub revision: u64,
    /// The sockets wanted; no two overlap.
    pub sockets: BTreeMap<ListenAddress, Arc<Socket>>,
}

/// One address to be bound, and the listeners behind it. What is here is the same for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is bound.
    pub address: ListenAddress,
    /// How the socket is made.
    pub options: SocketOptions,
    /// The protocol spoken.
    pub protocol: Protocol,
    /// When TLS begins.
    pub tls_mode: TlsMode,
    /// A PROXY header is mandatory on every connection of a trusted peer, and of others unless they are accepted
    /// without one.
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// Several are told apart by SNI ([`super::ServerNames`]); with StartTLS modes they have equal frontends.
    pub listeners: Listeners,
}

/// The listeners of a socket: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners {
    default: Arc<Listener>,
    all: Vec<Arc<Listener>>,
}

impl Listeners {
    /// In this order.
    pub fn new(first: Arc<Listener>, others: impl IntoIterator<Item = Arc<Listener>>) -> Self {
        let all: Vec<_> = std::iter::once(Arc::clone(&first)).chain(others).collect();
        let default = all.iter().find(|listener| listener.hostnames.is_empty()).cloned();
        Self { default: default.unwrap_or(first), all }
    }

    /// The one for clients that name no server: the first without host names, or else the first of all.
    #[must_use]
    pub fn default(&self) -> &Arc<Listener> {
        &self.default
    }
}

impl Deref for Listeners {
    type Target = [Arc<Listener>];

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<'a> IntoIterator for &'a Listeners {
    type Item = &'a Arc<Listener>;
    type IntoIter = slice::Iter<'a, Arc<Listener>>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

/// For each of the listeners `new`, where it is among `old`, by its identity. Both have most often the same order.
pub fn positions(old: &[Arc<Listener>], new: &[Arc<Listener>]) -> impl Iterator<Item = Option<usize>> {
    let is_same = |a: &Arc<Listener>, b: &Arc<Listener>| Arc::ptr_eq(a, b) || a.id == b.id;
    let mut by_id: Option<HashMap<&ListenerId, usize>> = None;
    let mut next = 0;
    new.iter().map(move |listener| {
        let found = if old.get(next).is_some_and(|old| is_same(old, listener)) {
            Some(next)
        } else {
            let all = || old.iter().enumerate().map(|(position, old)| (&old.id, position)).collect();
            by_id.get_or_insert_with(all).get(&listener.id).copied()
        };
        next = found.map_or(next, |found| found + 1);
        found
    })
}

/// When TLS begins on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// When the client asks for it.
    StartTls,
    /// When the client asks for it, and no login or mail before that.
    RequireStartTls,
    /// With the first byte.
    Implicit,
}

impl TlsMode {
    /// As manifests write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::StartTls => "StartTLS",
            Self::RequireStartTls => "RequireStartTLS",
            Self::Implicit => "Implicit",
        }
    }
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
    /// It is a client without a header; one that sends a header is refused.
    Accept,
}
