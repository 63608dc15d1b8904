//! Secrets and ConfigMaps made on the way: one for each distinct content, with names that nothing else has.

use std::collections::{BTreeMap, BTreeSet};

use crate::secret::Secret;

use super::manifest::Manifest;
use super::names;

/// The objects so far.
#[derive(Default)]
pub(super) struct Objects {
    /// What names begin with: the name of the `MailServer` that is being made.
    pub(super) owner: String,
    made: Vec<Manifest>,
    /// By kind and what they were made from.
    known: BTreeMap<(&'static str, String), String>,
    taken: BTreeSet<(&'static str, String)>,
}

impl Objects {
    /// A Secret of a type, made from `origin`; the same origin is the same Secret.
    pub(super) fn secret(
        &mut self,
        type_: &'static str,
        origin: &str,
        suffix: &str,
        data: BTreeMap<String, Secret>,
    ) -> String {
        let (name, new) = self.name("Secret", origin, suffix);
        if new {
            self.made.push(Manifest::Secret { name: name.clone(), type_, data });
        }
        name
    }

    /// The name of a Secret that somebody else has to make.
    pub(super) fn foreign_secret(&mut self, origin: &str, suffix: &str) -> String {
        self.name("Secret", origin, suffix).0
    }

    /// The name of a ConfigMap that somebody else has to make.
    pub(super) fn foreign_config_map(&mut self, origin: &str, suffix: &str) -> String {
        self.name("ConfigMap", origin, suffix).0
    }

    /// A ConfigMap with one key.
    pub(super) fn config_map(&mut self, origin: &str, suffix: &str, key: &str, text: String) -> String {
        let (name, new) = self.name("ConfigMap", origin, suffix);
        if new {
            let data = BTreeMap::from([(key.to_owned(), text)]);
            self.made.push(Manifest::ConfigMap { name: name.clone(), data });
        }
        name
    }

    /// All that were made.
    pub(super) fn into_manifests(self) -> Vec<Manifest> {
        self.made
    }

    fn name(&mut self, kind: &'static str, origin: &str, suffix: &str) -> (String, bool) {
        let origin = (kind, format!("{suffix} {origin}"));
        if let Some(name) = self.known.get(&origin) {
            return (name.clone(), false);
        }
        let base = format!("{}-{suffix}", self.owner);
        let name = names::unique(&base, |name| self.taken.contains(&(kind, name.to_owned())));
        self.taken.insert((kind, name.clone()));
        self.known.insert(origin, name.clone());
        (name, true)
    }
}
