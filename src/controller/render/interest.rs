//! Finds the objects whose rendering depends on a change, without checking all others.

use std::collections::{BTreeMap, BTreeSet};

use crate::controller::index::{Changes, Key, Kind, ObjectId, Reference};

use super::references::Dependencies;

/// The dependencies of all renderings: for each dependency, the objects that have it.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    references: BTreeMap<Reference, BTreeSet<ObjectId>>,
    servers: BTreeMap<Key, BTreeSet<ObjectId>>,
    namespaces: BTreeMap<String, BTreeSet<ObjectId>>,
    times: BTreeMap<i64, BTreeSet<ObjectId>>,
}

/// The changes of the set of all references.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceChanges {
    /// References that an object has now and none had before.
    pub added: BTreeSet<Reference>,
    /// References that no object has any more.
    pub removed: BTreeSet<Reference>,
}

impl Interest {
    /// Returns the objects to render again: those that have changed, and those that depend on a change.
    pub(crate) fn affected(&self, changes: &Changes) -> BTreeSet<ObjectId> {
        let servers = changes.own.iter().filter(|id| id.kind == Kind::Server);
        let attached = servers.filter_map(|id| self.servers.get(&id.key));
        let references = changes.references.iter().filter_map(|reference| self.references.get(reference));
        let namespaces = changes.namespaces.iter().filter_map(|name| self.namespaces.get(name));
        let others = attached.chain(references).chain(namespaces).flatten();
        changes.own.iter().chain(others).cloned().collect()
    }

    /// Returns the objects that are attached to a `MailServer`.
    pub(crate) fn of_server(&self, server: &Key) -> BTreeSet<ObjectId> {
        self.servers.get(server).cloned().unwrap_or_default()
    }

    /// Returns those of them that have listeners. A `MailServer` may have thousands of routes,
    /// which are not visited.
    pub(crate) fn listeners_of_server(&self, server: &Key) -> impl Iterator<Item = &ObjectId> {
        let attached = self.servers.get(server).into_iter().flatten();
        attached.take_while(|id| id.kind != Kind::Route)
    }

    /// Returns the objects whose rendering differs between two times (Unix seconds) without a change of an object.
    pub(crate) fn between(&self, one: i64, other: i64) -> impl Iterator<Item = &ObjectId> {
        let after = one.min(other).saturating_add(1);
        let passed = (one != other).then(|| self.times.range(after..=one.max(other)));
        passed.into_iter().flatten().flat_map(|(_, ids)| ids)
    }

    /// Replaces the dependencies of an object. Adds the references that are now used first or no longer used to
    /// `changes`.
    pub(crate) fn replace(
        &mut self,
        id: &ObjectId,
        old: &Dependencies,
        new: &Dependencies,
        changes: &mut ReferenceChanges,
    ) {
        replace(&mut self.servers, id, &old.servers, &new.servers);
        replace(&mut self.namespaces, id, old.namespace.as_slice(), new.namespace.as_slice());
        replace(&mut self.times, id, &old.times, &new.times);
        let (added, removed) = replace(&mut self.references, id, &old.references, &new.references);
        // One object may add a reference that another one has removed.
        for reference in added {
            if !changes.removed.remove(&reference) {
                changes.added.insert(reference);
            }
        }
        for reference in removed {
            if !changes.added.remove(&reference) {
                changes.removed.insert(reference);
            }
        }
    }
}

/// Replaces the dependencies of one kind. Returns those that are now used first, and those that are no longer used.
fn replace<'a, T: Ord + Clone + 'a>(
    interest: &mut BTreeMap<T, BTreeSet<ObjectId>>,
    id: &ObjectId,
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) -> (Vec<T>, Vec<T>) {
    let mut over: BTreeSet<&T> = old.into_iter().collect();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for thing in new {
        if !over.remove(thing) {
            let ids = interest.entry(thing.clone()).or_default();
            if ids.is_empty() {
                added.push(thing.clone());
            }
            ids.insert(id.clone());
        }
    }
    for thing in over {
        let Some(ids) = interest.get_mut(thing) else { continue };
        ids.remove(id);
        if ids.is_empty() {
            interest.remove(thing);
            removed.push(thing.clone());
        }
    }
    (added, removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_of_a_server_are_not_visited_for_its_listeners() {
        let server = Key::new("mail", "s");
        let mut interest = Interest::default();
        let ids = [(Kind::Route, "a"), (Kind::Listener, "b"), (Kind::Route, "c"), (Kind::Listener, "d")]
            .map(|(kind, name)| ObjectId::new(kind, &Key::new("mail", name)));
        let of_server = Dependencies { servers: BTreeSet::from([server.clone()]), ..Dependencies::default() };
        for id in &ids {
            interest.replace(id, &Dependencies::default(), &of_server, &mut ReferenceChanges::default());
        }
        let listeners: Vec<_> = interest.listeners_of_server(&server).collect();
        assert_eq!(listeners, [&ids[1], &ids[3]]);
        assert_eq!(interest.of_server(&server), BTreeSet::from(ids));
    }
}
