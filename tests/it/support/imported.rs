//! Mailgress with the manifests that `mailgress import nginx` creates.

use std::process::Command;

use super::mailgress::{Mailgress, binary};
use super::manifest::Folder;

/// A running Mailgress with its imported manifests.
pub struct Imported {
    mailgress: Mailgress,
    said: String,
    _manifests: Folder,
}

impl Imported {
    /// Imports and serves the folder's `nginx.conf`. Every setting must have an equivalent.
    pub fn start(nginx: &Folder) -> Self {
        Self::of(nginx, "nginx.conf", &["--strict"])
    }

    /// Imports and serves this file of the folder.
    pub fn of(nginx: &Folder, file: &str, arguments: &[&str]) -> Self {
        let import = ["import", "nginx"];
        let ran = Command::new(binary()).args(import).args(arguments).arg(nginx.file(file)).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}");
        let manifests = Folder::new();
        manifests.write_text("mail.yaml", std::str::from_utf8(&ran.stdout).unwrap());
        Self { mailgress: Mailgress::start(&manifests), said, _manifests: manifests }
    }

    /// Returns the standard error of the import.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Returns the process.
    pub fn mailgress(&self) -> &Mailgress {
        &self.mailgress
    }
}
