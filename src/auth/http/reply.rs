//! Reads the decision from the headers of a reply. The body is ignored.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use crate::auth::AuthAnswer;
use crate::model::AuthProof;
use crate::net::BackendAddress;
use crate::protocol::backend::RefusalCause;
use crate::secret::Secret;

use super::headers::Headers;

/// The content of a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// A decision.
    Answer(AuthAnswer),
    /// `Auth-Status: WAIT`: ask again, after this time if it is set.
    Wait(Option<Duration>),
}

/// Why an HTTP reply is not a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It has no `Auth-Status` header; probably the URL is wrong (quirk Q-17).
    #[error("it has no Auth-Status header (status {0}); is this the right URL?")]
    NoStatus(StatusCode),
    /// It has `Auth-Status: OK`, but no success status (quirk Q-17).
    #[error("it has Auth-Status: OK with status {0}; a login is only accepted with a 2xx status")]
    NotSuccess(StatusCode),
    /// Only one of `Auth-Server` and `Auth-Port` is set.
    #[error("it has only one of Auth-Server and Auth-Port")]
    HalfServer,
    /// `Auth-Server` is neither an address nor a host name.
    #[error("its Auth-Server is neither an address nor a host name")]
    BadServer,
    /// `Auth-Port` is not a port number.
    #[error("its Auth-Port is not a number from 1 to 65535")]
    BadPort,
}

/// The text of a refusal without a reason, because a reply line must not be empty (quirk Q-18).
const DEFAULT_REFUSAL: &str = "authentication failed";

/// Maximum `Auth-Wait` before the service is asked again.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// Maximum `Auth-Wait` before a refusal is sent. A longer one would only help a flood of connections.
const MAX_REFUSAL_WAIT: Duration = Duration::from_secs(60);

/// Reads the decision from the status and headers.
///
/// # Errors
/// The reply is not a decision.
pub fn parse(status: StatusCode, headers: &Headers, proof: AuthProof) -> Result<Reply, ReplyError> {
    let wait = headers.last("auth-wait").and_then(seconds);
    let by_headers = proof == AuthProof::Headers;
    match verdict(headers) {
        // Without `Auth-Status`, only a reply with a backend counts as a decision. Otherwise a 404 could authorise the
        // login for the listener's own backend.
        None if by_headers && names_server(headers) => accepted(headers).map(Reply::Answer),
        None => Err(ReplyError::NoStatus(status)),
        Some(b"OK") if !by_headers && !status.is_success() => Err(ReplyError::NotSuccess(status)),
        Some(b"OK") => accepted(headers).map(Reply::Answer),
        Some(b"WAIT") => Ok(Reply::Wait(wait)),
        Some(text) => {
            let is_broken = !by_headers && status.is_server_error();
            Ok(Reply::Answer(refused(text, headers, wait, is_broken)))
        }
    }
}

/// Returns the last `Auth-Status`, as nginx does, but a later OK does not override a refusal.
fn verdict(headers: &Headers) -> Option<&[u8]> {
    let mut found = None;
    for value in headers.all("auth-status") {
        if found.is_none() || found == Some(&b"OK"[..]) || value != b"OK" {
            found = Some(value);
        }
    }
    found
}

fn names_server(headers: &Headers) -> bool {
    headers.last("auth-server").is_some() && headers.last("auth-port").is_some()
}

fn accepted(headers: &Headers) -> Result<AuthAnswer, ReplyError> {
    let server = match (headers.last("auth-server"), headers.last("auth-port")) {
        (None, None) => None,
        (Some(server), Some(port)) => Some(address(server, port)?),
        _ => return Err(ReplyError::HalfServer),
    };
    Ok(AuthAnswer::Accepted {
        server,
        login: headers.last("auth-user").map(<[u8]>::to_vec),
        password: headers.last("auth-pass").map(Secret::from),
    })
}

/// `is_broken`: the HTTP status says that the service is at fault.
fn refused(text: &[u8], headers: &Headers, wait: Option<Duration>, is_broken: bool) -> AuthAnswer {
    let text = if text.is_empty() { DEFAULT_REFUSAL.as_bytes() } else { text }.to_vec();
    let ascii = |name, fits: fn(&str) -> bool| {
        let value = std::str::from_utf8(headers.last(name)?).ok()?;
        fits(value).then(|| value.to_owned())
    };
    let (code, sasl) = (ascii("auth-error-code", is_error_code), ascii("auth-error-sasl", is_base64));
    let cause =
        if is_broken { RefusalCause::Server } else { RefusalCause::of_auth_service(&text, code.as_deref()) };
    AuthAnswer::Refused { text, code, wait: wait.map(|wait| wait.min(MAX_REFUSAL_WAIT)), sasl, cause }
}

/// Tells whether a web server answers so to a request that is too long for it; nginx answers 400.
pub(super) fn is_too_long(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::URI_TOO_LONG
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
}

/// Returns the decision about a password that is too long for the service to read: it is wrong.
pub(super) fn refused_unread() -> Reply {
    let text = DEFAULT_REFUSAL.into();
    let cause = RefusalCause::Credentials;
    Reply::Answer(AuthAnswer::Refused { text, code: None, wait: None, sasl: None, cause })
}

