//! What the data plane says back: which sockets are bound, which cannot be and why, which endpoints are well, and whose
//! addresses clients come with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::net::{BackendAddress, ListenAddress};

use super::listener::ListenerId;
use super::settings::Resolver;

/// The state of every socket of one snapshot. What did not change is shared with the report before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindReport {
    /// The snapshot that this is the state of.
    pub revision: u64,
    /// By address, as in the snapshot.
    pub sockets: Arc<BTreeMap<ListenAddress, SocketState>>,
    /// The endpoints of the listeners that have health checks.
    pub backends: Arc<BTreeMap<ListenerId, BackendHealth>>,
    /// The listeners at which clients have tried to log in lately. Reported anew when the picture changes in kind, not
    /// with every client.
    pub source_addresses: Arc<BTreeMap<ListenerId, SourceAddresses>>,
    /// The resolvers whose name servers do not answer.
    pub silent_resolvers: Arc<Vec<Resolver>>,
}

/// What the health checks of a listener's backend say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHealth {
    /// Endpoints that are checked.
    pub endpoints: usize,
    /// Those that are out, and why.
    pub unhealthy: Vec<(BackendAddress, String)>,
}

/// Whose addresses the clients of a listener came with lately. Only those count that tried to log in (or, without a
/// login, to send mail): what probes a port is no client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    /// Connections whose client is taken for the peer itself, rounded down to a power of ten, at most
    /// [`SourceAddresses::MANY`].
    pub connections: u64,
    /// Connections whose client a believed PROXY header named; rounded in the same way.
    pub proxied: u64,
    /// The addresses of the former, sorted; none when there are more than [`SourceAddresses::MOST_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// There are more than [`SourceAddresses::MOST_ADDRESSES`].
    pub more: bool,
}

impl SourceAddresses {
    /// So many connections, or more.
    pub const MANY: u64 = 1000;
    /// Addresses that are told one by one.
    pub const MOST_ADDRESSES: usize = 32;
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Serving; the addresses really bound (two for `*` on a host with both families, none for `unix:`).
    Bound(Vec<SocketAddr>),
    /// Not bound, and tried again; a sentence that says why.
    Failed(String),
}
