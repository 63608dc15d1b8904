//! What the relay does after the login: a client's XCLIENT never reaches a Postfix that trusts us, and no closing
//! message is inserted into a mail.

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough, with};
use crate::support::message::wait_for_mail;
use crate::support::ports;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::talk::{greeted, is_success, log_in};
use crate::support::wire::Wire;

const MOMENT: Duration = Duration::from_secs(20);

/// A listener in front of one backend.
struct Edge {
    mailgress: Mailgress,
    address: SocketAddr,
    _folder: Folder,
}

impl Edge {
    fn start(protocol: &str, backend: SocketAddr) -> Self {
        let port = ports::free();
        let methods = if protocol == "SMTP" { json!(["PLAIN", "NONE"]) } else { json!(["PLAIN"]) };
        let extra = json!({
            protocol.to_lowercase(): { "authMethods": methods },
            "auth": passthrough(),
        });
        let folder = Folder::new();
        folder.write(
            "server.yaml",
            &mail_server(
                &json!({ "listeners": [with(listener("l", protocol, "Disabled", port, backend), &extra)] }),
            ),
        );
        let mailgress = Mailgress::start_with(&folder, &["--drain-delay", "0s", "--drain-timeout", "1s"]);
        Self { mailgress, address: ([127, 0, 0, 1], port).into(), _folder: folder }
    }

    /// Connects to port 25 and sends the first recipient. Then the relay is active.
    fn mail_for(&self, user: &str) -> Wire {
        let mut wire = greeted(self.address).unwrap();
        wire.smtp("EHLO client.example.test").unwrap();
        assert_eq!(wire.smtp("MAIL FROM:<sender@example.test>").unwrap(), ["250 2.0.0 OK"]);
        said(&mut wire, &format!("RCPT TO:<{user}>"), "250 2.1.5");
        wire
    }
}

/// Sends a command and checks the start of its reply.
fn said(wire: &mut Wire, command: &str, reply: &str) {
    let lines = wire.smtp(command).unwrap();
    assert!(lines[0].starts_with(reply), "{command}: {lines:?}");
}

