//! Long lists of users: the names in one text, with an index of four bytes for each.

use std::collections::HashSet;
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
    /// The hashes of their domains, in order.
    domains: Box<[u64]>,
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
            list.add(&user);
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

    /// Tells whether a user of the list has the same domain, or also none. Two domains have one hash by accident so
    /// rarely that the answer needs no comparison.
    #[must_use]
    pub fn has_domain_of(&self, user: &User) -> bool {
        self.domains.binary_search(&hash_of_domain(user)).is_ok()
    }

    /// Returns all names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split_inclusive(|byte| *byte == b'\n').map(|name| name.strip_suffix(b"\n").unwrap_or(name))
    }

    /// Returns the memory that the list needs, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let domains = self.domains.len().saturating_mul(size_of::<u64>());
        self.text.len().saturating_add(self.index.allocation_size()).saturating_add(domains)
    }
}

/// A list that is being created.
#[derive(Default)]
struct Builder {
    text: Vec<u8>,
    index: HashTable<u32>,
    domains: HashSet<u64>,
}

impl Builder {
    fn add(&mut self, user: &User) {
        let name = user.as_bytes();
        let Ok(start) = u32::try_from(self.text.len()) else { return };
        let hashed = Hashed::new(name);
        if self.index.find(hashed.hash, |start| name_at(&self.text, *start) == name).is_some() {
            return;
        }
        self.text.extend_from_slice(name);
        self.text.push(b'\n');
        let text = &self.text;
        self.index.insert_unique(hashed.hash, start, |start| HASHER.hash_one(name_at(text, *start)));
        self.domains.insert(hash_of_domain(user));
    }

    fn finish(mut self) -> UserList {
        let text = self.text.into_boxed_slice();
        self.index.shrink_to_fit(|start| HASHER.hash_one(name_at(&text, *start)));
        let mut domains: Box<[u64]> = self.domains.into_iter().collect();
        domains.sort_unstable();
        UserList { text, index: self.index, domains }
    }
}

/// Hashes the domain of a user. Users without one have one hash too.
fn hash_of_domain(user: &User) -> u64 {
    HASHER.hash_one(user.domain().unwrap_or_default())
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

    #[test]
    fn a_list_knows_the_domains_of_its_users() {
        let user = |name: &str| User::new(name.as_bytes());
        let list = UserList::new(["al@a.example", "bob@b.example", "al@b.example"].map(user));
        assert!(list.has_domain_of(&user("joe@b.example")) && list.has_domain_of(&user("al@A.example")));
        assert!(!list.has_domain_of(&user("al@c.example")) && !list.has_domain_of(&user("al")));
        assert_eq!(list.domains.len(), 2);
        assert!(UserList::new([user("al")]).has_domain_of(&user("bob")));
    }
}
