//! Reads the inventory from an instance's `/status` and `/model`. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::api::status::{MailListenerStatus, MailRouteStatus, MailServerStatus};
use crate::controller::index::{Key, Kind};
use crate::protocol::Protocol;

use super::{Entry, Inventory, StatusOf, without_listeners};

/// The document `/status`.
#[derive(Deserialize)]
struct Document {
    objects: Vec<Object>,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Object {
    kind: String,
    namespace: String,
    name: String,
    status: Value,
}

/// The listeners in the model, by their identity, each with its socket.
type ListenersById<'a> = BTreeMap<&'a str, (&'a Value, &'a Value)>;

/// Reads the inventory from both documents.
///
/// # Errors
///
/// Fails if `status` does not have the form of this version.
pub fn read(status: &Value, model: &Value) -> serde_json::Result<Inventory> {
    let Document { objects, problems } = Document::deserialize(status)?;
    let served: ListenersById<'_> = model["sockets"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|socket| socket["listeners"].as_array().into_iter().flatten().map(move |one| (socket, one)))
        .filter_map(|(socket, listener)| Some((listener["id"].as_str()?, (socket, listener))))
        .collect();
    let mut listeners = Vec::new();
    for Object { kind, namespace, name, status } in objects {
        let key = Key::new(&namespace, &name);
        if kind == Kind::Listener.name() {
            let status = MailListenerStatus::deserialize(status)?;
            let entry = found(Entry::new(Kind::Listener, &key, ""), &served);
            listeners.push(StatusOf::Object(&status).add_to(entry));
            continue;
        }
        if kind == Kind::Route.name() {
            let status = MailRouteStatus::deserialize(status)?;
            listeners.push(Entry::new(Kind::Route, &key, "").with_conditions(&status.conditions, &[]));
            continue;
        }
        let status = MailServerStatus::deserialize(status)?;
        listeners.extend(without_listeners(&key, &status));
        for listener in &status.listeners {
            let entry = found(Entry::new(Kind::Server, &key, &listener.name), &served);
            listeners.push(StatusOf::Listener(listener).add_to(entry));
        }
    }
    Ok(Inventory { listeners, problems })
}

/// Adds the fields from the model.
fn found(entry: Entry, served: &ListenersById<'_>) -> Entry {
    let tail = if entry.listener.is_empty() { String::new() } else { format!("/{}", entry.listener) };
    let id = format!("{}/{}{tail}", entry.namespace, entry.object);
    let Some((socket, listener)) = served.get(id.as_str()) else { return entry };
    let hostnames = listener["hostnames"].as_array().into_iter().flatten();
    Entry {
        socket: socket["address"].as_str().unwrap_or_default().to_owned(),
        protocol: socket["protocol"]
            .as_str()
            .and_then(Protocol::of_name)
            .map(Protocol::label)
            .unwrap_or_default(),
        tls: match socket["tlsMode"].as_str() {
            Some("Disabled") => "Disabled",
            Some("StartTls") => "StartTLS",
            Some("RequireStartTls") => "RequireStartTLS",
            Some("Implicit") => "Implicit",
            _ => "",
        },
        hostnames: hostnames.filter_map(Value::as_str).map(str::to_owned).collect(),
        proxy_protocol: !socket["proxyProtocol"].is_null(),
        ..entry
    }
}
