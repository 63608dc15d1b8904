//! Metrics of what comes and goes: routes and endpoints. Each has series for a protocol while somebody holds its
//! handles, and only so many have series of their own.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::protocol::Protocol;

use super::OTHER;

/// The series of one kind of thing.
pub(crate) trait Series: Debug {
    /// What identifies a thing; its text is the value of the first label.
    type Id: Clone + Debug + Eq + Hash + ToString;
    /// The handles of one thing.
    type Handles: Debug;

    /// Returns the handles for these values of the first two labels: the name and the protocol.
    fn handles(&self, labels: [&str; 2]) -> Self::Handles;

    /// Removes the series.
    fn remove(&self, handles: &Self::Handles, labels: [&str; 2]);
}

/// All things of one kind that have series.
#[derive(Debug)]
pub(crate) struct Family<S: Series> {
    pub(super) series: S,
    /// Things, each counted once for each protocol, that have series of their own. Further ones share [`OTHER`].
    limit: usize,
    known: Mutex<Known<S>>,
}

/// A thing and a protocol. `None`: all things that have no series of their own.
type Key<Id> = (Option<Id>, Protocol);

type Known<S> = HashMap<Key<<S as Series>::Id>, Weak<Kept<S>>>;

/// The metric handles of one thing for one protocol. When the last user drops them, the series are removed.
#[derive(Debug)]
pub(crate) struct Kept<S: Series> {
    key: Key<S::Id>,
    /// The value of the first label.
    pub(super) name: String,
    pub(super) handles: S::Handles,
    family: Arc<Family<S>>,
}

impl<S: Series> Family<S> {
    /// Nothing is known yet.
    pub(super) fn new(series: S, limit: usize) -> Arc<Self> {
        Arc::new(Self { series, limit, known: Mutex::default() })
    }

    /// Returns the handles of a thing and creates them on first use. Without an `id`, or beyond the limit, they are those
    /// of all things without series of their own.
    pub(crate) fn of(self: &Arc<Self>, id: Option<&S::Id>, protocol: Protocol) -> Arc<Kept<S>> {
        let mut known = self.known.lock();
        let mut key = (id.cloned(), protocol);
        if !known.contains_key(&key) && known.len() >= self.limit {
            key.0 = None;
        }
        if let Some(same) = known.get(&key).and_then(Weak::upgrade) {
            return same;
        }
        let name = key.0.as_ref().map_or_else(|| OTHER.to_owned(), ToString::to_string);
        let handles = self.series.handles([&name, protocol.name()]);
        let made = Arc::new(Kept { key: key.clone(), name, handles, family: Arc::clone(self) });
        known.insert(key, Arc::downgrade(&made));
        made
    }
}

impl<S: Series> Kept<S> {
    /// Returns what the handles belong to. `None`: all things that have no series of their own.
    pub(super) fn id(&self) -> Option<&S::Id> {
        self.key.0.as_ref()
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.key.1
    }
}

impl<S: Series> Drop for Kept<S> {
    fn drop(&mut self) {
        // Keep the lock, so that the series are not removed after the thing has come back and uses them.
        let family = Arc::clone(&self.family);
        let mut known = family.known.lock();
        if known.get(&self.key).is_some_and(|kept| kept.strong_count() == 0) {
            known.remove(&self.key);
            family.series.remove(&self.handles, [&self.name, self.key.1.name()]);
        }
    }
}
