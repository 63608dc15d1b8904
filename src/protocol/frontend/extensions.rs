//! What we announce ourselves, as far as it is true, and what a configured list of capabilities therefore must not hold.

use crate::protocol::Protocol;

/// A configured capability without what is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnExtensions {
    /// What is left of it, if anything.
    pub kept: Option<String>,
    /// What is ours, as it was written.
    pub own: Vec<String>,
}

/// Takes one entry of a configured list apart. IMAP's are words of one line; SMTP's and POP3's are lines, and the first
/// word of a line names it.
#[must_use]
pub fn own_extensions(protocol: Protocol, capability: &str) -> OwnExtensions {
    match protocol {
        Protocol::Imap => {
            let (own, kept): (Vec<&str>, Vec<&str>) =
                capability.split(' ').partition(|word| is_own(protocol, word));
            let kept = (!kept.is_empty()).then(|| kept.join(" "));
            OwnExtensions { kept, own: own.into_iter().map(str::to_owned).collect() }
        }
        Protocol::Pop3 | Protocol::Smtp if is_own(protocol, capability) => {
            OwnExtensions { kept: None, own: vec![capability.to_owned()] }
        }
        Protocol::Pop3 | Protocol::Smtp => OwnExtensions { kept: Some(capability.to_owned()), own: vec![] },
    }
}

/// POP3's USER is not among them: a list may leave it out, as nginx's may.
fn is_own(protocol: Protocol, capability: &str) -> bool {
    let word = capability.split(' ').next().unwrap_or_default();
    // `AUTH=PLAIN` is IMAP's form, and that of SMTP servers before RFC 2554.
    let name = word.split('=').next().unwrap_or_default();
    let own: &[&str] = match protocol {
        Protocol::Imap => &["AUTH", "STARTTLS", "LOGINDISABLED"],
        Protocol::Pop3 => &["SASL", "STLS"],
        Protocol::Smtp => &["AUTH", "STARTTLS"],
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
