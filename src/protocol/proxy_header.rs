//! The PROXY protocol, versions 1 and 2, in both directions (haproxy's proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use super::input::Input;

/// The content of a received header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The addresses of the proxied connection.
    Proxied {
        /// The client's address.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// `UNKNOWN` or `LOCAL`: the proxy connects for itself, for example for a health check.
    Local,
}

/// Why a header is invalid. The connection is closed without a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// The connection starts with neither version's signature.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// The header violates the protocol.
    #[error("the PROXY protocol header is broken: {0}")]
    Broken(&'static str),
    /// The header is longer than [`MAX_HEADER`].
    #[error("the PROXY protocol header is longer than {MAX_HEADER} bytes")]
    TooLong,
}

/// Longest accepted header in bytes (version 2 with TLVs); nginx's limit.
pub const MAX_HEADER: usize = 4096;

/// The version of the header that is sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ProxyVersion {
    /// The text form.
    V1,
    /// The binary form, with a CRC32C checksum.
    V2,
}

/// Returns the length of the header at the front of `bytes`, or `None` if the header is incomplete. This allows a
/// caller that peeks at a socket to consume exactly the header.
///
/// # Errors
/// [`ProxyHeaderError`] if the bytes cannot become a valid header.
pub fn header_length(bytes: &[u8]) -> Result<Option<usize>, ProxyHeaderError> {
    if agrees(bytes, V1_SIGNATURE) {
        let line = bytes.get(..V1_MAX).unwrap_or(bytes);
        return match line.iter().position(|&byte| byte == b'\n') {
            Some(end) => Ok(Some(end.saturating_add(1))),
            None if bytes.len() < V1_MAX => Ok(None),
            None => Err(ProxyHeaderError::Broken("a version 1 line without an end")),
        };
    }
    if !agrees(bytes, V2_SIGNATURE) {
        return Err(ProxyHeaderError::Missing);
    }
    let Some(Fixed { length, .. }) = Fixed::read(bytes) else { return Ok(None) };
    let whole = V2_FIXED.saturating_add(length);
    if whole > MAX_HEADER {
        return Err(ProxyHeaderError::TooLong);
    }
    Ok((bytes.len() >= whole).then_some(whole))
}

/// Tells whether a connection that starts with these bytes sends a header; `None` if more bytes are needed. An IMAP
/// client whose first tag is `PROXY` is taken for one.
#[must_use]
pub fn is_header(first: &[u8]) -> Option<bool> {
    let signatures = [V1_SIGNATURE, V2_SIGNATURE];
    if signatures.iter().any(|signature| first.starts_with(signature)) {
        return Some(true);
    }
    if signatures.iter().any(|signature| agrees(first, signature)) { None } else { Some(false) }
}

/// Takes a whole header from the front of `input`; `None` if more bytes are needed. Consumes only the header.
///
/// # Errors
/// [`ProxyHeaderError`] if the bytes are not a valid header, or `input` has no room for the rest.
pub fn parse(input: &mut Input) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(length) = header_length(input.peek())? else {
        return if input.is_full() { Err(ProxyHeaderError::TooLong) } else { Ok(None) };
    };
    let bytes = input.peek().get(..length).unwrap_or_default();
    let header = if bytes.starts_with(V1_SIGNATURE) { parse_v1(bytes)? } else { parse_v2(bytes)? };
    input.consume(length);
    Ok(Some(header))
}

/// Tells whether the two are equal up to the length of the shorter one.
fn agrees(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

/// Parses `PROXY TCP4|TCP6 source destination port port CRLF` or `PROXY UNKNOWN … CRLF`.
fn parse_v1(line: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let line = line.strip_suffix(b"\r\n").ok_or(ProxyHeaderError::Broken("a line that ends without CRLF"))?;
    let text = std::str::from_utf8(line).map_err(|_| ProxyHeaderError::Broken("a line that is not ASCII"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(ProxyHeader::Local);
    }
    let mut address = || address_of_family(family, words.next().unwrap_or_default());
    let (source, destination) = (address()?, address()?);
    let mut port = || port(words.next().unwrap_or_default());
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(ProxyHeaderError::Broken("words after the ports"));
    }
    Ok(ProxyHeader::Proxied {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn address_of_family(family: &str, text: &str) -> Result<IpAddr, ProxyHeaderError> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::from),
        _ => return Err(ProxyHeaderError::Broken("an unknown family")),
    };
    address.map_err(|_| ProxyHeaderError::Broken("an address that is not of its family"))
}

fn port(text: &str) -> Result<u16, ProxyHeaderError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(ProxyHeaderError::Broken("a port that is not a number"))
}

