//! Renders everything from scratch, in the simplest way: what the renderer must come to as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::controller::index::{Kind, ObjectId, Objects, Reference};
use crate::model::{Snapshot, Socket};
use crate::net::ListenAddress;

use super::conflicts::{Standing, among_strangers};
use super::draft::Drafting;
use super::ports::Claims;
use super::table::{Rendering, Table};
use super::tls::Certificates;
use super::{Candidate, Environment, ObjectOutcome};

/// What came of a rendering.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rendered {
    /// What to serve, without its revision.
    pub(crate) snapshot: Snapshot,
    /// Every object that is ours, in the order of kind, namespace and name.
    pub(crate) objects: Vec<ObjectOutcome>,
    /// The references that were looked up.
    pub(crate) references: BTreeSet<Reference>,
    /// For the next rendering.
    table: Table,
}

impl Rendered {
    /// Everything, after what was rendered before.
    pub(crate) fn next(&self, objects: &Objects, environment: &Environment) -> Self {
        let certificates = &mut Certificates::default();
        let mut drafting = Drafting { objects, environment, table: &self.table, certificates };
        let servers = objects.servers.keys().map(|key| ObjectId::new(Kind::Server, key));
        let listeners = objects.listeners.keys().map(|key| ObjectId::new(Kind::Listener, key));
        let drafted = |id: ObjectId| Some((id.clone(), Rendering::new(drafting.object(&id)?)));
        let table = Table(servers.chain(listeners).filter_map(drafted).collect());
        let claims: Claims = table.0.values().flat_map(|rendering| rendering.claims.clone()).collect();
        let standings = among_strangers(&claims.values().collect::<Vec<_>>(), &self.snapshot);
        let own = |(id, rendering): (&ObjectId, &Rendering)| {
            Some((id.clone(), (**rendering.own.as_ref()?).clone()))
        };
        let mut outcomes: BTreeMap<ObjectId, ObjectOutcome> = table.0.iter().filter_map(own).collect();
        let mut served = Vec::new();
        for ((rank, claim), standing) in claims.iter().zip(standings) {
            match standing {
                Standing::Loses(violation) => {
                    let outcome = outcomes.get_mut(&ObjectId::of_listener(&claim.claim.id)).unwrap();
                    outcome.listeners[rank.listener].lose(claim, violation);
                }
                Standing::Wins => served.push(claim),
                Standing::Yields | Standing::Undecided => {}
            }
        }
        let references = table.0.values().flat_map(|r| r.dependencies.references.clone()).collect();
        Self { snapshot: assemble(served), objects: outcomes.into_values().collect(), references, table }
    }
}

/// Sockets by address, from what the conflict rules left, the strongest first.
fn assemble(claims: Vec<&Arc<Candidate>>) -> Snapshot {
    let mut sockets: BTreeMap<ListenAddress, Socket> = BTreeMap::new();
    for Candidate { claim, listener } in claims.into_iter().map(AsRef::as_ref) {
        let Some(listener) = listener else { continue };
        let socket = sockets.entry(claim.address.clone()).or_insert_with(|| claim.socket());
        socket.listeners.push(Arc::clone(listener));
    }
    let sockets = sockets.into_iter().map(|(address, socket)| (address, Arc::new(socket))).collect();
    Snapshot { revision: 0, sockets }
}
