//! Generates `docs/reference/log.md`: all log lines with their level and fields, from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::cell;
use crate::source::production;

pub fn page() -> String {
    let mut lines = BTreeSet::new();
    for (_, code) in production() {
        visit(code, &mut lines);
    }
    let mut page = HEAD.to_owned();
    let used: BTreeSet<&str> = lines.iter().flat_map(|line| &line.fields).map(String::as_str).collect();
    let described: BTreeMap<&str, &str> = FIELDS.into();
    let described_names: BTreeSet<&str> = described.keys().copied().collect();
    assert_eq!(used, described_names, "FIELDS in {} is to say what each means", file!());
    for (name, meaning) in described {
        writeln!(page, "| `{name}` | {} |", cell(meaning)).unwrap();
    }
    page.push_str(LINES);
    let meanings: BTreeMap<&str, &str> = WHOLE_MESSAGES.into();
    let messages: BTreeSet<&str> = lines.iter().map(|line| line.message.as_str()).collect();
    let unused: Vec<&&str> = meanings.keys().filter(|message| !messages.contains(**message)).collect();
    assert!(unused.is_empty(), "WHOLE_MESSAGES in {} has messages that are not logged: {unused:?}", file!());
    for Line { level, message, fields } in &lines {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let meaning = meanings.get(message.as_str()).map(|meaning| format!(": {meaning}"));
        assert!(meaning.is_some() || !is_placeholder(message), "WHOLE_MESSAGES in {}: {message}", file!());
        let message = cell(message) + &meaning.unwrap_or_default();
        writeln!(page, "| {level} | {message} | {} |", fields.join(", ")).unwrap();
    }
    page
}

/// A log line in the source.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    message: String,
    level: String,
    fields: Vec<String>,
}

/// Finds `info!(…)`, and `$level!(…)` in a macro.
fn visit(tokens: TokenStream, lines: &mut BTreeSet<Line>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for window in tokens.windows(3) {
        let [TokenTree::Ident(name), TokenTree::Punct(mark), TokenTree::Group(body)] = window else {
            continue;
        };
        let name = name.to_string();
        let level = match name.as_str() {
            "error" | "warn" | "info" | "debug" | "trace" => name.as_str(),
            "level" => "info or warn",
            _ => continue,
        };
        if mark.as_char() == '!' && body.delimiter() == Delimiter::Parenthesis {
            lines.insert(line(level, body.stream()));
        }
    }
    for token in tokens {
        if let TokenTree::Group(group) = token {
            visit(group.stream(), lines);
        }
    }
}

fn line(level: &str, body: TokenStream) -> Line {
    let mut line = Line { level: level.to_owned(), message: String::new(), fields: Vec::new() };
    let mut argument: Vec<TokenTree> = Vec::new();
    let mut arguments = Vec::new();
    for token in body {
        match &token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                arguments.push(std::mem::take(&mut argument))
            }
            _ => argument.push(token),
        }
    }
    arguments.push(argument);
    for argument in arguments {
        match argument.as_slice() {
            [TokenTree::Literal(message)] => {
                line.message = unquoted(&message.to_string());
                // The arguments after the message fill it in.
                break;
            }
            [TokenTree::Ident(target), TokenTree::Punct(colon), ..]
                if target == "target" && colon.as_char() == ':' => {}
            [TokenTree::Ident(name), ..] => line.fields.push(name.to_string()),
            [TokenTree::Punct(_), TokenTree::Ident(name), ..] => line.fields.push(name.to_string()),
            _ => {}
        }
    }
    line
}

fn unquoted(literal: &str) -> String {
    let text = literal.trim_start_matches('"').trim_end_matches('"').replace("\\\n", "");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    // Backticks, because Markdown would interpret angle brackets and stars.
    format!("`{}`", readable(&text))
}

/// Replaces the placeholders of a format string that are not a plain name, such as `{}` and `{LABEL:?}`.
fn readable(text: &str) -> String {
    let mut parts = text.split('{');
    let mut readable = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap();
        let is_plain =
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
        readable += &if is_plain { format!("{{{name}}}") } else { "…".to_owned() };
        readable += rest;
    }
    readable
}

/// Tells whether a message is one placeholder, so that it says nothing without its meaning.
fn is_placeholder(message: &str) -> bool {
    let inner = message.strip_prefix("`{").and_then(|message| message.strip_suffix("}`"));
    inner.is_some_and(|inner| !inner.contains(['{', '}']))
}