/// The fixed part of a version 2 header.
struct Fixed {
    version_and_command: u8,
    family_and_transport: u8,
    /// Bytes that follow the fixed part.
    length: usize,
}

impl Fixed {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [version_and_command, family_and_transport, high, low] = bytes.get(12..V2_FIXED)? else {
            return None;
        };
        Some(Self {
            version_and_command: *version_and_command,
            family_and_transport: *family_and_transport,
            length: usize::from(u16::from_be_bytes([*high, *low])),
        })
    }
}

/// LOCAL, and PROXY for anything but TCP, name no client, as in nginx. TLVs are skipped.
fn parse_v2(bytes: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    let fixed = Fixed::read(bytes).ok_or(ProxyHeaderError::Missing)?;
    match fixed.version_and_command {
        PROXY_COMMAND => {}
        LOCAL_COMMAND => return Ok(ProxyHeader::Local),
        other if other >> 4 != 2 => return Err(ProxyHeaderError::Broken("a version other than 2")),
        // Section 2.2: receivers must drop connections with other commands.
        _ => return Err(ProxyHeaderError::Broken("a command other than LOCAL and PROXY")),
    }
    let ends = bytes.get(V2_FIXED..).unwrap_or_default();
    let proxied = match fixed.family_and_transport {
        TCP_OVER_IPV4 => take_ends::<4>(ends),
        TCP_OVER_IPV6 => take_ends::<16>(ends),
        _ => return Ok(ProxyHeader::Local),
    };
    proxied.ok_or(ProxyHeaderError::Broken("a length too short for its addresses"))
}

/// Reads two addresses of `N` bytes, then two ports.
fn take_ends<const N: usize>(bytes: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    Some(ProxyHeader::Proxied {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*destination_port)),
    })
}

/// The TLS data of a connection, as a version 2 header carries it in TLVs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The SNI that the client sent.
    pub server_name: Option<String>,
    /// The negotiated ALPN protocol.
    pub alpn: Option<String>,
    /// The TLS version, such as `TLSv1.3`.
    pub version: String,
    /// OpenSSL's name of the cipher suite.
    pub cipher: String,
    /// The algorithms of the certificate that the client got. Only set if a version 2 header is configured.
    pub shown: Option<Arc<CertificateAlgorithms>>,
    /// The client's certificate, if it sent one. Only set if a version 2 header is configured.
    pub client: Option<ClientCertificateFacts>,
}

/// The algorithms of a certificate, with OpenSSL's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAlgorithms {
    /// The signature algorithm, such as `RSA-SHA256`.
    pub signature: &'static str,
    /// The type and size of the key, such as `RSA2048`.
    pub key: String,
}

/// Data of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificateFacts {
    /// The common name. Only of a trusted certificate, because many backends check nothing else.
    pub common_name: Option<String>,
    /// Whether the certificate is trusted.
    pub verified: bool,
    /// Whether it was sent in an earlier connection of a resumed TLS session.
    pub resumed: bool,
}

/// What a version 2 header tells besides addresses, in TLVs. `LOCAL` and version 1 have none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Details<'a> {
    /// Set if the client uses TLS.
    pub tls: Option<&'a TlsFacts>,
    /// Identifies the connection (`PP2_TYPE_UNIQUE_ID`), at most 128 bytes.
    pub unique_id: Option<&'a str>,
}

/// Appends a header for a connection from `ends` (source, destination). `None` produces `UNKNOWN` or `LOCAL`.
pub fn encode(
    version: ProxyVersion,
    ends: Option<(SocketAddr, SocketAddr)>,
    details: Details<'_>,
    out: &mut Vec<u8>,
) {
    let ends = ends.map(|(source, destination)| in_one_family(source, destination));
    match version {
        ProxyVersion::V1 => encode_v1(ends, out),
        ProxyVersion::V2 => encode_v2(ends, details, out),
    }
}

/// A header has one address family. An IPv4 address next to an IPv6 one is mapped to IPv6 (quirk Q-20), and two mapped
/// addresses become IPv4 again.
fn in_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(v4), IpAddr::V6(_)) => (v4.to_ipv6_mapped().into(), to),
        (IpAddr::V6(_), IpAddr::V4(v4)) => (from, v4.to_ipv6_mapped().into()),
        same => same,
    };
    (SocketAddr::new(from, source.port()), SocketAddr::new(to, destination.port()))
}

