//! Reads the inventory from the objects of a cluster, listed once.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde::Deserialize;
use serde_json::Value;

use crate::api::listener::ListenerFields;
use crate::api::status::{MailListenerStatus, MailRouteStatus, MailServerStatus};
use crate::api::{GROUP, MailListenerSpec, MailServerSpec, Settings, VERSION};
pub use crate::controller::cluster::failure::Failure;
use crate::controller::cluster::failure::answered;
use crate::controller::index::{Key, Kind, Owner};
use crate::controller::render::{settings, tls, units};
use crate::protocol::Protocol;

use super::{Entry, Inventory, Problem, StatusOf, without_listeners};

/// One of our own objects in the API server.
#[derive(Clone, Debug)]
pub struct Object {
    kind: Kind,
    key: Key,
    generation: i64,
    spec: Value,
    status: Value,
}

/// The Service that clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// The cluster address, if it has one.
    pub cluster_address: Option<String>,
    /// The TCP ports.
    pub ports: BTreeSet<u16>,
}

/// Lists all objects of our kinds in these namespaces or, if there are none, in the cluster.
///
/// # Errors
///
/// Fails if the API server cannot be reached or refuses the request.
pub async fn list(client: &Client, namespaces: &[String]) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    for kind in Kind::ALL {
        let resource = &ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind.name()));
        let mut apis: Vec<_> = namespaces
            .iter()
            .map(|namespace| Api::namespaced_with(client.clone(), namespace, resource))
            .collect();
        if namespaces.is_empty() {
            apis.push(Api::all_with(client.clone(), resource));
        }
        for api in apis {
            match pages(&api, kind, &mut objects).await {
                // A role or a CRD of an earlier version may lack this kind. The listeners can be shown without it.
                Err(Failure::Forbidden(_) | Failure::Refused(_)) if kind == Kind::Route => {}
                read => read?,
            }
        }
    }
    Ok(objects)
}

/// Reads a Service.
///
/// # Errors
///
/// Fails if the Service does not exist or may not be read.
pub async fn service(client: &Client, key: &Key) -> Result<Reached, Failure> {
    let api: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let found = answered(api.get_opt(&key.name)).await?;
    let Some(service) = found else {
        return Err(Failure::Refused(format!("Service {key} does not exist; correct its name")));
    };
    let spec = service.spec.unwrap_or_default();
    let is_tcp = |protocol: Option<&String>| protocol.is_none_or(|protocol| protocol == "TCP");
    let tcp = spec.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_ref()));
    Ok(Reached {
        cluster_address: spec.cluster_ip.filter(|address| !matches!(address.as_str(), "" | "None")),
        ports: tcp.filter_map(|port| u16::try_from(port.port).ok()).collect(),
    })
}

async fn pages(api: &Api<DynamicObject>, kind: Kind, objects: &mut Vec<Object>) -> Result<(), Failure> {
    let mut wanted = ListParams::default().limit(PAGE);
    for _ in 0..MAX_PAGES {
        let page = answered(api.list(&wanted)).await?;
        objects.extend(page.items.into_iter().map(|object| Object::new(kind, object)));
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => wanted = wanted.continue_token(&more),
            None => break,
        }
    }
    Ok(())
}

impl Object {
    fn new(kind: Kind, object: DynamicObject) -> Self {
        let DynamicObject { metadata, mut data, .. } = object;
        Self {
            kind,
            key: Key::new(&metadata.namespace.unwrap_or_default(), &metadata.name.unwrap_or_default()),
            generation: metadata.generation.unwrap_or_default(),
            spec: data["spec"].take(),
            status: data["status"].take(),
        }
    }

    fn owner(&self) -> Owner {
        Owner::written(self.kind, &self.key.namespace, &self.spec)
    }

    /// Returns a problem if the status does not describe this generation.
    fn missing_status(&self, class: &str) -> Option<Problem> {
        match self.status["observedGeneration"].as_i64() {
            None => {
                let message = format!(
                    "no controller of class {class} has written its status; check that one is running"
                );
                Some(Problem::of_ready("NoStatus", &message))
            }
            Some(seen) if seen < self.generation => {
                let message = format!(
                    "generation {} is not processed yet; the status describes generation {seen}",
                    self.generation
                );
                Some(Problem::of_ready("Pending", &message))
            }
            Some(_) => None,
        }
    }
}

