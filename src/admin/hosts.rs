//! By which names the admin server may be called, against DNS rebinding.
//!
//! A website can have its own name resolve to the address of an admin server, and then read the pages through the
//! browser of somebody who visits it: for the browser they are the website's own. The browser still says the name that
//! it was given. So names are served that no stranger can have: localhost, the pod's own, and those that the operator
//! lists. A literal address cannot be made to resolve to anything else, so any is served.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// The names that are served.
#[derive(Clone, Debug, Default)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// These, besides localhost and all addresses; `*` is every name.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| canonical(&name)).collect())
    }

    /// Whether a request is served, by every name in it. A browser always sends one; what sends none cannot be one.
    pub(super) fn serve(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if self.0.contains(ANY) {
            return true;
        }
        let of_headers = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        uri.authority().map(Authority::as_str).into_iter().chain(of_headers).all(|host| self.has(host))
    }

    fn has(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        // Neither a user's name before it, nor anything but a port behind it.
        let Some(port) = host.strip_prefix(authority.host()) else { return false };
        if !port.is_empty() && authority.port_u16().is_none_or(|number| port != format!(":{number}")) {
            return false;
        }
        let name = canonical(authority.host());
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        address.parse::<IpAddr>().is_ok() || name == "localhost" || self.0.contains(&name)
    }
}

/// Without case, and without the dot at the end.
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
