//! The table of all directives of nginx's and Angie's mail proxies: where they are allowed, their arguments, and
//! messages for those without an equivalent.

use super::problem::{Findings, Note, Problem};
use super::tree::Directive;
use super::values::{self, Finest};
use super::{auth, forks, listen, settings, tls, variables};

/// A directive of the mail proxy.
#[derive(Clone, Copy, Debug)]
pub struct KnownDirective {
    /// The directive's name.
    pub name: &'static str,
    in_mail: bool,
    arguments: (usize, usize),
    repeatable: bool,
    kind: Kind,
}

/// The type of the arguments.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Flag,
    /// A time, possibly in milliseconds.
    Time,
    Seconds,
    Size,
    Number,
    /// One of these words.
    One(&'static [&'static str]),
    /// Several of these words.
    Set(&'static [&'static str]),
    Text,
    /// Checked by this function.
    Own(fn(&Directive) -> Result<(), String>),
    /// Mailgress has no equivalent; the text says what to do.
    Missing(&'static str),
    /// Mailgress has no equivalent and needs none; nothing has to be done.
    Unneeded(&'static str),
    Block,
}

/// Tells whether a directive exists only for mail, so that it is an error outside of `mail {}`.
pub(super) fn belongs_to_mail_only(name: &str) -> bool {
    name == "server" || DIRECTIVES.iter().any(|known| known.name == name && known.name != "error_log")
}

/// Checks all directives of `mail {}` as nginx does while reading them.
pub(super) fn check(mail: &Directive, found: &mut Findings) {
    level(mail, true, found);
}

fn level(outer: &Directive, is_mail: bool, found: &mut Findings) {
    let mut seen: Vec<&str> = Vec::new();
    for directive in outer.block.iter().flatten() {
        let name = directive.name();
        let Some(known) = DIRECTIVES.iter().find(|known| known.name == name) else {
            unknown(directive, found);
            continue;
        };
        if found.keep(form(directive, known, is_mail)).is_none() {
            continue;
        }
        if seen.contains(&name) && !known.repeatable {
            found.problems.push(directive.problem(format!("\"{name}\" directive is duplicate")));
        }
        seen.push(name);
        found.keep(value(directive, known).map_err(|message| directive.problem(message)));
        found.advice.extend(variables::remark(directive));
        found.advice.extend(unneeded(directive));
        match known.kind {
            Kind::Missing(remedy) => found.notes.push(directive.note(format!("{name} {remedy}"))),
            Kind::Unneeded(reason) => found.advice.push(directive.note(format!("{name} {reason}"))),
            Kind::Block => level(directive, false, found),
            _ => found.notes.extend(remark(directive)),
        }
    }
}

/// Handles an unknown directive. One of another program is a note. Any other is refused, as in nginx.
fn unknown(directive: &Directive, found: &mut Findings) {
    let name = directive.name();
    if let Some(note) = forks::of_mail(directive) {
        found.notes.push(note);
        return;
    }
    let message = match ELSEWHERE.contains(&name) {
        true => format!("\"{name}\" directive is not allowed here"),
        false => format!("unknown directive \"{name}\""),
    };
    found.problems.push(directive.problem(message));
}

fn form(directive: &Directive, known: &KnownDirective, is_mail: bool) -> Result<(), Problem> {
    let name = known.name;
    let is_block = matches!(known.kind, Kind::Block);
    let message = match (&directive.block, directive.arguments().len()) {
        _ if known.in_mail != is_mail && (is_block || is_mail) => {
            format!("\"{name}\" directive is not allowed here")
        }
        (None, _) if is_block => format!("directive \"{name}\" has no opening \"{{\""),
        (Some(_), _) if !is_block => format!("directive \"{name}\" is not terminated by \";\""),
        (_, count) if !(known.arguments.0..=known.arguments.1).contains(&count) => {
            format!("invalid number of arguments in \"{name}\" directive")
        }
        _ => return Ok(()),
    };
    Err(directive.problem(message))
}

fn value(directive: &Directive, known: &KnownDirective) -> Result<(), String> {
    let (name, first) = (known.name, directive.argument(0));
    let fits = match known.kind {
        Kind::Flag if !["on", "off"].iter().any(|word| first.eq_ignore_ascii_case(word)) => {
            return Err(format!(
                "invalid value \"{first}\" in \"{name}\" directive, it must be \"on\" or \"off\""
            ));
        }
        Kind::Time => values::time(first, Finest::Milliseconds).is_some(),
        Kind::Seconds => values::time(first, Finest::Seconds).is_some(),
        Kind::Size => values::size(first).is_some(),
        Kind::Number if values::number(first).is_none() => {
            return Err(format!("\"{name}\" directive invalid number"));
        }
        Kind::One(words) | Kind::Set(words) => {
            let is_known = |word: &str| words.iter().any(|known| known.eq_ignore_ascii_case(word));
            let stranger = directive.arguments().iter().find(|word| !is_known(word));
            return stranger.map_or(Ok(()), |word| Err(format!("invalid value \"{word}\"")));
        }
        Kind::Own(check) => return check(directive),
        _ => true,
    };
    if fits { Ok(()) } else { Err(format!("\"{name}\" directive invalid value")) }
}

/// Returns the message for a directive that is not needed.
fn unneeded(directive: &Directive) -> Option<Note> {
    let is_on = directive.name() == "ssl_certificate_compression" && directive.argument(0) == "on";
    let message = "ssl_certificate_compression on: certificates are not compressed; nothing needs to be done, handshakes \
                   are a little larger";
    is_on.then(|| directive.note(message))
}

/// Returns the message for a directive that has an equivalent only for some values.
fn remark(directive: &Directive) -> Option<Note> {
    let first = directive.argument(0);
    let message = match (directive.name(), first) {
        ("ssl_ecdh_curve", curve) if curve != "auto" => {
            "the TLS library's groups are used (X25519MLKEM768, X25519, P-256, P-384); remove the directive"
        }
        ("ssl_prefer_server_ciphers", "on") => {
            "the server's order of cipher suites is used if tls.cipherSuites is set; list them there, or remove the \
             directive"
        }
        _ => return None,
    };
    Some(directive.note(format!("{} {first}: {message}", directive.name())))
}

const fn both(name: &'static str, arguments: (usize, usize), kind: Kind) -> KnownDirective {
    KnownDirective { name, in_mail: true, arguments, repeatable: false, kind }
}

const fn one(name: &'static str, kind: Kind) -> KnownDirective {
    both(name, (1, 1), kind)
}

/// Allowed several times: the arguments are added or the last one counts, as in nginx.
const fn several(name: &'static str, arguments: (usize, usize), kind: Kind) -> KnownDirective {
    KnownDirective { name, in_mail: true, arguments, repeatable: true, kind }
}

const fn in_server(name: &'static str, arguments: (usize, usize), kind: Kind) -> KnownDirective {
    KnownDirective { name, in_mail: false, arguments, repeatable: true, kind }
}

/// More arguments than any directive has in practice.
const MANY: usize = 1024;

/// Directives of nginx that are not allowed in `mail {}`.
const ELSEWHERE: [&str; 12] = [
    "mail",
    "http",
    "stream",
    "events",
    "user",
    "worker_processes",
    "pid",
    "load_module",
    "location",
    "upstream",
    "proxy_pass",
    "root",
];

const PROTOCOLS: &[&str] = &["imap", "pop3", "smtp"];
const IMAP_METHODS: &[&str] = &["plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer"];
const POP3_METHODS: &[&str] = &["plain", "apop", "cram-md5", "external", "xoauth2", "oauthbearer"];
const SMTP_METHODS: &[&str] = &["plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer", "none"];
const TLS_VERSIONS: &[&str] = &["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];

/// All directives. docs/nginx.md has a row for each.
pub const DIRECTIVES: &[KnownDirective] = &[
    KnownDirective { name: "server", in_mail: true, arguments: (0, 0), repeatable: true, kind: Kind::Block },
    in_server("listen", (1, MANY), Kind::Text),
    in_server(
        "protocol",
        (1, 1),
        Kind::Own(|directive| {
            let name = directive.argument(0);
            if PROTOCOLS.contains(&name) { Ok(()) } else { Err(format!("unknown protocol \"{name}\"")) }
        }),
    ),
    one("server_name", Kind::Text),
    one("timeout", Kind::Time),
    one("max_errors", Kind::Number),
    one("max_commands", Kind::Number),
    both("resolver", (1, MANY), Kind::Own(settings::check_resolver)),
    one("resolver_timeout", Kind::Time),
    several(
        "error_log",
        (1, MANY),
        Kind::Unneeded(
            "has no equivalent: logs go to standard output; set `mailgress run --log` and --log-format",
        ),
    ),
    one("imap_client_buffer", Kind::Size),
    several("imap_capabilities", (1, MANY), Kind::Text),
    several("imap_auth", (1, MANY), Kind::Set(IMAP_METHODS)),
    several("pop3_capabilities", (1, MANY), Kind::Text),
    several("pop3_auth", (1, MANY), Kind::Set(POP3_METHODS)),
    one("smtp_client_buffer", Kind::Size),
    one("smtp_greeting_delay", Kind::Time),
    several("smtp_capabilities", (1, MANY), Kind::Text),
    several("smtp_auth", (1, MANY), Kind::Set(SMTP_METHODS)),
    several("auth_http", (1, 1), Kind::Own(|directive| auth::url(directive.argument(0)).map(|_| ()))),
    one("auth_http_timeout", Kind::Time),
    several("auth_http_header", (2, 2), Kind::Text),
    one("auth_http_pass_client_cert", Kind::Flag),
    one("proxy", Kind::Flag),
    one(
        "proxy_buffer",
        Kind::Unneeded(
            "has no equivalent: relay buffers belong to the worker threads and are shared; remove the directive",
        ),
    ),
    one("proxy_timeout", Kind::Time),
    one("proxy_pass_error_message", Kind::Flag),
    one("proxy_protocol", Kind::One(&["on", "off", "v2"])),
    one("proxy_smtp_auth", Kind::Flag),
    one("xclient", Kind::Flag),
    several("set_real_ip_from", (1, 1), Kind::Own(listen::check_network)),
    one("ssl", Kind::Flag),
    one("starttls", Kind::One(&["off", "on", "only"])),
    several("ssl_certificate", (1, 1), Kind::Text),
    several("ssl_certificate_key", (1, 1), Kind::Text),
    one("ssl_password_file", Kind::Text),
    one("ssl_certificate_compression", Kind::Flag),
    several("ssl_protocols", (1, MANY), Kind::Set(TLS_VERSIONS)),
    one("ssl_ciphers", Kind::Text),
    one("ssl_prefer_server_ciphers", Kind::Flag),
    one(
        "ssl_dhparam",
        Kind::Missing("has no equivalent: key exchange is by elliptic curves only; remove the directive"),
    ),
    one("ssl_ecdh_curve", Kind::Text),
    several("ssl_session_cache", (1, 2), Kind::Own(tls::check_session_cache)),
    one("ssl_session_timeout", Kind::Seconds),
    one("ssl_session_tickets", Kind::Flag),
    several(
        "ssl_session_ticket_key",
        (1, 1),
        Kind::Unneeded(
            "has no equivalent: the replicas make, share and rotate ticket keys themselves; remove the directive",
        ),
    ),
    one("ssl_verify_client", Kind::One(&["off", "on", "optional", "optional_no_ca"])),
    one("ssl_verify_depth", Kind::Number),
    one("ssl_client_certificate", Kind::Text),
    one("ssl_trusted_certificate", Kind::Text),
    one("ssl_crl", Kind::Text),
    several(
        "ssl_conf_command",
        (2, 2),
        Kind::Missing("has no equivalent: TLS is not OpenSSL's; see tls.minVersion and tls.cipherSuites"),
    ),
];
