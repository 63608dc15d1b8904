//! What only the replica that leads does: it asks the others, writes status and events, and keeps the Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::status::ConditionStatus;

use super::super::index::ObjectId;
use super::super::outlet::Outlet;
use super::super::reason::Reason;
use super::super::roll::{Roll, Touched};
use super::super::service::OwnService;
use super::super::status::{self, Change, Surroundings};
use super::events;
use super::lease::{Lease, Standing};
use super::own_service::{Keeper, Known};
use super::replicas::{self, Replicas};
use super::store::Store;
use super::writer::{Outbox, Said, Writer};
use super::{Clients, ClusterOptions, send_if_other};

/// Our standing, and all that follows from it.
#[derive(Debug)]
pub(super) struct Lead {
    standing: watch::Receiver<Standing>,
    leads: bool,
    /// What the other replicas say.
    replicas: mpsc::Receiver<replicas::Event>,
    asks: bool,
    service: watch::Receiver<Known>,
    /// To the keeper of the Service's ports.
    ports: watch::Sender<Option<BTreeSet<u16>>>,
    /// To the writer of status.
    outbox: Outbox,
    /// To the writer of events.
    events: mpsc::Sender<Change>,
    /// The node that we are on.
    node_address: Option<IpAddr>,
    /// Waits until there is something to lead.
    lease: Option<(Lease, watch::Sender<Standing>)>,
    running: Option<JoinHandle<()>>,
    /// Whether the Service's ports are to be looked at though no status was told.
    are_ports_stale: bool,
}

/// Something that the lead has to do with.
#[derive(Debug)]
pub(super) enum News {
    /// We lead, or do not any more.
    Standing,
    /// The Service is another.
    Service,
    /// Something of the other replicas.
    Replicas(replicas::Event),
}

impl Lead {
    /// Starts its tasks, which end with `shutdown`.
    pub(super) fn start(
        clients: &Clients,
        options: &ClusterOptions,
        outlet: &Outlet,
        shutdown: &CancellationToken,
    ) -> Self {
        outlet.stand_by();
        let replica = outlet.ledger().replica().clone();
        let (standings, standing) = watch::channel(Standing::default());
        let identity = format!("{}_{}", replica.name, replica.instance);
        let lease = Lease::new(clients.requests.clone(), options.lease.clone(), identity);
        let outbox = Outbox::default();
        let writer = Writer::new(clients.requests.clone(), outlet.class(), outbox.clone(), lease.clone());
        tokio::spawn(writer.run(shutdown.clone()));
        let (events, changes) = mpsc::channel(MAX_CHANGES);
        tokio::spawn(events::publish(clients.requests.clone(), replica.name.clone(), changes));
        let (sender, replicas) = mpsc::channel(MAX_ANSWERS);
        if let Some(service) = &options.replicas {
            let replicas = Replicas::new(clients.watches.clone(), service.clone(), &replica.name, sender);
            tokio::spawn(replicas.run(standing.clone()));
        }
        let (known, service) = watch::channel(Known::default());
        let (ports, wanted) = watch::channel(None);
        if let Some(key) = &options.service {
            let keeper = Keeper::new(clients.watches.clone(), key.clone(), outlet.class(), wanted, known);
            tokio::spawn(keeper.run());
        }
        Self {
            standing,
            leads: false,
            replicas,
            asks: options.replicas.is_some(),
            service,
            ports,
            outbox,
            events,
            node_address: replica.node_address,
            lease: Some((lease, standings)),
            running: None,
            are_ports_stale: true,
        }
    }

    /// From now on there is something to lead.
    pub(super) fn run_for_it(&mut self, shutdown: &CancellationToken) {
        if let Some((lease, standings)) = self.lease.take() {
            self.running = Some(tokio::spawn(lease.run(standings, shutdown.clone())));
        }
    }

    /// Waits until the lease is free for somebody else, after the shutdown.
    pub(super) async fn end(self) {
        if let Some(running) = self.running {
            // It ends by itself; whoever waits for us is patient only for a while.
            let _ = running.await;
        }
    }

