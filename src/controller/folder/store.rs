//! The content of all files: objects, generations, and problems. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::controller::index::{Key, Objects};
use crate::controller::manifest::{self, Broken, Content, GeneratedObject, Manifest, Parsed, Position};
use crate::controller::render::Kind;
use crate::controller::validate::Validator;
use crate::words::shown;

use super::half::{ends_cleanly, lacks_any};
use super::scan::{Reading, Scan, Seen, Stamp};

/// The last valid content of all files.
#[derive(Debug, Default)]
pub struct Store {
    files: BTreeMap<PathBuf, File>,
    unreadable: BTreeMap<PathBuf, String>,
    generations: BTreeMap<(Kind, Key), (i64, Value)>,
    /// When a file that may be half written must be read again.
    unsettled_for: Option<Duration>,
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    digest: Option<u64>,
    manifests: Vec<Manifest>,
    generated: Vec<GeneratedObject>,
    problems: Vec<Problem>,
}

/// The content of all files together.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The objects.
    pub objects: Objects,
    /// The file of each of our own objects.
    pub origins: BTreeMap<(Kind, Key), PathBuf>,
    /// Secrets and ConfigMaps that other programs create from objects in the files.
    pub generated: Vec<GeneratedObject>,
    /// The problems of files.
    pub problems: Vec<Problem>,
}

/// A problem of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// The place in the file, if it is known.
    pub position: Option<Position>,
    /// The object that is broken or a duplicate: its `kind` as written, and its name.
    pub object: Option<(String, Key)>,
    /// One sentence.
    pub message: String,
}

/// `path:line:column: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.path))?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Store {
    /// Returns the stamps of files that need not be read while their stamps are the same.
    #[must_use]
    pub fn stamps(&self) -> BTreeMap<PathBuf, Stamp> {
        let stamp = |(path, file): (&PathBuf, &File)| Some((path.clone(), file.stamp.clone()?));
        self.files.iter().filter_map(stamp).collect()
    }

    /// Tells whether `path` is a file whose content is known, or a folder with such a file.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.files.keys().any(|file| file.starts_with(path))
    }

    /// Tells whether no file is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Causes the next scan to read every file.
    pub fn forget_stamps(&mut self) {
        for file in self.files.values_mut() {
            file.stamp = file.stamp.take().map(Stamp::outdated);
        }
    }

    /// Returns when a file that may be half written must be read again, if there is one.
    #[must_use]
    pub fn unsettled_for(&self) -> Option<Duration> {
        self.unsettled_for
    }

    /// Applies a scan. Returns whether anything has changed. A file that is not readable or not valid keeps its
    /// previous content, and so does everything in a folder that is not readable.
    pub fn apply(&mut self, scan: Scan, validator: &Validator) -> bool {
        for (path, before) in &scan.renamed {
            if let Some(mut file) = self.files.remove(before) {
                file.problems.iter_mut().for_each(|problem| problem.path.clone_from(path));
                self.files.insert(path.clone(), file);
            }
        }
        let is_unreadable = |path: &Path| scan.unreadable.keys().any(|folder| path.starts_with(folder));
        let before = self.files.len();
        self.files.retain(|path, _| scan.files.contains_key(path) || is_unreadable(path));
        let mut changed =
            self.files.len() != before || self.unreadable != scan.unreadable || !scan.renamed.is_empty();
        self.unreadable = scan.unreadable;
        self.unsettled_for = None;
        for (path, seen) in scan.files {
            let Seen::Read(reading) = seen else { continue };
            let file = self.files.entry(path.clone()).or_insert_with(|| {
                changed = true;
                File::default()
            });
            match file.read(&path, reading, validator) {
                Outcome::MaybeHalfWritten(wait) => {
                    self.unsettled_for =
                        Some(self.unsettled_for.map_or(wait, |unsettled_for| unsettled_for.min(wait)))
                }
                Outcome::Changed => changed = true,
                Outcome::Same => {}
            }
        }
        changed
    }

    /// Returns all objects. If several have the same name, the one in the first file in the order of paths is used.
    pub fn load(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let unreadable = self.unreadable.iter().map(|(path, why)| Problem {
            path: path.clone(),
            position: None,
            object: None,
            message: why.clone(),
        });
        loaded.problems.extend(unreadable);
        let mut owners: BTreeMap<(&str, &Key), &Path> = BTreeMap::new();
        let mut generations = BTreeMap::new();
        for (path, file) in &self.files {
            loaded.problems.extend(file.problems.clone());
            loaded.generated.extend(file.generated.clone());
            // Objects that Mailgress does not use may occur several times.
            let read = |manifest: &&Manifest| !matches!(manifest.content, Content::Other);
            for manifest in file.manifests.iter().filter(read) {
                match owners.get(&(manifest.kind.as_str(), &manifest.key)) {
                    Some(first) => loaded.problems.push(duplicate(path, first, manifest)),
                    None => {
                        owners.insert((&manifest.kind, &manifest.key), path);
                        loaded.add(path, manifest, &self.generations, &mut generations);
                    }
                }
            }
        }
        self.generations = generations;
        loaded
    }
}

