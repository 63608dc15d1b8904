//! Converts the name that a client sends in HELO or EHLO to ASCII.
//!
//! Windows clients send their computer name unchanged, such as `MÜLLER-PC`, in UTF-8 or another code page. RFC 5321
//! forbids this, but refusing it helps nobody. Auth services and backends get ASCII.

use std::net::IpAddr;

use idna::AsciiDenyList;

/// Returns an ASCII name unchanged, and a UTF-8 name in DNS form (RFC 5890) if it has one. Otherwise returns the
/// client's address as a literal (RFC 5321 section 4.1.3). `None` is a client on this host.
pub(super) fn in_ascii(name: &[u8], client: Option<IpAddr>) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_vec();
    }
    let converted = idna::domain_to_ascii_cow(name, AsciiDenyList::EMPTY).ok();
    match converted.filter(|name| is_host_name(name)) {
        Some(name) => name.into_owned().into_bytes(),
        None => literal(client).into_bytes(),
    }
}

/// Checks the converted name, because the conversion maps some letters to punctuation. Windows names may contain
/// underscores.
fn is_host_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= LONGEST && name.bytes().all(is_fine)
}

fn literal(client: Option<IpAddr>) -> String {
    match client {
        Some(IpAddr::V4(address)) => format!("[{address}]"),
        Some(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        None => "localhost".to_owned(),
    }
}

/// Longest domain in bytes (RFC 5321 section 4.5.3.1.2).
const LONGEST: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &[u8], client: &str) -> String {
        String::from_utf8(in_ascii(name, client.parse().ok())).unwrap()
    }

    #[test]
    fn ascii_is_passed_on_as_it_is() {
        for name in ["mail.example.com", "[192.0.2.1]", "MY_PC", "a:b"] {
            assert_eq!(told(name.as_bytes(), "192.0.2.1"), name);
        }
    }

    #[test]
    fn utf8_has_the_form_of_dns() {
        assert_eq!(told("MÜLLER-PC".as_bytes(), "192.0.2.1"), "xn--mller-pc-65a");
        assert_eq!(told("büro_1.example".as_bytes(), "192.0.2.1"), "xn--bro_1-kva.example");
    }

    #[test]
    fn what_has_no_such_form_is_the_clients_address() {
        assert_eq!(told(b"M\xdcLLER-PC", "192.0.2.1"), "[192.0.2.1]");
        assert_eq!(told(b"M\xdcLLER-PC", "2001:db8::1"), "[IPv6:2001:db8::1]");
        assert_eq!(told(b"M\xdcLLER-PC", ""), "localhost");
        // An ideographic space, and a name that is too long.
        assert_eq!(told("a\u{3000}ü".as_bytes(), "192.0.2.1"), "[192.0.2.1]");
        assert_eq!(told("ü".repeat(300).as_bytes(), "192.0.2.1"), "[192.0.2.1]");
    }
}
