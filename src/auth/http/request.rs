//! Builds the request, with its headers in nginx's order.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::uri::PathAndQuery;

use crate::auth::{AuthRequest, ClientCertificate};
use crate::model::{AuthHeader, HeaderText};
use crate::protocol::{Envelope, LoginRequest};
use crate::secret::{self, Secret, Wiped};

use super::certificate::Facts;

/// The parts that are the same in every request.
#[derive(Debug)]
pub(super) struct Template {
    /// The path and query of the URL.
    pub(super) path: PathAndQuery,
    /// The host without a port, as in nginx.
    pub(super) host: HeaderValue,
    /// If false, the request has `Connection: close`.
    pub(super) keep_alive: bool,
    /// The configured headers in their order; already checked.
    pub(super) extra: Vec<AuthHeader>,
    /// Adds `Auth-SSL-Cert`.
    pub(super) pass_client_certificate: bool,
}

/// Bytes of the lines of most requests, without the variable parts that [`room`] adds.
const ROOM: usize = 192;

/// Returns the initial capacity, in bytes; enough for most requests. A larger one would cost time, because all of it is
/// wiped.
fn room(template: &Template, request: &LoginRequest) -> usize {
    let parts =
        [template.path.as_str().len(), template.host.len(), request.login().len(), password(request).len()];
    parts.into_iter().fold(ROOM, usize::saturating_add)
}

/// Builds the request. It is secret, because it contains the password.
pub(super) fn bytes(template: &Template, request: &AuthRequest<'_>) -> Secret {
    let mut lines = Lines(Wiped::with_capacity(room(template, request.request)));
    for part in [b"GET ", template.path.as_str().as_bytes(), b" HTTP/1.1\r\n"] {
        lines.append(part);
    }
    lines.raw("Host", template.host.as_bytes());
    if !template.keep_alive {
        lines.raw("Connection", b"close");
    }
    credentials(request.request, &mut lines);
    lines.raw("Auth-Protocol", request.protocol.name().as_bytes());
    lines.shown("Auth-Login-Attempt", request.attempt);
    lines.shown("Client-IP", request.client);
    if let Some(host) = request.client_host.filter(|host| !host.is_empty()) {
        lines.raw("Client-Host", host.as_bytes());
    }
    if let Some((source, destination)) = request.proxied {
        proxied(source, destination, &mut lines);
    }
    if let (LoginRequest::Anonymous, Some(envelope)) = (request.request, request.envelope) {
        transaction(envelope, &mut lines);
    }
    if let Some(tls) = request.tls {
        lines.raw("Auth-SSL", b"on");
        lines.raw("Auth-SSL-Protocol", tls.version.as_bytes());
        lines.raw("Auth-SSL-Cipher", tls.cipher.as_bytes());
        if let Some(certificate) = request.certificate {
            client_certificate(certificate, template.pass_client_certificate, &mut lines);
        }
    }
    for AuthHeader { name, value } in &template.extra {
        match value {
            HeaderText::Fixed(text) => lines.raw(name, text.expose()),
            HeaderText::ClientPort => lines.shown(name, request.client.port()),
            HeaderText::SessionId => lines.shown(name, request.session),
        }
    }
    lines.append(b"\r\n");
    Secret::new(std::mem::take(&mut lines.0))
}

/// The header lines of a request. Growing leaves no copy of the password.
struct Lines(Wiped);

impl Lines {
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.0.len().saturating_add(bytes.len());
        if needed > self.0.capacity() {
            secret::grow(&mut self.0, needed.saturating_mul(2));
        }
        self.0.extend_from_slice(bytes);
    }

    /// Appends a header with nginx's escaping of logins, passwords and certificates: `%` and two upper-case digits for
    /// 0x00 to 0x20 and `%`. 0x7f is escaped too; nginx does not do this, but HTTP does not allow it.
    fn escaped(&mut self, name: &str, value: &[u8]) {
        self.line(name, value, |byte| byte <= 0x20 || byte == b'%' || byte == 0x7f);
    }

    /// Appends a header and escapes only bytes that HTTP does not allow.
    fn raw(&mut self, name: &str, value: &[u8]) {
        self.line(name, value, |byte| byte < 0x20 || byte == 0x7f);
    }

    fn line(&mut self, name: &str, value: &[u8], special: impl Fn(u8) -> bool) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        self.name(name);
        for part in value.chunk_by(|_, byte| !special(*byte)) {
            match part {
                [first, rest @ ..] if special(*first) => {
                    self.append(&[b'%', DIGITS[usize::from(first >> 4)], DIGITS[usize::from(first & 15)]]);
                    self.append(rest);
                }
                plain => self.append(plain),
            }
        }
        self.append(b"\r\n");
    }

    /// Appends a header with a number or an IP address, which needs no escaping.
    fn shown(&mut self, name: &str, value: impl Display) {
        self.name(name);
        // Writing to memory cannot fail.
        let _ = write!(self, "{value}\r\n");
    }

    fn name(&mut self, name: &str) {
        self.append(name.as_bytes());
        self.append(b": ");
    }
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes());
        Ok(())
    }
}

