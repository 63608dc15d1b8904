//! The request, header by header, in nginx's order.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Bytes;

use crate::auth::{AuthRequest, ClientCertificate};
use crate::protocol::{Envelope, LoginRequest};

use super::certificate::Facts;

/// What does not change from one request to the next.
#[derive(Debug)]
pub(super) struct Template {
    /// Without a port, as nginx sends it.
    pub(super) host: HeaderValue,
    /// The configured headers, in their order.
    pub(super) extra: Vec<(HeaderName, HeaderValue)>,
    /// Adds `Auth-SSL-Cert`.
    pub(super) pass_client_certificate: bool,
}

/// The request's headers.
pub(super) fn headers(template: &Template, request: &AuthRequest<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS + template.extra.len());
    headers.insert(http::header::HOST, template.host.clone());
    credentials(request.request, &mut headers);
    headers.insert(PROTOCOL, HeaderValue::from_static(request.protocol.name()));
    headers.insert(ATTEMPT, HeaderValue::from(request.attempt));
    headers.insert(CLIENT_IP, text(&request.client.to_string()));
    if let Some(host) = request.client_host.filter(|host| !host.is_empty()) {
        headers.insert(CLIENT_HOST, text(host));
    }
    if let Some((source, destination)) = request.proxied {
        proxied(source, destination, &mut headers);
    }
    if let (LoginRequest::Anonymous, Some(envelope)) = (request.request, request.envelope) {
        transaction(envelope, &mut headers);
    }
    if let Some(tls) = request.tls {
        headers.insert(SSL, HeaderValue::from_static("on"));
        headers.insert(SSL_PROTOCOL, text(&tls.version));
        headers.insert(SSL_CIPHER, text(&tls.cipher));
        if let Some(certificate) = request.certificate {
            client_certificate(certificate, template.pass_client_certificate, &mut headers);
        }
    }
    for (name, value) in &template.extra {
        headers.append(name.clone(), value.clone());
    }
    headers
}

/// So many are sent for a client without TLS and PROXY header, and a few more for one with TLS.
const USUAL_HEADERS: usize = 14;

const METHOD: HeaderName = HeaderName::from_static("auth-method");
const USER: HeaderName = HeaderName::from_static("auth-user");
const PASS: HeaderName = HeaderName::from_static("auth-pass");
const SALT: HeaderName = HeaderName::from_static("auth-salt");
const PROTOCOL: HeaderName = HeaderName::from_static("auth-protocol");
const ATTEMPT: HeaderName = HeaderName::from_static("auth-login-attempt");
const CLIENT_IP: HeaderName = HeaderName::from_static("client-ip");
const CLIENT_HOST: HeaderName = HeaderName::from_static("client-host");
const SSL: HeaderName = HeaderName::from_static("auth-ssl");
const SSL_PROTOCOL: HeaderName = HeaderName::from_static("auth-ssl-protocol");
const SSL_CIPHER: HeaderName = HeaderName::from_static("auth-ssl-cipher");

fn credentials(request: &LoginRequest, headers: &mut HeaderMap) {
    let password = match request {
        LoginRequest::Password { password, .. } => password.expose(),
        LoginRequest::Digest { digest, .. } => digest.expose(),
        LoginRequest::Token { token, .. } => token.expose(),
        LoginRequest::External { .. } | LoginRequest::Relayed { .. } | LoginRequest::Anonymous => b"",
    };
    headers.insert(METHOD, HeaderValue::from_static(request.method()));
    headers.insert(USER, escaped(request.login()));
    let mut password = escaped(password);
    password.set_sensitive(true);
    headers.insert(PASS, password);
    if let LoginRequest::Digest { salt, .. } = request {
        headers.insert(SALT, raw(salt));
    }
}

