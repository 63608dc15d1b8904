//! Converts `listen` with its parameters, and the networks of `set_real_ip_from`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::api::listener::{Keepalive, SocketSettings};
use crate::net::{ListenAddress, network};

use super::Source;
use super::problem::Problem;
use super::tree::Directive;
use super::values::{self, Finest};

/// One socket of a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Socket {
    /// The directive, for messages.
    pub(super) directive: Directive,
    pub(super) address: ListenAddress,
    /// Implicit TLS.
    pub(super) ssl: bool,
    /// Every connection starts with a PROXY header.
    pub(super) proxy_protocol: bool,
    pub(super) options: SocketSettings,
}

impl Socket {
    /// Returns the address as nginx writes it.
    pub(super) fn written(&self) -> String {
        self.address.to_string()
    }
}

/// Returns the sockets of a `listen`. A host name or a range of ports may have several.
pub(super) fn sockets(directive: &Directive, source: &dyn Source) -> Result<Vec<Socket>, Problem> {
    let text = directive.argument(0);
    let problem = |message: String| directive.problem(message);
    let addresses = addresses(text, source)
        .map_err(|message| problem(format!("{message} in \"{text}\" of the \"listen\" directive")))?;
    let base = Socket {
        directive: directive.clone(),
        address: ListenAddress::Any { port: 0 },
        ssl: false,
        proxy_protocol: false,
        options: SocketSettings::default(),
    };
    let mut socket = base;
    for word in directive.arguments().iter().skip(1) {
        parameter(&mut socket, word).map_err(problem)?;
    }
    Ok(addresses.into_iter().map(|address| Socket { address, ..socket.clone() }).collect())
}

fn parameter(socket: &mut Socket, word: &str) -> Result<(), String> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match (name, word.contains('=')) {
        ("bind", false) => {}
        ("ssl", false) => socket.ssl = true,
        ("proxy_protocol", false) => socket.proxy_protocol = true,
        ("reuseport", false) => socket.options.reuse_port = true,
        ("multipath", false) => socket.options.multipath = true,
        ("backlog", true) => {
            let number = values::number(value).filter(|number| *number > 0);
            let number = number.ok_or_else(|| format!("invalid backlog \"{word}\""))?;
            // The kernel's limit is far lower.
            socket.options.backlog = u32::try_from(number.min(65_535)).unwrap_or(65_535);
        }
        ("rcvbuf" | "sndbuf", true) => {
            let size = values::size(value).filter(|size| (1..=MAX_BUFFER).contains(size));
            let size = size.map(values::quantity).ok_or_else(|| format!("invalid {name} \"{word}\""))?;
            let buffer = match name {
                "rcvbuf" => &mut socket.options.receive_buffer,
                _ => &mut socket.options.send_buffer,
            };
            *buffer = Some(size);
        }
        ("ipv6only", true) => {
            socket.options.ipv6_only = match value {
                "on" => true,
                "off" => false,
                _ => return Err(format!("invalid ipv6only flags \"{value}\"")),
            }
        }
        ("so_keepalive", true) => {
            let wrong = || format!("invalid so_keepalive value: \"{value}\"");
            socket.options.keepalive = keepalive(value).ok_or_else(wrong)?;
        }
        _ => return Err(format!("the invalid \"{word}\" parameter")),
    }
    Ok(())
}

/// Parses `on`, `off`, or `idle[:interval[:probes]]`, where each part may be empty; `None` if it is invalid.
fn keepalive(value: &str) -> Option<Option<Keepalive>> {
    match value {
        "on" => return Some(Some(Keepalive::default())),
        "off" => return Some(None),
        _ => {}
    }
    let mut parts = value.split(':');
    let (idle, interval, probes) = (parts.next()?, parts.next(), parts.next());
    if parts.next().is_some() || value.chars().all(|c| c == ':') {
        return None;
    }
    let seconds = |text: &str| match text {
        "" => Some(None),
        text => {
            let time =
                values::time(text, Finest::Seconds).filter(|ms| (1_000..=KEEPALIVE_MAX).contains(ms))?;
            Some(Some(values::duration(time)))
        }
    };
    let probes = match probes.unwrap_or_default() {
        "" => None,
        text => {
            Some(values::number(text).filter(|n| (1..=127).contains(n)).and_then(|n| u32::try_from(n).ok())?)
        }
    };
    Some(Some(Keepalive { idle: seconds(idle)?, interval: seconds(interval.unwrap_or_default())?, probes }))
}

/// Parses a port, an address with a port, or a path. A port alone stands for all IPv4 addresses.
fn addresses(text: &str, source: &dyn Source) -> Result<Vec<ListenAddress>, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("no path in the unix domain socket".to_owned()),
            path if path.len() > LONGEST_PATH => Err("too long path in the unix domain socket".to_owned()),
            path if !path.starts_with('/') => Err("the path of a UNIX socket must be absolute".to_owned()),
            path if !values::is_socket(path) => Err(values::NOT_A_SOCKET.to_owned()),
            path => Ok(vec![ListenAddress::Unix(PathBuf::from(path))]),
        };
    }
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (Some(host), port),
        None if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('.') => (None, text),
        _ => return Err("no port".to_owned()),
    };
    let hosts = match host {
        None | Some("*") => vec![any],
        Some("") => return Err("no host".to_owned()),
        Some(host) if host.starts_with('[') => {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let address = bare.parse().map_err(|_| "invalid IPv6 address".to_owned())?;
            vec![IpAddr::V6(address)]
        }
        Some(host) => match host.parse::<Ipv4Addr>() {
            Ok(address) => vec![IpAddr::V4(address)],
            Err(_) => source.resolve(host),
        },
    };
    if hosts.is_empty() {
        return Err("host not found".to_owned());
    }
    let ports = ports(port).ok_or_else(|| "invalid port".to_owned())?;
    let mut found = Vec::new();
    for ip in hosts {
        for port in ports.clone() {
            let address = ListenAddress::Ip(SocketAddr::new(ip, port));
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok(found)
}

fn ports(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let port = |text: &str| {
        let number = values::number(text)?;
        u16::try_from(number).ok().filter(|port| *port > 0)
    };
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some(first..=last)
        }
    }
}

/// Returns the networks of `set_real_ip_from`, with host names resolved. `unix:` is always trusted, so it returns none.
pub(super) fn networks(directive: &Directive, source: &dyn Source) -> Result<Vec<IpNet>, Problem> {
    let text = directive.argument(0);
    if text == "unix:" {
        return Ok(vec![]);
    }
    if let Some(network) = network(text) {
        return Ok(vec![network]);
    }
    let found = source.resolve(text);
    if found.is_empty() {
        return Err(directive.problem(format!("host not found in set_real_ip_from \"{text}\"")));
    }
    Ok(found.into_iter().map(IpNet::from).collect())
}

/// Refuses a network that is invalid whatever its host name resolves to.
pub(super) fn check_network(directive: &Directive) -> Result<(), String> {
    let text = directive.argument(0);
    if text.contains('/') && network(text).is_none() {
        return Err(format!("host not found in set_real_ip_from \"{text}\""));
    }
    Ok(())
}

/// Maximum length of a UNIX socket's path in bytes (`sun_path` without its NUL).
const LONGEST_PATH: usize = 107;
/// The renderer's limit: 64Mi, in bytes.
const MAX_BUFFER: u64 = 64 << 20;
/// The renderer's limit, which is the kernel's, in milliseconds.
const KEEPALIVE_MAX: u64 = 32_767_000;
