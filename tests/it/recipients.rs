//! Mail without a login to recipients of several backends: each backend gets its own recipients, and each message once.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::routes::{Site, route};
use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::dovecot::Dovecot;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::message::message;
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::postfix::Postfix;
use crate::support::servers::PASSWORD;
use crate::support::talk::greeted;
use crate::support::wait;
use crate::support::wire::Wire;

const MOMENT: Duration = Duration::from_secs(20);
const OTHER: &str = "452 4.5.3 recipient of another destination; send it separately";

/// Two tenants, each with a Postfix and a Dovecot.
struct Tenants {
    servers: [(Dovecot, Postfix); 2],
    site: Site,
}

impl Tenants {
    fn start() -> Self {
        let servers = [(); 2].map(|()| {
            let dovecot = Dovecot::start(None);
            let postfix = Postfix::start(&dovecot, None);
            (dovecot, postfix)
        });
        let [one, two] = &servers;
        let routes = [
            route("one", &json!({ "domains": ["one.example.test"] }), &[("SMTP", one.1.mx_verbose())]),
            route("two", &json!({ "domains": ["two.example.test"] }), &[("SMTP", two.1.mx_verbose())]),
        ];
        let site = Site::start(&open_to_all(), &routes);
        Self { servers, site }
    }

    fn greeted(&self) -> Wire {
        let mut wire = greeted(self.site.of("SMTP")).unwrap();
        wire.smtp("EHLO client.example.test").unwrap();
        wire
    }

    /// Waits until each user has this number of messages, and checks that the other tenant got none of them.
    fn have_mail(&self, users: &[(&str, usize)]) {
        for (user, expected) in users {
            let of = usize::from(user.ends_with("@two.example.test"));
            let (own, other) = (&self.servers[of], &self.servers[1 - of]);
            wait::eventually("the mail is delivered", || (messages(&own.0, user) == *expected).then_some(()));
            let sent = |postfix: &Postfix| {
                let lines = postfix.log_of(&format!("to=<{user}>"));
                lines.iter().filter(|line| line.contains("status=sent")).count()
            };
            // The log follows the delivery.
            wait::eventually("the log says so", || (sent(&own.1) >= *expected).then_some(()));
            assert_eq!((sent(&own.1), sent(&other.1)), (*expected, 0), "{user}");
            assert_eq!(messages(&other.0, user), 0, "{user}");
        }
    }
}

fn open_to_all() -> Value {
    json!({ "smtp": { "authMethods": ["NONE"] } })
}

fn messages(dovecot: &Dovecot, user: &str) -> usize {
    let mut wire = Wire::connect(dovecot.imap()).unwrap();
    wire.line().unwrap();
    wire.imap("a", &format!("LOGIN {user} {PASSWORD}")).unwrap();
    let lines = wire.imap("b", "STATUS INBOX (MESSAGES)").unwrap();
    let count =
        lines.iter().find_map(|line| line.split_once("(MESSAGES ")?.1.strip_suffix(')')?.parse().ok());
    count.unwrap_or_default()
}

/// Reads replies and checks the start of each.
fn replies(wire: &mut Wire, expected: &[&str]) {
    for start in expected {
        let line = wire.line().unwrap();
        assert!(line.starts_with(start), "expected {start}: {line}");
    }
}

/// Sends everything in one write, or byte by byte.
fn send(wire: &mut Wire, bytes: &[u8], is_whole: bool) {
    if is_whole {
        return wire.send(bytes).unwrap();
    }
    for byte in bytes {
        wire.send([*byte]).unwrap();
    }
}

