//! `import`: converts the configuration of nginx's or Angie's mail proxy to manifests.
//!
//! Pure, except for [`Source`], which reads files and resolves host names. What nginx refuses is a [`Problem`]. What
//! has no equivalent in Mailgress is a [`Note`].

pub mod directives;
pub mod manifest;
pub mod problem;

mod advice;
mod auth;
mod certificates;
mod ciphers;
mod dump;
mod effective;
mod forks;
mod keys;
mod listen;
mod names;
mod objects;
mod openssl;
mod plan;
mod protocol;
mod read;
mod settings;
mod share;
mod tls;
mod tree;
mod values;
mod variables;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use manifest::Manifest;
pub use problem::{Note, Place, Problem, Refused};

use dump::Dump;
use problem::{Findings, system_error};

/// Lookups outside of the given text. The CLI implements it, and tests use fakes.
pub trait Source {
    /// Returns the content of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns the files that match a pattern, sorted.
    fn glob(&self, pattern: &Path) -> Vec<PathBuf>;

    /// Returns the addresses of a host name; empty if it is unknown.
    fn resolve(&self, host: &str) -> Vec<IpAddr>;

    /// Returns what is unusual or wrong about a certificate chain and its key (both PEM), which will be in the Secret
    /// `name`. Empty if the chain is served unchanged or the key is encrypted.
    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Vec<Inspected>;

    /// Returns why a PEM file with certificate authorities or revocation lists cannot be read.
    fn inspect_bundle(&self, bundle: Bundle, pem: &[u8]) -> Option<String>;
}

/// What is unusual or wrong about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// The chain is served in another form, or clients may refuse it.
    Unusual(String),
    /// nginx may serve the certificate, but Mailgress cannot.
    Unusable(String),
    /// The key does not belong to the first certificate, but perhaps to another one of the chain, counted from 1.
    KeyMismatch(Option<usize>),
    /// The chain cannot be read.
    BadChain(String),
    /// The key cannot be read.
    BadKey(String),
}

/// A file for `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bundle {
    /// Certificate authorities.
    Authorities,
    /// Revocation lists.
    Crls,
}

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The objects, in the order to print.
    pub manifests: Vec<Manifest>,
    /// Settings without an equivalent.
    pub notes: Vec<Note>,
    /// Settings whose equivalent may not work as expected, especially in a pod.
    pub advice: Vec<Note>,
}

/// Imports a configuration file, or the output of `nginx -T`. Relative paths in it start at `prefix`, by default at the
/// directory of the main file.
///
/// # Errors
/// nginx would refuse the configuration, or it has no `mail {}`.
pub fn nginx(file: &Path, prefix: Option<&Path>, source: &dyn Source) -> Result<Imported, Refused> {
    let text = source.read(file).map_err(|error| {
        let name = file.to_string_lossy();
        let place = Place { file: name.as_ref().into(), line: 1 };
        let message = format!("open() \"{name}\" failed ({})", system_error(&error));
        Refused { problems: vec![Problem::new(&place, message)], notes: Vec::new() }
    })?;
    let dump = Dump::read(&text);
    let (file, text) = dump.as_ref().map_or((file, text.as_slice()), Dump::main);
    let prefix = prefix.or_else(|| file.parent()).unwrap_or_else(|| Path::new(""));
    let context = plan::Context { prefix, source, dump: dump.as_ref() };
    let (manifests, found) = manifests(file, text, &context);
    let Findings { problems, notes, advice, .. } = found;
    if problems.is_empty() {
        return Ok(Imported { manifests, notes, advice });
    }
    Err(Refused { problems, notes })
}

fn manifests(file: &Path, text: &[u8], context: &plan::Context<'_>) -> (Vec<Manifest>, Findings) {
    let mut found = Findings::default();
    let mail = tree::mail(file, text, context, &mut found);
    let mut manifests = Vec::new();
    if let Some(mail) = &mail {
        directives::check(mail, &mut found);
        if !found.is_incomplete {
            let servers = effective::servers(mail, context.source, &mut found);
            manifests = plan::manifests(&servers, context, &mut found);
        }
    }
    found.tidy();
    (manifests, found)
}