/// Checks that Postfix saw no command with this word, and that nobody logged in with it.
fn postfix_obeyed_no_xclient_of(name: &str) {
    let postfix = &servers().postfix;
    assert_eq!(postfix.log_of(&format!("sasl_username={name}")), [""; 0]);
    let heard = postfix.log_of(name);
    let commands = heard.iter().filter(|line| line.contains("XCLIENT") || line.contains("xclient"));
    assert_eq!(commands.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_clients_own_xclient_is_refused_in_its_place_and_postfix_does_not_see_it() {
    let edge = Edge::start("SMTP", servers().postfix.mx_verbose());
    let user = new_user("xclient");
    let mut wire = edge.mail_for(&user);
    said(&mut wire, "RSET", "250 2.0.0");
    said(&mut wire, "XCLIENT LOGIN=bob-a", "503 5.5.1");
    said(&mut wire, "  xforward NAME=bob-a", "503 5.5.1");
    said(&mut wire, "STARTTLS", "503 5.5.1");
    // Pipelined, and after a refused DATA: each reply comes in its place.
    wire.send(
        "NOOP\r\nXCLIENT LOGIN=bob-a\r\nRSET\nXCLIENT LOGIN=bob-a\nDATA\r\nXCLIENT LOGIN=bob-a\r\nNOOP\r\n",
    )
    .unwrap();
    for reply in ["250", "503 5.5.1 XCLIENT", "250", "503 5.5.1 XCLIENT", "503", "503 5.5.1 XCLIENT", "250"] {
        let line = wire.line().unwrap();
        assert!(line.starts_with(reply), "{reply}: {line}");
    }
    // The session continues and mail is accepted.
    said(&mut wire, "MAIL FROM:<sender@example.test>", "250");
    said(&mut wire, &format!("RCPT TO:<{user}>"), "250");
    said(&mut wire, "DATA", "354");
    said(&mut wire, "Subject: about it\r\n\r\nXCLIENT LOGIN=bob-a\r\nSTARTTLS\r\n.", "250 2.0.0");
    said(&mut wire, "QUIT", "221");
    wait_for_mail(&user);
    let mut mailbox = greeted(servers().dovecot.imap()).unwrap();
    assert!(is_success("IMAP", &log_in(&mut mailbox, "IMAP", &user, PASSWORD).unwrap()));
    mailbox.imap("b", "SELECT INBOX").unwrap();
    let text = mailbox.imap("c", "FETCH 1 BODY[TEXT]").unwrap();
    assert!(text.iter().any(|line| line == "XCLIENT LOGIN=bob-a"), "{text:?}");
    postfix_obeyed_no_xclient_of("bob-a");
}

/// Failures of such a login would not be counted, and it would not require TLS.
#[test]
fn behind_mail_without_a_login_auth_is_refused_and_the_backend_does_not_see_it() {
    let edge = Edge::start("SMTP", servers().postfix.submission());
    let mut wire = greeted(edge.address).unwrap();
    wire.smtp("EHLO client.example.test").unwrap();
    assert_eq!(wire.smtp("MAIL FROM:<sender@example.test>").unwrap(), ["250 2.0.0 OK"]);
    // Postfix refuses the recipient, and the session continues.
    wire.smtp("RCPT TO:<nobody@example.test>").unwrap();
    said(&mut wire, "RSET", "250 2.0.0");
    said(&mut wire, "AUTH PLAIN AGEAYg==", "503 5.5.1 AUTH");
    said(&mut wire, "NOOP", "250 2.0.0");
}

#[test]
fn a_clients_xclient_behind_a_smuggled_end_of_data_ends_the_session() {
    let edge = Edge::start("SMTP", servers().postfix.mx_verbose());
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n"] {
        let mut wire = edge.mail_for(&new_user("smuggled"));
        said(&mut wire, "DATA", "354");
        wire.send(format!("Subject: x\r\n\r\ntext{end}RSET\r\nXCLIENT LOGIN=bob-b\r\n.\r\n")).unwrap();
        wire.rest(MOMENT);
    }
    edge.mailgress.logs(&[
        "outcome=\"protocol_error\"",
        "XFORWARD, STARTTLS, AUTH or BDAT where mail servers disagree",
    ]);
    postfix_obeyed_no_xclient_of("bob-b");
}

#[test]
fn a_clients_own_xclient_and_a_second_login_are_refused_behind_auth() {
    let edge = Edge::start("SMTP", servers().postfix.submission());
    let user = new_user("submits");
    let mut wire = greeted(edge.address).unwrap();
    assert!(is_success("SMTP", &log_in(&mut wire, "SMTP", &user, PASSWORD).unwrap()));
    said(&mut wire, "XCLIENT LOGIN=bob-c", "503 5.5.1");
    // Not Postfix's own answer: a backend that the proxy has not logged in to would check the password.
    said(&mut wire, "AUTH PLAIN AGEAYg==", "503 5.5.1 AUTH is not possible now");
    said(&mut wire, "MAIL FROM:<sender@example.test>", "250");
    said(&mut wire, &format!("RCPT TO:<{user}>"), "250");
    said(&mut wire, "DATA", "354");
    said(&mut wire, "Subject: mine\r\n\r\ntext\r\n.", "250 2.0.0");
    assert_eq!(servers().postfix.logs(&format!("sasl_username={user}")).len(), 1);
    postfix_obeyed_no_xclient_of("bob-c");
}

/// Sends `said` after the login, then nothing until the connection ends.
fn stalls_behind(said: &'static [u8]) -> impl Fn(&mut TcpStream) -> Result<()> {
    move |stream| {
        stream.write_all(said)?;
        while stream.read(&mut [0; 512])? > 0 {}
        Ok(())
    }
}

/// Returns what a client of this backend reads between its login and the end of a drain.
fn heard_at_the_end_of_a_drain(protocol: &str, backend: &Backend, said: &[u8]) -> String {
    let edge = Edge::start(protocol, backend.address());
    let mut wire = greeted(edge.address).unwrap();
    assert!(is_success(protocol, &log_in(&mut wire, protocol, "user", "secret").unwrap()));
    let lines = said.iter().filter(|byte| **byte == b'\n').count();
    let heard: Vec<String> = (0..lines).map(|_| wire.line().unwrap()).collect();
    assert!(!heard.is_empty());
    edge.mailgress.terminate();
    wire.rest(MOMENT)
}

#[test]
fn no_goodbye_lands_inside_an_imap_literal() {
    let said = b"* 1 FETCH (BODY[] {1000}\r\nSubject: half\r\n\r\nof a message\r\n";
    let backend = Backend::imap_then(stalls_behind(said));
    assert_eq!(heard_at_the_end_of_a_drain("IMAP", &backend, said), "");
    let whole = b"* 1 FETCH (BODY[] {15}\r\nSubject: half\r\n)\r\na OK done\r\n";
    let backend = Backend::imap_then(stalls_behind(whole));
    let heard = heard_at_the_end_of_a_drain("IMAP", &backend, whole);
    assert!(heard.starts_with("* BYE "), "{heard:?}");
}

#[test]
fn no_goodbye_lands_inside_a_pop3_message() {
    let said = b"+OK 1000 octets\r\nSubject: half\r\n\r\nof a message\r\n";
    let backend = Backend::pop3_then(stalls_behind(said));
    assert_eq!(heard_at_the_end_of_a_drain("POP3", &backend, said), "");
}

#[test]
fn no_goodbye_lands_behind_compress() {
    let edge = Edge::start("IMAP", servers().dovecot.imap());
    let mut wire = greeted(edge.address).unwrap();
    let user = new_user("compressed");
    assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", &user, PASSWORD).unwrap()));
    wire.imap("b", "COMPRESS DEFLATE").unwrap();
    edge.mailgress.terminate();
    assert_eq!(wire.rest(MOMENT), "");
}

#[test]
fn a_session_with_dovecot_hears_a_goodbye_between_two_responses() {
    let edge = Edge::start("IMAP", servers().dovecot.imap());
    let mut wire = greeted(edge.address).unwrap();
    let user = new_user("leaves");
    assert!(is_success("IMAP", &log_in(&mut wire, "IMAP", &user, PASSWORD).unwrap()));
    wire.imap("b", "LIST \"\" *").unwrap();
    wire.imap("c", "SELECT INBOX").unwrap();
    edge.mailgress.terminate();
    let heard = wire.rest(MOMENT);
    assert!(heard.starts_with("* BYE "), "{heard:?}");
}
