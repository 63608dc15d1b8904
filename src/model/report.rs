//! The report of the data plane: which sockets are bound, which are not and why, which endpoints are healthy, and which
//! addresses clients come from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::net::{BackendAddress, ListenAddress};
use crate::protocol::Protocol;

use super::listener::ListenerId;
use super::routes::RouteId;
use super::settings::Resolver;

/// The state of all sockets of a snapshot. Unchanged parts are shared with the previous report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindReport {
    /// The revision of the snapshot.
    pub revision: u64,
    /// By address, as in the snapshot.
    pub sockets: Arc<BTreeMap<ListenAddress, SocketState>>,
    /// For listeners with health checks.
    pub backends: Arc<BTreeMap<ListenerId, BackendHealth>>,
    /// For the backends of routes with health checks.
    pub routes: Arc<BTreeMap<RouteBackend, BackendHealth>>,
    /// For listeners where clients have recently tried to log in. Updated when the summary changes significantly, not
    /// for each client.
    pub source_addresses: Arc<BTreeMap<ListenerId, SourceAddresses>>,
    /// For each held route: the open sessions of its users, and their logins that are not decided yet.
    pub held: Arc<BTreeMap<RouteId, u64>>,
    /// Resolvers whose name servers do not answer.
    pub silent_resolvers: Arc<Vec<Resolver>>,
}

/// The backend of a route for one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteBackend {
    /// The route.
    pub route: RouteId,
    /// The protocol.
    pub protocol: Protocol,
}

/// The results of the health checks of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHealth {
    /// Number of checked endpoints.
    pub endpoints: usize,
    /// Failing endpoints with the reason.
    pub unhealthy: Vec<(BackendAddress, String)>,
}

/// Recent client addresses of a listener. Only clients count that tried to log in or, without a login, to send mail,
/// because a probe of the port is not a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    /// Connections whose peer is the client, rounded down to a power of ten, at most [`SourceAddresses::MANY`].
    pub connections: u64,
    /// Connections whose client is from a trusted PROXY header, rounded in the same way.
    pub proxied: u64,
    /// Sorted addresses of [`SourceAddresses::connections`]. Empty if there are more than [`SourceAddresses::MOST_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// There are more than [`SourceAddresses::MOST_ADDRESSES`] addresses.
    pub more: bool,
}

impl SourceAddresses {
    /// Maximum of the reported numbers: this many connections or more.
    pub const MANY: u64 = 1000;
    /// Maximum number of reported addresses.
    pub const MOST_ADDRESSES: usize = 32;
}

/// The state of one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// The socket is served. Has the bound addresses: two for `*` on a dual-stack host, none for a UNIX socket.
    Bound(Vec<SocketAddr>),
    /// The socket is not bound, with the reason. The data plane retries.
    Failed(String),
}
