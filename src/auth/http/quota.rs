//! Limits the connections to auth services in the whole process, over all workers and services.
//!
//! Each session has one file descriptor reserved for the auth service. Kept connections use the same descriptors, so
//! one of them is closed if a new connection would exceed the limit.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

/// The limit and the count of connections in the process. Clones share them.
#[derive(Clone, Debug)]
pub struct Quota(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: AtomicUsize,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<dyn KeepsConnections>>>,
}

/// A pool of kept connections.
pub(super) trait KeepsConnections: Send + Sync + fmt::Debug {
    /// Closes all of them.
    fn close_kept(&self);

    /// Closes the one that was kept for the longest time. Returns false if none is kept.
    fn close_longest_kept(&self) -> bool;
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(super) struct Share(Quota);

impl Quota {
    /// Creates a quota for at most this many used and kept connections.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let (most, open) = (AtomicUsize::new(most), AtomicUsize::default());
        Self(Arc::new(Inner { most, open, pools: Mutex::default() }))
    }

    /// Changes the limit.
    pub fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// Closes all kept connections, because the process has no descriptor left.
    pub fn close_kept(&self) {
        for pool in self.pools() {
            pool.close_kept();
        }
    }

    /// Registers a pool whose kept connections may be closed.
    pub(super) fn join(&self, pool: &Arc<impl KeepsConnections + 'static>) {
        let mut pools = self.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        let pool = Arc::downgrade(pool);
        pools.push(pool);
    }

    /// Counts a new connection, and closes kept connections if the limit is exceeded. It always succeeds, because the
    /// caller has a reserved descriptor.
    pub(super) fn take(&self) -> Share {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        let share = Share(self.clone());
        if self.is_exceeded() {
            // Do not hold the list's lock here, because each pool has its own lock.
            for pool in self.pools() {
                while self.is_exceeded() && pool.close_longest_kept() {}
            }
        }
        share
    }

    /// Tells whether there are more connections than the limit.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > self.0.most.load(Ordering::Relaxed)
    }

    fn pools(&self) -> Vec<Arc<dyn KeepsConnections>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn KeepsConnections>>> {
        self.0.pools.lock()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
