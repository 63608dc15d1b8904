//! Backends: Services resolved to their endpoints, and plain addresses.

use k8s_openapi::api::core::v1::{Service, ServicePort};

use crate::api::listener::ListenerFields;
use crate::model::{Backend, Reach};

use super::super::index::{Key, ReferenceKind};
use super::super::violation::{Notice, Violation};
use super::endpoints::Endpoints;
use super::references::References;
use super::scope::Scope;
use super::{reach, units};

/// The listener's own backend, if it names one.
pub(crate) fn render(
    scope: &Scope<'_>,
    fields: &ListenerFields,
    reach: &Reach,
    references: &References<'_>,
    found: &mut Vec<Violation>,
) -> Option<Backend> {
    if fields.backend_ref.is_some() && fields.backend_address.is_some() {
        let problem = "backendRef and backendAddress exclude each other";
        found.push(Violation::invalid(&scope.field("backendAddress"), problem, "remove one"));
    }
    if let Some(text) = &fields.backend_address {
        let Some(address) = units::backend_address(text, None) else {
            found.push(Violation::invalid(
                &scope.field("backendAddress"),
                format!("{text:?} is not a backend's address"),
                "write host:port, [IPv6]:port or unix:/path",
            ));
            return None;
        };
        let (endpoints, path) = (vec![address], scope.field("backendAddress"));
        reach::check_address(&path, reach, &endpoints, found);
        return Some(Backend::new(text.clone(), endpoints));
    }
    let reference = fields.backend_ref.as_ref()?;
    let (path, key) = (scope.field("backendRef"), scope.own_key(&reference.name));
    let mut backend = service(&path, &key, reference.port, references, found)?;
    reach::keep_allowed(&path, reach, &mut backend, found);
    Some(backend)
}

/// A Service's ready endpoints for one of its ports.
pub(crate) fn service(
    path: &str,
    key: &Key,
    port: u16,
    references: &References<'_>,
    found: &mut Vec<Violation>,
) -> Option<Backend> {
    let reference = format!("Service {key}:{port}");
    let Some(service) = references.service(key) else {
        let problem = format!("Service {key} does not exist");
        let service = (ReferenceKind::Service, key);
        found.push(references.missing(path, service, problem, "create it, or correct the name"));
        return None;
    };
    if let Some(name) = external_name(service) {
        let Some(address) = units::named(name, port) else {
            let problem = format!("the externalName {name:?} of Service {key} is not a host name");
            found.push(Violation::unusable(path, problem, "correct it in the Service"));
            return None;
        };
        return Some(Backend::new(reference, vec![address]));
    }
    let Some(service_port) = port_of(service, port) else {
        let ports: Vec<String> = ports(service).iter().map(|port| port.port.to_string()).collect();
        let problem = format!("Service {key} has no port {port}, only {}", ports.join(", "));
        found.push(Violation::missing(path, problem, "name one of the Service's own ports"));
        return None;
    };
    let endpoints = endpoints(key, service_port.name.as_deref().unwrap_or_default(), references);
    if endpoints.are_terminating || endpoints.addresses.is_empty() {
        let consequence = if endpoints.are_terminating {
            "so those that are terminating are used"
        } else {
            "so logins are answered with an error"
        };
        found.push(Violation::notice(
            Notice::NoReadyEndpoints,
            path,
            format!("Service {key} has no ready endpoint for port {port}, {consequence}"),
            "start its Pods, or check its selector and readiness probes",
        ));
    }
    Some(Backend { reference, endpoints: endpoints.addresses, names: endpoints.names })
}

/// The name that an `ExternalName` Service stands for.
pub(crate) fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("ExternalName") {
        return None;
    }
    Some(spec.external_name.as_deref().unwrap_or_default())
}

/// All ports of a Service.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn port_of(service: &Service, port: u16) -> Option<&ServicePort> {
    let tcp = |p: &&ServicePort| p.protocol.as_deref().unwrap_or("TCP") == "TCP";
    ports(service).iter().filter(tcp).find(|p| p.port == i32::from(port))
}

fn endpoints(service: &Key, port_name: &str, references: &References<'_>) -> Endpoints {
    Endpoints::of(references.objects().slices.of(service), port_name, references.locality())
}
