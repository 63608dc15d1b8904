//! Who decides about logins: an auth service or the backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::{Serialize, Serializer};

use crate::net::BackendAddress;
use crate::secret::{MASK, Secret};

use super::reach::Reach;
use super::tls::TrustAnchors;

/// `auth`: exactly one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Auth {
    /// An auth service with nginx's HTTP protocol.
    Http(Arc<HttpAuth>),
    /// The backend itself decides.
    Passthrough,
}

impl Auth {
    /// Tells whether the backend decides. Then the client gets its replies.
    #[must_use]
    pub const fn is_passthrough(&self) -> bool {
        matches!(self, Self::Passthrough)
    }
}

/// An auth service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    pub path: RequestPath,
    /// For `https`: the trusted authorities. The certificate must match `host`.
    pub tls: Option<TrustAnchors>,
    /// Additional request headers, in the configured order.
    pub headers: Vec<AuthHeader>,
    /// Time limit for the whole answer. Partial data do not extend it.
    #[serde(serialize_with = "duration::required::serialize")]
    pub timeout: Duration,
    /// Whether connections are reused.
    pub keep_alive: bool,
    /// Adds `Auth-SSL-Cert`.
    pub pass_client_certificate: bool,
    /// What an answer needs to accept a login.
    pub proof: AuthProof,
}

/// The path and query of a request. The query often contains keys, so it is masked when printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestPath(String);

impl RequestPath {
    /// Takes a path that starts with `/`.
    #[must_use]
    pub const fn new(path: String) -> Self {
        Self(path)
    }

    /// Returns the path with its query, for the request.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((path, _)) => write!(f, "{path}?{MASK}"),
            None => f.write_str(&self.0),
        }
    }
}

impl Serialize for RequestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// An additional header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: HeaderText,
}

/// The value of an additional header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderText {
    /// The same value in each request.
    Fixed(Secret),
    /// The client's port.
    ClientPort,
    /// The session's id.
    SessionId,
}

/// What an answer needs to accept a login (quirk Q-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum AuthProof {
    /// A 2xx status and `Auth-Status: OK`.
    StatusAndHeader,
    /// `Auth-Status: OK`, or a server and a port, whatever the HTTP status.
    Headers,
}
