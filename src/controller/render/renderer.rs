//! Renders the objects that a change affects, stores the result of every object, and numbers the snapshots.
//!
//! The result is the same as that of rendering everything from scratch. `renderer/tests.rs` compares both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::controller::index::{Changes, Index, Key, Kind, ObjectId, Objects};
use crate::model::{Listener, ListenerId, Snapshot, Socket};
use crate::net::ListenAddress;

use super::certificates::Certificates;
use super::draft::Drafting;
use super::interest::{Interest, ReferenceChanges};
use super::ports::{Effects, Ports};
use super::route::lists::UserLists;
use super::route::routing::ServerRoutes;
use super::table::{Drafted, Rendering, Table};
use super::{Candidate, Environment, ObjectOutcome};

/// Renders objects into numbered snapshots.
#[derive(Debug, Default)]
pub struct Renderer {
    table: Table,
    ports: Ports,
    interest: Interest,
    certificates: Certificates,
    lists: UserLists,
    /// The routes of each `MailServer` that has some.
    routes: BTreeMap<Key, ServerRoutes>,
    /// The environment of the last rendering.
    environment: Option<Environment>,
    snapshot: Arc<Snapshot>,
}

/// The result of one call of [`Renderer::render`].
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// The next snapshot, if it differs from the last one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The objects that are new or removed, whose outcome has changed, or that have a listener that changed in this
    /// snapshot.
    pub objects: BTreeSet<ObjectId>,
    /// The changes of the references of all objects.
    pub references: ReferenceChanges,
}

impl Renderer {
    /// Renders what has changed since the last call.
    pub fn render(&mut self, index: &mut Index, environment: &Environment) -> Delta {
        let (objects, changes) = index.take();
        let mut affected = self.affected(&changes, environment);
        for reference in &changes.references {
            self.certificates.forget_changed(objects, reference);
        }
        let mut delta = Delta::default();
        let mut effects = Effects::new(self.snapshot.revision + 1);
        // Listeners use the routes of their MailServer.
        let (routes, mut others): (BTreeSet<_>, BTreeSet<_>) =
            affected.iter().cloned().partition(|id| id.kind == Kind::Route);
        let mut servers = self.servers_of(&routes);
        self.draft_and_replace(&routes, objects, environment, &mut effects, &mut delta);
        servers.append(&mut self.servers_of(&routes));
        let dependents = self.combine_routes(servers);
        others.extend(dependents.iter().filter(|id| id.kind != Kind::Route).cloned());
        affected.extend(dependents);
        self.draft_and_replace(&others, objects, environment, &mut effects, &mut delta);
        self.environment = Some(environment.clone());
        self.ports.settle(&self.snapshot, &mut effects);
        affected.append(&mut effects.decided);
        for id in affected {
            self.compare_outcome(&id, &mut delta);
        }
        self.assemble(&mut effects, &mut delta);
        delta.objects.append(&mut effects.renewed);
        for reference in &delta.references.removed {
            self.certificates.forget(reference);
        }
        delta
    }

    /// Returns the last snapshot. Its revision is 0 before the first one.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns the outcome of an object; `None` if it does not exist or has another class.
    #[must_use]
    pub fn outcome(&self, id: &ObjectId) -> Option<&Arc<ObjectOutcome>> {
        self.table.0.get(id)?.outcome.as_ref()
    }

    /// Tells whether the object exists, of whatever class.
    #[must_use]
    pub fn exists(&self, id: &ObjectId) -> bool {
        self.table.0.contains_key(id)
    }

    /// Returns the outcomes of all objects.
    pub fn outcomes(&self) -> impl Iterator<Item = (&ObjectId, &Arc<ObjectOutcome>)> {
        self.table.0.iter().filter_map(|(id, rendering)| Some((id, rendering.outcome.as_ref()?)))
    }

    /// Returns the revision in which a listener, or the shared settings of its socket, was last changed. A report of
    /// this revision or a later one describes the current listener. `None` if it is not served.
    #[must_use]
    pub fn since(&self, id: &ListenerId) -> Option<u64> {
        Some(self.served(id)?.1)
    }

