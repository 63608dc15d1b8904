//! The rendered configuration, and the interface between the controller and the data plane.
//!
//! Everything in a snapshot is checked: certificates match their keys, names are valid, durations and sizes are in
//! range. The controller creates snapshots, and the proxy serves them. All types compare by value, so that `plan` finds
//! what changed.

pub mod auth;
pub mod clock;
pub mod exclusive;
pub mod hostname;
pub mod listener;
pub mod metric;
pub mod names;
pub mod reach;
pub mod report;
pub mod routes;
pub mod served;
pub mod sessions;
pub mod settings;
pub mod snapshot;
pub mod tickets;
pub mod tls;
pub mod view;
pub mod why;

pub use auth::{Auth, AuthHeader, AuthProof, HeaderText, HttpAuth, RequestPath};
pub use hostname::Hostname;
pub use listener::{Listener, ListenerId};
pub use names::ServerNames;
pub use reach::{Introductions, Reach};
pub use report::{BackendHealth, BindReport, RouteBackend, SocketState, SourceAddresses};
pub use routes::{
    AllowedDomains, Destination, DomainPattern, RouteEntry, RouteId, RouteState, RouteTable, Routes, Routing,
    UserList,
};
pub use sessions::SessionId;
pub use settings::{Backend, HealthCheck, Limits, LoadBalancing, Resolver, Timeouts, Upstream, UpstreamTls};
pub use snapshot::{InboundProxyProtocol, Listeners, Snapshot, Socket, TlsMode, UntrustedPeers};
pub use tickets::{Purpose, SharedTicketKeys, TicketKey, TicketKeys};
pub use tls::{Certificate, ClientAuth, ClientAuthMode, MinVersion, ServerTls, TrustAnchors};
