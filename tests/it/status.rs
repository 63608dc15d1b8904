//! `mailgress status`: the table of a running instance, and the exit status.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, listener, mail_server, passthrough, tls_secret};
use crate::support::pki::AUTHORITY;
use crate::support::{ports, wait};

fn status(mailgress: &Mailgress, more: &[&str]) -> Output {
    let address = format!("http://{}", mailgress.admin());
    Command::new(binary()).args(["status", "--address", &address]).args(more).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn an_instance_tells_what_it_serves_and_what_not_and_why() {
    let (good, bad) = (ports::free(), ports::free());
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    let server = |certificate: &str| {
        let mut second = listener("pop3", "POP3", "RequireStartTLS", bad, nowhere);
        second["tls"]["certificateRefs"] = json!([{ "name": certificate }]);
        let listeners = [listener("imap", "IMAP", "Implicit", good, nowhere), second];
        mail_server(&json!({
            "auth": passthrough(), "tls": { "certificateRefs": [{ "name": "mail-tls" }] }, "listeners": listeners,
        }))
    };
    folder.write("server.yaml", &server("nowhere"));
    let mailgress = Mailgress::start(&folder);
    let output = status(&mailgress, &[]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let socket = format!("127.0.0.1:{good}");
    let row = said.lines().find(|line| line.contains(&socket)).unwrap_or_else(|| panic!("{said}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        words,
        ["mail", "mailserver/edge", "imap", &socket, "IMAP", "Implicit", "True", "-"],
        "{said}"
    );
    assert!(said.contains("MailServer mail/edge, listener pop3\n  ResolvedRefs (RefNotFound): "), "{said}");
    assert!(
        said.contains("Secret mail/nowhere does not exist") && said.contains("2 listeners, 1 not ready"),
        "{said}"
    );
    folder.replace("server.yaml", &server("mail-tls"));
    wait::eventually("all is ready", || status(&mailgress, &[]).status.success().then_some(()));
    let nothing = status(&mailgress, &["imapz"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", text(&nothing));
    assert!(text(&nothing).contains("No listener matches."), "{}", text(&nothing));
    let document: Value = serde_json::from_slice(&status(&mailgress, &["-o", "json"]).stdout).unwrap();
    assert_eq!(document["listeners"][1]["tls"], "RequireStartTLS", "{document}");
}

#[test]
fn an_instance_that_does_not_answer_is_exit_status_1() {
    let address = format!("127.0.0.1:{}", ports::free());
    let output = Command::new(binary()).args(["status", "--address", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&format!("no instance answers at {address}")), "{}", text(&output));
    let output = Command::new(binary()).args(["status", "--address", "nonsense"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}
