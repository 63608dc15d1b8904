//! CEL: the rules of every schema node, evaluated on every value of that node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::{Context, Program, Value as Cel};
use serde_json::{Map, Value};

use crate::api::common::Duration;
use crate::controller::render::units;
use crate::controller::violation::Violation;

use super::schema::element;

/// Compiles the rules of a schema.
pub(super) fn compile(schema: &Value, programs: &mut BTreeMap<String, Program>) -> Result<(), String> {
    for (rule, _) in of(schema) {
        let program = Program::compile(rule).map_err(|error| format!("{rule}: {error}"))?;
        programs.insert(rule.to_owned(), program);
    }
    let children = schema["properties"].as_object().into_iter().flat_map(Map::values);
    for child in children.chain(schema.get("items")) {
        compile(child, programs)?;
    }
    Ok(())
}

/// Evaluates them.
pub(super) fn check(
    programs: &BTreeMap<String, Program>,
    schema: &Value,
    value: &Value,
    path: &str,
    found: &mut Vec<Violation>,
) {
    for (rule, message) in of(schema) {
        let Some(program) = programs.get(rule) else { continue };
        if !holds(program, value) {
            let (problem, remedy) = message.split_once("; ").unwrap_or((message, ""));
            found.push(Violation::invalid(path, problem, remedy));
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                check(programs, &schema["properties"][name], child, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(programs, &schema["items"], item, &element(path, index, item), found);
            }
        }
        _ => {}
    }
}

fn of(schema: &Value) -> impl Iterator<Item = (&str, &str)> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Some((rule["rule"].as_str()?, rule["message"].as_str()?)))
}

/// A rule that cannot be evaluated does not hold, as in the API server.
fn holds(program: &Program, value: &Value) -> bool {
    let mut context = Context::default();
    context.add_variable_from_value("self", cel(value));
    // In milliseconds, which is all that comparing needs; the library's own would bring a calendar.
    let has_durations = context.add_function("duration", |text: Arc<String>| milliseconds(&text));
    has_durations.is_ok() && program.execute(&context) == Ok(Cel::Bool(true))
}

/// The schema has checked the form.
fn milliseconds(text: &str) -> i64 {
    let duration = units::duration(&Duration(text.to_owned())).unwrap_or_default();
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Kubernetes' integers are `int`, never `uint`.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(bool) => Cel::Bool(*bool),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Cel::Int(integer),
            None => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(fields) => {
            let fields: HashMap<String, Cel> = fields.iter().map(|(k, v)| (k.clone(), cel(v))).collect();
            fields.into()
        }
    }
}
