//! The configuration of all sockets.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::Protocol;

use super::listener::{Listener, ListenerId};

/// Everything that the data plane serves. It is published as a whole and does not change afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Increases with each published change. 0 is the empty snapshot before the first one.
    pub revision: u64,
    /// The wanted sockets. They do not overlap.
    #[serde(serialize_with = "values")]
    pub sockets: BTreeMap<ListenAddress, Arc<Socket>>,
}

/// Shows the values only, because each contains its key.
fn values<K, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(map.values())
}

/// An address to bind, with its listeners. The other fields are common to all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// The address to bind.
    pub address: ListenAddress,
    /// The options of the socket.
    pub options: SocketOptions,
    /// The protocol of all listeners.
    pub protocol: Protocol,
    /// When TLS starts.
    pub tls_mode: TlsMode,
    /// Requires a PROXY header on every connection of a trusted peer, and of other peers unless they are accepted
    /// without one.
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// SNI selects one of several ([`super::ServerNames`]). With the StartTLS modes, their frontends are equal.
    pub listeners: Listeners,
}

/// The listeners of a socket; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Listeners {
    #[serde(skip)]
    default: Arc<Listener>,
    all: Vec<Arc<Listener>>,
}

impl Listeners {
    /// Keeps this order.
    pub fn new(first: Arc<Listener>, others: impl IntoIterator<Item = Arc<Listener>>) -> Self {
        let all: Vec<_> = std::iter::once(Arc::clone(&first)).chain(others).collect();
        let default = all.iter().find(|listener| listener.hostnames.is_empty()).cloned();
        Self { default: default.unwrap_or(first), all }
    }

    /// Returns the listener for clients without SNI: the first one without host names, else the first one.
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

/// Returns, for each listener of `new`, its position in `old` by id. Usually both have the same order.
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

/// When TLS starts on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// After the client's STARTTLS, which is optional.
    StartTls,
    /// After the client's STARTTLS, which is required before a login or mail.
    RequireStartTls,
    /// With the first byte.
    Implicit,
}

impl TlsMode {
    /// Returns the value of `tls.mode` in manifests.
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

/// `proxyProtocol` of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundProxyProtocol {
    /// Peers whose header is trusted.
    pub trusted_peers: Vec<IpNet>,
    /// Whether the header's source becomes the client's address.
    pub use_as_client_address: bool,
    /// What happens to other peers.
    pub untrusted_peers: UntrustedPeers,
}

/// What happens to a peer whose PROXY header is not trusted (quirk Q-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum UntrustedPeers {
    /// The connection is closed.
    Refuse,
    /// The header is passed to the auth service but not used otherwise.
    Report,
    /// The peer is the client and must not send a header.
    Accept,
}
