//! Tests of whole visits to servers with scripted replies.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::model::TrustAnchors;
use crate::model::settings::ClientTls;
use crate::secret::Secret;

/// Visits a server that sends `said`, one after each question.
async fn visit(protocol: Protocol, tls: TlsStart, said: &[&'static str]) -> Report {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let said = said.to_vec();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 512];
        for line in said {
            stream.write_all(line.as_bytes()).await.unwrap();
            if stream.read(&mut heard).await.unwrap_or(0) == 0 {
                return;
            }
        }
    });
    probe(&ProbeRequest {
        target: BackendAddress::Ip(address),
        protocol,
        tls,
        client: ClientTls { trust: TrustAnchors::System, server_name: None, certificate: None },
        strictness: Strictness::All,
        login: Some(Credentials { user: "me".to_owned(), password: Secret::from(&b"secret"[..]) }),
        proxy_protocol: None,
        timeout: Duration::from_millis(500),
        now: 0,
    })
    .await
}

fn last(report: &Report) -> (Step, Outcome, String) {
    let last = report.findings.last().unwrap();
    (last.step, last.outcome, format!("{}; {}", last.message, last.remedy))
}

const CAPABILITY: &str = "* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\nvisit OK\r\n";

#[tokio::test]
async fn a_password_travels_in_clear_only_where_that_is_meant() {
    let said = ["* OK hello\r\n", CAPABILITY, "visit OK in\r\n", "* BYE\r\nvisit OK\r\n"];
    let report = visit(Protocol::Imap, TlsStart::Disabled, &said).await;
    assert_eq!(report.outcome(), Outcome::Ok, "{report:?}");
    assert!(report.login.unwrap().accepted);
    let said = ["* OK hello\r\n", CAPABILITY, "* BYE\r\nvisit OK\r\n"];
    let report = visit(Protocol::Imap, TlsStart::IfOffered, &said).await;
    let login = report.findings.iter().find(|finding| finding.step == Step::Login).unwrap();
    assert!(login.outcome == Outcome::Failed && login.message.contains("in clear"), "{login:?}");
    assert!(report.login.is_none());
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_in_the_servers_words() {
    let said = ["* OK hello\r\n", CAPABILITY, "visit NO [UNAVAILABLE] later\r\n", "* BYE\r\nvisit OK\r\n"];
    let report = visit(Protocol::Imap, TlsStart::Disabled, &said).await;
    let login = report.findings.iter().find(|finding| finding.step == Step::Login).unwrap();
    assert_eq!(login.message, "AUTHENTICATE PLAIN as me: visit NO [UNAVAILABLE] later");
    assert_eq!(login.remedy, BUSY);
    assert_eq!(report.outcome(), Outcome::Failed);
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named() {
    let (step, outcome, text) =
        last(&visit(Protocol::Imap, TlsStart::Disabled, &["220 mail ESMTP\r\n"]).await);
    assert_eq!((step, outcome), (Step::Greeting, Outcome::Failed));
    assert!(text.starts_with("this is SMTP (or FTP), not IMAP: 220 mail ESMTP; "), "{text}");
    let (step, _, text) = last(&visit(Protocol::Imap, TlsStart::Implicit, &["* OK in clear\r\n"]).await);
    assert!(step == Step::Tls && text.contains("--tls StartTLS"), "{text}");
}

#[tokio::test]
async fn silence_is_told_with_what_may_be_the_cause() {
    let (step, outcome, text) = last(&visit(Protocol::Smtp, TlsStart::IfOffered, &[""]).await);
    assert_eq!((step, outcome), (Step::Greeting, Outcome::Failed));
    assert!(text.contains("no answer within 500ms") && text.contains("--tls Implicit"), "{text}");
    let (_, _, text) = last(&visit(Protocol::Pop3, TlsStart::Disabled, &[]).await);
    assert!(text.contains("closed the connection without an answer"), "{text}");
}

#[tokio::test]
async fn a_starttls_that_is_wanted_and_not_offered_fails() {
    let said = ["220 a\r\n", "250-a\r\n250 AUTH PLAIN\r\n"];
    let (step, outcome, text) = last(&visit(Protocol::Smtp, TlsStart::StartTls, &said).await);
    assert_eq!((step, outcome), (Step::Tls, Outcome::Failed));
    assert!(text.contains("tls.certificateRefs"), "{text}");
}

#[tokio::test]
async fn what_is_injected_behind_starttls_ends_the_visit() {
    let said = ["220 a\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n250 injected\r\n"];
    let (step, _, text) = last(&visit(Protocol::Smtp, TlsStart::IfOffered, &said).await);
    assert!(step == Step::Tls && text.contains("in clear text after its reply to STARTTLS"), "{text}");
}
