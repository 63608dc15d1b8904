//! The backend machines: any backend, for the login of any client.

use std::collections::VecDeque;

use mailgress::protocol::backend::{BackendLogin, BackendPlan, ClientInfo, XclientNegotiation};
use mailgress::protocol::sasl::{decode_base64, encode_base64};
use mailgress::protocol::{
    ClientId, Envelope, FrontendConfig, LoginRequest, Mechanism, PasswordLogins, Protocol,
};
use mailgress::secret::Secret;

use super::backend::Dialogue;
use super::choices::{Choices, bit, pick, sizes};
use super::client::{Login, Session};

/// Invariants:
/// * the same events for any chunking;
/// * one reply is answered with at most one line, without CR, LF and NUL (ManageSieve: one command with its literals);
/// * each line is exactly a command that the login needs;
/// * nothing from before STARTTLS has an effect after it.
pub(super) fn target(protocol: Protocol, data: &[u8]) {
    let mut choices = Choices::new(data);
    let bytes = choices.bytes();
    let parts = choices.parts();
    let Some((client, turns)) = parts.split_first() else { return };
    let settings = Settings { protocol, bytes, login: login(protocol, bytes[0], client) };
    let whole = settings.play(turns, |available| available);
    assert_eq!(whole.events, settings.play(turns, sizes(settings.bytes[2])).events, "depends on the chunks");
    let bytewise = settings.play(turns, |_| 1);
    assert_eq!(whole.events, bytewise.events, "the result depends on the chunks");
    for output in &bytewise.outputs {
        settings.check_line(output);
    }
    settings.check_start_tls(turns, &whole.events);
}

/// The first bytes of an input (flags, more flags, sizes of chunks), and the client's login.
struct Settings {
    protocol: Protocol,
    bytes: [u8; 3],
    login: Login,
}

struct Played {
    /// The events of each turn.
    events: Vec<Vec<String>>,
    outputs: Vec<Vec<u8>>,
}

/// Returns the login that the client's bytes lead to, or a fixed one. With bit 7 of the flags, as an auth service may
/// name it, the halves of the bytes are the login and the password.
fn login(protocol: Protocol, flags: u8, bytes: &[u8]) -> Login {
    let config = FrontendConfig {
        protocol,
        mechanisms: Mechanism::ALL.to_vec(),
        password_logins: PasswordLogins::Always,
        relay_sasl: bit(flags, 2),
        max_errors: 100,
        ..FrontendConfig::default()
    };
    let mut session = Session::new(config, true, VecDeque::from(["ok".to_owned()]));
    if !bit(flags, 7) {
        session.send(bytes, |available| available);
    }
    let (login, password) =
        if bit(flags, 7) { bytes.split_at(bytes.len() / 2) } else { (&b"me"[..], &b"pw"[..]) };
    session.logins.into_iter().next().unwrap_or_else(|| Login {
        request: password_login(login, password),
        secured: true,
        tag: if protocol == Protocol::Imap { b"a ".to_vec() } else { Vec::new() },
        envelope: Envelope::default(),
        client_id: ClientId::default(),
    })
}

fn password_login(login: &[u8], password: &[u8]) -> LoginRequest {
    LoginRequest::Password { login: login.to_vec(), password: Secret::from(password), authzid: Vec::new() }
}

impl Settings {
    fn plan(&self) -> BackendPlan {
        let [flags, more, _] = self.bytes;
        let Login { request, tag, envelope, client_id, .. } = self.login.clone();
        let info = ClientInfo {
            address: "192.0.2.7:4000".parse().ok().filter(|_| !bit(more, 3)),
            destination: "192.0.2.1:143".parse().ok(),
            host: pick(more >> 4, ["[UNAVAILABLE]", "client.test", "", "a=b c+d"]).to_owned(),
        };
        let negotiation = pick(more >> 1, [XclientNegotiation::Auto, XclientNegotiation::Always]);
        let is_imap = self.protocol == Protocol::Imap;
        // An auth service names a password for a login that cannot be repeated.
        let request = match request {
            LoginRequest::Digest { login, .. }
            | LoginRequest::Token { login, .. }
            | LoginRequest::External { login } => password_login(&login, b"pw"),
            other => other,
        };
        BackendPlan {
            protocol: self.protocol,
            start_tls: bit(flags, 0),
            server_name: "mail.test".to_owned(),
            client_hello: bit(flags, 1),
            tag,
            login: match request {
                LoginRequest::Password { login, .. } if bit(flags, 3) && self.protocol == Protocol::Smtp => {
                    BackendLogin::Trusted { login }
                }
                request => BackendLogin::Request(request),
            },
            envelope,
            xclient: Some((info.clone(), negotiation)).filter(|_| bit(flags, 4) && !is_imap),
            imap_id: Some((info, client_id)).filter(|_| bit(flags, 4) && is_imap),
            verbatim: bit(flags, 2),
        }
    }