/// Lines of the session's commands that the backends heard, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn backend(&self, name: &'static str, messages: usize) -> Backend {
        let memory = Arc::clone(&self.0);
        Backend::smtp_receiving(name, messages, move |line| {
            memory.lock().unwrap().push(format!("{name} {line}"));
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Waits until a backend has heard this.
    fn wait_for(&self, line: &str) {
        wait::eventually(line, || self.0.lock().unwrap().iter().any(|heard| heard == line).then_some(()));
    }
}

/// A site with two backends, each for one domain.
fn scripted(spec: &Value, heard: &Heard, messages: usize) -> ([Backend; 2], Site) {
    let backends = [heard.backend("one", messages), heard.backend("two", messages)];
    let [one, two] = &backends;
    let routes = [
        route("one", &json!({ "domains": ["one.test"] }), &[("SMTP", one.address())]),
        route("two", &json!({ "domains": ["two.test"] }), &[("SMTP", two.address())]),
    ];
    let site = Site::start(&with(open_to_all(), spec), &routes);
    (backends, site)
}

fn said(wire: &mut Wire, command: &str, reply: &str) {
    let lines = wire.smtp(command).unwrap();
    assert!(lines[0].starts_with(reply), "{command}: {lines:?}");
}

const SMTPLIB: &str = "
import smtplib, sys
left = sys.argv[2:]
message = sys.stdin.buffer.read()
with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=60) as smtp:
    while left:
        refused = smtp.sendmail('sender@example.test', left, message)
        assert all(code == 452 and text.startswith(b'4.5.3 ') for code, text in refused.values()), refused
        left = list(refused)
        print('sent')
";

#[test]
fn pythons_smtplib_sends_to_two_tenants_and_each_mailbox_has_the_message_once() {
    let tenants = Tenants::start();
    let users = ["a@one.example.test", "b@two.example.test", "c@one.example.test", "d@two.example.test"];
    let mut python = Command::new("python3")
        .args(["-c", SMTPLIB, &tenants.site.of("SMTP").port().to_string()])
        .args(users)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(&message("all@example.test", "to all of you\r\n")).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "sent\nsent\n");
    tenants.have_mail(&users.map(|user| (user, 1)));
    let [(_, one), (_, two)] = &tenants.servers;
    let line = tenants.site.mailgress.logs(&["outcome=\"done\"", "backends=2", "transactions=2"]);
    assert!(line.contains("recipients_refused=2"), "{line}");
    assert!(line.contains(&format!("backend=\"{}\"", two.mx_verbose())), "{line}");
    // The first one was ended with QUIT.
    one.logs(": 221 2.0.0 Bye");
    assert!(one.log_of("lost connection after").iter().all(|line| line.contains("after CONNECT")));
    let metrics = tenants.site.mailgress.metrics();
    let refused =
        "mailgress_recipients_refused_total{listener=\"mail/edge/smtp\",reason=\"other_destination\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
}

/// The relay and Postfix agree what is a message, however the bytes arrive.
#[test]
fn pipelined_transactions_change_the_backend_between_two_messages_and_never_within_one() {
    let tenants = Tenants::start();
    let text = "Subject: x\r\n\r\nMAIL FROM:<x@example.test>\r\nRCPT TO:<z@two.example.test>\r\nEHLO x\r\nQUIT\r\n..\r\n";
    for (is_whole, user) in [(true, "whole"), (false, "bytes")] {
        let mut wire = tenants.greeted();
        let own = format!("{user}@one.example.test");
        let other = format!("{user}@two.example.test");
        let envelope = format!(
            "MAIL FROM:<s@example.test>\r\nRCPT TO:<{own}>\r\nRCPT TO:<{other}>\r\nNOOP\r\n\
             RCPT TO:<copy-{own}>\r\nDATA\r\n"
        );
        send(&mut wire, envelope.as_bytes(), is_whole);
        replies(&mut wire, &["250 2.0.0 OK", "250 2.1.5", OTHER, "250 2.0.0", "250 2.1.5", "354"]);
        // The next transaction is behind the end of the message, in the same segment.
        let next = format!("MAIL FROM:<s@example.test>\r\nRCPT TO:<{other}>\r\nDATA\r\n");
        send(&mut wire, format!("{text}.\r\n{next}").as_bytes(), is_whole);
        replies(&mut wire, &["250 2.0.0 Ok: queued", "250 2.0.0 OK", "250 2.1.5", "354"]);
        send(&mut wire, format!("{text}.\r\n").as_bytes(), is_whole);
        replies(&mut wire, &["250 2.0.0 Ok: queued"]);
        said(&mut wire, "QUIT", "221");
        tenants.have_mail(&[(&own, 1), (&format!("copy-{own}"), 1), (&other, 1)]);
    }
    tenants.have_mail(&[("z@two.example.test", 0)]);
}

