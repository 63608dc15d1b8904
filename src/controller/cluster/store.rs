//! The results of all watches: objects, their problems, and references that are not answered yet. Pure.

mod current;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::index::{DRAIN, Index, Key, Reference, ReferenceKind, service_of};
use crate::controller::manifest::Content;
use crate::controller::render::{Kind, ObjectId, ReferenceChanges};

use super::backoff::REPORTED_FOR;
use super::failure::Failure;
use super::resources::{Scope, Watched, WatchedKind};
use super::wanted;
use super::watches::{Event, Seen};
use state::WatchState;

pub(super) use state::ListState;

/// Everything that is watched, in its last known state.
#[derive(Debug)]
pub(super) struct Store {
    /// The watches that do not depend on references.
    base: Vec<Watched>,
    /// The current references.
    references: BTreeSet<Reference>,
    states: BTreeMap<Watched, WatchState>,
    /// The watch of each number.
    numbers: BTreeMap<u64, Watched>,
    /// The number of watches that are not running because the limit is reached.
    excess: usize,
    /// Whether a change requires a new selection of watches.
    unfollowed: bool,
    /// When a watch last gave its first answer.
    answered: Option<Instant>,
    /// Objects of our own kinds that had an event, and when to compare their status with the expected one.
    compare_at: BTreeMap<ObjectId, Instant>,
    /// The objects of all watches together.
    index: Index,
    /// Whether refusals count. Right after the start they do not.
    accepts_refusals: bool,
}

impl Store {
    /// Creates a store without any answers.
    pub(super) fn new(base: Vec<Watched>) -> Self {
        Self {
            base,
            references: BTreeSet::new(),
            states: BTreeMap::new(),
            numbers: BTreeMap::new(),
            excess: 0,
            unfollowed: false,
            answered: None,
            compare_at: BTreeMap::new(),
            index: Index::of_watched(),
            accepts_refusals: false,
        }
    }

    /// Returns the objects for a rendering.
    pub(super) fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    /// Applies changed references. [`Self::follow`] then returns the watches for them.
    pub(super) fn refer(&mut self, changes: &ReferenceChanges) {
        for reference in &changes.added {
            self.unfollowed |= self.references.insert(reference.clone());
            self.show_reference(reference);
        }
        for reference in &changes.removed {
            self.unfollowed |= self.references.remove(reference);
            self.show_reference(reference);
        }
    }

    /// Returns the watches for the current references, if they may have changed since the last call. Answers of all
    /// other watches are removed.
    pub(super) fn follow(&mut self) -> Option<BTreeSet<Watched>> {
        if !self.states.is_empty() && !std::mem::take(&mut self.unfollowed) {
            return None;
        }
        let answer = |watched: &Watched| self.states.get(watched).map(|state| state.list);
        let (wanted, excess) = wanted::wanted(&self.base, &self.references, answer);
        self.excess = excess;
        let ended: Vec<Watched> =
            self.states.keys().filter(|watched| !wanted.contains(watched)).cloned().collect();
        for watched in ended {
            let Some(state) = self.states.remove(&watched) else { continue };
            for key in state.held.keys() {
                self.show(watched.kind, key);
            }
            self.show_answers(&watched);
        }
        self.numbers.retain(|_, watched| wanted.contains(watched));
        Some(wanted)
    }

    /// Registers a new watch.
    pub(super) fn started(&mut self, watched: Watched, id: u64, now: Instant) {
        self.numbers.insert(id, watched.clone());
        self.states.insert(watched.clone(), WatchState::new(now));
        self.show_answers(&watched);
    }

