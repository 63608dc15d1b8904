//! YAML manifests, and the rendering of their objects.

use std::sync::{Arc, LazyLock};

use mailgress::api::DEFAULT_CLASS;
use mailgress::controller::index::{Index, Key};
use mailgress::controller::manifest::{Content, ParseError, Parsed, Position, parse};
use mailgress::controller::render::{Completeness, Environment, Locality, Renderer};
use mailgress::controller::validate::Validator;

/// Invariants:
/// * an error is about a place in the text;
/// * each object can be rendered, whatever it says;
/// * the rendered model is the same each time, and does not contain what is in a Secret.
pub(super) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = match parsed(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            let Position { line, column } = error.position.unwrap_or(Position { line: 1, column: 1 });
            assert!((1..=lines + 1).contains(&line) && column > 0, "{error} in line {line} of {lines}");
            return;
        }
    };
    let model = render(&parsed);
    assert_eq!(model, render(&parsed), "the same objects have two models");
    for manifest in &parsed.manifests {
        if let Content::Secret(secret) = &manifest.content {
            for value in secret.data.values().filter_map(|value| std::str::from_utf8(value.expose()).ok()) {
                let is_elsewhere = text.matches(value).count() > 1;
                assert!(value.len() < 12 || is_elsewhere || !model.contains(value), "a secret in the model");
            }
        }
    }
}

/// Parses the objects of a text.
pub(super) fn parsed(text: &str) -> Result<Parsed, ParseError> {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| Validator::new().expect("valid schemas"));
    parse(text, &VALIDATOR)
}

/// Returns the model in JSON.
fn render(parsed: &Parsed) -> String {
    let mut index = Index::default();
    for manifest in &parsed.manifests {
        add(&mut index, &manifest.key, &manifest.content);
    }
    let environment = Environment {
        class: DEFAULT_CLASS.to_owned(),
        hostname: "mail.test".to_owned(),
        now: 1_800_000_000,
        locality: Locality::default(),
        trusted_peers: Vec::new(),
        completeness: Completeness::Part,
        lacks_replicas: false,
    };
    let mut renderer = Renderer::default();
    renderer.render(&mut index, &environment);
    for (_, outcome) in renderer.outcomes() {
        let listeners = outcome.listeners.iter().flat_map(|listener| &listener.violations);
        for violation in outcome.violations.iter().chain(listeners) {
            assert!(!violation.to_string().is_empty());
        }
    }
    serde_json::to_string(renderer.snapshot()).expect("a model that JSON can represent")
}

fn add(index: &mut Index, key: &Key, content: &Content) {
    match content {
        Content::Server(own) => index.set_server(key, Some(Arc::new(own.resource("uid", 1)))),
        Content::Listener(own) => index.set_listener(key, Some(Arc::new(own.resource("uid", 1)))),
        Content::Route(own) => index.set_route(key, Some(Arc::new(own.resource("uid", 1)))),
        Content::Secret(secret) => index.set_secret(key, Some(Arc::clone(secret))),
        Content::ConfigMap(map) => index.set_config_map(key, Some(Arc::clone(map))),
        Content::Service(service) => index.set_service(key, Some(Arc::clone(service))),
        Content::Slice(slice) => index.set_slice(key, Some(Arc::clone(slice))),
        Content::Namespace(labels) => index.set_namespace(&key.name, Some(Arc::clone(labels))),
        Content::LeavingPod => index.set_leaving(key, true),
        Content::Other => {}
    }
}