#[test]
fn a_chunk_hides_no_command_and_commands_behind_the_last_chunk_are_the_next_transaction() {
    let tenants = Tenants::start();
    for (is_whole, user) in [(true, "whole"), (false, "bytes")] {
        let mut wire = tenants.greeted();
        let (own, other) = (format!("{user}@one.example.test"), format!("{user}@two.example.test"));
        let hidden = "Subject: x\r\n\r\nRCPT TO:<z@two.example.test>\r\n.\r\n";
        let (size, rest) = (hidden.len(), "MAIL FROM:<x@example.test>\n");
        let stream = format!(
            "MAIL FROM:<s@example.test>\r\nRCPT TO:<{own}>\r\nBDAT {size}\r\n{hidden}BDAT {} LAST\r\n{rest}\
             MAIL FROM:<s@example.test>\r\nRCPT TO:<{other}>\r\nBDAT {size} LAST\r\n{hidden}QUIT\r\n",
            rest.len()
        );
        send(&mut wire, stream.as_bytes(), is_whole);
        replies(&mut wire, &["250 2.0.0 OK", "250 2.1.5", "250 2.0.0 Ok: ", "250 2.0.0 Ok: "]);
        replies(&mut wire, &["250 2.0.0 OK", "250 2.1.5", "250 2.0.0 Ok: ", "221"]);
        tenants.have_mail(&[(&own, 1), (&other, 1)]);
    }
    tenants.have_mail(&[("z@two.example.test", 0), ("z@one.example.test", 0)]);
}

/// Postfix refuses a bare LF. A server that takes it as the end of the message would run what follows.
#[test]
fn a_recipient_behind_a_smuggled_end_of_data_ends_the_session() {
    let tenants = Tenants::start();
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n"] {
        let mut wire = tenants.greeted();
        said(&mut wire, "MAIL FROM:<s@example.test>", "250");
        said(&mut wire, "RCPT TO:<smuggler@one.example.test>", "250");
        said(&mut wire, "DATA", "354");
        let hidden = "MAIL FROM:<s@example.test>\r\nRCPT TO:<smuggled@two.example.test>\r\nDATA\r\n";
        wire.send(format!("Subject: x\r\n\r\ntext{end}{hidden}.\r\n")).unwrap();
        wire.rest(MOMENT);
    }
    tenants.have_mail(&[("smuggled@two.example.test", 0), ("smuggled@one.example.test", 0)]);
    let [(_, one), _] = &tenants.servers;
    assert_eq!(one.log_of("RCPT TO:<smuggled@"), [""; 0]);
}

