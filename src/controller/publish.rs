//! What must be remembered between renders: the last good, the revision, and since when a listener is served as it
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Listener, ListenerId, Snapshot, Socket};
use crate::net::ListenAddress;

use super::index::{ObjectId, Objects};
use super::render::{Environment, LastGood, ObjectOutcome, Rendered, render};

/// Turns objects into numbered snapshots.
#[derive(Debug, Default)]
pub struct Publisher {
    last_good: LastGood,
    current: Arc<Snapshot>,
    since: BTreeMap<ListenerId, u64>,
    outcomes: BTreeMap<ObjectId, Arc<ObjectOutcome>>,
}

/// What is new after a render.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The next snapshot, if it differs from the last.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Every object whose outcome is another than before, which is new or gone, or of which a listener is served
    /// as it is only since this snapshot.
    pub changed: BTreeSet<ObjectId>,
}

impl Publisher {
    /// What would come of these objects.
    #[must_use]
    pub fn look(&self, objects: &Objects, environment: &Environment) -> Rendered {
        render(objects, &self.last_good, environment)
    }

    /// Takes it; a snapshot that differs from the last gets the next revision.
    pub fn take(&mut self, rendered: Rendered) -> Published {
        self.last_good = rendered.last_good;
        let mut changed = self.take_outcomes(rendered.objects);
        if rendered.snapshot.sockets == self.current.sockets && self.current.revision > 0 {
            return Published { snapshot: None, changed };
        }
        let snapshot = self.take_sockets(rendered.snapshot.sockets);
        let is_new = |outcome: &ObjectOutcome| {
            let mut listeners = outcome.listeners.iter();
            listeners.any(|listener| self.since(&listener.id) == Some(snapshot.revision))
        };
        let newly_served =
            self.outcomes.iter().filter(|(_, outcome)| is_new(outcome)).map(|(id, _)| id.clone());
        changed.extend(newly_served);
        self.current = Arc::clone(&snapshot);
        Published { snapshot: Some(snapshot), changed }
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
        self.since.get(id).copied()
    }

    /// The last published snapshot.
    #[must_use]
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    fn take_outcomes(&mut self, outcomes: Vec<ObjectOutcome>) -> BTreeSet<ObjectId> {
        let mut old = std::mem::take(&mut self.outcomes);
        let mut changed = BTreeSet::new();
        for outcome in outcomes {
            let id = outcome.id();
            let kept = old.remove(&id).filter(|old| **old == outcome);
            let outcome = kept.unwrap_or_else(|| {
                changed.insert(id.clone());
                Arc::new(outcome)
            });
            self.outcomes.insert(id, outcome);
        }
        changed.extend(old.into_keys());
        changed
    }

    /// What is as it was stays the same allocation.
    fn take_sockets(&mut self, mut sockets: BTreeMap<ListenAddress, Arc<Socket>>) -> Arc<Snapshot> {
        let revision = self.current.revision + 1;
        let mut since = BTreeMap::new();
        for (address, socket) in &mut sockets {
            let old = self.current.sockets.get(address);
            let kept = kept(old, socket);
            for listener in &socket.listeners {
                let before = kept.get(&listener.id).filter(|old| **old == listener);
                let before = before.and_then(|_| self.since(&listener.id));
                since.insert(listener.id.clone(), before.unwrap_or(revision));
            }
            if let Some(same) = old.filter(|old| *old == socket) {
                *socket = Arc::clone(same);
            }
        }
        self.since = since;
        Arc::new(Snapshot { revision, sockets })
    }
}

/// The listeners of a socket, unless what they have in common is another now.
fn kept<'a>(old: Option<&'a Arc<Socket>>, new: &Socket) -> BTreeMap<&'a ListenerId, &'a Arc<Listener>> {
    let same_head = |old: &&Arc<Socket>| {
        old.options == new.options
            && old.protocol == new.protocol
            && old.tls_mode == new.tls_mode
            && old.proxy_protocol == new.proxy_protocol
    };
    let listeners = old.filter(same_head).into_iter().flat_map(|old| &old.listeners);
    listeners.map(|listener| (&listener.id, listener)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::render::tests::{World, server, tls_secret};
    use super::*;

    fn listener(name: &str, port: u16) -> String {
        format!("{{name: {name}, port: {port}, backendAddress: 'b:1', hostnames: [{name}.test]}}")
    }

    fn published(publisher: &mut Publisher, world: &mut World, yaml: &str) -> (Option<u64>, Vec<String>) {
        let Published { snapshot, changed } = publisher.take(world.render(yaml));
        (snapshot.map(|snapshot| snapshot.revision), changed.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_listener_is_as_it_is_since_its_own_change_and_not_its_neighbours() {
        let (mut publisher, mut world) = (Publisher::default(), World::new());
        let secret = tls_secret("t", &["*.test"]);
        let both = |settings: &str| {
            let first =
                server(&listener("a", 993), &format!("tls: {{certificateRefs: [{{name: t}}]}}{settings}"));
            let second = server(&listener("b", 993), "tls: {certificateRefs: [{name: t}]}");
            first + &second.replace("name: s,", "name: r,") + &secret
        };
        let everything = vec!["MailServer mail/r".to_owned(), "MailServer mail/s".to_owned()];
        assert_eq!(published(&mut publisher, &mut world, &both("")), (Some(1), everything.clone()));
        assert_eq!(published(&mut publisher, &mut world, &both("")), (None, vec![]));
        let changed = published(&mut publisher, &mut world, &both(", timeouts: {connect: 5s}"));
        assert_eq!(changed, (Some(2), vec!["MailServer mail/s".to_owned()]));
        let since = |object: &str, listener: &str| {
            let (namespace, object, listener) = ("mail".into(), object.into(), listener.into());
            publisher.since(&ListenerId { namespace, object, listener })
        };
        assert_eq!((since("s", "a"), since("r", "b"), since("s", "c")), (Some(2), Some(1), None));
        let gone = published(&mut publisher, &mut world, "");
        assert_eq!(gone, (Some(3), everything));
    }

    #[test]
    fn what_a_socket_is_made_of_is_every_listeners_of_it() {
        let (mut publisher, mut world) = (Publisher::default(), World::new());
        let secret = tls_secret("t", &["*.test"]);
        let with = |backlog: u16| {
            let socket =
                |name| listener(name, 993).replace("port", &format!("socket: {{backlog: {backlog}}}, port"));
            let listeners = format!("{}, {}", socket("a"), socket("b"));
            server(&listeners, "tls: {certificateRefs: [{name: t}]}") + &secret
        };
        published(&mut publisher, &mut world, &with(100));
        published(&mut publisher, &mut world, &with(200));
        assert!(publisher.since.values().all(|since| *since == 2), "{:?}", publisher.since);
    }
}
