//! Where a setting came from: its path for messages, and the namespace that its references are of.

use serde_json::Value;

use crate::api::Settings;
use crate::controller::index::Key;

use super::listener::Source;

/// The two places that a listener's settings may stand in.
pub(crate) struct Scope<'a> {
    source: &'a Source<'a>,
    own: Value,
}

impl<'a> Scope<'a> {
    /// For one listener.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        let own: &Settings = &source.fields.settings;
        Self { source, own: serde_json::to_value(own).unwrap_or_default() }
    }

    /// The path of one of the listener's own fields.
    pub(crate) fn field(&self, field: &str) -> String {
        format!("{}.{field}", self.source.path)
    }

    /// The path of a setting, in the place that says it: the listener, or else the `MailServer`.
    pub(crate) fn setting(&self, setting: &str) -> String {
        if self.is_own(setting) {
            return self.field(setting);
        }
        match self.source.server {
            None => format!("spec.{setting}"),
            Some(server) => format!("MailServer {server} spec.{setting}"),
        }
    }

    /// The path of a setting that neither says and somebody should.
    pub(crate) fn absent(&self, setting: &str) -> String {
        match self.source.server {
            None => format!("spec.{setting}"),
            Some(_) => self.field(setting),
        }
    }

    /// The namespace of the references in a setting: that of the object that says it.
    pub(crate) fn namespace(&self, setting: &str) -> &str {
        match self.source.server {
            Some(server) if !self.is_own(setting) => &server.namespace,
            _ => &self.source.id.namespace,
        }
    }

    /// An object in the namespace of a setting.
    pub(crate) fn key(&self, setting: &str, name: &str) -> Key {
        Key::new(self.namespace(setting), name)
    }

    /// An object in the listener's own namespace.
    pub(crate) fn own_key(&self, name: &str) -> Key {
        Key::new(&self.source.id.namespace, name)
    }

    /// The `MailServer`, where it is of another namespace than the listener.
    pub(crate) fn foreign_server(&self) -> Option<&'a Key> {
        self.source.server.filter(|server| server.namespace != self.source.id.namespace)
    }

    /// What the listener is called: the name of its object, where that is all there is.
    pub(crate) fn listener_name(&self) -> &str {
        let id = &self.source.id;
        if id.listener.is_empty() { &id.object } else { &id.listener }
    }

    /// The listener's port; 0 for a UNIX socket.
    pub(crate) fn listener_port(&self) -> u16 {
        self.source.fields.port.unwrap_or_default()
    }

    /// Whether the listener itself says the setting.
    pub(crate) fn is_own(&self, setting: &str) -> bool {
        setting.split('.').try_fold(&self.own, |value, name| value.get(name)).is_some()
    }
}
