//! `mailgress crds`: prints the CustomResourceDefinitions. `crds/` in the repository has this output.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::api;

use super::yaml;

/// `mailgress crds`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Crds {}

impl Crds {
    /// Prints them as YAML documents.
    ///
    /// # Errors
    ///
    /// Fails if standard output cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout().lock();
        for crd in &api::crds() {
            out.write_all(document(crd)?.as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn document(crd: &Value) -> anyhow::Result<String> {
    Ok(format!("---\n{}", yaml::to_string(crd)?))
}

const AFTER_HELP: &str = "Exit status: 0 success, 2 usage error.";
