//! PROXY headers, versions 1 and 2.

use mailgress::protocol::Input;
use mailgress::protocol::proxy_header::{
    Details, MAX_HEADER, ProxyHeader, ProxyHeaderError, ProxyVersion, encode, header_length, is_header, parse,
};

/// Invariants:
/// * the same result byte by byte, and only the header is consumed;
/// * `is_header`, `header_length` and `parse` agree;
/// * addresses, written as a header of either version, are read again.
pub(super) fn target(data: &[u8]) {
    let data = data.get(..MAX_HEADER).unwrap_or(data);
    let (whole, rest) = read(data, data.len().max(1));
    let (bytewise, _) = read(data, 1);
    assert_eq!(whole, bytewise, "the result depends on the chunks");
    match &whole {
        Ok(Some(header)) => {
            assert_eq!(is_header(data), Some(true));
            let length = header_length(data).ok().flatten().unwrap_or_default();
            assert_eq!(rest, data.get(length..).unwrap_or_default(), "not exactly the header is consumed");
            check_again(header);
        }
        Ok(None) => assert_ne!(is_header(data), Some(false)),
        Err(ProxyHeaderError::Missing) => assert_eq!(is_header(data), Some(false)),
        Err(_) => assert_eq!(is_header(data), Some(true)),
    }
}

type Outcome = Result<Option<ProxyHeader>, ProxyHeaderError>;

/// Returns the result, and the bytes that are left.
fn read(data: &[u8], size: usize) -> (Outcome, Vec<u8>) {
    let mut input = Input::new(MAX_HEADER);
    let mut rest = data;
    loop {
        let (now, next) = rest.split_at(size.min(rest.len()));
        rest = next;
        input.append(now).expect("room for a header");
        match parse(&mut input) {
            Ok(None) if !rest.is_empty() => {}
            outcome => return (outcome, [input.peek(), rest].concat()),
        }
    }
}

fn check_again(header: &ProxyHeader) {
    let ends = match header {
        ProxyHeader::Proxied { source, destination } => Some((*source, *destination)),
        ProxyHeader::Local => None,
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut written = Vec::new();
        encode(version, ends, Details::default(), &mut written);
        let length = written.len();
        written.extend_from_slice(b"rest");
        let (again, rest) = read(&written, length);
        assert_eq!(rest, b"rest");
        let Ok(Some(again)) = again else { panic!("{}: {again:?}", written.escape_ascii()) };
        match (&again, ends) {
            (ProxyHeader::Local, None) => {}
            (ProxyHeader::Proxied { source, destination }, Some((from, to))) => {
                let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
                assert_eq!(canonical(*source), canonical(from));
                assert_eq!(canonical(*destination), canonical(to));
            }
            _ => panic!("{header:?} became {again:?}"),
        }
    }
}
