//! Auth services: they decide who may log in, and name the backend. [`http`] implements nginx's protocol.

pub mod http;

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::SessionId;
use crate::net::{BackendAddress, ClientAddress};
use crate::protocol::backend::RefusalCause;
use crate::protocol::proxy_header::TlsFacts;
use crate::protocol::{Envelope, LoginRequest, Protocol};
use crate::secret::Secret;

pub use http::{AuthClient, Quota};

/// The data of a login that an auth service receives.
#[derive(Clone, Copy, Debug)]
pub struct AuthRequest<'a> {
    /// The session.
    pub session: SessionId,
    /// The protocol of the client.
    pub protocol: Protocol,
    /// The credentials.
    pub request: &'a LoginRequest,
    /// The number of the login, counted from 1 for each session.
    pub attempt: u32,
    /// The client's address.
    pub client: ClientAddress,
    /// SMTP: the client's verified host name, or a marker.
    pub client_host: Option<&'a str>,
    /// Source and destination of a received PROXY header.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
    /// SMTP: the client's commands; sent for [`LoginRequest::Anonymous`].
    pub envelope: Option<&'a Envelope>,
    /// Set if the client uses TLS.
    pub tls: Option<&'a TlsFacts>,
    /// Set if client certificates are requested.
    pub certificate: Option<ClientCertificate<'a>>,
}

/// The client's certificate.
#[derive(Clone, Copy, Debug)]
pub enum ClientCertificate<'a> {
    /// The client sent no certificate.
    Absent,
    /// The client sent a certificate and has its key.
    Presented {
        /// The certificate in DER.
        der: &'a [u8],
        /// Whether it is trusted, else the reason.
        verified: Result<(), &'a str>,
    },
}

/// The decision of an auth service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthAnswer {
    /// The login is accepted.
    Accepted {
        /// The backend to use; `None` for the listener's own.
        server: Option<BackendAddress>,
        /// The login for the backend; `None` for the client's own.
        login: Option<Vec<u8>>,
        /// The password for the backend; `None` for the client's own.
        password: Option<Secret>,
    },
    /// The login is refused.
    Refused {
        /// The text for the client; may start with an IMAP response code. Never empty.
        text: Vec<u8>,
        /// SMTP: reply code and enhanced code; the default is `535 5.7.0`.
        code: Option<String>,
        /// Delay of the client's reply, after which it may try again. `None`: the session ends.
        wait: Option<Duration>,
        /// XOAUTH2 and OAUTHBEARER: the challenge before the refusal, in base64.
        sasl: Option<String>,
        /// Who has to act. [`RefusalCause::Server`] if the service says that it cannot decide.
        cause: RefusalCause,
    },
}

/// Why there is no decision, for the operator. The client gets the protocol's internal-error line.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The auth service has no ready endpoint.
    #[error("auth service {service} has no ready endpoint")]
    NoEndpoint {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
    },
    /// The configuration of the auth service cannot be used.
    #[error("auth service {service} cannot be used: {cause}")]
    Configuration {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What is wrong.
        cause: String,
    },
    /// No endpoint of the auth service accepts a connection.
    #[error("auth service {service} cannot be reached: {cause}")]
    Unreachable {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// The failure of the last endpoint.
        cause: String,
    },
    /// The auth service did not answer in time.
    #[error("auth service {service} did not answer within {timeout:?}")]
    Timeout {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// `auth.http.timeout`.
        timeout: Duration,
    },
    /// The auth service took so long that the client left.
    #[error("the client left after waiting {waited:.1?} for auth service {service}")]
    GivenUp {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// The time since the request; at least `LONG_SILENCE`.
        waited: Duration,
    },
    /// The connection failed, or the answer is not HTTP.
    #[error("auth service {service} {cause}")]
    Broken {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What it did; completes a sentence about it.
        cause: String,
    },
    /// The answer is HTTP, but not a decision.
    #[error("the answer of auth service {service} is invalid: {cause}")]
    Answer {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What is wrong with it.
        cause: http::ReplyError,
    },
    /// The service answered `WAIT` too often or for too long.
    #[error("auth service {service} gave no decision: it answered WAIT {times} times")]
    Undecided {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// The number of `WAIT` answers.
        times: u32,
    },
}

impl AuthError {
    /// Returns an error if the client left after waiting for an answer for a long time. `None` if it left soon, because
    /// that was its own decision.
    pub(crate) fn given_up(service: &str, waited: Duration) -> Option<Self> {
        (waited >= LONG_SILENCE).then(|| Self::GivenUp { service: service.to_owned(), waited })
    }
}

/// If a client leaves after waiting this long, the auth service is the reason.
const LONG_SILENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_leaves_a_slow_auth_service_leaves_because_of_it() {
        let soon = AuthError::given_up("http://192.0.2.1/auth", Duration::from_millis(2_900));
        assert!(soon.is_none(), "{soon:?}");
        let late = AuthError::given_up("http://192.0.2.1/auth", Duration::from_millis(4_900)).unwrap();
        let said = "the client left after waiting 4.9s for auth service http://192.0.2.1/auth";
        assert_eq!(late.to_string(), said);
    }
}