fn proxied(source: SocketAddr, destination: SocketAddr, headers: &mut HeaderMap) {
    for (name, value) in [
        ("proxy-protocol-addr", text(&source.ip().to_string())),
        ("proxy-protocol-port", HeaderValue::from(source.port())),
        ("proxy-protocol-server-addr", text(&destination.ip().to_string())),
        ("proxy-protocol-server-port", HeaderValue::from(destination.port())),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Whole lines as the client sent them, unescaped: the machine has refused control characters.
fn transaction(envelope: &Envelope, headers: &mut HeaderMap) {
    let hello = envelope.hello.as_ref().map(|hello| hello.name.as_slice());
    for (name, value) in [
        ("auth-smtp-helo", hello),
        ("auth-smtp-from", envelope.mail.as_deref()),
        ("auth-smtp-to", envelope.rcpt.as_deref()),
    ] {
        headers.insert(HeaderName::from_static(name), raw(value.unwrap_or_default()));
    }
}

fn client_certificate(certificate: ClientCertificate<'_>, pass: bool, headers: &mut HeaderMap) {
    let mut insert = |name, value| headers.insert(HeaderName::from_static(name), value);
    match certificate {
        ClientCertificate::Absent => {
            insert("auth-ssl-verify", HeaderValue::from_static("NONE"));
        }
        ClientCertificate::Presented { der, verified } => {
            let verdict = match verified {
                Ok(()) => HeaderValue::from_static("SUCCESS"),
                Err(reason) => raw(format!("FAILED:{reason}").as_bytes()),
            };
            insert("auth-ssl-verify", verdict);
            let facts = Facts::of(der);
            insert("auth-ssl-subject", raw(facts.subject.as_bytes()));
            insert("auth-ssl-issuer", raw(facts.issuer.as_bytes()));
            insert("auth-ssl-serial", text(&facts.serial));
            insert("auth-ssl-fingerprint", text(&facts.fingerprint));
            if pass {
                insert("auth-ssl-cert", escaped(pem(der).as_bytes()));
            }
        }
    }
}

/// As OpenSSL writes it: lines of 64 characters.
fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// nginx's escaping of logins, passwords and certificates: `%` and two upper-case digits for 0x00 to 0x20
/// and `%`. 0x7f too, which nginx sends raw and HTTP does not allow.
fn escaped(bytes: &[u8]) -> HeaderValue {
    escape_if(bytes, |byte| byte <= 0x20 || byte == b'%' || byte == 0x7f)
}

/// As it is; only what HTTP does not allow in a header is escaped.
fn raw(bytes: &[u8]) -> HeaderValue {
    escape_if(bytes, |byte| byte < 0x20 || byte == 0x7f)
}

fn escape_if(bytes: &[u8], special: impl Fn(u8) -> bool) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if special(byte) {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(out)).unwrap_or(EMPTY)
}

const EMPTY: HeaderValue = HeaderValue::from_static("");

fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ClientAddress;
    use crate::protocol::proxy_header::TlsFacts;
    use crate::protocol::{Hello, Mechanism, Protocol};
    use crate::secret::Secret;

    fn template() -> Template {
        Template {
            host: HeaderValue::from_static("auth.test"),
            extra: vec![(HeaderName::from_static("x-auth-key"), HeaderValue::from_static("k"))],
            pass_client_certificate: true,
        }
    }

    fn password(login: &[u8], password: &[u8]) -> LoginRequest {
        LoginRequest::Password {
            login: login.to_vec(),
            password: Secret::from(password),
            authzid: Vec::new(),
        }
    }

    fn request(login: &LoginRequest) -> AuthRequest<'_> {
        AuthRequest {
            protocol: Protocol::Imap,
            request: login,
            attempt: 1,
            client: ClientAddress::new("192.0.2.7:5555".parse().unwrap()),
            client_host: None,
            proxied: None,
            envelope: None,
            tls: None,
            certificate: None,
        }
    }

    /// `name: value` lines, in order.
    fn lines(request: &AuthRequest<'_>) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
        };
        headers(&template(), request).iter().map(line).collect()
    }

    #[test]
    fn a_plain_login_has_nginx_headers_in_nginx_order() {
        assert_eq!(
            lines(&request(&password(b"alice@test", b"pw"))),
            [
                "host: auth.test",
                "auth-method: plain",
                "auth-user: alice@test",
                "auth-pass: pw",
                "auth-protocol: imap",
                "auth-login-attempt: 1",
                "client-ip: 192.0.2.7",
                "x-auth-key: k",
            ]
        );
    }

    #[test]
    fn escapes_only_controls_space_percent_and_delete() {
        let login = password(b"a\r\nX: y", b"pw %+=\x7f\xff\0");
        let headers = headers(&template(), &request(&login));
        assert_eq!(headers[USER].as_bytes(), b"a%0D%0AX:%20y");
        assert_eq!(headers[PASS].as_bytes(), b"pw%20%25+=%7F\xff%00");
        assert!(headers[PASS].is_sensitive());
    }

    #[test]
    fn a_digest_carries_its_salt_and_a_token_its_mechanism() {
        let digest = LoginRequest::Digest {
            mechanism: Mechanism::CramMd5,
            login: b"u".to_vec(),
            digest: Secret::from(&b"0a1b"[..]),
            salt: b"<1.2@mail.test>".to_vec(),
        };
        let sent = lines(&request(&digest));
        assert_eq!(
            sent[1..5],
            ["auth-method: cram-md5", "auth-user: u", "auth-pass: 0a1b", "auth-salt: <1.2@mail.test>"]
        );
        let token = LoginRequest::Token {
            mechanism: Mechanism::OAuthBearer,
            login: b"u".to_vec(),
            token: Secret::from(&b"t"[..]),
        };
        assert_eq!(
            lines(&request(&token))[1..4],
            ["auth-method: oauthbearer", "auth-user: u", "auth-pass: t"]
        );
    }

    #[test]
    fn a_transaction_without_login_is_told_line_by_line() {
        let envelope = Envelope {
            hello: Some(Hello { extended: true, name: b"cl.test".to_vec() }),
            mail: Some(b"MAIL FROM:<a@b>  SIZE=1".to_vec()),
            rcpt: None,
        };
        let login = LoginRequest::Anonymous;
        let mut request = request(&login);
        request.protocol = Protocol::Smtp;
        request.client_host = Some("[UNAVAILABLE]");
        request.envelope = Some(&envelope);
        request.proxied = Some(("198.51.100.1:1".parse().unwrap(), "[2001:db8::1]:25".parse().unwrap()));
        assert_eq!(
            lines(&request)[1..],
            [
                "auth-method: none",
                "auth-user: ",
                "auth-pass: ",
                "auth-protocol: smtp",
                "auth-login-attempt: 1",
                "client-ip: 192.0.2.7",
                "client-host: [UNAVAILABLE]",
                "proxy-protocol-addr: 198.51.100.1",
                "proxy-protocol-port: 1",
                "proxy-protocol-server-addr: 2001:db8::1",
                "proxy-protocol-server-port: 25",
                "auth-smtp-helo: cl.test",
                "auth-smtp-from: MAIL FROM:<a@b>  SIZE=1",
                "auth-smtp-to: ",
                "x-auth-key: k",
            ]
        );
    }

    #[test]
    fn tls_and_its_client_certificate_are_told() {
        let (login, tls) = (
            LoginRequest::External { login: Vec::new() },
            TlsFacts {
                version: "TLSv1.3".to_owned(),
                cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
                ..TlsFacts::default()
            },
        );
        let key = rcgen::KeyPair::generate().unwrap();
        let der = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap().der().clone();
        let mut request = request(&login);
        request.client = ClientAddress::Unix;
        request.tls = Some(&tls);
        request.certificate =
            Some(ClientCertificate::Presented { der: &der, verified: Err("certificate has expired") });
        let sent = lines(&request);
        assert_eq!(
            sent[6..11],
            [
                "client-ip: unix:",
                "auth-ssl: on",
                "auth-ssl-protocol: TLSv1.3",
                "auth-ssl-cipher: TLS_AES_256_GCM_SHA384",
                "auth-ssl-verify: FAILED:certificate has expired",
            ]
        );
        let names: Vec<_> = sent[11..].iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            names,
            [
                "auth-ssl-subject",
                "auth-ssl-issuer",
                "auth-ssl-serial",
                "auth-ssl-fingerprint",
                "auth-ssl-cert",
                "x-auth-key"
            ]
        );
        assert!(sent[15].starts_with("auth-ssl-cert: -----BEGIN%20CERTIFICATE-----%0A"), "{}", sent[15]);

        request.certificate = Some(ClientCertificate::Absent);
        assert_eq!(lines(&request)[10], "auth-ssl-verify: NONE");
    }
}