    /// Returns the listeners that use the routes of a `MailServer`, and are served.
    pub fn with_routes_of(&self, server: &Key) -> impl Iterator<Item = &Arc<Listener>> {
        let own = self.table.0.get(&ObjectId::new(Kind::Server, server));
        let attached = self.interest.listeners_of_server(server).filter_map(|id| self.table.0.get(id));
        let claims = own.into_iter().chain(attached).flat_map(|rendering| &rendering.claims);
        let served = claims.filter_map(|(rank, candidate)| Some(self.ports.served(rank, candidate)?.0));
        served.filter(|listener| listener.routes.is_some())
    }

    /// Returns a listener as it is served now.
    #[must_use]
    pub fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        Some(self.served(id)?.0)
    }

    fn served(&self, id: &ListenerId) -> Option<(&Arc<Listener>, u64)> {
        let claims = &self.table.0.get(&ObjectId::of_listener(id))?.claims;
        let mut own = claims.iter().filter(|(_, candidate)| candidate.claim.id == *id);
        own.find_map(|(rank, candidate)| self.ports.served(rank, candidate))
    }

    /// Returns the objects to render again.
    fn affected(&self, changes: &Changes, environment: &Environment) -> BTreeSet<ObjectId> {
        let mut affected = self.interest.affected(changes);
        if let Some(before) = &self.environment {
            let same = Environment { now: before.now, ..environment.clone() } == *before;
            affected.extend(self.table.0.keys().filter(|_| !same).cloned());
            affected.extend(self.interest.between(before.now, environment.now).cloned());
        }
        affected
    }

    /// Renders all objects before any result is replaced, because all of them use the previous results.
    fn draft_and_replace(
        &mut self,
        ids: &BTreeSet<ObjectId>,
        objects: &Objects,
        environment: &Environment,
        effects: &mut Effects,
        delta: &mut Delta,
    ) {
        let (table, certificates) = (&self.table, &mut self.certificates);
        let (lists, routes) = (&mut self.lists, &self.routes);
        let mut drafting = Drafting { objects, environment, table, certificates, lists, routes };
        let drafted: Vec<_> = ids.iter().map(|id| (id, drafting.object(id))).collect();
        for (id, drafted) in drafted {
            self.replace(id, drafted, effects, delta);
        }
    }

    /// Returns the `MailServer`s of routes.
    fn servers_of(&self, routes: &BTreeSet<ObjectId>) -> BTreeSet<Key> {
        routes.iter().filter_map(|id| Some(self.table.route(id)?.server.clone())).collect()
    }

    /// Combines the routes of these `MailServer`s again. Returns the objects that depend on those that have changed.
    fn combine_routes(&mut self, servers: BTreeSet<Key>) -> BTreeSet<ObjectId> {
        let mut dependents = BTreeSet::new();
        for server in servers {
            let attached = self.interest.of_server(&server);
            let routes = attached.iter().filter_map(|id| self.table.0.get(id)?.route.clone());
            let routes = routes.filter(|(_, route)| route.server == server).collect();
            let last = self.routes.get(&server);
            let new = ServerRoutes::new(routes, last);
            if last.is_some_and(|last| *last == new) || (last.is_none() && new.is_empty()) {
                continue;
            }
            dependents.extend(attached);
            dependents.insert(ObjectId::new(Kind::Server, &server));
            if new.is_empty() {
                self.routes.remove(&server);
            } else {
                self.routes.insert(server, new);
            }
        }
        dependents
    }

    fn replace(&mut self, id: &ObjectId, drafted: Option<Drafted>, effects: &mut Effects, delta: &mut Delta) {
        let old = self.table.0.remove(id).unwrap_or_default();
        let exists = drafted.is_some();
        let new = drafted.map(|drafted| Rendering::new(with_same_allocations(&old, drafted)));
        let mut new = new.unwrap_or_default();
        self.interest.replace(id, &old.dependencies, &new.dependencies, &mut delta.references);
        self.ports.replace(&old.claims, &new.claims, effects);
        if id.kind == Kind::Route {
            self.lists.keep(&id.key, |reference| new.dependencies.references.contains(reference));
        }
        if exists {
            new.outcome = old.outcome;
            self.table.0.insert(id.clone(), new);
        } else if old.outcome.is_some() {
            delta.objects.insert(id.clone());
        }
    }

    /// Stores the outcome of an object if it has changed.
    fn compare_outcome(&mut self, id: &ObjectId, delta: &mut Delta) {
        let Some(rendering) = self.table.0.get_mut(id) else { return };
        let outcome =
            with_losses(rendering, &self.ports).map(|outcome| with_conflicts(outcome, &self.routes));
        if rendering.outcome != outcome {
            rendering.outcome = outcome;
            delta.objects.insert(id.clone());
        }
    }

    /// Builds the next snapshot if a socket has changed.
    fn assemble(&mut self, effects: &mut Effects, delta: &mut Delta) {
        let addresses = std::mem::take(&mut effects.addresses);
        let different = |address: ListenAddress| {
            let socket = self.ports.socket(&address);
            let same = match (self.snapshot.sockets.get(&address), &socket) {
                (Some(old), Some(new)) => has_same_head(old, new) && has_same_listeners(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            (!same).then_some((address, socket))
        };
        let different: Vec<(ListenAddress, Option<Socket>)> =
            addresses.into_iter().filter_map(different).collect();
        if different.is_empty() && self.snapshot.revision > 0 {
            return;
        }
        let mut sockets = self.snapshot.sockets.clone();
        for (address, socket) in different {
            let Some(socket) = socket else {
                sockets.remove(&address);
                continue;
            };
            if sockets.get(&address).is_some_and(|old| !has_same_head(old, &socket)) {
                self.ports.restart(&address, effects);
            }
            sockets.insert(address, Arc::new(socket));
        }
        self.snapshot = Arc::new(Snapshot { revision: self.snapshot.revision + 1, sockets });
        delta.snapshot = Some(Arc::clone(&self.snapshot));
    }
}

/// Gives equal values the previous allocation, so that only pointers need to be compared later.
fn with_same_allocations(old: &Rendering, mut drafted: Drafted) -> Drafted {
    let Some(ours) = &mut drafted.ours else { return drafted };
    let same = |candidate: &mut Arc<Candidate>| {
        let id = &candidate.claim.id;
        let earlier = || [old.good(id), old.claim(id)].into_iter().flatten();
        if let Some(old) = earlier().find(|old| *old == candidate) {
            *candidate = Arc::clone(old);
        } else if candidate.listener.is_some()
            && let Some(old) = earlier().find(|old| old.listener == candidate.listener)
        {
            *candidate =
                Arc::new(Candidate { claim: candidate.claim.clone(), listener: old.listener.clone() });
        }
    };
    ours.good.iter_mut().for_each(same);
    ours.claims.values_mut().for_each(same);
    drafted
}

/// Returns the outcome of an object with the conflicts with other objects.
fn with_losses(rendering: &Rendering, ports: &Ports) -> Option<Arc<ObjectOutcome>> {
    let own = rendering.own.as_ref()?;
    let losses = rendering.claims.iter();
    let losses = losses.filter_map(|(rank, claim)| Some((rank, claim, ports.lost(rank, claim)?)));
    let mut losses = losses.peekable();
    if losses.peek().is_none() {
        return Some(Arc::clone(own));
    }
    let mut outcome = (**own).clone();
    for (rank, candidate, violation) in losses {
        if let Some(listener) = outcome.listeners.get_mut(rank.listener) {
            listener.lose(candidate, violation.clone());
        }
    }
    Some(Arc::new(outcome))
}

/// Returns the outcome of a route with its conflicts with other routes.
fn with_conflicts(outcome: Arc<ObjectOutcome>, routes: &BTreeMap<Key, ServerRoutes>) -> Arc<ObjectOutcome> {
    let of_route = |key| routes.get(&outcome.route.as_ref()?.server)?.conflicts.get(key);
    match of_route(&outcome.key) {
        None => outcome,
        Some(conflicts) => {
            let mut outcome = (*outcome).clone();
            outcome.violations.extend(conflicts.iter().cloned());
            Arc::new(outcome)
        }
    }
}

/// Tells whether the shared settings of both sockets are equal.
fn has_same_head(old: &Socket, new: &Socket) -> bool {
    old.options == new.options
        && old.protocol == new.protocol
        && old.tls_mode == new.tls_mode
        && old.proxy_protocol == new.proxy_protocol
}

/// Compares pointers, because equal listeners have the same allocation.
fn has_same_listeners(old: &Socket, new: &Socket) -> bool {
    old.listeners.len() == new.listeners.len()
        && old.listeners.iter().zip(&new.listeners).all(|(old, new)| Arc::ptr_eq(old, new))
}

#[cfg(test)]
mod tests;
