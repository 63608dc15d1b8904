//! For any bytes of a peer: no panic, bounded output, and the same result with any chunking.

use std::collections::VecDeque;

use mailgress::protocol::backend::{BackendLogin, BackendPlan};
use mailgress::protocol::frontend::StartTlsOffer;
use mailgress::protocol::proxy_header;
use mailgress::protocol::{
    CountedErrors, Envelope, FrontendConfig, Input, LoginRequest, Mechanism, PasswordLogins, Protocol,
    SmtpRules,
};
use mailgress::secret::Secret;
use proptest::prelude::*;

use super::backend::Dialogue;
use super::client::Session;

const LIMIT: usize = 128;

/// Parts of real dialogues, so that deep states are reached.
const CLIENT_WORDS: [&[u8]; 60] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\"",
    b"\\",
    b"\0",
    b"\xff",
    b"*",
    b"=",
    b"a ",
    b"b ",
    b"LOGIN ",
    b"{3}\r\n",
    b"{3+}\r\n",
    b"{0}\r\n",
    b"{200}\r\n",
    b"{99999999999999999999+}\r\n",
    b"abc",
    b"\"a b\"",
    b"NOOP",
    b"NOOP\r\n",
    b"a NOOP\r\n",
    b"CAPABILITY\r\n",
    b"AUTHENTICATE ",
    b"AUTH ",
    b"PLAIN",
    b"PLAIN ",
    b"LOGIN\r\n",
    b"CRAM-MD5\r\n",
    b"EXTERNAL ",
    b"XOAUTH2",
    b"OAUTHBEARER ",
    b"AG1lAHB3\r\n",
    b"bWU=\r\n",
    b"ID (\"a\" {1}\r\n",
    b"STARTTLS\r\n",
    b"STLS\r\n",
    b"USER me\r\n",
    b"PASS pw \r\n",
    b"APOP me x\r\n",
    b"CAPA\r\n",
    b"QUIT\r\n",
    b"LOGOUT\r\n",
    b"EHLO a\r\n",
    b"HELO a\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"RSET\r\n",
    b"BDAT 9\r\n",
    b"VRFY x\r\n",
    b"FOO {4+}\r\n",
    b"AUTHENTICATE \"PLAIN\" ",
    b"\"AG1lAHB3\"\r\n",
    b"{8+}\r\nAG1lAHB3\r\n",
    b"\"CRAM-MD5\"\r\n",
    b"\"*\"\r\n",
    b"NOOP \"a\\\"b\"\r\n",
    b"PUTSCRIPT \"x\" ",
    b"{12000+}\r\n",
];

const BACKEND_WORDS: [&[u8]; 42] = [
    b"\r\n",
    b"\n",
    b"\0",
    b"\xff",
    b"* OK\r\n",
    b"* OK [CAPABILITY IMAP4rev1 STARTTLS ID]\r\n",
    b"* ",
    b"+ \r\n",
    b"+\r\n",
    b"+ bWU=\r\n",
    b"a OK\r\n",
    b"a NO no\r\n",
    b"a BAD\r\n",
    b"mailgress OK\r\n",
    b"mailgress NO\r\n",
    b"* CAPABILITY STARTTLS ID\r\n",
    b"* BYE\r\n",
    b"* X {3}\r\nabc\r\n",
    b"* X {99999999999999999999}\r\n",
    b"+OK\r\n",
    b"+OK\r\nSTLS\r\n.\r\n",
    b"-ERR no\r\n",
    b".\r\n",
    b"220 a\r\n",
    b"250-a\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n",
    b"250 a\r\n",
    b"250-",
    b"235 a\r\n",
    b"334 bWU=\r\n",
    b"334\r\n",
    b"535 no\r\n",
    b"99 x\r\n",
    b"abc",
    b"{3}\r\n",
    b"OK\r\n",
    b"OK \"a\"\r\n",
    b"NO (TRYLATER) \"a\"\r\n",
    b"BYE\r\n",
    b"\"SASL\" \"PLAIN\"\r\n",
    b"\"STARTTLS\"\r\n",
    b"\"bWU=\"\r\n",
    b"{4}\r\nbWU=\r\n",
];

fn words(known: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        9 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..9),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(Protocol::ALL.to_vec())
}

