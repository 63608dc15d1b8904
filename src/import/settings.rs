//! Converts directives to the fields of `Settings`, except TLS and the auth service.

use crate::api::Settings;
use crate::api::common::{Duration, Size};
use crate::api::limits::{CountedErrors, LimitSettings};
use crate::api::settings::{
    AuthMethod, EhloName, PasswordLogins, ProtocolSettings, ProxyProtocolVersion, ResolverSettings,
    SmtpSettings, TimeoutSettings, UpstreamSettings,
};
use crate::protocol::own_extensions;

use super::effective::Server;
use super::problem::{Findings, Note};
use super::protocol::Protocol;
use super::tree::Directive;
use super::values::{self, Finest};

/// Returns a server's settings, except TLS and the auth service.
pub(super) fn settings(server: &Server<'_>, found: &mut Findings) -> Settings {
    let notes = &mut found.notes;
    let client = deadline(server, "timeout", notes);
    let timeouts = TimeoutSettings {
        connect: client.clone(),
        client,
        idle: deadline(server, "proxy_timeout", notes),
        ..TimeoutSettings::default()
    };
    let mut settings = Settings {
        server_name: server_name(server, notes),
        upstream: Some(upstream(server)),
        resolver: server.get("resolver").and_then(|directive| resolver(server, directive, notes)),
        timeouts: Some(timeouts),
        limits: Some(limits(server, notes)),
        ..Settings::default()
    };
    let protocol = |capabilities, methods, found: &mut Findings| ProtocolSettings {
        capabilities: self::capabilities(server, capabilities, found),
        auth_methods: auth_methods(server, methods),
        password_logins: password_logins(server, methods),
    };
    match server.protocol {
        Protocol::Imap => settings.imap = Some(protocol("imap_capabilities", "imap_auth", found)),
        Protocol::Pop3 => settings.pop3 = Some(protocol("pop3_capabilities", "pop3_auth", found)),
        Protocol::Smtp => {
            settings.smtp = Some(SmtpSettings {
                capabilities: capabilities(server, "smtp_capabilities", found),
                auth_methods: auth_methods(server, "smtp_auth"),
                password_logins: password_logins(server, "smtp_auth"),
                greeting_delay: server.get("smtp_greeting_delay").map(|d| duration(d, 0, &mut found.notes)),
                ..SmtpSettings::default()
            });
        }
    }
    settings
}

/// Returns a time limit of at least one millisecond.
pub(super) fn deadline<'a>(server: &Server<'a>, name: &'a str, notes: &mut Vec<Note>) -> Option<Duration> {
    server.get(name).map(|directive| duration(directive, 1, notes))
}

fn duration(directive: &Directive, least: u64, notes: &mut Vec<Note>) -> Duration {
    let time = values::time(directive.argument(0), Finest::Milliseconds).unwrap_or_default();
    let kept = time.clamp(least, YEAR);
    if kept != time {
        let written = values::duration(kept).0;
        let message = format!("{} {}", directive.name(), directive.argument(0));
        notes.push(directive.note(format!("{message} was changed to {written}; check this value")));
    }
    values::duration(kept)
}

fn server_name(server: &Server<'_>, notes: &mut Vec<Note>) -> Option<String> {
    let directive = server.get("server_name")?;
    let name = directive.argument(0);
    let inner = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() <= 253 && name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().last())
    {
        return Some(name.to_owned());
    }
    let message =
        format!("server_name {name:?} is not a host name; the host's own name is used; set serverName");
    notes.push(directive.note(message));
    None
}

fn upstream(server: &Server<'_>) -> UpstreamSettings {
    UpstreamSettings {
        proxy_protocol: server.word("proxy_protocol").map(|word| match word.as_str() {
            "on" => ProxyProtocolVersion::V1,
            "v2" => ProxyProtocolVersion::V2,
            _ => ProxyProtocolVersion::Disabled,
        }),
        xclient: server.flag("xclient"),
        smtp_auth: server.flag("proxy_smtp_auth"),
        pass_error_message: server.flag("proxy_pass_error_message"),
        ehlo_name: Some(EhloName::Own),
        ..UpstreamSettings::default()
    }
}