#[test]
fn a_backend_is_ended_with_quit_and_the_next_one_is_introduced_like_the_first() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({}), &heard, 10);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    let hello = wire.smtp("EHLO client.test").unwrap();
    said(&mut wire, "MAIL FROM:<s@example.test> SIZE=10", "250 2.0.0 OK");
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
    said(&mut wire, "RCPT TO:<b@two.test>", OTHER);
    said(&mut wire, "RCPT TO:<c@nowhere.test>", "554 5.7.1 Relay access denied");
    said(&mut wire, "DATA", "354");
    said(&mut wire, "RCPT TO:<b@two.test>\r\n.", "250 2.0.0 queued by one");
    let of_one = [
        "EHLO client.test",
        "XCLIENT ADDR=127.0.0.1",
        "EHLO client.test",
        "MAIL FROM:<s@example.test> SIZE=10",
    ];
    let introduced = |name: &str, rest: &[&str]| {
        let lines = of_one.iter().chain(rest);
        lines.map(|line| format!("{name} {line}")).collect::<Vec<_>>()
    };
    let hears = |heard: &Heard, name: &str, rest: &[&str]| {
        let mut lines = heard.take();
        lines.retain(|line| line.starts_with(name));
        assert_eq!(lines, introduced(name, rest));
    };
    hears(&heard, "one", &["RCPT TO:<a@one.test>", "DATA", "RCPT TO:<b@two.test>", "."]);
    // The same backend: no further connection, and no EHLO, which we answer.
    assert_eq!(wire.smtp("EHLO client.test").unwrap(), hello);
    said(&mut wire, "MAIL FROM:<t@example.test>", "250 2.0.0 OK");
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
    said(&mut wire, "RSET", "250");
    assert_eq!(heard.take(), ["one MAIL FROM:<t@example.test>", "one RCPT TO:<a@one.test>", "one RSET"]);
    // The other one.
    said(&mut wire, "MAIL FROM:<s@example.test> SIZE=10", "250 2.0.0 OK");
    said(&mut wire, "RCPT TO:<b@two.test>", "250 2.1.5 two");
    heard.wait_for("one QUIT");
    hears(&heard, "two", &["RCPT TO:<b@two.test>"]);
    let listed: Value = serde_json::from_str(&site.command(&["sessions", "--output", "json"])).unwrap();
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["backend"], backends[1].address().to_string());
    said(&mut wire, "QUIT", "221");
    site.mailgress.logs(&["backends=2 transactions=3", "recipients_refused=2"]);
}

#[test]
fn a_connection_that_accepts_no_further_message_is_replaced_unnoticed() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({}), &heard, 1);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for _ in 0..3 {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
        said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
        said(&mut wire, "DATA", "354");
        said(&mut wire, "text\r\n.", "250 2.0.0 queued by one");
    }
    assert_eq!(backends[0].accepted(), 3);
    assert_eq!(heard.take().iter().filter(|line| *line == "one text").count(), 3);
}

/// An exclusive user may move as soon as the connection is closed.
#[test]
fn a_backend_of_exclusive_users_that_does_not_answer_quit_is_not_waited_for() {
    let heard = Heard::default();
    let memory = heard.clone();
    let backend =
        Backend::smtp_silent_at_quit("one", move |line| memory.0.lock().unwrap().push(line.to_owned()));
    let matches = json!({ "domains": ["one.test"] });
    let plain = route("one", &matches, &[("SMTP", backend.address())]);
    let exclusive = json!({ "spec": { "backend": { "affinity": { "mode": "Exclusive" } } } });
    let site = Site::start(&open_to_all(), &[with(plain, &exclusive)]);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for connections in 1..=2 {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
        said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
        assert_eq!((backend.accepted(), backend.open()), (connections, 1));
        said(&mut wire, "RSET", "250");
        said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
        // Where no user is exclusive, Mailgress waits for five seconds.
        heard.wait_for("QUIT");
        wait::within(Duration::from_secs(3), "the connection is closed", || {
            (backend.open() == 0).then_some(())
        });
        heard.take();
        said(&mut wire, "RSET", "250");
    }
}

/// The first attempt, on the connection of the last transaction, does not use up the time of the second one.
#[test]
fn a_connection_that_is_replaced_has_the_whole_time_for_its_login() {
    let heard = Heard::default();
    let slow = Duration::from_millis(1400);
    let memory = heard.clone();
    let backend = Backend::smtp_receiving("one", 1, move |line| {
        if line.starts_with("MAIL") {
            std::thread::sleep(slow);
        }
        memory.0.lock().unwrap().push(line.to_owned());
    });
    let routes = [route("one", &json!({ "domains": ["one.test"] }), &[("SMTP", backend.address())])];
    let times = json!({ "timeouts": { "connect": "2s" } });
    let site = Site::start(&with(open_to_all(), &times), &routes);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for _ in 0..2 {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
        said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
        said(&mut wire, "DATA", "354");
        said(&mut wire, "text\r\n.", "250 2.0.0 queued by one");
    }
    assert_eq!(backend.accepted(), 2);
}

