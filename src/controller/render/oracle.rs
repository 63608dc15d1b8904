//! Renders everything from scratch in the simplest way. Tests compare the renderer's results with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::controller::index::{Key, Kind, ObjectId, Objects, Reference};
use crate::model::{Listener, Listeners, Snapshot};
use crate::net::ListenAddress;

use super::certificates::Certificates;
use super::claim::Claim;
use super::conflicts::{Decision, among_objects};
use super::draft::Drafting;
use super::ports::Claims;
use super::route::draft::RouteDraft;
use super::route::lists::UserLists;
use super::route::routing::ServerRoutes;
use super::table::{Rendering, Table};
use super::{Candidate, Environment, ObjectOutcome, Precedence};

/// The result of a rendering.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendered {
    /// The snapshot, without its revision.
    pub(crate) snapshot: Snapshot,
    /// The outcomes of all objects of our class, sorted by kind, namespace and name.
    pub(crate) objects: Vec<ObjectOutcome>,
    /// The references that were looked up.
    pub(crate) references: BTreeSet<Reference>,
    /// The state for the next rendering.
    table: Table,
    lists: UserLists,
}

impl Rendered {
    /// Renders all objects, after the previous rendering.
    pub(crate) fn next(&self, objects: &Objects, environment: &Environment) -> Self {
        let certificates = &mut Certificates::default();
        let mut lists = self.lists.clone();
        let routes = &BTreeMap::new();
        let table = &self.table;
        let mut drafting = Drafting { objects, environment, table, certificates, lists: &mut lists, routes };
        let ids = objects.routes.keys().map(|key| ObjectId::new(Kind::Route, key));
        let of_routes: Vec<(ObjectId, Rendering)> =
            ids.filter_map(|id| Some((id.clone(), Rendering::new(drafting.object(&id)?)))).collect();
        for (id, rendering) in &of_routes {
            lists.keep(&id.key, |reference| rendering.dependencies.references.contains(reference));
        }
        for key in self.table.0.keys().filter(|id| id.kind == Kind::Route).map(|id| &id.key) {
            if !objects.routes.contains_key(key) {
                lists.keep(key, |_| false);
            }
        }
        let routes = &combined(&of_routes);
        let mut drafting = Drafting { objects, environment, table, certificates, lists: &mut lists, routes };
        let servers = objects.servers.keys().map(|key| ObjectId::new(Kind::Server, key));
        let listeners = objects.listeners.keys().map(|key| ObjectId::new(Kind::Listener, key));
        let drafted = |id: ObjectId| Some((id.clone(), Rendering::new(drafting.object(&id)?)));
        let table = Table(servers.chain(listeners).filter_map(drafted).chain(of_routes).collect());
        let claims: Claims = table.0.values().flat_map(|rendering| rendering.claims.clone()).collect();
        let decisions = among_objects(&claims.values().collect::<Vec<_>>(), &self.snapshot);
        let own = |(id, rendering): (&ObjectId, &Rendering)| {
            Some((id.clone(), (**rendering.own.as_ref()?).clone()))
        };
        let mut outcomes: BTreeMap<ObjectId, ObjectOutcome> = table.0.iter().filter_map(own).collect();
        for (id, outcome) in &mut outcomes {
            let Some(route) = &outcome.route else { continue };
            let conflicts = routes.get(&route.server).and_then(|routes| routes.conflicts.get(&id.key));
            outcome.violations.extend(conflicts.into_iter().flatten().cloned());
        }
        let mut served = Vec::new();
        for ((rank, claim), decision) in claims.iter().zip(decisions) {
            match decision {
                Decision::Loses(violation) => {
                    let outcome = outcomes.get_mut(&ObjectId::of_listener(&claim.claim.id)).unwrap();
                    outcome.listeners[rank.listener].lose(claim, violation);
                }
                Decision::Wins => served.push(claim),
                Decision::Yields | Decision::Undecided => {}
            }
        }
        let references = table.0.values().flat_map(|r| r.dependencies.references.clone()).collect();
        Self {
            snapshot: assemble(served),
            objects: outcomes.into_values().collect(),
            references,
            table,
            lists,
        }
    }
}

/// Combines the routes of each `MailServer`.
fn combined(renderings: &[(ObjectId, Rendering)]) -> BTreeMap<Key, ServerRoutes> {
    let mut by_server: BTreeMap<Key, BTreeMap<Precedence, Arc<RouteDraft>>> = BTreeMap::new();
    for (precedence, route) in renderings.iter().filter_map(|(_, rendering)| rendering.route.clone()) {
        by_server.entry(route.server.clone()).or_default().insert(precedence, route);
    }
    by_server.into_iter().map(|(server, routes)| (server, ServerRoutes::new(routes, None))).collect()
}

/// Groups the claims that have won, the strongest first, into sockets.
fn assemble(claims: Vec<&Arc<Candidate>>) -> Snapshot {
    let mut by_address: BTreeMap<&ListenAddress, (&Claim, Vec<Arc<Listener>>)> = BTreeMap::new();
    for Candidate { claim, listener } in claims.into_iter().map(AsRef::as_ref) {
        let Some(listener) = listener else { continue };
        let (_, listeners) = by_address.entry(&claim.address).or_insert_with(|| (claim, Vec::new()));
        listeners.push(Arc::clone(listener));
    }
    let sockets = by_address.into_iter().filter_map(|(address, (claim, listeners))| {
        let mut listeners = listeners.into_iter();
        let socket = claim.socket(Listeners::new(listeners.next()?, listeners));
        Some((address.clone(), Arc::new(socket)))
    });
    Snapshot { revision: 0, sockets: sockets.collect() }
}
