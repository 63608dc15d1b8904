//! What the chart renders, for values of all kinds, against the schemas of Kubernetes, of Prometheus' operator and of our
//! own kinds.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::tools::{CHART, KUBERNETES, Tools, module_source, root, succeeded};

#[test]
fn helm_lint_has_nothing_to_say() {
    let Some(tools) = Tools::new("helm_lint_has_nothing_to_say") else { return };
    for values in value_files() {
        let mut lint = tools.command("helm");
        lint.args(["lint", "--strict", CHART, "--kube-version", KUBERNETES, "-f", &values]);
        let said = succeeded(lint.output().unwrap());
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

#[test]
fn the_units_of_the_chart_pass() {
    let Some(tools) = Tools::new("the_units_of_the_chart_pass") else { return };
    succeeded(tools.command("helm-unittest").args(["--strict", CHART]).output().unwrap());
}

#[test]
fn all_that_is_rendered_is_valid_for_kubernetes() {
    let Some(tools) = Tools::new("all_that_is_rendered_is_valid_for_kubernetes") else { return };
    let schemas = Schemas::write();
    for values in value_files() {
        let text = succeeded(tools.template(&["-f", &values, "--include-crds"]));
        schemas.check(&tools, &text, &values);
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_found() {
    let Some(tools) = Tools::new("a_field_that_kubernetes_does_not_know_is_found") else { return };
    let schemas = Schemas::write();
    let wrong = succeeded(tools.template(&["--show-only", "templates/workload.yaml"]));
    let wrong = wrong.replace("minReadySeconds", "minReadySecond");
    assert!(!schemas.kubeconform(&tools, &wrong).0);
}

/// Each is a kind of installation; the first is the chart's own.
fn value_files() -> Vec<String> {
    let folder = root().join("tests/chart/values");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let files = files.iter().map(|file| file.display().to_string());
    std::iter::once("/dev/null".to_owned()).chain(files).collect()
}

/// JSON schemas as kubeconform takes them: a file for each kind, in a folder.
pub struct Schemas {
    folder: tempfile::TempDir,
}

impl Schemas {
    /// Of Kubernetes' own source, the operator's and `crds/`; without fields that they do not know.
    pub fn write() -> Self {
        let folder = tempfile::Builder::new().prefix("mailgress-schemas-").tempdir().unwrap();
        let schemas = Self { folder };
        schemas.write_kubernetes(&module_source("tests/cluster/control-plane", "k8s.io/kubernetes"));
        let operator = module_source("tests/tools", OPERATOR).join("example/prometheus-operator-crd");
        for kind in ["podmonitors", "servicemonitors", "prometheusrules"] {
            schemas.write_crd(&operator.join(format!("monitoring.coreos.com_{kind}.yaml")));
        }
        for kind in ["mailservers", "maillisteners"] {
            schemas.write_crd(&root().join(format!("crds/{kind}.mailgress.dev.yaml")));
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
        // Any JSON, though it is described as an object or not at all.
        for any in ["JSON", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrStringArray"]
        {
            let name = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{any}");
            definitions.insert(name, json!({}));
        }
        let file = self.folder.path().join("definitions.json");
        std::fs::write(&file, json!({ "definitions": definitions }).to_string()).unwrap();
        for (group, version, kind, name) in kinds {
            let reference = json!({ "$ref": format!("file://{}#/definitions/{name}", file.display()) });
            self.write_kind(&group, &version, &kind, &reference);
        }
    }

    fn write_crd(&self, file: &Path) {
        let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let spec = &crd["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            for (field, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
                schema["properties"][field] = json!({ "type": kind });
            }
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
        // As kubeconform calls the group without a name.
        let group = if group.is_empty() { version } else { group };
        let name = format!("{}_{group}_{version}.json", kind.to_lowercase());
        std::fs::write(self.folder.path().join(name), schema.to_string()).unwrap();
    }

    /// Nothing in it is wrong, and nothing is left out.
    pub fn check(&self, tools: &Tools, text: &str, what: &str) {
        let (is_valid, said) = self.kubeconform(tools, text);
        assert!(is_valid, "{what}: {said}");
        assert!(said.contains("Skipped: 0"), "{what}: {said}");
    }

    fn kubeconform(&self, tools: &Tools, text: &str) -> (bool, String) {
        let file = self.folder.path().join("rendered.yaml");
        std::fs::write(&file, text).unwrap();
        let location = format!(
            "{}/{{{{.ResourceKind}}}}_{{{{.Group}}}}_{{{{.ResourceAPIVersion}}}}.json",
            self.folder.path().display()
        );
        let mut command = tools.command("kubeconform");
        command.args(["-summary", "-schema-location", &location]).arg(file);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A JSON schema of an OpenAPI one: with fields that are there no other is taken, a field may be null, and the types that
/// JSON does not have are what they may be written as.
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

/// Whose `example/` has the CRDs of PodMonitor, ServiceMonitor and PrometheusRule.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
