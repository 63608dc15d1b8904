//! `docs/reference/commands.md`: every command with its flags and environment variables, as clap knows them.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use mailgress::cli::Cli;

use super::cell;

pub fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = HEAD.to_owned();
    for command in root.get_subcommands() {
        section(command, "mailgress", &mut page);
    }
    page
}

fn section(command: &Command, parent: &str, page: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    write!(page, "\n## `{name}`\n\n{}\n", about.trim_end()).unwrap();
    let arguments: Vec<&Arg> = command.get_arguments().filter(|argument| is_shown(argument)).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | what it does |\n| --- | --- |\n");
        page.extend(arguments.into_iter().map(row));
    }
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        write!(page, "\n```text\n{}\n```\n", more.to_string().trim()).unwrap();
    }
    for inner in command.get_subcommands() {
        section(inner, &name, page);
    }
}

fn is_shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
}

fn row(argument: &Arg) -> String {
    let values: Vec<&str> =
        argument.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str).collect();
    let takes = argument.get_action().takes_values();
    let value = if takes { values.join(" ") } else { String::new() };
    let flags: Vec<String> = [
        argument.get_short().map(|short| format!("-{short}")),
        argument.get_long().map(|long| format!("--{long}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let written = [flags.join(", "), value].join(" ");
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    // What has no value of its own says its default in its help.
    let (help, said) = help.split_once(" [default: ").unwrap_or((&help, ""));
    let possible: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let possible =
        if takes && !possible.is_empty() { format!(": {}", possible.join(", ")) } else { String::new() };
    let default = if defaults.is_empty() || !takes {
        said.trim_end_matches(']').to_owned()
    } else {
        defaults.join(", ")
    };
    let sentences = [
        Some(cell(help).trim_end_matches('.').to_owned() + &possible),
        Some(default)
            .filter(|default| !default.is_empty())
            .map(|default| format!("Default: {}", cell(&default))),
        argument.get_env().map(|name| format!("Environment: `{}`", name.to_string_lossy())),
    ];
    let said: Vec<String> = sentences.into_iter().flatten().collect();
    format!("| `{}` | {}. |\n", cell(&written), said.join(". "))
}

const HEAD: &str = "# Commands, flags and exit codes

<!-- Made from the code: MAILGRESS_WRITE_DOCS=1 cargo test --test docs reference -->

One binary, `mailgress`. `mailgress COMMAND --help` says the same as this page. A flag on the command line wins over its
environment variable.

Unless a command says otherwise, it ends with exit status 0 when it did what it was asked to, with 1 when it could not (the
reason is on standard error) or when what it looked at is not right, and with 2 when the command line itself was wrong.
";
