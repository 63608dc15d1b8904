//! Renders backends: Services are resolved to their endpoints.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::api::common::PortRef;
use crate::api::listener::ListenerFields;
use crate::controller::index::{DRAIN, Key, ReferenceKind};
use crate::controller::violation::{Notice, Violation};
use crate::model::exclusive::{EndpointName, EndpointState};
use crate::model::{Backend, Reach};
use crate::net::BackendAddress;
use crate::words::counted;

use super::endpoints::{Choice, Endpoints, Selection};
use super::references::References;
use super::scope::Scope;
use super::service::{self, external_name, port_of, ports_of};
use super::{reach, units};

/// Renders the listener's own backend, if there is one.
pub(crate) fn render(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    reach: &Reach,
    references: &References<'_>,
) -> Option<Backend> {
    if fields.backend_ref.is_some() && fields.backend_address.is_some() {
        let problem = "backendRef and backendAddress exclude each other";
        scope.report(Violation::invalid(&scope.field("backendAddress"), problem, "remove one"));
    }
    if let Some(text) = &fields.backend_address {
        let Some(address) = units::backend_address(text, None) else {
            scope.report(Violation::invalid(
                &scope.field("backendAddress"),
                format!("{text:?} is not a backend's address"),
                "write host:port, [IPv6]:port or unix:/path",
            ));
            return None;
        };
        let (endpoints, path) = (vec![address], scope.field("backendAddress"));
        reach::check_address(scope, &path, reach, &endpoints);
        return Some(Backend::new(text.clone(), endpoints));
    }
    let reference = fields.backend_ref.as_ref()?;
    let (path, key) = (scope.field("backendRef"), scope.own_key(&reference.name));
    let mut backend = service(scope, &path, &key, &reference.port, references)?;
    reach::keep_allowed(scope, &path, reach, &mut backend);
    Some(backend)
}

/// Returns the port number in the Service that the listener refers to.
pub(crate) fn service_port(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    references: &References<'_>,
) -> Option<u16> {
    let reference = fields.backend_ref.as_ref()?;
    let service = references.service(&scope.own_key(&reference.name)).found()?;
    u16::try_from(port_of(service, &reference.port)?.port).ok()
}

/// The endpoints of a Service.
pub(crate) struct Resolved {
    /// Those that get sessions.
    pub(crate) backend: Backend,
    /// With [`Choice::Exclusive`]: all of them.
    pub(crate) states: BTreeMap<EndpointName, EndpointState>,
}

/// Returns a Service's ready endpoints for one of its ports.
pub(crate) fn service(
    scope: &Scope<'_>,
    path: &str,
    key: &Key,
    port: &PortRef,
    references: &References<'_>,
) -> Option<Backend> {
    Some(resolve(scope, path, (key, port), Choice::Nearest, references)?.backend)
}

/// Returns the single endpoint of a backend that is no Service with EndpointSlices.
pub(crate) fn single(reference: String, address: BackendAddress, choice: Choice) -> Resolved {
    let mut backend = Backend::new(reference, vec![address.clone()]);
    let mut states = BTreeMap::new();
    if choice != Choice::Nearest {
        let host = address.host();
        if choice == Choice::Exclusive {
            states.insert(EndpointName::from(&*host), EndpointState::Ready);
        }
        backend.names.insert(address, host);
    }
    Resolved { backend, states }
}

