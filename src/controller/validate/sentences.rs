//! Schema errors as sentences with a remedy.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::secret::shown_url;

use super::super::reason::Reason;
use super::super::violation::{Concern, Violation, one_line};
use super::MAX_VIOLATIONS;
use super::schema::element;

/// What one error of the schema says about a spec.
pub(super) fn violations(error: &ValidationError<'_>, spec: &Value, schema: &Value) -> Vec<Violation> {
    let (path, node) = locate(error.instance_path().as_str(), spec, schema);
    let value = error.instance();
    let one = |reason, field: &str, problem: String, remedy: String| {
        vec![Violation::new(Concern::Accepted, reason, field, problem, remedy)]
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .take(MAX_VIOLATIONS)
            .map(|name| {
                let field = format!("{path}.{name}");
                let problem = "there is no such field";
                Violation::new(
                    Concern::Accepted,
                    Reason::UnknownField,
                    &field,
                    problem,
                    did_you_mean(name, node),
                )
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            let field = format!("{path}.{}", property.as_str().unwrap_or_default());
            one(Reason::Required, &field, "this field is required".to_owned(), "add it".to_owned())
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> =
                options.as_array().into_iter().flatten().map(Value::to_string).collect();
            let problem = format!("{value} is not supported");
            one(Reason::NotSupported, &path, problem, format!("choose one of {}", options.join(", ")))
        }
        ValidationErrorKind::Type { .. } => {
            let wanted = node["type"].as_str().unwrap_or("number or string");
            let article = if wanted.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
            let problem = format!("this is {}, and must be {article} {wanted}", kind_of(value));
            one(Reason::WrongType, &path, problem, type_remedy(value, wanted).to_owned())
        }
        ValidationErrorKind::Pattern { pattern } => one(
            Reason::WrongForm,
            &path,
            format!("{} does not have the right form", shown(value)),
            form(pattern, node),
        ),
        // Without the value: it may be long, or a key.
        _ => {
            let problem = one_line(&error.masked().to_string());
            one(Reason::OutOfRange, &path, problem, "stay within the bound".to_owned())
        }
    }
}

/// A value as it may be shown: what may be a URL, without a login and a query.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.contains("://") || text.contains('@') => format!("{:?}", shown_url(text)),
        _ => value.to_string(),
    }
}

/// The field's path as people write it, and its schema.
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

fn type_remedy(value: &Value, wanted: &str) -> &'static str {
    match (value, wanted) {
        // YAML 1.1 reads a bare on, off, yes or no as a boolean.
        (Value::Bool(_) | Value::Number(_), "string") => "put it in quotes",
        (Value::String(_), "integer" | "boolean") => "remove the quotes",
        (_, "array") => "write a list: [ ... ]",
        _ => "see its documentation",
    }
}

fn form(pattern: &str, node: &Value) -> String {
    if pattern.contains("(h|m|s|ms)") {
        return "write a duration such as 30s or 1h30m".to_owned();
    }
    if pattern.contains("Ki|Mi") {
        return "write a size such as 64Ki or 4096".to_owned();
    }
    match node["description"].as_str() {
        Some(description) => format!("it means: {description}"),
        None => format!("it must match {pattern}"),
    }
}

/// The known field that is nearest to an unknown one.
fn did_you_mean(name: &str, node: &Value) -> String {
    let fields = node["properties"].as_object().into_iter().flatten().map(|(field, _)| field);
    let near = fields.map(|field| (distance(name, field), field)).min();
    match near {
        Some((distance, field)) if distance <= 1 + name.len() / 3 => format!("did you mean {field}?"),
        _ => "remove it, or correct its name".to_owned(),
    }
}

/// Levenshtein's, without case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_ascii_lowercase().chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