impl File {
    fn read(&mut self, path: &Path, reading: Reading, validator: &Validator) -> Outcome {
        let Reading { stamp, text, unsettled_for } = reading;
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                self.stamp = stamp.or_else(|| self.stamp.take().map(Stamp::outdated));
                self.digest = None;
                return self.fail(path, None, &format!("this cannot be read: {why}"));
            }
        };
        let digest = Some(digest(&text));
        if self.digest == digest {
            self.stamp = stamp;
            return Outcome::Same;
        }
        match manifest::parse(&text, validator) {
            Ok(Parsed { mut manifests, broken, generated }) => {
                let is_half = || !ends_cleanly(&text) || lacks_any(&self.manifests, &manifests);
                if let Some(wait) = unsettled_for.filter(|_| is_half()) {
                    return Outcome::MaybeHalfWritten(wait);
                }
                (self.stamp, self.digest) = (stamp, digest);
                log_ignored(path, &manifests);
                keep_secrets(&self.manifests, &mut manifests);
                self.problems = broken.iter().map(|broken| self.keep(path, broken, &mut manifests)).collect();
                (self.manifests, self.generated) = (manifests, generated);
                Outcome::Changed
            }
            Err(error) => {
                (self.stamp, self.digest) = (stamp, digest);
                self.fail(path, error.position, &error.message)
            }
        }
    }

    /// Keeps the previous state of a broken object. The other objects of its file are not affected. An unknown kind may
    /// be a misspelt one, so it matches objects of all kinds with that name.
    fn keep(&self, path: &Path, broken: &Broken, manifests: &mut Vec<Manifest>) -> Problem {
        let Broken { kind, key, message } = broken;
        let is_known = KINDS.contains(&kind.as_str());
        let is_it = |old: &&Manifest| old.key == *key && (old.kind == *kind || !is_known);
        let old: Vec<Manifest> = self.manifests.iter().filter(is_it).cloned().collect();
        let kept = if old.is_empty() { "" } else { "; its last content stays in use" };
        for old in old {
            if !manifests.iter().any(|new| new.key == old.key && new.kind == old.kind) {
                manifests.push(old);
            }
        }
        let object = Some((kind.clone(), key.clone()));
        Problem { path: path.to_owned(), position: None, object, message: format!("{message}{kept}") }
    }

    fn fail(&mut self, path: &Path, position: Option<Position>, why: &str) -> Outcome {
        let kept = if self.manifests.is_empty() { "" } else { "; the last valid content stays in use" };
        let message = format!("{why}{kept}");
        let problems = vec![Problem { path: path.to_owned(), position, object: None, message }];
        let changed = self.problems != problems;
        self.problems = problems;
        if changed { Outcome::Changed } else { Outcome::Same }
    }
}