/// Returns a Service's endpoints for one of its ports.
pub(crate) fn resolve(
    scope: &Scope<'_>,
    path: &str,
    (key, port): (&Key, &PortRef),
    choice: Choice,
    references: &References<'_>,
) -> Option<Resolved> {
    let reference = reference(key, port);
    let remedy = "create it, or correct the name";
    let service = references.service(key).required(scope, (ReferenceKind::Service, key), path, remedy)?;
    if let Some(name) = external_name(service) {
        let address = external_address(service, (key, name), port);
        let endpoint = address.map_err(|(problem, remedy)| Violation::unusable(path, problem, remedy));
        return match endpoint {
            Ok(address) => Some(single(reference, address, choice)),
            Err(violation) => {
                scope.report(violation);
                None
            }
        };
    }
    let slices =
        references.slices(key).required(scope, (ReferenceKind::EndpointSlices, key), path, remedy)?;
    let Some(port_name) = port_name(service, &slices, port) else {
        let problem = format!("Service {key} has no TCP port {port}{}", ports_of(service));
        scope.report(Violation::missing(path, problem, "name one of the Service's own ports"));
        return None;
    };
    let (locality, leaving) = (references.locality(), references.leaving(&key.namespace));
    let selection = Selection { choice, locality, leaving };
    let endpoints = Endpoints::of(slices.iter().copied(), port_name, &selection);
    warn_of_leaving(scope, path, key, &endpoints);
    if endpoints.are_terminating || endpoints.addresses.is_empty() {
        let consequence =
            if endpoints.are_terminating { "so terminating endpoints are used" } else { "so logins fail" };
        scope.report(Violation::notice(
            Notice::NoReadyEndpoints,
            path,
            format!("Service {key} has no ready endpoint for port {port}, {consequence}"),
            if endpoints.leaving.is_empty() {
                "start its Pods, or check its selector and readiness probes"
            } else {
                "start other Pods, or remove the annotation mailgress.dev/drain"
            },
        ));
    }
    if endpoints.unnamed > 0 {
        let count = counted(endpoints.unnamed, "endpoint");
        scope.report(Violation::notice(
            Notice::EndpointsUnnamed,
            path,
            format!("Service {key} has {count} without targetRef; the address stands for the Pod, so users move when it changes"),
            "let Kubernetes create the EndpointSlices from a selector, or add targetRef with the name of the Pod",
        ));
    }
    let Endpoints { addresses, names, leaving, states, .. } = endpoints;
    Some(Resolved { backend: Backend { reference, endpoints: addresses, names, leaving }, states })
}

fn warn_of_leaving(scope: &Scope<'_>, path: &str, service: &Key, endpoints: &Endpoints) {
    let pods: BTreeSet<&String> = endpoints.leaving.values().collect();
    let Some(first) = pods.first() else { return };
    let more = pods.len().saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" and {}", counted(more, "other Pod")) };
    scope.report(Violation::notice(
        Notice::EndpointsLeaving,
        path,
        format!("Pod {first}{more} of Service {service} with the annotation {DRAIN} gets no new sessions, and its open ones are ended"),
        "remove the annotation to use the Pod again",
    ));
}

/// Returns the name of a Service's port for logs and messages.
pub(crate) fn reference(service: &Key, port: &PortRef) -> String {
    format!("Service {service}:{port}")
}

/// Returns the address of an `ExternalName` Service, or the problem and its remedy. Such a Service need not list its
/// ports.
fn external_address(
    service: &Service,
    (key, name): (&Key, &str),
    port: &PortRef,
) -> Result<BackendAddress, (String, &'static str)> {
    let number = match (port, port_of(service, port)) {
        (PortRef::Number(number), _) => Some(*number),
        (PortRef::Name(_), port) => port.and_then(|port| u16::try_from(port.port).ok()),
    };
    let number = number.ok_or_else(|| {
        let problem =
            format!("Service {key} of type ExternalName has no TCP port {port}{}", ports_of(service));
        (problem, "write the port's number, or name the port in the Service")
    })?;
    units::named(name, number).ok_or_else(|| {
        let problem = format!("the externalName {name:?} of Service {key} is not a host name");
        (problem, "correct it in the Service")
    })
}

/// Returns the name of a port in the Service's EndpointSlices. A headless Service may have no ports; then the slices
/// have the names.
fn port_name<'a>(service: &'a Service, slices: &[&EndpointSlice], wanted: &'a PortRef) -> Option<&'a str> {
    if let Some(port) = port_of(service, wanted) {
        return Some(port.name.as_deref().unwrap_or_default());
    }
    let PortRef::Name(name) = wanted else { return None };
    let mut ports = slices.iter().flat_map(|slice| slice.ports.iter().flatten());
    let is_listed = ports.any(|port| port.name.as_ref() == Some(name));
    (service::ports(service).is_empty() && is_listed).then_some(name)
}