    /// Applies an event. Returns whether a new rendering can differ.
    pub(super) fn apply(&mut self, event: Event, now: Instant) -> bool {
        // Ignore events of watches that have ended.
        let watched = self.numbers.get(&event.watch).cloned();
        let state = watched.and_then(|watched| Some((self.states.get_mut(&watched)?, watched)));
        let Some((state, watched)) = state else { return false };
        let keys = event.update.keys(state.held.keys());
        let (before, unknown) = (state.list, state.unknown());
        let concerns = |key: &Key, seen: &Seen| is_referred_to(&self.references, key, &seen.content);
        let changed = state.apply(event.update, now, &concerns);
        // The selection of watches for Services depends on the permissions.
        let decides = matches!(watched.kind, WatchedKind::Service | WatchedKind::Slice | WatchedKind::Pod);
        self.unfollowed |= state.list != before && decides;
        if state.list != before {
            self.answered = Some(now);
        }
        let is_other = state.unknown() != unknown;
        for key in keys {
            // The first answer of a watch renders all objects and thus compares all of them.
            if let Some(kind) = watched.kind.own().filter(|_| before == ListState::Whole) {
                self.compare_at.entry(ObjectId::new(kind, &key)).or_insert(now + COMPARE_AFTER);
            }
            self.show(watched.kind, &key);
        }
        if is_other {
            self.show_answers(&watched);
        }
        changed
    }

    /// Tells whether our own objects are known, as far as the permissions allow.
    pub(super) fn has_base(&self) -> bool {
        let answer = |watched: &Watched| self.states.get(watched).map_or(ListState::None, |state| state.list);
        let servers = |watched: &&Watched| watched.kind == WatchedKind::Server;
        self.base.iter().all(|watched| answer(watched) != ListState::None)
            && self.base.iter().filter(servers).any(|watched| answer(watched) == ListState::Whole)
    }

    /// Tells whether a watch may still answer. For some time after the start this includes refused watches, because an
    /// API server that has just started refuses everything.
    pub(super) fn awaits_answers(&self, now: Instant) -> bool {
        let is_open = |watched: &Watched, state: &WatchState| match state.list {
            ListState::None => true,
            // The permission for Pods is optional.
            ListState::Forbidden => !self.accepts_refusals && watched.kind != WatchedKind::Pod,
            ListState::Whole => false,
        };
        // Thousands of watches are answered one after another, so the wait starts again with each answer.
        let may_wait = |state: &WatchState| {
            let since = self.answered.map_or(state.started, |answered| answered.max(state.started));
            now.saturating_duration_since(since) < FIRST_ANSWER_TIMEOUT
                && now.saturating_duration_since(state.started) < MAX_ANSWER_WAIT
        };
        self.states.iter().any(|(watched, state)| is_open(watched, state) && may_wait(state))
    }

    /// Ends the start: from now on, a refusal counts at once. Before that, a refused reference is pending.
    pub(super) fn accept_refusals(&mut self) {
        if !std::mem::replace(&mut self.accepts_refusals, true) {
            for reference in self.references.clone() {
                self.show_reference(&reference);
            }
        }
    }

    /// Returns one of our own objects.
    pub(super) fn own(&self, id: &ObjectId) -> Option<&Seen> {
        let ObjectId { kind, key } = id;
        let watched = |scope| Watched {
            kind: match kind {
                Kind::Server => WatchedKind::Server,
                Kind::Listener => WatchedKind::Listener,
                Kind::Route => WatchedKind::Route,
            },
            scope,
        };
        let scopes = [Scope::Everywhere, Scope::In(key.namespace.clone())];
        let mut states = scopes.into_iter().filter_map(|scope| self.states.get(&watched(scope)));
        states.find_map(|state| state.held.get(key).map(AsRef::as_ref))
    }

    /// Returns why one of our own objects is unknown although it may exist; `None` if it does not exist or is not
    /// watched.
    pub(super) fn why_unread(&self, id: &ObjectId) -> Option<String> {
        let scopes = [Scope::Everywhere, Scope::In(id.key.namespace.clone())];
        let mut why = None;
        for (watched, state) in &self.states {
            if watched.kind.own() != Some(id.kind) || !scopes.contains(&watched.scope) {
                continue;
            }
            if let Some(broken) = state.broken.get(&id.key) {
                return Some(broken.clone());
            }
            if state.list == ListState::Whole {
                return None;
            }
            why = state.unknown().map(|why| format!("{} cannot be read: {why}", subject(watched)));
        }
        why
    }

