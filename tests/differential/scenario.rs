//! A scenario: the server's settings, the client's bytes, and the answers of auth service and backend.

use std::collections::BTreeMap;

use super::script::{Line, Script, unescape};

/// One session.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The path, such as `imap/capability.txt`.
    pub name: String,
    /// The server block.
    pub server: Server,
    /// Whether the client starts with TLS on a port with implicit TLS.
    pub implicit_tls: bool,
    /// The client's actions in order.
    pub turns: Vec<Turn>,
    /// The auth service's answers, one for each request. The last one is for all further requests.
    pub verdicts: Vec<Verdict>,
    /// The backend's replies that differ from the default, by the command's first word.
    pub backend: BTreeMap<String, Vec<u8>>,
}

/// The text of a `server {}`, without its `listen`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// `imap`, `pop3` or `smtp`.
    pub protocol: String,
    /// The directives.
    pub body: String,
    /// The parameters of `listen`.
    pub listen: String,
}

/// A write of the client, and what it waits for before the next one.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// The bytes. `{client}` is replaced.
    pub sent: Vec<u8>,
    /// Number of reply lines to wait for; there may be fewer or more.
    pub lines: usize,
    /// Whether a login is decided, which may take longer.
    pub decides: bool,
    /// Also wait until the server closes.
    pub closes: bool,
    /// Wait until the server closes, as long as it sends something from time to time.
    pub ends: bool,
    /// Give the server time to read these bytes before the next ones. No reply is expected.
    pub silence: bool,
    /// Start TLS afterwards, if the server has agreed.
    pub starts_tls: bool,
}

/// An answer of the auth service.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Accepts, with the backend's address.
    Accept,
    /// Refuses with `Auth-Wait: 1`, so that the session continues.
    Refuse {
        /// The value of `Auth-Status`.
        text: String,
        /// The value of `Auth-Error-Code`.
        code: Option<String>,
    },
    /// An invalid answer.
    Broken,
    /// These bytes, with `{server}` and `{port}` replaced.
    Raw(Vec<u8>),
}

impl Scenario {
    /// Returns all transcripts and cases that nginx can play, and the number of the others.
    pub fn written() -> (Vec<Self>, usize) {
        let mut found = Vec::new();
        let mut others = 0;
        for (folder, protocol) in [("imap", "imap"), ("pop3", "pop3"), ("smtp", "smtp")] {
            for script in Script::all(&format!("transcripts/{folder}")) {
                if is_of_nginx(protocol, &script) {
                    found.push(Self::parse(protocol, &script));
                } else {
                    others += 1;
                }
            }
        }
        for script in Script::all("differential/cases") {
            let protocol =
                script.setting("protocol").unwrap_or_else(|| panic!("{}: no protocol", script.name));
            found.push(Self::parse(protocol, &script));
        }
        (found, others)
    }

    /// Tells whether this is one of the numbered vectors.
    pub fn is_vector(&self) -> bool {
        let file = self.name.rsplit('/').next().unwrap_or_default();
        file.starts_with(|first: char| first.is_ascii_uppercase())
    }

    fn parse(protocol: &str, script: &Script) -> Self {
        let turns = script.turns('C').into_iter().map(|turn| Turn {
            sent: turn.sent,
            lines: turn.expected.iter().map(lines_of).sum(),
            decides: turn.expected.iter().any(|line| is_word(line, "auth")),
            closes: turn.expected.iter().any(|line| is_word(line, "close")),
            ends: false,
            silence: turn.expected.iter().any(|line| is_word(line, "silence")),
            // With the number of refused bytes, if there are any.
            starts_tls: turn
                .expected
                .iter()
                .any(|line| matches!(line, Line::Word(word, _) if word.starts_with("starttls"))),
        });
        let backend = script.settings.iter().filter_map(|(key, value)| {
            let verb = key.strip_prefix("on-")?;
            Some((verb.to_uppercase(), unescape(value)))
        });
        let server = Server::parse(protocol, script);
        Self {
            name: script.name.clone(),
            implicit_tls: server.listen.contains("ssl") && script.setting("client-tls") != Some("none"),
            server,
            turns: turns.collect(),
            verdicts: script.directives("auth").map(Verdict::parse).collect(),
            backend: backend.collect(),
        }
    }
}

