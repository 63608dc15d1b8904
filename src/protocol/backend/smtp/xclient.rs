//! The attributes of XCLIENT.

use crate::protocol::backend::reply::SmtpReply;
use crate::protocol::backend::{BackendError, ClientInfo, XclientNegotiation};

use super::offer::offers;
use super::{Login, Preparation};

impl Preparation {
    /// Returns the attributes in nginx's order. With `extensions`, only those that the backend offers.
    pub(super) fn attributes(&self, client: &ClientInfo, extensions: Option<&SmtpReply>) -> String {
        let address = match client.address.map(|address| address.ip().to_canonical()) {
            Some(std::net::IpAddr::V4(v4)) => v4.to_string(),
            Some(std::net::IpAddr::V6(v6)) => format!("IPV6:{v6}"),
            None => "[UNAVAILABLE]".to_owned(),
        };
        let login = match &self.login {
            Login::Trusted { login } => xtext(login),
            _ => String::new(),
        };
        let values = [("ADDR", address), ("LOGIN", login), ("NAME", xtext(client.host.as_bytes()))];
        values
            .into_iter()
            .filter(|(name, value)| {
                !value.is_empty() && extensions.is_none_or(|offered| offers(offered, "XCLIENT", name))
            })
            .map(|(name, value)| format!(" {name}={value}"))
            .collect()
    }

    /// Returns the error for an XCLIENT that got this reply.
    pub(super) fn xclient_refused(self, reply: SmtpReply) -> BackendError {
        let negotiation = self.xclient.map_or(XclientNegotiation::Auto, |(_, negotiation)| negotiation);
        BackendError::xclient(negotiation, reply.lines)
    }
}

/// Encodes a value for XCLIENT (RFC 3461 section 4, with nginx's set of bytes).
fn xtext(value: &[u8]) -> String {
    value
        .iter()
        .map(|&byte| match byte {
            b'+' | b'=' => format!("+{byte:02X}"),
            b'!'..=b'~' => char::from(byte).to_string(),
            _ => format!("+{byte:02X}"),
        })
        .collect()
}
