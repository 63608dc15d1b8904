//! Capabilities that depend on the state of a session, so that the frontend announces them itself. A configured list
//! must not contain them.

use crate::protocol::Protocol;

/// An entry of a configured list, split into the parts that may stay and those that the frontend announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnExtensions {
    /// The rest of the entry, if any.
    pub kept: Option<String>,
    /// The removed parts, as they were written.
    pub own: Vec<String>,
}

/// Splits one entry of a configured list. In IMAP, entries are words of one line. In the other protocols, they
/// are lines, named by their first word.
#[must_use]
pub fn own_extensions(protocol: Protocol, capability: &str) -> OwnExtensions {
    match protocol {
        Protocol::Imap => {
            let (own, kept): (Vec<&str>, Vec<&str>) =
                capability.split(' ').partition(|word| is_own(protocol, word));
            let kept = (!kept.is_empty()).then(|| kept.join(" "));
            OwnExtensions { kept, own: own.into_iter().map(str::to_owned).collect() }
        }
        Protocol::Pop3 | Protocol::Smtp | Protocol::Sieve if is_own(protocol, capability) => {
            OwnExtensions { kept: None, own: vec![capability.to_owned()] }
        }
        Protocol::Pop3 | Protocol::Smtp | Protocol::Sieve => {
            OwnExtensions { kept: Some(capability.to_owned()), own: vec![] }
        }
    }
}

/// POP3's USER is not included: a list may omit it, as in nginx.
fn is_own(protocol: Protocol, capability: &str) -> bool {
    let word = capability.split(' ').next().unwrap_or_default();
    // `AUTH=PLAIN` is the form of IMAP, and of SMTP servers before RFC 2554.
    let name = word.split('=').next().unwrap_or_default();
    let own: &[&str] = match protocol {
        Protocol::Imap => &["AUTH", "STARTTLS", "LOGINDISABLED"],
        Protocol::Pop3 => &["SASL", "STLS"],
        Protocol::Smtp => &["AUTH", "STARTTLS"],
        Protocol::Sieve => &["SASL", "STARTTLS"],
    };
    own.iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_apart(protocol: Protocol, capability: &str) -> (Option<String>, Vec<String>) {
        let OwnExtensions { kept, own } = own_extensions(protocol, capability);
        (kept, own)
    }

    #[test]
    fn a_line_of_smtp_or_pop3_is_ours_by_its_first_word() {
        for (protocol, line) in [
            (Protocol::Smtp, "AUTH PLAIN LOGIN"),
            (Protocol::Smtp, "auth=LOGIN"),
            (Protocol::Smtp, "StartTLS"),
            (Protocol::Pop3, "SASL PLAIN"),
            (Protocol::Pop3, "stls"),
            (Protocol::Sieve, "SASL PLAIN"),
            (Protocol::Sieve, "StartTLS"),
        ] {
            assert_eq!(taken_apart(protocol, line), (None, vec![line.to_owned()]));
        }
        for (protocol, line) in [
            (Protocol::Smtp, "SIZE 100"),
            (Protocol::Smtp, "8BITMIME"),
            (Protocol::Smtp, "AUTHZ"),
            (Protocol::Smtp, "STLS"),
            (Protocol::Pop3, "USER"),
            (Protocol::Pop3, "AUTH-RESP-CODE"),
            (Protocol::Pop3, "IMPLEMENTATION SASL"),
            (Protocol::Sieve, "SIEVE fileinto STARTTLS"),
        ] {
            assert_eq!(taken_apart(protocol, line), (Some(line.to_owned()), vec![]));
        }
    }

    #[test]
    fn imap_capabilities_are_looked_at_word_by_word() {
        let (kept, own) =
            taken_apart(Protocol::Imap, "IMAP4rev1 AUTH=PLAIN auth=login STARTTLS IDLE LOGINDISABLED");
        assert_eq!(kept.as_deref(), Some("IMAP4rev1 IDLE"));
        assert_eq!(own, ["AUTH=PLAIN", "auth=login", "STARTTLS", "LOGINDISABLED"]);
        assert_eq!(taken_apart(Protocol::Imap, "STARTTLS"), (None, vec!["STARTTLS".to_owned()]));
        assert_eq!(taken_apart(Protocol::Imap, "LOGIN-REFERRALS").1, Vec::<String>::new());
    }
}
