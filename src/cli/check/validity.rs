//! Compares `check` and rendering with the table in `tests/validity`. `tests/cluster` compares a real API server with
//! it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use super::*;
use crate::api::DEFAULT_CLASS;
use crate::api::crd::{crds, schema_of};
use crate::controller::folder::scan::{Scan, Seen};
use crate::controller::folder::store::Store;
use crate::controller::index::Index;
use crate::controller::render::{Environment, Locality, Renderer};
use crate::controller::validate::tests::validator;

#[path = "../../../tests/validity/table.rs"]
mod table;

use table::{Case, Verdict, cases};

/// The environment of `check` without flags.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| Environment {
    class: DEFAULT_CLASS.to_owned(),
    hostname: "host.example".to_owned(),
    now: 1_800_000_000,
    locality: Locality::default(),
    trusted_peers: Vec::new(),
    completeness: Completeness::Part,
    lacks_replicas: false,
});

/// Returns the violations of the offline validation, and the errors of `check`.
fn said(case: &Case) -> (Vec<String>, Vec<String>) {
    let kind = case.object["kind"].as_str().and_then(Kind::named).unwrap_or(Kind::Server);
    let mut spec = case.object["spec"].clone();
    let refused = validator().spec(kind, &mut spec).iter().map(ToString::to_string).collect();
    let texts = case.server.iter().chain([&case.object]).map(|object| serde_json::to_string(object).unwrap());
    let files =
        texts.enumerate().map(|(index, text)| (format!("{index}.json").into(), Seen::Read(Ok(text).into())));
    let mut store = Store::default();
    store.apply(Scan { files: files.collect(), ..Scan::default() }, validator());
    let loaded = store.load();
    let (mut index, mut renderer) = (Index::default(), Renderer::default());
    index.replace(&loaded.objects);
    renderer.render(&mut index, &ENVIRONMENT);
    let input = Input { loaded, renderer, streams: BTreeMap::new() };
    let found = findings(&input, &BTreeMap::new());
    let errors = found.iter().filter(|finding| finding.is_error).map(Finding::short).collect();
    (refused, errors)
}

#[test]
fn check_and_rendering_agree_with_the_table_of_what_is_valid() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (refused, errors) = said(&case);
        let has = |said: &[String]| said.iter().any(|sentence| sentence.contains(&case.says));
        let agrees = match case.verdict {
            Verdict::Taken => refused.is_empty() && errors.is_empty(),
            Verdict::Told => refused.is_empty() && has(&errors),
            Verdict::Refused => has(&refused) && has(&errors),
        };
        if !agrees {
            let Case { object, verdict, says, .. } = case;
            wrong.push(format!(
                "{object}\n    {verdict:?} {says:?}; the schema: {refused:?}; check: {errors:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A listener has the settings of the `MailServer`, and a `MailListener` is a listener.
#[test]
fn every_field_of_the_api_has_a_valid_case_in_the_table() {
    let [server, listener, route] = crds().map(|crd| schema_of(&crd)["properties"]["spec"].clone());
    let (mut missing, mut of_listener) = (BTreeSet::new(), BTreeSet::new());
    fields(&server, "", &mut missing);
    fields(&listener["properties"]["serverRef"], ".serverRef", &mut of_listener);
    missing.extend(of_listener);
    let mut of_route = BTreeSet::new();
    fields(&route, "", &mut of_route);
    missing.extend(of_route);
    let is_repeated = |path: &str| {
        let block = path.strip_prefix(".listeners.").and_then(|path| path.split('.').next());
        block.is_some_and(|block| !server["properties"][block].is_null())
    };
    missing.retain(|path| !is_repeated(path));
    assert!(missing.len() > 100, "{missing:?}");
    for case in cases().iter().filter(|case| case.verdict == Verdict::Taken) {
        cover(&case.object["spec"], "", &mut missing);
    }
    assert_eq!(missing, BTreeSet::new(), "fields without a valid case in tests/validity");
}

#[test]
fn every_limit_is_in_the_example() {
    let [server, ..] = crds().map(|crd| schema_of(&crd)["properties"]["spec"].clone());
    let mut missing = BTreeSet::new();
    fields(&server["properties"]["limits"], "", &mut missing);
    assert!(missing.contains(".maxErrors"), "{missing:?}");
    let example = include_str!("../../controller/validate/example.yaml");
    let example: Value = serde_yaml::from_str(example).unwrap();
    cover(&example["spec"]["limits"], "", &mut missing);
    assert_eq!(missing, BTreeSet::new(), "limits without a value in src/controller/validate/example.yaml");
}

fn fields(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields(child, &path, found);
        found.insert(path);
    }
    schema.get("items").into_iter().for_each(|items| fields(items, path, found));
}

fn cover(value: &Value, path: &str, missing: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                let path = format!("{path}.{name}");
                missing.remove(&path);
                cover(child, &path, missing);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| cover(item, path, missing)),
        _ => {}
    }
}
