//! `mailgress probe` with real servers: what works, what fails and why, and the exit status for scripts.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::{AUTHORITY, Authority, Identity};
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};

/// Files with the authority and a login.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(user: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        AUTHORITY.write(&folder.path().join("ca.pem"));
        std::fs::write(folder.path().join("login"), format!("{user}\n{password}\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Probes with the trusted authority, the login, and the arguments `more`.
    fn probe(&self, at: SocketAddr, protocol: &str, more: &[&str]) -> Output {
        let (at, ca, login) = (at.to_string(), self.path("ca.pem"), self.path("login"));
        let fixed = [at.as_str(), "--protocol", protocol, "--ca", &ca, "--login-file", &login];
        run(&[fixed.as_slice(), more].concat())
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("probe").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// Checks that the probe fails and that its output contains all of `texts`.
fn fails(output: &Output, texts: &[&str]) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in texts {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn dovecot_and_postfix_work_in_every_tls_mode() {
    let (dovecot, postfix) = (&servers().dovecot, &servers().postfix);
    let files = Files::new(&new_user("probe"), PASSWORD);
    for (at, protocol, mode, name) in [
        (dovecot.imaps(), "imap", "Implicit", "dovecot.example.test"),
        (dovecot.imap(), "imap", "StartTLS", "dovecot.example.test"),
        (dovecot.pop3s(), "pop3", "Implicit", "dovecot.example.test"),
        (dovecot.pop3(), "pop3", "StartTLS", "dovecot.example.test"),
        (postfix.submission(), "smtp", "StartTLS", "postfix.example.test"),
        (dovecot.sieves(), "sieve", "Implicit", "dovecot.example.test"),
        (dovecot.sieve(), "sieve", "StartTLS", "dovecot.example.test"),
    ] {
        let more = ["--tls", mode, "--server-name", name, "--output", "json"];
        let output = files.probe(at, protocol, &more);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let report = json_of(&output);
        assert_eq!(report["tls"]["version"], "TLSv1.3", "{report}");
        assert_eq!(report["certificates"][0]["names"], json!([name]), "{report}");
        assert_eq!(report["login"]["accepted"], true, "{report}");
        assert_eq!(report["capabilities"]["clear"].is_null(), mode == "Implicit", "{report}");
        assert!(!report["capabilities"]["tls"].as_array().unwrap().is_empty(), "{report}");
    }
}

/// Mailgress in front of Dovecot, with an IMAP listener in this mode with this certificate.
fn edge(mode: &str, identity: &Identity, extra: &Value) -> (Folder, Mailgress, SocketAddr) {
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", identity));
    let wanted = with(listener("imap", "IMAP", mode, at.port(), servers().dovecot.imap()), extra);
    let spec = json!({
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] }, "auth": passthrough(), "listeners": [wanted],
    });
    folder.write("server.yaml", &mail_server(&spec));
    let mailgress = Mailgress::start(&folder);
    (folder, mailgress, at)
}

#[test]
fn mailgress_works_in_every_tls_mode_and_says_so() {
    let files = Files::new(&new_user("probe"), PASSWORD);
    let identity = AUTHORITY.issue_for_loopback();
    for (mode, tls) in [
        ("Implicit", Some("implicit")),
        ("RequireStartTLS", None),
        ("StartTLS", Some("starttls")),
        ("Disabled", Some("disabled")),
    ] {
        let (_folder, _mailgress, at) = edge(mode, &identity, &json!({}));
        let asked: Vec<&str> = tls.iter().flat_map(|tls| ["--tls", tls]).collect();
        let output = files.probe(at, "imap", &asked);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{mode}: {said}");
        assert!(said.contains("login"), "{said}");
        assert_eq!(said.contains("issued by CN=Test CA"), mode != "Disabled", "{said}");
        assert!(!said.contains('\u{1b}'), "colours in a pipe: {said}");
    }
}

#[test]
fn certificates_that_are_not_accepted_are_told_and_get_no_password() {
    let files = Files::new("me", PASSWORD);
    let stranger = Authority::new("Stranger");
    for (identity, name, reason) in [
        (AUTHORITY.issue_until(&["localhost"], 2020), "localhost", "it has expired"),
        (AUTHORITY.issue(&["imap.example.test"]), "localhost", "it is not for localhost"),
        (stranger.issue(&["localhost"]), "localhost", "its issuer is not trusted"),
    ] {
        let (_folder, _mailgress, at) = edge("Implicit", &identity, &json!({}));
        let more = ["--tls", "implicit", "--server-name", name];
        let refused = files.probe(at, "imap", &more);
        fails(&refused, &[reason, "not tried: the certificate is not accepted", "issued by CN="]);
        let let_through = files.probe(at, "imap", &[more.as_slice(), &["--no-verify"]].concat());
        assert!(text(&let_through).contains("accepted because of --no-verify"), "{}", text(&let_through));
        assert!(text(&let_through).contains("AUTHENTICATE PLAIN as me"), "{}", text(&let_through));
    }
}

#[test]
fn a_wrong_password_is_told_in_the_servers_words() {
    let files = Files::new(&new_user("probe"), "wrong");
    let output = files.probe(
        servers().dovecot.imaps(),
        "imap",
        &["--tls", "implicit", "--server-name", "dovecot.example.test"],
    );
    fails(&output, &["FAIL  login", "AUTHENTICATIONFAILED"]);
}

#[test]
fn a_server_that_says_nothing_or_speaks_something_else_is_told() {
    let files = Files::new("me", PASSWORD);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap();
    fails(&files.probe(at, "imap", &["--timeout", "200ms"]), &["no answer within 200ms", "--tls Implicit"]);
    fails(
        &files.probe(at, "imap", &["--timeout", "200ms", "--tls", "implicit"]),
        &["no handshake within 200ms"],
    );
    let other = files.probe(servers().postfix.submission(), "imap", &[]);
    fails(&other, &["this is SMTP (or FTP), not IMAP"]);
    let plain = files.probe(servers().dovecot.imap(), "imap", &["--tls", "implicit"]);
    fails(&plain, &["--tls StartTLS"]);
    drop(silent);
    fails(&files.probe(at, "imap", &[]), &["cannot connect", "refused"]);
}

#[test]
fn a_proxy_header_is_sent_where_it_is_asked_for() {
    let files = Files::new(&new_user("probe"), PASSWORD);
    let wanted = json!({ "proxyProtocol": { "trustedPeers": ["127.0.0.0/8"] } });
    let (_folder, _mailgress, at) = edge("Implicit", &AUTHORITY.issue_for_loopback(), &wanted);
    for version in ["--proxy-protocol", "--proxy-protocol=v1"] {
        let output = files.probe(at, "imap", &["--tls", "implicit", version]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
    fails(&files.probe(at, "imap", &["--tls", "implicit"]), &["--proxy-protocol"]);
    let others = json!({ "proxyProtocol": { "trustedPeers": ["192.0.2.1"] } });
    let (_folder, _mailgress, at) = edge("Implicit", &AUTHORITY.issue_for_loopback(), &others);
    fails(&files.probe(at, "imap", &["--tls", "implicit", "--proxy-protocol"]), &["trustedPeers"]);
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_status_2() {
    for (arguments, expected) in [
        (&["localhost"][..], "HOST:PORT"),
        (&["localhost:1430"], "--protocol"),
        (&["localhost:143", "--ca", "/nowhere"], "/nowhere"),
        (&["localhost:143", "--timeout", "0s"], "not between"),
        (&["localhost:143", "--user", "me"], "MAILGRESS_PROBE_PASSWORD"),
        (&[], "HOST:PORT"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains(expected), "{}", text(&output));
    }
}
