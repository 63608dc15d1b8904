//! `mailgress crds`: the CustomResourceDefinitions; `crds/` in the repository is this output.

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
    /// Prints both, as YAML documents.
    ///
    /// # Errors
    /// When standard output cannot be written.
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

const AFTER_HELP: &str = "Exit status: 0 they are printed, 2 usage error.";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `MAILGRESS_WRITE_CRDS=1 cargo test` writes them instead.
    #[test]
    fn the_repositorys_crds_are_this_output() {
        for crd in &api::crds() {
            let name = format!("{}.yaml", crd["metadata"]["name"].as_str().unwrap());
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds").join(name);
            let text = document(crd).unwrap();
            if std::env::var_os("MAILGRESS_WRITE_CRDS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == text,
                "{} is out of date: MAILGRESS_WRITE_CRDS=1 cargo test --lib crds",
                path.display()
            );
        }
    }
}
