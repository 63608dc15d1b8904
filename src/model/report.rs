//! What the data plane says back: which sockets are bound, and which cannot be and why.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::net::ListenAddress;

/// The state of every socket of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindReport {
    /// The snapshot that this is the state of.
    pub revision: u64,
    /// By address, as in the snapshot.
    pub sockets: BTreeMap<ListenAddress, SocketState>,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Serving; the addresses really bound (two for `*` on a host with both families, none for `unix:`).
    Bound(Vec<SocketAddr>),
    /// Not bound, and tried again; a sentence that says why.
    Failed(String),
}
