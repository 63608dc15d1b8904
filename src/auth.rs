//! Auth services: who may log in, and where to. The service's protocol is nginx's ([`http`]).

pub mod http;

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::{BackendAddress, ClientAddress};
use crate::protocol::backend::RefusalCause;
use crate::protocol::proxy_header::TlsFacts;
use crate::protocol::{Envelope, LoginRequest, Protocol};
use crate::secret::Secret;

pub use http::{AuthClient, Quota};

/// All that an auth service is told about one attempt.
#[derive(Clone, Copy, Debug)]
pub struct AuthRequest<'a> {
    /// The protocol that the client speaks.
    pub protocol: Protocol,
    /// The credentials.
    pub request: &'a LoginRequest,
    /// Counts from 1 in a session.
    pub attempt: u32,
    /// The client.
    pub client: ClientAddress,
    /// SMTP: its verified name, or a marker.
    pub client_host: Option<&'a str>,
    /// Source and destination of an incoming PROXY header.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
    /// SMTP: what the client said; sent for [`LoginRequest::Anonymous`].
    pub envelope: Option<&'a Envelope>,
    /// Present when the client uses TLS.
    pub tls: Option<&'a TlsFacts>,
    /// Present when client certificates are asked for.
    pub certificate: Option<ClientCertificate<'a>>,
}

/// The client's certificate.
#[derive(Clone, Copy, Debug)]
pub enum ClientCertificate<'a> {
    /// It sent none.
    Absent,
    /// It sent one and holds its key.
    Presented {
        /// The certificate.
        der: &'a [u8],
        /// Or why it is not trusted.
        verified: Result<(), &'a str>,
    },
}

/// A service's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthAnswer {
    /// The login is good.
    Accepted {
        /// The backend to use; `None`: the listener's own.
        server: Option<BackendAddress>,
        /// The login for the backend, if it differs from the client's.
        login: Option<Vec<u8>>,
        /// The password for the backend, if it differs from the client's.
        password: Option<Secret>,
    },
    /// The login is not good.
    Refused {
        /// For the client; may begin with an IMAP response code. Never empty.
        text: Vec<u8>,
        /// SMTP: the reply code and enhanced code, instead of `535 5.7.0`.
        code: Option<String>,
        /// The client is answered after this time and may try again; `None`: the session ends.
        wait: Option<Duration>,
        /// XOAUTH2 and OAUTHBEARER: base64, for the challenge before the refusal.
        sasl: Option<String>,
        /// Who has to change something; the service itself when it says that it cannot decide.
        cause: RefusalCause,
    },
}

/// No decision. The client gets the protocol's internal-error line; this is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The configuration's fault: a Service without ready endpoints.
    #[error("auth service {service} has no ready endpoint")]
    NoEndpoint {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
    },
    /// The configuration's fault.
    #[error("auth service {service} cannot be used: {cause}")]
    Configuration {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What is wrong.
        cause: String,
    },
    /// The service's fault, or its network's: no endpoint takes a connection.
    #[error("auth service {service} cannot be reached: {cause}")]
    Unreachable {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// The last endpoint's failure.
        cause: String,
    },
    /// The service's fault.
    #[error("auth service {service} did not answer within {timeout:?}")]
    Timeout {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// `auth.http.timeout`.
        timeout: Duration,
    },
    /// The service's fault: the client did not wait any longer.
    #[error("the client left while auth service {service} had not answered for {waited:.1?}")]
    GivenUp {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// Since the question; at least [`LONG_SILENCE`].
        waited: Duration,
    },
    /// The service's fault: the connection or the HTTP in it broke.
    #[error("auth service {service} broke off its answer: {cause}")]
    Broken {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What the library says.
        cause: String,
    },
    /// The service's fault: HTTP, but not an answer.
    #[error("auth service {service} answered wrongly: {cause}")]
    Answer {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// What is wrong with it.
        cause: http::ReplyError,
    },
    /// The service's fault: `WAIT` for too long.
    #[error("auth service {service} did not decide: it answered WAIT {times} times")]
    Undecided {
        /// [`crate::model::HttpAuth::reference`].
        service: String,
        /// How often it did.
        times: u32,
    },
}

impl AuthError {
    /// For a client that left after waiting for an answer for so long. `None` if it left soon: then that is its own choice.
    pub(crate) fn given_up(service: &str, waited: Duration) -> Option<Self> {
        (waited >= LONG_SILENCE).then(|| Self::GivenUp { service: service.to_owned(), waited })
    }
}

/// An auth service that takes longer is the reason why a client leaves.
const LONG_SILENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_leaves_a_slow_auth_service_leaves_because_of_it() {
        let soon = AuthError::given_up("http://192.0.2.1/auth", Duration::from_millis(2_900));
        assert!(soon.is_none(), "{soon:?}");
        let late = AuthError::given_up("http://192.0.2.1/auth", Duration::from_millis(4_900)).unwrap();
        let said = "the client left while auth service http://192.0.2.1/auth had not answered for 4.9s";
        assert_eq!(late.to_string(), said);
    }
}
