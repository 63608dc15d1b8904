//! `mailgress completions`: prints completion scripts for shells.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// `mailgress completions`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mailgress", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

const AFTER_HELP: &str = "\
  bash  mailgress completions bash > /etc/bash_completion.d/mailgress
  zsh   mailgress completions zsh > \"${fpath[1]}/_mailgress\"
  fish  mailgress completions fish > ~/.config/fish/completions/mailgress.fish

Exit status: 0 the script is printed, 2 usage error.";
