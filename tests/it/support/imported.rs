//! Mailgress on what `mailgress import nginx` makes of an nginx configuration.

use std::process::Command;

use super::mailgress::{Mailgress, binary};
use super::manifest::Folder;

/// A running Mailgress, and the manifests that it was given.
pub struct Imported {
    mailgress: Mailgress,
    said: String,
    _manifests: Folder,
}

impl Imported {
    /// Imports `nginx.conf` of this folder, of which nothing may be without an equivalent, and serves it.
    pub fn start(nginx: &Folder) -> Self {
        Self::of(nginx, "nginx.conf", &["--strict"])
    }

    /// Imports this file of the folder, and serves it.
    pub fn of(nginx: &Folder, file: &str, arguments: &[&str]) -> Self {
        let import = ["import", "nginx"];
        let ran = Command::new(binary()).args(import).args(arguments).arg(nginx.file(file)).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}");
        let manifests = Folder::new();
        manifests.write_text("mail.yaml", std::str::from_utf8(&ran.stdout).unwrap());
        Self { mailgress: Mailgress::start(&manifests), said, _manifests: manifests }
    }

    /// What the import said on standard error.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// The process.
    pub fn mailgress(&self) -> &Mailgress {
        &self.mailgress
    }
}
