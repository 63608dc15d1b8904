//! Files of the chart that are generated from others.

use std::process::Command;

use serde_json::Value as Json;
use serde_yaml::Value;

use crate::support::generated::is_current;
use crate::tools::{CHART, Tools, root, succeeded};

#[test]
fn the_crds_of_the_chart_are_those_of_the_binary() {
    let Some(tools) = Tools::new("the_crds_of_the_chart_are_those_of_the_binary") else { return };
    let printed = succeeded(Command::new(env!("CARGO_BIN_EXE_mailgress")).arg("crds").output().unwrap());
    let rendered = tools.objects(&["--show-only", "templates/crds.yaml"]);
    let printed = crate::tools::documents(&printed);
    assert_eq!(rendered.len(), printed.len());
    for crd in &printed {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let found = crate::tools::find(&rendered, "CustomResourceDefinition", name).unwrap();
        assert_eq!(found["spec"], crd["spec"], "{name}");
        assert_eq!(found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
}

#[test]
fn generated_readme_of_the_chart_lists_its_values() {
    let Some(tools) = Tools::new("generated_readme_of_the_chart_lists_its_values") else { return };
    let mut docs = tools.command("helm-docs");
    docs.args(["--chart-search-root", CHART, "--sort-values-order", "file", "--log-level", "warning"]);
    is_current(format!("{CHART}/README.md"), &succeeded(docs.arg("--dry-run").output().unwrap()));
}

/// Each value has one description in values.yaml, which is copied to the schema. The CRD describes the fields of a
/// MailServer.
#[test]
fn generated_schema_says_of_each_value_what_values_yaml_and_the_crd_say() {
    let file = format!("{CHART}/values.schema.json");
    // Parse as YAML, which keeps the order.
    let mut schema: Value =
        serde_yaml::from_str(&std::fs::read_to_string(root().join(&file)).unwrap()).unwrap();
    let values = std::fs::read_to_string(root().join(CHART).join("values.yaml")).unwrap();
    let mut described = 0;
    for (value, sentence) in comments(&values) {
        let value: Vec<&str> = value.iter().flat_map(|part| ["properties", part]).collect();
        at(&mut schema, &value).as_mapping_mut().unwrap().insert("description".into(), sentence.into());
        described += 1;
    }
    assert!(described > 100, "{described}");
    let spec = at(&mut schema, &["properties", "mailServers", "additionalProperties", "properties", "spec"]);
    *spec = mail_server(&spec["description"]);
    is_current(file, &(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
}

fn at<'a>(schema: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(schema, |schema, part| schema.get_mut(*part).unwrap_or_else(|| panic!("{path:?}")))
}

/// Returns the CRD's schema of a MailServer's `spec` as JSON Schema. Rules between several fields are left to the API
/// server.
fn mail_server(description: &Value) -> Value {
    let crd = std::fs::read_to_string(root().join("crds/mailservers.mailgress.dev.yaml")).unwrap();
    let mut crd: Value = serde_yaml::from_str(&crd).unwrap();
    let versions = crd["spec"]["versions"].as_sequence_mut().unwrap();
    assert_eq!(versions.len(), 1, "which one do the values have?");
    let spec = at(&mut versions[0], &["schema", "openAPIV3Schema", "properties", "spec"]);
    spec["description"] = description.clone();
    for_json(spec);
    spec.clone()
}

fn for_json(schema: &mut Value) {
    let fields = schema.as_mapping_mut().unwrap();
    if fields.contains_key("x-kubernetes-int-or-string") {
        fields.insert("type".into(), vec!["integer", "string"].into());
    }
    fields.retain(|name, _| name != "format" && !name.as_str().unwrap().starts_with("x-"));
    if fields.get("type") == Some(&"object".into()) && !fields.contains_key("additionalProperties") {
        fields.insert("additionalProperties".into(), false.into());
    }
    for (_, property) in fields.get_mut("properties").and_then(Value::as_mapping_mut).into_iter().flatten() {
        for_json(property);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(part) = fields.get_mut(part).filter(|part| part.is_mapping()) {
            for_json(part);
        }
    }
    for (name, _) in fields {
        assert!(JSON_SCHEMA.contains(&name.as_str().unwrap()), "is {name:?} the same in JSON Schema?");
    }
}

/// Keywords with the same meaning in both.
const JSON_SCHEMA: [&str; 16] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
];

#[test]
fn the_schema_has_every_value_and_describes_all_that_it_has() {
    let read = |file: &str| std::fs::read_to_string(root().join(CHART).join(file)).unwrap();
    let schema: Json = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Json = serde_yaml::from_str(&read("values.yaml")).unwrap();
    has_all(&schema, &values, "");
    is_described(&schema, "");
}

fn has_all(schema: &Json, values: &Json, path: &str) {
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else {
        return;
    };
    for (name, value) in values {
        let path = format!("{path}.{name}");
        has_all(properties.get(name).unwrap_or_else(|| panic!("the schema lacks {path}")), value, &path);
    }
    // Free-form values, and values with defaults in Kubernetes, are not listed in values.yaml.
    let missing = properties.keys().filter(|name| !values.is_empty() && !values.contains_key(*name));
    let missing: Vec<_> = missing.filter(|name| !OPTIONAL.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "values.yaml lacks {missing:?} of {path}");
}

/// `global`, and parts of `autoscaling.behavior` and `resources`.
const OPTIONAL: [&str; 4] = ["global", "scaleUp", "limits", "claims"];

fn is_described(schema: &Json, path: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(property["description"].is_string(), "{path} has no description");
        is_described(property, &path);
    }
    if schema["properties"].is_object() {
        assert_eq!(schema["additionalProperties"], false, "a typo below {path} would be taken");
    }
    is_described_or_none(&schema["items"], path);
    is_described_or_none(&schema["additionalProperties"], path);
}

fn is_described_or_none(schema: &Json, path: &str) {
    if schema.is_object() {
        is_described(schema, &format!("{path}[]"));
    }
}

/// Returns the path of each commented value, with the comment.
fn comments(text: &str) -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut comment = None;
    for line in text.lines() {
        let inner = line.trim_start();
        if let Some(sentence) = inner.strip_prefix("# -- ") {
            let typed = sentence.strip_prefix('(').and_then(|rest| rest.split_once(") "));
            comment = Some(typed.map_or(sentence, |(_, rest)| rest).to_owned());
        } else if let Some((name, _)) = inner.split_once(':').filter(|_| !inner.starts_with(['#', '-'])) {
            path.truncate((line.len() - inner.len()) / 2);
            path.push(name.to_owned());
            if let Some(comment) = comment.take() {
                found.push((path.clone(), comment));
            }
        }
    }
    found
}