/// Returns the headers of a refusal that are present but invalid.
pub(super) fn unusable(headers: &Headers) -> Vec<&'static str> {
    let is_none = |name, fits: fn(&str) -> bool| {
        headers.last(name).is_some_and(|value| !std::str::from_utf8(value).is_ok_and(fits))
    };
    let checks = [
        ("auth-error-code", is_none("auth-error-code", is_error_code)),
        ("auth-error-sasl", is_none("auth-error-sasl", is_base64)),
    ];
    checks.into_iter().filter(|(_, is_none)| *is_none).map(|(name, _)| name).collect()
}

/// Accepts codes such as `451 4.3.0`. Other codes would tell the client that it is logged in, or make no sense.
fn is_error_code(code: &str) -> bool {
    let (basic, enhanced) = code.split_once(' ').unwrap_or((code, ""));
    basic.len() == 3
        && basic.starts_with(['4', '5'])
        && basic.bytes().all(|byte| byte.is_ascii_digit())
        && enhanced.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Parses the backend. A name is resolved when it is connected to. Brackets around IPv6 are accepted, unlike in nginx.
fn address(server: &[u8], port: &[u8]) -> Result<BackendAddress, ReplyError> {
    let text = |bytes, error| std::str::from_utf8(bytes).map_err(|_| error);
    let digits = text(port, ReplyError::BadPort)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| is_number && *port != 0).ok_or(ReplyError::BadPort)?;
    let server = text(server, ReplyError::BadServer)?;
    let bracketed = server.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = bracketed.map_or_else(|| server.parse::<IpAddr>().ok(), |v6| v6.parse().ok().map(IpAddr::V6));
    if let Some(ip) = ip {
        return Ok(BackendAddress::Ip((ip, port).into()));
    }
    let host = server.trim_end_matches('.');
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = (1..=253).contains(&host.len())
        && host.bytes().all(harmless)
        && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    if !is_name {
        return Err(ReplyError::BadServer);
    }
    Ok(BackendAddress::Name { host: host.to_owned(), port })
}

