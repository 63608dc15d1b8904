//! Renders the settings of connections to backends.

use std::sync::Arc;
use std::time::Duration;

use crate::api::Settings;
use crate::api::listener::ListenerFields;
use crate::api::settings::{self as api, ProxyProtocolVersion};
use crate::api::tls::UpstreamTlsMode;
use crate::controller::violation::{Notice, Violation};
use crate::model::settings::ClientTls;
use crate::model::{Backend, HealthCheck, LoadBalancing, Upstream, UpstreamTls};
use crate::net::BackendAddress;
use crate::protocol::Protocol;
use crate::protocol::backend::XclientNegotiation;
use crate::protocol::proxy_header::ProxyVersion;

use super::bounds::{Bounded, duration};
use super::references::References;
use super::scope::Scope;
use super::tls;

/// Renders `upstream` with its defaults.
pub(crate) fn render(
    scope: &Scope<'_>,
    settings: &Settings,
    passthrough: bool,
    references: &mut References<'_>,
) -> Upstream {
    let upstream = settings.upstream.clone().unwrap_or_default();
    Upstream {
        tls: upstream_tls(scope, &upstream, references).unwrap_or(UpstreamTls::Disabled),
        proxy_protocol: match upstream.proxy_protocol {
            None | Some(ProxyProtocolVersion::Disabled) => None,
            Some(ProxyProtocolVersion::V1) => Some(ProxyVersion::V1),
            Some(ProxyProtocolVersion::V2) => Some(ProxyVersion::V2),
        },
        xclient: upstream.xclient.unwrap_or(true).then_some(match upstream.xclient_negotiation {
            None | Some(api::XclientNegotiation::Auto) => XclientNegotiation::Auto,
            Some(api::XclientNegotiation::Always) => XclientNegotiation::Always,
        }),
        client_hello: !matches!(upstream.ehlo_name, Some(api::EhloName::Own)),
        smtp_auth: passthrough || upstream.smtp_auth.unwrap_or(false),
        imap_id: upstream.imap_id.unwrap_or(false),
        pass_error_message: upstream.pass_error_message.unwrap_or(false),
        load_balancing: match upstream.load_balancing {
            None | Some(api::LoadBalancing::RoundRobin) => LoadBalancing::RoundRobin,
            Some(api::LoadBalancing::LeastSessions) => LoadBalancing::LeastSessions,
            Some(api::LoadBalancing::UserHash) => LoadBalancing::UserHash,
        },
        health_check: upstream.health_check.as_ref().map(|check| health_check(scope, check)),
    }
}

fn health_check(scope: &Scope<'_>, check: &api::HealthCheck) -> HealthCheck {
    let read = |name: &str, value, default| {
        let bounded = Bounded { default, least: SHORTEST_CHECK, most: LONGEST_CHECK };
        duration(scope, &scope.setting(&format!("upstream.healthCheck.{name}")), value, bounded)
    };
    let interval = read("interval", check.interval.as_ref(), CHECK_INTERVAL);
    let timeout = read("timeout", check.timeout.as_ref(), CHECK_TIMEOUT.min(interval));
    if timeout > interval {
        scope.report(Violation::invalid(
            &scope.setting("upstream.healthCheck.timeout"),
            format!("{timeout:?} is above the interval of {interval:?}, so that checks would overlap"),
            "lower timeout, or raise interval",
        ));
    }
    HealthCheck {
        interval,
        timeout,
        unhealthy_threshold: check.unhealthy_threshold.unwrap_or(3),
        healthy_threshold: check.healthy_threshold.unwrap_or(1),
    }
}

/// Warns if a backend's port expects TLS from the first byte but `upstream.tls.mode` is not `Implicit`: the server
/// waits for a handshake and sends no greeting.
pub(crate) fn warn_of_implicit_tls(
    scope: &Scope<'_>,
    settings: &Settings,
    backend: &Backend,
    fields: &ListenerFields,
    service_port: Option<u16>,
) {
    let mode = settings.upstream.as_ref().and_then(|upstream| upstream.tls.as_ref()?.mode);
    let Some(port) =
        implicit_tls_port(backend, service_port).filter(|_| mode != Some(UpstreamTlsMode::Implicit))
    else {
        return;
    };
    let field = "upstream.tls.mode";
    let backend_field = if fields.backend_address.is_some() { "backendAddress" } else { "backendRef" };
    let (field, problem) = match mode {
        // The field with the port.
        None => (scope.field(backend_field), "is not set"),
        Some(UpstreamTlsMode::StartTls) => (scope.setting(field), "is StartTLS"),
        Some(_) => (scope.setting(field), "is Disabled"),
    };
    scope.report(Violation::notice(
        Notice::ImplicitTlsExpected,
        &field,
        format!(
            "{} uses port {port}, where servers expect TLS from the first byte, and upstream.tls.mode {problem}",
            backend.reference
        ),
        "set upstream.tls.mode: Implicit on the listener, or use the backend's port without TLS",
    ));
}

/// Returns a port for TLS from the first byte: the one in the manifest (a number, or a name such as `imaps`), that of
/// the Service, or that of an endpoint.
fn implicit_tls_port(backend: &Backend, service_port: Option<u16>) -> Option<String> {
    let written = backend.reference.rsplit(':').next().unwrap_or_default();
    if IMPLICIT_TLS_NAMES.contains(&written) {
        return Some(written.to_owned());
    }
    let endpoints = backend.endpoints.iter().filter_map(BackendAddress::port);
    let mut ports = written.parse().ok().into_iter().chain(service_port).chain(endpoints);
    ports.find(|port| Protocol::is_implicit_tls(*port)).map(|port| port.to_string())
}

/// The IANA names of these ports, and the former name `smtps`.
const IMPLICIT_TLS_NAMES: [&str; 4] = ["imaps", "pop3s", "submissions", "smtps"];

const CHECK_INTERVAL: Duration = Duration::from_secs(10);
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The minimum limits the load of the backend.
const SHORTEST_CHECK: Duration = Duration::from_millis(100);
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 3600);

fn upstream_tls(
    scope: &Scope<'_>,
    upstream: &api::UpstreamSettings,
    references: &mut References<'_>,
) -> Option<UpstreamTls> {
    let tls = upstream.tls.as_ref()?;
    let make = match tls.mode? {
        UpstreamTlsMode::Disabled => return None,
        UpstreamTlsMode::StartTls => UpstreamTls::StartTls,
        UpstreamTlsMode::Implicit => UpstreamTls::Implicit,
    };
    let authorities = tls.ca_certificate_refs.as_deref().unwrap_or_default();
    let trust = tls::trust(scope, "upstream.tls.caCertificateRefs", authorities, references);
    let certificate = tls.client_certificate_ref.as_ref().and_then(|reference| {
        let setting = "upstream.tls.clientCertificateRef";
        tls::certificate(scope, &scope.setting(setting), &scope.key(setting, &reference.name), references)
            .map(|loaded| loaded.certificate)
    });
    let server_name = tls.server_name.clone().filter(|name| !name.is_empty());
    Some(make(Arc::new(ClientTls { trust, server_name, certificate })))
}
