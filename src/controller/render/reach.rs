//! The limits of a listener in another namespace than its `MailServer`: the destinations that it may connect to, and
//! the settings that need permission.
//!
//! Its own Services are allowed if their endpoints are Pods of its namespace. An author of EndpointSlices could claim
//! this for any address, but Kubernetes does not give this permission to tenants by default (CVE-2021-25740).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::Endpoint;

use crate::api::Settings;
use crate::api::listener::ListenerFields;
use crate::api::server::{AllowedBackends, Introductions as Allowed};
use crate::api::settings::ProxyProtocolVersion;
use crate::controller::index::Key;
use crate::controller::violation::{Notice, Violation};
use crate::model::reach::{Bounds, special};
use crate::model::{Auth, Backend, Hostname, HttpAuth, Introductions, Listener, Reach};
use crate::net::{BackendAddress, network};
use crate::protocol::Protocol;

use super::references::References;
use super::scope::{Scope, Source};
use super::service;

/// Returns the destinations to which the listener may connect.
pub(crate) fn render(
    scope: &Scope<'_>,
    source: &Source<'_>,
    settings: &Settings,
    references: &References<'_>,
) -> Reach {
    let http = settings.auth.as_ref().and_then(|auth| auth.http.as_ref());
    let auth =
        http.and_then(|http| http.service_ref.as_ref()).filter(|_| scope.is_own("auth.http.serviceRef"));
    let services =
        [source.fields.backend_ref.as_ref().map(|service| &service.name), auth.map(|service| &service.name)];
    of_services(scope, services.into_iter().flatten().map(String::as_str), source.allowed, references)
}

/// Returns the destinations of an object that names these Services.
pub(crate) fn of_services<'a>(
    scope: &Scope<'_>,
    services: impl Iterator<Item = &'a str>,
    allowed: Option<&AllowedBackends>,
    references: &References<'_>,
) -> Reach {
    let Some(server) = scope.foreign_server() else { return Reach::Anywhere };
    let allowed = allowed.cloned().unwrap_or_default();
    Reach::Within(Arc::new(Bounds {
        namespace: scope.own_key("").namespace,
        server: server.to_string(),
        own: services.flat_map(|name| pods(&scope.own_key(name), references)).collect(),
        networks: networks(&allowed).filter_map(Result::ok).collect(),
        hosts: allowed.hosts.iter().flatten().map(|host| Hostname::new(host)).collect(),
        introductions: match allowed.introductions {
            None | Some(Allowed::Never) => Introductions::Never,
            Some(Allowed::OwnServices) => Introductions::OwnServices,
            Some(Allowed::Always) => Introductions::Always,
        },
    }))
}

/// Tells whether a `MailServer` allows objects of other namespaces to send client information to all backends.
pub(crate) fn always_introduces(allowed: Option<&AllowedBackends>) -> bool {
    allowed.and_then(|allowed| allowed.introductions) == Some(Allowed::Always)
}

/// Parses the allowed networks. An error is the text that is not a network.
fn networks(allowed: &AllowedBackends) -> impl Iterator<Item = Result<IpNet, &String>> {
    allowed.networks.iter().flatten().map(|text| network(text).ok_or(text))
}

/// Returns the violations for entries of the `MailServer` that are not networks. They allow nothing.
pub(crate) fn check_allowed(allowed: &AllowedBackends) -> impl Iterator<Item = Violation> {
    networks(allowed).enumerate().filter_map(|(index, network)| {
        let text = network.err()?;
        Some(Violation::invalid(
            &format!("spec.allowedListeners.backends.networks[{index}]"),
            format!("{text:?} is not a network"),
            "write a network such as 10.1.2.0/24 or fd00::/64, or an address",
        ))
    })
}

/// Gives the last valid rendering the current limits, and removes endpoints that are no longer allowed.
pub(crate) fn renew(listener: &mut Listener, reach: Reach) {
    if let Auth::Http(http) = &mut listener.auth
        && http.reach != Reach::Anywhere
        && http.reach != reach
    {
        let endpoints =
            http.endpoints.iter().filter(|address| reach.could_permit(address)).cloned().collect();
        *http = Arc::new(HttpAuth { endpoints, reach: reach.clone(), ..(**http).clone() });
    }
    listener.reach = reach;
}

/// Excludes the listener if an address that it names is not allowed.
pub(crate) fn check_address(scope: &Scope<'_>, path: &str, reach: &Reach, addresses: &[BackendAddress]) {
    for address in addresses.iter().filter(|address| !reach.could_permit(address)) {
        scope.report(Violation::not_allowed(path, reach.refusal(address).to_string(), REMEDY));
    }
}

/// Removes the endpoints of a Service that are not allowed.
pub(crate) fn keep_allowed(scope: &Scope<'_>, path: &str, reach: &Reach, backend: &mut Backend) {
    let Reach::Within(bounds) = reach else { return };
    let (allowed, refused): (Vec<_>, Vec<_>) =
        backend.endpoints.drain(..).partition(|address| reach.could_permit(address));
    backend.endpoints = allowed;
    if refused.is_empty() {
        return;
    }
    let mut shown: Vec<String> = refused.iter().take(MAX_SHOWN).map(ToString::to_string).collect();
    if refused.len() > MAX_SHOWN {
        shown.push(format!("and {} more", refused.len() - MAX_SHOWN));
    }
    let Bounds { namespace, server, .. } = &**bounds;
    scope.report(Violation::notice(
        Notice::BackendNotAllowed,
        path,
        format!(
            "{} has endpoints that are neither Pods of namespace {namespace} nor allowed by MailServer {server}; leaving them out: {}",
            backend.reference,
            shown.join(", ")
        ),
        REMEDY,
    ));
}

