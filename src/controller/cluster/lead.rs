//! The tasks of the leading replica: ask the other replicas, write status and events, and manage the Service's ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube::Client;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::status::ConditionStatus;
use crate::controller::index::{Key, ObjectId};
use crate::controller::peers::{Affected, Peers};
use crate::controller::publisher::Publisher;
use crate::controller::reason::Reason;
use crate::controller::service::{Front, OwnService, have_no_replica};
use crate::controller::status::{self, Change, Surroundings};
use crate::controller::tickets::secret_of;
use crate::model::SharedTicketKeys;
use crate::model::view::Role;

use super::events;
use super::lease::{Leadership, Lease};
use super::own_service::{Keeper, KnownService};
use super::replicas::{self, Question, Replicas};
use super::store::Store;
use super::tickets::TicketKeeper;
use super::writer::{Outbox, StatusUpdate, Writer};
use super::{Clients, ClusterOptions, send_if_other};

/// The state of leadership, and the tasks that depend on it.
pub(super) struct Lead {
    leadership: watch::Receiver<Leadership>,
    /// For the requests to other replicas.
    client: Client,
    /// The Service whose endpoints are the replicas.
    replicas: Option<Key>,
    /// The keys with which they encrypt their answers.
    keys: SharedTicketKeys,
    /// The answers of the other replicas, while they are asked.
    requests: Option<ReplicaRequests>,
    service: watch::Receiver<KnownService>,
    /// What is wrong with the Secret of the keys of session tickets.
    tickets: watch::Receiver<Option<String>>,
    /// The wanted ports, sent to the task that manages the Service.
    ports: watch::Sender<Option<BTreeSet<u16>>>,
    /// The statuses for the writer.
    outbox: Outbox,
    /// The changes for the task that writes events.
    events: mpsc::Sender<Change>,
    /// The address of the node of this replica.
    node_address: Option<IpAddr>,
    /// The lease, until this replica starts to compete for it.
    lease: Option<(Lease, watch::Sender<Leadership>)>,
    running: Option<JoinHandle<()>>,
}

/// The requests to the other replicas. Dropping this ends them.
#[derive(Debug)]
struct ReplicaRequests {
    events: mpsc::Receiver<replicas::Event>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
pub(super) enum LeadEvent {
    /// This replica has become the leader, or is no longer the leader.
    Leadership,
    /// The Service has changed.
    Service,
    /// An event about the other replicas.
    Replicas(replicas::Event),
}

impl Lead {
    /// Starts the tasks. They end with `shutdown`.
    pub(super) fn start(
        clients: &Clients,
        options: &ClusterOptions,
        publisher: &mut Publisher,
        leadership: watch::Sender<Leadership>,
        shutdown: &CancellationToken,
    ) -> Self {
        publisher.follow();
        let replica = publisher.ledger().replica().clone();
        let identity = format!("{}_{}", replica.name, replica.instance);
        let lease = Lease::new(clients.requests.clone(), options.lease.clone(), identity);
        tokio::spawn(lease.clone().name_leader(leadership.clone(), shutdown.clone()));
        tokio::spawn(lease.clone().beat(shutdown.clone()));
        let outbox = Outbox::default();
        let writer = Writer::new(clients.requests.clone(), publisher.class(), outbox.clone(), lease.clone());
        tokio::spawn(writer.run(shutdown.clone()));
        let (events, changes) = mpsc::channel(MAX_CHANGES);
        tokio::spawn(events::publish(clients.requests.clone(), replica.name.clone(), changes));
        let front = options.service.clone().map_or(Front::None, Front::Awaited);
        let (known, service) = watch::channel(KnownService { front, ..KnownService::default() });
        let (ports, wanted) = watch::channel(None);
        if let Some(key) = &options.service {
            let keeper = Keeper::new(
                clients.watches.clone(),
                key.clone(),
                publisher.class(),
                lease.clone(),
                wanted,
                known,
            );
            tokio::spawn(keeper.run());
        }
        let (problem, tickets) = watch::channel(None);
        let keeper = TicketKeeper::new(
            clients.watches.clone(),
            secret_of(&options.lease),
            publisher.class(),
            lease.clone(),
            leadership.subscribe(),
            options.ticket_keys.clone(),
            problem,
        );
        tokio::spawn(keeper.run());
        Self {
            leadership: leadership.subscribe(),
            client: clients.watches.clone(),
            replicas: options.replicas.clone(),
            keys: options.ticket_keys.clone(),
            requests: None,
            service,
            tickets,
            ports,
            outbox,
            events,
            node_address: replica.node_address,
            lease: Some((lease, leadership)),
            running: None,
        }
    }