fn limits(server: &Server<'_>, notes: &mut Vec<Note>) -> LimitSettings {
    let mut count = |name| {
        let directive = server.get(name)?;
        let number = values::number(directive.argument(0))?;
        // With 0, the first error closes the session, as with 1.
        bounded(directive, number, (u64::from(name != "max_errors"), 1, 1_000_000), notes).try_into().ok()
    };
    let (max_errors, max_commands) = (count("max_errors"), count("max_commands"));
    let buffer = match server.protocol {
        Protocol::Imap => server.get("imap_client_buffer"),
        Protocol::Smtp => server.get("smtp_client_buffer"),
        Protocol::Pop3 => None,
    };
    let client_buffer: Option<Size> = buffer.and_then(|directive| {
        let bytes = values::size(directive.argument(0))?;
        Some(values::quantity(bounded(directive, bytes, (512, 512, 1 << 20), notes)))
    });
    // nginx counts only syntax errors. This is safe, because the number of commands is always limited.
    let counted_errors = Some(CountedErrors::Syntax);
    LimitSettings { max_errors, counted_errors, max_commands, client_buffer, ..LimitSettings::default() }
}

/// Limits a number to its range. Adds a note if the value changes and was at least `spoken`.
fn bounded(
    directive: &Directive,
    number: u64,
    (spoken, least, most): (u64, u64, u64),
    notes: &mut Vec<Note>,
) -> u64 {
    let kept = number.clamp(least, most);
    if kept != number && number.clamp(spoken, most) != number {
        let message = format!("{} {} became {kept}", directive.name(), directive.argument(0));
        notes.push(directive.note(format!("{message}; the range is {least} to {most}")));
    }
    kept
}

fn capabilities<'a>(server: &Server<'a>, name: &'a str, found: &mut Findings) -> Option<Vec<String>> {
    let list = server.list(name)?;
    let directive = server.get(name)?;
    let visible = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    let usable = |line: &String| line.len() <= 128 && line.split(' ').all(visible);
    let mut own = Vec::new();
    let list = list.iter().filter_map(|line| {
        let taken_apart = own_extensions(server.protocol.wire(), line);
        own.extend(taken_apart.own);
        taken_apart.kept
    });
    let (kept, dropped): (Vec<String>, Vec<String>) = list.partition(usable);
    for line in own {
        let message = format!("{name} {line:?} is omitted: Mailgress announces it automatically");
        found.advice.push(directive.note(message));
    }
    for line in dropped {
        let message = format!("{name} {line:?} is omitted: write words of visible ASCII with single spaces");
        found.notes.push(directive.note(message));
    }
    if kept.len() > 64 {
        found.notes.push(directive.note(format!("{name} has more than 64 entries; the first 64 are kept")));
    }
    Some(kept.into_iter().take(64).collect())
}

fn auth_methods<'a>(server: &Server<'a>, name: &'a str) -> Option<Vec<AuthMethod>> {
    let mut methods: Vec<AuthMethod> = server.list(name)?.iter().filter_map(|word| method(word)).collect();
    methods.sort_unstable();
    methods.dedup();
    Some(methods)
}

/// nginx always accepts passwords. Returns a value if this is more than the list allows.
pub(super) fn password_logins<'a>(server: &Server<'a>, name: &'a str) -> Option<PasswordLogins> {
    let is_password = |method: &AuthMethod| matches!(method, AuthMethod::Plain | AuthMethod::Login);
    let lists_passwords = auth_methods(server, name)?.iter().any(is_password);
    (!lists_passwords).then_some(PasswordLogins::Always)
}

fn method(word: &str) -> Option<AuthMethod> {
    Some(match word.to_ascii_lowercase().as_str() {
        "plain" => AuthMethod::Plain,
        "login" => AuthMethod::Login,
        "apop" => AuthMethod::Apop,
        "cram-md5" => AuthMethod::CramMd5,
        "external" => AuthMethod::External,
        "xoauth2" => AuthMethod::XOAuth2,
        "oauthbearer" => AuthMethod::OAuthBearer,
        "none" => AuthMethod::None,
        _ => return None,
    })
}