/// EHLO ends a transaction, and another name is not the one that the backend knows.
#[test]
fn after_another_ehlo_the_backend_gets_a_new_connection() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({}), &heard, 10);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    for (name, connections) in [("a.test", 1), ("b.test", 2)] {
        wire.smtp(&format!("EHLO {name}")).unwrap();
        said(&mut wire, "RCPT TO:<a@one.test>", "503 5.5.1");
        said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
        said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
        assert_eq!(backends[0].accepted(), connections);
        assert!(heard.take().contains(&format!("one EHLO {name}")));
    }
    // A client that leaves between two transactions leaves no connection behind.
    said(&mut wire, "RSET", "250");
    said(&mut wire, "MAIL FROM:<s@example.test>", "250 2.0.0 OK");
    said(&mut wire, "QUIT", "221 2.0.0 Bye");
    heard.wait_for("one QUIT");
    wait::eventually("both connections are closed", || (backends[0].open() == 0).then_some(()));
}

#[test]
fn recipients_of_held_and_undecided_routes_are_put_off_at_once_and_a_hold_ends_its_own_transactions() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({}), &heard, 10);
    let held = |name: &str, backend: &Backend| {
        let matches = json!({ "domains": [format!("{name}.test")] });
        let state = json!({ "spec": { "state": "Held", "spread": "0s" } });
        with(route(name, &matches, &[("SMTP", backend.address())]), &state)
    };
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for (recipient, name) in [("a@one.test", "one"), ("b@two.test", "two")] {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250");
        said(&mut wire, &format!("RCPT TO:<{recipient}>"), &format!("250 2.1.5 {name}"));
        said(&mut wire, "RSET", "250");
    }
    // The session is at `two` now.
    site.apply(&held("one", &backends[0]));
    said(&mut wire, "MAIL FROM:<s@example.test>", "250");
    said(&mut wire, "RCPT TO:<b@two.test>", "250 2.1.5 two");
    said(&mut wire, "RCPT TO:<a@one.test>", "451 4.4.3");
    site.apply(&held("two", &backends[1]));
    let goodbye = wire.line().unwrap();
    assert!(goodbye.starts_with("421 4.3.2") && goodbye.contains("being moved"), "{goodbye}");
    site.mailgress.logs(&["outcome=\"held\"", "transactions=3", "recipients_refused=1"]);
}

#[test]
fn a_hold_ends_a_transaction_by_any_of_its_recipients() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({}), &heard, 10);
    let third = |state: &str| {
        let matches = json!({ "domains": ["three.test"] });
        let third = route("three", &matches, &[("SMTP", backends[0].address())]);
        with(third, &json!({ "spec": { "state": state, "spread": "0s" } }))
    };
    site.apply(&third("Active"));
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    said(&mut wire, "MAIL FROM:<s@example.test>", "250");
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
    said(&mut wire, "RCPT TO:<c@three.test>", "250 2.1.5 one");
    site.apply(&third("Held"));
    let goodbye = wire.line().unwrap();
    assert!(goodbye.starts_with("421 4.3.2") && goodbye.contains("being moved"), "{goodbye}");
}

#[test]
fn a_transaction_has_a_hundred_recipients() {
    let heard = Heard::default();
    let (_backends, site) = scripted(&json!({}), &heard, 10);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for _ in 0..2 {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250");
        for number in 0..100 {
            said(&mut wire, &format!("RCPT TO:<u{number}@one.test>"), "250 2.1.5 one");
        }
        said(&mut wire, "RCPT TO:<more@one.test>", "452 4.5.3");
        said(&mut wire, "RSET", "250");
    }
}

