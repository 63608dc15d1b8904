//! Generates `docs/reference/fields.md`: the fields of all kinds, from the schemas of their CRDs.

use std::fmt::Write;

use mailgress::api;
use serde_json::{Map, Value};

use super::cell;

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut known = Vec::new();
    for crd in &api::crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        write!(page, "\n## {kind}\n\n{}\n", text(&schema["description"])).unwrap();
        for part in ["spec", "status"] {
            section(kind, part, &schema["properties"][part], &mut known, &mut page);
        }
    }
    page
}

/// Writes the fields of one object, then those of the objects in it. `known` has the objects described before, with
/// their places.
fn section(kind: &str, path: &str, schema: &Value, known: &mut Vec<(Value, String)>, page: &mut String) {
    write!(page, "\n### `{kind} {path}`\n\n{}\n", cell(&text(&schema["description"]))).unwrap();
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        write!(page, "\n- Rule: {}", cell(&text(&rule["message"]))).unwrap();
    }
    if schema["x-kubernetes-validations"].is_array() {
        page.push('\n');
    }
    page.push_str("\n| field | type | default | what it means |\n| --- | --- | --- | --- |\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut inner = Vec::new();
    for (name, field) in properties(schema) {
        let below = format!("{path}.{name}{}", if field["type"] == "array" { "[]" } else { "" });
        let object = if field["type"] == "array" { &field["items"] } else { field };
        let mut kind_of = type_of(field);
        if properties(object).next().is_some() {
            let described =
                known.iter().find(|(other, _)| other == object).map(|(_, heading)| heading.clone());
            let target = described.clone().unwrap_or_else(|| format!("{kind} {below}"));
            kind_of = format!("[{kind_of}](#{})", anchor(&target));
            if described.is_none() {
                known.push((object.clone(), target));
                inner.push((below, object));
            }
        }
        let mark = if required.contains(&name.as_str()) { ", required" } else { "" };
        let (default, description) = default_of(field);
        let bounds = bounds(field);
        writeln!(page, "| `{name}` | {kind_of}{mark} | {default} | {description}{bounds} |").unwrap();
    }
    for (below, object) in inner {
        section(kind, &below, object, known, page);
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flat_map(Map::iter)
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        _ if c.is_ascii_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn type_of(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        let is_port = field.get("maximum").is_some();
        return if is_port { "integer or string" } else { "size" }.to_owned();
    }
    let pattern = field["pattern"].as_str().unwrap_or_default();
    match field["type"].as_str() {
        Some("string") if pattern.contains("(h|m|s|ms)") => "duration".to_owned(),
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some(other) => other.to_owned(),
        None => "any".to_owned(),
    }
}

/// Returns the default from the schema, or from the description if it is short.
fn default_of(field: &Value) -> (String, String) {
    let description = cell(&text(&field["description"]));
    if let Some(default) = field.get("default") {
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        return (format!("`{default}`"), description);
    }
    let Some((before, after)) = description.split_once("Default: ") else {
        return (String::new(), description);
    };
    let (default, rest) = after.split_once(". ").unwrap_or((after.trim_end_matches('.'), ""));
    if default.len() > LONGEST_DEFAULT || default.contains([':', ';']) {
        return (String::new(), description);
    }
    (default.to_owned(), format!("{before}{rest}").trim_end().to_owned())
}

fn bounds(field: &Value) -> String {
    let mut said = Vec::new();
    for (object, what) in [(field, ""), (&field["items"], "each ")] {
        let number = |name: &str| object[name].as_i64();
        let range = |from: Option<i64>, to: Option<i64>, unit: &str| match (from, to) {
            (Some(from), Some(to)) => Some(format!("{what}{from} to {to}{unit}")),
            (None, Some(to)) => Some(format!("{what}at most {to}{unit}")),
            (Some(from), None) => Some(format!("{what}at least {from}{unit}")),
            (None, None) => None,
        };
        let values: Vec<String> = object["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|value| format!("`{}`", text(value)))
            .collect();
        if !values.is_empty() {
            said.push(format!("{what}one of {}", values.join(", ")));
        } else if object["type"] == "string" && !type_of(object).contains("duration") {
            said.extend(range(number("minLength"), number("maxLength"), " characters"));
        }
        said.extend(range(number("minimum"), number("maximum"), ""));
        said.extend(range(number("minItems"), number("maxItems"), " items"));
        said.extend(range(None, number("maxProperties"), " entries"));
    }
    if said.is_empty() { String::new() } else { format!(" *({})*", said.join("; ")) }
}

/// A longer default stays in the description.
const LONGEST_DEFAULT: usize = 48;

const HEAD: &str = "# Fields

<!-- Generated by `make generate`; do not edit. -->

All kinds have `apiVersion: mailgress.dev/v1alpha1`. `kubectl explain mailserver.spec` prints the same texts.

Settings (`serverName`, `tls`, `auth`, `upstream`, `imap`, `pop3`, `smtp`, `sieve`, `resolver`, `timeouts`, `limits`) can be set on a
`MailServer`, for all its listeners, and on a listener: each field of the listener takes precedence. Fields that neither sets
have the default of this page. A *duration* is written `30s`, `1h30m` or `500ms`; a *size* `64Ki` or `4096`. Secrets,
ConfigMaps and Services are in the object's own namespace.
";
