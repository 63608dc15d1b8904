//! SASL messages of clients: base64, and each mechanism's form.

use mailgress::protocol::sasl::{
    decode_base64, decode_cram_md5, decode_external, decode_oauthbearer, decode_plain, decode_xoauth2,
    encode_base64, is_message,
};
use mailgress::protocol::{LoginRequest, UserRules};

/// Invariants:
/// * base64 decodes to what its letters say, and encodes to the same letters again;
/// * a decoded login, written in the form of its mechanism, is the message.
pub(super) fn target(data: &[u8]) {
    base64(data);
    messages(data);
    messages(encode_base64(data).as_bytes());
}

fn base64(text: &[u8]) {
    let digits = text.split(|byte| *byte == b'=').next().unwrap_or_default();
    let decoded = decode_base64(text);
    assert_eq!(decoded.as_ref().map(|bytes| bytes.to_vec()), plainly(digits), "{}", text.escape_ascii());
    if let Some(decoded) = decoded {
        let again = encode_base64(&decoded);
        assert_eq!(decode_base64(again.as_bytes()).as_deref(), Some(&*decoded));
        assert!(is_message(again.as_bytes()));
    }
    if is_message(text) {
        assert!(text.iter().all(u8::is_ascii_graphic), "{}", text.escape_ascii());
    }
}

/// Decodes base64 bit by bit, without padding.
fn plainly(digits: &[u8]) -> Option<Vec<u8>> {
    if digits.len() % 4 == 1 {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in digits {
        let value = ALPHABET.iter().position(|letter| letter == digit)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

fn messages(text: &[u8]) {
    let message = decode_base64(text);
    let requests = [
        decode_plain(text),
        decode_cram_md5(text, b"<salt>".to_vec()),
        decode_external(text),
        decode_xoauth2(text),
        decode_oauthbearer(text),
    ];
    for request in requests.into_iter().flatten() {
        let Some(message) = &message else { panic!("a login from {}", text.escape_ascii()) };
        check(&request, message);
        // No form of a name makes the search for its route fail.
        let named = UserRules::default().of_login(&request);
        assert_eq!(named.is_some(), !matches!(request, LoginRequest::Relayed { .. }));
    }
}

fn check(request: &LoginRequest, message: &[u8]) {
    match request {
        LoginRequest::Password { login, password, authzid } => {
            assert_eq!([authzid, login.as_slice(), password.expose()].join(&0), message);
            assert!(!login.contains(&0) && !authzid.contains(&0));
        }
        LoginRequest::Digest { login, digest, .. } => {
            assert_eq!([login, digest.expose()].join(&b' '), message);
            assert_eq!(digest.expose().len(), 32);
        }
        LoginRequest::External { login } => assert_eq!(login, message),
        LoginRequest::Token { login, token, .. } => {
            assert!(!login.is_empty() && !token.is_empty());
            assert!(!token.expose().contains(&1), "a separator in a token");
            let has = |part: &[u8]| message.windows(part.len()).any(|window| window == part);
            assert!(has(token.expose()), "{}", message.escape_ascii());
        }
        LoginRequest::Relayed { .. } | LoginRequest::Anonymous => {
            panic!("not a message of SASL: {request:?}")
        }
    }
}

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