/// The meaning of the fields.
const FIELDS: [(&str, &str); 40] = [
    ("address", "the address that Mailgress listens on or connects to"),
    ("attempt", "the number of the login in its connection, from 1"),
    (
        "backend",
        "the address of the session's backend, or of its last one; empty if the session did not connect to one",
    ),
    (
        "backends",
        "how many connections to backends the session had, because routes placed its mail; omitted if there was only one",
    ),
    ("bound", "the addresses that were bound"),
    ("client", "the client's address, or the source in a trusted PROXY header; `unix:` for UNIX sockets"),
    ("delay", "`--drain-delay`"),
    ("error", "the error of the operating system or a library"),
    (
        "fault",
        "who has to act: `none`, `client`, `backend`, `auth_service`, `configuration`, `us`. If the backend refuses a \
         password, this is `client` if the client gave the password, and else `backend`. About a backend that closes \
         after the login, see [below](#a-backend-that-closes-after-the-login)",
    ),
    ("file", "the manifest"),
    ("group", "the group of exclusive users: `namespace/name`"),
    ("lines", "the number of lines"),
    ("listener", "`namespace/object/listener`; for a MailListener `namespace/object`"),
    ("listeners", "the listeners of a socket"),
    ("login", "the login name, shortened to 256 bytes and escaped; empty before a login"),
    ("logins_refused", "logins of the session that were refused to the client; omitted if 0"),
    (
        "logins_unavailable",
        "logins of the session that were refused through a fault of the backend or the auth service: a temporary failure, or a backend that requires TLS; omitted if 0",
    ),
    ("method", "how the client logs in, as in nginx's `Auth-Method`"),
    ("node", "the node's name"),
    ("outcome", "how the session ended; the same value as in the metric `mailgress_sessions_total`"),
    ("ports", "the number of ports"),
    ("problem", "why the file, the object or the name server cannot be used"),
    ("protocol", "`smtp`, `imap`, `pop3`, `sieve`"),
    ("reason", "why a login was refused; see above"),
    (
        "recipients_refused",
        "recipients of mail without a login that Mailgress refused because of a route, after the first one of each transaction; omitted if 0",
    ),
    (
        "refused",
        "the number of bytes that the client sent between STARTTLS and the handshake, and that were discarded",
    ),
    ("revision", "the number of the configuration in this process; each new one is one higher"),
    ("seconds", "how long the session lasted"),
    ("servers", "the name servers' addresses"),
    ("session", "the session's ID, different for each session of all replicas"),
    ("sessions", "the number of sessions that were told to end"),
    ("sockets", "the number of sockets of the configuration"),
    ("timeout", "`--drain-timeout`"),
    ("tls", "`off`, `starttls`, `implicit`"),
    ("tls_version", "`TLSv1.2`, `TLSv1.3`, or empty"),
    ("to_backend", "bytes relayed from the client to the backend after the login"),
    ("to_client", "bytes relayed from the backend to the client after the login"),
    (
        "transactions",
        "how many transactions of mail without a login were placed by routes; omitted if there was only one",
    ),
    ("workers", "the number of worker threads"),
    ("zone", "the zone's name"),
];

/// The meaning of messages that are one placeholder.
const WHOLE_MESSAGES: [(&str, &str); 5] = [
    (
        "`{change}`",
        "a condition of an object has changed, or the object was removed; the message has the condition with its \
         reason and text",
    ),
    ("`{end}`", "a session has ended; the message is the outcome in words"),
    (
        "`{notice}`",
        "an optional permission is missing; the message says which, and what does not work without it",
    ),
    ("`{line}`", "the reason for the end of the process, or one line of a panic"),
    ("`{problem}`", "a new entry of `problems` in `/status`"),
];

const HEAD: &str = "# Log

<!-- Generated by `make generate`; do not edit. -->

`mailgress run` writes its log to standard output, as text or, with `--log-format json`, as one JSON object for each line
with `timestamp`, `level`, `target`, `message` and the fields below. `--log` filters it: `info,mailgress::session=warn`
omits the lines of sessions that ended normally or by the client's fault. The log never contains a password, a token or the content of a mail. It
contains login names.

