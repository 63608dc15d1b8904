//! Warns about settings whose equivalent may not work as before, usually because a pod is not the machine that nginx
//! runs on.

use std::net::{IpAddr, Ipv4Addr};

use crate::net::ListenAddress;

use super::auth;
use super::effective::Server;
use super::listen::Socket;
use super::problem::Note;
use super::protocol::Protocol;
use super::settings;

/// Collects all warnings about a server.
pub(super) fn of(server: &Server<'_>, advice: &mut Vec<Note>) {
    advice.extend(auth_http(server));
    advice.extend(encoded_auth_http(server));
    advice.extend(resolver(server));
    advice.extend(resolver_of_auth_http(server));
    advice.extend(server_name(server));
    advice.extend(anonymous_before_tls(server));
    advice.extend(password_logins(server));
    advice.extend(server.sockets.iter().filter_map(listen));
    advice.extend(untrusted_peers(server));
}

fn auth_http(server: &Server<'_>) -> Option<Note> {
    let directive = server.get("auth_http")?;
    let text = directive.argument(0);
    let message = match auth_host(text) {
        None => "is a socket of this machine: in a pod, mount its folder, or set auth.http.serviceRef",
        Some(host) if is_loopback(host) => {
            "is this machine: in a pod, set auth.http.serviceRef or the address of the auth service"
        }
        Some(_) => return None,
    };
    Some(directive.note(format!("auth_http {} {message}", crate::secret::shown_url(text))))
}

/// Characters that nginx sends although a URL cannot have them.
fn encoded_auth_http(server: &Server<'_>) -> Option<Note> {
    let directive = server.get("auth_http")?;
    let list = auth::encoded(directive.argument(0))?;
    Some(
        directive.note(format!(
            "auth_http: nginx sends characters that a URL cannot have; the manifest has {list}"
        )),
    )
}

fn resolver(server: &Server<'_>) -> Option<Note> {
    let directive = server.get("resolver").filter(|_| server.protocol == Protocol::Smtp)?;
    let words = directive.arguments().iter().map(String::as_str);
    let server = words.filter(|word| !word.contains('=')).find(|word| is_loopback(host(word)))?;
    let whose = match host(server).parse() {
        Ok(DOCKERS) => "is Docker's name server; it does not exist in pods",
        _ => "is this machine",
    };
    let message = "until it answers, host names of SMTP clients are not resolved; in a pod, remove \
                   resolver.nameservers to use the pod's resolv.conf";
    Some(directive.note(format!("resolver {server} {whose}: {message}")))
}

/// nginx resolves the host of `auth_http` once, with the machine's name servers.
fn resolver_of_auth_http(server: &Server<'_>) -> Option<Note> {
    let directive = server.get("resolver").filter(|_| server.protocol == Protocol::Smtp)?;
    let is_used =
        directive.arguments().iter().any(|word| !word.contains('=') && word != "off" && word != "conf");
    let host = auth_host(server.text("auth_http")?)?;
    let is_name = host.parse::<IpAddr>().is_err() && !is_loopback(host);
    (is_used && is_name).then(|| {
        let message =
            format!("resolver: the host of auth_http, {host}, is looked up with these name servers too");
        directive.note(format!("{message}; they must know it"))
    })
}

/// In nginx and in Mailgress, the default is the name of the machine.
fn server_name(server: &Server<'_>) -> Option<Note> {
    let is_told = server.protocol == Protocol::Smtp && server.get("server_name").is_none();
    let message = "no server_name: SMTP clients and backends see the machine's name, which is the pod's name in a \
                   pod; set serverName";
    is_told.then(|| server.own.note(message))
}

fn anonymous_before_tls(server: &Server<'_>) -> Option<Note> {
    let directive = server.get("smtp_auth").filter(|_| server.protocol == Protocol::Smtp)?;
    let methods = server.list("smtp_auth")?;
    let has_none = methods.iter().any(|method| method.eq_ignore_ascii_case("none"));
    let message = "smtp_auth none with starttls only: mail is refused before STARTTLS; with \
                   smtp.anonymousBeforeTLS: true it is taken, as by nginx";
    (has_none && server.word("starttls").as_deref() == Some("only")).then(|| directive.note(message))
}

/// nginx accepts AUTH PLAIN and AUTH LOGIN where it does not announce them, also on port 25.
fn password_logins(server: &Server<'_>) -> Option<Note> {
    let (name, block) = match server.protocol {
        Protocol::Imap => ("imap_auth", "imap"),
        Protocol::Pop3 => ("pop3_auth", "pop3"),
        Protocol::Smtp => ("smtp_auth", "smtp"),
    };
    let directive = server.get(name)?;
    settings::password_logins(server, name)?;
    let methods = directive.arguments().join(" ");
    let message = format!(
        "{name} {methods}: nginx also accepts password logins, so the manifests set \
         {block}.passwordLogins: Always; remove this field to refuse them"
    );
    Some(directive.note(message))
}

fn listen(socket: &Socket) -> Option<Note> {
    let ListenAddress::Ip(address) = &socket.address else { return None };
    let ip = address.ip();
    let message = match ip {
        ip if ip.is_unspecified() => return None,
        ip if ip.is_loopback() => "clients outside the pod cannot reach it",
        _ => "a pod has another address",
    };
    Some(socket.directive.note(format!("listen {address}: {message}; set address: \"*\" there")))
}

fn untrusted_peers(server: &Server<'_>) -> Option<Note> {
    let is_read = server.sockets.iter().any(|socket| socket.proxy_protocol);
    let directive = server.get("set_real_ip_from").filter(|_| is_read)?;
    let message = "set_real_ip_from: connections from other peers to listen … proxy_protocol are refused; with \
                   proxyProtocol.untrustedPeers: Report they are taken, as by nginx";
    Some(directive.note(message))
}

/// Returns the host of an `auth_http`; `None` for a UNIX socket.
fn auth_host(text: &str) -> Option<&str> {
    let authority = text.strip_prefix("http://").unwrap_or(text).split(['/', '?']).next()?;
    (!text.starts_with("unix:")).then(|| host(authority))
}

/// Returns the host of `host`, `host:port` or `[v6]:port`.
fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The name server of Docker's user-defined networks.
const DOCKERS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
