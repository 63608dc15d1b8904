//! Features of Kubernetes schemas beyond JSON Schema: pruning, defaults, and list types.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::controller::violation::Violation;

/// Converts to a JSON Schema that refuses unknown fields.
pub(super) fn strict(schema: &Value) -> Value {
    let Some(fields) = schema.as_object() else { return schema.clone() };
    let mut strict = Map::new();
    for (keyword, value) in fields {
        let value = match keyword.as_str() {
            "properties" => value.as_object().map(|children| {
                children.iter().map(|(name, child)| (name.clone(), self::strict(child))).collect()
            }),
            "items" | "additionalProperties" => Some(self::strict(value)),
            "default" | "description" | "format" => None,
            other if other.starts_with("x-kubernetes-") => None,
            _ => Some(value.clone()),
        };
        strict.extend(value.map(|value| (keyword.clone(), value)));
    }
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        strict.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if schema["type"] == json!("object") && schema.get("additionalProperties").is_none() {
        strict.insert("additionalProperties".to_owned(), json!(false));
    }
    Value::Object(strict)
}

/// Removes nulls, which mean absent: our fields are not nullable.
pub(super) fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Converts numbers without a fraction to integers, such as `143.0` or `1e3`.
pub(super) fn make_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            if let Some(integer) = whole.and_then(integer) {
                *number = integer.into();
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(make_integers),
        Value::Array(items) => items.iter_mut().for_each(make_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Converts a float in the range in which it represents integers exactly.
fn integer(float: f64) -> Option<i64> {
    let most = 9_007_199_254_740_992.0;
    (float.abs() <= most).then(|| format!("{float:.0}").parse().ok()).flatten()
}

/// Adds the defaults of absent fields to existing objects.
pub(super) fn apply_defaults(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, child) in schema["properties"].as_object().into_iter().flatten() {
                if let (None, Some(default)) = (fields.get(name), child.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    apply_defaults(child, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| apply_defaults(&schema["items"], item)),
        _ => {}
    }
}

/// Returns duplicates in `listType: map` and `listType: set`.
pub(super) fn duplicates(schema: &Value, value: &Value, path: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                found.extend(duplicates(&schema["properties"][name], child, &format!("{path}.{name}")));
            }
        }
        Value::Array(items) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let path = element(path, index, item);
                if identity(schema, item).is_some_and(|identity| !seen.insert(identity)) {
                    found.push(Violation::invalid(&path, "duplicate entry", "remove or rename one of them"));
                }
                found.extend(duplicates(&schema["items"], item, &path));
            }
        }
        _ => {}
    }
    found
}

/// Returns what must be unique in a list.
fn identity(schema: &Value, item: &Value) -> Option<String> {
    match schema["x-kubernetes-list-type"].as_str()? {
        "set" => Some(item.to_string()),
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Value::as_str);
            Some(keys.map(|key| item[key].to_string()).collect::<Vec<_>>().join("/"))
        }
        _ => None,
    }
}

/// Returns the path of a list's element: by its name if it has one, otherwise by its index.
pub(super) fn element(path: &str, index: usize, item: &Value) -> String {
    match item["name"].as_str() {
        Some(name) => format!("{path}[{name}]"),
        None => format!("{path}[{index}]"),
    }
}
