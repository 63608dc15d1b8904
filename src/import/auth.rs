//! Converts `auth_http` and related directives.

use crate::api::auth::{AuthSettings, Header, HeaderSource, HttpAuth};
use crate::api::common::SecretKeyRef;
use crate::secret::{Secret, shown_url};

use super::effective::Server;
use super::names;
use super::objects::Objects;
use super::problem::{Note, Problem};
use super::settings;
use super::values;

/// Returns the settings for deciding about a server's logins.
pub(super) fn settings(
    server: &Server<'_>,
    objects: &mut Objects,
    notes: &mut Vec<Note>,
) -> Result<AuthSettings, Problem> {
    let Some(directive) = server.get("auth_http") else {
        return Err(server.own.problem("no \"auth_http\" is defined for server"));
    };
    let url = url(directive.argument(0)).map_err(|message| directive.problem(message))?;
    if url.len() > LONGEST_URL {
        return Err(directive.problem(format!("auth_http is longer than {LONGEST_URL} bytes; shorten it")));
    }
    let http = HttpAuth {
        url: Some(url),
        headers: headers(server, objects, notes),
        timeout: settings::deadline(server, "auth_http_timeout", notes),
        pass_client_certificate: server.flag("auth_http_pass_client_cert"),
        ..HttpAuth::default()
    };
    Ok(AuthSettings { http: Some(http), passthrough: None })
}

/// Converts `[http://]host[:port][/uri]` or `unix:path[:uri]` to a URL.
pub(super) fn url(text: &str) -> Result<String, String> {
    let shown = shown_url(text);
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, uri) = rest.split_once(':').map_or((rest, None), |(path, uri)| (path, Some(uri)));
        return match path {
            "" => Err(format!("no path in the unix domain socket in auth_http \"{shown}\"")),
            path if !path.starts_with('/') => {
                Err(format!("the path of the UNIX socket must be absolute in auth_http \"{shown}\""))
            }
            path if !values::is_socket(path) => {
                Err(format!("{} in auth_http \"{shown}\"", values::NOT_A_SOCKET))
            }
            _ => match uri {
                None => Ok(text.to_owned()),
                Some(uri) => uri_of_http(uri, &shown).map(|uri| format!("unix:{path}:{uri}")),
            },
        };
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    if rest.split(['/', '?']).next().is_some_and(|authority| authority.contains('@')) {
        return Err(format!(
            "invalid host in auth_http \"{shown}\": nginx sends no login; use auth_http_header"
        ));
    }
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |index| rest.split_at(index));
    let colon = match authority.rfind(']') {
        Some(end) => authority[end..].find(':').map(|index| end + index),
        None => authority.find(':'),
    };
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], Some(&authority[colon + 1..])),
        None => (authority, None),
    };
    let valid = |port: &str| values::number(port).is_some_and(|port| (1..=65_535).contains(&port));
    if port.is_some_and(|port| !valid(port)) {
        return Err(format!("invalid port in auth_http \"{shown}\""));
    }
    if host.is_empty() {
        return Err(format!("no host in auth_http \"{shown}\""));
    }
    if !values::is_host(host) {
        return Err(format!("host not found in auth_http \"{shown}\""));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(format!("http://{authority}{}", uri_of_http(&format!("{slash}{path}"), &shown)?))
}

/// Checks the URI, and encodes what a URI cannot have. nginx sends any text, but HTTP requires a path that starts with
/// `/` and has no blanks (RFC 9112 section 3.2).
fn uri_of_http(uri: &str, shown: &str) -> Result<String, String> {
    if uri.starts_with('/') && uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        let encode = |c: char| if NOT_IN_A_URL.contains(c) { percent(c) } else { c.to_string() };
        return Ok(uri.chars().map(encode).collect());
    }
    Err(format!(
        "the URI in auth_http \"{shown}\" is not valid in HTTP/1.1; write a path that begins with /, percent-encoded"
    ))
}

/// Names the characters of an `auth_http` that its URL has encoded, if there are some.
pub(super) fn encoded(text: &str) -> Option<String> {
    let url = url(text).ok()?;
    let encoded = NOT_IN_A_URL.chars().filter(|c| text.contains(*c) && !url.contains(*c));
    let list: Vec<String> = encoded.map(|c| format!("{c} as {}", percent(c))).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

/// Encodes an ASCII character (RFC 3986 section 2.1).
fn percent(c: char) -> String {
    format!("%{:02X}", u32::from(c))
}

/// Converts additional headers. Their values go into a Secret, because they are usually keys.
fn headers(server: &Server<'_>, objects: &mut Objects, notes: &mut Vec<Note>) -> Option<Vec<Header>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for directive in server.all("auth_http_header") {
        let (name, value) = (directive.argument(0), directive.argument(1));
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+.^_|~-".contains(c);
        if name.is_empty() || !name.chars().all(is_token) || value.contains(char::is_control) {
            let message = if value.contains(char::is_control) {
                format!("the value of auth_http_header {name:?} is not valid in HTTP; choose another one")
            } else {
                format!("auth_http_header {name:?} is not a valid HTTP header name; choose another one")
            };
            notes.push(directive.note(message));
        } else if pairs.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            let message =
                format!("auth_http_header {name} is set twice; only one is kept; combine their values");
            notes.push(directive.note(message));
        } else {
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    if let (true, Some(last)) = (pairs.len() > MOST_HEADERS, server.get("auth_http_header")) {
        notes.push(last.note(format!("auth_http_header: the first {MOST_HEADERS} headers are kept")));
        pairs.truncate(MOST_HEADERS);
    }
    if pairs.is_empty() {
        return None;
    }
    let mut keys: Vec<String> = Vec::new();
    for (name, _) in &pairs {
        keys.push(names::unique(&key(name), |wanted| keys.iter().any(|key| key == wanted)));
    }
    let data = keys.iter().cloned().zip(pairs.iter().map(|(_, value)| Secret::from(value.as_bytes())));
    let secret = objects.secret("Opaque", &format!("{pairs:?}"), "auth-headers", data.collect());
    let header = |(name, key): (&(String, String), &String)| Header {
        name: name.0.clone(),
        value: None,
        value_from: Some(HeaderSource {
            secret_key_ref: Some(SecretKeyRef { name: secret.clone(), key: key.clone() }),
            session: None,
        }),
    };
    Some(pairs.iter().zip(&keys).map(header).collect())
}

/// Converts a header's name to a key of a Secret.
fn key(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c.to_ascii_lowercase() } else { '-' })
        .collect()
}

/// ASCII characters that are neither reserved nor unreserved (RFC 3986 section 2), and `#`, which nginx sends.
const NOT_IN_A_URL: &str = "\"<>`{}|^\\#";
/// The limit in the schema.
const MOST_HEADERS: usize = 32;
/// The limit in the schema, in bytes.
const LONGEST_URL: usize = 2048;
