//! The objects that an import creates, and their conversion to YAML values.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_yaml::{Mapping, Value};

use crate::api::listener::SocketSettings;
use crate::api::{API_VERSION, MailServerSpec};
use crate::secret::Secret;

/// One object.
#[derive(Debug)]
pub enum Manifest {
    /// A `MailServer`.
    Server {
        /// The value of `metadata.name`.
        name: String,
        /// The spec.
        spec: Box<MailServerSpec>,
    },
    /// A Secret.
    Secret {
        /// The value of `metadata.name`.
        name: String,
        /// `Opaque` or `kubernetes.io/tls`.
        type_: &'static str,
        /// The data, printed as `stringData`.
        data: BTreeMap<String, Secret>,
    },
    /// A ConfigMap.
    ConfigMap {
        /// The value of `metadata.name`.
        name: String,
        /// The data.
        data: BTreeMap<String, String>,
    },
}

impl Manifest {
    /// Returns the document to print, including secret values.
    ///
    /// # Errors
    /// A value cannot be represented in YAML.
    pub fn document(&self) -> Result<Value, serde_yaml::Error> {
        let mut fields = Mapping::new();
        let mut put = |name: &str, value: Value| fields.insert(name.into(), value);
        let (api, kind, name) = match self {
            Self::Server { name, .. } => (API_VERSION, "MailServer", name),
            Self::Secret { name, .. } => ("v1", "Secret", name),
            Self::ConfigMap { name, .. } => ("v1", "ConfigMap", name),
        };
        put("apiVersion", api.into());
        put("kind", kind.into());
        put("metadata", serde_yaml::to_value(BTreeMap::from([("name", name)]))?);
        match self {
            Self::Server { spec, .. } => {
                put("spec", server(spec)?);
            }
            Self::Secret { type_, data, .. } => {
                let text = data.iter().map(|(name, value)| (name, String::from_utf8_lossy(value.expose())));
                put("type", (*type_).into());
                put("stringData", serde_yaml::to_value(text.collect::<BTreeMap<_, _>>())?);
            }
            Self::ConfigMap { data, .. } => {
                put("data", serde_yaml::to_value(data)?);
            }
        }
        Ok(Value::Mapping(fields))
    }
}

/// Converts a spec. Removes fields with default values, and puts settings before listeners, as people do.
fn server(spec: &MailServerSpec) -> Result<Value, serde_yaml::Error> {
    let mut value = serde_yaml::to_value(spec)?;
    let Some(fields) = value.as_mapping_mut() else { return Ok(value) };
    fields.shift_remove("className");
    let mut listeners = fields.shift_remove("listeners").unwrap_or_default();
    for listener in listeners.as_sequence_mut().into_iter().flatten() {
        if let Some(socket) = listener.get_mut("socket").and_then(Value::as_mapping_mut) {
            let usual = as_mapping(&SocketSettings::default())?;
            socket.retain(|name, value| usual.get(name) != Some(value));
        }
    }
    fields.insert("listeners".into(), listeners);
    Ok(value)
}

fn as_mapping(value: &impl Serialize) -> Result<Mapping, serde_yaml::Error> {
    Ok(serde_yaml::to_value(value)?.as_mapping().cloned().unwrap_or_default())
}
