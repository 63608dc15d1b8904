//! Plays a backend for the state machine that logs in to it.

use std::collections::VecDeque;

use mailgress::protocol::backend::{
    Backend, BackendExchange, BackendLogin, BackendPlan, BackendStep, ClientInfo, Refusal, RefusalCause,
    XclientNegotiation,
};
use mailgress::protocol::{ClientId, Envelope, Hello, Input, LoginRequest, Mechanism, Protocol};
use mailgress::secret::Secret;

use super::script::{Chunking, Script, compare, event, expected_events, wire_lines};

pub(crate) fn replay(script: &Script, chunking: &mut Chunking) -> Result<(), String> {
    let answers = script.directives("answer").map(str::to_owned).collect();
    let limit = script.number("buffer", 4096);
    let mut dialogue = Dialogue::new(plan(script), limit, answers);
    for turn in script.turns('R') {
        dialogue.send(&turn.sent, |available| chunking.next(available));
        let expected = expected_events(turn.expected, 'B', "answer");
        compare(&turn.sent, &expected, &dialogue.take_events())?;
    }
    Ok(())
}

pub(crate) fn plan(script: &Script) -> BackendPlan {
    let protocol = match script.setting("protocol") {
        Some("imap") => Protocol::Imap,
        Some("pop3") => Protocol::Pop3,
        Some("smtp") => Protocol::Smtp,
        Some("sieve") => Protocol::Sieve,
        other => panic!("protocol: {other:?}"),
    };
    let client = script.setting("client").map(|text| {
        let (address, host) = text.split_once(' ').unwrap_or((text, ""));
        ClientInfo {
            address: address.parse().ok(),
            destination: script.setting("destination").map(|text| text.parse().unwrap()),
            host: host.to_owned(),
        }
    });
    let negotiation = match script.setting("xclient") {
        None | Some("auto") => XclientNegotiation::Auto,
        Some("always") => XclientNegotiation::Always,
        Some(other) => panic!("xclient: {other}"),
    };
    let line = |key: &str| script.setting(key).map(|text| text.as_bytes().to_vec());
    let hello = script.setting("hello").map(|text| Hello {
        extended: text.starts_with("EHLO "),
        name: text.split_at(5).1.as_bytes().to_vec(),
    });
    BackendPlan {
        protocol,
        start_tls: script.setting("starttls") == Some("yes"),
        server_name: script.setting("server-name").unwrap_or("mail.test").to_owned(),
        client_hello: script.setting("ehlo-name") == Some("client"),
        tag: format!("{} ", script.setting("tag").unwrap_or("a")).into_bytes(),
        login: login(script),
        envelope: Envelope { hello, mail: line("mail"), rcpt: line("rcpt") },
        xclient: client.clone().filter(|_| protocol == Protocol::Smtp).map(|client| (client, negotiation)),
        imap_id: client.filter(|_| protocol == Protocol::Imap).map(|client| (client, client_id(script))),
        verbatim: script.setting("passthrough") == Some("yes"),
    }
}

/// Parses `field=value, field=NIL`.
fn client_id(script: &Script) -> ClientId {
    let parameters = script.list("id", "");
    let parameters = parameters.iter().map(|text| text.split_once('=').expect("field=value"));
    ClientId::new(
        parameters
            .map(|(field, value)| (field.as_bytes(), Some(value.as_bytes()).filter(|_| value != "NIL"))),
    )
}

fn login(script: &Script) -> BackendLogin {
    let bytes = |key: &str| super::script::unescape(script.setting(key).unwrap_or_default());
    if let Some(relayed) = script.setting("relayed") {
        let (name, initial) = relayed.split_once(' ').map_or((relayed, None), |(name, ir)| (name, Some(ir)));
        return BackendLogin::Request(LoginRequest::Relayed {
            mechanism: Mechanism::from_sasl_name(name.as_bytes()).unwrap(),
            initial_response: initial.map(|initial| Secret::from(initial.as_bytes())),
        });
    }
    if script.setting("external").is_some() {
        return BackendLogin::Request(LoginRequest::External { login: bytes("external") });
    }
    if script.setting("trusted").is_some() {
        return BackendLogin::Trusted { login: bytes("trusted") };
    }
    if script.setting("none") == Some("yes") {
        return BackendLogin::Request(LoginRequest::Anonymous);
    }
    BackendLogin::Request(LoginRequest::Password {
        login: bytes("login"),
        password: Secret::new(bytes("password")),
        authzid: bytes("authzid"),
    })
}

