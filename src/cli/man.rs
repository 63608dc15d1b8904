//! `mailgress man`: writes manual pages, from the same definitions as --help.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::Cli;

/// `mailgress man`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Man {
    /// Create this folder and write one page for each command into it [default: print the main page].
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    /// Writes the pages, or prints the main page.
    ///
    /// # Errors
    ///
    /// Fails if the folder or standard output cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let command = Cli::command();
        match &self.folder {
            Some(folder) => {
                let shown = || folder.display().to_string();
                std::fs::create_dir_all(folder).with_context(shown)?;
                clap_mangen::generate_to(command, folder).with_context(shown)?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                std::io::stdout().lock().write_all(&page)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

const AFTER_HELP: &str = "\
  mailgress man /usr/local/share/man/man1

Exit status: 0 the pages are written, 1 they cannot be written, 2 usage error.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_says_its_exit_status() {
        let folder = tempfile::tempdir().unwrap();
        Man { folder: Some(folder.path().join("man1")) }.run().unwrap();
        let page = |name: &str| {
            std::fs::read_to_string(folder.path().join("man1").join(format!("{name}.1"))).unwrap_or_default()
        };
        assert!(page("mailgress").contains("mail ingress controller"));
        for command in Cli::command().get_subcommands() {
            let name = format!("mailgress-{}", command.get_name());
            let nested = command.get_subcommands().map(|inner| format!("{name}-{}", inner.get_name()));
            for name in nested.chain((!command.has_subcommands()).then(|| name.clone())) {
                assert!(page(&name).contains("Exit status:"), "{name}: {}", page(&name));
            }
        }
    }
}
