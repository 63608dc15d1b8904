//! SASL (RFC 4422): the mechanisms, and the decoding of clients' messages.
//!
//! `dialogue` has the exchange of a frontend with its client, which is the same in all protocols.

pub(crate) mod dialogue;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Serialize;

use crate::secret::{Secret, Wiped};

use super::login::{self, LoginRequest};

/// A login mechanism, as in `authMethods`. The order is the order of announcement, as in nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Mechanism {
    /// SASL PLAIN (RFC 4616).
    Plain,
    /// SASL LOGIN (draft-murchison-sasl-login).
    Login,
    /// POP3's APOP (RFC 1939 section 7). It needs an auth service.
    Apop,
    /// CRAM-MD5 (RFC 2195).
    CramMd5,
    /// EXTERNAL (RFC 4422 appendix A): the client certificate is the credential.
    External,
    /// XOAUTH2, Google's bearer-token mechanism.
    XOAuth2,
    /// OAUTHBEARER (RFC 7628).
    OAuthBearer,
    /// SMTP without a login, for port 25. The auth service or the listener names the backend.
    None,
}

impl Mechanism {
    /// All mechanisms, in the order of announcement.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Login,
        Self::Apop,
        Self::CramMd5,
        Self::External,
        Self::XOAuth2,
        Self::OAuthBearer,
        Self::None,
    ];

    /// Returns the name in upper case, as announced and as in `authMethods`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Apop => "APOP",
            Self::CramMd5 => "CRAM-MD5",
            Self::External => "EXTERNAL",
            Self::XOAuth2 => "XOAUTH2",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::None => "NONE",
        }
    }

    /// Returns the value of nginx's `Auth-Method`, which is `plain` for both PLAIN and LOGIN.
    #[must_use]
    pub const fn auth_method(self) -> &'static str {
        match self {
            Self::Plain | Self::Login => "plain",
            Self::Apop => "apop",
            Self::CramMd5 => "cram-md5",
            Self::External => "external",
            Self::XOAuth2 => "xoauth2",
            Self::OAuthBearer => "oauthbearer",
            Self::None => "none",
        }
    }

    /// Tells whether AUTH and AUTHENTICATE accept the mechanism.
    #[must_use]
    pub const fn is_sasl(self) -> bool {
        !matches!(self, Self::Apop | Self::None)
    }

    /// Tells whether the mechanism sends a login and a password. PLAIN and LOGIN are enabled together.
    #[must_use]
    pub const fn is_password(self) -> bool {
        matches!(self, Self::Plain | Self::Login)
    }

    /// Returns the SASL mechanism with this name, ignoring case.
    #[must_use]
    pub fn from_sasl_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .filter(|mechanism| mechanism.is_sasl())
            .find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }
}

/// Decodes base64 by nginx's rules: the text ends at the first `=`, padding may be missing, and left-over bits are
/// ignored. A single `=` is the empty string (RFC 4954 and RFC 5034).
#[must_use]
pub fn decode_base64(text: &[u8]) -> Option<Wiped> {
    let digits = text.split(|&byte| byte == b'=').next().unwrap_or_default();
    LENIENT.decode(digits).ok().map(Wiped::from)
}

/// Encodes with padding, which all protocols here require.
#[must_use]
pub fn encode_base64(bytes: &[u8]) -> String {
    LENIENT.encode(bytes)
}

