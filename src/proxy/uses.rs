//! How many listeners use something that they share, so that it can be given up with the last of them.

use std::collections::HashMap;
use std::hash::Hash;

/// Counts users.
#[derive(Debug)]
pub(crate) struct Uses<K>(HashMap<K, usize>);

impl<K> Default for Uses<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Uses<K> {
    /// One user more; true for the first.
    pub(crate) fn begin(&mut self, of: K) -> bool {
        let users = self.0.entry(of).or_default();
        *users = users.saturating_add(1);
        *users == 1
    }

    /// One user less; true for the last.
    pub(crate) fn end(&mut self, of: &K) -> bool {
        let Some(users) = self.0.get_mut(of) else { return false };
        *users = users.saturating_sub(1);
        let is_last = *users == 0;
        if is_last {
            self.0.remove(of);
        }
        is_last
    }

    /// Everything that has a user.
    pub(crate) fn all(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}