/// Parses `Auth-Wait`. 0 and invalid values mean no wait.
fn seconds(value: &[u8]) -> Option<Duration> {
    let seconds = std::str::from_utf8(value).ok()?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> Headers {
        Headers::new(0, lines.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    fn ok(lines: &[(&'static str, &'static str)]) -> Result<Reply, ReplyError> {
        parse(StatusCode::OK, &headers(lines), AuthProof::StatusAndHeader)
    }

    fn server_of(server: &'static str, port: &'static str) -> Result<BackendAddress, ReplyError> {
        match ok(&[("auth-status", "OK"), ("auth-server", server), ("auth-port", port)])? {
            Reply::Answer(AuthAnswer::Accepted { server, .. }) => Ok(server.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(text: &str) -> AuthAnswer {
        let cause = RefusalCause::Credentials;
        AuthAnswer::Refused { text: text.into(), code: None, wait: None, sasl: None, cause }
    }

    #[test]
    fn ok_names_the_backend_by_address_or_by_name() {
        assert_eq!(server_of("192.0.2.1", "143").unwrap().to_string(), "192.0.2.1:143");
        assert_eq!(server_of("2001:db8::1", "143").unwrap().to_string(), "[2001:db8::1]:143");
        assert_eq!(server_of("[2001:db8::1]", "143").unwrap().to_string(), "[2001:db8::1]:143");
        let name = BackendAddress::Name { host: "imap.mail".to_owned(), port: 143 };
        assert_eq!(server_of("imap.mail.", "143"), Ok(name));
        for server in ["", "unix:/run/s", "a b", "1.2.3", "[imap]", "[192.0.2.1]"] {
            assert_eq!(server_of(server, "143"), Err(ReplyError::BadServer), "{server}");
        }
        for port in ["", "0", "65536", "imap", "-1", "+143"] {
            assert_eq!(server_of("192.0.2.1", port), Err(ReplyError::BadPort), "{port}");
        }
    }

    #[test]
    fn ok_may_leave_the_backend_to_the_listener_but_not_by_half() {
        let accepted = AuthAnswer::Accepted {
            server: None,
            login: Some(b"bob".to_vec()),
            password: Some(Secret::from(&b"s3cret"[..])),
        };
        let reply = ok(&[("auth-status", "OK"), ("auth-user", "bob"), ("auth-pass", "s3cret")]);
        assert_eq!(reply, Ok(Reply::Answer(accepted)));
        assert_eq!(ok(&[("auth-status", "OK"), ("auth-port", "143")]), Err(ReplyError::HalfServer));
    }

    #[test]
    fn only_a_2xx_with_exactly_ok_accepts() {
        assert_eq!(
            ok(&[("auth-server", "192.0.2.1"), ("auth-port", "143")]),
            Err(ReplyError::NoStatus(StatusCode::OK))
        );
        let status = StatusCode::NOT_FOUND;
        let strictly = |status, lines: &[_]| parse(status, &headers(lines), AuthProof::StatusAndHeader);
        assert_eq!(strictly(status, &[("auth-status", "OK")]), Err(ReplyError::NotSuccess(status)));
        assert_eq!(ok(&[("auth-status", "ok")]), Ok(Reply::Answer(refusal("ok"))));
        assert_eq!(
            strictly(StatusCode::FORBIDDEN, &[("auth-status", "blocked")]),
            Ok(Reply::Answer(refusal("blocked")))
        );
    }

    #[test]
    fn where_the_headers_are_enough_the_http_status_means_nothing() {
        let by_headers = |status, lines: &[_]| parse(status, &headers(lines), AuthProof::Headers);
        let to = |server| Ok(Reply::Answer(AuthAnswer::Accepted { server, login: None, password: None }));
        let backend = BackendAddress::Ip("192.0.2.1:143".parse().unwrap());
        let named = [("auth-server", "192.0.2.1"), ("auth-port", "143")];
        for status in [StatusCode::OK, StatusCode::FOUND, StatusCode::NOT_FOUND, StatusCode::BAD_GATEWAY] {
            assert_eq!(by_headers(status, &[("auth-status", "OK")]), to(None));
            assert_eq!(by_headers(status, &named), to(Some(backend.clone())));
            assert_eq!(by_headers(status, &[]), Err(ReplyError::NoStatus(status)), "a misrouted URL");
            assert_eq!(by_headers(status, &named[..1]), Err(ReplyError::NoStatus(status)));
            assert_eq!(
                by_headers(status, &[("auth-status", "no"), named[0], named[1]]),
                Ok(Reply::Answer(refusal("no")))
            );
            assert_eq!(
                by_headers(status, &[("auth-status", ""), named[0], named[1]]),
                Ok(Reply::Answer(refusal(DEFAULT_REFUSAL)))
            );
        }
    }

    #[test]
    fn an_empty_status_refuses_in_every_protocol() {
        assert_eq!(ok(&[("auth-status", " ")]), Ok(Reply::Answer(refusal(DEFAULT_REFUSAL))));
    }

    #[test]
    fn no_later_ok_takes_a_refusal_back() {
        assert_eq!(ok(&[("auth-status", "no"), ("auth-status", "OK")]), Ok(Reply::Answer(refusal("no"))));
        assert_eq!(ok(&[("auth-status", "OK"), ("auth-status", "no")]), Ok(Reply::Answer(refusal("no"))));
    }

    #[test]
    fn a_refusal_carries_code_wait_and_sasl_where_they_are_sane() {
        let reply = ok(&[
            ("auth-status", "[ALERT] gone"),
            ("auth-error-code", "451 4.3.0"),
            ("auth-wait", "3"),
            ("auth-error-sasl", "eyJ9"),
        ]);
        let expected = AuthAnswer::Refused {
            text: b"[ALERT] gone".to_vec(),
            code: Some("451 4.3.0".to_owned()),
            wait: Some(Duration::from_secs(3)),
            sasl: Some("eyJ9".to_owned()),
            cause: RefusalCause::Server,
        };
        assert_eq!(reply, Ok(Reply::Answer(expected)));
        let nonsense = ok(&[
            ("auth-status", "no"),
            ("auth-error-code", "235 2.0.0"),
            ("auth-wait", "soon"),
            ("auth-error-sasl", "not base64!"),
        ]);
        let nonsensical = [("auth-error-code", "235 2.0.0"), ("auth-error-sasl", "not base64!")];
        assert_eq!(unusable(&headers(&nonsensical)), ["auth-error-code", "auth-error-sasl"]);
        assert_eq!(nonsense, Ok(Reply::Answer(refusal("no"))));
    }

    #[test]
    fn a_refusal_with_a_5xx_status_is_the_services_fault() {
        let lines = headers(&[("auth-status", "try again later")]);
        let cause_of = |status| match parse(status, &lines, AuthProof::StatusAndHeader) {
            Ok(Reply::Answer(AuthAnswer::Refused { cause, .. })) => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(cause_of(StatusCode::SERVICE_UNAVAILABLE), RefusalCause::Server);
        assert_eq!(cause_of(StatusCode::FORBIDDEN), RefusalCause::Credentials);
        assert_eq!(cause_of(StatusCode::OK), RefusalCause::Credentials);
    }

    #[test]
    fn wait_is_bounded_and_may_be_absent() {
        assert_eq!(ok(&[("auth-status", "WAIT")]), Ok(Reply::Wait(None)));
        assert_eq!(ok(&[("auth-status", "WAIT"), ("auth-wait", "0")]), Ok(Reply::Wait(None)));
        assert_eq!(
            ok(&[("auth-status", "WAIT"), ("auth-wait", "99999999")]),
            Ok(Reply::Wait(Some(MAX_WAIT)))
        );
        let Ok(Reply::Answer(AuthAnswer::Refused { wait, .. })) =
            ok(&[("auth-status", "no"), ("auth-wait", "99999999")])
        else {
            panic!("not refused");
        };
        assert_eq!(wait, Some(MAX_REFUSAL_WAIT));
    }
}
