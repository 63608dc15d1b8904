//! One of several replicas leads: it writes status and events and keeps the Service. The data plane never asks.
//!
//! The lease is kept by a library; this file adds when to stop believing in it. A renewal that fails, or is not
//! answered in time, ends the lead at once, before the lease runs out and somebody else may take it.

use std::pin::pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1 as lease;
use kube::Client;
use kube::api::Api;
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerError, LeaseParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::controller::index::Key;
use crate::controller::violation::one_line;
use crate::model::served::Ledger;
use crate::net::Backoff;

use super::backoff::backoff;
use super::failure::{Failure, root};
use super::send_if_other;

/// The lease, and who wants it.
#[derive(Clone)]
pub(super) struct Lease {
    client: Client,
    key: Key,
    /// Of this process, different from all others.
    identity: String,
}

/// How we stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether we lead.
    pub(super) leads: bool,
    /// Why the lease can be neither had nor watched.
    pub(super) failure: Option<String>,
}

/// Without the client, which has nothing to show.
impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Requests of `client` must end after some seconds, so that a renewal cannot hang for longer than the lease
    /// lasts.
    pub(super) fn new(client: Client, key: Key, identity: String) -> Self {
        Self { client, key, identity }
    }

    /// Whether the API server says that it is ours. Asked where it matters and time may have passed unnoticed.
    pub(super) async fn is_ours(&self) -> Result<bool, Failure> {
        Ok(self.holder().await?.as_deref() == Some(&self.identity))
    }

    /// Tells the ledger who leads, while it is another replica. For people who look at the status page.
    pub(super) async fn name_leader(
        self,
        ledger: Ledger,
        standing: watch::Receiver<Standing>,
        shutdown: CancellationToken,
    ) {
        loop {
            let leads = standing.borrow().leads;
            if !leads && let Ok(Some(holder)) = self.holder().await {
                ledger.led_by(replica_of(&holder), Instant::now());
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LEASE_DURATION) => {}
            }
        }
    }

    async fn holder(&self) -> Result<Option<String>, Failure> {
        let leases: Api<lease::Lease> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let found = leases.get_opt(&self.key.name).await.map_err(|error| Failure::of(&error))?;
        Ok(found.and_then(|lease| lease.spec?.holder_identity))
    }

    /// Tries to lead until it is told to end, and then lets go.
    pub(super) async fn run(self, standing: watch::Sender<Standing>, shutdown: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let failure = tokio::select! {
                () = shutdown.cancelled() => return,
                manager = self.manager() => match manager {
                    Ok(manager) => {
                        let kept = self.keep(&manager, &standing, &mut backoff);
                        tokio::select! {
                            () = shutdown.cancelled() => return self.release(&manager, &standing).await,
                            failure = kept => failure,
                        }
                    }
                    Err(failure) => failure,
                },
            };
            let why =
                format!("the Lease {} cannot be kept: {}", self.key, one_line(&root(&failure).to_string()));
            self.stand(&standing, Standing { leads: false, failure: Some(why) });
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(backoff.pause()) => {}
            }
        }
    }

    async fn manager(&self) -> Result<LeaseManager, LeaseManagerError> {
        // The library makes one of the identity otherwise, which may be too long for one.
        let field_manager =
            format!("mailgress-lease-{}", self.identity.rsplit('_').next().unwrap_or_default());
        let params = LeaseParams::new(&self.identity, LEASE_DURATION.as_secs(), LEASE_GRACE.as_secs());
        let params = params.with_field_manager(field_manager);
        let (name, namespace) = (&self.key.name, &self.key.namespace);
        LeaseManager::new(self.client.clone(), name, namespace, params, LeaseCreateMode::AutoCreate).await
    }

    /// Ends when it fails.
    async fn keep(
        &self,
        manager: &LeaseManager,
        standing: &watch::Sender<Standing>,
        backoff: &mut Backoff,
    ) -> LeaseManagerError {
        loop {
            let mut changed = pin!(manager.changed());
            let outcome = tokio::select! {
                outcome = &mut changed => outcome,
                () = sleep(LEASE_DURATION) => {
                    // It holds, whoever has it: a failure would have come by now.
                    let leads = standing.borrow().leads;
                    self.stand(standing, Standing { leads, failure: None });
                    changed.await
                }
            };
            match outcome {
                Ok(leads) => {
                    backoff.reset();
                    self.stand(standing, Standing { leads, failure: None });
                }
                Err(error) => return error,
            }
        }
    }

    fn stand(&self, standing: &watch::Sender<Standing>, now: Standing) {
        let changed = standing.borrow().leads != now.leads;
        if changed && now.leads {
            tracing::info!(
                "this replica is the leader now; it writes status and events (Lease {})",
                self.key
            );
        } else if changed {
            tracing::info!("this replica is no longer the leader (Lease {})", self.key);
        }
        send_if_other(standing, now);
    }

    async fn release(&self, manager: &LeaseManager, standing: &watch::Sender<Standing>) {
        let led = standing.borrow().leads;
        self.stand(standing, Standing::default());
        if led && timeout(LEASE_GRACE, manager.release()).await.is_ok_and(|released| released.is_ok()) {
            tracing::info!("released the Lease {}", self.key);
        }
    }
}

/// The name of the replica in an identity.
fn replica_of(identity: &str) -> &str {
    identity.rsplit_once('_').map_or(identity, |(name, _)| name)
}

/// How long the lease lasts without being renewed. Another replica takes it within a second or two more.
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// How long before its end it is renewed: longer than a request may take.
const LEASE_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lease_is_named_by_its_replica() {
        assert_eq!(replica_of("mailgress-1_6e0d"), "mailgress-1");
        assert_eq!(replica_of("somebody"), "somebody");
    }
}
