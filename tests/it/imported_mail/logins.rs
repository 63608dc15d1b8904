//! Logins with password, digest and token. The auth service decides, and the backend gets the password that it returns.

use std::collections::BTreeSet;

use super::{REFUSAL, Site};
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::tokens::token_for;

/// Every server that accepts logins, with its methods besides XOAUTH2 and OAUTHBEARER.
const METHODS: [(&str, &[&str]); 4] = [
    ("imap", &["login", "plain", "cram-md5"]),
    ("imaps", &["plain-ir", "cram-md5"]),
    ("pop3", &["login", "plain", "cram-md5", "apop"]),
    ("submission", &["login", "plain-ir", "cram-md5"]),
];

#[test]
fn clients_log_in_by_password_and_by_digest() {
    let site = Site::start();
    for (server, methods) in METHODS {
        for method in methods {
            let user = new_user("imported");
            site.clients.python_login(site.at(server), method, &user, PASSWORD).succeeded();
            let request = site.last_request_of(&user);
            let is_digest = matches!(*method, "cram-md5" | "apop");
            let expected = if is_digest { method } else { "plain" };
            assert_eq!(request.header("Auth-Method"), Some(expected), "{server} {method}");
            let told = request.header("Auth-Pass") == Some(PASSWORD);
            assert_eq!(told, !is_digest, "{server} {method}: the password is known where it was sent");
            if server != "submission" {
                servers().dovecot.logs(&user);
            }
        }
    }
    for (server, mechanism, method) in [
        ("imap", "LOGIN", "plain"),
        ("imaps", "CRAM-MD5", "cram-md5"),
        ("pop3", "LOGIN", "plain"),
        ("pop3", "PLAIN", "plain"),
        ("pop3", "CRAM-MD5", "cram-md5"),
        ("pop3", "+APOP", "apop"),
        ("submission", "CRAM-MD5", "cram-md5"),
    ] {
        let user = new_user("imported");
        site.clients.curl_login_by(site.at(server), mechanism, &user, PASSWORD).succeeded();
        let request = site.last_request_of(&user);
        assert_eq!(request.header("Auth-Method"), Some(method), "{server} {mechanism}");
    }
    let requests = site.auth.requests();
    let salts: Vec<&str> = requests.iter().filter_map(|request| request.header("Auth-Salt")).collect();
    assert_eq!(salts.len(), 9);
    assert!(
        salts.iter().all(|salt| salt.starts_with('<') && salt.ends_with("@mail.example.test>")),
        "{salts:?}"
    );
    assert_eq!(salts.iter().collect::<BTreeSet<_>>().len(), salts.len(), "no salt is used twice");
}

#[test]
fn a_digest_of_a_wrong_password_is_refused() {
    let site = Site::start();
    for (server, method) in
        [("imap", "cram-md5"), ("pop3", "apop"), ("pop3", "cram-md5"), ("submission", "cram-md5")]
    {
        let user = new_user("imported");
        let ran = site.clients.python_login(site.at(server), method, &user, "guess").failed();
        assert!(ran.errors.contains(REFUSAL), "{server} {method}: {ran:?}");
    }
    for (server, mechanism) in [("imap", "CRAM-MD5"), ("pop3", "+APOP")] {
        site.clients.curl_login_by(site.at(server), mechanism, &new_user("imported"), "guess").failed();
    }
}

#[test]
fn clients_log_in_by_a_token_that_the_auth_service_checks() {
    let site = Site::start();
    for server in ["imap", "pop3", "submission"] {
        let user = new_user("imported");
        let token = token_for(&user);
        for (method, form) in [("xoauth2", "-ir"), ("oauthbearer", "")] {
            site.clients
                .python_login(site.at(server), &(method.to_owned() + form), &user, &token)
                .succeeded();
            let request = site.last_request_of(&user);
            assert_eq!(request.header("Auth-Method"), Some(method), "{server}");
            assert_eq!(request.header("Auth-Pass"), Some(token.as_str()), "{server} {method}");
        }
        site.clients.curl_token(site.at(server), &user, &token).succeeded();
    }
    assert!(!site.imported.mailgress().log().contains("eyJ"), "a token is in the log");
}
