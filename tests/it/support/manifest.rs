//! A folder of manifests: objects as YAML files, written in place or through a rename.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pki::Identity;

/// A folder that Mailgress watches.
pub struct Folder {
    directory: TempDir,
}

impl Folder {
    /// Creates an empty folder.
    pub fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("mailgress-manifests-").tempdir().unwrap() }
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Overwrites a file with one object.
    pub fn write(&self, name: &str, object: &Value) -> &Self {
        self.write_text(name, &serde_yaml::to_string(object).unwrap())
    }

    /// Overwrites a file with a text.
    pub fn write_text(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.file(name), text).unwrap();
        self
    }

    /// Replaces a file atomically, as editors and `kubectl` do.
    pub fn replace(&self, name: &str, object: &Value) -> &Self {
        let temporary = self.file(&format!(".{name}.new"));
        std::fs::write(&temporary, serde_yaml::to_string(object).unwrap()).unwrap();
        std::fs::rename(temporary, self.file(name)).unwrap();
        self
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> &Self {
        std::fs::remove_file(self.file(name)).unwrap();
        self
    }
}

/// A `MailServer` named `edge` in the namespace `mail`. `spec` includes the listeners.
pub fn mail_server(spec: &Value) -> Value {
    json!({
        "apiVersion": "mailgress.dev/v1alpha1",
        "kind": "MailServer",
        "metadata": { "name": "edge", "namespace": "mail" },
        "spec": spec,
    })
}

/// A listener on 127.0.0.1. `tls` is the mode; `Disabled` needs no certificate.
pub fn listener(name: &str, protocol: &str, tls: &str, port: u16, backend: SocketAddr) -> Value {
    json!({
        "name": name,
        "protocol": protocol,
        "address": "127.0.0.1",
        "port": port,
        "tls": { "mode": tls },
        "backendAddress": backend.to_string(),
    })
}

/// A `kubernetes.io/tls` Secret in the namespace `mail`.
pub fn tls_secret(name: &str, identity: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": "mail" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": identity.certificate, "tls.key": identity.key },
    })
}

/// A `ConfigMap` in the namespace `mail` with a CA certificate as `ca.crt`.
pub fn ca_config_map(name: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "mail" },
        "data": { "ca.crt": pem },
    })
}

/// `auth: passthrough`.
pub fn passthrough() -> Value {
    json!({ "passthrough": {} })
}

/// `auth: http` with a URL.
pub fn http_auth(url: &str) -> Value {
    json!({ "http": { "url": url } })
}

/// Merges `extra` into `base` recursively.
#[must_use]
pub fn with(mut base: Value, extra: &Value) -> Value {
    merge(&mut base, extra);
    base
}

fn merge(base: &mut Value, extra: &Value) {
    match (base, extra) {
        (Value::Object(base), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, extra) => *base = extra.clone(),
    }
}
