//! The schemas of Kubernetes, of our own kinds and of other projects, for kubeconform.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::tools::{Tools, module_source, root};

/// JSON schemas for kubeconform: a folder with a file for each kind.
pub struct Schemas {
    folder: tempfile::TempDir,
}

impl Schemas {
    /// Writes the schemas of Kubernetes and of all [`definitions`]. They do not allow unknown fields.
    pub fn write() -> Self {
        let folder = tempfile::Builder::new().prefix("mailgress-schemas-").tempdir().unwrap();
        let schemas = Self { folder };
        schemas.write_kubernetes(&module_source("tests/cluster/control-plane", "k8s.io/kubernetes"));
        for file in definitions() {
            schemas.write_crd(&file);
        }
        schemas
    }

    fn write_kubernetes(&self, source: &Path) {
        let text = std::fs::read_to_string(source.join("api/openapi-spec/swagger.json")).unwrap();
        let mut all: Value = serde_json::from_str(&text).unwrap();
        let definitions = all["definitions"].as_object_mut().unwrap();
        let mut kinds = Vec::new();
        for (name, definition) in definitions.iter_mut() {
            for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let part = |part: &str| kind[part].as_str().unwrap_or_default().to_owned();
                kinds.push((part("group"), part("version"), part("kind"), name.clone()));
            }
            close(definition);
        }
        // Any JSON is allowed, although the description says an object or nothing.
        for any in ["JSON", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray"]
        {
            let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{any}");
            definitions.insert(name, json!({}));
        }
        std::fs::write(self.definitions(), json!({ "definitions": definitions }).to_string()).unwrap();
        for (group, version, kind, name) in kinds {
            self.write_kind(&group, &version, &kind, &self.reference(&name));
        }
    }

    /// Returns a reference to a definition of Kubernetes.
    fn reference(&self, definition: &str) -> Value {
        json!({ "$ref": format!("file://{}#/definitions/{definition}", self.definitions().display()) })
    }

    fn definitions(&self) -> PathBuf {
        self.folder.path().join("definitions.json")
    }

    fn write_crd(&self, file: &Path) {
        let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let spec = &crd["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            for field in ["apiVersion", "kind"] {
                schema["properties"][field] = json!({ "type": "string" });
            }
            schema["properties"]["metadata"] = self.reference(METADATA);
            close(&mut schema);
            let name = |value: &Value| value.as_str().unwrap().to_owned();
            self.write_kind(
                &name(&spec["group"]),
                &name(&version["name"]),
                &name(&spec["names"]["kind"]),
                &schema,
            );
        }
    }

    fn write_kind(&self, group: &str, version: &str, kind: &str, schema: &Value) {
        // kubeconform's name for the core group.
        let group = if group.is_empty() { version } else { group };
        let name = format!("{}_{group}_{version}.json", kind.to_lowercase());
        std::fs::write(self.folder.path().join(name), schema.to_string()).unwrap();
    }

    /// Checks that all of these manifests (names and YAML) are valid and none is skipped.
    pub fn check(&self, tools: &Tools, manifests: &[(String, String)]) {
        let (is_valid, said) = self.kubeconform(tools, manifests);
        assert!(is_valid, "{said}");
        assert!(said.contains("Skipped: 0"), "{said}");
    }

    /// Checks that a manifest is refused with this text.
    pub fn refuse(&self, tools: &Tools, text: &str, named: &str) {
        let (is_valid, said) = self.kubeconform(tools, &[("wrong".to_owned(), text.to_owned())]);
        assert!(!is_valid && said.contains(named), "{named}: {said}");
    }

    fn kubeconform(&self, tools: &Tools, manifests: &[(String, String)]) -> (bool, String) {
        let files = write_all(manifests);
        let location = format!(
            "{}/{{{{.ResourceKind}}}}_{{{{.Group}}}}_{{{{.ResourceAPIVersion}}}}.json",
            self.folder.path().display()
        );
        let mut command = tools.command("kubeconform");
        command.args(["-summary", "-schema-location", &location]).arg(files.path());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Writes a file for each manifest, with its name.
pub fn write_all(manifests: &[(String, String)]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("mailgress-manifests-").tempdir().unwrap();
    for (name, text) in manifests {
        let file = format!("{}.yaml", name.replace(['/', ':'], "_"));
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    folder
}

/// Returns the CustomResourceDefinitions of all kinds in our manifests, including ours.
pub fn definitions() -> Vec<PathBuf> {
    let ours = ["mailservers", "maillisteners", "mailroutes"]
        .map(|kind| root().join(format!("crds/{kind}.mailgress.dev.yaml")));
    let of_module = |(module, folder, files): (&str, &str, &'static [&str])| {
        let folder = module_source("tests/tools", module).join(folder);
        files.iter().map(move |file| folder.join(file))
    };
    ours.into_iter().chain(OTHERS.into_iter().flat_map(of_module)).collect()
}

/// Converts an OpenAPI schema to a strict JSON schema: no other fields than the described ones, fields may be null, and
/// types without an equivalent in JSON get the forms in which they can be written.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_either = fields.get("format") == Some(&json!("int-or-string"))
                || fields.get("x-kubernetes-int-or-string") == Some(&json!(true))
                || fields
                    .get("description")
                    .and_then(Value::as_str)
                    .is_some_and(|text| text.starts_with("Quantity is"));
            if is_either {
                *fields = Map::from_iter([("type".to_owned(), json!(["string", "number"]))]);
                return;
            }
            let is_open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
            if fields.get("properties").is_some_and(Value::is_object) && !is_open {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            if fields.get("format").is_some_and(Value::is_string) {
                fields.remove("format");
            }
            for value in fields.values_mut() {
                close(value);
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(close),
        _ => {}
    }
}

/// Modules with CustomResourceDefinitions, their folders, and the needed ones. They are downloaded but not built. None
/// needs a newer Go than tests/tools, so that no other Go is downloaded.
const OTHERS: [(&str, &str, &[&str]); 6] = [
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
        &[
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
        ],
    ),
    ("github.com/argoproj/argo-cd/v3@v3.4.13", "manifests/crds", &["application-crd.yaml"]),
    (
        "github.com/fluxcd/source-controller@v1.9.6",
        "config/crd/bases",
        &["source.toolkit.fluxcd.io_gitrepositories.yaml"],
    ),
    (
        "github.com/fluxcd/helm-controller@v1.6.1",
        "config/crd/bases",
        &["helm.toolkit.fluxcd.io_helmreleases.yaml"],
    ),
    (
        "github.com/fluxcd/kustomize-controller@v1.9.6",
        "config/crd/bases",
        &["kustomize.toolkit.fluxcd.io_kustomizations.yaml"],
    ),
    ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds", &["cert-manager.io_certificates.yaml"]),
];
/// The schema of every object's metadata.
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
