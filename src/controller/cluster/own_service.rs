//! Mailgress's own Service in the cluster: reads the addresses for clients and, while this replica leads, applies the
//! ports of the listeners with server-side apply. Fields of others are not changed.

mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::Config;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::controller::index::Key;
use crate::controller::service::{Front, OwnService, PortPlan, ready_addresses, ready_ports};

use super::backoff::{REPORTED_FOR, backoff};
use super::failure::{Failure, answered};
use super::follow::follow;
use super::lease::Lease;
use super::send_if_other;
use settle::Endpoints;

/// The state of the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownService {
    pub(super) front: Front,
    /// The addresses of its ready endpoints.
    pub(super) endpoints: BTreeSet<IpAddr>,
    /// Why it cannot be read, or does not have the wanted ports.
    pub(super) problem: Option<String>,
}

/// The results of the watches and of the last write.
#[derive(Default)]
struct Seen {
    /// `None` until the watch has answered.
    service: Option<Option<Arc<Service>>>,
    endpoints: Endpoints,
    addresses: BTreeSet<IpAddr>,
    /// Why the Service cannot be read, and since when this is reported.
    unread: Option<(Failure, Instant)>,
    unwritten: Option<Unwritten>,
}

/// Why the Service does not have the wanted ports.
enum Unwritten {
    /// The API server refuses a change or does not answer.
    Refused {
        /// The reason.
        why: String,
        /// The ports that are missing for this, each with its reason.
        ports: BTreeMap<u16, String>,
    },
    /// The last ports stay, because a Service needs at least one.
    KeptLast,
}

/// Watches the Service and applies its ports.
pub(super) struct Keeper {
    client: Client,
    key: Key,
    field_manager: String,
    lease: Lease,
    /// The wanted ports; `None` while this replica does not lead.
    wanted: watch::Receiver<Option<BTreeSet<u16>>>,
    known: watch::Sender<KnownService>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Creates the task for the Service `key` and the listeners of `class`.
    pub(super) fn new(
        client: Client,
        key: Key,
        class: &str,
        lease: Lease,
        wanted: watch::Receiver<Option<BTreeSet<u16>>>,
        known: watch::Sender<KnownService>,
    ) -> Self {
        let field_manager = format!("mailgress-ports/{class}").chars().take(LONGEST_MANAGER).collect();
        Self { client, key, field_manager, lease, wanted, known }
    }

    /// Watches and applies until the other end of a channel is closed.
    pub(super) async fn run(mut self) {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let config = Config::default().fields(&format!("metadata.name={}", self.key.name));
        let mut services = pin!(follow(api.clone(), config));
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let selector = format!("kubernetes.io/service-name={}", self.key.name);
        let mut slices = pin!(follow(slices, Config::default().labels(&selector)));
        let mut seen = Seen::default();
        let mut backoff = backoff();
        let (mut retry_in, mut settles): (Option<Duration>, Option<Instant>) = (None, None);
        loop {
            let expires = seen.unread.as_ref().map(|(_, at)| *at + REPORTED_FOR);
            tokio::select! {
                found = services.next() => match found {
                    None => return,
                    Some(Ok(found)) => {
                        seen.service = Some(found.into_iter().next());
                        seen.unread = None;
                    }
                    Some(Err(failure)) => seen.unread = Some((failure, Instant::now())),
                },
                found = slices.next() => match found {
                    None => return,
                    // The Service has no EndpointSlice, so only its ports are checked.
                    Some(Ok(found)) if found.is_empty() => {
                        (seen.endpoints, seen.addresses) = (Endpoints::default(), BTreeSet::new());
                    }
                    Some(Ok(found)) => {
                        seen.addresses = ready_addresses(found.iter().map(AsRef::as_ref));
                        seen.endpoints.read(ready_ports(found.iter().map(AsRef::as_ref)), Instant::now());
                    }
                    // The last known endpoints stay. If there are none, Ready does not depend on endpoints.
                    Some(Err(failure)) => {
                        tracing::debug!("the endpoints of the Service {} cannot be read: {failure}", self.key);
                    }
                },
                // A watch that continues successfully sends no event.
                () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => seen.unread = None,
                () = sleep_until(settles.unwrap_or_else(Instant::now)), if settles.is_some() => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep(retry_in.unwrap_or_default()), if retry_in.is_some() => {}
            }
            seen.unwritten = self.apply(&api, &seen).await.err();
            retry_in = match seen.unwritten {
                None => {
                    backoff.reset();
                    None
                }
                Some(_) => Some(backoff.pause()),
            };
            let now = Instant::now();
            settles = seen.endpoints.next(now);
            send_if_other(&self.known, seen.known(&self.key, &self.field_manager, now));
        }
    }