/// The result of reading a file.
enum Outcome {
    /// Nothing is different.
    Same,
    /// Objects or problems have changed.
    Changed,
    /// The file may be half written. Its previous content stays, and it must be read again after this time.
    MaybeHalfWritten(Duration),
}

/// The kinds that Mailgress reads. Other kinds may be misspelt.
const KINDS: [&str; 9] = [
    "MailServer",
    "MailListener",
    "MailRoute",
    "Secret",
    "ConfigMap",
    "Service",
    "EndpointSlice",
    "Namespace",
    "Pod",
];

impl Loaded {
    fn add(
        &mut self,
        path: &Path,
        manifest: &Manifest,
        old: &BTreeMap<(Kind, Key), (i64, Value)>,
        new: &mut BTreeMap<(Kind, Key), (i64, Value)>,
    ) {
        let key = manifest.key.clone();
        let objects = &mut self.objects;
        let mut generation = |kind, written: &Value| {
            let id = (kind, key.clone());
            let generation = match old.get(&id) {
                Some((generation, before)) if before == written => *generation,
                Some((generation, _)) => generation + 1,
                None => 1,
            };
            new.insert(id, (generation, written.clone()));
            generation
        };
        match &manifest.content {
            Content::Server(own) => {
                let generation = generation(Kind::Server, &own.written);
                objects.servers.insert(key.clone(), Arc::new(own.resource("", generation)));
                self.origins.insert((Kind::Server, key), path.to_owned());
            }
            Content::Listener(own) => {
                let generation = generation(Kind::Listener, &own.written);
                objects.listeners.insert(key.clone(), Arc::new(own.resource("", generation)));
                self.origins.insert((Kind::Listener, key), path.to_owned());
            }
            Content::Route(own) => {
                let generation = generation(Kind::Route, &own.written);
                objects.routes.insert(key.clone(), Arc::new(own.resource("", generation)));
                self.origins.insert((Kind::Route, key), path.to_owned());
            }
            Content::Secret(secret) => drop(objects.secrets.insert(key, Arc::clone(secret))),
            Content::ConfigMap(map) => drop(objects.config_maps.insert(key, Arc::clone(map))),
            Content::Service(service) => drop(objects.services.insert(key, Arc::clone(service))),
            Content::Slice(slice) => drop(objects.slices.set(&key, Some(Arc::clone(slice)))),
            Content::Namespace(labels) => drop(objects.namespaces.insert(key.name, Arc::clone(labels))),
            Content::LeavingPod => drop(objects.leaving.insert(key)),
            Content::Other => {}
        }
    }
}

fn duplicate(path: &Path, first: &Path, manifest: &Manifest) -> Problem {
    let Manifest { kind, key, .. } = manifest;
    let message = format!(
        "{kind} {key} is also in {}, which takes precedence; remove or rename one of them",
        shown(first)
    );
    let object = Some((kind.clone(), key.clone()));
    Problem { path: path.to_owned(), position: None, object, message }
}

fn log_ignored(path: &Path, manifests: &[Manifest]) {
    for Manifest { kind, key, .. } in manifests.iter().filter(|m| matches!(m.content, Content::Other)) {
        if kind == "Secret" {
            let file = path.display();
            tracing::warn!(%file, "Secret {key} is encrypted by SOPS; ignoring it. Decrypt it before you write it to the folder");
            continue;
        }
        tracing::debug!(file = %path.display(), "{kind} {key} is of a kind that Mailgress does not use; ignoring it");
    }
}

/// Keeps the allocation of unchanged Secrets, so that a certificate is not parsed again.
fn keep_secrets(old: &[Manifest], new: &mut [Manifest]) {
    for manifest in new {
        let Content::Secret(secret) = &mut manifest.content else { continue };
        let same = old.iter().find_map(|old| match &old.content {
            Content::Secret(before) if old.key == manifest.key && before == secret => Some(before),
            _ => None,
        });
        if let Some(same) = same {
            *secret = Arc::clone(same);
        }
    }
}

/// Returns the hash of a text. The text is not kept, because it may contain Secrets.
fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
