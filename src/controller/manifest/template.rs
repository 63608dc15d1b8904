//! Recognises templates, such as those of Helm. They look like manifests but must be rendered first.

use serde_json::Value;

use super::{ParseError, Position};

/// Returns the error for a broken text: if it is a template, an error with the position of an action; otherwise the
/// error itself.
pub(super) fn or_template_error(text: &str, error: ParseError) -> ParseError {
    let actions = text.lines().enumerate().filter_map(|(index, line)| {
        let column = line.get(..line.find(OPEN).filter(|_| has_action(line))?)?.chars().count();
        Some(Position { line: index.saturating_add(1), column: column.saturating_add(1) })
    });
    let broken = error.position.map_or(0, |position| position.line);
    // The parser may report an action at its end or later.
    let (before, after): (Vec<_>, Vec<_>) =
        actions.take(MOST_ACTIONS).partition(|action| action.line <= broken);
    match before.last().or(after.first()) {
        Some(position) => ParseError { position: Some(*position), message: MESSAGE.to_owned() },
        None => error,
    }
}

/// Tells whether a text in the value has a template action.
pub(super) fn is_in(value: &Value) -> bool {
    match value {
        Value::String(text) => has_action(text),
        Value::Array(items) => items.iter().any(is_in),
        Value::Object(fields) => fields.values().any(is_in),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Tells whether a line has `{{ ... }}`. Valid YAML does not start two maps without a key between them.
fn has_action(line: &str) -> bool {
    line.split_once(OPEN).is_some_and(|(_, rest)| rest.contains(CLOSE))
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";
/// The maximum number of lines with actions.
const MOST_ACTIONS: usize = 10_000;
const MESSAGE: &str = "this is a template with {{ }}, and no manifest; render it first, for example with helm template, \
                       and read what comes of it";
