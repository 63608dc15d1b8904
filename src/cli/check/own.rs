//! Warns if the address of a backend is that of a listener in the same files. Logins would come back without end, so the
//! process refuses them (`dns/own.rs`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::route::RouteService;
use crate::controller::index::Resource;
use crate::controller::index::{Key, Kind, Objects};
use crate::controller::render::route::service;
use crate::controller::render::{Renderer, units};
use crate::model::ListenerId;
use crate::net::{BackendAddress, ListenAddress};

/// A backend's address that leads to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnBackend {
    /// The object that has the field.
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// `spec.listeners[a].backendAddress`, `spec.backend.services[IMAP].address`.
    pub(super) field: String,
    /// The listener that it leads to.
    pub(super) target: ListenerId,
}

/// Returns the backends of objects of our class that are listeners of such objects.
pub(super) fn backends(objects: &Objects, renderer: &Renderer) -> Vec<OwnBackend> {
    let ours: Vec<_> = renderer.outcomes().map(|(_, outcome)| outcome).collect();
    let listeners: Vec<(&ListenerId, &ListenAddress)> = ours
        .iter()
        .flat_map(|outcome| &outcome.listeners)
        .filter_map(|listener| Some((&listener.id, listener.wanted.as_ref()?)))
        .collect();
    let mut found = Vec::new();
    for outcome in ours {
        let (kind, key) = (outcome.kind, &outcome.key);
        for (field, address) in addresses(objects, kind, key) {
            let Some(backend) = units::backend_address(address, None) else { continue };
            let backends = targets(backend);
            let leads = |listener| backends.iter().any(|backend| leads_to(backend, listener));
            let target = listeners.iter().find(|(_, listener)| leads(listener));
            found.extend(target.map(|(id, _)| OwnBackend {
                kind,
                key: key.clone(),
                field,
                target: (*id).clone(),
            }));
        }
    }
    found
}

/// Returns the addresses of backends that the object's settings contain, with their fields.
fn addresses<'a>(objects: &'a Objects, kind: Kind, key: &Key) -> Vec<(String, &'a String)> {
    let of_listener = |place: &str, fields: &'a ListenerFields| {
        Some((format!("{place}.backendAddress"), fields.backend_address.as_ref()?))
    };
    match kind {
        Kind::Server => spec(&objects.servers, key).map(|spec| {
            let place = |name| format!("spec.listeners[{name}]");
            spec.listeners.iter().filter_map(|own| of_listener(&place(&own.name), &own.fields)).collect()
        }),
        Kind::Listener => spec(&objects.listeners, key)
            .map(|spec| of_listener("spec", &spec.listener).into_iter().collect()),
        Kind::Route => spec(&objects.routes, key).map(|spec| {
            let address = |service: &'a RouteService| {
                Some((format!("{}.address", service::path(service)), service.address.as_ref()?))
            };
            spec.backend.services.iter().filter_map(address).collect()
        }),
    }
    .unwrap_or_default()
}

fn spec<'a, Spec>(all: &'a BTreeMap<Key, Arc<Resource<Spec>>>, key: &Key) -> Option<&'a Spec> {
    all.get(key)?.spec.as_ref().ok().map(Arc::as_ref)
}

/// Returns the addresses of a backend, without names that need name servers.
fn targets(backend: BackendAddress) -> Vec<BackendAddress> {
    match backend {
        // RFC 6761 section 6.3.
        BackendAddress::Name { host, port } if host == "localhost" || host.ends_with(".localhost") => {
            let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            both.map(|ip| BackendAddress::Ip(SocketAddr::new(ip, port))).into()
        }
        other => vec![other],
    }
}

/// Tells whether a connection to the backend reaches the listener, as far as the addresses show it.
fn leads_to(backend: &BackendAddress, listener: &ListenAddress) -> bool {
    match (backend, listener) {
        (BackendAddress::Unix(path), ListenAddress::Unix(own)) => path == own,
        (BackendAddress::Ip(target), ListenAddress::Any { port }) => {
            target.port() == *port && is_local(target.ip())
        }
        (BackendAddress::Ip(target), ListenAddress::Ip(own)) => {
            let (to, at) = (target.ip().to_canonical(), own.ip().to_canonical());
            let is_any = at.is_unspecified() && is_local(to) || to.is_unspecified() && at.is_loopback();
            target.port() == own.port() && (to == at || is_any)
        }
        _ => false,
    }
}

/// Tells whether the address is that of this machine on any machine. The kernel connects to itself for 0.0.0.0.
fn is_local(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}
