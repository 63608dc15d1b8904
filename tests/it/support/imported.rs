//! Mailgress on what `mailgress import nginx` makes of an nginx configuration.

use std::process::Command;

use super::mailgress::{Mailgress, binary};
use super::manifest::Folder;

/// A running Mailgress, and the manifests that it was given.
pub struct Imported {
    mailgress: Mailgress,
    _manifests: Folder,
}

impl Imported {
    /// Imports `nginx.conf` of this folder, of which nothing may be without an equivalent, and serves it.
    pub fn start(nginx: &Folder) -> Self {
        let ran = Command::new(binary())
            .args(["import", "nginx", "--strict"])
            .arg(nginx.file("nginx.conf"))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let manifests = Folder::new();
        manifests.write_text("mail.yaml", std::str::from_utf8(&ran.stdout).unwrap());
        Self { mailgress: Mailgress::start(&manifests), _manifests: manifests }
    }

    /// The process.
    pub fn mailgress(&self) -> &Mailgress {
        &self.mailgress
    }
}