/// Checks the settings that only the owner may set, or that need the owner's permission.
pub(crate) fn check_settings(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    settings: &Settings,
    protocol: Protocol,
    reach: &Reach,
) {
    let Reach::Within(bounds) = reach else { return };
    check_owners_settings(scope, settings);
    let is_allowed = match bounds.introductions {
        Introductions::Never => false,
        Introductions::OwnServices => fields.backend_address.is_none(),
        Introductions::Always => true,
    };
    if is_allowed {
        return;
    }
    for (setting, what) in introductions(settings, protocol) {
        scope.report(Violation::notice(
            Notice::IntroductionNotAllowed,
            &scope.setting(setting),
            format!(
                "{what} to backends of a listener of namespace {}: MailServer {} does not allow it",
                bounds.namespace, bounds.server
            ),
            "disable it for this listener, or ask the owner of the MailServer to set \
             spec.allowedListeners.backends.introductions",
        ));
    }
}

/// Refuses name servers, because names decide which destinations are allowed, and settings that change which logins the
/// `MailServer`'s auth service accepts.
fn check_owners_settings(scope: &Scope<'_>, settings: &Settings) {
    let refuse = |setting: &str, problem: &str, remedy: &str| {
        if scope.is_own(setting) {
            scope.report(Violation::not_allowed(&scope.setting(setting), problem, remedy));
        }
    };
    refuse(
        "resolver.nameservers",
        "a listener of another namespace may not set name servers",
        "remove it; the listener then uses the name servers of the MailServer",
    );
    let uses_auth_service = settings.auth.as_ref().is_some_and(|auth| auth.http.is_some());
    if !uses_auth_service || names_auth_service(scope) {
        return;
    }
    for setting in OF_THE_OWNERS_SERVICE {
        refuse(
            setting,
            "a listener of another namespace may not change the requests to the MailServer's auth service, which of its \
             answers and which client certificates are accepted, or how many logins may fail",
            "remove it, or name an auth service of the listener's own in auth.http.serviceRef",
        );
    }
}

/// Settings that change which logins an auth service accepts. A test fails if a setting is neither here nor in its list
/// of all others.
const OF_THE_OWNERS_SERVICE: [&str; 9] = [
    "auth.http.headers",
    "auth.http.acceptAnyStatus",
    "auth.http.passClientCertificate",
    "tls.clientAuth.mode",
    "tls.clientAuth.caCertificateRefs",
    "tls.clientAuth.crlRefs",
    "tls.clientAuth.depth",
    "limits.authFailures",
    "limits.maxAuthFailures",
];

/// Tells whether the listener itself names its auth service. If the `MailServer` names it, its owner has chosen it.
pub(crate) fn names_auth_service(scope: &Scope<'_>) -> bool {
    scope.is_own("auth.http.serviceRef") || scope.is_own("auth.http.url")
}

/// Returns the explicit settings that send client information to backends. XCLIENT is on by default if a backend offers
/// it.
fn introductions(settings: &Settings, protocol: Protocol) -> Vec<(&'static str, &'static str)> {
    let upstream = settings.upstream.clone().unwrap_or_default();
    let wants_header =
        matches!(upstream.proxy_protocol, Some(ProxyProtocolVersion::V1 | ProxyProtocolVersion::V2));
    let wants_xclient = upstream.xclient == Some(true) && protocol == Protocol::Smtp;
    let wants_id = upstream.imap_id == Some(true) && protocol == Protocol::Imap;
    [
        (wants_header, ("upstream.proxyProtocol", "no PROXY header is sent")),
        (wants_xclient, ("upstream.xclient", "no XCLIENT is sent")),
        (wants_id, ("upstream.imapId", "no ID is sent")),
    ]
    .into_iter()
    .filter_map(|(is_wanted, text)| is_wanted.then_some(text))
    .collect()
}

/// Returns the addresses of a Service's Pods, and its cluster IPs if all its endpoints are Pods.
fn pods(service_key: &Key, references: &References<'_>) -> BTreeSet<SocketAddr> {
    let mut own = BTreeSet::new();
    let service = references.service(service_key).found().filter(|service| selects_pods(service));
    let (Some(service), Some(slices)) = (service, references.slices(service_key).found()) else {
        return own;
    };
    let mut only_pods = true;
    for slice in slices {
        let ports: Vec<u16> =
            slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
        for endpoint in &slice.endpoints {
            if is_pod(endpoint, &service_key.namespace) {
                own.extend(endpoint.addresses.iter().flat_map(|address| at(address, &ports)));
            } else {
                only_pods = false;
            }
        }
    }
    if only_pods {
        let ports: Vec<u16> =
            service::ports(service).iter().filter_map(|port| u16::try_from(port.port).ok()).collect();
        let addresses =
            service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
        own.extend(addresses.flat_map(|address| at(address, &ports)));
    }
    own
}

/// Anyone may write endpoints of a Service without a selector.
fn selects_pods(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    service::external_name(service).is_none()
        && spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty())
}

fn is_pod(endpoint: &Endpoint, namespace: &str) -> bool {
    endpoint.target_ref.as_ref().is_some_and(|target| {
        target.kind.as_deref() == Some("Pod") && target.namespace.as_deref() == Some(namespace)
    })
}

/// Combines an address with each port. Special addresses are excluded, because no Pod has one.
fn at(address: &str, ports: &[u16]) -> impl Iterator<Item = SocketAddr> {
    let ip = address.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()).filter(|ip| special(*ip).is_none());
    ip.into_iter().flat_map(move |ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)))
}

const REMEDY: &str = "name a Service of this namespace that selects Pods, or ask the owner of the MailServer to \
                      extend spec.allowedListeners.backends";

/// The maximum number of removed endpoints in a message.
const MAX_SHOWN: usize = 3;

#[cfg(test)]
mod tests;
