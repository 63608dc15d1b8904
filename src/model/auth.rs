//! Who decides about logins: an auth service or the backend.

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
    /// An auth service with nginx's HTTP protocol.
    Http {
        /// The service.
        service: Arc<HttpAuth>,
        /// The backend for answers without a server.
        backend: Option<Arc<Backend>>,
    },
    /// The backend itself decides.
    Passthrough(Arc<Backend>),
}

impl Auth {
    /// Tells whether the backend decides. Then the client gets its replies.
    #[must_use]
    pub const fn is_passthrough(&self) -> bool {
        matches!(self, Self::Passthrough(_))
    }

    /// Returns the configured backend.
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
    /// The name in the manifest, for logs and messages: the URL, or `Service mail/auth:9000`.
    pub reference: String,
    /// The endpoints, which are used in turn. May be empty (a Service without ready endpoints).
    pub endpoints: Vec<BackendAddress>,
    /// Limits what the endpoints' names may resolve to.
    pub reach: Reach,
    /// The `Host` header without port, as in nginx.
    pub host: String,
    /// The path and query, starting with `/`.
    pub path: String,
    /// For `https`: the trusted authorities. The certificate must match `host`.
    pub tls: Option<TrustAnchors>,
    /// Additional request headers, in the configured order.
    pub headers: Vec<(String, HeaderText)>,
    /// Time limit for the whole answer. Partial data do not extend it.
    pub timeout: Duration,
    /// Whether connections are reused.
    pub keep_alive: bool,
    /// Adds `Auth-SSL-Cert`.
    pub pass_client_certificate: bool,
    /// What an answer needs to accept a login.
    pub proof: AuthProof,
}

/// The value of an additional header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// The same value in each request.
    Fixed(Secret),
    /// The client's port.
    ClientPort,
}

/// Formats the value for messages. A fixed value may be a key, so it is masked.
impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => text.fmt(f),
            Self::ClientPort => f.write_str("the client's port"),
        }
    }
}

/// What an answer needs to accept a login (quirk Q-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthProof {
    /// A 2xx status and `Auth-Status: OK`.
    StatusAndHeader,
    /// `Auth-Status: OK`, or a server and a port, whatever the HTTP status.
    Headers,
}
