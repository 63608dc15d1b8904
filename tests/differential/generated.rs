//! Generated sessions: valid and invalid commands in any order, pipelined and in random chunks.
//!
//! Known differences are not generated, because the written sessions cover them with their register numbers. Omitted
//! are EXTERNAL, empty literals, POP3 sessions of more than nginx's 128 bytes, MAIL where a
//! login is required, control characters in SMTP, ID, unclosed quotes, and tags that only
//! Mailgress accepts (M-37). In sessions with challenges, literals, quotes and many words are omitted too, because
//! nginx also reads them in a response (M-01, M-02).

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::differences::Difference;
use super::observed::Observed;
use super::peer::Peers;
use super::scenario::{Scenario, Server, Turn, Verdict};

/// The servers for the generated sessions, and the number of sessions for each.
pub struct Sessions {
    servers: Vec<Scenario>,
    each: u32,
}

impl Sessions {
    /// `MAILGRESS_SESSIONS` is the number for each server. `MAILGRESS_SEED` changes the sessions.
    pub fn new() -> Self {
        let servers = SERVERS.iter().map(|(protocol, body)| Scenario {
            name: format!("{protocol} {{ {body} }}"),
            server: Server {
                protocol: (*protocol).to_owned(),
                body: (*body).to_owned(),
                listen: String::new(),
            },
            implicit_tls: false,
            turns: Vec::new(),
            verdicts: Vec::new(),
            backend: BTreeMap::new(),
        });
        Self { servers: servers.collect(), each: from_environment("MAILGRESS_SESSIONS", SESSIONS) }
    }

    /// Returns one scenario for each server.
    pub fn servers(&self) -> &[Scenario] {
        &self.servers
    }

    /// Plays all sessions, several at once. Panics with the first one that differs, minimised.
    pub fn compare(&self, peers: &Peers) -> u32 {
        let seed = from_environment("MAILGRESS_SEED", 1);
        let all = self.servers.len() * usize::try_from(self.each).unwrap();
        let (next, failure) = (AtomicUsize::new(0), OnceLock::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                let (next, failure) = (&next, &failure);
                scope.spawn(move || {
                    while failure.get().is_none() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= all {
                            return;
                        }
                        let server = &self.servers[number % self.servers.len()];
                        // Each session has its own seed, so that the sessions do not depend on the threads' speed.
                        let mut runner = runner(seed, u32::try_from(number).unwrap());
                        if let Err(differs) = compare(server, &mut runner, peers) {
                            let _ = failure.set(differs);
                        }
                    }
                });
            }
        });
        if let Some(differs) = failure.get() {
            panic!("a generated session differs (seed {seed}): {differs}");
        }
        u32::try_from(all).unwrap()
    }
}

