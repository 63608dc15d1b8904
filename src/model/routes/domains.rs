//! Domains as routes name them, also with a wildcard, and those that a namespace may name.

use std::fmt;

use crate::protocol::user::{User, ascii_domain, is_domain};

/// A domain, or all domains below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DomainPattern {
    /// `example.org`.
    Exact(String),
    /// `*.example.org`: the domain behind `*.`.
    Below(String),
}

/// The domains that a namespace may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedDomains {
    /// All domains, and users without a domain.
    All,
    /// Those that one of these patterns covers.
    Only(Vec<DomainPattern>),
}

impl DomainPattern {
    /// Parses a domain or wildcard in any spelling. `None` if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (domain, is_wildcard) = match text.strip_prefix("*.") {
            Some(below) => (below, true),
            None => (text, false),
        };
        let domain = String::from_utf8(ascii_domain(domain.as_bytes()).into_owned()).ok()?;
        is_domain(&domain).then_some(if is_wildcard { Self::Below(domain) } else { Self::Exact(domain) })
    }

    /// Tells whether this stands for everything that `other` stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Exact(_), Self::Below(_)) => false,
            (Self::Below(own), Self::Exact(other)) => is_below(other, own),
            (Self::Below(own), Self::Below(other)) => own == other || is_below(other, own),
        }
    }
}

/// Writes `example.org` or `*.example.org`.
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => f.write_str(domain),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

fn is_below(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| !rest.is_empty())
}

impl AllowedDomains {
    /// Tells whether everything that a pattern stands for is allowed.
    #[must_use]
    pub fn allow(&self, pattern: &DomainPattern) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|allowed| allowed.covers(pattern)),
        }
    }

    /// Tells whether a user is allowed.
    #[must_use]
    pub fn allow_user(&self, user: &User) -> bool {
        match self {
            Self::All => true,
            Self::Only(_) => {
                user.domain().is_some_and(|domain| self.allow(&DomainPattern::Exact(domain.to_owned())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_domains_in_any_spelling() {
        let parse = |text| DomainPattern::parse(text).map(|pattern| pattern.to_string());
        assert_eq!(parse("*.München.Example."), Some("*.xn--mnchen-3ya.example".to_owned()));
        assert_eq!(parse("localhost"), Some("localhost".to_owned()));
        let long = "a".repeat(64);
        for bad in ["", "*", "*.", "a..b", "a b", "*.*.a", "a@b", "-a.b", &long] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_pattern_covers() {
        let covers =
            |one, other| DomainPattern::parse(one).unwrap().covers(&DomainPattern::parse(other).unwrap());
        assert!(
            covers("a.b", "a.b") && covers("*.b", "a.b") && covers("*.b", "*.b") && covers("*.b", "*.a.b")
        );
        assert!(
            !covers("*.b", "b") && !covers("a.b", "*.a.b") && !covers("*.a.b", "*.b") && !covers("*.b", "xb")
        );
    }
}
