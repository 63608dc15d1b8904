//! The CustomResourceDefinitions of all kinds, in the form that an API server accepts.

use kube::CustomResourceExt;
use kube::core::schema::StructuralSchemaRewriter;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value, json};

use super::status::{MailListenerStatus, MailRouteStatus, MailServerStatus};
use super::{MailListener, MailListenerSpec, MailRoute, MailRouteSpec, MailServer, MailServerSpec};

/// The CustomResourceDefinitions of `MailServer`, `MailListener` and `MailRoute`.
#[must_use]
pub fn crds() -> [Value; 3] {
    [
        with_schema::<MailServerSpec, MailServerStatus>(serde_json::to_value(MailServer::crd())),
        with_schema::<MailListenerSpec, MailListenerStatus>(serde_json::to_value(MailListener::crd())),
        with_schema::<MailRouteSpec, MailRouteStatus>(serde_json::to_value(MailRoute::crd())),
    ]
}

/// Returns the OpenAPI schema of a `spec`, as in the CustomResourceDefinition.
pub(crate) fn schema_of_spec<Spec: JsonSchema>() -> Value {
    let mut schema = schema::<Spec>();
    tidy(&mut schema);
    schema
}

/// Returns the OpenAPI schema in a CustomResourceDefinition of [`crds`].
#[must_use]
pub fn schema_of(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

/// Replaces the derived schemas of spec and status with our own. The derived ones lose the documentation of an optional
/// field if its type has documentation too.
fn with_schema<Spec: JsonSchema, Status: JsonSchema>(crd: serde_json::Result<Value>) -> Value {
    let mut crd = crd.unwrap_or_default();
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    root["properties"] = json!({ "spec": schema::<Spec>(), "status": schema::<Status>() });
    tidy(root);
    crd
}

fn schema<T: JsonSchema>() -> Value {
    SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(unwrap_optional)
        .with_transform(StructuralSchemaRewriter)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

/// Replaces `T or null`, the schema of an `Option<T>`, with the schema of `T` and the field's own documentation. A
/// field is absent, but never null: the API server prunes nulls, and the rules rely on `has()`.
fn unwrap_optional(schema: &mut schemars::Schema) {
    transform_subschemas(&mut unwrap_optional, schema);
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("nullable");
    let Some([Value::Object(inner), Value::Object(null)]) =
        fields.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
    else {
        return;
    };
    if null.get("enum") != Some(&json!([null])) {
        return;
    }
    let inner = inner.clone();
    fields.remove("anyOf");
    for (keyword, value) in inner {
        fields.entry(keyword).or_insert(value);
    }
}

/// Changes formats to those that Kubernetes knows. Removes titles, and line breaks within paragraphs, because `kubectl
/// explain` breaks lines itself.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            tidy_fields(fields);
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_fields(fields: &mut Map<String, Value>) {
    if fields.get("title").is_some_and(Value::is_string) {
        fields.remove("title");
    }
    if let Some(Value::String(description)) = fields.get_mut("description") {
        let paragraphs = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *description = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    let known = match fields.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16" | "uint32") => Some("int32"),
        Some("uint" | "uint64") => Some("int64"),
        _ => None,
    };
    if let Some(known) = known {
        fields.insert("format".to_owned(), Value::from(known));
    }
}

#[cfg(test)]
mod tests {
    use cel::common::ast::operators::CONDITIONAL;
    use cel::common::ast::{Expr, LiteralValue};
    use cel::{IdedExpr, Program};

    use super::*;

    /// Calls `visit` for every schema node with its path.
    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            walk(child, &format!("{path}.{name}"), visit);
        }
        if let Some(items) = schema.get("items") {
            walk(items, &format!("{path}[]"), visit);
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            walk(values, &format!("{path}{{}}"), visit);
        }
    }

    #[test]
    fn schemas_are_structural() {
        const ALLOWED: [&str; 21] = [
            "type",
            "description",
            "properties",
            "required",
            "items",
            "additionalProperties",
            "enum",
            "default",
            "format",
            "pattern",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minimum",
            "maximum",
            "maxProperties",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-validations",
        ];
        for crd in crds() {
            walk(schema_of(&crd), "", &mut |path, node| {
                for keyword in node.as_object().unwrap().keys() {
                    assert!(ALLOWED.contains(&keyword.as_str()), "{path}: {keyword}");
                }
                let int_or_string = node.get("x-kubernetes-int-or-string").is_some();
                assert!(node["type"].is_string() != int_or_string, "{path}: one type: {node}");
                assert!(
                    !(node.get("properties").is_some() && node.get("additionalProperties").is_some()),
                    "{path}: properties with additionalProperties"
                );
            });
        }
    }

    #[test]
    fn every_string_and_list_is_bounded() {
        for crd in crds() {
            walk(&schema_of(&crd)["properties"]["spec"], "spec", &mut bounded);
            walk(&schema_of(&crd)["properties"]["status"], "status", &mut bounded);
        }
    }

    fn bounded(path: &str, node: &Value) {
        let bound = match node["type"].as_str() {
            Some("string") if node.get("enum").is_none() => "maxLength",
            None => "maxLength",
            Some("array") => "maxItems",
            Some("object") if node.get("additionalProperties").is_some() => "maxProperties",
            Some("integer") if !path.ends_with("observedGeneration") => "maximum",
            _ => return,
        };
        assert!(node.get(bound).is_some(), "{path} needs {bound}: {node}");
    }

    #[test]
    fn map_lists_have_required_or_defaulted_keys() {
        for crd in crds() {
            walk(schema_of(&crd), "", &mut |path, node| {
                for key in node["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                    let items = &node["items"];
                    let required = items["required"].as_array().is_some_and(|r| r.contains(key));
                    let default = items["properties"][key.as_str().unwrap()].get("default").is_some();
                    assert!(required || default, "{path}: map key {key}");
                }
            });
        }
    }

    #[test]
    fn every_field_is_documented() {
        for crd in crds() {
            walk(&schema_of(&crd)["properties"]["spec"], "spec", &mut |path, node| {
                if !path.ends_with("[]") && !path.ends_with("{}") {
                    assert!(node["description"].is_string(), "{path} has no description");
                }
            });
        }
    }

    #[test]
    fn settings_have_no_defaults_that_would_hide_the_servers() {
        let [server, ..] = crds();
        let spec = &schema_of(&server)["properties"]["spec"]["properties"];
        for block in
            ["tls", "auth", "upstream", "imap", "pop3", "smtp", "sieve", "resolver", "timeouts", "limits"]
        {
            walk(&spec[block], block, &mut |path, node| {
                let inside_a_reference = path.contains("[]") || path.contains("Ref");
                assert!(inside_a_reference || node.get("default").is_none(), "{path}: {node}");
            });
        }
    }

    /// Checks an upper bound of the API server's cost estimate, for every place where a rule is evaluated. If a rule
    /// reads a list, each character of the rule costs as much as the longest list; otherwise as much as a comparison. A
    /// regular expression costs a quarter of its length for each ten bytes of the string, with four bytes for each
    /// character.
    #[test]
    fn rules_fit_the_cost_budget() {
        const PER_RULE: u64 = 10_000_000;
        const PER_CRD: u64 = 100_000_000;
        for crd in crds() {
            let mut total = 0;
            costs(&schema_of(&crd)["properties"]["spec"], 1, &mut |rule, times, schema| {
                let program = Program::compile(rule).unwrap();
                let matched = expressions(&program.expression().expr, &u64::max);
                let text = if schema.get("items").is_some() { &schema["items"] } else { schema };
                let tens = 1 + text["maxLength"].as_u64().unwrap_or_default() * 4 / 10;
                let matching = matched / 4 * tens * schema["maxItems"].as_u64().unwrap_or(1);
                let is_about_lists =
                    ["all(", "exists", "filter(", "map(", " in "].iter().any(|word| rule.contains(word));
                let each = if is_about_lists { 128 } else { 16 };
                let rest = rule.len() as u64 - expressions(&program.expression().expr, &u64::wrapping_add);
                let cost = (rest * each + matching) * times;
                assert!(cost < PER_RULE, "{cost}: {rule}");
                total += cost;
            });
            assert!(total < PER_CRD, "{total}");
        }
    }

    /// Returns the total length of the regular expressions in a rule. Only one branch of `?:` is evaluated, so `either`
    /// combines the lengths of both branches.
    fn expressions(rule: &Expr, either: &impl Fn(u64, u64) -> u64) -> u64 {
        let of = |part: &IdedExpr| expressions(&part.expr, either);
        match rule {
            Expr::Literal(LiteralValue::String(text)) if text.inner().starts_with('^') => {
                text.inner().len() as u64
            }
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (CONDITIONAL, [condition, yes, no]) => of(condition) + either(of(yes), of(no)),
                (_, arguments) => {
                    call.target.iter().map(|target| of(target)).chain(arguments.iter().map(of)).sum()
                }
            },
            Expr::Comprehension(list) => {
                [&list.iter_range, &list.loop_cond, &list.loop_step].into_iter().map(of).sum()
            }
            Expr::Select(select) => of(&select.operand),
            _ => 0,
        }
    }

    fn costs(schema: &Value, times: u64, visit: &mut impl FnMut(&str, u64, &Value)) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            visit(rule["rule"].as_str().unwrap(), times, schema);
        }
        for child in schema["properties"].as_object().into_iter().flat_map(Map::values) {
            costs(child, times, visit);
        }
        if let Some(items) = schema.get("items") {
            costs(items, times * schema["maxItems"].as_u64().unwrap(), visit);
        }
    }
}