fn runner(seed: u32, session: u32) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    bytes[4..8].copy_from_slice(&session.to_be_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn from_environment(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Plays one more session. Minimises it while it differs.
fn compare(server: &Scenario, runner: &mut TestRunner, peers: &Peers) -> Result<(), String> {
    let takes_literals = !server.name.contains("starttls only");
    let mut tree = session(&server.server.protocol, takes_literals).new_tree(runner).unwrap();
    let play = |session: &Session| {
        let scenario = session.scenario(server);
        let mut last = (String::new(), false);
        for _ in 0..REPEATS {
            let (mut nginx, mut mailgress) = peers.play(&scenario);
            in_nginxs_words(&mut mailgress);
            if nginx.replies.iter().any(|line| line.ends_with("NO no")) {
                without_tags(&mut nginx);
                without_tags(&mut mailgress);
            }
            let found = Difference::between(&server.name, &nginx, &mailgress);
            if found.is_empty() || is_known(&nginx, &mailgress) {
                return None;
            }
            let text: String = found.iter().map(Difference::to_string).collect();
            last = (format!("{session:?}\n{text}"), is_cut_short(&nginx, &mailgress));
        }
        Some(last)
    };
    let differ = |session: &Session| {
        let (text, is_cut_short) = play(session)?;
        // Sent in one piece, nginx has read everything when it closes.
        let agrees = is_cut_short && play(&Session { pieces: Vec::new(), ..session.clone() }).is_none();
        (!agrees).then_some(text)
    };
    let Some(mut smallest) = differ(&tree.current()) else { return Ok(()) };
    let mut is_smaller = tree.simplify();
    for _ in 0..SHRINKS {
        if !is_smaller {
            break;
        }
        is_smaller = match differ(&tree.current()) {
            Some(smaller) => {
                smallest = smaller;
                tree.simplify()
            }
            None => tree.complicate(),
        };
    }
    Err(smallest)
}

/// Tells whether a difference is known but occurs only sometimes. nginx 1.22 requests mail without a login with the
/// name of an earlier login, loses the tag of commands that are pipelined after a challenge, asks about
/// logins with NUL, CR and LF, and sends POP3 backends the control characters that SASL allowed. It escapes
/// XCLIENT since 1.29.2. Mailgress refuses AUTH after mail without a login (M-29).
fn is_known(nginx: &Observed, mailgress: &Observed) -> bool {
    let was_refused = nginx.replies.iter().any(|line| line.ends_with("NO no"));
    let loses_tag = |line: &String| !was_refused && line == "BAD invalid command";
    let is_raw =
        |line: &String| line.contains('\\') && (line.starts_with("USER ") || line.starts_with("PASS "));
    let is_escaped = |line: &String| line.contains('+') && line.starts_with("XCLIENT ");
    let is_stale = |lines: &[String]| lines[0] == "auth-method: none" && lines[1] != "auth-user:";
    let is_unsafe = |line: &String| {
        line.starts_with("auth-") && ["%00", "%0D", "%0A"].iter().any(|escape| line.contains(escape))
    };
    nginx.replies.iter().any(loses_tag)
        || nginx.requests.iter().any(is_unsafe)
        || nginx.requests.windows(2).any(is_stale)
        || nginx.backend.iter().any(is_raw)
        || mailgress.backend.iter().any(is_escaped)
        || mailgress.replies.iter().any(|line| line.starts_with("503 5.5.1 AUTH"))
}

/// Tells whether the only difference is that nginx closed and its last replies were lost.
fn is_cut_short(nginx: &Observed, mailgress: &Observed) -> bool {
    let closed = [nginx, mailgress].iter().all(|side| side.replies.ends_with(&["[closed]".to_owned()]));
    let told = nginx.replies.len().saturating_sub(1);
    closed
        && mailgress.replies.starts_with(&nginx.replies[..told])
        && (&nginx.requests, &nginx.backend) == (&mailgress.requests, &mailgress.backend)
}

/// Replaces what Mailgress says in addition about a refused login (M-35, M-36), and about tags that only it accepts
/// (M-37).
fn in_nginxs_words(mailgress: &mut Observed) {
    for line in &mut mailgress.replies {
        for refusal in ["NO [PRIVACYREQUIRED] ", "NO [CANNOT] "] {
            if let Some(start) = line.find(refusal) {
                line.replace_range(start.., "BAD invalid command");
            }
        }
        let is_of_nginx = |tag: &str| {
            let is_tag_char = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
            tag.len() <= 32 && tag.chars().all(is_tag_char)
        };
        if line.strip_suffix(" BAD invalid command").is_some_and(|tag| !is_of_nginx(tag)) {
            "* BAD invalid command".clone_into(line);
        }
        if line == "504 5.5.4 Unrecognized authentication type" {
            "500 5.5.1 Invalid command".clone_into(line);
        }
    }
}

/// Removes tags: after a refused login, nginx answers an invalid line with the old tag.
fn without_tags(observed: &mut Observed) {
    for line in &mut observed.replies {
        if line.ends_with("BAD invalid command") {
            "BAD invalid command".clone_into(line);
        }
    }
}

/// A generated session.
#[derive(Clone, Debug)]
struct Session {
    lines: Vec<String>,
    /// Sizes of the writes. The last one is for the rest.
    pieces: Vec<usize>,
    verdicts: Vec<bool>,
    end: &'static str,
}

impl Session {
    fn scenario(&self, server: &Scenario) -> Scenario {
        let text = self.lines.concat();
        let mut rest = text.as_bytes();
        let mut turns = Vec::new();
        for size in &self.pieces {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            turns.push(Turn { sent: now.to_vec(), ..Turn::default() });
            rest = later;
        }
        turns.push(Turn { sent: rest.to_vec(), ..Turn::default() });
        let end = Turn { sent: self.end.into(), ends: true, ..Turn::default() };
        turns.extend(std::iter::repeat_n(end, ENDS));
        let verdicts = self.verdicts.iter().map(|accepted| match accepted {
            true => Verdict::Accept,
            false => Verdict::Refuse { text: "no".to_owned(), code: None },
        });
        Scenario { turns, verdicts: verdicts.collect(), ..server.clone() }
    }
}

/// `takes_literals`: false if logins are refused without TLS, because Mailgress then requests no literals (M-28).
fn session(protocol: &str, takes_literals: bool) -> BoxedStrategy<Session> {
    let (line, count, end) = match protocol {
        "imap" => (imap_line().boxed(), 1..12, IMAP_END),
        "pop3" => (pop3_line().boxed(), 1..6, POP3_END),
        _ => (smtp_line().boxed(), 1..12, SMTP_END),
    };
    let words = if protocol == "smtp" { 11 } else { 3 };
    let longest = if protocol == "pop3" { POP3_BUFFER } else { usize::MAX };
    let lines = prop::collection::vec(line, count).prop_filter("what is known to differ", move |lines| {
        let has = |word: &str| lines.iter().any(|line: &String| line.contains(word));
        // A leading space is an empty first word to nginx.
        let is_long = |line: &String| line.starts_with(' ') || line.split_whitespace().count() > words;
        // nginx also sends the salt of an unfinished CRAM-MD5 when it asks about mail without a login.
        let has_salt = has("CRAM-MD5") && has("RCPT");
        lines.iter().map(String::len).sum::<usize>() + ENDS * end.len() <= longest
            && !has_salt
            && (takes_literals || !has("{"))
            && !((has("AUTH") || has("auth")) && (has("{") || has("\"") || lines.iter().any(is_long)))
    });
    let pieces = prop::collection::vec(1..60_usize, 0..6);
    // A refusal takes one second, so generate few.
    let verdicts = prop::collection::vec(prop::bool::weighted(0.8), 0..4);
    (lines, pieces, verdicts)
        .prop_map(move |(lines, pieces, verdicts)| Session { lines, pieces, verdicts, end })
        .boxed()
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

/// A line end, usually the correct one.
fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just(" \r\n")]
}

fn imap_line() -> impl Strategy<Value = String> {
    let tag = prop_oneof![6 => one_of(&["a", "b1", "A.1-_x"]), 1 => one_of(IMAP_TAGS)];
    let command = prop_oneof![
        3 => one_of(IMAP_COMMANDS),
        3 => (imap_string(), imap_string()).prop_map(|(login, password)| format!("LOGIN {login} {password}")),
        2 => one_of(IMAP_SASL),
    ];
    prop_oneof![
        8 => (tag, command, line_end()).prop_map(|(tag, command, end)| format!("{tag} {command}{end}")),
        2 => (one_of(SASL_ANSWERS), line_end()).prop_map(|(answer, end)| format!("{answer}{end}")),
    ]
}

fn imap_string() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z@.\\\\]{1,8}",
        2 => "[a-z @.]{0,8}".prop_map(|text| format!("\"{text}\"")),
        1 => "[a-z]{1,3}\\\\[\"\\\\]".prop_map(|text| format!("\"{text}\"")),
        1 => "[a-z \"]{1,9}".prop_map(|text| format!("{{{}}}\r\n{text}", text.len())),
        1 => "[a-z \"]{1,9}".prop_map(|text| format!("{{{}+}}\r\n{text}", text.len())),
    ]
}

