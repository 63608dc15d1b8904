//! Connects the decisions about exclusive users with the controller, which asks the other replicas, and with readiness.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::admin::{Readiness, ReadinessGuard};
use crate::controller::ExclusiveLink;
use crate::model::exclusive::{PeerEvent, Report};
use crate::model::served::{Ledger, Replica};
use crate::proxy::ExclusiveUsers;

use super::Origin;

/// The exclusive users of this process.
pub(super) struct Exclusive {
    users: ExclusiveUsers,
    kind: Kind,
}

enum Kind {
    /// There are no other replicas.
    Alone,
    /// There may be others, but nothing tells which.
    Unknown,
    /// How long readiness may wait for the others.
    Replica(Duration),
}

impl Exclusive {
    /// Creates the state of this replica.
    pub(super) fn new(origin: &Origin, replica: &Replica) -> Self {
        let Replica { name, instance, .. } = replica;
        let kind = match origin {
            Origin::Folder(_) => Kind::Alone,
            Origin::Cluster(cluster) if cluster.replicas.is_none() => Kind::Unknown,
            Origin::Cluster(cluster) => Kind::Replica(cluster.ready_timeout),
        };
        let users = match kind {
            Kind::Alone | Kind::Unknown => ExclusiveUsers::alone(instance),
            Kind::Replica(_) => ExclusiveUsers::replica(name, instance),
        };
        Self { users, kind }
    }

    /// Returns the state for the data plane.
    pub(super) fn users(&self) -> ExclusiveUsers {
        self.users.clone()
    }

    /// Starts the tasks. Returns the connection for the controller, if there may be other replicas. The process is not
    /// ready before it can admit exclusive users.
    pub(super) fn start(self, ledger: &Ledger, readiness: &Readiness) -> Option<ExclusiveLink> {
        let (report, obstacle) = (self.users.report(), self.users.obstacle());
        match self.kind {
            Kind::Alone => None,
            Kind::Unknown => {
                tokio::spawn(warn_of_groups(report));
                None
            }
            Kind::Replica(longest) => {
                let (events, heard) = mpsc::channel(MAX_EVENTS);
                let guard = readiness.block("the users of exclusive backends are not known yet");
                tokio::spawn(until_agreed((report.clone(), obstacle.clone()), longest, guard));
                tokio::spawn(publish(report.clone(), ledger.clone()));
                tokio::spawn(pass_on(heard, self.users));
                Some(ExclusiveLink { events, report, obstacle })
            }
        }
    }
}

/// Passes on what the controller learns.
async fn pass_on(mut heard: mpsc::Receiver<PeerEvent>, users: ExclusiveUsers) {
    while let Some(event) = heard.recv().await {
        match event {
            PeerEvent::Begin => users.begin(),
            PeerEvent::List(pods) => users.list(&pods),
            PeerEvent::Heard { pod, instance, report } => users.heard(&pod, &instance, report),
        }
    }
}

/// Puts the reports into the ledger, which the other replicas read.
async fn publish(mut report: watch::Receiver<Option<Arc<Report>>>, ledger: Ledger) {
    loop {
        let current = report.borrow_and_update().clone();
        if let Some(current) = current {
            ledger.enter_exclusive(&current);
        }
        if report.changed().await.is_err() {
            return;
        }
    }
}

/// Blocks readiness until the other replicas have read what this one reports, so that it can admit exclusive users. A
/// replica that does not answer must not stop a rollout, so this ends after `longest`.
async fn until_agreed(
    (mut report, mut obstacle): (watch::Receiver<Option<Arc<Report>>>, watch::Receiver<Option<String>>),
    longest: Duration,
    guard: ReadinessGuard,
) {
    if report.wait_for(Option::is_some).await.is_err() {
        // The process is ending.
        return std::future::pending().await;
    }
    let agreed = async {
        loop {
            let Some(why) = obstacle.borrow_and_update().clone() else { return };
            guard.say(format!("exclusive users cannot be admitted: {why}"));
            if obstacle.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    if timeout(longest, agreed).await.is_err() {
        let why = obstacle.borrow().clone().unwrap_or_default();
        tracing::warn!(
            "ready although exclusive users cannot be admitted, because --ready-timeout ({longest:?}) is over: {why}"
        );
    }
}

/// Warns once if there are exclusive users and nothing tells of other replicas.
async fn warn_of_groups(mut report: watch::Receiver<Option<Arc<Report>>>) {
    let has_groups = |report: &Option<Arc<Report>>| {
        report.as_ref().is_some_and(|report: &Arc<Report>| !report.known.is_empty())
    };
    if report.wait_for(has_groups).await.is_ok() {
        tracing::warn!(
            "affinity.mode Exclusive holds only within this process, because --replicas is not set; run one replica, or set \
             --replicas"
        );
    }
}

/// The maximum number of events that wait.
const MAX_EVENTS: usize = 64;
