//! Reads manifests from a file's text: YAML or JSON, several documents, and lists.

mod generated;
mod names;
mod template;
pub(crate) mod text;
pub(crate) mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{API_VERSION, GROUP, MailListenerSpec, MailRouteSpec, MailServerSpec};
use crate::secret;

use super::index::{DRAIN, Key, Owner, Resource, SecretData};
use super::render::Kind;
use super::validate::Validator;
use super::violation::{Violation, one_line};

pub use generated::GeneratedObject;

/// An object of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// `kind`, for messages.
    pub kind: String,
    /// Namespace and name. The default namespace is `default`.
    pub key: Key,
    /// The parsed object.
    pub content: Content,
}

/// The parsed object, if Mailgress uses its kind.
#[derive(Clone, Debug)]
pub enum Content {
    /// A `MailServer`.
    Server(Own<MailServerSpec>),
    /// A `MailListener`.
    Listener(Own<MailListenerSpec>),
    /// A `MailRoute`.
    Route(Own<MailRouteSpec>),
    /// A Secret.
    Secret(Arc<SecretData>),
    /// A ConfigMap.
    ConfigMap(Arc<BTreeMap<String, Vec<u8>>>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    Slice(Arc<EndpointSlice>),
    /// The labels of a Namespace.
    Namespace(Arc<BTreeMap<String, String>>),
    /// A Pod that is taken out of service: [`DRAIN`].
    LeavingPod,
    /// An object that Mailgress does not use.
    Other,
}

impl Content {
    /// Removes the spec as written.
    #[must_use]
    pub fn without_written(mut self) -> Self {
        match &mut self {
            Self::Server(own) => own.written = Value::Null,
            Self::Listener(own) => own.written = Value::Null,
            Self::Route(own) => own.written = Value::Null,
            _ => {}
        }
        self
    }
}

/// An object of our own kinds.
#[derive(Clone, Debug)]
pub struct Own<Spec> {
    /// The creation time in Unix seconds.
    pub created: Option<i64>,
    /// Who is responsible for the object.
    pub owner: Owner,
    /// The spec as written, to recognise changes. Null where `metadata.generation` shows them.
    pub written: Value,
    /// The spec with its defaults, or its violations.
    pub spec: Result<Arc<Spec>, Vec<Violation>>,
}

impl<Spec> Own<Spec> {
    /// Returns the object for a rendering.
    #[must_use]
    pub fn resource(&self, uid: &str, generation: i64) -> Resource<Spec> {
        let (uid, owner, created) = (uid.to_owned(), self.owner.clone(), self.created);
        Resource { uid, owner, generation, created, spec: self.spec.clone() }
    }
}

/// Why a text cannot be parsed into manifests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The place of the problem, if it is known.
    pub position: Option<Position>,
    /// One sentence.
    pub message: String,
}

/// A place in a text. Line and column are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// The result of parsing a text.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The objects, in their order in the text.
    pub manifests: Vec<Manifest>,
    /// Objects whose name is known but whose content is not valid.
    pub broken: Vec<Broken>,
    /// Secrets and ConfigMaps that other programs create from objects of other kinds.
    pub generated: Vec<GeneratedObject>,
}

/// A broken object. Other objects are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// `kind` as written.
    pub kind: String,
    /// Namespace and name.
    pub key: Key,
    /// The problem and the object, in one sentence.
    pub message: String,
}

/// Parses all objects of a text. JSON is a subset of YAML.
///
/// # Errors
///
/// Fails if the text is not valid YAML, or if a document may be an incomplete object: a file that is written in part
/// must not count.
pub fn parse(text: &str, validator: &Validator) -> Result<Parsed, ParseError> {
    objects(text, validator).map_err(|error| template::or_template_error(text, error))
}

fn objects(text: &str, validator: &Validator) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut documents = yaml::Documents::new(text);
    while let Some(document) = documents.next() {
        let document = document?;
        if !document.is_null() {
            let position = documents.position();
            object(document, validator, &mut parsed)
                .map_err(|error| ParseError { position: error.position.or(position), ..error })?;
        }
    }
    Ok(parsed)
}

