//! Parses durations, sizes and addresses, and converts protocols.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::api::{common, listener as api};
use crate::net::{BackendAddress, ListenAddress};
use crate::protocol::Protocol;

/// Parses a Gateway API duration, such as `1h30m`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let number: u32 = number.parse().ok()?;
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        total = total.checked_add(unit.checked_mul(number)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Parses a quantity in bytes.
#[must_use]
pub fn size(size: &common::Size) -> Option<u64> {
    let text = match size {
        common::Size::Bytes(bytes) => return u64::try_from(*bytes).ok(),
        common::Size::Text(text) => text,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Parses `*`, an IP address with or without brackets, or `unix:/path`.
#[must_use]
pub fn listen_address(address: &str, port: Option<u16>) -> Option<ListenAddress> {
    if let Some(path) = address.strip_prefix("unix:") {
        return socket_path(path).filter(|_| port.is_none()).map(|path| ListenAddress::Unix(path.into()));
    }
    let port = port?;
    if address == "*" {
        return Some(ListenAddress::Any { port });
    }
    ip(address).map(|ip| ListenAddress::Ip(SocketAddr::new(ip, port)))
}

/// Parses `host:port`, `[::1]:143` or `unix:/path`. If there is no port, the default is used.
#[must_use]
pub fn backend_address(text: &str, default_port: Option<u16>) -> Option<BackendAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(|path| BackendAddress::Unix(path.into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(BackendAddress::Ip(address));
    }
    if let (Some(ip), Some(port)) = (ip(text), default_port) {
        return Some(BackendAddress::Ip(SocketAddr::new(ip, port)));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default_port?),
    };
    named(host, port)
}

/// Returns the address for a host name or IP address with a port.
#[must_use]
pub fn named(host: &str, port: u16) -> Option<BackendAddress> {
    if let Some(ip) = ip(host) {
        return Some(BackendAddress::Ip(SocketAddr::new(ip, port)));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let valid_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            // RFC 1123 section 2.1.
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (host.len() <= 253 && host.split('.').all(valid_label)).then_some(BackendAddress::Name { host, port })
}

/// Returns an absolute path that fits into the kernel's `sun_path`.
#[must_use]
pub fn socket_path(path: &str) -> Option<&str> {
    let is_path =
        path.len() > 1 && path.starts_with('/') && !path.contains(|c: char| c == ' ' || c.is_control());
    (is_path && path.len() <= 107).then_some(path)
}

fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// Converts the protocol from the API's type.
pub(crate) fn protocol(protocol: api::Protocol) -> Protocol {
    match protocol {
        api::Protocol::Imap => Protocol::Imap,
        api::Protocol::Pop3 => Protocol::Pop3,
        api::Protocol::Smtp => Protocol::Smtp,
        api::Protocol::Sieve => Protocol::Sieve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "5", "s", "5d", "-1s", "1.5s", "99999999999s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_quantities() {
        let read = |text: &str| size(&common::Size::Text(text.to_owned()));
        assert_eq!((read("4Ki"), read("1M"), read("512")), (Some(4096), Some(1_000_000), Some(512)));
        assert_eq!(read("99999999999999999999"), None);
        assert_eq!(size(&common::Size::Bytes(-1)), None);
    }

    #[test]
    fn backends_are_names_addresses_or_paths() {
        let read = |text: &str| backend_address(text, None).map(|a| a.to_string());
        assert_eq!(read("Dovecot.mail.svc.:143").as_deref(), Some("dovecot.mail.svc:143"));
        assert_eq!(read("[::1]:143").as_deref(), Some("[::1]:143"));
        assert_eq!(read("unix:/run/a").as_deref(), Some("unix:/run/a"));
        assert_eq!((read("-x.:1"), read("x-.test:1"), read("my_app-1:143").is_some()), (None, None, true));
        assert_eq!(
            (read("host"), read("host:0"), read("a..b:1"), read("::1:143:x")),
            (None, None, None, None)
        );
        assert_eq!(
            backend_address("10.0.0.1", Some(53)).map(|a| a.to_string()).as_deref(),
            Some("10.0.0.1:53")
        );
    }
}
