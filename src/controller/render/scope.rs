//! One listener while it is rendered: the origin of its settings (their paths for messages, and the namespace of their
//! references), and its violations.

use std::cell::RefCell;

use serde_json::Value;

use crate::api::Settings;
use crate::api::listener::ListenerFields;
use crate::api::server::AllowedBackends;
use crate::controller::index::Key;
use crate::controller::violation::Violation;
use crate::model::ListenerId;

/// A listener in its object. A `MailRoute` has the same form, with its settings as a listener's fields.
pub(crate) struct Source<'a> {
    /// Its identity.
    pub(crate) id: ListenerId,
    /// The path of its fields in the manifest.
    pub(crate) path: String,
    pub(crate) fields: &'a ListenerFields,
    /// The `MailServer`, if it is another object.
    pub(crate) server: Option<&'a Key>,
    /// What that `MailServer` allows to listeners of other namespaces.
    pub(crate) allowed: Option<&'a AllowedBackends>,
}

/// The two places of a listener's settings, and the violations that were found in them.
pub(crate) struct Scope<'a> {
    source: &'a Source<'a>,
    own: Value,
    violations: RefCell<Vec<Violation>>,
}

impl<'a> Scope<'a> {
    /// Creates the scope of one listener.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        let own: &Settings = &source.fields.settings;
        let own = serde_json::to_value(own).unwrap_or_default();
        Self { source, own, violations: RefCell::default() }
    }

    /// Adds a violation.
    pub(crate) fn report(&self, violation: Violation) {
        self.violations.borrow_mut().push(violation);
    }

    /// Returns all violations.
    pub(crate) fn into_violations(self) -> Vec<Violation> {
        self.violations.into_inner()
    }

    /// Returns the path of one of the listener's own fields.
    pub(crate) fn field(&self, field: &str) -> String {
        format!("{}.{field}", self.source.path)
    }

    /// Returns the path of a setting in the object that sets it: the listener, or else the `MailServer`.
    pub(crate) fn setting(&self, setting: &str) -> String {
        if self.is_own(setting) {
            return self.field(setting);
        }
        match self.source.server {
            None => format!("spec.{setting}"),
            Some(server) => format!("MailServer {server} spec.{setting}"),
        }
    }

    /// Returns the path for a setting that neither object sets.
    pub(crate) fn absent(&self, setting: &str) -> String {
        match self.source.server {
            None => format!("spec.{setting}"),
            Some(_) => self.field(setting),
        }
    }

    /// Returns the namespace of the references in a setting: that of the object that sets it.
    pub(crate) fn namespace(&self, setting: &str) -> &str {
        match self.source.server {
            Some(server) if !self.is_own(setting) => &server.namespace,
            _ => &self.source.id.namespace,
        }
    }

    /// Returns the key of an object in the namespace of a setting.
    pub(crate) fn key(&self, setting: &str, name: &str) -> Key {
        Key::new(self.namespace(setting), name)
    }

    /// Returns the key of an object in the listener's own namespace.
    pub(crate) fn own_key(&self, name: &str) -> Key {
        Key::new(&self.source.id.namespace, name)
    }

    /// Returns the `MailServer` if it is in another namespace than the listener.
    pub(crate) fn foreign_server(&self) -> Option<&'a Key> {
        self.source.server.filter(|server| server.namespace != self.source.id.namespace)
    }

    /// Returns `MailServer namespace/name` for messages of another object about its `MailServer`.
    pub(crate) fn server_name(&self) -> String {
        self.source.server.map(|server| format!("MailServer {server}")).unwrap_or_default()
    }

    /// Returns the listener's name, or the object's name for a `MailListener`.
    pub(crate) fn listener_name(&self) -> &str {
        let id = &self.source.id;
        if id.listener.is_empty() { &id.object } else { &id.listener }
    }

    /// Returns the listener's port; 0 for a UNIX socket.
    pub(crate) fn listener_port(&self) -> u16 {
        self.source.fields.port.unwrap_or_default()
    }

    /// Tells whether the listener itself has the setting.
    pub(crate) fn is_own(&self, setting: &str) -> bool {
        setting.split('.').try_fold(&self.own, |value, name| value.get(name)).is_some()
    }
}
