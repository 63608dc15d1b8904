//! The YAML of the pages: `mailgress check` accepts every MailServer, MailListener and MailRoute.

use std::path::PathBuf;

use mailgress::cli::files::Files;
use mailgress::controller::reason::Reason;
use mailgress::controller::violation::Violation;
use serde_yaml::Value;

use crate::pages::{Block, all, root};

/// Problems that are allowed, because a page cannot show the reader's Secrets and Services.
const ELSEWHERE: [Reason; 1] = [Reason::RefNotFound];

#[test]
fn every_mail_server_of_the_pages_is_accepted() {
    let blocks: Vec<Block> = all().iter().flat_map(|page| page.blocks()).filter(is_yaml).collect();
    let (mut checked, mut wrong) = (0, Vec::new());
    for block in &blocks {
        let Some(text) = whole(block) else { continue };
        checked += 1;
        wrong.extend(problems(&text).into_iter().map(|problem| format!("{}: {problem}", block.place)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(checked >= FEWEST, "only {checked} blocks hold one: are they still recognised?");
}

#[test]
fn every_block_of_yaml_is_yaml() {
    for block in all().iter().flat_map(|page| page.blocks()).filter(is_yaml) {
        documents(&block);
    }
}

#[test]
fn helm_values_of_the_pages_are_accepted_by_the_chart() {
    let schema = root().join("charts/mailgress/values.schema.json");
    let Ok(schema) = std::fs::read_to_string(&schema) else { return };
    let schema = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for block in all().iter().flat_map(|page| page.blocks()).filter(|block| block.has("values")) {
        for values in documents(&block) {
            let values = serde_json::to_value(values).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&values).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{}: {}", block.place, errors.join("\n"));
        }
    }
}

fn is_yaml(block: &Block) -> bool {
    block.language == "yaml"
}

fn documents(block: &Block) -> Vec<Value> {
    use serde::Deserialize;
    let parse =
        |document| Value::deserialize(document).unwrap_or_else(|error| panic!("{}: {error}", block.place));
    serde_yaml::Deserializer::from_str(&block.text).map(parse).collect()
}

/// Returns the block as manifests, if it contains ours. A `spec:` alone is that of a MailServer.
fn whole(block: &Block) -> Option<String> {
    if block.has("values") {
        return None;
    }
    if block.text.contains("apiVersion: mailgress.dev/") {
        return Some(block.text.clone());
    }
    let head = "apiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata:\n  name: example\n  namespace: mail\n";
    let is_spec = block.text.lines().any(|line| line == "spec:") && !block.text.contains("apiVersion:");
    is_spec.then(|| format!("{head}{}", block.text))
}

fn problems(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.yaml"), text).unwrap();
    let files = Files { paths: vec![PathBuf::from(folder.path())], class: "mailgress".to_owned() };
    let (loaded, renderer) = files.render().unwrap();
    let mut found: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let is_wrong =
        |violation: &&Violation| violation.concern.excludes() && !ELSEWHERE.contains(&violation.reason);
    for (_, object) in renderer.outcomes() {
        let listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
        found.extend(object.violations.iter().chain(listeners).filter(is_wrong).map(ToString::to_string));
    }
    found
}

/// Minimum number of blocks in the pages with one of our objects.
const FEWEST: usize = 15;
