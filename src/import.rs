//! `import`: the configuration of nginx's or Angie's mail proxy, turned into manifests.
//!
//! Pure but for [`Source`], through which files and host names are looked up: text in, manifests and notes out.
//! What nginx refuses is a [`Problem`]; what it has and Mailgress has not is a [`Note`].

pub mod directives;
pub mod manifest;
pub mod problem;

mod auth;
mod ciphers;
mod effective;
mod keys;
mod listen;
mod names;
mod objects;
mod plan;
mod read;
mod settings;
mod share;
mod tls;
mod tree;
mod values;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use manifest::Manifest;
pub use problem::{Note, Place, Problem};

/// What an import looks up outside of the text it was given.
pub trait Source {
    /// The content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The files that a pattern stands for, sorted.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;

    /// The addresses of a host name; none where it is not known.
    fn resolve(&self, host: &str) -> Vec<IpAddr>;

    /// What Mailgress does in another way than nginx with a certificate chain and its key, both PEM, that will be in
    /// the Secret `name`; nothing where it serves the chain as it is.
    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Option<String>;
}

/// What became of a configuration.
#[derive(Debug)]
pub struct Imported {
    /// The objects, in the order in which they are printed.
    pub manifests: Vec<Manifest>,
    /// What has no equivalent.
    pub notes: Vec<Note>,
}

/// Imports a configuration; relative paths in it begin at `prefix`.
///
/// # Errors
/// When nginx would refuse it, or when it has no `mail {}`.
pub fn nginx(file: &Path, prefix: &Path, source: &dyn Source) -> Result<Imported, Problem> {
    let mail = tree::mail(file, prefix, source)?;
    let mut notes = directives::check(&mail)?;
    let servers = effective::servers(&mail, source)?;
    let context = plan::Context { prefix, source };
    let manifests = plan::manifests(&servers, &context, &mut notes)?;
    notes.sort();
    notes.dedup();
    Ok(Imported { manifests, notes })
}
