//! How a session ends, and who has to act on it.

mod outcome;
mod sentence;
mod silence;
mod words;

use std::io;
use std::time::Duration;

use crate::auth::AuthError;
use crate::protocol::backend::RefusalCause;
use crate::protocol::follow::Interrupted;
use crate::protocol::notices::CertificateProblem;
use crate::protocol::proxy_header::ProxyHeaderError;
use crate::protocol::{BackendError, CloseReason, Protocol};
use crate::tls::{HandshakeError, HandshakeFailure};

use super::exclusive::{EndReason, HoldReason};
use super::limits::LimitReached;
use super::login_results::LoginResult;

pub(crate) use outcome::Outcome;
pub(crate) use silence::Silence;
use words::{interrupted, refusal, rule};

/// Why a session ended. [`End::fault`] says who is at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The client or the backend ended the relay normally.
    #[error("session done")]
    Done,
    /// The client sent LOGOUT or QUIT before it logged in.
    #[error("the client logged out before a login")]
    Quit,
    /// The client closed or broke the connection before it logged in.
    #[error("the client disconnected before it logged in")]
    ClientGone,
    #[error("{0}")]
    Limited(#[from] LimitReached),
    /// The client violated a rule of the phase before the login.
    #[error("{}", rule(*.0))]
    Rule(CloseReason),
    /// The client did not log in within `timeouts.client`.
    #[error("no login within timeouts.client")]
    ClientTimeout,
    /// Neither side sent anything within `timeouts.idle`.
    #[error("nothing was sent within timeouts.idle")]
    Idle,
    /// The PROXY header is missing or invalid.
    #[error("{0}")]
    ProxyHeader(#[from] ProxyHeaderError),
    #[error(
        "the peer {0} sent no PROXY header within timeouts.client; the listener's proxyProtocol requires one"
    )]
    NoHeader(String),
    /// The peer is not in `proxyProtocol.trustedPeers`, and untrusted peers are refused.
    #[error("the peer {0} is not among proxyProtocol.trustedPeers")]
    UntrustedPeer(String),
    /// The peer sent a PROXY header although it is not in `proxyProtocol.trustedPeers` and is accepted without one.
    #[error("the peer {0} sent a PROXY header, and is not among proxyProtocol.trustedPeers")]
    UnwantedHeader(String),
    /// The TLS handshake with the client failed.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// The client sent a TLS handshake on a port that begins without TLS.
    #[error(
        "the client started TLS at once, but this port starts without TLS; the client needs {}{}",
        if *has_start_tls { "STARTTLS, or a listener with tls.mode: Implicit" } else { "a listener with tls.mode: Implicit" },
        protocol.implicit_tls_port().map(|port| format!(" (usually port {port})")).unwrap_or_default()
    )]
    SpeaksTls { protocol: Protocol, has_start_tls: bool },
    /// The client certificate is missing or invalid.
    #[error("client certificate: {0}")]
    ClientCertificate(CertificateProblem),
    /// SMTP: the client sent bytes before the greeting.
    #[error("the client sent data before the greeting")]
    EarlyTalker,
    /// The login was refused, and the refusal ends the session.
    #[error("the login was refused")]
    LoginRefused,
    /// The auth service gave no usable answer.
    #[error("{0}")]
    AuthService(#[from] AuthError),
    /// The auth service named no backend and the listener has none.
    #[error(
        "the auth service named no Auth-Server and Auth-Port, and the listener has no backendRef or backendAddress"
    )]
    NoBackend,
    /// The user may be in a list of a route that could not be read yet.
    #[error("the list of users of MailRoute {0} is not loaded yet; see the status of the MailRoute")]
    RouteUndecided(String),
    /// The users of a route are held, and the time of the login is over.
    #[error("logins of MailRoute {0} are on hold (spec.state: Held), and holdTimeout has passed")]
    RouteHeld(String),
    /// The endpoint of an exclusive user could not be used within the time of the login.
    #[error("the user's endpoint cannot be used now (affinity.mode: Exclusive): {0}")]
    UserHeld(HoldReason),
    /// The configured backend has no endpoint at present.
    #[error("{0} has no ready endpoints")]
    NoEndpoints(String),
    /// The listener may not connect to any address of the backend ([`crate::model::Reach`]), or all are those of this
    /// process.
    #[error("{0}")]
    NotAllowed(String),
    /// The configured name of the backend does not exist, or has no address of an enabled family.
    #[error("cannot connect to the backend: {0}")]
    UnknownName(String),
    /// As [`Self::UnknownName`], and the auth service has named the backend.
    #[error("the auth service named an Auth-Server that cannot be used: {0}")]
    UnknownServer(String),
    /// The backend was connected to, and the TLS handshake did not end within this field's time.
    #[error("the TLS handshake with the backend did not finish within {0}")]
    TlsTimeout(&'static str),
    /// No endpoint accepted a connection. The text lists the endpoints and reasons.
    #[error("{0}")]
    Connect(String),
    /// The process has no file descriptor left for the connection to the backend.
    #[error(
        "no file descriptor is free for the connection to the backend; raise the limit of open files (ulimit -n)"
    )]
    Descriptors,
    /// The backend's reply was unusable.
    #[error("{0}")]
    Backend(#[from] BackendError),
    /// The backend failed at a point where it may have read our PROXY header as a command.
    #[error(
        "{0}; the likely cause is the PROXY header of upstream.proxyProtocol: the backend does not understand it, or does \
         not accept it from this address"
    )]
    BehindHeader(Box<End>),
    /// The backend closed or broke the connection during the login.
    #[error("the backend closed the connection during the login")]
    BackendGone,
    /// The backend closed the connection after it got credentials of this length from the client.
    #[error(
        "the backend closed the connection without a reply to a login of {bytes} bytes; servers limit the length of \
         passwords and tokens"
    )]
    LongLogin { bytes: usize },
    /// The backend closed the connection without sending a byte.
    #[error("the backend closed the connection without a greeting; {}", .0.hint_when_closed())]
    BackendMute(Silence),
    /// The backend sent something, but did not finish the login within `timeouts.connect`.
    #[error("the backend did not finish the login within timeouts.connect")]
    BackendTimeout,
    #[error("the backend sent nothing for {waited:?}; {}", silence.hint())]
    BackendSilent {
        /// `timeouts.connect`, or the time until the client left, in whole seconds.
        waited: Duration,
        silence: Silence,
    },
    #[error("the auth service is not available: {0}")]
    AuthServiceUnavailable(String),
    /// The backend refused a login that the auth service had accepted, or cannot accept logins now.
    #[error("the backend {}: {text}", refusal(*.cause))]
    BackendRefused { cause: RefusalCause, is_clients_password: bool, text: String },
    #[error("the backend sent unencrypted bytes after its STARTTLS reply")]
    BackendInjection,
    #[error("the connection to the {side} failed: {error}")]
    Relay {
        side: &'static str,
        /// From the read or write that failed.
        error: io::Error,
    },
    /// The client closed the connection after the login, within a message.
    #[error("the client closed the connection in the middle of a message")]
    ClientLeft,
    /// The backend closed the connection after the login, and this interrupts the session.
    #[error("the backend closed the connection {}", interrupted(*.0))]
    BackendLeft(Interrupted),
    /// A state that the types allow but that cannot occur: a bug.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
    /// The drain timeout ended, because the listener was removed or the process is ending.
    #[error("closed at the end of the drain timeout")]
    Drained,
    /// The user of an exclusive backend has to leave its endpoint.
    #[error("closed because {}", .0.sentence())]
    Moved(EndReason),
    /// The session began before its user was exclusive.
    #[error("closed because the user's MailRoute has affinity.mode Exclusive now")]
    Joined,
    /// The Pod of the session's endpoint has the annotation.
    #[error(
        "closed because the endpoint is taken out of service (annotation mailgress.dev/drain of its Pod)"
    )]
    EndpointLeaves,
    /// The session's `MailRoute` is held.
    #[error("closed because the user's MailRoute is held")]
    Held,
    /// An operator ended the session.
    #[error("ended by an operator (mailgress kick)")]
    Kicked,
}

