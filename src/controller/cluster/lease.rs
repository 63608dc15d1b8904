//! The Lease of the leading replica, which writes status and events and manages the Service. The data plane does not
//! depend on it.
//!
//! A library renews the Lease. This file decides when a replica stops to lead: at once when a renewal fails or is not
//! answered in time, before the Lease expires and another replica can take it. A process that was stopped for a while
//! (SIGSTOP, a suspended machine) learns late that it has lost the Lease: before it writes a status, the ports of the Service
//! or keys, it asks the API server who holds it ([`Lease::check`]).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1 as lease;
use kube::Client;
use kube::api::Api;
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerError, LeaseParams};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::controller::index::Key;
use crate::controller::violation::one_line;
use crate::model::view::Role;
use crate::net::Backoff;

use super::backoff::backoff;
use super::failure::{Failure, root};

/// The Lease and the identity of this replica.
#[derive(Clone)]
pub(super) struct Lease {
    client: Client,
    key: Key,
    /// The identity of this process, different from all others.
    identity: String,
    pulse: Arc<Mutex<Pulse>>,
}

/// Whether this process has run without a long stop since it last knew who holds the Lease.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    /// The time of the last beat.
    last: Duration,
    is_steady: bool,
}

impl Pulse {
    /// Records that the process runs. `now` counts the time in which the machine was suspended, too.
    fn beat(&mut self, now: Duration) {
        self.is_steady &= now.saturating_sub(self.last) < LONGEST_STOP;
        self.last = now;
    }
}

/// Who leads, as this replica knows it. Only this file changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The role of this replica.
    pub role: Role,
    /// Why the Lease can be neither acquired nor watched.
    pub(super) failure: Option<String>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Creates the Lease. Requests of `client` must end within some seconds, so that a renewal cannot take longer than
    /// the Lease lasts.
    pub(super) fn new(client: Client, key: Key, identity: String) -> Self {
        let pulse = Pulse { last: uptime(), is_steady: true };
        Self { client, key, identity, pulse: Arc::new(Mutex::new(pulse)) }
    }

    /// Beats until `shutdown`.
    pub(super) async fn beat(self, shutdown: CancellationToken) {
        while timeout(BEAT, shutdown.cancelled()).await.is_err() {
            self.pulse.lock().beat(uptime());
        }
    }

    /// Checks that a leader may write. It may have lost the Lease without knowing if the process was stopped; then this
    /// asks the API server.
    ///
    /// # Errors
    /// Nobody or another replica holds the Lease, or the API server does not say. Try again: if the Lease is lost, this
    /// replica is about to learn it, and drops what it wants to write.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let asked = {
            let mut pulse = self.pulse.lock();
            pulse.beat(uptime());
            if pulse.is_steady {
                return Ok(());
            }
            pulse.last
        };
        let is_ours = self.is_ours().await?;
        let mut pulse = self.pulse.lock();
        pulse.beat(uptime());
        // An answer from before another stop tells nothing.
        if is_ours && pulse.last.saturating_sub(asked) < LONGEST_STOP {
            pulse.is_steady = true;
            return Ok(());
        }
        Err(Failure::Unreachable(format!("the Lease {} is not known to be held by this replica", self.key)))
    }

    /// Asks the API server whether this replica holds the Lease. For decisions after a time in which it may have been
    /// lost.
    pub(super) async fn is_ours(&self) -> Result<bool, Failure> {
        Ok(self.holder().await?.as_deref() == Some(&self.identity))
    }

    /// Reads the name of the leader, for the status page, while another replica leads.
    pub(super) async fn name_leader(
        self,
        leadership: watch::Sender<Leadership>,
        shutdown: CancellationToken,
    ) {
        let mut answered = Instant::now();
        loop {
            let leads = leadership.borrow().role == Role::Leader;
            let holder = if leads { Ok(None) } else { self.holder().await };
            if holder.is_ok() {
                answered = Instant::now();
            }
            if holder.is_ok() || answered.elapsed() >= LEADER_KEPT {
                let others = holder.ok().flatten().filter(|holder| *holder != self.identity);
                name(&leadership, others.as_deref().and_then(replica_of));
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

    /// Tries to lead until `shutdown`, and then releases the Lease.
    pub(super) async fn run(self, leadership: watch::Sender<Leadership>, shutdown: CancellationToken) {
        let mut backoff = backoff();
        loop {
            let failure = tokio::select! {
                () = shutdown.cancelled() => return,
                manager = self.manager() => match manager {
                    Ok(manager) => {
                        let kept = self.keep(&manager, &leadership, &mut backoff);
                        tokio::select! {
                            () = shutdown.cancelled() => return self.release(&manager, &leadership).await,
                            failure = kept => failure,
                        }
                    }
                    Err(failure) => failure,
                },
            };
            let why =
                format!("the Lease {} cannot be kept: {}", self.key, one_line(&root(&failure).to_string()));
            self.set(&leadership, false, Some(why));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(backoff.pause()) => {}
            }
        }
    }

    async fn manager(&self) -> Result<LeaseManager, LeaseManagerError> {
        // The library's default name contains the whole identity and can be too long.
        let field_manager =
            format!("mailgress-lease-{}", self.identity.rsplit('_').next().unwrap_or_default());
        let params = LeaseParams::new(&self.identity, LEASE_DURATION.as_secs(), LEASE_GRACE.as_secs());
        let params = params.with_field_manager(field_manager);
        let (name, namespace) = (&self.key.name, &self.key.namespace);
        LeaseManager::new(self.client.clone(), name, namespace, params, LeaseCreateMode::AutoCreate).await
    }

    /// Keeps the state of leadership current until an error occurs.
    async fn keep(
        &self,
        manager: &LeaseManager,
        leadership: &watch::Sender<Leadership>,
        backoff: &mut Backoff,
    ) -> LeaseManagerError {
        loop {
            let mut changed = pin!(manager.changed());
            let outcome = tokio::select! {
                outcome = &mut changed => outcome,
                () = sleep(LEASE_DURATION) => {
                    // There was no error for the duration of the Lease, so the previous failure is over.
                    let leads = leadership.borrow().role == Role::Leader;
                    self.set(leadership, leads, None);
                    changed.await
                }
            };
            match outcome {
                Ok(leads) => {
                    backoff.reset();
                    self.set(leadership, leads, None);
                }
                Err(error) => return error,
            }
        }
    }

    fn set(&self, leadership: &watch::Sender<Leadership>, leads: bool, failure: Option<String>) {
        let has_changed = (leadership.borrow().role == Role::Leader) != leads;
        if has_changed && leads {
            tracing::info!(
                "this replica is the leader now; it writes status and events (Lease {})",
                self.key
            );
        } else if has_changed {
            tracing::info!("this replica is no longer the leader (Lease {})", self.key);
        }
        leadership.send_if_modified(|now| {
            if has_changed {
                now.role = if leads { Role::Leader } else { Role::default() };
            }
            let differs = has_changed || now.failure != failure;
            now.failure = failure;
            differs
        });
    }

    async fn release(&self, manager: &LeaseManager, leadership: &watch::Sender<Leadership>) {
        let led = leadership.borrow().role == Role::Leader;
        self.set(leadership, false, None);
        if led && timeout(LEASE_GRACE, manager.release()).await.is_ok_and(|released| released.is_ok()) {
            tracing::info!("released the Lease {}", self.key);
        }
    }
}

/// Stores the name of the leader, unless this replica leads.
fn name(leadership: &watch::Sender<Leadership>, named: Option<&str>) {
    leadership.send_if_modified(|now| match &mut now.role {
        Role::Follower { leader } if leader.as_deref() != named => {
            *leader = named.map(str::to_owned);
            true
        }
        Role::Follower { .. } | Role::Leader => false,
    });
}

/// Returns the replica's name in an identity, if it can be a pod's name.
fn replica_of(identity: &str) -> Option<&str> {
    let name = identity.rsplit_once('_').map_or(identity, |(name, _)| name);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    Some(name).filter(|name| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_name))
}

