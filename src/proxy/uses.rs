//! Counts how many listeners use a shared thing, so that it is released with the last of them.

use std::collections::HashMap;
use std::hash::Hash;

/// Reference counts by key.
#[derive(Debug)]
pub(crate) struct Uses<K>(HashMap<K, usize>);

impl<K> Default for Uses<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Uses<K> {
    /// Adds a user. Returns true for the first one.
    pub(crate) fn begin(&mut self, of: K) -> bool {
        let users = self.0.entry(of).or_default();
        *users = users.saturating_add(1);
        *users == 1
    }

    /// Removes a user. Returns true for the last one.
    pub(crate) fn end(&mut self, of: &K) -> bool {
        let Some(users) = self.0.get_mut(of) else { return false };
        *users = users.saturating_sub(1);
        let is_last = *users == 0;
        if is_last {
            self.0.remove(of);
        }
        is_last
    }

    /// Returns every key that has a user.
    pub(crate) fn all(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}
