//! Names of objects and listeners: derived from the configuration, and the same in each import.

use std::path::Path;

use crate::net::ListenAddress;

use super::protocol::Protocol;

/// Returns the name, with the lowest number from 2 if it is already used.
pub(super) fn unique(base: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = base.to_owned();
    let mut number = 2_u32;
    while taken(&name) {
        name = format!("{base}-{number}");
        number += 1;
    }
    name
}

/// Converts a text to a Kubernetes name: lower-case letters and digits, with hyphens in between.
pub(super) fn label(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let each = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let joined: String = each.take(LONGEST).collect();
    let parts: Vec<&str> = joined.split('-').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "mail".to_owned() } else { parts.join("-") }
}

/// Returns the name of the `MailServer` for servers with these names: their common name or domain.
pub(super) fn server(server_names: &[Option<&str>]) -> String {
    let Some(Some(first)) = server_names.first() else { return "mail".to_owned() };
    let mut shared: Vec<&str> = first.split('.').collect();
    for name in server_names.iter().skip(1) {
        let labels: Vec<&str> = name.unwrap_or_default().split('.').collect();
        let same = shared.iter().rev().zip(labels.iter().rev()).take_while(|(a, b)| a == b).count();
        shared.drain(..shared.len() - same);
    }
    // A top-level domain alone does not identify a server.
    if server_names.len() > 1 && shared.len() < 2 && server_names.iter().any(|name| name != &Some(*first)) {
        return "mail".to_owned();
    }
    label(&shared.join("."))
}

/// Returns the name of a listener: by its well-known port, or by protocol and port.
pub(super) fn listener(protocol: Protocol, address: &ListenAddress) -> String {
    let name = match protocol {
        Protocol::Imap => "imap",
        Protocol::Pop3 => "pop3",
        Protocol::Smtp => "smtp",
    };
    let (port, path) = match address {
        ListenAddress::Unix(path) => (0, Some(path)),
        address => (address.port().unwrap_or_default(), None),
    };
    match (protocol, port, path) {
        (_, _, Some(path)) if stem(path) == name => format!("{name}-socket"),
        (_, _, Some(path)) => format!("{name}-{}", stem(path)),
        (Protocol::Imap, 143, _) | (Protocol::Pop3, 110, _) | (Protocol::Smtp, 25, _) => name.to_owned(),
        (Protocol::Imap, 993, _) | (Protocol::Pop3, 995, _) => format!("{name}s"),
        (Protocol::Smtp, 587, _) => "submission".to_owned(),
        (Protocol::Smtp, 465, _) => "submissions".to_owned(),
        _ => format!("{name}-{port}"),
    }
}

/// Returns a suffix for listeners with the same name: the address, unless it is an IPv4 wildcard.
pub(super) fn address_suffix(address: &ListenAddress) -> Option<String> {
    match address {
        ListenAddress::Ip(address) if address.ip().is_unspecified() && address.is_ipv6() => {
            Some("v6".to_owned())
        }
        ListenAddress::Ip(address) if !address.ip().is_unspecified() => {
            let family = if address.is_ipv6() { "v6-" } else { "" };
            Some(format!("{family}{}", label(&address.ip().to_string())))
        }
        _ => None,
    }
}

fn stem(path: &Path) -> String {
    label(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// Leaves room for suffixes in the 63 characters of a listener's name.
const LONGEST: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_what_they_share() {
        assert_eq!(server(&[Some("mail.example.com"), Some("mail.example.com")]), "mail-example-com");
        assert_eq!(server(&[Some("imap.example.com"), Some("smtp.example.com")]), "example-com");
        assert_eq!(server(&[Some("a.com"), Some("b.com")]), "mail");
        assert_eq!(server(&[None, None]), "mail");
        assert_eq!(server(&[Some("_")]), "mail");
    }
}
