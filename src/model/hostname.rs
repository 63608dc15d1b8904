//! Host names of listeners.

use serde::Serialize;

/// A host name such as `mail.example.com` or `*.example.com`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Hostname(String);

impl Hostname {
    /// Creates a host name from a name that the schema has validated. A leading `*.` is a wildcard.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.trim_end_matches('.').to_ascii_lowercase())
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether `name` is the same, ignoring case.
    #[must_use]
    pub fn is_exactly(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }

    /// Returns the only wildcard that can cover this name, if it has a label before its first dot.
    #[must_use]
    pub fn wildcard(&self) -> Option<Self> {
        let (label, rest) = self.0.split_once('.')?;
        (!label.is_empty()).then(|| Self(format!("*.{rest}")))
    }

    /// Tells whether this is a wildcard that covers `name`: it replaces exactly one label (RFC 6125 section 6.4.3).
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