/// Returns what proves the login.
fn password(request: &LoginRequest) -> &[u8] {
    match request {
        LoginRequest::Password { password, .. } => password.expose(),
        LoginRequest::Digest { digest, .. } => digest.expose(),
        LoginRequest::Token { token, .. } => token.expose(),
        LoginRequest::External { .. } | LoginRequest::Relayed { .. } | LoginRequest::Anonymous => b"",
    }
}

fn credentials(request: &LoginRequest, lines: &mut Lines) {
    lines.raw("Auth-Method", request.method().as_bytes());
    lines.escaped("Auth-User", request.login());
    lines.escaped("Auth-Pass", password(request));
    if let LoginRequest::Digest { salt, .. } = request {
        lines.raw("Auth-Salt", salt);
    }
}

fn proxied(source: SocketAddr, destination: SocketAddr, lines: &mut Lines) {
    lines.shown("Proxy-Protocol-Addr", source.ip());
    lines.shown("Proxy-Protocol-Port", source.port());
    lines.shown("Proxy-Protocol-Server-Addr", destination.ip());
    lines.shown("Proxy-Protocol-Server-Port", destination.port());
}

/// Appends the client's commands unescaped, as whole lines. The frontend has already refused control characters.
fn transaction(envelope: &Envelope, lines: &mut Lines) {
    let hello = envelope.hello.as_ref().map(|hello| hello.name.as_slice());
    for (name, value) in [
        ("Auth-SMTP-Helo", hello),
        ("Auth-SMTP-From", envelope.mail.as_deref()),
        ("Auth-SMTP-To", envelope.rcpt.as_deref()),
    ] {
        lines.raw(name, value.unwrap_or_default());
    }
}

fn client_certificate(certificate: ClientCertificate<'_>, pass: bool, lines: &mut Lines) {
    match certificate {
        ClientCertificate::Absent => lines.raw("Auth-SSL-Verify", b"NONE"),
        ClientCertificate::Presented { der, verified } => {
            match verified {
                Ok(()) => lines.raw("Auth-SSL-Verify", b"SUCCESS"),
                Err(reason) => lines.raw("Auth-SSL-Verify", format!("FAILED:{reason}").as_bytes()),
            }
            let facts = Facts::of(der);
            lines.raw("Auth-SSL-Subject", facts.subject.as_bytes());
            lines.raw("Auth-SSL-Issuer", facts.issuer.as_bytes());
            lines.raw("Auth-SSL-Serial", facts.serial.as_bytes());
            lines.raw("Auth-SSL-Fingerprint", facts.fingerprint.as_bytes());
            if pass {
                lines.escaped("Auth-SSL-Cert", pem(der).as_bytes());
            }
        }
    }
}

