//! Our own Service in the cluster: read for where clients reach us and, while we lead, given the ports of our
//! listeners by server-side apply. What others put there is not touched.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::Config;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::index::Key;
use super::super::service::{OwnService, PortPlan};
use super::failure::{Failure, answered};
use super::follow::follow;
use super::pause::{Pause, TOLD};
use super::send_if_other;

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The Service, where it is there.
    pub(super) service: Option<OwnService>,
    /// Why it cannot be read or is not as it should be.
    pub(super) problem: Option<String>,
}

/// Keeps it.
pub(super) struct Keeper {
    client: Client,
    key: Key,
    field_manager: String,
    /// The ports that should be ours; `None` while we do not lead.
    wanted: watch::Receiver<Option<BTreeSet<u16>>>,
    known: watch::Sender<Known>,
}

/// Without the client, which has nothing to show.
impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Keeper {
    /// For the Service `key` and the listeners of `class`.
    pub(super) fn new(
        client: Client,
        key: Key,
        class: &str,
        wanted: watch::Receiver<Option<BTreeSet<u16>>>,
        known: watch::Sender<Known>,
    ) -> Self {
        let field_manager = format!("mailgress-ports/{class}").chars().take(LONGEST_MANAGER).collect();
        Self { client, key, field_manager, wanted, known }
    }

    /// Watches, and applies what is missing, until nobody listens.
    pub(super) async fn run(mut self) {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let config = Config::default().fields(&format!("metadata.name={}", self.key.name));
        let mut stream = pin!(follow(api.clone(), config));
        let mut newest: Option<Arc<Service>> = None;
        let mut pauses = Pause::default();
        let mut again: Option<Duration> = None;
        let mut complained: Option<Instant> = None;
        loop {
            let over = complained.map(|at| at + TOLD);
            tokio::select! {
                services = stream.next() => match services {
                    None => return,
                    Some(Ok(services)) => {
                        newest = services.into_iter().next();
                        self.tell(newest.as_deref());
                    }
                    Some(Err(failure)) => {
                        self.complain(&failure);
                        complained = Some(Instant::now());
                        continue;
                    }
                },
                // A watch that goes on where it was has nothing to say.
                () = sleep_until(over.unwrap_or_else(Instant::now)), if over.is_some() => {
                    complained = None;
                    self.tell(newest.as_deref());
                }
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
            again = match self.apply(&api).await {
                Ok(()) => {
                    pauses = Pause::default();
                    None
                }
                Err(why) => {
                    self.known.send_modify(|known| known.problem = Some(why));
                    pauses.next()
                }
            };
        }
    }

    fn tell(&self, service: Option<&Service>) {
        let key = &self.key;
        let problem = service.is_none().then(|| format!("the Service {key} of --service does not exist"));
        let known =
            Known { service: service.map(|service| OwnService::read(service, &self.field_manager)), problem };
        send_if_other(&self.known, known);
    }

    fn complain(&self, failure: &Failure) {
        let problem = format!("the Service {} of --service cannot be read: {failure}", self.key);
        self.known.send_modify(|known| known.problem = Some(problem));
    }

    async fn apply(&mut self, api: &Api<Service>) -> Result<(), String> {
        let wanted = self.wanted.borrow_and_update().clone();
        let service = self.known.borrow().service.clone();
        let (Some(wanted), Some(service)) = (wanted, service) else { return Ok(()) };
        let key = &self.key;
        let ports = match service.plan(&wanted) {
            PortPlan::Keep => return Ok(()),
            PortPlan::KeepLast => {
                return Err(format!(
                    "the Service {key} of --service keeps its last ports though no listener has them: \
                     a Service must have one; give it one of its own"
                ));
            }
            PortPlan::Apply(ports) => ports,
        };
        let params = PatchParams::apply(&self.field_manager);
        let patch = Patch::Apply(service.patch(&ports));
        let applied = answered(api.patch(&key.name, &params, &patch)).await;
        applied.map_err(|why| format!("the ports of the Service {key} of --service cannot be set: {why}"))?;
        tracing::info!(ports = ports.len(), "the Service {key} has the ports of our listeners");
        Ok(())
    }
}

/// Bytes of a field manager's name, as the API server bounds it.
const LONGEST_MANAGER: usize = 128;
