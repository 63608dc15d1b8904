//! What the watches have said: objects, what is wrong with them, and what is not known yet. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::index::{Key, Objects};
use super::super::manifest::Content;
use super::super::render::Kind;
use super::pause;
use super::resources::{Scope, Watched, WatchedKind};
use super::watches::{Event, Failure, News, Seen};

/// Everything that is watched, as last heard.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// What is watched whatever anything refers to.
    base: Vec<Watched>,
    states: BTreeMap<Watched, State>,
    /// References that were not watched, being too many.
    beyond: usize,
    held_up: bool,
}

/// One watch.
#[derive(Debug)]
struct State {
    id: u64,
    started: Instant,
    answer: Answer,
    held: BTreeMap<Key, Seen>,
    broken: BTreeMap<Key, String>,
    failure: Option<(Failure, Instant)>,
}

/// What is known of what a watch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing yet.
    None,
    /// We may not know.
    Forbidden,
    /// All of it.
    Whole,
}

impl Store {
    /// With nothing heard yet.
    pub(super) fn new(base: Vec<Watched>) -> Self {
        Self { base, ..Self::default() }
    }

    /// The base with what is wanted besides, up to the bound.
    pub(super) fn bounded(&mut self, wanted: Vec<Watched>) -> BTreeSet<Watched> {
        self.beyond = wanted.len().saturating_sub(MAX_REFERRED);
        self.base.iter().cloned().chain(wanted.into_iter().take(MAX_REFERRED)).collect()
    }

    /// Forgets everything else.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<Watched>) {
        self.states.retain(|watched, _| wanted.contains(watched));
    }

    /// A watch has begun.
    pub(super) fn started(&mut self, watched: Watched, id: u64, now: Instant) {
        self.states.insert(watched, State::new(id, now));
    }

    /// Takes an event over; whether a render could differ.
    pub(super) fn apply(&mut self, event: Event, now: Instant) -> bool {
        // What a watch said that has ended is of no interest any more.
        let state = self.states.values_mut().find(|state| state.id == event.watch);
        state.is_some_and(|state| state.apply(event.news, now))
    }

    /// Whether our own objects are known, as far as they may be.
    pub(super) fn knows_the_base(&self) -> bool {
        let answer = |watched: &Watched| self.states.get(watched).map_or(Answer::None, |state| state.answer);
        let servers = |watched: &&Watched| watched.kind == WatchedKind::Server;
        self.base.iter().all(|watched| answer(watched) != Answer::None)
            && self.base.iter().filter(servers).any(|watched| answer(watched) == Answer::Whole)
    }

    /// Whether to wait for what was asked only just now: what has not been heard of yet is not missing. At the
    /// beginning, neither is what may not be read: an API server that has only just begun allows nothing at first.
    pub(super) fn wait(&mut self, is_beginning: bool, now: Instant) -> bool {
        let is_open = |state: &State| match state.answer {
            Answer::None => true,
            Answer::Forbidden => is_beginning,
            Answer::Whole => false,
        };
        let patient = |state: &State| now.saturating_duration_since(state.started) < PATIENCE;
        self.held_up = self.states.values().any(|state| is_open(state) && patient(state));
        self.held_up
    }

    /// Whether the last answer to [`Self::wait`] was yes.
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Everything that a render may look at.
    pub(super) fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        for (watched, state) in &self.states {
            for (key, seen) in &state.held {
                add(&mut objects, key, seen);
            }
            if let (Some(reference), Some(why)) = (watched.reference(), state.unknown()) {
                objects.unreadable.entry(reference).or_insert(why);
            }
        }
        objects
    }

    /// The identity of one of our own objects, and what its status is.
    pub(super) fn status_of(&self, kind: Kind, key: &Key) -> Option<(&str, &Value)> {
        let watched = |scope| Watched {
            kind: match kind {
                Kind::Server => WatchedKind::Server,
                Kind::Listener => WatchedKind::Listener,
            },
            scope,
        };
        let scopes = [Scope::Everywhere, Scope::In(key.namespace.clone())];
        let mut states = scopes.into_iter().filter_map(|scope| self.states.get(&watched(scope)));
        states.find_map(|state| state.held.get(key)).map(|seen| (seen.uid.as_str(), &seen.status))
    }

    /// What is wrong with watches and objects, each once.
    pub(super) fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems = BTreeSet::new();
        for (watched, state) in &self.states {
            let recent = |at: &Instant| now.saturating_duration_since(*at) < TOLD;
            if let Some((failure, _)) = state.failure.as_ref().filter(|(_, at)| recent(at)) {
                problems.insert(sentence(watched, failure));
            }
            problems.extend(state.broken.values().cloned());
        }
        if self.beyond > 0 {
            problems.insert(format!(
                "{MAX_REFERRED} watches for what is referred to are running, and {} more would be needed; \
                 use fewer Secrets, ConfigMaps and Services, or several classes",
                self.beyond
            ));
        }
        problems.into_iter().collect()
    }
}

