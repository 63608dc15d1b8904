//! Backends, upstream behaviour, deadlines and bounds.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::BackendAddress;
use crate::protocol::backend::XclientNegotiation;
use crate::protocol::proxy_header::ProxyVersion;

use super::tls::{Certificate, TrustAnchors};
use std::sync::Arc;

/// A configured backend: where the sessions of a listener go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// How the manifest names it, for logs and messages: `Service mail/dovecot:143` or `host:port`.
    pub reference: String,
    /// Ready endpoints, in a stable order. May be empty (a Service without ready endpoints): every login
    /// then gets the internal-error reply, and status says why.
    pub endpoints: Vec<BackendAddress>,
}

/// How backends are talked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// TLS to the backend.
    pub tls: UpstreamTls,
    /// A PROXY header in front of everything else.
    pub proxy_protocol: Option<ProxyVersion>,
    /// SMTP: announce the client with XCLIENT.
    pub xclient: Option<XclientNegotiation>,
    /// SMTP: log in to the backend with AUTH. Always true with `passthrough`.
    pub smtp_auth: bool,
    /// IMAP: announce the client, with what it said of itself, with ID where the backend offers it.
    pub imap_id: bool,
    /// The client sees the backend's own refusal instead of the internal-error line.
    pub pass_error_message: bool,
    /// Which endpoint is tried first.
    pub load_balancing: LoadBalancing,
    /// Checks of the configured endpoints apart from sessions.
    pub health_check: Option<HealthCheck>,
}

/// `upstream.healthCheck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// Time between checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out; at least one.
    pub unhealthy_threshold: u32,
    /// Successes in a row that bring it back; at least one.
    pub healthy_threshold: u32,
}

/// TLS towards the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTls {
    /// None.
    Disabled,
    /// After the protocol's STARTTLS; a backend that does not offer it is refused.
    StartTls(Arc<ClientTls>),
    /// With the first byte.
    Implicit(Arc<ClientTls>),
}

/// What a TLS client needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Who is trusted.
    pub trust: TrustAnchors,
    /// The name that is verified and sent as SNI; `None`: the backend's host name, or its address.
    pub server_name: Option<String>,
    /// Our own certificate.
    pub certificate: Option<Arc<Certificate>>,
}

/// Which endpoint is tried first; the others follow when a connect fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    /// In turn.
    RoundRobin,
    /// The one with the fewest open sessions of this process.
    LeastSessions,
    /// By a hash of the login name, so that a user stays on one endpoint (rendezvous hashing: few move
    /// when endpoints come and go).
    UserHash,
}

/// Name resolution.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resolver {
    /// Name servers by address or name, in turn; empty: the host's resolv.conf.
    pub nameservers: Vec<BackendAddress>,
    /// Instead of the answers' TTL.
    pub valid: Option<Duration>,
    /// Look up A records.
    pub ipv4: bool,
    /// Look up AAAA records.
    pub ipv6: bool,
    /// For one lookup.
    pub timeout: Duration,
    /// The zone that the counters are kept under.
    pub statistics_zone: Option<String>,
    /// Whether the names of SMTP clients are looked up: only where a `resolver` block is written, as in nginx.
    pub looks_up_clients: bool,
}

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the greeting to the login, not extended by activity; also for handshakes and stalled writes.
    pub client: Duration,
    /// From the connect to the backend's answer to the login.
    pub connect: Duration,
    /// Without a byte in either direction of the relay.
    pub idle: Duration,
    /// The same once one side has ended (quirk Q-33); zero: the client's end is the session's.
    pub half_closed: Duration,
    /// Whether a client hears that `client` is over (quirk Q-26).
    pub announce: bool,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of client input before the login.
    pub client_buffer: usize,
    /// Open sessions of the listener.
    pub max_connections: Option<u32>,
    /// Open sessions of the listener from one client address (IPv6: one /64).
    pub max_connections_per_client: Option<u32>,
    /// Bans of clients whose logins fail.
    pub auth_failures: Option<AuthFailures>,
}

/// `limits.authFailures`: so many refused logins in the window, and the client is refused for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthFailures {
    /// Refused logins.
    pub count: u32,
    /// The time in which they count.
    pub window: Duration,
    /// How long the client is refused then.
    pub ban: Duration,
}

/// What a client is counted under: its address, or its /64 for IPv6, since that is what one customer has.
#[must_use]
pub fn client_key(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

impl From<SocketAddr> for Backend {
    /// A backend that an auth service named.
    fn from(address: SocketAddr) -> Self {
        Self { reference: address.to_string(), endpoints: vec![BackendAddress::Ip(address)] }
    }
}