/// The time since the start of the machine, with the time in which it was suspended.
fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// The duration of the Lease without a renewal. After it, another replica takes the Lease within one or two seconds.
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// The Lease is renewed this long before it expires. This is longer than the timeout of a request.
const LEASE_GRACE: Duration = Duration::from_secs(5);
/// A process that was stopped for less than this still holds the Lease, which is renewed [`LEASE_GRACE`] before its end.
const LONGEST_STOP: Duration = Duration::from_secs(4);
/// The interval of the beats.
const BEAT: Duration = Duration::from_secs(1);
/// The leader's name is known for this time after the last answer.
const LEADER_KEPT: Duration = Duration::from_secs(30);
/// Bytes of a pod's name (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lease_is_named_by_its_replica() {
        assert_eq!(replica_of("mailgress-1_6e0d"), Some("mailgress-1"));
        assert_eq!(replica_of("somebody"), Some("somebody"));
        assert_eq!(replica_of("<script>"), None);
    }

    #[test]
    fn a_process_that_was_stopped_is_not_sure_of_its_lease() {
        let mut pulse = Pulse { last: Duration::from_secs(100), is_steady: true };
        for seconds in [101, 102, 105] {
            pulse.beat(Duration::from_secs(seconds));
            assert!(pulse.is_steady);
        }
        pulse.beat(Duration::from_secs(109));
        assert!(!pulse.is_steady);
        pulse.beat(Duration::from_secs(110));
        assert!(!pulse.is_steady, "it stays unsure until it has asked");
    }

    #[test]
    fn the_leaders_name_never_replaces_our_own_leadership() {
        let leadership = watch::Sender::new(Leadership::default());
        name(&leadership, Some("mailgress-1"));
        assert_eq!(leadership.borrow().role, Role::Follower { leader: Some("mailgress-1".to_owned()) });
        leadership.send_replace(Leadership { role: Role::Leader, failure: None });
        name(&leadership, Some("mailgress-1"));
        assert_eq!(leadership.borrow().role, Role::Leader);
    }
}