#[test]
fn the_auth_service_is_asked_for_each_transaction_and_the_server_that_it_names_gets_all_recipients() {
    let heard = Heard::default();
    let named = heard.backend("named", 10);
    let server = named.address();
    let service = AuthService::start(move |request| {
        let recipient = request.header("Auth-SMTP-To").unwrap_or_default();
        match recipient.contains("named.test") {
            true => Answer::Backend(server),
            false => Answer::Headers(vec![("Auth-Status", "OK".to_owned())]),
        }
    });
    let auth = json!({ "auth": { "passthrough": null, "http": http_auth(&service.url())["http"] } });
    let (_backends, site) = scripted(&auth, &heard, 10);
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    for (recipient, name) in [("a@one.test", "one"), ("b@two.test", "two"), ("c@named.test", "named")] {
        said(&mut wire, "MAIL FROM:<s@example.test>", "250");
        said(&mut wire, &format!("RCPT TO:<{recipient}>"), &format!("250 2.1.5 {name}"));
        if name == "named" {
            said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 named");
        } else {
            said(&mut wire, "RCPT TO:<c@named.test>", "554 5.7.1");
            said(&mut wire, "RSET", "250");
        }
    }
    assert_eq!(service.requests().len(), 3);
}

/// The proxy sees the login, as at the beginning of a session.
#[test]
fn after_mail_and_another_ehlo_a_client_may_log_in() {
    let heard = Heard::default();
    let (backends, site) = scripted(&json!({ "smtp": { "authMethods": ["PLAIN", "NONE"] } }), &heard, 10);
    let three = Backend::smtp("three");
    let matches = json!({ "domains": ["three.test"] });
    site.apply(&route("three", &matches, &[("SMTP", three.address())]));
    let mut wire = greeted(site.of("SMTP")).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    said(&mut wire, "MAIL FROM:<s@example.test>", "250");
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
    said(&mut wire, "AUTH PLAIN AA==", "503 5.5.1");
    wire.smtp("EHLO client.test").unwrap();
    let response = STANDARD.encode("\0me@three.test\0secret");
    said(&mut wire, &format!("AUTH PLAIN {response}"), "235 2.7.0 three");
    heard.wait_for("one QUIT");
    wait::eventually("the first backend is closed", || (backends[0].open() == 0).then_some(()));
    // A client that has logged in sends to everybody through its own backend.
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.0.0 OK");
    said(&mut wire, "QUIT", "221");
    let line = site.mailgress.logs(&["login=\"me@three.test\"", "backends=2"]);
    assert!(!line.contains("recipients_refused"), "{line}");
}

#[test]
fn the_listeners_own_backend_is_a_destination_too_and_a_client_may_start_tls_between_two_transactions() {
    let heard = Heard::default();
    let (own, one) = (heard.backend("own", 10), heard.backend("one", 10));
    let at = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    let spec = json!({
        "auth": passthrough(),
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
        "listeners": [listener("smtp", "SMTP", "StartTLS", at.port(), own.address())],
    });
    folder.write("server.yaml", &mail_server(&with(spec, &open_to_all())));
    folder.write("one.yaml", &route("one", &json!({ "domains": ["one.test"] }), &[("SMTP", one.address())]));
    let mailgress = Mailgress::start(&folder);
    let mut wire = greeted(at).unwrap();
    wire.smtp("EHLO client.test").unwrap();
    said(&mut wire, "MAIL FROM:<s@example.test>", "250");
    said(&mut wire, "RCPT TO:<a@one.test>", "250 2.1.5 one");
    said(&mut wire, "RCPT TO:<b@elsewhere.test>", OTHER);
    said(&mut wire, "STARTTLS", "503");
    let offered = wire.smtp("EHLO client.test").unwrap();
    assert!(offered.iter().any(|line| line.ends_with("STARTTLS")), "{offered:?}");
    said(&mut wire, "STARTTLS", "220");
    let mut wire = wire.handshake().unwrap();
    wire.smtp("EHLO client.test").unwrap();
    said(&mut wire, "MAIL FROM:<s@example.test>", "250");
    said(&mut wire, "RCPT TO:<b@elsewhere.test>", "250 2.1.5 own");
    said(&mut wire, "RCPT TO:<a@one.test>", OTHER);
    heard.wait_for("one QUIT");
    said(&mut wire, "QUIT", "221");
    mailgress.logs(&["tls=\"starttls\"", "backends=2", "recipients_refused=2"]);
}