    /// Starts to compete for the lease.
    pub(super) fn compete(&mut self, shutdown: &CancellationToken) {
        if let Some((lease, leadership)) = self.lease.take() {
            self.running = Some(tokio::spawn(lease.run(leadership, shutdown.clone())));
        }
    }

    /// Starts or stops the requests to the other replicas: they are needed while this replica starts or leads.
    pub(super) fn request_replicas(&mut self, is_starting: bool, publisher: &mut Publisher) {
        match publisher.peers() {
            None if is_starting => {
                let peers = self.ask(publisher);
                publisher.set_peers(Some(peers));
            }
            Some(_) if !is_starting && !publisher.leads() => {
                self.requests = None;
                publisher.set_peers(None);
            }
            Some(_) | None => {}
        }
    }

    /// Starts the requests to the other replicas.
    fn ask(&mut self, publisher: &Publisher) -> Peers {
        let instance = &publisher.ledger().replica().instance;
        let Some(service) = self.replicas.clone() else { return Peers::alone(instance) };
        let (sender, events) = mpsc::channel(MAX_ANSWERS);
        let task = tokio::spawn(
            Replicas::new(self.client.clone(), service, self.keys.clone(), Question::Objects, sender).run(),
        );
        self.requests = Some(ReplicaRequests { events, _task: AbortOnDropHandle::new(task) });
        Peers::awaited(instance)
    }

    /// Waits until the lease is released, after the shutdown.
    pub(super) async fn end(self) {
        if let Some(running) = self.running {
            // The task ends by itself. The caller limits the time of this wait.
            let _ = running.await;
        }
    }

    /// Waits for an event. Never returns if all channels are closed.
    pub(super) async fn next_event(&mut self) -> LeadEvent {
        tokio::select! {
            Ok(()) = self.leadership.changed() => LeadEvent::Leadership,
            Ok(()) = self.service.changed() => LeadEvent::Service,
            // Never returns if no replica is asked.
            event = next_replica_event(&mut self.requests) => LeadEvent::Replicas(event),
        }
    }

    /// Applies an event.
    pub(super) fn take(&mut self, event: LeadEvent, publisher: &mut Publisher, store: &Store) {
        let now = Instant::now();
        match event {
            LeadEvent::Leadership => self.apply_leadership(publisher, store),
            LeadEvent::Service => publisher.mark_ports_stale(),
            LeadEvent::Replicas(replicas::Event::Listed(listed)) => {
                let ready = listed.into_iter().filter(|(_, replica)| replica.is_ready);
                let ready = ready.map(|(address, replica)| (address, replica.name)).collect();
                publisher.update_peers(|peers| peers.set(&ready, now))
            }
            LeadEvent::Replicas(replicas::Event::Answered(from, page)) => {
                publisher.update_peers(|peers| peers.answered(from, *page, now));
            }
            LeadEvent::Replicas(replicas::Event::Failed(from, why)) => publisher.update_peers(|peers| {
                peers.failed(from, why);
                Affected::none()
            }),
            LeadEvent::Replicas(replicas::Event::Unknown(why)) => {
                publisher.update_peers(|peers| peers.fail(why))
            }
        }
        publisher.set_surroundings(self.surroundings(publisher));
    }

    /// Applies timeouts.
    pub(super) fn apply_timeouts(&mut self, publisher: &mut Publisher) {
        publisher.update_peers(|peers| peers.apply_timeouts(Instant::now()));
    }

    /// Returns all current problems of these tasks.
    pub(super) fn problems(&self, publisher: &Publisher) -> Vec<String> {
        let leadership = self.leadership.borrow().failure.clone();
        let service = self.service.borrow().problem.clone();
        let replicas = publisher.replicas().into_iter().flat_map(Peers::problems);
        let tickets = self.tickets.borrow().clone();
        replicas.chain(leadership).chain(service).chain(tickets).chain(self.outbox.failure()).collect()
    }

