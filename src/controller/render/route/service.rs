//! Renders the backend of a `MailRoute` for one protocol: a Service, or an address.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::route::RouteService;
use crate::controller::render::endpoints::Choice;
use crate::controller::render::references::References;
use crate::controller::render::scope::Scope;
use crate::controller::render::units::protocol;
use crate::controller::render::{backend, reach, units};
use crate::controller::violation::Violation;
use crate::model::exclusive::{EndpointName, EndpointState};
use crate::model::{Backend, Reach};

/// A backend that could be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usable {
    /// The endpoints that get sessions.
    pub(super) backend: Arc<Backend>,
    /// With affinity `Exclusive`: all its endpoints.
    pub(super) states: BTreeMap<EndpointName, EndpointState>,
}

/// Renders the backend for one protocol.
pub(super) fn render(
    scope: &Scope<'_>,
    service: &RouteService,
    (reach, choice): (&Reach, Choice),
    references: &References<'_>,
) -> Option<Usable> {
    let path = path(service);
    if let Some(text) = &service.address {
        let Some(address) = units::backend_address(text, None) else {
            scope.report(Violation::invalid(
                &format!("{path}.address"),
                format!("{text:?} is not a backend's address"),
                "write host:port, [IPv6]:port or unix:/path",
            ));
            return None;
        };
        let backend::Resolved { backend, states } = backend::single(text.clone(), address, choice);
        reach::check_address(scope, &format!("{path}.address"), reach, &backend.endpoints);
        return Some(Usable { backend: Arc::new(backend), states });
    }
    let (key, port) = (scope.own_key(service.name.as_deref()?), service.port.as_ref()?);
    let resolved = backend::resolve(scope, &path, (&key, port), choice, references)?;
    let backend::Resolved { mut backend, mut states } = resolved;
    reach::keep_allowed(scope, &path, reach, &mut backend);
    // Nobody could log in at a ready endpoint that may not be used.
    let usable = |name: &EndpointName| {
        let mut endpoints = backend.endpoints.iter();
        endpoints.any(|address| backend.names.get(address).is_some_and(|known| known == name.as_str()))
    };
    states.retain(|name, state| *state != EndpointState::Ready || usable(name));
    Some(Usable { backend: Arc::new(backend), states })
}

/// Returns the backend's name for logs and messages.
pub(super) fn reference(scope: &Scope<'_>, service: &RouteService) -> String {
    match (&service.address, &service.name, &service.port) {
        (None, Some(name), Some(port)) => backend::reference(&scope.own_key(name), port),
        (address, ..) => address.clone().unwrap_or_default(),
    }
}

/// Returns the path of the service in the route.
pub(crate) fn path(service: &RouteService) -> String {
    let name = protocol(service.protocol).label();
    format!("spec.backend.services[{name}]")
}
