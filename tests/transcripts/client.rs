//! Plays a client for a frontend.

use std::collections::VecDeque;
use std::sync::Arc;

use mailgress::protocol::frontend::{ExchangeStep, StartTlsOffer};
use mailgress::protocol::{
    Attempt, ClientId, CloseReason, CountedErrors, Envelope, Exchange, Frontend, FrontendConfig, Input,
    LoginRequest, Mechanism, PasswordLogins, PendingLogin, Protocol, Refused, StartTls, Step,
};

use super::script::{Chunking, Script, compare, event, expected_events, unescape, wire_lines};

pub(crate) fn replay(protocol: Protocol, script: &Script, chunking: &mut Chunking) -> Result<(), String> {
    let verdicts = script.directives("auth").map(str::to_owned).collect();
    let mut session = Session::new(config(protocol, script), is_implicit(script), verdicts);
    session.nonce(script.setting("nonce").unwrap_or("nonce"));
    session.limit(script.number("buffer", 4096));
    for turn in script.turns('C') {
        session.send(&turn.sent, |available| chunking.next(available));
        compare(&turn.sent, &expected_events(turn.expected, 'S', "auth"), &session.take_events())?;
    }
    Ok(())
}

pub(crate) fn is_implicit(script: &Script) -> bool {
    script.setting("tls") == Some("implicit")
}

pub(crate) fn config(protocol: Protocol, script: &Script) -> FrontendConfig {
    let (capabilities, methods) = match protocol {
        Protocol::Imap => ("IMAP4, IMAP4rev1, UIDPLUS", "PLAIN"),
        Protocol::Pop3 => ("TOP, USER, UIDL", "PLAIN"),
        Protocol::Smtp => ("", "PLAIN, LOGIN"),
        Protocol::Sieve => ("IMPLEMENTATION test, SIEVE fileinto, VERSION 1.0", "PLAIN"),
    };
    let methods = script.list("auth-methods", methods);
    let defaults = FrontendConfig::default();
    let mut config = FrontendConfig {
        protocol,
        server_name: script.setting("server-name").unwrap_or("mail.test").to_owned(),
        capabilities: script.list("capabilities", capabilities),
        mechanisms: Mechanism::ALL
            .into_iter()
            .filter(|mechanism| methods.iter().any(|method| method == mechanism.name()))
            .collect(),
        password_logins: match script.setting("password-logins") {
            None | Some("always") => PasswordLogins::Always,
            Some("listed") => PasswordLogins::Listed,
            Some(other) => panic!("password-logins: {other}"),
        },
        start_tls: match script.setting("tls") {
            None | Some("off") => StartTlsOffer::Disabled,
            Some("optional" | "implicit") => StartTlsOffer::Optional,
            Some("required") => StartTlsOffer::Required,
            Some(other) => panic!("tls: {other}"),
        },
        relay_sasl: script.setting("passthrough") == Some("yes"),
        max_errors: script.number("max-errors", defaults.max_errors),
        counted_errors: match script.setting("counted-errors") {
            None | Some("syntax") => CountedErrors::Syntax,
            Some("all") => CountedErrors::All,
            Some(other) => panic!("counted-errors: {other}"),
        },
        max_commands: script.number("max-commands", defaults.max_commands),
        max_auth_failures: script.number("max-auth-failures", defaults.max_auth_failures),
        ..defaults
    };
    config.smtp.anonymous_before_tls = script.setting("anonymous-before-tls") == Some("yes");
    config.smtp.strict_sequence = script.setting("strict-sequence") == Some("yes");
    config
}

/// A connection from the greeting to its end.
pub(crate) struct Session {
    config: Arc<FrontendConfig>,
    now: Now,
    /// The limit of the input.
    limit: usize,
    secured: bool,
    input: Input,
    verdicts: VecDeque<String>,
    output: Vec<u8>,
    events: Vec<String>,
    /// Bytes after the login, for the backend.
    rest: Option<Vec<u8>>,
    greeted: bool,
    /// The largest output of one call of a state machine.
    pub(crate) largest_output: usize,
    /// All logins so far.
    pub(crate) logins: Vec<Login>,
}

/// A login that a frontend asks to decide, with all that a backend gets of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) request: LoginRequest,
    /// The client used TLS.
    pub(crate) secured: bool,
    pub(crate) tag: Vec<u8>,
    pub(crate) envelope: Envelope,
    pub(crate) client_id: ClientId,
}

