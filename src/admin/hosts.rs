//! Checks the host names of requests to the admin server, against DNS rebinding.
//!
//! A website can resolve its own name to the address of an admin server, and read the pages through a visitor's
//! browser, which treats them as the website's own. The browser still sends the website's name as the host. Therefore
//! only names are answered that a website cannot use: localhost, the pod's own names, and those that the operator
//! lists. Any literal address is answered, because it cannot resolve to another address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// The host names that are answered.
#[derive(Clone, Debug, Default)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Answers these names, in addition to localhost and all addresses. `*` is any name.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| canonical(&name)).collect())
    }

    /// Tells whether all host names of a request are allowed. A browser always sends one, so a request without one is
    /// not from a browser.
    pub(super) fn serve(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if self.0.contains(ANY) {
            return true;
        }
        let of_headers = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        uri.authority().map(Authority::as_str).into_iter().chain(of_headers).all(|host| self.has(host))
    }

    fn has(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // The host must not have a user name before it, and only a port after it.
        let Some(port) = host.strip_prefix(authority.host()) else { return false };
        if !port.is_empty() && authority.port_u16().is_none_or(|number| port != format!(":{number}")) {
            return false;
        }
        let name = canonical(authority.host());
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

/// Ignores case and a final dot.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

const ANY: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn serves(hosts: &Hosts, uri: &str, headers: &[&str]) -> bool {
        let headers = headers.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
        hosts.serve(&uri.parse().unwrap(), &headers.collect())
    }

    #[test]
    fn only_names_that_no_stranger_can_have_are_served() {
        let hosts = Hosts::new(["mailgress-0".to_owned(), "Mail.Example".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST:9090",
            "localhost.",
            "127.0.0.1:9090",
            "10.0.0.7",
            "[::1]:9090",
            "[fd00::1]",
            "mailgress-0:9090",
            "mail.example",
            "MAIL.EXAMPLE.:80",
        ] {
            assert!(serves(&hosts, "/", &[good]), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:9090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x@localhost",
            "localhost@evil.example",
            "mail.example.evil.example",
            "",
            ":9090",
            "::1",
            "localhost evil.example",
            "[::1].evil.example",
        ] {
            assert!(!serves(&hosts, "/", &[bad]), "{bad}");
        }
    }

    #[test]
    fn every_name_of_a_request_counts() {
        let hosts = Hosts::default();
        assert!(!serves(&hosts, "/", &["localhost", "evil.example"]));
        assert!(!serves(&hosts, "http://evil.example/", &["localhost"]));
        assert!(serves(&hosts, "http://localhost/", &["localhost"]));
        assert!(serves(&hosts, "/", &[]));
    }

    #[test]
    fn a_star_is_every_name() {
        assert!(serves(&Hosts::new(["*".to_owned()]), "/", &["evil.example"]));
    }
}
