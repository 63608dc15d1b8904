//! Finds the `MailServer` of a `MailListener` or `MailRoute`, and checks whether it accepts the object's namespace.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::listener::ServerRef;
use crate::api::server::{AllowedNamespaces, FromNamespaces, Operator, Requirement, Selector};
use crate::api::{MailListenerSpec, MailServerSpec};
use crate::controller::index::{Key, Objects};
use crate::controller::reason::Reason;
use crate::controller::violation::{Absent, Concern, Violation};

use super::references::Dependencies;
use super::table::Table;

/// Returns the server of a `MailListener`, or why it cannot be used. Adds the objects that were read to `dependencies`.
pub(crate) fn server(
    objects: &Objects,
    table: &Table,
    (listener, spec): (&Key, &MailListenerSpec),
    dependencies: &RefCell<Dependencies>,
) -> Result<(Key, Arc<MailServerSpec>), Violation> {
    let (key, server) = find(objects, table, (&listener.namespace, &spec.server_ref), dependencies)?;
    let allowed = server.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.clone());
    if allows(objects, &key, &allowed.unwrap_or_default(), &listener.namespace, dependencies) {
        return Ok((key, server));
    }
    let problem = format!("MailServer {key} does not allow listeners from namespace {}", listener.namespace);
    let remedy = "ask its owner to add the namespace to spec.allowedListeners.namespaces";
    Err(refusal(objects, problem, remedy, dependencies))
}

/// Returns the server to which an object of `namespace` refers.
pub(crate) fn find(
    objects: &Objects,
    table: &Table,
    (namespace, reference): (&str, &ServerRef),
    dependencies: &RefCell<Dependencies>,
) -> Result<(Key, Arc<MailServerSpec>), Violation> {
    let key = Key::new(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
    dependencies.borrow_mut().servers.insert(key.clone());
    if let Some(server) = table.server(objects, &key) {
        return Ok((key, server));
    }
    Err(match objects.servers.get(&key) {
        None => {
            let problem = format!("MailServer {key} does not exist");
            let remedy = "create it, or correct name and namespace";
            Violation::absent("spec.serverRef", Absent::Server(key), problem, remedy)
        }
        Some(_) => {
            let problem = format!("MailServer {key} is invalid");
            let remedy = "correct the MailServer; see its status";
            Violation::missing("spec.serverRef", problem, remedy)
        }
    })
}

/// Returns the violation of an object whose namespace is not allowed.
pub(crate) fn refusal(
    objects: &Objects,
    problem: String,
    remedy: &str,
    dependencies: &RefCell<Dependencies>,
) -> Violation {
    // The decision depends on labels of a namespace whose object is not known.
    let namespace =
        dependencies.borrow().namespace.clone().filter(|name| !objects.namespaces.contains_key(name));
    let refused = Violation::new(Concern::Accepted, Reason::NotAllowed, "spec.serverRef", problem, remedy);
    Violation { absent: namespace.map(Absent::Namespace).map(Box::new), ..refused }
}

/// Tells whether objects of a namespace may attach to a server.
pub(crate) fn allows(
    objects: &Objects,
    server: &Key,
    allowed: &AllowedNamespaces,
    namespace: &str,
    dependencies: &RefCell<Dependencies>,
) -> bool {
    match allowed.from {
        FromNamespaces::Same => server.namespace == namespace,
        FromNamespaces::All => true,
        FromNamespaces::Selector => {
            dependencies.borrow_mut().namespace = Some(namespace.to_owned());
            let selector = allowed.selector.as_ref();
            selector.is_some_and(|selector| selects(selector, &labels(objects, namespace)))
        }
    }
}

/// Returns a namespace's labels. Every namespace has its name as a label, even if its object is not known.
fn labels(objects: &Objects, namespace: &str) -> BTreeMap<String, String> {
    let mut labels = objects.namespaces.get(namespace).map(|labels| (**labels).clone()).unwrap_or_default();
    labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| namespace.to_owned());
    labels
}

fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    let mut wanted = selector.match_labels.iter().flatten();
    let mut requirements = selector.match_expressions.iter().flatten();
    wanted.all(|(name, value)| labels.get(name) == Some(value))
        && requirements.all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &Requirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || requirement.values.iter().flatten().any(|listed| Some(listed) == value);
    match requirement.operator {
        Operator::In => listed(),
        Operator::NotIn => !listed(),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}