    /// Waits for news; where nobody has any more, for ever.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            Ok(()) = self.standing.changed() => News::Standing,
            Ok(()) = self.service.changed() => News::Service,
            Some(event) = self.replicas.recv() => News::Replicas(event),
            else => std::future::pending().await,
        }
    }

    /// Takes news over into what is known.
    pub(super) fn take(&mut self, news: News, outlet: &mut Outlet, store: &Store) {
        let now = Instant::now();
        match news {
            News::Standing => self.stand(outlet, store),
            News::Service => self.are_ports_stale = true,
            News::Replicas(replicas::Event::Ready(ready)) => outlet.hear(|roll| roll.set(&ready, now)),
            News::Replicas(replicas::Event::Heard(from, page)) => {
                outlet.hear(|roll| roll.heard(from, *page, now));
            }
            News::Replicas(replicas::Event::Failed(from, why)) => outlet.hear(|roll| {
                roll.failed(from, why);
                Touched::none()
            }),
            News::Replicas(replicas::Event::Unknown(why)) => outlet.hear(|roll| roll.fail(why)),
        }
        outlet.surround(self.surroundings(outlet));
    }

    /// Time passes.
    pub(super) fn look(&mut self, outlet: &mut Outlet) {
        outlet.hear(|roll| roll.look(Instant::now()));
    }

    /// What is wrong with any of it.
    pub(super) fn problems(&self, outlet: &Outlet) -> Vec<String> {
        let standing = self.standing.borrow().failure.clone();
        let service = self.service.borrow().problem.clone();
        let replicas = outlet.replicas().into_iter().flat_map(Roll::problems);
        replicas.chain(standing).chain(service).chain(self.outbox.failure()).collect()
    }

    /// Says what is known of these objects, where we lead and they say something else.
    pub(super) fn say(&mut self, told: &BTreeSet<ObjectId>, outlet: &Outlet, store: &Store) {
        if !self.leads {
            return;
        }
        let mut said = Vec::new();
        for id in told {
            // What waits to be written was about another moment, or about what is gone.
            let is_under_way = self.outbox.forget(id);
            let Some(seen) = store.own(id) else { continue };
            let (uid, resource_version) = (seen.uid.clone(), seen.resource_version.clone());
            match outlet.status_of(id) {
                Some(status) if status != seen.status => {
                    let news = outlet.news(id, &seen.uid, &seen.status);
                    for change in news.into_iter().filter(|change| !is_end_of_silence(change, &seen.status)) {
                        if let Err(error) = self.events.try_send(change) {
                            tracing::debug!("an event is left out: {error}");
                        }
                    }
                    said.push((id.clone(), Said { uid, resource_version, status }));
                }
                // What is on its way there will not hold.
                Some(status) if is_under_way => {
                    said.push((id.clone(), Said { uid, resource_version, status }))
                }
                Some(_) => {}
                None if seen.is_told => {
                    said.push((id.clone(), Said { uid, resource_version, status: Value::Null }));
                }
                None => {}
            }
        }
        if !said.is_empty() {
            self.outbox.put(said);
        }
        if !told.is_empty() || std::mem::take(&mut self.are_ports_stale) {
            self.show_ports(outlet);
        }
    }

    /// Has the Service show what clients should find.
    fn show_ports(&self, outlet: &Outlet) {
        let shows =
            |port| self.service.borrow().service.as_ref().is_some_and(|own: &OwnService| own.shows(port));
        let wanted = Some(outlet.ports(shows));
        send_if_other(&self.ports, wanted);
    }

    fn stand(&mut self, outlet: &mut Outlet, store: &Store) {
        let leads = self.standing.borrow_and_update().leads;
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        self.are_ports_stale = true;
        if !leads {
            self.outbox.clear();
            self.ports.send_replace(None);
            outlet.lead(None, |_| None);
            return;
        }
        let instance = outlet.ledger().replica().instance.clone();
        let roll = if self.asks { Roll::awaited(&instance) } else { Roll::alone(&instance) };
        outlet.lead(Some(roll), |id| store.own(id).map(|seen| &seen.status));
        // Of objects that went to another class, it may be that nobody has taken back what was said.
        let others = store.told().filter(|id| !outlet.published().outcomes().contains_key(id));
        self.say(&others.collect(), outlet, store);
    }

    fn surroundings(&self, outlet: &Outlet) -> Surroundings {
        let service = self.service.borrow().service.clone();
        let others = outlet.replicas().into_iter().flat_map(Roll::node_addresses);
        Surroundings { service, nodes: others.chain(self.node_address).collect() }
    }
}

/// That a replica does not answer is no event of each object, and neither is that it does again.
fn is_end_of_silence(change: &Change, said: &Value) -> bool {
    let Change { news: status::News::Is(condition), .. } = change else { return false };
    let mut before = said["conditions"].as_array().into_iter().flatten();
    condition.type_ == "Ready"
        && condition.status == ConditionStatus::True
        && before.any(|old| old["type"] == "Ready" && old["reason"] == Reason::ReplicaUnreachable.name())
}

/// Changes that wait to be events; more are in the log and in the conditions only.
const MAX_CHANGES: usize = 256;
/// Answers of replicas that wait to be heard.
const MAX_ANSWERS: usize = 64;