    /// Writes the status of these objects if this replica leads and the status has changed.
    pub(super) fn write_status(
        &mut self,
        ids: &BTreeSet<ObjectId>,
        publisher: &mut Publisher,
        store: &Store,
    ) {
        if !publisher.leads() {
            return;
        }
        self.queue_status(ids, publisher, store);
        self.show_ports(publisher);
    }

    fn queue_status(&mut self, ids: &BTreeSet<ObjectId>, publisher: &Publisher, store: &Store) {
        let mut updates = Vec::new();
        for id in ids {
            // A waiting status is outdated, or its object no longer exists.
            let is_being_written = self.outbox.forget(id);
            let Some(seen) = store.own(id) else {
                self.outbox.remove(id);
                continue;
            };
            let (uid, resource_version) = (seen.uid.clone(), seen.resource_version.clone());
            let previous = seen.status.value();
            match publisher.status_of(id) {
                Some(status) if status != previous => {
                    let changes = publisher.changes_since(id, &seen.uid, &previous);
                    for change in
                        changes.into_iter().filter(|change| !is_end_of_unreachable(change, &previous))
                    {
                        if let Err(error) = self.events.try_send(change) {
                            tracing::debug!("dropped an event: {error}");
                        }
                    }
                    updates.push((id.clone(), StatusUpdate { uid, resource_version, status }));
                }
                // A status that is being written now is outdated, so this one must follow it.
                Some(status) if is_being_written => {
                    updates.push((id.clone(), StatusUpdate { uid, resource_version, status }))
                }
                Some(_) => {}
                None if seen.has_our_status => {
                    updates.push((id.clone(), StatusUpdate { uid, resource_version, status: Value::Null }));
                }
                None => {}
            }
        }
        if !updates.is_empty() {
            self.outbox.put(updates);
        }
    }

    /// Sends the wanted ports of the Service.
    fn show_ports(&self, publisher: &mut Publisher) {
        let shown = self.service.borrow().front.known().map(OwnService::shown).unwrap_or_default();
        if let Some(wanted) = publisher.take_ports(&shown) {
            send_if_other(&self.ports, Some(wanted));
        }
    }

    fn apply_leadership(&mut self, publisher: &mut Publisher, store: &Store) {
        let leads = self.leadership.borrow_and_update().role == Role::Leader;
        if leads == publisher.leads() {
            return;
        }
        if !leads {
            self.outbox.clear();
            self.ports.send_replace(None);
            publisher.follow();
            return;
        }
        let peers = publisher.take_peers().unwrap_or_else(|| self.ask(publisher));
        publisher.lead(peers, |id| store.own(id).map(|seen| seen.status.value()));
        // If an object has moved to another class, its status of this class may still have to be removed.
        let others = store.with_our_status().filter(|id| publisher.renderer().outcome(id).is_none());
        self.queue_status(&others.collect(), publisher, store);
    }

    fn surroundings(&self, publisher: &Publisher) -> Surroundings {
        let KnownService { mut front, endpoints, .. } = self.service.borrow().clone();
        if let Front::Known(service) = front {
            let replicas = publisher.replicas().into_iter().flat_map(Peers::addresses).collect();
            front = Front::Known(Box::new(service.with_other_pods(have_no_replica(&endpoints, &replicas))));
        }
        let others = publisher.replicas().into_iter().flat_map(Peers::node_addresses);
        Surroundings { front, nodes: others.chain(self.node_address).collect() }
    }
}

/// Waits for an event about the replicas. Never returns while they are not asked.
async fn next_replica_event(requests: &mut Option<ReplicaRequests>) -> replicas::Event {
    if let Some(requests) = requests
        && let Some(event) = requests.events.recv().await
    {
        return event;
    }
    std::future::pending().await
}

/// Tells whether the change only ends the condition that a replica did not answer. Neither its start nor its end is an
/// event of each object.
fn is_end_of_unreachable(change: &Change, status: &Value) -> bool {
    let Change { kind: status::ChangeKind::Changed(condition), .. } = change else { return false };
    let mut before = status["conditions"].as_array().into_iter().flatten();
    condition.type_ == "Ready"
        && condition.status == ConditionStatus::True
        && before.any(|old| old["type"] == "Ready" && old["reason"] == Reason::ReplicaUnreachable.name())
}

/// The maximum number of changes that wait to become events. Further changes are in the log and in the conditions only.
const MAX_CHANGES: usize = 256;
/// The maximum number of events about replicas that wait.
const MAX_ANSWERS: usize = 64;