fn config() -> impl Strategy<Value = FrontendConfig> {
    let offers = vec![StartTlsOffer::Disabled, StartTlsOffer::Optional, StartTlsOffer::Required];
    let mechanisms = prop::sample::subsequence(Mechanism::ALL.to_vec(), 0..=Mechanism::ALL.len());
    let counted = prop::sample::select(vec![CountedErrors::All, CountedErrors::Syntax]);
    let passwords = prop::sample::select(vec![PasswordLogins::Listed, PasswordLogins::Always]);
    let bounds = (counted, 1..30_u32, 1..5_u32);
    let smtp = (any::<bool>(), any::<bool>());
    let logins = (mechanisms, passwords, any::<bool>());
    (protocol(), prop::sample::select(offers), logins, bounds, smtp).prop_map(
        |(protocol, start_tls, (mechanisms, passwords, relay_sasl), bounds, smtp)| FrontendConfig {
            protocol,
            server_name: "mail.test".to_owned(),
            capabilities: vec!["USER".to_owned(), "SIZE 100".to_owned()],
            mechanisms,
            password_logins: passwords,
            start_tls,
            relay_sasl,
            counted_errors: bounds.0,
            max_commands: bounds.1,
            max_auth_failures: bounds.2,
            smtp: SmtpRules { anonymous_before_tls: smtp.0, strict_sequence: smtp.1 },
            ..FrontendConfig::default()
        },
    )
}

fn verdicts() -> impl Strategy<Value = VecDeque<String>> {
    let verdict = prop::sample::select(vec!["refuse no", "ok", "verbatim a NO no", "error"]);
    prop::collection::vec(verdict.prop_map(str::to_owned), 0..6).prop_map(VecDeque::from)
}

/// Returns what a client sees, the result, and the largest output of one call.
fn converse(
    config: &FrontendConfig,
    verdicts: VecDeque<String>,
    bytes: &[u8],
    chunks: &[usize],
) -> (Vec<String>, usize) {
    let mut session = Session::new(config.clone(), false, verdicts);
    session.limit(LIMIT);
    let mut sizes = chunks.iter().cycle();
    session.send(bytes, |available| sizes.next().map_or(available, |&size| size.clamp(1, available.max(1))));
    (session.take_events(), session.largest_output)
}

fn backend_plan(protocol: Protocol, relayed: bool, start_tls: bool) -> BackendPlan {
    let request = if relayed {
        let initial_response = Some(Secret::from(&b"bWU="[..]));
        LoginRequest::Relayed { mechanism: Mechanism::XOAuth2, initial_response }
    } else {
        let password = Secret::from(&b"pw"[..]);
        LoginRequest::Password { login: b"me".to_vec(), password, authzid: Vec::new() }
    };
    BackendPlan {
        protocol,
        start_tls,
        server_name: "mail.test".to_owned(),
        client_hello: false,
        tag: b"a ".to_vec(),
        login: BackendLogin::Request(request),
        envelope: Envelope::default(),
        xclient: None,
        imap_id: None,
        verbatim: relayed,
    }
}

/// Returns what the backend gets, and the result.
fn consult(plan: BackendPlan, bytes: &[u8], chunks: &[usize]) -> Vec<String> {
    let mut dialogue = Dialogue::new(plan, LIMIT, VecDeque::new());
    let mut sizes = chunks.iter().cycle();
    dialogue.send(bytes, |available| sizes.next().map_or(available, |&size| size.clamp(1, available)));
    dialogue.take_events()
}

proptest! {
    // Failures are not stored: a failure becomes a transcript, which says what it is about.
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frontends_do_the_same_for_any_chunking(
        config in config(),
        verdicts in verdicts(),
        bytes in words(&CLIENT_WORDS),
        chunks in prop::collection::vec(1..30_usize, 1..8),
    ) {
        let (whole, largest) = converse(&config, verdicts.clone(), &bytes, &[]);
        let (cut, _) = converse(&config, verdicts.clone(), &bytes, &chunks);
        prop_assert_eq!(&whole, &cut);
        let (bytewise, _) = converse(&config, verdicts, &bytes, &[1]);
        prop_assert_eq!(&whole, &bytewise);
        prop_assert!(largest <= 64 * LIMIT, "{} bytes of output", largest);
    }

    #[test]
    fn backends_do_the_same_for_any_chunking(
        protocol in protocol(),
        relayed in any::<bool>(),
        start_tls in any::<bool>(),
        bytes in words(&BACKEND_WORDS),
        chunks in prop::collection::vec(1..30_usize, 1..8),
    ) {
        let whole = consult(backend_plan(protocol, relayed, start_tls), &bytes, &[]);
        prop_assert_eq!(&whole, &consult(backend_plan(protocol, relayed, start_tls), &bytes, &chunks));
        prop_assert_eq!(&whole, &consult(backend_plan(protocol, relayed, start_tls), &bytes, &[1]));
    }

    #[test]
    fn proxy_headers_never_panic(
        start in prop::sample::select(vec![&b""[..], b"PROXY TCP4 ", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut input = Input::new(LIMIT);
        input.append(&[start, &bytes].concat()).unwrap();
        let _ = proxy_header::parse(&mut input);
    }
}
