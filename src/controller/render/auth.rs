//! Renders `auth`: an auth service or the backend decides on logins.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};

use crate::api::auth::{Header, HttpAuth as Settings, ServiceRef, SessionValue};
use crate::controller::index::ReferenceKind;
use crate::controller::violation::Violation;
use crate::model::{Auth, AuthHeader, AuthProof, HeaderText, HttpAuth, Reach, RequestPath, TrustAnchors};
use crate::net::BackendAddress;
use crate::secret::Secret;

use super::references::References;
use super::scope::Scope;
use super::{backend, bounds, reach, service, tls, units};

/// Renders `auth`, which must have exactly one of its fields.
pub(crate) fn render(
    scope: &Scope<'_>,
    settings: &crate::api::Settings,
    reach: &Reach,
    references: &References<'_>,
) -> Option<Auth> {
    let reach = if reach::names_auth_service(scope) { reach } else { &Reach::Anywhere };
    let auth = settings.auth.clone().unwrap_or_default();
    match (auth.http, auth.passthrough) {
        (Some(http), None) => Some(Auth::Http(Arc::new(service(scope, &http, reach, references)?))),
        (None, Some(_)) => Some(Auth::Passthrough),
        _ => {
            scope.report(Violation::invalid(
                &scope.absent("auth"),
                "no authentication is configured",
                "name an auth service in auth.http, or set auth.passthrough: {}, so that the backend decides",
            ));
            None
        }
    }
}

/// The location of an auth service.
struct Place {
    reference: String,
    endpoints: Vec<BackendAddress>,
    host: String,
    path: String,
    https: bool,
}

fn service(
    scope: &Scope<'_>,
    http: &Settings,
    reach: &Reach,
    references: &References<'_>,
) -> Option<HttpAuth> {
    let place = match (&http.service_ref, &http.url) {
        (Some(service), None) => of_service(scope, service, reach, references),
        (None, Some(url)) => {
            let place = of_url(url);
            if let Some(place) = &place {
                reach::check_address(scope, &scope.setting("auth.http.url"), reach, &place.endpoints);
            } else {
                // The value is not shown, because it may contain a password.
                scope.report(Violation::invalid(
                    &scope.setting("auth.http.url"),
                    "this is not the URL of an auth service",
                    "write http://host:port/path, https://host/path or unix:/socket:/path, without a login in it",
                ));
            }
            place
        }
        _ => {
            let problem = "auth.http needs exactly one of serviceRef and url";
            let path = scope.absent("auth.http");
            scope.report(Violation::invalid(&path, problem, "set serviceRef or url"));
            None
        }
    };
    let headers = headers(scope, http.headers.as_deref().unwrap_or_default(), references);
    let path = &scope.setting("auth.http.timeout");
    let timeout =
        bounds::duration(scope, path, http.timeout.as_ref(), bounds::deadline(Duration::from_secs(60)));
    let bundles = http.ca_certificate_refs.as_deref().unwrap_or_default();
    let trust = tls::trust(scope, "auth.http.caCertificateRefs", bundles, references);
    let Place { reference, endpoints, host, path, https } = place?;
    let tls: Option<TrustAnchors> = https.then_some(trust);
    let keep_alive = http.keep_alive.unwrap_or(true);
    let pass_client_certificate = http.pass_client_certificate.unwrap_or(false);
    let proof =
        if http.accept_any_status.unwrap_or(false) { AuthProof::Headers } else { AuthProof::StatusAndHeader };
    let reach = reach.clone();
    Some(HttpAuth {
        reference,
        endpoints,
        reach,
        host,
        path: RequestPath::new(path),
        tls,
        headers,
        timeout,
        keep_alive,
        pass_client_certificate,
        proof,
    })
}

fn of_service(
    scope: &Scope<'_>,
    service: &ServiceRef,
    reach: &Reach,
    references: &References<'_>,
) -> Option<Place> {
    let path = &scope.setting("auth.http.serviceRef");
    let key = scope.key("auth.http.serviceRef", &service.name);
    if service.path.parse::<PathAndQuery>().is_err() {
        let problem = "this is not a path of an auth service";
        scope.report(Violation::invalid(
            &format!("{path}.path"),
            problem,
            "begin it with /, and write %20 for a space",
        ));
    }
    let mut backend = backend::service(scope, path, &key, &service.port, references)?;
    reach::keep_allowed(scope, path, reach, &mut backend);
    let external = references.service(&key).found().and_then(|service| service::external_name(service));
    let host = external.map_or_else(|| format!("{}.{}.svc", key.name, key.namespace), str::to_owned);
    Some(Place {
        reference: backend.reference,
        endpoints: backend.endpoints,
        host,
        path: service.path.clone(),
        https: false,
    })
}

