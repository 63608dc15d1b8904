//! How many connections to auth services the whole process holds, over all workers and services.
//!
//! Each session has one file descriptor in reserve for the auth service. Kept connections use the same descriptors, so
//! one of them is closed where a new connection would be one too many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::pool::Pool;

/// Connections to auth services of the whole process; clones share one count.
#[derive(Clone, Debug)]
pub struct Quota(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: AtomicUsize,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// One connection's place in the count.
#[derive(Debug)]
pub(super) struct Share(Quota);

impl Quota {
    /// For so many connections, used and kept ones.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let (most, open) = (AtomicUsize::new(most), AtomicUsize::default());
        Self(Arc::new(Inner { most, open, pools: Mutex::default() }))
    }

    /// From now on, so many.
    pub fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// Closes every connection that is kept, because the process has no descriptor left.
    pub fn close_kept(&self) {
        for pool in self.pools() {
            pool.close_kept();
        }
    }

    /// A pool whose kept connections may be closed.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut pools = self.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// A place for a new connection; kept connections make room for it. There is always one: whoever asks has a descriptor
    /// in reserve.
    pub(super) fn take(&self) -> Share {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        let share = Share(self.clone());
        if self.is_exceeded() {
            // Not while the list is locked: a pool has a lock of its own.
            for pool in self.pools() {
                while self.is_exceeded() && pool.close_longest_kept() {}
            }
        }
        share
    }

    /// Whether there are more connections than there may be.
    pub(super) fn is_exceeded(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > self.0.most.load(Ordering::Relaxed)
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.0.pools.lock()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