/// Checks a `resolver` as nginx does while reading it.
pub(super) fn check_resolver(directive: &Directive) -> Result<(), String> {
    if directive.arguments() == ["off"] {
        return Ok(());
    }
    let mut servers = 0_u32;
    let (mut ipv4, mut ipv6) = (true, true);
    for word in directive.arguments() {
        let wrong = || format!("invalid parameter: {word}");
        let flag = |value: &str| match value {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(wrong()),
        };
        match word.split_once('=') {
            Some(("valid", time)) => {
                values::time(time, Finest::Seconds).ok_or_else(wrong)?;
            }
            Some(("ipv4", value)) => ipv4 = flag(value)?,
            Some(("ipv6", value)) => ipv6 = flag(value)?,
            Some(("status_zone", zone)) if !zone.is_empty() => {}
            Some(("conf", path)) if !path.is_empty() => servers += 1,
            Some(_) => return Err(format!("host not found in resolver \"{word}\"")),
            None => {
                let port = (word.as_str() != "conf").then(|| port_of(word)).flatten();
                if port.is_some_and(|port| !values::number(port).is_some_and(|p| (1..=65_535).contains(&p))) {
                    return Err(format!("invalid port in resolver \"{word}\""));
                }
                let host = port.and_then(|port| word.strip_suffix(port)?.strip_suffix(':')).unwrap_or(word);
                if !values::is_host(host) {
                    return Err(format!("host not found in resolver \"{word}\""));
                }
                servers += 1;
            }
        }
    }
    match (servers, ipv4 || ipv6) {
        (0, _) => Err("no name servers defined".to_owned()),
        (_, false) => Err("\"ipv4\" and \"ipv6\" cannot both be \"off\"".to_owned()),
        _ => Ok(()),
    }
}

/// Returns the port of `host:port` or `[v6]:port`.
fn port_of(word: &str) -> Option<&str> {
    match word.strip_prefix('[') {
        Some(rest) => rest.split_once(']').and_then(|(_, tail)| tail.strip_prefix(':')),
        None => word.split_once(':').map(|(_, port)| port),
    }
}

fn resolver(server: &Server<'_>, directive: &Directive, notes: &mut Vec<Note>) -> Option<ResolverSettings> {
    if directive.arguments() == ["off"] {
        return None;
    }
    let mut settings = ResolverSettings {
        timeout: deadline(server, "resolver_timeout", notes),
        ..ResolverSettings::default()
    };
    let mut servers: Vec<String> = Vec::new();
    for word in directive.arguments() {
        match word.split_once('=') {
            Some(("valid", time)) => {
                let time = values::time(time, Finest::Seconds).unwrap_or_default();
                let kept = values::duration(time.clamp(1, YEAR));
                if !(1..=YEAR).contains(&time) {
                    notes.push(directive.note(format!("resolver {word} became valid={}", kept.0)));
                }
                settings.valid = Some(kept);
            }
            Some(("ipv4", value)) => settings.ipv4 = Some(value == "on"),
            Some(("ipv6", value)) => settings.ipv6 = Some(value == "on"),
            Some(("status_zone", zone)) => {
                let kept: String = zone.chars().take(63).collect();
                if kept != zone {
                    notes.push(directive.note(format!("resolver {word} became status_zone={kept}")));
                }
                settings.statistics_zone = Some(kept);
            }
            Some(("conf", "/etc/resolv.conf")) => {}
            Some((name, path)) => {
                let message =
                    format!("resolver {name}={path}: the pod's /etc/resolv.conf is used; set dnsConfig");
                notes.push(directive.note(message));
            }
            None if word == "conf" || servers.contains(word) => {}
            None => servers.push(word.clone()),
        }
    }
    if servers.len() > MOST_SERVERS {
        notes.push(directive.note(format!("resolver: the first {MOST_SERVERS} name servers are kept")));
        servers.truncate(MOST_SERVERS);
    }
    settings.nameservers = (!servers.is_empty()).then_some(servers);
    Some(settings)
}

/// The limit in the schema.
const MOST_SERVERS: usize = 8;
/// The renderer's limit: a year, in milliseconds.
const YEAR: u64 = 365 * 86_400_000;