/// Parses `http://host:port/path`, or nginx's `unix:/socket:/path`.
fn of_url(url: &str) -> Option<Place> {
    if let Some(rest) = url.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        let is_path = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
        let socket = units::socket_path(socket).filter(|_| is_path)?;
        return Some(Place {
            reference: without_query(url).to_owned(),
            endpoints: vec![BackendAddress::Unix(socket.into())],
            host: "localhost".to_owned(),
            path: path.to_owned(),
            https: false,
        });
    }
    let uri: Uri = url.parse().ok()?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    // A login before the host is refused here.
    let port = match authority.as_str().strip_prefix(authority.host())? {
        "" if https => 443,
        "" => 80,
        port => port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?,
    };
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    Some(Place {
        reference: without_query(url).to_owned(),
        endpoints: vec![units::named(authority.host(), port)?],
        host: authority.host().to_owned(),
        path: path.to_owned(),
        https,
    })
}

/// Removes the query for logs and messages, because it often contains keys.
fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(before, _)| before)
}

fn headers(scope: &Scope<'_>, headers: &[Header], references: &References<'_>) -> Vec<AuthHeader> {
    let mut rendered = Vec::new();
    for header in headers {
        let path = format!("{}[{}]", scope.setting("auth.http.headers"), header.name);
        if HeaderName::from_bytes(header.name.as_bytes()).is_err() {
            let problem = format!("{:?} is not a header's name", header.name);
            scope.report(Violation::invalid(&path, problem, "use letters, digits and hyphens"));
        }
        let Some(value) = header_value(scope, &path, header, references) else { continue };
        if let HeaderText::Fixed(text) = &value
            && HeaderValue::from_bytes(text.expose()).is_err()
        {
            let problem = "the value contains line breaks or control characters";
            scope.report(Violation::unusable(&path, problem, "write it as one line"));
        }
        rendered.push(AuthHeader { name: header.name.clone(), value });
    }
    rendered
}

fn header_value(
    scope: &Scope<'_>,
    path: &str,
    header: &Header,
    references: &References<'_>,
) -> Option<HeaderText> {
    let source = match (&header.value, &header.value_from) {
        (Some(value), None) => return Some(HeaderText::Fixed(Secret::from(value.as_bytes()))),
        (None, Some(source)) => source,
        _ => {
            let problem = "a header has exactly one of value and valueFrom";
            scope.report(Violation::invalid(path, problem, "set exactly one of them"));
            return None;
        }
    };
    let reference = match (&source.secret_key_ref, source.session) {
        (Some(reference), None) => reference,
        (None, Some(value)) => return Some(of_session(scope, value)),
        _ => {
            let problem = "valueFrom has neither or both of secretKeyRef and session";
            scope.report(Violation::invalid(path, problem, "set exactly one of them"));
            return None;
        }
    };
    let key = scope.key("auth.http.headers", &reference.name);
    let remedy = "create it, or correct the name";
    let secret = references.secret(&key).required(scope, (ReferenceKind::Secret, &key), path, remedy)?;
    let Some(value) = secret.data.get(&reference.key) else {
        let problem = format!("Secret {key} has no key {:?}", reference.key);
        scope.report(Violation::missing(path, problem, "add the key to the Secret, or correct its name"));
        return None;
    };
    // The content of a file in a Secret usually ends with a line break.
    let line = value.expose();
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    Some(HeaderText::Fixed(Secret::from(line.strip_suffix(b"\r").unwrap_or(line))))
}

/// Returns a fixed text for values that are the same for all sessions of the listener.
fn of_session(scope: &Scope<'_>, value: SessionValue) -> HeaderText {
    let fixed = |text: String| HeaderText::Fixed(Secret::from(text.as_bytes()));
    match value {
        SessionValue::ClientPort => HeaderText::ClientPort,
        SessionValue::SessionId => HeaderText::SessionId,
        SessionValue::ListenerName => fixed(scope.listener_name().to_owned()),
        SessionValue::ListenerPort => fixed(scope.listener_port().to_string()),
    }
}
