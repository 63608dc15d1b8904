//! The HTTP answer of an auth service.

use mailgress::auth::AuthAnswer;
use mailgress::auth::http::head::{End, Head};
use mailgress::auth::http::reply::{Reply, parse};
use mailgress::model::AuthProof;
use mailgress::net::BackendAddress;
use mailgress::protocol::Protocol;
use mailgress::protocol::backend::{BackendLogin, BackendPlan};
use mailgress::protocol::{Envelope, LoginRequest};
use mailgress::secret::Secret;

use super::backend::Dialogue;
use super::choices::{Choices, bit};

/// Invariants:
/// * more bytes change neither a head that was complete, nor the end of the answer;
/// * a login is accepted only by the header, and without `AuthProof::Headers` only with a 2xx status;
/// * a refusal is never empty, and its code and SASL text are in their form;
/// * what the service names for the backend never breaks out of a command.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let flags = choices.byte();
    let received = choices.rest();
    let proof = if bit(flags, 0) { AuthProof::Headers } else { AuthProof::StatusAndHeader };
    let Ok(Some(head)) = Head::parse(received) else {
        check_early(received, None);
        return;
    };
    let end = head.end(received);
    assert!(!matches!(end, End::At(at) if at > received.len()), "the end is behind the bytes");
    check_early(received, Some((&head, end)));
    let Ok(Reply::Answer(answer)) = parse(head.status, &head.headers, proof) else { return };
    match answer {
        AuthAnswer::Accepted { server, login, password } => {
            let mut statuses = head.headers.all("auth-status").peekable();
            let is_named =
                head.headers.last("auth-server").is_some() && head.headers.last("auth-port").is_some();
            assert!(statuses.peek().is_some() || is_named && proof == AuthProof::Headers);
            assert!(statuses.all(|status| status == b"OK"), "accepted against a refusal");
            assert!(head.status.is_success() || proof == AuthProof::Headers, "accepted with {}", head.status);
            check_server(server);
            check_login(login.unwrap_or_default(), password.unwrap_or_default());
        }
        AuthAnswer::Refused { text, code, sasl, .. } => {
            assert!(!text.is_empty() && !text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
            let is_code = |code: &String| {
                code.starts_with(['4', '5']) && code.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
            };
            assert!(code.is_none_or(|code| is_code(&code)));
            assert!(
                sasl.is_none_or(|sasl| !sasl.is_empty() && sasl.bytes().all(|byte| byte.is_ascii_graphic()))
            );
        }
    }
}

/// Compares with the result of fewer bytes.
fn check_early(received: &[u8], whole: Option<(&Head, End)>) {
    for length in 0..received.len().min(600) {
        let part = received.get(..length).unwrap_or_default();
        let Ok(Some(early)) = Head::parse(part) else { continue };
        let Some((head, end)) = whole else { panic!("a head of {length} bytes became invalid") };
        assert_eq!(early.status, head.status);
        match early.end(part) {
            End::Later => {}
            known => assert_eq!(known, end, "the end has moved, which {length} bytes told"),
        }
    }
}

fn check_server(server: Option<BackendAddress>) {
    match server {
        None => {}
        Some(BackendAddress::Ip(address)) => assert_ne!(address.port(), 0),
        Some(BackendAddress::Name { host, port }) => {
            let is_harmless = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            assert!(port != 0 && !host.is_empty() && host.len() < 254 && is_harmless, "{host:?}");
        }
        Some(BackendAddress::Unix(path)) => panic!("an auth service names {}", path.display()),
    }
}

/// Logs in to a POP3 backend, whose commands are closest to what was named.
fn check_login(login: Vec<u8>, password: Secret) {
    let request = LoginRequest::Password { login, password, authzid: Vec::new() };
    let plan = BackendPlan {
        protocol: Protocol::Pop3,
        start_tls: false,
        server_name: "mail.test".to_owned(),
        client_hello: false,
        tag: Vec::new(),
        login: BackendLogin::Request(request),
        envelope: Envelope::default(),
        xclient: None,
        imap_id: None,
        verbatim: false,
    };
    let mut dialogue = Dialogue::new(plan, 4096, std::collections::VecDeque::new());
    dialogue.send(b"+OK\r\n+OK\r\n+OK\r\n", |_| 1);
    for output in &dialogue.outputs {
        let line = output.strip_suffix(b"\r\n").unwrap_or(b"\n");
        assert!(!line.iter().any(u8::is_ascii_control), "{}", output.escape_ascii());
    }
}
