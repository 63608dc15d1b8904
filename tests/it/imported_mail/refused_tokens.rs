//! A token that the auth service refuses with `Auth-Error-SASL`: the client gets a challenge with the reason, responds,
//! and gets the normal refusal.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{REFUSAL, Site, TOKEN_REFUSAL};
use crate::support::servers::new_user;
use crate::support::talk::backend_answers;
use crate::support::tokens::{token_for, worthless_tokens};
use crate::support::wire::Wire;

/// A mechanism, and how a client acknowledges its refusal.
const MECHANISMS: [(&str, &str); 2] = [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")];

const SERVERS: [&str; 3] = ["imaps", "pop3", "submission"];

/// Starts a login. Returns the reply.
fn authenticate(wire: &mut Wire, server: &str, mechanism: &str, user: &str, token: &str) -> String {
    let message = STANDARD.encode(match mechanism {
        "XOAUTH2" => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        _ => format!("n,a={user},\x01host=mail.example.test\x01auth=Bearer {token}\x01\x01"),
    });
    let command = if server == "imaps" { "t7 AUTHENTICATE" } else { "AUTH" };
    wire.ask(&format!("{command} {mechanism} {message}")).unwrap()
}

fn challenge(server: &str) -> String {
    let sign = if server == "submission" { "334" } else { "+" };
    format!("{sign} {}", STANDARD.encode(TOKEN_REFUSAL))
}

fn refusal(server: &str) -> String {
    let before = match server {
        "imaps" => "t7 NO",
        "pop3" => "-ERR",
        _ => "535 5.7.0",
    };
    format!("{before} {REFUSAL}")
}

fn invalid(server: &str) -> &'static str {
    match server {
        "imaps" => "t7 BAD invalid command",
        "pop3" => "-ERR invalid command",
        _ => "500 5.5.1 Invalid command",
    }
}

/// Runs `check` for every server and mechanism in parallel, because the service delays its refusals of patient.
fn everywhere(check: impl Fn(&Site, &'static str, (&'static str, &'static str)) + Sync) {
    let site = Site::start();
    std::thread::scope(|scope| {
        for (server, mechanism) in SERVERS.iter().flat_map(|server| MECHANISMS.map(|each| (*server, each))) {
            let (site, check) = (&site, &check);
            scope.spawn(move || check(site, server, mechanism));
        }
    });
    assert!(!site.imported.mailgress().log().contains("eyJ"), "a token is in the log");
}

#[test]
fn a_client_that_answers_is_refused_and_the_session_ends() {
    everywhere(|site, server, (mechanism, acknowledgement)| {
        for (answer, expected) in [(acknowledgement, refusal(server)), ("QQ==", invalid(server).to_owned())] {
            let user = new_user("hasty");
            let mut wire = site.connect(server);
            let [(_, forged), ..] = worthless_tokens(&user);
            assert_eq!(
                authenticate(&mut wire, server, mechanism, &user, &forged),
                challenge(server),
                "{mechanism}"
            );
            assert_eq!(wire.ask(answer).unwrap(), expected, "{mechanism}");
            assert_eq!(wire.rest(SOON), "", "{server} {mechanism}");
        }
    });
}

#[test]
fn a_client_that_may_try_again_does_so_in_the_same_session() {
    everywhere(|site, server, (mechanism, acknowledgement)| {
        let user = new_user("patient");
        let mut wire = site.connect(server);
        for ((what, token), answer) in worthless_tokens(&user).iter().zip([acknowledgement, "*", "AAAA"]) {
            let what = format!("{server} {mechanism}, a token that is {what}, answered with {answer:?}");
            assert_eq!(authenticate(&mut wire, server, mechanism, &user, token), challenge(server), "{what}");
            let expected =
                if answer == acknowledgement { refusal(server) } else { invalid(server).to_owned() };
            assert_eq!(wire.ask(answer).unwrap(), expected, "{what}");
        }
        let taken = authenticate(&mut wire, server, mechanism, &user, &token_for(&user));
        let success = ["t7 OK", "+OK", "235 2.0.0 OK"].iter().any(|success| taken.starts_with(success));
        assert!(success, "{server} {mechanism}: {taken}");
        assert!(backend_answers(&mut wire, site.at(server).protocol).unwrap());
        let requests = site.auth.requests_of(&user);
        let attempts: Vec<_> = requests.iter().map(|request| request.header("Auth-Login-Attempt")).collect();
        assert_eq!(attempts, [Some("1"), Some("2"), Some("3"), Some("4")], "{server} {mechanism}");
    });
}

#[test]
fn a_password_is_refused_without_a_challenge() {
    let site = Site::start();
    let response = STANDARD.encode("\0hasty\0guess");
    for server in SERVERS {
        let mut wire = site.connect(server);
        let command = if server == "imaps" { "t7 AUTHENTICATE" } else { "AUTH" };
        assert_eq!(wire.ask(&format!("{command} PLAIN {response}")).unwrap(), refusal(server));
        assert_eq!(wire.rest(SOON), "", "{server}");
    }
}

#[test]
fn real_clients_see_why_their_token_is_refused() {
    let site = Site::start();
    for (server, method) in SERVERS.into_iter().zip(["xoauth2", "oauthbearer-ir", "oauthbearer"]) {
        let user = new_user("hasty");
        let [(_, forged), ..] = worthless_tokens(&user);
        let ran = site.clients.python_login(site.at(server), method, &user, &forged).failed();
        assert!(ran.output.contains(&format!("refused with {TOKEN_REFUSAL}")), "{server} {method}: {ran:?}");
        assert!(ran.errors.contains(REFUSAL), "{server} {method}: {ran:?}");
    }
}

const SOON: Duration = Duration::from_secs(20);
