//! Evaluates the CEL rules of every schema node on all its values.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use cel::{Context, Program, Value as Cel};
use serde_json::{Map, Value};

use crate::controller::render::units;
use crate::controller::violation::Violation;

use super::schema::element;

/// The rules of a schema. Each is compiled when it is first evaluated, because most manifests need few of them.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeMap<String, OnceLock<Option<Program>>>);

impl Rules {
    pub(super) fn new(schema: &Value) -> Self {
        let mut rules = Self::default();
        rules.add(schema);
        rules
    }

    fn add(&mut self, schema: &Value) {
        self.0.extend(of(schema).map(|(rule, _)| (rule.to_owned(), OnceLock::new())));
        let children = schema["properties"].as_object().into_iter().flat_map(Map::values);
        children.chain(schema.get("items")).for_each(|child| self.add(child));
    }

    /// Returns a compiled rule; `None` if it cannot be compiled.
    fn program(&self, rule: &str) -> Option<&Program> {
        self.0.get(rule)?.get_or_init(|| Program::compile(rule).ok()).as_ref()
    }

    /// Returns the rules that cannot be compiled.
    #[cfg(test)]
    pub(super) fn broken(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|rule| self.program(rule).is_none()).collect()
    }

    /// Evaluates the rules on a value of the schema. Returns the violated ones.
    pub(super) fn check(&self, schema: &Value, value: &Value, path: &str) -> Vec<Violation> {
        let mut functions = Context::default();
        // Milliseconds are enough for comparisons. The library's own durations need a calendar library.
        match functions.add_function("duration", |text: Arc<String>| milliseconds(&text)) {
            Ok(_) => self.check_node(&functions, schema, value, path),
            Err(_) => Vec::new(),
        }
    }

    fn check_node(
        &self,
        functions: &Context<'_, '_>,
        schema: &Value,
        value: &Value,
        path: &str,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut rules = of(schema).peekable();
        let mut context = functions.new_inner_scope();
        if rules.peek().is_some() {
            context.add_variable_from_value("self", cel(value));
        }
        for (rule, message) in rules {
            // A rule that cannot be evaluated is violated, as in the API server.
            if !self.program(rule).is_some_and(|program| program.execute(&context) == Ok(Cel::Bool(true))) {
                let (problem, remedy) = message.split_once("; ").unwrap_or((message, ""));
                found.push(Violation::invalid(path, problem, remedy));
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, child) in fields {
                    let path = format!("{path}.{name}");
                    found.extend(self.check_node(functions, &schema["properties"][name], child, &path));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = element(path, index, item);
                    found.extend(self.check_node(functions, &schema["items"], item, &path));
                }
            }
            _ => {}
        }
        found
    }
}

fn of(schema: &Value) -> impl Iterator<Item = (&str, &str)> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| Some((rule["rule"].as_str()?, rule["message"].as_str()?)))
}

/// Parses a duration whose form the schema has already checked.
fn milliseconds(text: &str) -> i64 {
    let duration = units::duration(text).unwrap_or_default();
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Integers are `int` in Kubernetes, never `uint`.
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