/// Tells whether nginx supports a script: no passthrough, no mechanisms and limits of Angie, no options of Mailgress
/// only, and no buffer that is small only for testing the state machines.
fn is_of_nginx(protocol: &str, script: &Script) -> bool {
    let is_of_nginx = |method: &String| !method.contains("OAU") && (protocol == "smtp" || method != "NONE");
    let verdicts: Vec<&str> = script.directives("auth").collect();
    NOT_OF_NGINX.iter().all(|key| script.setting(key).is_none())
        && script.number("buffer", SMALLEST_BUFFER) >= SMALLEST_BUFFER
        && script.list("auth-methods", "").iter().all(is_of_nginx)
        && !verdicts.iter().any(|verdict| verdict.starts_with("challenge") || verdict.starts_with("verbatim"))
}

/// Settings of transcripts without a directive.
const NOT_OF_NGINX: &[&str] = &[
    "passthrough",
    "max-commands",
    "counted-errors",
    "password-logins",
    "max-auth-failures",
    "strict-sequence",
    "anonymous-before-tls",
];

/// The minimum of `limits.clientBuffer`.
const SMALLEST_BUFFER: usize = 512;

fn is_word(line: &Line, expected: &str) -> bool {
    matches!(line, Line::Word(word, _) if word == expected)
}

/// Returns the number of lines to wait for. The backend answers an accepted login with one line, and each line after it
/// with one.
fn lines_of(line: &Line) -> usize {
    let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    match line {
        Line::Wire(_, bytes) => count(bytes),
        Line::Word(word, value) if word == "rest" => count(&unescape(value)),
        Line::Word(word, value) => usize::from(word == "auth" && value == "ok"),
    }
}

impl Server {
    fn parse(protocol: &str, script: &Script) -> Self {
        let mut body = Vec::new();
        if let Some(capabilities) = script.setting("capabilities").filter(|list| !list.is_empty()) {
            let quoted: Vec<String> =
                capabilities.split(',').map(|name| format!("\"{}\"", name.trim())).collect();
            body.push(format!("{protocol}_capabilities {};", quoted.join(" ")));
        }
        if let Some(methods) = script.setting("auth-methods") {
            let names = methods.to_lowercase().replace(',', " ");
            body.push(format!("{protocol}_auth {names};"));
        }
        match script.setting("tls") {
            Some("optional") => body.push("starttls on;".to_owned()),
            Some("required") => body.push("starttls only;".to_owned()),
            _ => {}
        }
        if let Some(errors) = script.setting("max-errors") {
            body.push(format!("max_errors {errors};"));
        }
        if let Some(buffer) = script.setting("buffer").filter(|_| protocol != "pop3") {
            body.push(format!("{protocol}_client_buffer {buffer};"));
        }
        if let Some(name) = script.setting("server-name") {
            body.push(format!("server_name {name};"));
        }
        body.extend(script.setting("nginx").map(str::to_owned));
        let tls = if script.setting("tls") == Some("implicit") { "ssl" } else { "" };
        let listen = [tls, script.setting("listen").unwrap_or_default()].join(" ").trim().to_owned();
        Self { protocol: protocol.to_owned(), body: body.join(" "), listen }
    }
}

impl Verdict {
    fn parse(text: &str) -> Self {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "ok" => Self::Accept,
            "refuse" => {
                let code = rest.strip_prefix("code=").and_then(|rest| rest.split_once("; "));
                let (code, text) = code.map_or((None, rest), |(code, text)| (Some(code.to_owned()), text));
                Self::Refuse { text: text.to_owned(), code }
            }
            "error" => Self::Broken,
            "raw" => Self::Raw(unescape(rest)),
            other => panic!("auth: {other}"),
        }
    }
}
