//! What a visit of a mail server is to do.

use std::time::Duration;

use crate::model::settings::ClientTls;
use crate::net::BackendAddress;
use crate::protocol::Protocol;
use crate::protocol::proxy_header::ProxyVersion;
use crate::secret::Secret;

/// The server to visit, and how.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    /// The server's address.
    pub target: BackendAddress,
    /// The protocol to speak.
    pub protocol: Protocol,
    /// When TLS starts.
    pub tls: TlsStart,
    /// The trusted authorities, the server name, and our own certificate.
    pub client: ClientTls,
    /// How strictly the certificate is checked.
    pub strictness: Strictness,
    /// The user that logs in; `None` for no login.
    pub login: Option<Credentials>,
    /// Send a PROXY header first.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Time limit of each step.
    pub timeout: Duration,
    /// The current time in Unix seconds.
    pub now: i64,
}

/// When TLS starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsStart {
    /// After STARTTLS, if the server offers it.
    IfOffered,
    /// Never. A password may be sent in cleartext.
    Disabled,
    /// After STARTTLS, which is required.
    StartTls,
    /// From the first byte.
    Implicit,
}

/// How strictly a certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Everything must be correct.
    All,
    /// Its validity is checked, and what the fields say.
    Known {
        /// Whether it must have the requested name.
        name: bool,
        /// Whether its issuer must be trusted.
        issuer: bool,
    },
    /// Nothing is checked.
    None,
}

/// A user name and a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: Secret,
}
