//! The command line. Each command has its own file and calls the layers below.

pub mod check;
pub mod colour;
pub mod completions;
pub mod control;
pub mod crds;
pub mod explain;
pub mod files;
pub mod import;
pub mod kick;
pub mod man;
pub mod output;
pub mod probe;
pub mod render;
pub mod replicas;
pub mod run;
pub mod sessions;
pub mod status;
pub mod table;
pub mod why;
pub mod yaml;

#[cfg(test)]
#[path = "../tests/it/support/generated.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with tests/it, which needs all of it")]
mod generated;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Mailgress: an ingress controller for mail on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "mailgress", version = env!("MAILGRESS_VERSION"), about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve MailServer, MailListener and MailRoute objects.
    Run(Box<run::Run>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds(crds::Crds),
    /// Check manifests offline, as the API server and the controller do. Exit status 1 if there is an error.
    Check(check::Check),
    /// Print the configuration that would be served, with secrets masked.
    Render(render::Render),
    /// Explain the reason of a condition, with its remedy.
    Explain(explain::Explain),
    /// Convert the configuration of another mail proxy to manifests, on standard output.
    Import(import::Import),
    /// Connect to a mail server as a client does, and report what works: TLS, certificate, capabilities, login.
    Probe(Box<probe::Probe>),
    /// Show the listeners, their sockets and their problems. Exit status 1 if a listener is not ready.
    Status(status::Status),
    /// Show the open sessions of an instance.
    Sessions(sessions::Sessions),
    /// End sessions of an instance. Exit status 1 if none matches.
    Kick(kick::Kick),
    /// Explain where a user goes: the MailRoute, the backend and its endpoints.
    Why(why::Why),
    /// Print a completion script for a shell.
    Completions(completions::Completions),
    /// Write manual pages.
    Man(man::Man),
}

/// A usage error. Exit status 2, as for errors that clap reports.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    /// Creates a usage error from `error`, with its whole chain of causes.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    pub fn new(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }

    /// Returns the exit status for an error.
    #[must_use]
    pub fn exit_status(error: &anyhow::Error) -> ExitCode {
        if error.is::<Self>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

/// Returns a runtime for commands that only wait for I/O: a single thread is enough.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Returns an error, whose text is for the user, if the command fails.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(command) => command.run(),
            Self::Crds(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Render(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Probe(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Sessions(command) => command.run(),
            Self::Kick(command) => command.run(),
            Self::Why(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};
    use clap_complete::Shell;

    use super::*;

    #[test]
    fn the_version_begins_with_the_packages_and_says_at_most_the_commit_and_its_day() {
        let version = Cli::command().get_version().map(str::to_owned).unwrap();
        let rest = version.strip_prefix(env!("CARGO_PKG_VERSION")).unwrap();
        let in_brackets = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
        assert!(rest.is_empty() || in_brackets.is_some_and(|commit| !commit.is_empty()), "{version}");
    }

    #[test]
    fn the_command_line_is_completed_in_every_shell() {
        Cli::command().debug_assert();
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "mailgress", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("probe") && script.contains("login-file"), "{shell}");
        }
    }
}