fn encode_v1(ends: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let line = match ends {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some((source, destination)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
    };
    out.extend_from_slice(line.as_bytes());
}

fn encode_v2(ends: Option<(SocketAddr, SocketAddr)>, details: Details<'_>, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let (command, family) = match ends {
        None => (LOCAL_COMMAND, UNSPECIFIED),
        Some((source, destination)) => {
            append_ends(source, destination, &mut body);
            if let Some(tls) = details.tls {
                append_tls(tls, &mut body);
            }
            if let Some(id) = details.unique_id {
                append_tlv(TLV_UNIQUE_ID, id.as_bytes(), &mut body);
            }
            (PROXY_COMMAND, if source.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 })
        }
    };
    // The checksum covers the whole header, with zeros in its own place, and comes last.
    append_tlv(TLV_CRC32C, &[0; 4], &mut body);
    let mut header = V2_SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.append(&mut body);
    let checksum = crc32c::crc32c(&header).to_be_bytes();
    header.truncate(header.len().saturating_sub(checksum.len()));
    out.append(&mut header);
    out.extend_from_slice(&checksum);
}

fn append_ends(source: SocketAddr, destination: SocketAddr, body: &mut Vec<u8>) {
    for address in [source.ip(), destination.ip()] {
        match address {
            IpAddr::V4(v4) => body.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => body.extend_from_slice(&v6.octets()),
        }
    }
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
}

/// Appends TLVs in nginx's order: AUTHORITY, ALPN, SSL.
fn append_tls(tls: &TlsFacts, body: &mut Vec<u8>) {
    if let Some(server_name) = &tls.server_name {
        append_tlv(TLV_AUTHORITY, server_name.as_bytes(), body);
    }
    if let Some(alpn) = &tls.alpn {
        append_tlv(TLV_ALPN, alpn.as_bytes(), body);
    }
    append_tlv(TLV_SSL, &ssl(tls), body);
}

/// Returns the value of `PP2_TYPE_SSL` (section 2.2.6), with its TLVs in nginx's order.
fn ssl(tls: &TlsFacts) -> Vec<u8> {
    let client = tls.client.as_ref();
    let elements = match client {
        None => CLIENT_SSL,
        Some(client) if client.resumed => CLIENT_SSL | CLIENT_CERT_SESSION,
        Some(_) => CLIENT_SSL | CLIENT_CERT_SESSION | CLIENT_CERT_CONNECTION,
    };
    let verified = client.is_some_and(|client| client.verified);
    let mut ssl = vec![elements];
    ssl.extend_from_slice(&u32::from(!verified).to_be_bytes());
    append_tlv(TLV_SSL_VERSION, tls.version.as_bytes(), &mut ssl);
    if let Some(name) = client.and_then(|client| client.common_name.as_ref()) {
        append_tlv(TLV_SSL_CN, name.as_bytes(), &mut ssl);
    }
    append_tlv(TLV_SSL_CIPHER, tls.cipher.as_bytes(), &mut ssl);
    if let Some(shown) = &tls.shown {
        append_tlv(TLV_SSL_SIG_ALG, shown.signature.as_bytes(), &mut ssl);
        append_tlv(TLV_SSL_KEY_ALG, shown.key.as_bytes(), &mut ssl);
    }
    ssl
}

