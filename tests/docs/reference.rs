//! The pages and the CustomResourceDefinitions that are generated from the code.

mod commands;
mod fields;
mod log;
mod metrics;
mod reasons;

use std::process::Command;

use mailgress::model::metric::ALL;
use serde_json::Value;

use crate::pages::all;
use crate::support::generated::is_current;

#[test]
fn generated_definitions_are_what_the_command_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_mailgress")).arg("crds").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for document in text.split("---\n").filter(|document| !document.is_empty()) {
        let definition: Value = serde_yaml::from_str(document).unwrap();
        let name = definition["metadata"]["name"].as_str().unwrap();
        for folder in ["crds", "charts/mailgress/files/crds"] {
            is_current(format!("{folder}/{name}.yaml"), &format!("---\n{document}"));
        }
    }
}

#[test]
fn generated_fields_are_those_of_the_schemas() {
    is_current("docs/reference/fields.md", &fields::page());
}

#[test]
fn generated_commands_are_those_of_the_command_line() {
    is_current("docs/reference/commands.md", &commands::page());
}

#[test]
fn generated_metrics_are_those_of_the_table() {
    is_current("docs/reference/metrics.md", &metrics::page());
}

#[test]
fn the_label_kind_names_all_kinds() {
    assert!(metrics::names_all_kinds(), "KIND in src/model/metric.rs");
}

#[test]
fn generated_reasons_are_those_of_the_code() {
    is_current("docs/reasons/index.md", &reasons::page());
}

#[test]
fn generated_log_lines_are_those_of_the_source() {
    is_current("docs/reference/log.md", &log::page());
}

#[test]
fn every_metric_that_a_page_names_is_one_that_exists() {
    let of_histogram = |name: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned)
    };
    let known = |name: &str| ALL.iter().any(|family| family.name == name);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Old changes may name metrics by an earlier name.
    for page in all().iter().filter(|page| page.name != "CHANGELOG.md") {
        let words = page.text.split(|c| !is_word(c)).filter(|word| word.starts_with("mailgress_"));
        // `mailgress_resolver_…` stands for several metrics.
        for name in words.filter(|word| !word.ends_with('_')) {
            let exists = known(name) || of_histogram(name).is_some_and(|name| known(&name));
            assert!(exists, "{}: there is no metric {name}", page.name);
        }
    }
}

/// Formats text for a table cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