/// The party that has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing failed.
    None,
    /// The mail client.
    Client,
    /// The backend.
    Backend,
    /// The auth service.
    AuthService,
    /// The author of the manifests.
    Configuration,
    /// The operator of Mailgress: a bug, or a limit of this process.
    Us,
}

impl Fault {
    /// The value of the label `fault`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Client => "client",
            Self::Backend => "backend",
            Self::AuthService => "auth_service",
            Self::Configuration => "configuration",
            Self::Us => "us",
        }
    }
}

impl End {
    /// The kind of this end.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Quit => Outcome::Quit,
            Self::ClientGone | Self::ClientLeft => Outcome::ClientGone,
            Self::Limited(_) => Outcome::Limited,
            Self::LoginRefused | Self::Rule(CloseReason::TooManyAuthFailures) => Outcome::LoginRefused,
            Self::Rule(_) | Self::Backend(BackendError::ControlCharacters { .. }) => Outcome::ProtocolError,
            Self::ClientTimeout => Outcome::ClientTimeout,
            Self::Idle => Outcome::IdleTimeout,
            Self::ProxyHeader(_) | Self::NoHeader(_) | Self::UntrustedPeer(_) | Self::UnwantedHeader(_) => {
                Outcome::ProxyHeader
            }
            Self::Handshake(_) | Self::SpeaksTls { .. } => Outcome::TlsHandshake,
            Self::ClientCertificate(_) => Outcome::ClientCertificate,
            Self::EarlyTalker => Outcome::EarlyTalker,
            Self::AuthService(_) | Self::UnknownServer(_) => Outcome::AuthServiceError,
            Self::AuthServiceUnavailable(_) => Outcome::AuthServiceUnavailable,
            Self::NoBackend | Self::NoEndpoints(_) => Outcome::NoBackend,
            Self::RouteUndecided(_) => Outcome::RouteUndecided,
            Self::RouteHeld(_) => Outcome::RouteHeld,
            Self::UserHeld(_) => Outcome::UserHeld,
            Self::NotAllowed(_) => Outcome::BackendNotAllowed,
            Self::Connect(_) | Self::UnknownName(_) => Outcome::BackendConnect,
            Self::Descriptors => Outcome::NoDescriptors,
            Self::Backend(
                BackendError::Unavailable { .. }
                | BackendError::NotOffered { .. }
                | BackendError::LoginDisabled
                | BackendError::NoEhlo { .. }
                | BackendError::NoStartTls,
            )
            | Self::BackendRefused { cause: RefusalCause::Server, .. } => Outcome::BackendUnavailable,
            Self::Backend(_)
            | Self::BackendGone
            | Self::BackendMute(_)
            | Self::BackendInjection
            | Self::BehindHeader(_) => Outcome::BackendError,
            Self::BackendTimeout | Self::BackendSilent { .. } | Self::TlsTimeout(_) => {
                Outcome::BackendTimeout
            }
            Self::BackendRefused { .. } | Self::LongLogin { .. } => Outcome::BackendRefused,
            Self::Relay { .. } | Self::BackendLeft(_) => Outcome::RelayError,
            Self::Internal(_) => Outcome::InternalError,
            Self::Drained => Outcome::Drained,
            Self::Kicked => Outcome::Kicked,
            Self::Held => Outcome::Held,
            Self::Moved(_) | Self::Joined | Self::EndpointLeaves => Outcome::Moved,
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Done
            | Self::Quit
            | Self::Idle
            | Self::Drained
            | Self::Kicked
            | Self::Held
            | Self::Moved(_)
            | Self::Joined
            | Self::EndpointLeaves => Fault::None,
            Self::UserHeld(HoldReason::NoEndpoint | HoldReason::Away(_)) => Fault::Backend,
            Self::UserHeld(_) => Fault::Us,
            Self::Descriptors | Self::Internal(_) | Self::Limited(LimitReached::ListenerFull) => Fault::Us,
            Self::Handshake(HandshakeError::Client(HandshakeFailure::Expired(_))) => Fault::Configuration,
            Self::ClientGone
            | Self::ClientLeft
            | Self::Limited(_)
            | Self::Rule(_)
            | Self::ClientTimeout
            | Self::Handshake(_)
            | Self::SpeaksTls { .. }
            | Self::ClientCertificate(_)
            | Self::EarlyTalker
            | Self::LoginRefused => Fault::Client,
            Self::AuthService(AuthError::Configuration { .. }) => Fault::Configuration,
            Self::AuthService(_) | Self::AuthServiceUnavailable(_) | Self::UnknownServer(_) => {
                Fault::AuthService
            }
            Self::NoBackend
            | Self::RouteUndecided(_)
            | Self::RouteHeld(_)
            | Self::NotAllowed(_)
            | Self::UnknownName(_)
            | Self::ProxyHeader(_)
            | Self::NoHeader(_)
            | Self::UntrustedPeer(_)
            | Self::UnwantedHeader(_) => Fault::Configuration,
            Self::Backend(BackendError::NoPassword) => Fault::AuthService,
            Self::Backend(BackendError::ControlCharacters { .. })
            | Self::LongLogin { .. }
            | Self::BackendRefused { cause: RefusalCause::Client, .. }
            | Self::BackendRefused { cause: RefusalCause::Credentials, is_clients_password: true, .. } => {
                Fault::Client
            }
            Self::Backend(_)
            | Self::NoEndpoints(_)
            | Self::Connect(_)
            | Self::TlsTimeout(_)
            | Self::BackendGone
            | Self::BackendTimeout
            | Self::BackendSilent { .. }
            | Self::BackendMute(_)
            | Self::BehindHeader(_)
            | Self::BackendRefused { .. }
            | Self::BackendInjection
            | Self::BackendLeft(_) => Fault::Backend,
            Self::Relay { side: "client", .. } => Fault::Client,
            Self::Relay { .. } => Fault::Backend,
        }
    }
}

