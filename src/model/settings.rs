//! Settings for backends, name resolution, time limits and limits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::Serialize;

use crate::net::BackendAddress;
use crate::protocol::backend::XclientNegotiation;
use crate::protocol::proxy_header::ProxyVersion;

use super::tls::{Certificate, TrustAnchors};

/// A configured backend: the target of a listener's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The name in the manifest, for logs and messages: `Service mail/dovecot:143` or `host:port`.
    pub reference: String,
    /// Ready endpoints in a stable order. May be empty (a Service without ready endpoints): then logins get the
    /// internal-error reply, and the status reports the reason.
    pub endpoints: Vec<BackendAddress>,
    /// Names of endpoints that do not depend on their address: the names of Pods. [`LoadBalancing::UserHash`] uses
    /// them, and the address of an endpoint without a name.
    pub names: BTreeMap<BackendAddress, String>,
    /// Endpoints whose Pods are taken out of service, with the names of the Pods. They get no new sessions, and their open
    /// ones are ended.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub leaving: BTreeMap<BackendAddress, String>,
}

impl Backend {
    /// Creates a backend whose endpoints have no names.
    #[must_use]
    pub fn new(reference: String, endpoints: Vec<BackendAddress>) -> Self {
        Self { reference, endpoints, names: BTreeMap::new(), leaving: BTreeMap::new() }
    }
}

/// How a listener talks to backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// TLS to the backend.
    pub tls: UpstreamTls,
    /// Send a PROXY header first.
    pub proxy_protocol: Option<ProxyVersion>,
    /// SMTP: send the client's identity with XCLIENT.
    pub xclient: Option<XclientNegotiation>,
    /// SMTP: send the client's name in EHLO and HELO, if it has sent one.
    pub client_hello: bool,
    /// SMTP: log in to the backend with AUTH. Always true with `passthrough`.
    pub smtp_auth: bool,
    /// IMAP: send the client's identity, and the parameters of its own ID, with ID if the backend offers it.
    pub imap_id: bool,
    /// The client gets the backend's own refusal instead of the internal-error line.
    pub pass_error_message: bool,
    /// Which endpoint is tried first.
    pub load_balancing: LoadBalancing,
    /// Health checks of the configured endpoints.
    pub health_check: Option<HealthCheck>,
}

/// `upstream.healthCheck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Time between two checks.
    #[serde(serialize_with = "duration::required::serialize")]
    pub interval: Duration,
    /// Time limit of one check.
    #[serde(serialize_with = "duration::required::serialize")]
    pub timeout: Duration,
    /// Consecutive failures before an endpoint is not used; at least one.
    pub unhealthy_threshold: u32,
    /// Consecutive successes before it is used again; at least one.
    pub healthy_threshold: u32,
}

/// TLS to the backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mode")]
pub enum UpstreamTls {
    /// No TLS.
    Disabled,
    /// After the protocol's STARTTLS. A backend that does not offer it is not used.
    #[serde(rename = "StartTLS")]
    StartTls(Arc<ClientTls>),
    /// From the first byte.
    Implicit(Arc<ClientTls>),
}

/// The settings of a TLS client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// The trusted authorities.
    pub trust: TrustAnchors,
    /// The name to verify and to send as SNI. `None` is the backend's host name or address.
    pub server_name: Option<String>,
    /// Our own certificate.
    pub certificate: Option<Arc<Certificate>>,
}

/// Which endpoint is tried first. The others follow if it cannot be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LoadBalancing {
    /// Each endpoint in turn.
    RoundRobin,
    /// The one with the fewest open sessions in this process.
    LeastSessions,
    /// By a hash of the login and the endpoint's name, so that a user stays on one endpoint. With rendezvous hashing,
    /// few users move when endpoints change, and none when a Pod of a StatefulSet gets another address.
    UserHash,
}

/// How names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolver {
    /// Name servers by address or name, used in turn. Empty: the host's resolv.conf.
    pub nameservers: Vec<BackendAddress>,
    /// How long answers are cached, instead of their TTL.
    #[serde(serialize_with = "duration::optional::serialize")]
    pub valid: Option<Duration>,
    /// Whether A records are looked up.
    pub ipv4: bool,
    /// Whether AAAA records are looked up.
    pub ipv6: bool,
    /// Time limit of one lookup.
    #[serde(serialize_with = "duration::required::serialize")]
    pub timeout: Duration,
    /// The zone in which lookups are counted.
    pub statistics_zone: Option<String>,
    /// Whether names of SMTP clients are looked up: only with a `resolver` block, as in nginx.
    pub looks_up_clients: bool,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            nameservers: Vec::new(),
            valid: None,
            ipv4: true,
            ipv6: true,
            timeout: Duration::from_secs(30),
            statistics_zone: None,
            looks_up_clients: false,
        }
    }
}

/// The time limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// From the greeting to the login; activity does not extend it. Also for handshakes and blocked writes.
    #[serde(serialize_with = "duration::required::serialize")]
    pub client: Duration,
    /// From connecting to the backend until it has answered the login.
    #[serde(serialize_with = "duration::required::serialize")]
    pub connect: Duration,
    /// Without a byte in either direction of the relay.
    #[serde(serialize_with = "duration::required::serialize")]
    pub idle: Duration,
    /// As `idle`, after one side has ended (quirk Q-33). Zero: the session ends with the client.
    #[serde(serialize_with = "duration::required::serialize")]
    pub half_closed: Duration,
    /// Whether a client is told that `client` is over (quirk Q-26).
    pub announce: bool,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        let day = Duration::from_secs(24 * 3600);
        Self { client: minute, connect: minute, idle: day, half_closed: minute, announce: true }
    }
}

/// The limits of sessions and clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Maximum size of a command before the login, in bytes.
    pub client_buffer: usize,
    /// Maximum number of open sessions of the listener.
    pub max_connections: Option<u32>,
    /// Maximum number of open sessions from one client address (IPv6: a /64).
    pub max_connections_per_client: Option<u32>,
    /// Bans clients after failed logins.
    pub auth_failures: Option<AuthFailures>,
    /// Clients to which `max_connections_per_client` and `auth_failures` do not apply.
    pub exempt: Arc<[IpNet]>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_buffer: 4096,
            max_connections: None,
            max_connections_per_client: None,
            auth_failures: None,
            exempt: [].into(),
        }
    }
}

impl Limits {
    /// Tells whether the limits for each client do not apply to this one.
    #[must_use]
    pub fn exempts(&self, client: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(&client))
    }
}

/// `limits.authFailures`: this many refused logins in the window cause a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthFailures {
    /// Refused logins that cause a ban.
    pub count: u32,
    /// The time in which they are counted.
    #[serde(serialize_with = "duration::required::serialize")]
    pub window: Duration,
    /// Duration of the ban.
    #[serde(serialize_with = "duration::required::serialize")]
    pub ban: Duration,
}

/// Returns the address that a client is counted under: IPv6 clients by their /64, because one customer has at least
/// that.
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
    /// Creates a backend that an auth service named.
    fn from(address: SocketAddr) -> Self {
        Self::new(address.to_string(), vec![BackendAddress::Ip(address)])
    }
}