enum Now {
    Reading(Frontend),
    Exchanging(Exchange),
    /// The handshake comes next. The rest of this turn was sent in cleartext.
    Handshake(StartTls),
    Over,
}

impl Session {
    pub(crate) fn new(config: FrontendConfig, secured: bool, verdicts: VecDeque<String>) -> Self {
        let config = Arc::new(config);
        Self {
            now: Now::Reading(Frontend::new(Arc::clone(&config), secured)),
            config,
            limit: 4096,
            secured,
            input: Input::new(4096),
            verdicts,
            output: Vec::new(),
            events: Vec::new(),
            rest: None,
            greeted: false,
            largest_output: 0,
            logins: Vec::new(),
        }
    }

    pub(crate) fn nonce(&mut self, nonce: &str) {
        if let Now::Reading(frontend) = std::mem::replace(&mut self.now, Now::Over) {
            self.now =
                Now::Reading(frontend.with_nonce(nonce.to_owned()).with_client(Some([192, 0, 2, 1].into())));
        }
    }

    pub(crate) fn limit(&mut self, limit: usize) {
        self.limit = limit;
        self.input = Input::new(limit);
    }

    /// Tells whether the frontend has ended: it has closed, or the login has succeeded.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.now, Now::Over)
    }

    /// Sends the bytes of one turn in chunks.
    pub(crate) fn send(&mut self, mut bytes: &[u8], mut chunk: impl FnMut(usize) -> usize) {
        if !self.greeted
            && let Now::Reading(frontend) = &mut self.now
        {
            frontend.greet(&mut self.output);
            self.greeted = true;
        }
        while !bytes.is_empty() {
            if let Some(rest) = &mut self.rest {
                rest.extend_from_slice(bytes);
                break;
            }
            let available = bytes.len().min(self.input.room());
            assert!(available > 0 || self.is_over(), "a full input and no end");
            let (now, later) = bytes.split_at(chunk(available));
            self.input.append(now).unwrap();
            bytes = later;
            self.run();
            if let Now::Handshake(_) = &self.now {
                self.shake_hands(bytes.len());
                break;
            }
            if self.is_over() && self.rest.is_none() {
                break;
            }
        }
        self.flush();
        if let Some(rest) = self.rest.take().filter(|rest| !rest.is_empty()) {
            self.events.push(format!("rest: \"{}\"", rest.escape_ascii()));
        }
    }

    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    fn run(&mut self) {
        loop {
            let before = self.output.len();
            let goes_on = match std::mem::replace(&mut self.now, Now::Over) {
                Now::Reading(frontend) => {
                    let step = frontend.receive(&mut self.input, &mut self.output);
                    self.largest_output = self.largest_output.max(self.output.len() - before);
                    self.take(step)
                }
                Now::Exchanging(exchange) => {
                    let step = exchange.receive(&mut self.input, &mut self.output);
                    self.take_answer(step)
                }
                Now::Handshake(_) | Now::Over => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Does what a step requires. Returns whether the state machine can continue.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Read(frontend) => {
                self.now = Now::Reading(frontend);
                return false;
            }
            Step::StartTls(start_tls) => {
                self.now = Now::Handshake(start_tls);
                return false;
            }
            Step::Login(attempt) => self.login(attempt),
            Step::Close(reason) => self.close(reason),
        }
        true
    }

    fn take_answer(&mut self, step: ExchangeStep) -> bool {
        match step {
            ExchangeStep::Read(exchange) => {
                self.now = Now::Exchanging(exchange);
                return false;
            }
            ExchangeStep::Answer(answer, pending) => {
                self.event("answer", &quoted(answer.expose()));
                let verdict = self.next_verdict();
                match verdict.strip_prefix("refuse-answered ") {
                    Some(text) => {
                        let next = pending.refuse_answered(&answer, text.as_bytes(), None, &mut self.output);
                        self.now = self.refused(next);
                    }
                    None => self.decide(&verdict, pending),
                }
            }
            ExchangeStep::Close(reason) => self.close(reason),
        }
        true
    }

    fn login(&mut self, attempt: Attempt) {
        let Attempt { request, pending } = attempt;
        self.event("login", &describe(&request, &pending));
        self.logins.push(Login {
            request,
            secured: self.secured,
            tag: pending.tag().to_vec(),
            envelope: pending.envelope().clone(),
            client_id: pending.client_id().clone(),
        });
        let verdict = self.next_verdict();
        self.decide(&verdict, pending);
    }

    fn next_verdict(&mut self) -> String {
        self.verdicts.pop_front().unwrap_or_else(|| "refuse no".to_owned())
    }

    fn decide(&mut self, verdict: &str, pending: PendingLogin) {
        let (word, text) = verdict.split_once(' ').unwrap_or((verdict, ""));
        let out = &mut self.output;
        self.now = match word {
            "ok" => {
                let input = std::mem::replace(&mut self.input, Input::new(0));
                self.rest = Some(input.into_rest().to_vec());
                Now::Over
            }
            // The client may have been asked for no answer.
            "refuse" | "refuse-answered" => {
                let code = text.strip_prefix("code=").and_then(|text| text.split_once("; "));
                let (code, text) = code.map_or((None, text), |(code, text)| (Some(code), text));
                let next = pending.refuse(text.as_bytes(), code, out);
                self.refused(next)
            }
            "verbatim" => {
                let line = [unescape(text), b"\r\n".to_vec()].concat();
                let next = pending.refuse_verbatim(&line, out);
                self.refused(next)
            }
            "error" => {
                pending.internal_error(out);
                Now::Over
            }
            "challenge" => Now::Exchanging(pending.challenge(text.as_bytes(), out)),
            other => panic!("auth: {other}"),
        };
    }

    fn refused(&mut self, next: Refused) -> Now {
        match next {
            Ok(frontend) => Now::Reading(frontend),
            Err(reason) => {
                self.close(reason);
                Now::Over
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.event("close", &format!("{reason:?}"));
    }

    fn shake_hands(&mut self, unsent: usize) {
        let input = std::mem::replace(&mut self.input, Input::new(self.limit));
        self.secured = true;
        let Now::Handshake(start_tls) = std::mem::replace(&mut self.now, Now::Over) else { return };
        let mut greeting = Vec::new();
        let (frontend, wiped) = start_tls.without_connection(Arc::clone(&self.config), input, &mut greeting);
        self.now = Now::Reading(frontend);
        let refused = wiped.saturating_add(unsent);
        if refused == 0 {
            self.event("starttls", "");
        } else {
            self.flush();
            self.events.push(format!("starttls refused={refused}"));
        }
        self.output.extend(greeting);
    }

    fn event(&mut self, word: &str, value: &str) {
        self.flush();
        self.events.push(event(word, value));
    }

    fn flush(&mut self) {
        self.events.extend(wire_lines('S', &std::mem::take(&mut self.output)));
    }
}

fn describe(request: &LoginRequest, pending: &PendingLogin) -> String {
    let mut parts = vec![request.method().to_owned()];
    let mut part = |name: &str, value: &[u8]| parts.push(format!("{name}={}", quoted(value)));
    match request {
        LoginRequest::Password { login, password, authzid } => {
            part("login", login);
            part("password", password.expose());
            if !authzid.is_empty() {
                part("authzid", authzid);
            }
        }
        LoginRequest::Digest { login, digest, salt, .. } => {
            part("login", login);
            part("digest", digest.expose());
            part("salt", salt);
        }
        LoginRequest::External { login } => part("login", login),
        LoginRequest::Token { login, token, .. } => {
            part("login", login);
            part("token", token.expose());
        }
        LoginRequest::Relayed { initial_response, .. } => {
            if let Some(initial) = initial_response {
                part("initial", initial.expose());
            }
            parts.insert(0, "relayed".to_owned());
        }
        LoginRequest::Anonymous => {
            let envelope = pending.envelope();
            if let Some(hello) = &envelope.hello {
                part(if hello.extended { "ehlo" } else { "helo" }, &hello.name);
            }
            part("mail", envelope.mail.as_deref().unwrap_or_default());
            part("rcpt", envelope.rcpt.as_deref().unwrap_or_default());
        }
    }
    let id: Vec<String> = pending.client_id().quoted().collect();
    if !id.is_empty() {
        parts.push(format!("id=({})", id.join(" ")));
    }
    if pending.attempt() > 1 {
        parts.push(format!("attempt={}", pending.attempt()));
    }
    parts.join(" ")
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
