//! What must be remembered between renders: the last good, the revision, and since when a listener is served as it
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Listener, ListenerId, Snapshot, Socket};
use crate::net::ListenAddress;

use super::index::{Index, ObjectId, Reference};
use super::render::ports::{Effects, Served};
use super::render::{Environment, Look, ObjectOutcome, Renderer};

/// Turns objects into numbered snapshots.
#[derive(Debug, Default)]
pub struct Publisher {
    renderer: Renderer,
    current: Arc<Snapshot>,
    served: BTreeMap<ListenerId, Since>,
    outcomes: BTreeMap<ObjectId, Arc<ObjectOutcome>>,
}

/// Where a listener is served as it is now, and since when.
#[derive(Debug)]
struct Since {
    address: ListenAddress,
    listener: Arc<Listener>,
    revision: u64,
}

/// What is new after a render.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The next snapshot, if it differs from the last.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Every object whose outcome is another than before, which is new or gone, or of which a listener is served
    /// as it is only since this snapshot.
    pub changed: BTreeSet<ObjectId>,
    /// What nobody refers to any more.
    pub released: Vec<Reference>,
}

impl Publisher {
    /// What would come of what has changed since something was last taken.
    #[must_use]
    pub fn look(&mut self, index: &mut Index, environment: &Environment) -> Look {
        self.renderer.look(index, environment)
    }

    /// Takes the last look; a snapshot that differs from the last gets the next revision.
    pub fn take(&mut self, look: Look) -> Published {
        let taken = self.renderer.take(look);
        let mut changed = self.take_outcomes(taken.outcomes);
        let sockets = self.other_sockets(&taken.effects);
        let is_new = !sockets.is_empty() || self.current.revision == 0;
        let revision = if is_new { self.current.revision + 1 } else { self.current.revision };
        self.take_listeners(taken.effects.listeners, revision, &mut changed);
        if is_new {
            self.take_sockets(sockets, revision, &mut changed);
        }
        let snapshot = is_new.then(|| Arc::clone(&self.current));
        Published { snapshot, changed, released: taken.released }
    }

    /// What became of every object in the last render.
    #[must_use]
    pub fn outcomes(&self) -> &BTreeMap<ObjectId, Arc<ObjectOutcome>> {
        &self.outcomes
    }

    /// The revision since which a listener is served as it is now: itself, and what all listeners of its socket have
    /// in common. A report of that revision or a later one speaks about it. `None` where it is not served.
    #[must_use]
    pub fn since(&self, id: &ListenerId) -> Option<u64> {
        self.served.get(id).map(|since| since.revision)
    }

