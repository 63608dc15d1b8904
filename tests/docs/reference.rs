//! The pages that are made of the code. `MAILGRESS_WRITE_DOCS=1` writes them.

mod commands;
mod fields;
mod log;
mod reasons;

use crate::pages::root;

#[test]
fn the_fields_of_both_kinds_are_those_of_their_schemas() {
    compare("docs/reference/fields.md", &fields::page());
}

#[test]
fn the_commands_and_flags_are_those_of_the_command_line() {
    compare("docs/reference/commands.md", &commands::page());
}

#[test]
fn the_reasons_are_those_of_the_code() {
    compare("docs/reasons/index.md", &reasons::page());
}

#[test]
fn the_log_lines_are_those_of_the_source() {
    compare("docs/reference/log.md", &log::page());
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