    fn play(&self, turns: &[&[u8]], mut chunk: impl FnMut(usize) -> usize) -> Played {
        let limit = pick(self.bytes[1] >> 6, [4096, 64, 128, 512]);
        let answers = ["bWU=", "", "="].into_iter().map(str::to_owned).collect();
        let mut dialogue = Dialogue::new(self.plan(), limit, answers);
        let mut events = Vec::new();
        for turn in turns {
            if dialogue.is_over() {
                break;
            }
            dialogue.send(turn, &mut chunk);
            let mut of_turn = dialogue.take_events();
            if of_turn.iter().any(|event| event == AUTHENTICATED) {
                // What the backend sends behind this reply is dropped if it is already there, as in nginx.
                of_turn.retain(|event| !event.starts_with("rest: "));
            }
            events.push(of_turn);
        }
        Played { events, outputs: dialogue.outputs }
    }

    /// Checks what one reply was answered with.
    fn check_line(&self, output: &[u8]) {
        if self.protocol == Protocol::Sieve {
            assert!(self.is_sieve(output), "not a command for this login: {}", output.escape_ascii());
            return;
        }
        let shown = output.escape_ascii();
        let line = output.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("not a line: {shown}"));
        let is_broken = line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
        assert!(!is_broken, "more than a line: {shown}");
        let is_known = match self.protocol {
            Protocol::Imap => self.is_imap(line),
            Protocol::Pop3 => self.is_pop3(line),
            Protocol::Smtp => self.is_smtp(line),
            Protocol::Sieve => false,
        };
        assert!(is_known, "not a command for this login: {shown}, {:?}", self.login);
    }

    fn is_imap(&self, line: &[u8]) -> bool {
        if let Some(own) = line.strip_prefix(b"mailgress ") {
            return matches!(own, b"CAPABILITY" | b"STARTTLS")
                || own.strip_prefix(b"ID (").is_some_and(is_id);
        }
        if self.is_message(line) {
            return true;
        }
        let (login, password) = self.credentials();
        let sized = |text: &[u8], size: usize| [text, format!(" {{{size}}}").as_bytes()].concat();
        if line == sized(&login, password.len()) || line == password {
            return true;
        }
        line.strip_prefix(self.login.tag.as_slice()).is_some_and(|command| {
            command == sized(b"LOGIN", login.len()) || self.is_sasl(b"AUTHENTICATE ", command)
        })
    }

    fn is_pop3(&self, line: &[u8]) -> bool {
        let (login, password) = self.credentials();
        matches!(line, b"CAPA" | b"STLS")
            || line == [b"USER ", login.as_slice()].concat()
            || line == [b"PASS ", password.as_slice()].concat()
            || self.is_sasl(b"AUTH ", line)
            || self.is_message(line)
    }

    fn is_smtp(&self, line: &[u8]) -> bool {
        let envelope = &self.login.envelope;
        let is_name = |name: &[u8]| {
            name == b"mail.test" || envelope.hello.as_ref().is_some_and(|hello| hello.name == name)
        };
        let is_attribute = |word: &[u8]| {
            [&b"ADDR="[..], b"LOGIN=", b"NAME="].iter().any(|name| word.starts_with(name))
                && word.iter().all(u8::is_ascii_graphic)
                && word.iter().filter(|byte| **byte == b'=').count() == 1
        };
        let attributes = |text: &[u8]| text.split(|byte| *byte == b' ').all(is_attribute);
        let (mail, rcpt) = (envelope.mail.as_deref(), envelope.rcpt.as_deref());
        line == b"STARTTLS"
            || line.strip_prefix(b"EHLO ").is_some_and(is_name)
            || line.strip_prefix(b"HELO ").is_some_and(is_name)
            || line.strip_prefix(b"XCLIENT ").is_some_and(attributes)
            || self.login.request == LoginRequest::Anonymous
                && (line == mail.unwrap_or_default() || line == rcpt.unwrap_or_default())
            || self.is_sasl(b"AUTH ", line)
            || self.is_message(line)
    }

    /// Reads a whole command, because its strings may be literals: STARTTLS, AUTHENTICATE, or a message.
    fn is_sieve(&self, output: &[u8]) -> bool {
        let Some(line) = output.strip_suffix(b"\r\n") else { return false };
        let is_message = |text: &[u8]| self.is_message(text) || (text.is_empty() && self.is_message(b"="));
        if line == b"STARTTLS" {
            return true;
        }
        let Some(arguments) = line.strip_prefix(b"AUTHENTICATE ") else {
            return sieve_string(line).is_some_and(|(message, rest)| rest.is_empty() && is_message(&message));
        };
        let Some((name, rest)) = sieve_string(arguments) else { return false };
        let has_initial = || {
            let initial = rest.strip_prefix(b" ").and_then(sieve_string);
            initial.is_some_and(|(initial, rest)| rest.is_empty() && is_message(&initial))
        };
        self.is_sasl(b"", &name) && (rest.is_empty() || has_initial())
    }

    fn credentials(&self) -> (Vec<u8>, Vec<u8>) {
        match self.plan().login {
            BackendLogin::Request(LoginRequest::Password { login, password, .. }) => {
                (login, password.expose().to_vec())
            }
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// Tells whether a command is AUTH or AUTHENTICATE for this login.
    fn is_sasl(&self, command: &[u8], line: &[u8]) -> bool {
        let Some(arguments) = line.strip_prefix(command) else { return false };
        let mut words = arguments.split(|byte| *byte == b' ');
        let mechanism = words.next().and_then(Mechanism::from_sasl_name);
        let is_ours = match &self.login.request {
            LoginRequest::Relayed { mechanism: relayed, .. } => mechanism == Some(*relayed),
            _ => mechanism.is_some_and(Mechanism::is_password),
        };
        is_ours && words.next().is_none_or(|initial| self.is_message(initial)) && words.next().is_none()
    }

    /// Tells whether a line is a message of this login's SASL exchange.
    fn is_message(&self, line: &[u8]) -> bool {
        match self.plan().login {
            BackendLogin::Request(LoginRequest::Relayed { initial_response, .. }) => {
                let is_initial = initial_response.is_some_and(|initial| initial.expose() == line);
                is_initial || matches!(line, b"" | b"=" | b"*" | b"bWU=")
            }
            BackendLogin::Request(LoginRequest::Password { login, password, authzid }) => {
                let plain = [&authzid, &login, password.expose()].join(&0);
                [plain.as_slice(), &login, password.expose()]
                    .iter()
                    .any(|message| line == encode_base64(message).as_bytes() && decodes(line, message))
            }
            _ => false,
        }
    }

    /// A backend's replies before STARTTLS decide nothing after it, if they have led to the same commands.
    fn check_start_tls(&self, turns: &[&[u8]], events: &[Vec<String>]) {
        let Some(at) = events.iter().position(|events| events.iter().any(|event| event == "starttls")) else {
            return;
        };
        let (before, after) = events.split_at(at + 1);
        let plain: &[u8] = match self.protocol {
            Protocol::Imap => b"* OK\r\n* CAPABILITY STARTTLS\r\nmailgress OK\r\nmailgress OK\r\n",
            Protocol::Pop3 => b"+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK\r\n",
            Protocol::Smtp => b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 x\r\n",
            Protocol::Sieve => b"\"STARTTLS\"\r\nOK\r\nOK\r\n",
        };
        let plain: Vec<&[u8]> = [plain].into_iter().chain(turns.iter().skip(at + 1).copied()).collect();
        let plain = self.play(&plain, |available| available).events;
        let Some((first, rest)) = plain.split_first() else { return };
        if before.iter().flatten().eq(first) {
            assert_eq!(rest, after, "something from before STARTTLS is left");
        }
    }
}

fn decodes(line: &[u8], message: &[u8]) -> bool {
    decode_base64(line).is_some_and(|decoded| decoded.as_slice() == message)
}

/// Returns a quoted string or a client's literal (RFC 5804 section 4), and what follows it.
fn sieve_string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(literal) = text.strip_prefix(b"{") else { return quoted(text) };
    let end = literal.iter().position(|byte| *byte == b'+')?;
    let (digits, rest) = literal.split_at(end);
    let size = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (content, rest) = rest.strip_prefix(b"+}\r\n")?.split_at_checked(size)?;
    Some((content.to_vec(), rest))
}