/// Appends a TLV. Omits a value that is longer than a name may be.
fn append_tlv(kind: u8, value: &[u8], body: &mut Vec<u8>) {
    let Some(length) = u16::try_from(value.len()).ok().filter(|&length| length <= MAX_TLV) else { return };
    body.push(kind);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(value);
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Longest version 1 line in bytes, with its CRLF.
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;

const LOCAL_COMMAND: u8 = 0x20;
const PROXY_COMMAND: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

const TLV_ALPN: u8 = 0x01;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;
const TLV_SSL: u8 = 0x20;
const TLV_SSL_VERSION: u8 = 0x21;
const TLV_SSL_CN: u8 = 0x22;
const TLV_SSL_CIPHER: u8 = 0x23;
/// About the certificate that the client got, as the next one.
const TLV_SSL_SIG_ALG: u8 = 0x24;
const TLV_SSL_KEY_ALG: u8 = 0x25;
/// The client used TLS.
const CLIENT_SSL: u8 = 0x01;
/// The client sent a certificate in this connection.
const CLIENT_CERT_CONNECTION: u8 = 0x02;
/// The client sent a certificate in some connection of its TLS session.
const CLIENT_CERT_SESSION: u8 = 0x04;
/// Longest value in bytes, so that a header stays below [`MAX_HEADER`].
const MAX_TLV: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
        let mut input = Input::new(MAX_HEADER);
        input.append(bytes).unwrap();
        parse(&mut input)
    }

    fn ends(source: &str, destination: &str) -> (SocketAddr, SocketAddr) {
        (source.parse().unwrap(), destination.parse().unwrap())
    }

    fn facts() -> TlsFacts {
        TlsFacts {
            server_name: Some("mail.test".to_owned()),
            alpn: Some("imap".to_owned()),
            version: "TLSv1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            ..TlsFacts::default()
        }
    }

    fn encoded(version: ProxyVersion, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
        let tls = facts();
        let mut out = Vec::new();
        encode(version, ends, Details { tls: Some(&tls), unique_id: None }, &mut out);
        out
    }

    #[test]
    fn a_split_header_waits_and_only_the_header_is_consumed() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let (source, destination) = ends("[2001:db8::1]:50000", "[2001:db8::2]:143");
            let header = encoded(version, Some((source, destination)));
            let mut input = Input::new(MAX_HEADER);
            for byte in header.iter().take(header.len() - 1) {
                input.append(&[*byte]).unwrap();
                assert_eq!(parse(&mut input), Ok(None));
            }
            input.append(header.last_chunk::<1>().unwrap()).unwrap();
            input.append(b"a NOOP").unwrap();
            assert_eq!(header_length(input.peek()), Ok(Some(header.len())));
            assert_eq!(parse(&mut input), Ok(Some(ProxyHeader::Proxied { source, destination })));
            assert_eq!(input.peek(), b"a NOOP");
        }
    }

    #[test]
    fn version_1_checks_the_family() {
        for line in [
            &b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n"[..],
            b"PROXY TCP6 10.0.0.1 10.0.0.2 1 2\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 3\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 +1 2\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 65536\r\n",
            b"PROXY TCP4  10.0.0.1 10.0.0.2 1 2\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\n",
            b"PROXY UDP4 10.0.0.1 10.0.0.2 1 2\r\n",
            b"PROXY \xff\r\n",
        ] {
            assert!(matches!(parse_all(line), Err(ProxyHeaderError::Broken(_))), "{}", line.escape_ascii());
        }
        assert_eq!(parse_all(b"PROXY UNKNOWN whatever\r\n"), Ok(Some(ProxyHeader::Local)));
        assert!(parse_all(&[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat()).is_err());
    }

    #[test]
    fn what_is_no_header_is_missing_at_once() {
        assert_eq!(header_length(b"a NOOP\r\n"), Err(ProxyHeaderError::Missing));
        assert_eq!(header_length(b"PROXX"), Err(ProxyHeaderError::Missing));
        assert_eq!(header_length(b""), Ok(None));
        assert_eq!(header_length(b"PRO"), Ok(None));
        assert_eq!(header_length(b"\r\n\r"), Ok(None));
    }

    #[test]
    fn a_header_is_known_by_its_first_bytes() {
        assert_eq!(is_header(b""), None);
        assert_eq!(is_header(b"PROXY"), None);
        assert_eq!(is_header(b"PROXY "), Some(true));
        assert_eq!(is_header(b"PROXIED"), Some(false));
        assert_eq!(is_header(b"a NOOP"), Some(false));
        assert_eq!(is_header(b"\r\n"), None);
        assert_eq!(is_header(b"\r\nQUIT"), Some(false));
        assert_eq!(is_header(&v2_header([0x20, 0x00], b"")), Some(true));
        assert_eq!(is_header(&[22, 3, 1]), Some(false), "a ClientHello");
    }

    fn v2_header(fixed: [u8; 2], body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &fixed, &length, body].concat()
    }

    #[test]
    fn refuses_a_version_2_header_with_an_unknown_command() {
        for command in 0x22..=0x2f {
            let refused = parse_all(&v2_header([command, 0x11], &[1; 12]));
            assert!(matches!(refused, Err(ProxyHeaderError::Broken(_))), "{command:#x}: {refused:?}");
        }
    }

    #[test]
    fn version_2_without_a_tcp_client_is_local() {
        assert_eq!(parse_all(&v2_header([0x20, 0x00], b"")), Ok(Some(ProxyHeader::Local)));
        assert_eq!(parse_all(&v2_header([0x20, 0x11], &[1; 12])), Ok(Some(ProxyHeader::Local)));
        assert_eq!(parse_all(&v2_header([0x21, 0x12], &[1; 12])), Ok(Some(ProxyHeader::Local)));
        assert_eq!(parse_all(&v2_header([0x21, 0x31], &[1; 216])), Ok(Some(ProxyHeader::Local)));
        assert!(matches!(parse_all(&v2_header([0x11, 0x11], &[1; 12])), Err(ProxyHeaderError::Broken(_))));
        assert!(matches!(parse_all(&v2_header([0x21, 0x11], &[1; 11])), Err(ProxyHeaderError::Broken(_))));
        assert!(matches!(parse_all(&v2_header([0x21, 0x21], &[1; 35])), Err(ProxyHeaderError::Broken(_))));
        let endless = [V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(parse_all(&endless), Err(ProxyHeaderError::TooLong));
    }

    #[test]
    fn mixed_families_are_mapped() {
        let mixed = Some(ends("[2001:db8::1]:5", "127.0.0.1:143"));
        assert_eq!(encoded(ProxyVersion::V1, mixed), b"PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 5 143\r\n");
        let mapped = Some(ends("[::ffff:10.0.0.1]:5", "[::ffff:10.0.0.2]:143"));
        assert_eq!(encoded(ProxyVersion::V1, mapped), b"PROXY TCP4 10.0.0.1 10.0.0.2 5 143\r\n");
        assert_eq!(encoded(ProxyVersion::V1, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_ends_with_its_checksum() {
        let mut header = encoded(ProxyVersion::V2, Some(ends("10.0.0.1:5", "10.0.0.2:143")));
        let checksum = *header.last_chunk::<4>().unwrap();
        header.truncate(header.len() - 4);
        header.extend_from_slice(&[0; 4]);
        assert_eq!(crc32c::crc32c(&header).to_be_bytes(), checksum);
        let tail = header.split_off(16 + 12);
        let names = b"\x02\0\x09mail.test\x01\0\x04imap\x20\0\x28\x01\0\0\0\x01";
        assert!(tail.starts_with(names), "{}", tail.escape_ascii());
        assert!(tail.ends_with(b"\x23\0\x16TLS_AES_256_GCM_SHA384\x03\0\x04\0\0\0\0"));
    }

    #[test]
    fn a_client_certificate_is_told_with_its_name_only_where_it_is_trusted() {
        let of = |verified: bool, resumed| {
            let common_name = verified.then(|| "alice".to_owned());
            let client = Some(ClientCertificateFacts { common_name, verified, resumed });
            ssl(&TlsFacts { client, ..facts() })
        };
        let version = b"\x21\0\x07TLSv1.3";
        let name = b"\x22\0\x05alice";
        let cipher = b"\x23\0\x16TLS_AES_256_GCM_SHA384";
        assert_eq!(of(true, false), [&b"\x07\0\0\0\0"[..], version, name, cipher].concat());
        assert_eq!(of(true, true), [&b"\x05\0\0\0\0"[..], version, name, cipher].concat());
        assert_eq!(of(false, false), [&b"\x07\0\0\0\x01"[..], version, cipher].concat());
        assert_eq!(ssl(&facts()), [&b"\x01\0\0\0\x01"[..], version, cipher].concat());
    }

    #[test]
    fn the_certificate_that_was_shown_is_told_by_its_algorithms_and_our_own_parser_takes_it_all() {
        let shown = CertificateAlgorithms { signature: "RSA-SHA256", key: "RSA2048".to_owned() };
        let client =
            ClientCertificateFacts { common_name: Some("alice".to_owned()), verified: true, resumed: false };
        let tls = TlsFacts { shown: Some(Arc::new(shown)), client: Some(client), ..facts() };
        assert!(ssl(&tls).ends_with(b"\x24\0\x0aRSA-SHA256\x25\0\x07RSA2048"));
        let (source, destination) = ends("10.0.0.1:5", "10.0.0.2:143");
        let mut header = Vec::new();
        let details = Details { tls: Some(&tls), unique_id: Some("1-2") };
        encode(ProxyVersion::V2, Some((source, destination)), details, &mut header);
        assert_eq!(parse_all(&header), Ok(Some(ProxyHeader::Proxied { source, destination })));
    }

    #[test]
    fn the_unique_id_stands_before_the_checksum_and_only_where_there_are_addresses() {
        let details = Details { tls: None, unique_id: Some("1-2") };
        let (mut proxied, mut local) = (Vec::new(), Vec::new());
        encode(ProxyVersion::V2, Some(ends("10.0.0.1:5", "10.0.0.2:143")), details, &mut proxied);
        let tail = proxied.split_off(V2_FIXED + 12);
        assert!(tail.starts_with(b"\x05\0\x031-2\x03\0\x04"), "{}", tail.escape_ascii());
        encode(ProxyVersion::V2, None, details, &mut local);
        let tail = local.split_off(V2_FIXED);
        assert!(tail.starts_with(b"\x03\0\x04"), "{}", tail.escape_ascii());
    }

    #[test]
    fn crc32c_is_castagnolis() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }
}
