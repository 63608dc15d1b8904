//! Tests of the maximum length of a client's line: SASL responses by RFC 4954, all other lines by configuration.

use super::*;
use crate::protocol::LoginRequest;
use crate::protocol::sasl::{MAX_RESPONSE, encode_base64};

/// `limits.clientBuffer`.
const BUFFER: usize = 4096;

fn config(protocol: Protocol) -> FrontendConfig {
    FrontendConfig {
        protocol,
        server_name: "mail.test".to_owned(),
        mechanisms: vec![Mechanism::Plain, Mechanism::XOAuth2],
        ..FrontendConfig::default()
    }
}

/// Returns an XOAUTH2 message whose base64 has `length` bytes.
fn response(length: usize) -> String {
    let (before, after) = ("user=me\u{1}auth=Bearer ", "\u{1}\u{1}");
    let token =
        "t".repeat((length.saturating_mul(3) / 4).saturating_sub(before.len().saturating_add(after.len())));
    let message = encode_base64(format!("{before}{token}{after}").as_bytes());
    assert_eq!(message.len(), length);
    message
}

fn auth(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Imap { "a AUTHENTICATE XOAUTH2" } else { "AUTH XOAUTH2" }
}

/// Returns the step after the bytes, which are appended as the input has room.
fn outcome(config: FrontendConfig, bytes: &str) -> Step {
    let mut input = Input::new(BUFFER);
    let mut frontend = Frontend::new(Arc::new(config), false);
    let mut rest = bytes.as_bytes();
    loop {
        let (now, later) = rest.split_at(rest.len().min(input.room()));
        assert!(!now.is_empty(), "there is no room, or the machine waits for more");
        input.append(now).unwrap();
        rest = later;
        frontend = match frontend.receive(&mut input, &mut Vec::new()) {
            Step::Read(frontend) => frontend,
            step => return step,
        };
    }
}

fn is_login(step: &Step, token_of: usize) -> bool {
    let Step::Login(Attempt { request: LoginRequest::Token { token, .. }, .. }) = step else { return false };
    token.expose().len() > (token_of.saturating_mul(3) / 4).saturating_sub(40)
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Imap, Protocol::Pop3, Protocol::Smtp];

#[test]
fn a_response_of_12288_octets_is_taken_in_every_protocol_and_no_longer_one() {
    for protocol in PROTOCOLS {
        let auth = auth(protocol);
        let message = response(MAX_RESPONSE);
        let initial = outcome(config(protocol), &format!("{auth} {message}\r\n"));
        assert!(is_login(&initial, MAX_RESPONSE), "{protocol:?}: {initial:?}");
        let answer = outcome(config(protocol), &format!("{auth}\r\n{message}\r\n"));
        assert!(is_login(&answer, MAX_RESPONSE), "{protocol:?}: {answer:?}");
        let too_long = outcome(config(protocol), &format!("{auth}\r\n{}\r\n", response(MAX_RESPONSE + 4)));
        assert!(matches!(too_long, Step::Close(CloseReason::TooLong)), "{protocol:?}: {too_long:?}");
        let endless = outcome(config(protocol), &format!("{auth} {}", "a".repeat(20_000)));
        assert!(matches!(endless, Step::Close(CloseReason::TooLong)), "{protocol:?}: {endless:?}");
    }
}

#[test]
fn a_relayed_answer_may_be_as_long() {
    let message = response(MAX_RESPONSE);
    let relaying = FrontendConfig { relay_sasl: true, ..config(Protocol::Smtp) };
    let Step::Login(Attempt { pending, .. }) = outcome(relaying, "AUTH XOAUTH2\r\n") else {
        panic!("no login")
    };
    let mut exchange = pending.challenge(b"", &mut Vec::new());
    let mut input = Input::new(BUFFER);
    let line = format!("{message}\r\n");
    let mut rest = line.as_bytes();
    loop {
        let (now, later) = rest.split_at(rest.len().min(input.room()));
        input.append(now).unwrap();
        rest = later;
        exchange = match exchange.receive(&mut input, &mut Vec::new()) {
            ExchangeStep::Read(exchange) => exchange,
            ExchangeStep::Answer(answer, _) => {
                assert_eq!(answer.expose(), message.as_bytes());
                return;
            }
            ExchangeStep::Close(reason) => panic!("{reason:?}"),
        };
    }
}

