//! `mailgress render`: prints the rendered configuration.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::files::Files;
use super::yaml;

/// `mailgress render`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Render {
    /// The manifests.
    #[command(flatten)]
    pub files: Files,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    pub output: Format,
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

impl Render {
    /// Prints the model to standard output, and violations to standard error.
    ///
    /// # Errors
    ///
    /// Fails if a path does not exist.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let (loaded, renderer) = self.files.render()?;
        let model = serde_json::to_value(renderer.snapshot())?;
        let text = match self.output {
            Format::Yaml => yaml::to_string(&model)?,
            Format::Json => serde_json::to_string_pretty(&model)? + "\n",
        };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        let mut err = std::io::stderr().lock();
        let mut wrong = false;
        for problem in &loaded.problems {
            wrong = true;
            writeln!(err, "{problem}")?;
        }
        for (_, object) in renderer.outcomes() {
            let of_listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
            for violation in object.violations.iter().chain(of_listeners).filter(|v| v.concern.excludes()) {
                wrong = true;
                writeln!(err, "{} {}: {violation}", object.kind.name(), object.key)?;
            }
        }
        Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

const AFTER_HELP: &str = "\
Exit status: 0 everything would be served, 1 a part would not be served (see standard error), 2 usage error.";

#[cfg(test)]
mod tests;
