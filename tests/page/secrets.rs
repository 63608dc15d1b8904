//! The page and the metrics contain no secrets, and nothing about single clients.

use crate::edge::{Edge, SECRETS};
use crate::support::wait;

#[test]
fn secrets_logins_and_addresses_of_clients_are_never_shown() {
    let edge = Edge::start();
    let page = wait::eventually("the failures are on the page", || {
        let page = edge.mailgress.page("/");
        ["Auth service", "Backend</th>", "the log has its reply"]
            .iter()
            .all(|text| page.contains(text))
            .then_some(page)
    });
    for secret in SECRETS {
        assert!(!page.contains(secret), "{secret} is on the page:\n{page}");
        let metrics = edge.mailgress.metrics();
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
    assert!(!page.contains("PRIVATE KEY") && page.contains("mail/mail-tls"));
}
