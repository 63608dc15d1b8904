//! The table of valid and invalid manifests, `tests/validity/*.yaml`. Tests compare `check`, rendering and a real API
//! server with it. Add the cases of a new field here.
//!
//! An entry changes a valid MailServer, or a MailListener (`attached`) or MailRoute (`route`) of it. `VALUE` in it stands for each element of
//! `taken` (valid), `refused` (by the API server and by `check`) and `told` (only the status and `check` can detect
//! it). Without `VALUE`, one of these is `true`. `says` is a part of the message, and `api` a part of the API server's
//! message if it differs.

#![allow(dead_code, unreachable_pub, reason = "each of the tests has a use for some of it")]

use std::path::Path;

use serde_json::{Value, json};

/// What must happen to a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is valid.
    Taken,
    /// The API server accepts it, and its status reports the problem.
    Told,
    /// The API server refuses it.
    Refused,
}

/// A manifest with its expected result.
#[derive(Debug)]
pub struct Case {
    /// The object itself.
    pub object: Value,
    /// The MailServer of a MailListener or MailRoute.
    pub server: Option<Value>,
    /// The expected result.
    pub verdict: Verdict,
    /// A part of the message of `check`.
    pub says: String,
    /// A part of the message of an API server.
    pub api: String,
}

impl Case {
    /// Returns the object's name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }
}

/// Returns all cases. Their names are unique.
pub fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validity");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let entries: Vec<Value> = serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for (index, entry) in entries.iter().enumerate() {
            add(&format!("{name}-{index}"), entry, &mut cases);
        }
    }
    cases
}

fn add(name: &str, entry: &Value, cases: &mut Vec<Case>) {
    let fields = ["spec", "listener", "attached", "route", "taken", "told", "refused", "says", "api"];
    let unknown = entry.as_object().unwrap().keys().find(|field| !fields.contains(&field.as_str()));
    assert_eq!(unknown, None, "{name}: there is no such field in an entry");
    let says = entry["says"].as_str().unwrap_or_default().to_owned();
    let api = entry["api"].as_str().map_or_else(|| says.clone(), str::to_owned);
    let before = cases.len();
    for (verdict, field) in
        [(Verdict::Taken, "taken"), (Verdict::Told, "told"), (Verdict::Refused, "refused")]
    {
        let values = match &entry[field] {
            Value::Null => continue,
            Value::Array(values) => values.clone(),
            _ => vec![Value::Null],
        };
        assert!(verdict == Verdict::Taken || !says.is_empty(), "{name} has no `says`");
        for (index, value) in values.iter().enumerate() {
            let name = format!("{name}-{field}-{index}");
            let (object, server) = objects(&name, entry, value);
            cases.push(Case { object, server, verdict, says: says.clone(), api: api.clone() });
        }
    }
    assert!(cases.len() > before, "{name} has none of taken, told and refused");
}

fn objects(name: &str, entry: &Value, value: &Value) -> (Value, Option<Value>) {
    let fill = |part: &str| filled(&entry[part], value);
    let mut listener = json!({ "name": "l", "port": 143, "backendAddress": "b.test:143" });
    merge(&mut listener, &fill("listener"));
    let mut spec = json!({ "auth": { "passthrough": {} }, "listeners": [listener] });
    merge(&mut spec, &fill("spec"));
    let server = format!("{name}-server");
    if !entry["route"].is_null() {
        let mut route = json!({
            "serverRef": { "name": server },
            "match": { "domains": ["example.org"] },
            "backend": { "services": [{ "protocol": "IMAP", "address": "b.test:143" }] },
        });
        merge(&mut route, &fill("route"));
        return (object("MailRoute", name, &route), Some(object("MailServer", &server, &spec)));
    }
    if entry["attached"].is_null() {
        return (object("MailServer", name, &spec), None);
    }
    let mut attached = json!({ "serverRef": { "name": server }, "port": 1430, "protocol": "IMAP", "backendAddress": "b.test:143" });
    merge(&mut attached, &fill("attached"));
    (object("MailListener", name, &attached), Some(object("MailServer", &server, &spec)))
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "mailgress.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn filled(template: &Value, value: &Value) -> Value {
    match template {
        Value::String(text) if text == "VALUE" => value.clone(),
        Value::Array(items) => items.iter().map(|item| filled(item, value)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), filled(field, value))).collect()
        }
        other => other.clone(),
    }
}

/// Merges like a JSON merge patch, but keeps a null that is already there.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (_, Value::Null) => {}
        (Value::Object(fields), Value::Object(patch)) => {
            for (name, value) in patch {
                match fields.get_mut(name) {
                    Some(inner) if inner.is_object() && value.is_object() => merge(inner, value),
                    _ => drop(fields.insert(name.clone(), value.clone())),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
