//! Secrets and ConfigMaps of an import: one for each distinct content, with unique names.

use std::collections::{BTreeMap, BTreeSet};

use crate::secret::Secret;

use super::manifest::Manifest;
use super::names;

/// The objects created so far.
#[derive(Default)]
pub(super) struct Objects {
    /// The prefix of names: the current `MailServer`.
    pub(super) owner: String,
    made: Vec<Manifest>,
    /// Names, by kind and origin.
    known: BTreeMap<(&'static str, String), String>,
    taken: BTreeSet<(&'static str, String)>,
}

impl Objects {
    /// Creates a Secret from `origin`, or returns the existing one with the same origin.
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

    /// Returns the name of a Secret that the operator has to create.
    pub(super) fn foreign_secret(&mut self, origin: &str, suffix: &str) -> String {
        self.name("Secret", origin, suffix).0
    }

    /// Returns the name of a ConfigMap that the operator has to create.
    pub(super) fn foreign_config_map(&mut self, origin: &str, suffix: &str) -> String {
        self.name("ConfigMap", origin, suffix).0
    }

    /// Creates a ConfigMap with one key, or returns the existing one with the same origin.
    pub(super) fn config_map(&mut self, origin: &str, suffix: &str, key: &str, text: String) -> String {
        let (name, new) = self.name("ConfigMap", origin, suffix);
        if new {
            let data = BTreeMap::from([(key.to_owned(), text)]);
            self.made.push(Manifest::ConfigMap { name: name.clone(), data });
        }
        name
    }

    /// Returns all created objects.
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
