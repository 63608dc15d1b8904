//! What the data plane says back: which sockets are bound, which cannot be and why, and which endpoints are well.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::net::{BackendAddress, ListenAddress};

use super::listener::ListenerId;

/// The state of every socket of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindReport {
    /// The snapshot that this is the state of.
    pub revision: u64,
    /// By address, as in the snapshot.
    pub sockets: BTreeMap<ListenAddress, SocketState>,
    /// The endpoints of the listeners that have health checks.
    pub backends: BTreeMap<ListenerId, BackendHealth>,
    /// Where recent connections came from, for listeners that take the client's address from there.
    pub peers: BTreeMap<ListenerId, Peers>,
}

/// The addresses that connections came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// How many connections were looked at, up to a bound.
    pub connections: u64,
    /// Some of the addresses, sorted; all where there are no `more`.
    pub addresses: Vec<IpAddr>,
    /// Whether there are more.
    pub more: bool,
}

/// What the health checks of a listener's backend say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendHealth {
    /// Endpoints that are checked.
    pub endpoints: usize,
    /// Those that are out, and why.
    pub unhealthy: Vec<(BackendAddress, String)>,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Serving; the addresses really bound (two for `*` on a host with both families, none for `unix:`).
    Bound(Vec<SocketAddr>),
    /// Not bound, and tried again; a sentence that says why.
    Failed(String),
}
