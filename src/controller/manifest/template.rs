//! Templates, of Helm and others: they look like manifests and are none before they are rendered.

use serde_json::Value;

use super::ParseError;

/// What to say of a broken text: where it is a template, that and where, or else the error itself.
pub(super) fn told(text: &str, error: ParseError) -> ParseError {
    let actions = text.lines().enumerate().filter_map(|(index, line)| {
        let column = line.get(..line.find(OPEN).filter(|_| has_action(line))?)?.chars().count();
        Some((index.saturating_add(1), column.saturating_add(1)))
    });
    let broken = error.position.map_or(0, |(line, _)| line);
    // The parser stumbles over an action at its end, or later.
    let (before, after): (Vec<_>, Vec<_>) = actions.take(MOST_ACTIONS).partition(|(line, _)| *line <= broken);
    match before.last().or(after.first()) {
        Some(position) => ParseError { position: Some(*position), message: MESSAGE.to_owned() },
        None => error,
    }
}

/// Whether a text of the value is one.
pub(super) fn is_in(value: &Value) -> bool {
    match value {
        Value::String(text) => has_action(text),
        Value::Array(items) => items.iter().any(is_in),
        Value::Object(fields) => fields.values().any(is_in),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// `{{ ... }}`; no YAML begins two maps without a key between them.
fn has_action(line: &str) -> bool {
    line.split_once(OPEN).is_some_and(|(_, rest)| rest.contains(CLOSE))
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// Lines with an action that are looked at.
const MOST_ACTIONS: usize = 10_000;
const MESSAGE: &str = "this is a template with {{ }}, and no manifest; render it first, for example with helm template, \
                       and read what comes of it";