    /// A listener as it is served now.
    #[must_use]
    pub fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        self.served.get(id).map(|since| &*since.listener)
    }

    /// The last published snapshot.
    #[must_use]
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Whether any object refers to it.
    #[must_use]
    pub fn wants(&self, reference: &Reference) -> bool {
        self.renderer.wants(reference)
    }

    fn take_outcomes(
        &mut self,
        outcomes: BTreeMap<ObjectId, Option<Arc<ObjectOutcome>>>,
    ) -> BTreeSet<ObjectId> {
        let mut changed = BTreeSet::new();
        for (id, outcome) in outcomes {
            if self.outcomes.get(&id) == outcome.as_ref() {
                continue;
            }
            match outcome {
                Some(outcome) => self.outcomes.insert(id.clone(), outcome),
                None => self.outcomes.remove(&id),
            };
            changed.insert(id);
        }
        changed
    }

    /// The sockets that are others than now; `None`: none any more.
    fn other_sockets(&self, effects: &Effects) -> BTreeMap<ListenAddress, Option<Socket>> {
        let socket = |address: &ListenAddress| {
            let socket = self.renderer.ports().socket(address);
            let same = match (self.current.sockets.get(address), &socket) {
                (Some(old), Some(new)) => has_same_head(old, new) && has_same_listeners(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            (!same).then(|| (address.clone(), socket))
        };
        effects.addresses.iter().filter_map(socket).collect()
    }

    fn take_listeners(
        &mut self,
        listeners: BTreeMap<ListenerId, Option<Served>>,
        revision: u64,
        changed: &mut BTreeSet<ObjectId>,
    ) {
        for (id, served) in listeners {
            let Some(Served { object, address, listener }) = served else {
                self.served.remove(&id);
                continue;
            };
            let is_same = |old: &Since| old.address == address && Arc::ptr_eq(&old.listener, &listener);
            if !self.served.get(&id).is_some_and(is_same) {
                self.served.insert(id, Since { address, listener, revision });
                changed.insert(object);
            }
        }
    }

    fn take_sockets(
        &mut self,
        others: BTreeMap<ListenAddress, Option<Socket>>,
        revision: u64,
        changed: &mut BTreeSet<ObjectId>,
    ) {
        let mut sockets = self.current.sockets.clone();
        for (address, socket) in others {
            let Some(socket) = socket else {
                sockets.remove(&address);
                continue;
            };
            let old = sockets.get(&address);
            if old.is_some_and(|old| !has_same_head(old, &socket)) {
                for (listener, object) in socket.listeners.iter().zip(self.renderer.ports().objects(&address))
                {
                    if let Some(since) = self.served.get_mut(&listener.id) {
                        since.revision = revision;
                    }
                    changed.insert(object);
                }
            }
            sockets.insert(address, Arc::new(socket));
        }
        self.current = Arc::new(Snapshot { revision, sockets });
    }
}

/// Whether all that listeners of a socket have in common is the same.
fn has_same_head(old: &Socket, new: &Socket) -> bool {
    old.options == new.options
        && old.protocol == new.protocol
        && old.tls_mode == new.tls_mode
        && old.proxy_protocol == new.proxy_protocol
}

/// By allocation: equal ones have the same.
fn has_same_listeners(old: &Socket, new: &Socket) -> bool {
    old.listeners.len() == new.listeners.len()
        && old.listeners.iter().zip(&new.listeners).all(|(old, new)| Arc::ptr_eq(old, new))
}

#[cfg(test)]
mod tests {
    use super::super::render::tests::{World, server, tls_secret};
    use super::*;

    fn listener(name: &str, port: u16) -> String {
        format!("{{name: {name}, port: {port}, backendAddress: 'b:1', hostnames: [{name}.test]}}")
    }

    fn published(world: &mut World, yaml: &str) -> (Option<u64>, Vec<String>) {
        let Published { snapshot, changed, .. } = world.publish(yaml).1;
        (snapshot.map(|snapshot| snapshot.revision), changed.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_listener_is_as_it_is_since_its_own_change_and_not_its_neighbours() {
        let mut world = World::new();
        let secret = tls_secret("t", &["*.test"]);
        let both = |settings: &str| {
            let first =
                server(&listener("a", 993), &format!("tls: {{certificateRefs: [{{name: t}}]}}{settings}"));
            let second = server(&listener("b", 993), "tls: {certificateRefs: [{name: t}]}");
            first + &second.replace("name: s,", "name: r,") + &secret
        };
        let everything = vec!["MailServer mail/r".to_owned(), "MailServer mail/s".to_owned()];
        assert_eq!(published(&mut world, &both("")), (Some(1), everything.clone()));
        assert_eq!(published(&mut world, &both("")), (None, vec![]));
        let changed = published(&mut world, &both(", timeouts: {connect: 5s}"));
        assert_eq!(changed, (Some(2), vec!["MailServer mail/s".to_owned()]));
        let since = |object: &str, listener: &str| {
            let (namespace, object, listener) = ("mail".into(), object.into(), listener.into());
            world.publisher.since(&ListenerId { namespace, object, listener })
        };
        assert_eq!((since("s", "a"), since("r", "b"), since("s", "c")), (Some(2), Some(1), None));
        let gone = published(&mut world, "");
        assert_eq!(gone, (Some(3), everything));
    }

    #[test]
    fn what_a_socket_is_made_of_is_every_listeners_of_it() {
        let mut world = World::new();
        let secret = tls_secret("t", &["*.test"]);
        let with = |backlog: u16| {
            let socket =
                |name| listener(name, 993).replace("port", &format!("socket: {{backlog: {backlog}}}, port"));
            let listeners = format!("{}, {}", socket("a"), socket("b"));
            server(&listeners, "tls: {certificateRefs: [{name: t}]}") + &secret
        };
        published(&mut world, &with(100));
        published(&mut world, &with(200));
        assert!(world.publisher.served.values().all(|served| served.revision == 2));
    }
}