/// Returns the listeners of all objects of a class.
#[must_use]
pub fn entries(objects: &[Object], class: &str) -> Inventory {
    let servers: BTreeMap<&Key, &Object> = objects
        .iter()
        .filter(|object| object.kind == Kind::Server)
        .map(|server| (&server.key, server))
        .collect();
    let of_class = |object: &Object| object.owner() == Owner::Class(class.to_owned());
    let mut sorted: Vec<&Object> = objects.iter().collect();
    sorted.sort_by_key(|object| (object.kind, &object.key));
    let mut listeners = Vec::new();
    for object in sorted {
        let from = listeners.len();
        match object.owner() {
            Owner::Class(_) if of_class(object) => of_server(object, &mut listeners),
            Owner::Server(server) => match servers.get(&server) {
                Some(server) if !of_class(server) => {}
                _ if object.kind == Kind::Route => listeners.push(of_route(object)),
                server => listeners.push(of_listener(object, server.copied())),
            },
            Owner::Class(_) | Owner::Unknown => {}
        }
        let Some(problem) = object.missing_status(class) else { continue };
        for entry in listeners.iter_mut().skip(from) {
            entry.ready = super::Ready::Unknown;
            entry.problems.retain(|problem| problem.condition != "Ready");
            entry.problems.insert(0, problem.clone());
        }
    }
    Inventory { listeners, problems: Vec::new() }
}

fn of_server(object: &Object, listeners: &mut Vec<Entry>) {
    let status = MailServerStatus::deserialize(&object.status).unwrap_or_default();
    let Ok(spec) = MailServerSpec::deserialize(&object.spec) else {
        listeners.extend(without_listeners(&object.key, &status));
        return;
    };
    for one in &spec.listeners {
        let settings = settings::effective(&spec.settings, &one.fields.settings);
        let entry = described(Entry::new(Kind::Server, &object.key, &one.name), &one.fields, &settings);
        let listener_status =
            status.listeners.iter().find(|listener_status| listener_status.name == one.name);
        listeners.push(match listener_status {
            Some(listener_status) => StatusOf::Listener(listener_status).add_to(entry),
            // There is no status of the listener, but the object's status may have one.
            None => entry.with_conditions(&status.conditions, &[]),
        });
    }
}

fn of_listener(object: &Object, server: Option<&Object>) -> Entry {
    let status = MailListenerStatus::deserialize(&object.status).unwrap_or_default();
    let entry = Entry::new(Kind::Listener, &object.key, "");
    let spec = MailListenerSpec::deserialize(&object.spec).ok();
    let server = server.and_then(|server| MailServerSpec::deserialize(&server.spec).ok());
    let entry = match (spec, server) {
        (Some(spec), Some(server)) => {
            let settings = settings::attached(&server.settings, &spec.listener.settings);
            described(entry, &spec.listener, &settings)
        }
        _ => entry,
    };
    StatusOf::Object(&status).add_to(entry)
}

fn of_route(object: &Object) -> Entry {
    let status = MailRouteStatus::deserialize(&object.status).unwrap_or_default();
    Entry::new(Kind::Route, &object.key, "").with_conditions(&status.conditions, &[])
}

/// Adds the fields from the manifest.
fn described(entry: Entry, fields: &ListenerFields, settings: &Settings) -> Entry {
    let protocol = fields.protocol.map(units::protocol).or_else(|| fields.port.and_then(Protocol::of_port));
    let socket = units::listen_address(&fields.address, fields.port);
    Entry {
        socket: socket.map(|address| address.to_string()).unwrap_or_default(),
        protocol: protocol.map(Protocol::label).unwrap_or_default(),
        tls: tls::mode(settings, fields.port).name(),
        hostnames: fields.hostnames.clone().unwrap_or_default(),
        proxy_protocol: fields.proxy_protocol.is_some(),
        ..entry
    }
}

#[cfg(test)]
pub(super) fn object(kind: Kind, name: &str, spec: &Value, status: &Value) -> Object {
    Object { kind, key: Key::new("mail", name), generation: 2, spec: spec.clone(), status: status.clone() }
}

/// The number of objects in one page of a list.
const PAGE: u32 = 500;
/// The maximum number of pages. The product is above the number of objects that Mailgress is designed for.
const MAX_PAGES: u32 = 200;
