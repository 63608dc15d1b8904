//! Counts the users of shared things. The last user releases a thing by dropping its [`Use`].

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// The things of one kind, by key.
pub(crate) struct Uses<K: Eq + Hash>(Arc<Inner<K>>);

struct Inner<K> {
    users: Mutex<HashMap<K, usize>>,
    release: Box<dyn Fn(&K) + Send + Sync>,
}

/// One use of a thing. The thing is released when all of its uses are dropped.
pub(crate) struct Use<K: Eq + Hash> {
    of: K,
    all: Arc<Inner<K>>,
}

impl<K: Eq + Hash + Clone> Uses<K> {
    /// Nothing is used yet. `release` is called for a thing after its last use.
    pub(crate) fn new(release: impl Fn(&K) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { users: Mutex::default(), release: Box::new(release) }))
    }

    /// Adds a user.
    pub(crate) fn begin(&self, of: K) -> Use<K> {
        let mut users = self.0.users.lock();
        let count = users.entry(of.clone()).or_default();
        *count = count.saturating_add(1);
        Use { of, all: Arc::clone(&self.0) }
    }
}

impl<K: Eq + Hash> Drop for Use<K> {
    fn drop(&mut self) {
        // Keep the lock, so that nobody begins to use what is being released.
        let mut users = self.all.users.lock();
        let Some(count) = users.get_mut(&self.of) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            users.remove(&self.of);
            (self.all.release)(&self.of);
        }
    }
}

impl<K: Eq + Hash> fmt::Debug for Uses<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uses").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash> fmt::Debug for Use<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Use").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_releases() {
        let released = Arc::new(Mutex::new(Vec::new()));
        let uses = Uses::new({
            let released = Arc::clone(&released);
            move |name: &&str| released.lock().push(*name)
        });
        let (first, second, _other) = (uses.begin("a"), uses.begin("a"), uses.begin("b"));
        drop(first);
        assert!(released.lock().is_empty());
        drop(second);
        drop(uses.begin("a"));
        assert_eq!(*released.lock(), ["a", "a"]);
    }
}