fn pop3_line() -> impl Strategy<Value = String> {
    let line = prop_oneof![4 => one_of(POP3_COMMANDS), 1 => one_of(POP3_SASL), 1 => one_of(SASL_ANSWERS)];
    (line, line_end()).prop_map(|(line, end)| format!("{line}{end}"))
}

fn smtp_line() -> impl Strategy<Value = String> {
    let line = prop_oneof![4 => one_of(SMTP_COMMANDS), 2 => one_of(SMTP_SASL), 1 => one_of(SASL_ANSWERS)];
    (line, line_end()).prop_map(|(line, end)| format!("{line}{end}"))
}

const SERVERS: &[(&str, &str)] = &[
    ("imap", "imap_auth plain login cram-md5; imap_capabilities IMAP4rev1 LITERAL+ \"X Y\";"),
    ("imap", "starttls only; max_errors 20;"),
    ("pop3", "pop3_auth plain apop cram-md5;"),
    ("pop3", "starttls on; proxy_pass_error_message on;"),
    ("smtp", "smtp_auth plain login cram-md5 none; smtp_capabilities \"SIZE 100\" 8BITMIME;"),
    ("smtp", "smtp_auth login none; xclient off; max_errors 3;"),
];

const IMAP_TAGS: &[&str] = &["", "a+b", "*", "0123456789abcdef0123456789abcdef", "a  "];