impl End {
    /// The result that is counted for a login that ends the session in this way.
    pub(crate) const fn login_result(&self) -> LoginResult {
        match self {
            Self::AuthServiceUnavailable(_)
            | Self::RouteUndecided(_)
            | Self::RouteHeld(_)
            | Self::UserHeld(_)
            | Self::Backend(BackendError::Unavailable { .. })
            | Self::BackendRefused { cause: RefusalCause::Server, .. } => LoginResult::Unavailable,
            Self::LoginRefused
            | Self::Limited(_)
            | Self::BackendRefused { .. }
            | Self::LongLogin { .. }
            | Self::Rule(CloseReason::TooManyAuthFailures) => LoginResult::Refused,
            Self::ClientGone
            | Self::ClientTimeout
            | Self::Drained
            | Self::Kicked
            | Self::Held
            | Self::Moved(_)
            | Self::Joined
            | Self::EndpointLeaves => LoginResult::Abandoned,
            _ => LoginResult::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_the_fault_of_the_configuration() {
        let fault = |failure| End::Handshake(HandshakeError::Client(failure)).fault();
        assert_eq!(fault(HandshakeFailure::Expired("mail/tls".to_owned())), Fault::Configuration);
        let alert = rustls::AlertDescription::CertificateExpired;
        assert_eq!(fault(HandshakeFailure::Alert(alert)), Fault::Client);
    }

    #[test]
    fn a_password_that_the_backend_refuses_is_the_fault_of_whoever_gave_it() {
        let fault = |cause, is_clients_password| {
            End::BackendRefused { cause, is_clients_password, text: String::new() }.fault()
        };
        assert_eq!(fault(RefusalCause::Credentials, true), Fault::Client);
        assert_eq!(fault(RefusalCause::Credentials, false), Fault::Backend);
        assert_eq!(fault(RefusalCause::Server, true), Fault::Backend);
    }

    #[test]
    fn control_characters_in_a_login_are_an_error_of_the_client_in_every_protocol() {
        let pop3 = End::Backend(BackendError::ControlCharacters { protocol: "POP3" });
        let others = End::Rule(CloseReason::ControlCharacters);
        assert_eq!((pop3.outcome(), pop3.fault()), (Outcome::ProtocolError, Fault::Client));
        assert_eq!((others.outcome(), others.fault()), (Outcome::ProtocolError, Fault::Client));
    }
}
