//! Selects the listener of a socket by the server name that the client requested with SNI.

use std::collections::HashMap;
use std::sync::Arc;

use super::hostname::Hostname;
use super::listener::Listener;

/// The host names of a socket's listeners, for a lookup that does not iterate over all listeners.
#[derive(Debug, Default)]
pub struct ServerNames {
    /// Exact names, and wildcards as written.
    names: HashMap<Hostname, usize>,
    /// The first listener without host names, else the first listener.
    unnamed: Option<usize>,
    /// The first listener without host names.
    rest: Option<usize>,
}

impl ServerNames {
    /// Creates the table. Listeners are identified by their position.
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

    /// Returns the listener for a client that requested `server_name`: one with this exact host name, else with a
    /// matching wildcard, else one without host names. A client without SNI gets a listener without host names, else
    /// the first one. `None` if no listener has the name.
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