    /// Returns the objects of our kinds with a status that a controller of our class has written.
    pub(super) fn with_our_status(&self) -> impl Iterator<Item = ObjectId> {
        let own = self.states.iter().filter_map(|(watched, state)| Some((watched.kind.own()?, state)));
        own.flat_map(|(kind, state)| {
            let with_our_status = state.held.iter().filter(|(_, seen)| seen.has_our_status);
            with_our_status.map(move |(key, _)| ObjectId::new(kind, key))
        })
    }

    /// Returns the objects of our kinds whose status must be compared now. Another program may have overwritten the
    /// status: such a change alone causes no rendering.
    pub(super) fn take_due(&mut self, now: Instant) -> BTreeSet<ObjectId> {
        let mut due = BTreeSet::new();
        self.compare_at.retain(|id, when| *when > now || !due.insert(id.clone()));
        due
    }

    /// Returns which optional permissions are missing, and what does not work without them.
    pub(super) fn notices(&self) -> BTreeSet<String> {
        let failures =
            self.states.iter().filter_map(|(watched, state)| Some((watched, &state.failure.as_ref()?.0)));
        let missing = failures.filter(|(watched, failure)| is_optional(watched, failure));
        missing.map(|(watched, failure)| sentence(watched, failure)).collect()
    }

    /// Returns the problems of watches and objects, without duplicates.
    pub(super) fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems = BTreeSet::new();
        for (watched, state) in &self.states {
            let recent = |at: &Instant| now.saturating_duration_since(*at) < REPORTED_FOR;
            let failure =
                state.failure.as_ref().filter(|(failure, at)| recent(at) && !is_optional(watched, failure));
            problems.extend(failure.map(|(failure, _)| sentence(watched, failure)));
            problems.extend(state.broken.values().cloned());
        }
        if self.excess > 0 {
            problems.insert(format!(
                "the limit of {} watches is reached; {} referenced objects are not watched; use fewer Secrets and \
                 ConfigMaps, or several classes",
                wanted::MAX_REFERRED,
                self.excess
            ));
        }
        problems.into_iter().collect()
    }
}

/// Tells whether the operator may have chosen not to give the permission. That is no problem.
fn is_optional(watched: &Watched, failure: &Failure) -> bool {
    watched.kind == WatchedKind::Pod && matches!(failure, Failure::Forbidden(_))
}

/// Tells whether an object is referenced. Watches of Services and EndpointSlices return all objects of a namespace.
/// Objects of other kinds are watched only if they are referenced.
fn is_referred_to(references: &BTreeSet<Reference>, key: &Key, content: &Content) -> bool {
    let (kind, name) = match content {
        Content::Service(_) => (ReferenceKind::Service, Some(key.name.as_str())),
        Content::Slice(slice) => (ReferenceKind::EndpointSlices, service_of(slice)),
        _ => return true,
    };
    let reference = |name| Reference::new(kind, &Key::new(&key.namespace, name));
    name.is_some_and(|name| references.contains(&reference(name)))
}

/// An API server that is not available is one problem, not one for each watch.
fn sentence(watched: &Watched, failure: &Failure) -> String {
    match failure {
        Failure::Unreachable(why) => {
            format!("the API server cannot be reached; serving the last known objects: {why}")
        }
        Failure::Forbidden(why) if watched.kind == WatchedKind::Pod => format!(
            "{} cannot be read, so their annotation {DRAIN} has no effect; grant list and watch on pods: {why}",
            subject(watched)
        ),
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
    }
}

/// If another program repeatedly overwrites the status of an object, it is corrected once in this time.
const COMPARE_AFTER: Duration = Duration::from_secs(60);
/// How long the start of this replica waits for the first answer of a watch.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same limit while other watches are being answered.
const MAX_ANSWER_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