impl State {
    fn new(id: u64, started: Instant) -> Self {
        Self {
            id,
            started,
            answer: Answer::None,
            held: BTreeMap::new(),
            broken: BTreeMap::new(),
            failure: None,
        }
    }

    fn apply(&mut self, news: News, now: Instant) -> bool {
        if !matches!(news, News::Failed(_)) {
            self.failure = None;
        }
        match news {
            News::All(all) => {
                let mut old = std::mem::take(&mut self.held);
                self.broken.clear();
                for (key, seen) in all {
                    self.put(key.clone(), seen, old.remove(&key));
                }
                self.answer = Answer::Whole;
                true
            }
            News::Is(key, seen) => {
                let old = self.held.remove(&key);
                self.put(key, seen, old)
            }
            News::Gone(key) => {
                self.broken.remove(&key);
                self.held.remove(&key).is_some()
            }
            News::Failed(failure) => {
                // Whatever was known before is kept.
                let first = self.answer == Answer::None && matches!(failure, Failure::Forbidden(_));
                if first {
                    self.answer = Answer::Forbidden;
                }
                self.failure = Some((failure, now));
                first
            }
        }
    }

    /// An object that is broken stays what it was. Whether a render could differ.
    fn put(&mut self, key: Key, seen: Result<Seen, String>, old: Option<Seen>) -> bool {
        let mut seen = match (seen, old) {
            (Err(why), old) => {
                let kept = if old.is_some() { "; it keeps what it last held" } else { "" };
                self.broken.insert(key.clone(), format!("{why}{kept}"));
                self.held.extend(old.map(|old| (key, old)));
                return false;
            }
            (Ok(seen), None) => {
                self.broken.remove(&key);
                self.held.insert(key, seen);
                return true;
            }
            (Ok(seen), Some(old)) => (seen, old),
        };
        let changed = !seen.0.is_as(&seen.1);
        keep_secret(&mut seen.0.content, &seen.1.content);
        self.broken.remove(&key);
        self.held.insert(key, seen.0);
        changed
    }

    /// Why nothing is known, if nothing is.
    fn unknown(&self) -> Option<String> {
        match (self.answer, &self.failure) {
            (Answer::Whole, _) => None,
            (_, Some((Failure::Forbidden(why) | Failure::Refused(why) | Failure::Unreachable(why), _))) => {
                Some(why.clone())
            }
            (_, None) => Some("the API server has not answered yet".to_owned()),
        }
    }
}

impl Seen {
    /// Whether only what a render does not look at is different: our own status, most of the time.
    fn is_as(&self, old: &Self) -> bool {
        let own = matches!(self.content, Content::Server(_) | Content::Listener(_));
        own && self.uid == old.uid && self.generation == old.generation
    }
}

fn add(objects: &mut Objects, key: &Key, seen: &Seen) {
    let key = key.clone();
    match &seen.content {
        Content::Server(own) => {
            objects.servers.insert(key, Arc::new(own.resource(&seen.uid, seen.generation)));
        }
        Content::Listener(own) => {
            objects.listeners.insert(key, Arc::new(own.resource(&seen.uid, seen.generation)));
        }
        Content::Secret(secret) => drop(objects.secrets.insert(key, Arc::clone(secret))),
        Content::ConfigMap(map) => drop(objects.config_maps.insert(key, Arc::clone(map))),
        Content::Service(service) => drop(objects.services.insert(key, Arc::clone(service))),
        Content::Slice(slice) => drop(objects.slices.set(&key, Some(Arc::clone(slice)))),
        Content::Namespace(labels) => drop(objects.namespaces.insert(key.name, Arc::clone(labels))),
        Content::Other => {}
    }
}

/// A Secret that has not changed stays the same allocation, so that its certificate is not parsed again.
fn keep_secret(new: &mut Content, old: &Content) {
    if let (Content::Secret(new), Content::Secret(old)) = (new, old)
        && new == old
    {
        *new = Arc::clone(old);
    }
}

/// The API server that cannot be reached is one problem, however many watches have it.
fn sentence(watched: &Watched, failure: &Failure) -> String {
    match failure {
        Failure::Unreachable(why) => {
            format!("the API server cannot be reached, and what it last said is served on: {why}")
        }
        Failure::Forbidden(why) | Failure::Refused(why) => {
            format!("{} cannot be read: {why}", subject(watched))
        }
    }
}

fn subject(watched: &Watched) -> String {
    let (_, kind) = watched.kind.names();
    match &watched.scope {
        Scope::Everywhere => format!("{kind} objects"),
        Scope::In(namespace) => format!("{kind} objects in {namespace}"),
        Scope::Named(key) => format!("{kind} {key}"),
        Scope::OfService(key) => format!("{kind} objects of Service {key}"),
    }
}

/// How many watches there may be for what is referred to; each is a connection to the API server.
const MAX_REFERRED: usize = 4096;
/// How long the answer to a new watch is waited for before what it is about counts as missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// A failure that is over is not told for longer: it would have come again by then.
const TOLD: Duration = pause::LAST.saturating_mul(3);

#[cfg(test)]
mod tests;
