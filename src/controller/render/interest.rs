//! Who has looked at what: from a change to the objects that it touches, without asking the others.

use std::collections::{BTreeMap, BTreeSet};

use super::super::index::{Changes, Key, Kind, ObjectId, Reference};
use super::references::Looked;

/// What the renderings of all objects depend on, the other way round.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    references: BTreeMap<Reference, BTreeSet<ObjectId>>,
    servers: BTreeMap<Key, BTreeSet<ObjectId>>,
    namespaces: BTreeMap<String, BTreeSet<ObjectId>>,
    times: BTreeMap<i64, BTreeSet<ObjectId>>,
}

impl Interest {
    /// The objects that the changes touch: themselves, and those that looked at them.
    pub(crate) fn touched(&self, changes: &Changes) -> BTreeSet<ObjectId> {
        let servers = changes.own.iter().filter(|id| id.kind == Kind::Server);
        let attached = servers.filter_map(|id| self.servers.get(&id.key));
        let references = changes.references.iter().filter_map(|reference| self.references.get(reference));
        let namespaces = changes.namespaces.iter().filter_map(|name| self.namespaces.get(name));
        let others = attached.chain(references).chain(namespaces).flatten();
        changes.own.iter().chain(others).cloned().collect()
    }

    /// The objects of which something else is to be said at one time than at the other, with nothing changed.
    pub(crate) fn between(&self, one: i64, other: i64) -> impl Iterator<Item = &ObjectId> {
        let after = one.min(other).saturating_add(1);
        let passed = (one != other).then(|| self.times.range(after..=one.max(other)));
        passed.into_iter().flatten().flat_map(|(_, ids)| ids)
    }

    /// Whether anybody has looked for it.
    pub(crate) fn has(&self, reference: &Reference) -> bool {
        self.references.contains_key(reference)
    }

    /// An object has looked at other things than before; the references that nobody looks for any more.
    pub(crate) fn replace(&mut self, id: &ObjectId, old: &Looked, new: &Looked) -> Vec<Reference> {
        replace(&mut self.servers, id, &old.servers, &new.servers);
        replace(&mut self.namespaces, id, old.namespace.as_slice(), new.namespace.as_slice());
        replace(&mut self.times, id, &old.times, &new.times);
        replace(&mut self.references, id, &old.references, &new.references)
    }
}

/// What nobody is interested in any more.
fn replace<'a, T: Ord + Clone + 'a>(
    interest: &mut BTreeMap<T, BTreeSet<ObjectId>>,
    id: &ObjectId,
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) -> Vec<T> {
    let mut over: BTreeSet<&T> = old.into_iter().collect();
    for thing in new {
        if !over.remove(thing) {
            interest.entry(thing.clone()).or_default().insert(id.clone());
        }
    }
    let mut gone = Vec::new();
    for thing in over {
        let Some(ids) = interest.get_mut(thing) else { continue };
        ids.remove(id);
        if ids.is_empty() {
            interest.remove(thing);
            gone.push(thing.clone());
        }
    }
    gone
}
