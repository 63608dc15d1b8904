//! Returns advice for an invalid value, which must fit the value and the schema.

use serde_json::{Value, json};

use crate::controller::validate::schema::strict;
use crate::secret::shown_url;

/// Returns advice for a value of the wrong type.
pub(super) fn of_type(value: &Value, node: &Value) -> String {
    if node.get("enum").is_some() {
        return of_options(value, node);
    }
    let text = value.as_str().unwrap_or_default();
    match (node["type"].as_str(), value) {
        (Some("array"), Value::Object(_)) => "write a list: begin each element with a hyphen".to_owned(),
        (Some("array"), _) => "write a list: [ ... ]".to_owned(),
        (Some("object"), _) => fields(value, node),
        (_, Value::Array(_)) => "write one value instead of a list".to_owned(),
        (_, Value::Object(_)) => "write one value instead of fields".to_owned(),
        (_, Value::Null) => "write a value, or remove it".to_owned(),
        (Some("boolean"), _) if ["true", "false"].contains(&text) => "remove the quotes".to_owned(),
        (Some("boolean"), _) => "write true or false".to_owned(),
        (Some("integer"), _) if text.parse::<i64>().is_ok() => "remove the quotes".to_owned(),
        (Some("integer"), _) => format!("write a whole number {}", range(node)).trim_end().to_owned(),
        (Some("string"), _) if fits(&json!(value.to_string()), node) => {
            format!("put it in quotes: \"{value}\"")
        }
        _ => of_form(&json!(value.to_string()), node),
    }
}

/// Returns advice for a value that is not one of the allowed values.
pub(super) fn of_options(value: &Value, node: &Value) -> String {
    let options = node["enum"].as_array().map_or(&[][..], Vec::as_slice);
    let plain = |text: &str| text.replace(['-', '_', ' ', '.'], "").to_ascii_lowercase();
    let written = plain(value.as_str().unwrap_or(&value.to_string()));
    let same = |option: &&Value| {
        let option = plain(option.as_str().unwrap_or_default());
        // Accept nginx's values, which YAML reads as booleans, and versions without a prefix.
        let is_off = option == "disabled" && ["false", "off", "none", "no"].contains(&written.as_str());
        is_off || written == option || option.strip_prefix("tlsv") == Some(&written)
    };
    match options.iter().find(same) {
        Some(option) => format!("write {option}"),
        None => {
            let all: Vec<String> = options.iter().map(Value::to_string).collect();
            format!("choose one of {}", all.join(", "))
        }
    }
}

/// Returns advice for a text that does not match its pattern.
pub(in crate::controller::validate) fn of_form(value: &Value, node: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let pattern = node["pattern"].as_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if pattern.contains("(h|m|s|ms)") {
        return duration(text);
    }
    if node.get("maximum").is_some() && is_number {
        return format!("for a port number remove the quotes, and write a number {}", range(node));
    }
    let found = FORMS.iter().find(|(part, _)| pattern.contains(part));
    found.map_or_else(|| format!("it must match {pattern}"), |(_, remedy)| (*remedy).to_owned())
}

/// Formats bounds, such as `from 1 to 65535`.
pub(super) fn range(node: &Value) -> String {
    match (node["minimum"].as_i64(), node["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("of at least {least}"),
        (None, Some(most)) => format!("of at most {most}"),
        (None, None) => String::new(),
    }
}

/// Formats a value for a message. A login and a query are removed from a possible URL.
pub(super) fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.contains("://") || text.contains('@') => format!("{:?}", shown_url(text)),
        _ => value.to_string(),
    }
}

/// Returns advice for a value that must be an object.
fn fields(value: &Value, node: &Value) -> String {
    let names: Vec<&str> =
        node["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if value.is_array() {
        return "write its fields instead of a list".to_owned();
    }
    let required = node["required"].as_array().map_or(0, Vec::len);
    match (names.as_slice(), value.as_str()) {
        ([], _) if node.get("additionalProperties").is_some() => {
            "write names with values: { name: value }".to_owned()
        }
        ([], _) => "write {}".to_owned(),
        (names, Some(text))
            if required == 1 && names.contains(&"name") && fits(&json!({ "name": text }), node) =>
        {
            format!("write {{ name: {text} }}")
        }
        (names, _) => format!("write its fields below it; it has {}", names.join(", ")),
    }
}

/// Returns advice for a value that must be a duration.
fn duration(text: &str) -> String {
    let example = |example: &str| format!("write a duration such as {example}");
    let Some(end) = text.find(|c: char| !c.is_ascii_digit()) else {
        let seconds = text.parse::<u32>().ok().filter(|seconds| *seconds < 100_000);
        return match seconds {
            Some(seconds) => format!("write it with a unit (h, m, s or ms): {seconds}s"),
            None => example("30s or 1h30m"),
        };
    };
    let (number, unit) = text.split_at(end);
    match (number.parse::<u32>(), unit.trim()) {
        (Ok(days), "d" | "day" | "days") if days <= 4_166 => format!("write days in hours: {}h", days * 24),
        _ if unit.starts_with('.') => example("1h30m, without fractions"),
        (_, "h" | "m" | "s" | "ms") => example("24h, with numbers of at most five digits"),
        _ => example("30s or 1h30m"),
    }
}

fn fits(value: &Value, node: &Value) -> bool {
    jsonschema::is_valid(&strict(node), value)
}

/// The advice for each pattern, which is recognised by a part that only it has.
const FORMS: [(&str, &str); 9] = [
    ("Ki|Mi", "write a size such as 64Ki or 4096"),
    ("\\x0b", "write it without control characters"),
    ("#$%&'", "write the name of a header: letters, digits and hyphens, without a colon"),
    ("(\\*\\.)?", "write a host name such as imap.example.com, or *.example.com"),
    ("[A-Za-z0-9._-]", "write a host name such as mail.example.com"),
    (
        "[a-z0-9./-]",
        "use lower-case letters, digits, hyphens, dots and slashes, with a letter or digit at both ends",
    ),
    (
        "[0-9][0-9-]*",
        "write the number or the name of one of the Service's ports; names have lower-case letters, digits and \
                      hyphens, with a letter or digit at both ends",
    ),
    ("[a-z0-9-]*", "use lower-case letters, digits and hyphens, with a letter or digit at both ends"),
    ("[!-~]+( ", "write printable ASCII, with single spaces between the words"),
];
