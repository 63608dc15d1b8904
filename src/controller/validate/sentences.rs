//! Converts schema errors to violations with a remedy.

mod advice;
mod fields;

#[cfg(test)]
pub(super) use advice::of_form as advice_of_form;

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::MAX_VIOLATIONS;
use super::schema::element;
use crate::controller::reason::Reason;
use crate::controller::violation::{Concern, Violation, one_line};
use crate::words::counted;

/// Returns the violations for one error of the schema.
pub(super) fn violations(error: &ValidationError<'_>, spec: &Value, schema: &Value) -> Vec<Violation> {
    let (path, node) = locate(error.instance_path().as_str(), spec, schema);
    let value = error.instance();
    let one = |reason, field: &str, problem: String, remedy: String| {
        vec![Violation::new(Concern::Accepted, reason, field, problem, remedy)]
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = unexpected.iter().take(MAX_VIOLATIONS);
            let violation = |name: &String| {
                let (field, remedy) = (format!("{path}.{name}"), fields::meant(name, node, schema));
                let (concern, reason) = (Concern::Accepted, Reason::UnknownField);
                Violation::new(concern, reason, &field, "there is no such field", remedy)
            };
            unknown.map(violation).collect()
        }
        ValidationErrorKind::Required { property } => {
            let field = format!("{path}.{}", property.as_str().unwrap_or_default());
            one(Reason::Required, &field, "this field is required".to_owned(), "add it".to_owned())
        }
        ValidationErrorKind::Enum { .. } => {
            let problem = format!("{value} is not supported");
            one(Reason::NotSupported, &path, problem, advice::of_options(value, node))
        }
        ValidationErrorKind::Type { .. } => {
            let problem = format!("this is {}, and must be {}", kind_of(value), wanted(node));
            one(Reason::WrongType, &path, problem, advice::of_type(value, node))
        }
        ValidationErrorKind::Pattern { pattern } => {
            let problem = match value.as_str() {
                Some("") => "this is empty".to_owned(),
                // The pattern of a header's value, which may be a key and must not be shown.
                _ if pattern.contains("\\x0b") => "this contains control characters".to_owned(),
                _ => format!("{} is not valid", advice::shown(value)),
            };
            one(Reason::WrongForm, &path, problem, advice::of_form(value, node))
        }
        _ => {
            let (problem, remedy) = out_of_range(error, node);
            one(Reason::OutOfRange, &path, problem, remedy)
        }
    }
}

/// Keeps one violation for each field. A wrong type takes precedence, for example over a range.
pub(super) fn once_each(all: impl Iterator<Item = Violation>) -> Vec<Violation> {
    let mut kept: Vec<Violation> = Vec::new();
    for violation in all.take(MAX_VIOLATIONS * 2) {
        match kept.iter_mut().find(|kept| kept.field == violation.field) {
            None => kept.push(violation),
            Some(kept) if violation.reason == Reason::WrongType => *kept = violation,
            Some(_) => {}
        }
    }
    kept
}

/// Returns problem and remedy without a text value, which may be long or a key.
fn out_of_range(error: &ValidationError<'_>, node: &Value) -> (String, String) {
    let value = error.instance();
    let length = value.as_str().map_or(0, |text| text.chars().count());
    let items = value.as_array().map_or(0, Vec::len);
    match error.kind() {
        ValidationErrorKind::Minimum { .. } | ValidationErrorKind::Maximum { .. } => {
            let range = advice::range(node);
            (format!("{value} is not {range}"), format!("write a number {range}"))
        }
        ValidationErrorKind::MinLength { .. } if length == 0 => {
            ("this is empty".to_owned(), "write a value, or remove the field".to_owned())
        }
        ValidationErrorKind::MaxLength { limit } => {
            let problem =
                format!("this has {}, and at most {limit} are allowed", counted(length, "character"));
            (problem, "shorten it".to_owned())
        }
        ValidationErrorKind::MinItems { .. } if items == 0 => {
            ("the list is empty".to_owned(), "add an element, or remove the field".to_owned())
        }
        ValidationErrorKind::MaxItems { limit } => {
            let problem =
                format!("the list has {}, and at most {limit} are allowed", counted(items, "element"));
            (problem, "remove some".to_owned())
        }
        ValidationErrorKind::MaxProperties { limit } => {
            let fields = value.as_object().map_or(0, serde_json::Map::len);
            let problem = format!("this has {}, and at most {limit} are allowed", counted(fields, "field"));
            (problem, "remove some".to_owned())
        }
        _ => (one_line(&error.masked().to_string()), String::new()),
    }
}

/// Returns the field's path for messages, and its schema.
fn locate<'s>(pointer: &str, spec: &Value, schema: &'s Value) -> (String, &'s Value) {
    let mut found = ("spec".to_owned(), spec, schema);
    for token in pointer.split('/').skip(1) {
        let (path, value, schema) = found;
        let name = token.replace("~1", "/").replace("~0", "~");
        found = match value {
            Value::Array(items) => {
                let index: usize = name.parse().unwrap_or_default();
                let item = items.get(index).unwrap_or(&Value::Null);
                (element(&path, index, item), item, &schema["items"])
            }
            _ if schema.get("additionalProperties").is_some() => {
                (format!("{path}.{name}"), &value[&name], &schema["additionalProperties"])
            }
            _ => (format!("{path}.{name}"), &value[&name], &schema["properties"][&name]),
        };
    }
    (found.0, found.2)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wanted(node: &Value) -> &'static str {
    match node["type"].as_str() {
        Some("string") => "a string",
        Some("integer") => "an integer",
        Some("boolean") => "a boolean",
        Some("array") => "a list",
        Some("object") => "an object",
        _ => "an integer or a string",
    }
}