Logging never delays a session and never ends the process. Lines wait in a queue of 1 MiB, usually for 20 ms, so that many
are written at once. If the queue is full or standard output cannot be written, lines are dropped.
`mailgress_log_lines_dropped_total` counts them, and a warning reports their number as soon as lines can be written again.
When the process ends, it waits at most two seconds for its last lines to be written. After the log has started,
the reason for the end is a line of the log, also for a panic. An error before that is on standard error.

Every session has one line when it ends, with the target `mailgress::session`. The level is info if nothing failed or the
client was at fault. It is warn if the backend, the auth service, the configuration or Mailgress was at fault.

## A backend that closes after the login

If the backend closes the connection while a reply, a response or a message is incomplete, the session ends with
`outcome=\"relay_error\"` and `fault=\"backend\"`, as after a reset. What Mailgress can detect depends on the protocol:

| protocol | the backend is at fault if it closes |
| --- | --- |
| SMTP | in the middle of a message; before it has replied to a command other than QUIT; in the middle of a reply; after a `421` that it sent without a command (not as a reply); or after a temporary refusal (4xx) of DATA, BDAT or a message |
| IMAP | only inside a response. It is not at fault after `* BYE` (which it also sends to a client that misbehaves), after COMPRESS, or if only the tagged response is missing |
| ManageSieve | only inside a response, unless the client has sent LOGOUT |
| POP3 | never: only the bytes are relayed |

Exception for an unrequested `421`, a temporary refusal and an incomplete message: if the client has sent nothing for five minutes,
the backend is not at fault, because it ends idle sessions this way. A client that closes within an SMTP message has `outcome=\"client_gone\"` and
`fault=\"client\"`.

## Refused logins

Every login that `mailgress_logins_total{outcome=\"refused\"}` counts has a line with the target `mailgress::login` and the level info:

```text
2026-11-28T21:14:17.123456Z  INFO login refused client=192.0.2.7 listener=\"mail/example/imaps\" protocol=\"imap\" login=\"ada\" method=\"plain\" reason=\"credentials\" attempt=1
```

```text
{\"timestamp\":\"2026-11-28T21:14:17.123456Z\",\"level\":\"INFO\",\"message\":\"login refused\",\"client\":\"192.0.2.7\",\"listener\":\"mail/example/imaps\",\"protocol\":\"imap\",\"login\":\"ada\",\"method\":\"plain\",\"reason\":\"credentials\",\"attempt\":1,\"target\":\"mailgress::login\"}
```

**This form is stable**: the message, the fields before `attempt`, their order, and the meaning of the values of `reason` do not
change. New fields may be added after `attempt`, and `reason` may get new values. `deploy/examples/fail2ban` and
`deploy/examples/crowdsec` have the configuration for fail2ban and CrowdSec to read it.

| field | meaning |
| --- | --- |
| `client` | the client's address without a port. `unknown` if a trusted peer does not name the client (`PROXY UNKNOWN`, `LOCAL`), or if its header is not used (`useAsClientAddress: false`): many clients share the peer's own address, so it must not be banned. `unix:` on a UNIX socket |
| `listener` | `namespace/object/listener`; for a MailListener `namespace/object` |
| `protocol` | `imap`, `pop3`, `smtp`, `sieve` |
| `login` | the login name as the client sent it, shortened to 256 bytes. Quotes, backslashes and bytes that are not printable ASCII are escaped. Empty if Mailgress cannot read a name |
| `method` | `plain` (also for LOGIN and USER/PASS), `apop`, `cram-md5`, `external`, `xoauth2`, `oauthbearer`, `none` (mail without a login) |
| `reason` | `credentials`: the login or the password is wrong. `repeated`: the same wrong password for the same login again, which `limits.authFailures` does not count. Without `authFailures`, and for clients in `limits.exempt`, a repeated login also has the reason `credentials`. `policy`: the credentials may be correct, but the account or the mail is not accepted (in use, over a limit, expired). `backend`: the auth service accepted the login and returned a password, which the backend refused. `banned`: the client is banned by `limits.authFailures` |
| `attempt` | the number of the login in its connection, from 1 |

If the backend or the auth service refused a login only for now, there is no such line. The session's line counts the
login in `logins_unavailable`. If they gave no usable answer at all, the session ends, and the `outcome` and `fault` of its
line say why.

## Fields

| field | meaning |
| --- | --- |
";

const LINES: &str = "
## Lines

Mailgress fills in the parts in braces, and each `…`.

| level | message | fields |
| --- | --- | --- |
";
