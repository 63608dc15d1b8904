//! The state of one watch: its objects and its problems.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::controller::cluster::failure::Failure;
use crate::controller::cluster::watches::{Seen, WatchUpdate};
use crate::controller::index::{Key, UNANSWERED};
use crate::controller::manifest::Content;

#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) started: Instant,
    pub(super) list: ListState,
    /// The objects, in their last valid state. In boxes, because a map has room for eleven values, and most watches have
    /// one object.
    pub(super) held: BTreeMap<Key, Box<Seen>>,
    /// The problems of invalid objects.
    pub(super) broken: BTreeMap<Key, String>,
    /// The last failure, and its time.
    pub(super) failure: Option<(Failure, Instant)>,
}

/// The state of a watch's first list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controller::cluster) enum ListState {
    /// No answer yet.
    None,
    /// Refused.
    Forbidden,
    /// Complete.
    Whole,
}

impl WatchState {
    /// Creates the state of a watch without an answer.
    pub(super) fn new(started: Instant) -> Self {
        Self { started, list: ListState::None, held: BTreeMap::new(), broken: BTreeMap::new(), failure: None }
    }

    /// Applies an update. Returns whether a new rendering can differ; only objects that `concerns` selects count.
    pub(super) fn apply(
        &mut self,
        update: WatchUpdate,
        now: Instant,
        concerns: &impl Fn(&Key, &Seen) -> bool,
    ) -> bool {
        if !matches!(update, WatchUpdate::Failed(_)) {
            self.failure = None;
        }
        match update {
            WatchUpdate::Listed(all) => {
                let mut old = std::mem::take(&mut self.held);
                self.broken.clear();
                let mut changed = self.list != ListState::Whole;
                for (key, seen) in all {
                    let before = old.remove(&key);
                    changed |= self.put(key, seen, before, concerns);
                }
                self.list = ListState::Whole;
                changed | old.iter().any(|(key, seen)| concerns(key, seen))
            }
            WatchUpdate::Applied(key, seen) => {
                let old = self.held.remove(&key);
                self.put(key, *seen, old, concerns)
            }
            WatchUpdate::Deleted(key) => {
                self.broken.remove(&key);
                self.held.remove(&key).is_some_and(|seen| concerns(&key, &seen))
            }
            WatchUpdate::Failed(failure) => {
                // The known objects stay.
                let first = self.list == ListState::None && matches!(failure, Failure::Forbidden(_));
                if first {
                    self.list = ListState::Forbidden;
                }
                self.failure = Some((failure, now));
                first
            }
        }
    }

    /// Stores an object; an invalid one keeps its previous state. Returns whether a new rendering can differ.
    fn put(
        &mut self,
        key: Key,
        seen: Result<Seen, String>,
        old: Option<Box<Seen>>,
        concerns: &impl Fn(&Key, &Seen) -> bool,
    ) -> bool {
        let mut seen = match (seen, old) {
            (Err(why), old) => {
                let kept = if old.is_some() { "; its last content stays in use" } else { "" };
                self.broken.insert(key.clone(), format!("{why}{kept}"));
                self.held.extend(old.map(|old| (key, old)));
                return false;
            }
            (Ok(seen), None) => {
                let changed = concerns(&key, &seen);
                self.broken.remove(&key);
                self.held.insert(key, Box::new(seen));
                return changed;
            }
            (Ok(seen), Some(old)) => (seen, old),
        };
        let same = seen.0.keep(&seen.1);
        let changed = !same && (concerns(&key, &seen.0) || concerns(&key, &seen.1));
        self.broken.remove(&key);
        self.held.insert(key, Box::new(seen.0));
        changed
    }

    /// Returns why the list is not complete, if it is not.
    pub(super) fn unknown(&self) -> Option<String> {
        (self.list != ListState::Whole).then(|| self.why_unknown())
    }

    /// Returns why the list is not complete.
    pub(super) fn why_unknown(&self) -> String {
        self.failure.as_ref().map_or_else(|| UNANSWERED.to_owned(), |(failure, _)| failure.to_string())
    }
}

impl Seen {
    /// Tells whether the object differs only in what a rendering does not use, which usually is our own status.
    /// Unchanged content keeps its allocation, so that a certificate is not parsed again.
    fn keep(&mut self, old: &Self) -> bool {
        match (&mut self.content, &old.content) {
            (Content::Server(_), Content::Server(_)) | (Content::Listener(_), Content::Listener(_)) => {
                self.uid == old.uid && self.generation == old.generation
            }
            (Content::Secret(new), Content::Secret(old)) => keep(new, old),
            (Content::ConfigMap(new), Content::ConfigMap(old)) => keep(new, old),
            (Content::Service(new), Content::Service(old)) => keep(new, old),
            (Content::Slice(new), Content::Slice(old)) => keep(new, old),
            (Content::Namespace(new), Content::Namespace(old)) => keep(new, old),
            (Content::LeavingPod, Content::LeavingPod) => true,
            _ => false,
        }
    }
}

fn keep<T: PartialEq>(new: &mut Arc<T>, old: &Arc<T>) -> bool {
    let same = new == old;
    if same {
        *new = Arc::clone(old);
    }
    same
}