/// SMTP: our own reply, which replaces the backend's.
const AUTHENTICATED: &str = r#"ready: "235 2.0.0 OK\r\n""#;

/// Reads the parameters of ID (RFC 2971) behind their bracket: pairs of strings, of which only our own start with `x-`.
fn is_id(text: &[u8]) -> bool {
    let Some(mut rest) = text.strip_suffix(b")") else { return false };
    loop {
        let Some((field, after)) = quoted(rest) else { return false };
        let Some(after) = after.strip_prefix(b" ") else { return false };
        let Some((value, after)) =
            after.strip_prefix(b"NIL").map(|after| (Vec::new(), after)).or_else(|| quoted(after))
        else {
            return false;
        };
        let is_ours = match field.as_slice() {
            b"x-originating-ip" => value == b"192.0.2.7",
            b"x-originating-port" => value == b"4000",
            b"x-connected-ip" => value == b"192.0.2.1",
            b"x-connected-port" => value == b"143",
            other => !other.to_ascii_lowercase().starts_with(b"x-"),
        };
        if !is_ours {
            return false;
        }
        match after {
            [] => return true,
            [b' ', next @ ..] => rest = next,
            _ => return false,
        }
    }
}

/// Returns the content of a quoted string (RFC 9051, RFC 5804), and what follows it.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut content = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((content, rest)),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                content.push(escaped);
                rest = after;
            }
            byte => content.push(byte),
        }
    }
}