/// Tells whether a token can be a message of a relayed exchange: base64, `=`, or empty.
#[must_use]
pub fn is_message(token: &[u8]) -> bool {
    token.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// Tells whether a relayed message contains NUL, CR or LF. No mechanism that is relayed uses them in its messages. Text
/// after a `=` is read too, because backends disagree about whether the message ends there.
#[must_use]
pub fn holds_line_breaks_or_nul(message: &[u8]) -> bool {
    let runs = message.split(|&byte| byte == b'=').filter_map(|run| LENIENT.decode(run).ok());
    runs.map(Wiped::from).any(|run| login::holds_line_breaks_or_nul(&run))
}

/// Decodes PLAIN (RFC 4616): `authzid NUL login NUL password`. Further NULs become part of the password, which
/// `PendingLogin` then refuses.
#[must_use]
pub fn decode_plain(text: &[u8]) -> Option<LoginRequest> {
    let message = decode_base64(text)?;
    let mut parts = message.splitn(3, |&byte| byte == 0);
    let (authzid, login, password) = (parts.next()?, parts.next()?, parts.next()?);
    Some(LoginRequest::Password {
        login: login.to_vec(),
        password: Secret::from(password),
        authzid: authzid.to_vec(),
    })
}

/// Decodes CRAM-MD5 (RFC 2195): `login SP digest`, split at the first space as in nginx. The digest must have 32
/// digits.
#[must_use]
pub fn decode_cram_md5(text: &[u8], salt: Vec<u8>) -> Option<LoginRequest> {
    let message = decode_base64(text)?;
    let mut parts = message.splitn(2, |&byte| byte == b' ');
    let (login, digest) = (parts.next()?, parts.next()?);
    (digest.len() == MD5_DIGITS).then(|| LoginRequest::Digest {
        mechanism: Mechanism::CramMd5,
        login: login.to_vec(),
        digest: Secret::from(digest),
        salt,
    })
}

/// Decodes EXTERNAL (RFC 4422 appendix A): the requested identity, which may be empty.
#[must_use]
pub fn decode_external(text: &[u8]) -> Option<LoginRequest> {
    Some(LoginRequest::External { login: decode_base64(text)?.to_vec() })
}

/// Decodes XOAUTH2: exactly `user=` login `^A` `auth=Bearer ` token `^A^A`.
#[must_use]
pub fn decode_xoauth2(text: &[u8]) -> Option<LoginRequest> {
    let message = decode_base64(text)?;
    let mut parts = strip_keyword(&message, b"user=")?.splitn(2, |&byte| byte == SEPARATOR);
    let (login, auth) = (parts.next()?, parts.next()?);
    let token = strip_keyword(auth, b"auth=Bearer ")?.strip_suffix(&[SEPARATOR, SEPARATOR])?;
    if token.contains(&SEPARATOR) {
        return None;
    }
    bearer(Mechanism::XOAuth2, login.to_vec(), token)
}

/// Decodes OAUTHBEARER (RFC 7628 section 3.1): a GS2 header with the login, then fields, of which `auth` is required.
#[must_use]
pub fn decode_oauthbearer(text: &[u8]) -> Option<LoginRequest> {
    let message = decode_base64(text)?;
    let mut parts = strip_keyword(&message, b"n,a=")?.splitn(2, |&byte| byte == b',');
    let (login, rest) = (unescape_saslname(parts.next()?)?, parts.next()?);
    let fields = rest.strip_prefix(&[SEPARATOR])?.strip_suffix(&[SEPARATOR])?;
    // The end of the message (RFC 7628: `*kvpair kvsep`) looks like an additional empty field.
    let fields = fields.strip_suffix(&[SEPARATOR]).unwrap_or(fields);
    let mut token = None;
    for field in fields.split(|&byte| byte == SEPARATOR) {
        if !field.contains(&b'=') {
            return None;
        }
        if let Some(value) = strip_keyword(field, b"auth=Bearer ")
            && token.replace(value).is_some()
        {
            return None;
        }
    }
    bearer(Mechanism::OAuthBearer, login, token?)
}

fn bearer(mechanism: Mechanism, login: Vec<u8>, token: &[u8]) -> Option<LoginRequest> {
    if login.is_empty() || token.is_empty() {
        return None;
    }
    Some(LoginRequest::Token { mechanism, login, token: Secret::from(token) })
}

/// Returns the text after `keyword`, ignoring case.
fn strip_keyword<'a>(text: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(keyword.len())?;
    start.eq_ignore_ascii_case(keyword).then_some(rest)
}

/// RFC 5801 section 4: `=2C` is a comma, `=3D` an equals sign, and any other `=` is an error.
fn unescape_saslname(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut pieces = text.split(|&byte| byte == b'=');
    name.extend_from_slice(pieces.next()?);
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2)?;
        name.push(match code.to_ascii_uppercase().as_slice() {
            b"2C" => b',',
            b"3D" => b'=',
            _ => return None,
        });
        name.extend_from_slice(rest);
    }
    Some(name)
}

