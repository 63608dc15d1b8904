//! Converts `starttls` and `ssl_…`: TLS to clients.

use crate::api::common::{BundleKind, BundleRef};
use crate::api::tls::{ClientAuth, ClientAuthMode, MinVersion, SessionCache, TlsMode, TlsSettings};

use super::Bundle;
use super::certificates::{PasswordFile, blocks, certificates};
use super::ciphers;
use super::effective::Server;
use super::listen::Socket;
use super::objects::Objects;
use super::openssl;
use super::plan::Context;
use super::problem::{Findings, Note, Problem};
use super::tree::Directive;
use super::values::{self, Finest};

/// Returns the TLS mode of a server's socket.
pub(super) fn mode(server: &Server<'_>, socket: &Socket) -> TlsMode {
    if socket.ssl || server.flag("ssl").unwrap_or_default() {
        return TlsMode::Implicit;
    }
    match server.word("starttls").as_deref() {
        Some("on") => TlsMode::StartTls,
        Some("only") => TlsMode::RequireStartTls,
        _ => TlsMode::Disabled,
    }
}

/// Returns all TLS settings except the mode; `None` if no socket uses TLS.
pub(super) fn settings(
    server: &Server<'_>,
    context: &Context<'_>,
    objects: &mut Objects,
    found: &mut Findings,
) -> Result<Option<TlsSettings>, Problem> {
    let Some(reason) = reason(server) else { return Ok(None) };
    if let ("ssl", Some(starttls)) = (reason.name, wanted_starttls(server)) {
        return Err(starttls.problem("\"starttls\" directive conflicts with \"ssl on\""));
    }
    // nginx reads it whether a key needs it or not.
    let passwords =
        server.get("ssl_password_file").map(|directive| PasswordFile::read(directive, context, found));
    openssl::check(server, context, found);
    let ciphers = server.get("ssl_ciphers").and_then(|directive| cipher_suites(directive, &mut found.notes));
    let size = server.all("ssl_session_cache").last().map_or(Some(0), |d| session_cache(d).ok());
    let timeout = server.text("ssl_session_timeout").and_then(|text| values::time(text, Finest::Seconds));
    let certificates = certificates(server, (&reason, passwords.as_ref()), context, objects, found);
    let client_auth = client_auth(server, context, objects, &mut found.notes);
    let notes = &mut found.notes;
    let min_version = server.get("ssl_protocols").and_then(|directive| min_version(server, directive, notes));
    Ok(Some(TlsSettings {
        mode: None,
        certificate_refs: found.keep(certificates),
        min_version,
        cipher_suites: ciphers,
        client_auth: found.keep(client_auth).flatten(),
        session_tickets: server.flag("ssl_session_tickets"),
        session_cache: Some(SessionCache {
            size,
            timeout: timeout.map(|time| values::duration(time.max(1))),
        }),
    }))
}

/// Why a server needs TLS: what nginx names in its messages, and where.
pub(super) struct Reason<'a> {
    pub(super) name: &'static str,
    pub(super) directive: &'a Directive,
}

fn wanted_starttls<'a>(server: &'a Server<'_>) -> Option<&'a Directive> {
    let is_wanted = |text: &str| ["on", "only"].iter().any(|word| text.eq_ignore_ascii_case(word));
    server.get("starttls").filter(|directive| is_wanted(directive.argument(0)))
}

fn reason<'a>(server: &'a Server<'_>) -> Option<Reason<'a>> {
    if server.flag("ssl").unwrap_or_default() {
        return Some(Reason { name: "ssl", directive: server.get("ssl")? });
    }
    if let Some(directive) = wanted_starttls(server) {
        return Some(Reason { name: "starttls", directive });
    }
    let socket = server.sockets.iter().find(|socket| socket.ssl)?;
    Some(Reason { name: "listen ... ssl", directive: &socket.directive })
}

fn cipher_suites(directive: &Directive, notes: &mut Vec<Note>) -> Option<Vec<String>> {
    let read = ciphers::read(directive.argument(0));
    if !read.strangers.is_empty() {
        let served =
            if read.suites.is_empty() { "the TLS library's own suites are" } else { "the others are" };
        let message = format!(
            "ssl_ciphers: {} has no equivalent and {served} used; name IANA suites in tls.cipherSuites, or \
             remove it",
            read.strangers.join(":")
        );
        notes.push(directive.note(message));
    }
    (!read.suites.is_empty()).then_some(read.suites)
}

fn min_version(server: &Server<'_>, directive: &Directive, notes: &mut Vec<Note>) -> Option<MinVersion> {
    let versions = server.list("ssl_protocols").unwrap_or_default();
    let has = |version: &str| versions.iter().any(|word| word.eq_ignore_ascii_case(version));
    if versions.iter().any(|version| !matches!(version.to_ascii_lowercase().as_str(), "tlsv1.2" | "tlsv1.3"))
    {
        let message = "ssl_protocols: only TLSv1.2 and TLSv1.3 are supported; remove older versions";
        notes.push(directive.note(message));
    }
    if has("TLSv1.2") && !has("TLSv1.3") {
        let message = "ssl_protocols: TLSv1.3 cannot be switched off; add it";
        notes.push(directive.note(message));
    }
    Some(if has("TLSv1.3") && versions.len() == 1 { MinVersion::Tls13 } else { MinVersion::Tls12 })
}

