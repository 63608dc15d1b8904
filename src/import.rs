//! `import`: the configuration of nginx's or Angie's mail proxy, turned into manifests.
//!
//! Pure but for [`Source`], through which files and host names are looked up: text in, manifests and notes out.
//! What nginx refuses is a [`Problem`]; what it has and Mailgress has not is a [`Note`].

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
mod plan;
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

    /// What is unusual or wrong about a certificate chain and its key, both PEM, that will be in the Secret `name`;
    /// nothing where it is served as it is, and where a passphrase hides the key.
    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Vec<Inspected>;

    /// Why a file with certificate authorities or revocation lists, both PEM, cannot be read.
    fn inspect_bundle(&self, bundle: Bundle, pem: &[u8]) -> Option<String>;
}

/// What is unusual or wrong about a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// It is served in another form, or clients may refuse it.
    Unusual(String),
    /// nginx may serve it and Mailgress cannot.
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

/// What became of a configuration.
#[derive(Debug)]
pub struct Imported {
    /// The objects, in the order in which they are printed.
    pub manifests: Vec<Manifest>,
    /// What has no equivalent.
    pub notes: Vec<Note>,
    /// What has an equivalent that may not do what is expected of it, above all in a pod.
    pub advice: Vec<Note>,
}

/// Imports a configuration, or what `nginx -T` printed. Relative paths in it begin at `prefix`, or else at the folder of
/// the main file.
///
/// # Errors
/// When nginx would refuse it, or when it has no `mail {}`.
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
