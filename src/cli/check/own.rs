//! Warns if the address of a backend is that of a listener in the same files. Logins would come back without end, so the
//! process refuses them (`dns/own.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::api::listener::ListenerFields;
use crate::controller::index::{Key, Kind, Objects};
use crate::controller::render::{Renderer, units};
use crate::model::ListenerId;
use crate::net::{BackendAddress, ListenAddress};

/// A `backendAddress` that leads to a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnBackend {
    /// The object that has the field.
    pub(super) kind: Kind,
    pub(super) key: Key,
    /// `spec.listeners[a].backendAddress`.
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
    let target = |fields: &ListenerFields| {
        let backends = targets(units::backend_address(fields.backend_address.as_ref()?, None)?);
        let leads = |address| backends.iter().any(|backend| leads_to(backend, address));
        listeners.iter().find(|(_, address)| leads(address)).map(|(id, _)| (*id).clone())
    };
    let mut found = Vec::new();
    for outcome in ours {
        let (kind, key) = (outcome.kind, &outcome.key);
        let mut add = |place: &str, fields: &ListenerFields| {
            let field = format!("{place}.backendAddress");
            found.extend(target(fields).map(|target| OwnBackend { kind, key: key.clone(), field, target }));
        };
        let server = objects.servers.get(key).filter(|_| kind == Kind::Server);
        for listener in
            server.and_then(|server| server.spec.as_ref().ok()).iter().flat_map(|spec| &spec.listeners)
        {
            add(&format!("spec.listeners[{}]", listener.name), &listener.fields);
        }
        let listener = objects.listeners.get(key).filter(|_| kind == Kind::Listener);
        if let Some(spec) = listener.and_then(|listener| listener.spec.as_ref().ok()) {
            add("spec", &spec.listener);
        }
    }
    found
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