/// Returns the event's word for the cause of a refusal.
fn cause_name(cause: RefusalCause) -> &'static str {
    match cause {
        RefusalCause::Credentials => "refused",
        RefusalCause::Client => "declined",
        RefusalCause::Server => "unavailable",
    }
}

/// A connection to a backend, from its greeting to the decision on the login.
pub(crate) struct Dialogue {
    /// `None` when the login is decided, or has failed.
    now: Option<Backend>,
    input: Input,
    /// The client's answers to challenges; `*` (RFC 4954: the client cancels) once there are no more.
    answers: VecDeque<String>,
    output: Vec<u8>,
    events: Vec<String>,
    /// What each call of the state machine has appended for the backend.
    pub(crate) outputs: Vec<Vec<u8>>,
}

impl Dialogue {
    pub(crate) fn new(plan: BackendPlan, limit: usize, answers: VecDeque<String>) -> Self {
        Self {
            now: Some(Backend::new(plan)),
            input: Input::new(limit),
            answers,
            output: Vec::new(),
            events: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// Tells whether the login is decided, or has failed.
    pub(crate) fn is_over(&self) -> bool {
        self.now.is_none()
    }

    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// Sends the bytes of one turn in chunks.
    pub(crate) fn send(&mut self, mut bytes: &[u8], mut chunk: impl FnMut(usize) -> usize) {
        while !bytes.is_empty() && !self.is_over() {
            let available = bytes.len().min(self.input.room());
            assert!(available > 0, "a full input and no end");
            let (now, later) = bytes.split_at(chunk(available));
            self.input.append(now).unwrap();
            bytes = later;
            self.step(bytes);
        }
        self.flush();
    }

    /// `unsent`: bytes that the backend sends together with the previous ones.
    fn step(&mut self, unsent: &[u8]) {
        let Some(backend) = self.now.take() else { return };
        let before = self.output.len();
        let step = backend.receive(&mut self.input, &mut self.output);
        self.record(before);
        match step {
            BackendStep::Read(backend) => self.now = Some(backend),
            BackendStep::StartTls(start_tls) => {
                let injected = self.input.len() + unsent.len();
                self.flush();
                if injected == 0 {
                    self.events.push("starttls".to_owned());
                    self.now = Some(start_tls.secured(&mut self.output));
                    self.record(0);
                } else {
                    self.events.push(format!("starttls injected={injected}"));
                }
            }
            BackendStep::Challenge(challenge, exchange) => {
                self.event("challenge", &format!("\"{}\"", challenge.escape_ascii()));
                self.answer(exchange);
                // The backend may have sent more.
                self.step(unsent);
            }
            BackendStep::Ready { reply, refused, .. } => {
                self.end("ready", &reply, unsent);
                if let Some(cause) = refused {
                    self.event("recipient", cause_name(cause));
                }
            }
            BackendStep::Refused(Refusal { reply, cause }) => self.end(cause_name(cause), &reply, unsent),
            BackendStep::Failed(error) => self.event("failed", &error.to_string()),
        }
    }

    fn answer(&mut self, exchange: BackendExchange) {
        let answer = self.answers.pop_front().unwrap_or_else(|| "*".to_owned());
        let answer = Secret::from(answer.as_bytes());
        let before = self.output.len();
        self.now = Some(exchange.answer(&answer, &mut self.input, &mut self.output));
        self.record(before);
    }

    /// Records what a call has appended behind `before` bytes.
    fn record(&mut self, before: usize) {
        let appended = self.output.get(before..).unwrap_or_default();
        if !appended.is_empty() {
            self.outputs.push(appended.to_vec());
        }
    }

    fn end(&mut self, word: &str, reply: &[u8], unsent: &[u8]) {
        self.event(word, &format!("\"{}\"", reply.escape_ascii()));
        let rest = [self.input.peek(), unsent].concat();
        if !rest.is_empty() {
            self.event("rest", &format!("\"{}\"", rest.escape_ascii()));
        }
    }

    fn event(&mut self, word: &str, value: &str) {
        self.flush();
        self.events.push(event(word, value));
    }

    fn flush(&mut self) {
        self.events.extend(wire_lines('B', &std::mem::take(&mut self.output)));
    }
}
