//! One listener with all its settings resolved.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::FrontendConfig;

use super::auth::Auth;
use super::reach::Reach;
use super::settings::{Limits, Resolver, Timeouts, Upstream};
use super::tls::ServerTls;

/// Which listener of which object; stable over changes, and the value of metric labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    /// The namespace of the object that holds the listener.
    pub namespace: String,
    /// The `MailServer` or, for an attached listener, the `MailListener`.
    pub object: String,
    /// The listener's name; empty for a `MailListener`, whose name is the object's.
    pub listener: String,
}

/// `mail/example/imaps`, or `mail/example` for a `MailListener`.
impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.object)?;
        if self.listener.is_empty() { Ok(()) } else { write!(f, "/{}", self.listener) }
    }
}

/// A listener as the data plane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its identity.
    pub id: ListenerId,
    /// Names it answers to by SNI; empty: all.
    pub hostnames: Vec<Hostname>,
    /// What it says and accepts before the login.
    pub frontend: Arc<FrontendConfig>,
    /// Present unless the socket's TLS mode is Disabled.
    pub tls: Option<Arc<ServerTls>>,
    /// Who decides about logins.
    pub auth: Auth,
    /// Where its backends may be, whoever names them.
    pub reach: Reach,
    /// How backends are talked to.
    pub upstream: Arc<Upstream>,
    /// Name resolution.
    pub resolver: Arc<Resolver>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// SMTP: how long the greeting is withheld; a client that talks earlier is refused.
    pub greeting_delay: Duration,
}

/// `mail.example.com` or `*.example.com`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(String);

impl Hostname {
    /// From a name that the schema has checked; a leading `*.` makes it a wildcard.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.trim_end_matches('.').to_ascii_lowercase())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this very name, without case.
    #[must_use]
    pub fn is_exactly(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    /// The one wildcard that covers it, if there is a label before its first dot.
    #[must_use]
    pub fn wildcard(&self) -> Option<Self> {
        let (label, rest) = self.0.split_once('.')?;
        (!label.is_empty()).then(|| Self(format!("*.{rest}")))
    }

    /// Whether it is a wildcard that covers `name`: exactly one more label (RFC 6125 section 6.4.3).
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let Some(suffix) = self.0.strip_prefix("*.") else { return false };
        name.split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = Hostname::new("*.Example.com");
        assert!(wildcard.covers("mail.example.COM"));
        assert!(
            !wildcard.covers("example.com")
                && !wildcard.covers("a.b.example.com")
                && !wildcard.covers(".example.com")
        );
        assert!(Hostname::new("example.com").is_exactly("EXAMPLE.com"));
    }
}