/// Returns the number of sessions in a cache: OpenSSL's number, or what fits into nginx's shared memory.
fn session_cache(directive: &Directive) -> Result<u32, String> {
    let mut sessions = 0_u32;
    for word in directive.arguments() {
        let wrong = || format!("invalid session cache \"{word}\"");
        let parts: Vec<&str> = word.split(':').collect();
        let found = match parts.as_slice() {
            ["off" | "none"] => 0,
            ["builtin"] => 20_480,
            ["builtin", number] => values::number(number).ok_or_else(wrong)?,
            ["shared", name, size] if !name.is_empty() => {
                let size = values::size(size).ok_or_else(wrong)?;
                if size < SMALLEST_ZONE {
                    return Err(format!("session cache \"{word}\" is too small"));
                }
                size / BYTES_PER_SESSION
            }
            _ => return Err(wrong()),
        };
        sessions = u32::try_from(found.min(1_000_000)).unwrap_or_default();
    }
    Ok(sessions)
}

/// Checks an `ssl_session_cache` as nginx does while reading it.
pub(super) fn check_session_cache(directive: &Directive) -> Result<(), String> {
    session_cache(directive).map(|_| ())
}

fn client_auth(
    server: &Server<'_>,
    context: &Context<'_>,
    objects: &mut Objects,
    notes: &mut Vec<Note>,
) -> Result<Option<ClientAuth>, Problem> {
    let Some(directive) = server.get("ssl_verify_client") else { return Ok(None) };
    let mode = match directive.argument(0).to_ascii_lowercase().as_str() {
        "on" => ClientAuthMode::Required,
        "optional" => ClientAuthMode::Optional,
        "optional_no_ca" => ClientAuthMode::OptionalNoCa,
        _ => return Ok(None),
    };
    let files = ["ssl_client_certificate", "ssl_trusted_certificate"];
    let mut bundle = |name, suffix, key, label: &str| -> Result<Option<BundleRef>, Problem> {
        let Some(directive) = server.get(name) else { return Ok(None) };
        let reference = |name| Some(BundleRef { kind: BundleKind::ConfigMap, name, key: None });
        if context.is_elsewhere(directive) {
            let map = objects.foreign_config_map(directive.argument(0), suffix);
            let message =
                format!("{name} {} is neither in the dump nor on this machine", directive.argument(0));
            notes.push(directive.note(format!("{message}; make the ConfigMap {map} yourself, with {key}")));
            return Ok(reference(map));
        }
        let text = context.text(directive, "certificate")?;
        let pem = blocks(&text, |found| found.ends_with(label));
        if pem.is_empty() {
            let message = format!("cannot load \"{}\": no PEM block of {label} in it", directive.argument(0));
            return Err(directive.problem(message));
        }
        let kind = if name == "ssl_crl" { Bundle::Crls } else { Bundle::Authorities };
        if let Some(cause) = context.source.inspect_bundle(kind, pem.as_bytes()) {
            return Err(directive.problem(format!("cannot load \"{}\": {cause}", directive.argument(0))));
        }
        Ok(reference(objects.config_map(directive.argument(0), suffix, key, pem)))
    };
    let mut authorities: Vec<BundleRef> = Vec::new();
    for name in files {
        authorities.extend(bundle(name, "client-ca", "ca.crt", "CERTIFICATE")?);
    }
    authorities.dedup();
    if authorities.is_empty() && mode != ClientAuthMode::OptionalNoCa {
        return Err(directive.problem("no ssl_client_certificate for ssl_verify_client"));
    }
    let crls = bundle("ssl_crl", "crl", "ca.crl", "X509 CRL")?;
    let depth = server.get("ssl_verify_depth").and_then(|directive| {
        let depth = values::number(directive.argument(0))?;
        if depth > DEEPEST {
            notes.push(directive.note(format!("ssl_verify_depth {depth} became {DEEPEST}")));
        }
        u32::try_from(depth.min(DEEPEST)).ok()
    });
    Ok(Some(ClientAuth {
        mode: Some(mode),
        ca_certificate_refs: (!authorities.is_empty()).then_some(authorities),
        crl_refs: crls.map(|reference| vec![reference]),
        depth,
    }))
}

/// The limit of `depth` in the schema.
const DEEPEST: u64 = 16;
/// nginx's minimum: eight pages.
const SMALLEST_ZONE: u64 = 8 * 4096;
/// In nginx, one megabyte holds about 4,000 sessions.
const BYTES_PER_SESSION: u64 = 256;
