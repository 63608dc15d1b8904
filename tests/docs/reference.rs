//! The pages that are made of the code. `MAILGRESS_WRITE_DOCS=1` writes them.

mod commands;
mod fields;
mod log;
mod metrics;
mod reasons;

use mailgress::model::metric::ALL;

use crate::pages::{all, root};

#[test]
fn the_fields_of_both_kinds_are_those_of_their_schemas() {
    compare("docs/reference/fields.md", &fields::page());
}

#[test]
fn the_commands_and_flags_are_those_of_the_command_line() {
    compare("docs/reference/commands.md", &commands::page());
}

#[test]
fn the_metrics_are_those_of_the_table() {
    compare("docs/reference/metrics.md", &metrics::page());
}

#[test]
fn the_reasons_are_those_of_the_code() {
    compare("docs/reasons/index.md", &reasons::page());
}

#[test]
fn the_log_lines_are_those_of_the_source() {
    compare("docs/reference/log.md", &log::page());
}

#[test]
fn every_metric_that_a_page_names_is_one_that_exists() {
    let of_histogram = |name: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned)
    };
    let known = |name: &str| ALL.iter().any(|family| family.name == name);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // What was changed long ago may have had another name.
    for page in all().iter().filter(|page| page.name != "CHANGELOG.md") {
        let words = page.text.split(|c| !is_word(c)).filter(|word| word.starts_with("mailgress_"));
        // `mailgress_resolver_…` stands for several.
        for name in words.filter(|word| !word.ends_with('_')) {
            let exists = known(name) || of_histogram(name).is_some_and(|name| known(&name));
            assert!(exists, "{}: there is no metric {name}", page.name);
        }
    }
}

fn compare(name: &str, made: &str) {
    let path = root().join(name);
    if std::env::var_os("MAILGRESS_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{name} is out of date: MAILGRESS_WRITE_DOCS=1 cargo test --test docs reference");
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