const IMAP_COMMANDS: &[&str] = &[
    "NOOP",
    "noop",
    "NOOP x y",
    "CAPABILITY",
    "CAPABILITY x",
    "SELECT INBOX",
    "LOGIN",
    "LOGIN x",
    "LOGIN a b c",
    "LOGIN a b c d",
    "STATUS \"a b\"",
    "AUTHENTICATE",
    "UNSELECT",
    "NO OP",
    "\"NOOP\"",
    "LOGIN \"a\"\"b\"",
    "LOGIN \"a\" ",
    "LOGIN  a  b",
];

const IMAP_SASL: &[&str] = &[
    "AUTHENTICATE PLAIN",
    "AUTHENTICATE plain AG1lAHB3",
    "AUTHENTICATE PLAIN =",
    "AUTHENTICATE PLAIN !",
    "AUTHENTICATE LOGIN",
    "AUTHENTICATE LOGIN bWU=",
    "AUTHENTICATE CRAM-MD5",
    "AUTHENTICATE CRAM-MD5 x",
    "AUTHENTICATE GSSAPI",
    "AUTHENTICATE PLAIN AG1lAHB3 x",
];

const SASL_ANSWERS: &[&str] = &[
    "AG1lAHB3",
    "bWU=",
    "cHc=",
    "bWU",
    "*",
    "=",
    "!",
    "bWU= x",
    "Zm9vAGJhcgBi",
    "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw",
];

const POP3_COMMANDS: &[&str] = &[
    "USER me",
    "user  me",
    "USER a b ",
    "USER",
    "PASS pw",
    "PASS  p w ",
    "PASS",
    "CAPA",
    "NOOP",
    "NOOP x",
    "STAT",
    "XYZ",
    "APOP me abc",
    "APOP me",
    "APOP a b c",
    "USER me\r\nPASS pw",
    "LIST 1",
];

const POP3_SASL: &[&str] = &[
    "AUTH",
    "AUTH PLAIN",
    "AUTH PLAIN AG1lAHB3",
    "AUTH LOGIN",
    "AUTH LOGIN bWU=",
    "AUTH CRAM-MD5",
    "AUTH FOO",
    "auth plain",
    "AUTH PLAIN =",
];

const SMTP_COMMANDS: &[&str] = &[
    "EHLO a",
    "EHLO a.b.example",
    "EHLO",
    "EHLO a b",
    "HELO a",
    "helo  a",
    "NOOP",
    "NOOP x",
    "RSET",
    "VRFY x",
    "EXPN x",
    "HELP",
    "XYZ",
    "MAIL FROM:<a@b>",
    "mail from:<>  SIZE=1",
    "MAIL",
    "RCPT TO:<c@d>",
    "RCPT",
    "RCPT TO:<c@d> NOTIFY=NEVER",
    "DATA",
    "LHLO a",
    "E",
    "NOOP 1 2 3 4 5 6 7 8 9 10 11",
    "NOOP 1 2 3 4 5 6 7 8 9 10 11 12",
];

const SMTP_SASL: &[&str] = &[
    "AUTH",
    "AUTH PLAIN",
    "AUTH PLAIN AG1lAHB3",
    "AUTH plain AG1lAHB3 x",
    "AUTH LOGIN",
    "AUTH LOGIN bWU=",
    "AUTH CRAM-MD5",
    "AUTH CRAM-MD5 x",
    "AUTH FOO",
    "AUTH PLAIN !",
    "AUTH PLAIN =",
];

/// Ends every session: a response to a challenge, or a command, here or at the backend.
const IMAP_END: &str = "z LOGOUT\r\n";
const POP3_END: &str = "QUIT\r\n";
const SMTP_END: &str = "QUIT\r\n";

/// How often the end is sent: LOGIN needs two responses before the command. They are sent one by one, because nginx
/// loses its replies if it closes with unread bytes.
const ENDS: usize = 3;

/// All bytes of a POP3 session before the login that fit into nginx's buffer.
const POP3_BUFFER: usize = 127;

/// The default of `MAILGRESS_SESSIONS`.
const SESSIONS: u32 = 400;

const SHRINKS: u32 = 40;

/// A session that differs is repeated, because nginx may lose replies when it closes with unread bytes.
const REPEATS: u32 = 4;

const AT_ONCE: u8 = 32;
