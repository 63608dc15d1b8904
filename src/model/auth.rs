//! Who decides about logins.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::net::BackendAddress;
use crate::secret::Secret;

use super::reach::Reach;
use super::settings::Backend;
use super::tls::TrustAnchors;

/// `auth`: exactly one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// An auth service that speaks nginx's HTTP protocol.
    Http {
        /// The service.
        service: Arc<HttpAuth>,
        /// Used where an answer names no server.
        backend: Option<Arc<Backend>>,
    },
    /// The backend itself.
    Passthrough(Arc<Backend>),
}

impl Auth {
    /// Whether the backend decides, and the client sees its replies.
    #[must_use]
    pub const fn is_passthrough(&self) -> bool {
        matches!(self, Self::Passthrough(_))
    }

    /// The configured backend.
    #[must_use]
    pub const fn backend(&self) -> Option<&Arc<Backend>> {
        match self {
            Self::Http { backend, .. } => backend.as_ref(),
            Self::Passthrough(backend) => Some(backend),
        }
    }
}

/// An auth service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAuth {
    /// How the manifest names it, for logs and messages: the URL, or `Service mail/auth:9000`.
    pub reference: String,
    /// Where it is reached; several endpoints are used in turn. May be empty (a Service without ready
    /// endpoints).
    pub endpoints: Vec<BackendAddress>,
    /// What the names among the endpoints may resolve to.
    pub reach: Reach,
    /// The `Host` header, without port, as nginx sends it.
    pub host: String,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// `https`: who is trusted; the host is verified.
    pub tls: Option<TrustAnchors>,
    /// Extra request headers, in the configured order.
    pub headers: Vec<(String, HeaderText)>,
    /// For the whole answer, not extended by partial data.
    pub timeout: Duration,
    /// Whether connections are used again after an answer.
    pub keep_alive: bool,
    /// Adds `Auth-SSL-Cert`.
    pub pass_client_certificate: bool,
    /// What an answer must be to accept a login.
    pub proof: AuthProof,
}

/// What an extra header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// Always the same.
    Fixed(Secret),
    /// The port of the client.
    ClientPort,
}

/// For people: what is fixed may be a key, and is masked.
impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => text.fmt(f),
            Self::ClientPort => f.write_str("the client's port"),
        }
    }
}

/// What an answer must be to accept a login (quirk Q-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthProof {
    /// A 2xx with `Auth-Status: OK`.
    StatusAndHeader,
    /// `Auth-Status: OK`, or else a server and a port, whatever the HTTP status.
    Headers,
}
