//! Which listener of a socket a client gets, by the server name that it asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::listener::{Hostname, Listener};

/// The host names of a socket's listeners, looked up without going through all of them.
#[derive(Debug, Default)]
pub struct ServerNames {
    /// Exact names, and wildcards as they are written.
    names: HashMap<Hostname, usize>,
    /// The first listener without host names, or else the first of all.
    unnamed: Option<usize>,
    /// The first listener without host names.
    rest: Option<usize>,
}

impl ServerNames {
    /// Of these listeners, told by their position.
    #[must_use]
    pub fn new(listeners: &[Arc<Listener>]) -> Self {
        Self::of(listeners.iter().map(|listener| listener.hostnames.as_slice()))
    }

    fn of<'a>(listeners: impl Iterator<Item = &'a [Hostname]>) -> Self {
        let mut all = Self::default();
        for (position, hostnames) in listeners.enumerate() {
            all.unnamed = all.unnamed.or(Some(position));
            if hostnames.is_empty() {
                all.rest = all.rest.or(Some(position));
            }
            for hostname in hostnames {
                all.names.entry(hostname.clone()).or_insert(position);
            }
        }
        all.unnamed = all.rest.or(all.unnamed);
        all
    }

    /// The listener for a client that asked for `server_name` by SNI: an exact host name first, then a
    /// wildcard, then a listener without host names. A client that sends no SNI gets the listener without
    /// host names, or else the first. `None`: the name is nobody's.
    #[must_use]
    pub fn select(&self, server_name: Option<&str>) -> Option<usize> {
        let Some(name) = server_name else { return self.unnamed };
        let exact = Hostname::new(name);
        let found = self.names.get(&exact).or_else(|| self.names.get(&exact.wildcard()?));
        found.copied().or(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&[&str]]) -> ServerNames {
        let hostnames = |names: &&[&str]| names.iter().map(|name| Hostname::new(name)).collect::<Vec<_>>();
        let all: Vec<_> = of.iter().map(hostnames).collect();
        ServerNames::of(all.iter().map(Vec::as_slice))
    }

    #[test]
    fn an_exact_name_is_better_than_a_wildcard_and_that_than_a_listener_without_names() {
        let some: [&[&str]; 4] =
            [&["*.example.test"], &["mail.example.test"], &[], &["mail.example.test", "x.test"]];
        let names = names(&some);
        let select = |name| names.select(Some(name));
        assert_eq!(select("MAIL.example.test"), Some(1), "the first of two");
        assert_eq!(select("other.example.test"), Some(0));
        assert_eq!(
            (select("example.test"), select("a.b.example.test"), select("x.test")),
            (Some(2), Some(2), Some(3))
        );
        assert_eq!(names.select(None), Some(2));
    }

    #[test]
    fn a_name_that_is_nobodys_selects_nothing_and_no_name_the_first() {
        let names = names(&[&["a.test"], &["*.b.test"]]);
        assert_eq!((names.select(Some("c.test")), names.select(Some("b.test"))), (None, None));
        assert_eq!((names.select(Some("")), names.select(None)), (None, Some(0)));
    }
}
