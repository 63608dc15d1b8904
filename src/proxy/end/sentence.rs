//! Describes the end of a session for the status page, without words of others.

use crate::auth::AuthError;
use crate::protocol::BackendError;
use crate::tls::HandshakeError;

use super::{End, refusal};

impl End {
    /// Describes the end for the status page. Its readers may not be allowed to know who logs in, so the text has no
    /// client address and no words of clients, backends or auth services.
    pub(crate) fn sentence(&self) -> String {
        let text = match self {
            Self::NoHeader(_) => {
                "a peer sent no PROXY header within timeouts.client; proxyProtocol requires one"
            }
            Self::UntrustedPeer(_) => "a peer is not among proxyProtocol.trustedPeers",
            Self::UnwantedHeader(_) => {
                "a peer sent a PROXY header, and is not among proxyProtocol.trustedPeers"
            }
            Self::BackendRefused { cause, .. } => {
                return format!("the backend {}; the log has its reply", refusal(*cause));
            }
            Self::AuthServiceUnavailable(_) => "the auth service is not available; the log has its reply",
            Self::UnknownServer(_) => {
                "the auth service named an Auth-Server that does not exist; the log has its name"
            }
            Self::Backend(BackendError::Unavailable { step, .. }) => {
                return format!(
                    "the backend is not available: it reported a failure at {step}; the log has its reply"
                );
            }
            Self::Handshake(HandshakeError::Client(failure)) => return failure.without_words(),
            Self::Backend(BackendError::Unexpected { step, .. }) => {
                return format!("the backend does not accept {step}; the log has its reply");
            }
            Self::Backend(BackendError::Unasked { step, .. }) => {
                return format!("the backend answered before {step}; the log has its reply");
            }
            Self::Backend(BackendError::OutOfStep { .. }) => {
                "the reply of the backend is not about the login; see the log"
            }
            Self::Backend(BackendError::NotOffered { mechanism, remedy, .. }) => {
                return format!("the backend does not offer {mechanism}; {remedy}; the log has its reply");
            }
            Self::Backend(BackendError::XclientRefused { remedy, .. }) => {
                return format!("the backend refused XCLIENT; {remedy}; the log has its reply");
            }
            Self::Backend(BackendError::NoEhlo { needed_by, .. }) => {
                return format!("{needed_by} needs EHLO, but the backend rejected it; the log has its reply");
            }
            Self::BehindHeader(end) => {
                let likely = "the likely cause is the PROXY header of upstream.proxyProtocol";
                return format!("{}; {likely}", end.sentence());
            }
            Self::AuthService(error) => return sentence_of(error),
            other => return other.to_string(),
        };
        text.to_owned()
    }
}

/// Describes an error without the reference of the auth service, which may be a URL with credentials.
fn sentence_of(error: &AuthError) -> String {
    match error {
        AuthError::NoEndpoint { .. } => "the auth service has no ready endpoint".to_owned(),
        AuthError::Configuration { .. } => {
            "the auth service cannot be used; the log has the reason".to_owned()
        }
        AuthError::Unreachable { cause, .. } => format!("the auth service cannot be reached: {cause}"),
        AuthError::Timeout { timeout, .. } => format!("the auth service did not answer within {timeout:?}"),
        AuthError::GivenUp { waited, .. } => {
            format!("the client left after waiting {waited:.1?} for the auth service")
        }
        AuthError::Broken { cause, .. } => format!("the auth service {cause}"),
        AuthError::Answer { cause, .. } => format!("the answer of the auth service is invalid: {cause}"),
        AuthError::Undecided { .. } => "the auth service gave no decision".to_owned(),
    }
}