#[test]
fn no_other_command_grows() {
    let long = "x".repeat(BUFFER);
    for (protocol, command) in [
        (Protocol::Imap, format!("a LOGIN me {long}\r\n")),
        (Protocol::Imap, format!("a AUTHENTICATEX {long}\r\n")),
        (Protocol::Imap, format!("{long} NOOP\r\n")),
        (Protocol::Pop3, format!("PASS {long}\r\n")),
        (Protocol::Pop3, format!("AUTHX {long}\r\n")),
        (Protocol::Smtp, format!("EHLO {long}\r\n")),
    ] {
        let step = outcome(config(protocol), &command);
        assert!(matches!(step, Step::Close(CloseReason::TooLong)), "{protocol:?}: {step:?}");
    }
}

#[test]
fn nor_does_one_behind_a_long_response() {
    for protocol in PROTOCOLS {
        let command = if protocol == Protocol::Imap { "b NOOP" } else { "NOOP" };
        // The response is not base64, so it is refused.
        let bytes = format!("{} {}!\r\n{command} {}\r\n", auth(protocol), "a".repeat(8000), "x".repeat(4200));
        let step = outcome(config(protocol), &bytes);
        assert!(matches!(step, Step::Close(CloseReason::TooLong)), "{protocol:?}: {step:?}");
    }
}

#[test]
fn nor_does_a_login_that_is_refused_anyway() {
    for protocol in PROTOCOLS {
        let in_clear = FrontendConfig { start_tls: StartTlsOffer::Required, ..config(protocol) };
        let step = outcome(in_clear, &format!("{} {}\r\n", auth(protocol), "a".repeat(5000)));
        assert!(matches!(step, Step::Close(CloseReason::TooLong)), "{protocol:?}: {step:?}");
    }
}

#[test]
fn a_tls_handshake_on_a_connection_in_clear_ends_the_session_at_once() {
    let step = |protocol, secured, bytes: &[u8]| {
        let mut input = Input::new(BUFFER);
        input.append(bytes).unwrap();
        Frontend::new(Arc::new(config(protocol)), secured).receive(&mut input, &mut Vec::new())
    };
    for protocol in PROTOCOLS {
        let command = if protocol == Protocol::Imap { "a NOOP\r\n" } else { "NOOP\r\n" };
        let behind_a_command = [command.as_bytes(), b"\x16\x03"].concat();
        for bytes in [b"\x16\x03".as_slice(), b"\x16\x03\x01\x02\x00\x01\n\x00", &behind_a_command] {
            let step = step(protocol, false, bytes);
            assert!(matches!(step, Step::Close(CloseReason::SpeaksTls)), "{protocol:?}: {step:?}");
        }
        let first_byte = step(protocol, false, b"\x16");
        assert!(matches!(first_byte, Step::Read(_)), "{protocol:?}: {first_byte:?}");
        let under_tls = step(protocol, true, b"\x16\x03");
        assert!(matches!(under_tls, Step::Read(_)), "{protocol:?}: {under_tls:?}");
    }
}

#[test]
fn the_next_mail_needs_no_ehlo_and_the_counts_start_again() {
    let mechanisms = vec![Mechanism::None];
    let config = FrontendConfig { mechanisms, max_commands: 3, ..config(Protocol::Smtp) };
    let (mut frontend, mut input) = (Frontend::new(Arc::new(config), false), Input::new(BUFFER));
    input.append(b"EHLO client.test\r\n").unwrap();
    for recipient in ["a@one.test", "b@two.test", "c@one.test"] {
        input.append(format!("MAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\n").as_bytes()).unwrap();
        let step = frontend.receive(&mut input, &mut Vec::new());
        let Step::Login(Attempt { pending, .. }) = step else { panic!("{step:?}") };
        let envelope = pending.envelope();
        assert_eq!(envelope.recipient(), recipient.as_bytes());
        assert_eq!(envelope.hello.as_ref().unwrap().name, b"client.test");
        frontend = pending.next_mail().unwrap();
    }
    // The recipients need another MAIL.
    input.append(b"RCPT TO:<d@one.test>\r\n").unwrap();
    let mut out = Vec::new();
    assert!(matches!(frontend.receive(&mut input, &mut out), Step::Read(_)) && out.starts_with(b"503 "));
}
