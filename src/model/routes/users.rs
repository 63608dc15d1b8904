//! Long lists of users: the names in one text, with an index of four bytes for each.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use hashbrown::HashTable;

use crate::protocol::User;

/// A list of users: their names one after another, and an index by hash.
#[derive(Default)]
pub struct UserList {
    /// Each name ends with a line feed, which no name contains.
    text: Box<[u8]>,
    /// The positions of the names in `text`.
    index: HashTable<u32>,
}

/// A name with its hash, for the lookup in several lists.
pub struct Hashed<'a> {
    name: &'a [u8],
    hash: u64,
}

impl<'a> Hashed<'a> {
    /// Hashes a name.
    #[must_use]
    pub fn new(name: &'a [u8]) -> Self {
        Self { name, hash: HASHER.hash_one(name) }
    }

    /// Returns the hash. It differs between processes, and two names may have one hash.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.hash
    }
}

impl UserList {
    /// Creates a list of these users, without duplicates. Users beyond 4 GiB of names are ignored; a ConfigMap has at
    /// most 1 MiB.
    pub fn new(users: impl IntoIterator<Item = User>) -> Self {
        let mut list = Builder::default();
        for user in users {
            list.add(user.as_bytes());
        }
        list.finish()
    }

    /// Returns the number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Tells whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Tells whether the list has a name.
    #[must_use]
    pub fn has(&self, user: &Hashed<'_>) -> bool {
        self.index.find(user.hash, |start| name_at(&self.text, *start) == user.name).is_some()
    }

    /// Returns all names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split_inclusive(|byte| *byte == b'\n').map(|name| name.strip_suffix(b"\n").unwrap_or(name))
    }

    /// Returns the memory that the list needs, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.text.len().saturating_add(self.index.allocation_size())
    }
}

/// A list that is being created.
#[derive(Default)]
struct Builder {
    text: Vec<u8>,
    index: HashTable<u32>,
}

impl Builder {
    fn add(&mut self, name: &[u8]) {
        let Ok(start) = u32::try_from(self.text.len()) else { return };
        let user = Hashed::new(name);
        if self.index.find(user.hash, |start| name_at(&self.text, *start) == name).is_some() {
            return;
        }
        self.text.extend_from_slice(name);
        self.text.push(b'\n');
        let text = &self.text;
        self.index.insert_unique(user.hash, start, |start| HASHER.hash_one(name_at(text, *start)));
    }

    fn finish(mut self) -> UserList {
        let text = self.text.into_boxed_slice();
        self.index.shrink_to_fit(|start| HASHER.hash_one(name_at(&text, *start)));
        UserList { text, index: self.index }
    }
}

fn name_at(text: &[u8], start: u32) -> &[u8] {
    let rest = usize::try_from(start).ok().and_then(|start| text.get(start..)).unwrap_or_default();
    rest.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Users may be chosen by tenants, so the hash has a random key.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl PartialEq for UserList {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for UserList {}

/// Shows the number of users only, because their names are personal data.
impl fmt::Debug for UserList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserList({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_has_exactly_its_users() {
        let name = |number: u32| User::new(format!("user{number}@example.org").as_bytes());
        let list = UserList::new((0..10_000).chain(0..10).map(name));
        assert_eq!((list.len(), list.names().count()), (10_000, 10_000));
        let has = |user: &User| list.has(&Hashed::new(user.as_bytes()));
        assert!((0..10_000).all(|number| has(&name(number))));
        assert!((10_000..20_000).all(|number| !has(&name(number))));
        assert!(!has(&User::new(b"user1@example.or")) && !has(&User::new(b"")));
        assert_eq!(format!("{list:?}"), "UserList(10000)");
    }
}
