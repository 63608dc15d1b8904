//! Stores all statuses for the documents and pages of the admin server. The publisher writes it and never reads it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::model::view;

use super::index::ObjectId;
use super::peers::ReplicaState;
use super::status::{Change, Row, Status};

/// The statuses of all objects. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub struct StatusStore(Arc<Mutex<Stored>>);

/// The stored state.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) status: Status,
    pub(super) revision: u64,
    pub(super) problems: Vec<String>,
    pub(super) replicas: Vec<ReplicaState>,
    /// Newest first.
    changes: VecDeque<view::Change>,
}

/// The state besides the listeners.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Problems with reading or writing objects.
    pub problems: Vec<String>,
    /// All replicas, if this one leads.
    pub replicas: Vec<ReplicaState>,
    /// The last changes, newest first.
    pub changes: Vec<view::Change>,
}

impl StatusStore {
    /// Returns the document `/status`.
    #[must_use]
    pub fn document(&self) -> Value {
        let stored = self.lock();
        stored.status.document(stored.revision, &stored.problems)
    }

    /// Calls `read` with the listeners of all objects. It blocks the controller and must be fast.
    pub fn read<T>(&self, read: impl FnOnce(&mut dyn Iterator<Item = Row<'_>>) -> T) -> T {
        read(&mut self.lock().status.rows())
    }

    /// Returns the state besides the listeners.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let stored = self.lock();
        Overview {
            problems: stored.problems.clone(),
            replicas: stored.replicas.clone(),
            changes: stored.changes.iter().cloned().collect(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Stored> {
        self.0.lock()
    }
}

impl Stored {
    /// Adds changes. Only the last [`MAX_CHANGES`] are kept.
    pub(super) fn keep(&mut self, changes: &[Change], now: i64) {
        // The changes of an object as a whole repeat those of its listeners.
        let listeners = changes.iter().filter(|change| change.listener.is_some());
        let of_listeners: BTreeSet<&ObjectId> = listeners.map(|change| &change.object).collect();
        let is_new = |change: &&Change| change.listener.is_some() || !of_listeners.contains(&change.object);
        let last: Vec<&Change> = changes.iter().rev().filter(is_new).take(MAX_CHANGES).collect();
        for change in last.into_iter().rev() {
            self.changes.push_front(change.view(now));
        }
        self.changes.truncate(MAX_CHANGES);
    }
}

/// The maximum number of stored changes.
const MAX_CHANGES: usize = 32;