    async fn apply(&mut self, api: &Api<Service>, seen: &Seen) -> Result<(), Unwritten> {
        let wanted = self.wanted.borrow_and_update().clone();
        let service = seen.service.as_ref().and_then(Option::as_ref);
        let (Some(wanted), Some(service)) = (wanted, service) else { return Ok(()) };
        let service = OwnService::read(service, &self.field_manager);
        let ports = match service.plan(&wanted) {
            PortPlan::Keep => return Ok(()),
            PortPlan::KeepLast => return Err(Unwritten::KeptLast),
            PortPlan::Apply(ports) => ports,
        };
        let Err(failure) = self.write(api, &service, &ports).await else { return Ok(()) };
        let shown = service.shown();
        let added: BTreeSet<u16> = ports.difference(&shown).copied().collect();
        if matches!(failure, Failure::Refused(_) | Failure::Forbidden(_)) {
            return self.write_one_by_one(api, &service, &ports & &shown, added).await;
        }
        Err(Unwritten::refused(added.into_iter().map(|port| (port, failure.to_string())).collect(), &failure))
    }

    /// Adds one port after the other, so that a port that the API server refuses does not keep the others away.
    async fn write_one_by_one(
        &self,
        api: &Api<Service>,
        service: &OwnService,
        mut accepted: BTreeSet<u16>,
        added: BTreeSet<u16>,
    ) -> Result<(), Unwritten> {
        let (mut failed, mut refused) = (None, BTreeMap::new());
        if !accepted.is_empty() && accepted != service.shown() {
            failed = self.write(api, service, &accepted).await.err();
        }
        for port in added {
            if !self.wanted.has_changed().is_ok_and(|is_other| !is_other) {
                break;
            }
            accepted.insert(port);
            let Err(failure) = self.write(api, service, &accepted).await else { continue };
            accepted.remove(&port);
            refused.insert(port, failure.to_string());
            let is_lasting = matches!(failure, Failure::Unreachable(_));
            failed = Some(failure);
            if is_lasting {
                break;
            }
        }
        failed.map_or(Ok(()), |failure| Err(Unwritten::refused(refused, &failure)))
    }

    /// Makes these our ports, if this replica holds the Lease.
    async fn write(
        &self,
        api: &Api<Service>,
        service: &OwnService,
        ports: &BTreeSet<u16>,
    ) -> Result<(), Failure> {
        self.lease.check().await?;
        let params = PatchParams::apply(&self.field_manager);
        let patch = Patch::Apply(service.patch(ports));
        answered(api.patch(&self.key.name, &params, &patch)).await?;
        tracing::info!(ports = ports.len(), "updated the ports of Service {}", self.key);
        Ok(())
    }
}

impl Unwritten {
    fn refused(ports: BTreeMap<u16, String>, failure: &Failure) -> Self {
        Self::Refused { why: failure.to_string(), ports }
    }
}

impl Seen {
    fn known(&self, key: &Key, field_manager: &str, now: Instant) -> KnownService {
        let refused = match &self.unwritten {
            Some(Unwritten::Refused { ports, .. }) => ports.clone(),
            Some(Unwritten::KeptLast) | None => BTreeMap::new(),
        };
        let front = match (&self.service, &self.unread) {
            (Some(Some(service)), _) => {
                let service = OwnService::read(service, field_manager);
                Front::Known(Box::new(service.with(self.endpoints.settled(now), refused)))
            }
            (Some(None), _) => Front::NotFound(key.clone()),
            (None, Some((failure, _))) => Front::NotReadable(key.clone(), failure.to_string()),
            (None, None) => Front::Awaited(key.clone()),
        };
        let problem = match (&self.unread, &front, &self.unwritten) {
            (Some((failure, _)), ..) => Some(format!("cannot be read: {failure}")),
            (None, Front::NotFound(_), _) => Some("does not exist".to_owned()),
            (.., Some(Unwritten::Refused { why, .. })) => Some(format!("cannot be updated: {why}")),
            (.., Some(Unwritten::KeptLast)) => Some(
                "keeps its last ports although no listener uses them, because a Service needs at least one port; add a port \
                 of your own"
                    .to_owned(),
            ),
            _ => None,
        };
        KnownService {
            front,
            endpoints: self.addresses.clone(),
            problem: problem.map(|problem| format!("Service {key} (set by --service) {problem}")),
        }
    }
}

/// The API server's limit for the name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;
