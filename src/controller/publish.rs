//! What must be remembered between renders: the last good, the revision, and since when a socket is as it
//! is.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Snapshot;
use crate::net::ListenAddress;

use super::index::Objects;
use super::render::{Environment, LastGood, ObjectOutcome, Rendered, render};

/// Turns objects into numbered snapshots.
#[derive(Debug, Default)]
pub struct Publisher {
    last_good: LastGood,
    current: Arc<Snapshot>,
    since: BTreeMap<ListenAddress, u64>,
    outcomes: Vec<ObjectOutcome>,
}

impl Publisher {
    /// What would come of these objects.
    #[must_use]
    pub fn look(&self, objects: &Objects, environment: &Environment) -> Rendered {
        render(objects, &self.last_good, environment)
    }

    /// Takes it; a snapshot that differs from the last gets the next revision and is returned.
    pub fn take(&mut self, rendered: Rendered) -> Option<Arc<Snapshot>> {
        self.last_good = rendered.last_good;
        self.outcomes = rendered.objects;
        if rendered.snapshot.sockets == self.current.sockets && self.current.revision > 0 {
            return None;
        }
        let revision = self.current.revision + 1;
        let mut sockets = rendered.snapshot.sockets;
        let mut since = BTreeMap::new();
        for (address, socket) in &mut sockets {
            let same = self.current.sockets.get(address).filter(|old| *old == socket);
            let old = same.and_then(|same| Some((Arc::clone(same), *self.since.get(address)?)));
            if let Some((same, _)) = &old {
                *socket = Arc::clone(same);
            }
            since.insert(address.clone(), old.map_or(revision, |(_, since)| since));
        }
        self.since = since;
        self.current = Arc::new(Snapshot { revision, sockets });
        Some(Arc::clone(&self.current))
    }

    /// What became of every object in the last render.
    #[must_use]
    pub fn outcomes(&self) -> &[ObjectOutcome] {
        &self.outcomes
    }

    /// By address: the revision since which the socket is as it is now. A report of that revision or a later
    /// one speaks about it.
    #[must_use]
    pub fn since(&self) -> &BTreeMap<ListenAddress, u64> {
        &self.since
    }

    /// The last published snapshot.
    #[must_use]
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }
}