fn object(value: Value, validator: &Validator, parsed: &mut Parsed) -> Result<(), ParseError> {
    if is_foreign(&value) {
        parsed.generated.extend(generated::of_kustomization(&value));
        return Ok(());
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let (Some(api), Some(kind)) = (text("apiVersion"), text("kind")) else {
        if let Some(kind) = text("kind").filter(|kind| is_own_kind(kind)) {
            return Err(plain(&format!("a {kind} has no apiVersion; add apiVersion: {API_VERSION}")));
        }
        return Err(plain("a document has no apiVersion and kind; a Kubernetes object begins with them"));
    };
    if kind.ends_with("List") && value["items"].is_array() {
        let Value::Object(mut fields) = value else { return Ok(()) };
        let Some(Value::Array(items)) = fields.remove("items") else { return Ok(()) };
        return items.into_iter().try_for_each(|item| object(item, validator, parsed));
    }
    let Some(name) = value["metadata"]["name"].as_str().filter(|name| !name.is_empty()) else {
        if is_read(&api, &kind) || is_mistaken(&api, &kind, &value) {
            return Err(plain(&format!("a {kind} has no metadata.name; give it one")));
        }
        parsed.generated.extend(generated::of_kustomization(&value));
        return Ok(());
    };
    if is_own(&api) && (template::is_in(&value["spec"]) || template::is_in(&value["metadata"]["name"])) {
        return Err(plain("this is a template, not a manifest"));
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap_or("default");
    let key = Key::new(if kind == "Namespace" { "" } else { namespace }, name);
    parsed.generated.extend(generated::of(&api, &kind, &key, &value));
    match content(&api, &kind, &key, value, validator) {
        Ok(content) => parsed.manifests.push(Manifest { kind, key, content }),
        Err(ParseError { message, .. }) => parsed.broken.push(Broken { kind, key, message }),
    }
    Ok(())
}

/// Tells whether a document is not a Kubernetes object: a list of JSON patches, the values of a chart, a `Chart.yaml`,
/// or a `kustomization.yaml`, which needs neither apiVersion nor kind. An object that has lost one of its first lines
/// is not recognised as such.
fn is_foreign(value: &Value) -> bool {
    let has = |name: &str| !value[name].is_null();
    match value {
        Value::Array(_) => true,
        Value::Object(_) if has("kind") || has("metadata") || has("spec") => false,
        Value::Object(_) => !has("apiVersion") || (has("name") && has("version")),
        _ => false,
    }
}

fn is_own(api: &str) -> bool {
    api.split('/').next() == Some(GROUP)
}

fn is_own_kind(kind: &str) -> bool {
    Kind::named(kind).is_some()
}

/// Tells whether an object is probably one of our kinds with a wrong apiVersion. Other groups may have kinds with the
/// same names, but with other fields.
fn is_mistaken(api: &str, kind: &str, value: &Value) -> bool {
    let has = |field: &str| !value["spec"][field].is_null();
    let looks_ours = has("listeners") || has("serverRef");
    is_own_kind(kind) && api != API_VERSION && (is_own(api) || !api.contains('/') || looks_ours)
}

/// Tells whether Mailgress reads objects of a kind.
fn is_read(api: &str, kind: &str) -> bool {
    let is_core = api == "v1" && ["Secret", "ConfigMap", "Service", "Namespace"].contains(&kind);
    is_core || is_own(api) || (api == "discovery.k8s.io/v1" && kind == "EndpointSlice")
}

/// Parses a single object.
///
/// # Errors
///
/// Fails if the object cannot be parsed. Violations of a spec of our kinds are part of the result.
pub(crate) fn content(
    api: &str,
    kind: &str,
    key: &Key,
    value: Value,
    validator: &Validator,
) -> Result<Content, ParseError> {
    Ok(match (api, kind) {
        (API_VERSION, "MailServer") => Content::Server(own(Kind::Server, key, value, validator)),
        (API_VERSION, "MailListener") => Content::Listener(own(Kind::Listener, key, value, validator)),
        (API_VERSION, "MailRoute") => Content::Route(own(Kind::Route, key, value, validator)),
        (api, kind) if is_mistaken(api, kind, &value) => {
            return Err(plain(&format!("{kind} {key} has apiVersion {api}; write {API_VERSION}")));
        }
        (api, _) if is_own(api) => {
            return Err(plain(&format!(
                "{kind} {key}: there is no such kind in {GROUP}, only MailServer, MailListener and MailRoute"
            )));
        }
        ("v1", "Secret") if generated::is_encrypted(&value) => Content::Other,
        ("v1", "Secret") => Content::Secret(Arc::new(secret(typed(kind, key, value)?))),
        ("v1", "ConfigMap") => Content::ConfigMap(Arc::new(config_map(typed(kind, key, value)?))),
        ("v1", "Service") => Content::Service(Arc::new(typed(kind, key, value)?)),
        ("discovery.k8s.io/v1", "EndpointSlice") => Content::Slice(Arc::new(typed(kind, key, value)?)),
        ("v1", "Namespace") => {
            let namespace: Namespace = typed(kind, key, value)?;
            Content::Namespace(Arc::new(namespace.metadata.labels.unwrap_or_default()))
        }
        ("v1", "Pod") if value["metadata"]["annotations"][DRAIN] == "true" => Content::LeavingPod,
        _ => Content::Other,
    })
}

fn own<Spec: DeserializeOwned>(kind: Kind, key: &Key, value: Value, validator: &Validator) -> Own<Spec> {
    let created = value["metadata"]["creationTimestamp"].as_str();
    let created =
        created.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_second);
    let mut found: Vec<Violation> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()))
        .map(|(name, _)| {
            let remedy = "remove it, or move it into spec";
            Violation::invalid(name, "there is no such field", remedy)
        })
        .collect();
    found.extend(names::violations(&value["metadata"]));
    let written = value["spec"].clone();
    let owner = Owner::written(kind, &key.namespace, &written);
    if written.is_null() {
        found.push(Violation::invalid("spec", "this field is required", "add it"));
        return Own { created, owner, written, spec: Err(found) };
    }
    let mut spec = written.clone();
    found.extend(validator.spec(kind, &mut spec));
    let spec = if found.is_empty() {
        let typed = serde_json::from_value(spec).map(Arc::new);
        typed.map_err(|error| vec![Violation::invalid("spec", one_line(&error.to_string()), "correct it")])
    } else {
        Err(found)
    };
    Own { created, owner, written, spec }
}

fn typed<T: DeserializeOwned>(kind: &str, key: &Key, value: Value) -> Result<T, ParseError> {
    // Messages must not contain values of Secrets.
    serde_json::from_value(value).map_err(|error| {
        let problem = if kind == "Secret" { "its data is not base64".to_owned() } else { error.to_string() };
        plain(&format!("{kind} {key} is broken: {problem}"))
    })
}

/// `stringData` takes precedence over `data`, as in the API server.
fn secret(secret: Secret) -> SecretData {
    let kind = secret.type_.unwrap_or_else(|| "Opaque".to_owned());
    let decoded = secret.data.unwrap_or_default().into_iter();
    let mut data: BTreeMap<String, secret::Secret> =
        decoded.map(|(name, value)| (name, secret::Secret::new(value.0))).collect();
    let text = secret.string_data.unwrap_or_default().into_iter();
    data.extend(text.map(|(name, value)| (name, secret::Secret::new(value.into_bytes()))));
    SecretData { kind, data }
}

fn config_map(map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.into_bytes()));
    let binary = map.binary_data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0));
    text.chain(binary).collect()
}

fn plain(message: &str) -> ParseError {
    ParseError { position: None, message: message.to_owned() }
}