/// Longest response of a client in bytes (RFC 4954 section 4).
pub(crate) const MAX_RESPONSE: usize = 12_288;
/// The separator of fields in XOAUTH2 and OAUTHBEARER.
const SEPARATOR: u8 = 1;
/// Hexadecimal digits of an MD5 digest.
const MD5_DIGITS: usize = 32;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        encode_base64(bytes).into_bytes()
    }

    #[test]
    fn decodes_base64_as_nginx_does() {
        let decode = |text: &[u8]| decode_base64(text).map(|bytes| bytes.to_vec());
        assert_eq!(decode(b"b2s="), Some(b"ok".to_vec()));
        assert_eq!(decode(b"b2s"), Some(b"ok".to_vec()));
        assert_eq!(decode(b"b2t"), Some(b"ok".to_vec()));
        assert_eq!(decode(b"b2s=*garbage*"), Some(b"ok".to_vec()));
        assert_eq!(decode(b"="), Some(vec![]));
        assert_eq!(decode(b""), Some(vec![]));
        assert_eq!(decode(b"b2sab"), None);
        assert_eq!(decode(b"*"), None);
        assert_eq!(decode(b"b 2s"), None);
    }

    #[test]
    fn plain_keeps_the_authorization_identity_and_nuls_in_the_password() {
        assert_eq!(
            decode_plain(&encode(b"boss\0me\0p\0w")),
            Some(LoginRequest::Password {
                login: b"me".to_vec(),
                password: Secret::from(&b"p\0w"[..]),
                authzid: b"boss".to_vec(),
            })
        );
        assert_eq!(decode_plain(&encode(b"me\0pw")), None);
        assert_eq!(decode_plain(&encode(b"me")), None);
    }

    #[test]
    fn cram_md5_wants_32_digits() {
        let digits = "0123456789abcdef0123456789abcdef";
        let good = encode(format!("tim {digits}").as_bytes());
        assert!(decode_cram_md5(&good, vec![]).is_some());
        assert!(decode_cram_md5(&encode(format!("tim x {digits}").as_bytes()), vec![]).is_none());
        assert!(decode_cram_md5(&encode(b"tim"), vec![]).is_none());
    }

    #[test]
    fn xoauth2_is_taken_exactly() {
        let decode = |text: &[u8]| decode_xoauth2(&encode(text));
        let Some(LoginRequest::Token { login, token, .. }) = decode(b"USER=me\x01AUTH=bearer tok\x01\x01")
        else {
            panic!("a valid message is refused");
        };
        assert_eq!((login.as_slice(), token.expose()), (&b"me"[..], &b"tok"[..]));
        for broken in [
            &b"user=me\x01auth=Bearer tok\x01"[..],
            b"user=me\x01auth=Bearer tok\x01\x01\x01",
            b"user=me\x01auth=Basic tok\x01\x01",
            b"user=\x01auth=Bearer tok\x01\x01",
            b"user=me\x01auth=Bearer \x01\x01",
            b"me",
        ] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn oauthbearer_unescapes_the_login_and_ignores_other_fields() {
        let decode = |text: &[u8]| decode_oauthbearer(&encode(text));
        let message = b"n,a=a=2cb=3D,\x01host=h\x01port=143\x01auth=Bearer tok\x01\x01";
        let Some(LoginRequest::Token { login, token, .. }) = decode(message) else {
            panic!("a valid message is refused");
        };
        assert_eq!((login.as_slice(), token.expose()), (&b"a,b="[..], &b"tok"[..]));
        assert!(decode(b"n,a=me,\x01auth=Bearer tok\x01").is_some());
        for broken in [
            &b"n,a=me=40,\x01auth=Bearer tok\x01\x01"[..],
            b"n,a=me=,\x01auth=Bearer tok\x01\x01",
            b"n,a=,\x01auth=Bearer tok\x01\x01",
            b"n,a=me,\x01host=h\x01\x01",
            b"n,a=me,\x01auth=Bearer \x01\x01",
            b"y,a=me,\x01auth=Bearer tok\x01\x01",
            b"n,a=me,auth=Bearer tok",
        ] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn line_breaks_and_nul_are_found_in_relayed_messages() {
        for bad in
            [&b"user=bo\rb\x01auth=Bearer tok\x01\x01"[..], b"user=b\x01auth=Bearer t\0k\x01\x01", b"\n"]
        {
            assert!(holds_line_breaks_or_nul(&encode(bad)), "{bad:?}");
        }
        assert!(holds_line_breaks_or_nul(b"b2s=Cg=="), "after the padding");
        assert!(holds_line_breaks_or_nul(b"Cg"), "without padding");
        for good in [&b"dXNlcj1ib2IBYXV0aD1CZWFyZXIgdG9rAQE="[..], b"AQ==", b"=", b"", b"b"] {
            assert!(!holds_line_breaks_or_nul(good), "{good:?}");
        }
    }

    #[test]
    fn only_sasl_mechanisms_have_a_sasl_name() {
        assert_eq!(Mechanism::from_sasl_name(b"cram-md5"), Some(Mechanism::CramMd5));
        assert_eq!(Mechanism::from_sasl_name(b"APOP"), None);
        assert_eq!(Mechanism::from_sasl_name(b"none"), None);
    }
}