/// Encodes PEM as OpenSSL does, with lines of 64 characters.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionId;
    use crate::net::ClientAddress;
    use crate::protocol::proxy_header::TlsFacts;
    use crate::protocol::{Hello, Mechanism, Protocol};
    use crate::secret::Secret;

    fn template() -> Template {
        Template {
            path: PathAndQuery::from_static("/auth"),
            host: HeaderValue::from_static("auth.test"),
            keep_alive: true,
            extra: vec![AuthHeader {
                name: "X-Auth-Key".to_owned(),
                value: HeaderText::Fixed(Secret::from(&b"k"[..])),
            }],
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
            session: SessionId { process: 1, number: 2 },
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

    /// Returns the lines of a request in order.
    fn lines(request: &AuthRequest<'_>) -> Vec<String> {
        let bytes = bytes(&template(), request);
        let text = String::from_utf8_lossy(bytes.expose()).into_owned();
        let lines =
            text.strip_prefix("GET /auth HTTP/1.1\r\n").and_then(|rest| rest.strip_suffix("\r\n\r\n"));
        lines.expect("a whole request").split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_login_has_nginx_headers_in_nginx_order() {
        assert_eq!(
            lines(&request(&password(b"alice@test", b"pw"))),
            [
                "Host: auth.test",
                "Auth-Method: plain",
                "Auth-User: alice@test",
                "Auth-Pass: pw",
                "Auth-Protocol: imap",
                "Auth-Login-Attempt: 1",
                "Client-IP: 192.0.2.7",
                "X-Auth-Key: k",
            ]
        );
    }

    #[test]
    fn escapes_only_controls_space_percent_and_delete() {
        let login = password(b"a\r\nX: y", b"pw %+=\x7f\xff\0");
        let bytes = bytes(&template(), &request(&login));
        let lines = b"\r\nAuth-User: a%0D%0AX:%20y\r\nAuth-Pass: pw%20%25+=%7F\xff%00\r\n";
        assert!(bytes.expose().windows(lines.len()).any(|window| window == lines));
    }

    #[test]
    fn a_request_that_outgrows_its_first_buffer_is_whole() {
        let long = vec![b'%'; 10_000];
        let sent = lines(&request(&password(b"alice@test", &long)));
        assert_eq!(sent[3], format!("Auth-Pass: {}", "%25".repeat(long.len())));
        assert_eq!(sent.len(), 8);
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
            ["Auth-Method: cram-md5", "Auth-User: u", "Auth-Pass: 0a1b", "Auth-Salt: <1.2@mail.test>"]
        );
        let token = LoginRequest::Token {
            mechanism: Mechanism::OAuthBearer,
            login: b"u".to_vec(),
            token: Secret::from(&b"t"[..]),
        };
        assert_eq!(
            lines(&request(&token))[1..4],
            ["Auth-Method: oauthbearer", "Auth-User: u", "Auth-Pass: t"]
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
                "Auth-Method: none",
                "Auth-User: ",
                "Auth-Pass: ",
                "Auth-Protocol: smtp",
                "Auth-Login-Attempt: 1",
                "Client-IP: 192.0.2.7",
                "Client-Host: [UNAVAILABLE]",
                "Proxy-Protocol-Addr: 198.51.100.1",
                "Proxy-Protocol-Port: 1",
                "Proxy-Protocol-Server-Addr: 2001:db8::1",
                "Proxy-Protocol-Server-Port: 25",
                "Auth-SMTP-Helo: cl.test",
                "Auth-SMTP-From: MAIL FROM:<a@b>  SIZE=1",
                "Auth-SMTP-To: ",
                "X-Auth-Key: k",
            ]
        );
    }

    #[test]
    fn a_header_may_say_the_clients_port() {
        let login = password(b"u", b"p");
        let mut request = request(&login);
        let mut template = template();
        template.extra = vec![AuthHeader { name: "Client-Port".to_owned(), value: HeaderText::ClientPort }];
        for (client, line) in [
            (request.client, &b"\r\nClient-Port: 5555\r\n\r\n"[..]),
            (ClientAddress::Unix, &b"\r\nClient-Port: 0\r\n\r\n"[..]),
        ] {
            request.client = client;
            assert!(bytes(&template, &request).expose().ends_with(line));
        }
    }

    #[test]
    fn a_header_may_say_the_sessions_id() {
        let login = password(b"u", b"p");
        let mut template = template();
        template.extra = vec![AuthHeader { name: "X-Session".to_owned(), value: HeaderText::SessionId }];
        let sent = bytes(&template, &request(&login));
        assert!(sent.expose().ends_with(b"\r\nX-Session: 0000000000001-2\r\n\r\n"));
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
                "Client-IP: unix:",
                "Auth-SSL: on",
                "Auth-SSL-Protocol: TLSv1.3",
                "Auth-SSL-Cipher: TLS_AES_256_GCM_SHA384",
                "Auth-SSL-Verify: FAILED:certificate has expired",
            ]
        );
        let names: Vec<_> = sent[11..].iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(
            names,
            [
                "Auth-SSL-Subject",
                "Auth-SSL-Issuer",
                "Auth-SSL-Serial",
                "Auth-SSL-Fingerprint",
                "Auth-SSL-Cert",
                "X-Auth-Key"
            ]
        );
        assert!(sent[15].starts_with("Auth-SSL-Cert: -----BEGIN%20CERTIFICATE-----%0A"), "{}", sent[15]);

        request.certificate = Some(ClientCertificate::Absent);
        assert_eq!(lines(&request)[10], "Auth-SSL-Verify: NONE");
    }
}
