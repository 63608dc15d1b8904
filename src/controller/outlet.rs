//! Where every source ends: what was rendered goes to the data plane, and what is known of it becomes a status.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::watch;

use crate::model::{BindReport, Snapshot};

use super::index::{Key, Objects};
use super::publish::Publisher;
use super::render::{Environment, Kind, Locality, Rendered};
use super::status::{Facts, Status, changes};

/// Where snapshots and status go, and where reports come from.
#[derive(Debug)]
pub struct Channels {
    /// To the data plane.
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    /// From the data plane.
    pub reports: watch::Receiver<Arc<BindReport>>,
    /// To the admin server.
    pub statuses: watch::Sender<Arc<Value>>,
}

/// The channels, and what must be remembered of them.
#[derive(Debug)]
pub struct Outlet {
    class: String,
    hostname: String,
    locality: Locality,
    channels: Channels,
    publisher: Publisher,
    status: Status,
}

impl Outlet {
    /// `hostname` is the default server name, `class` the class that is ours.
    #[must_use]
    pub fn new(class: &str, hostname: &str, channels: Channels) -> Self {
        Self {
            class: class.to_owned(),
            hostname: hostname.to_owned(),
            locality: Locality::default(),
            channels,
            publisher: Publisher::default(),
            status: Status::default(),
        }
    }

    /// Says where we are; it counts from the next look.
    pub fn locate(&mut self, locality: Locality) {
        self.locality = locality;
    }

    /// Where we are.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// What would come of these objects, now.
    #[must_use]
    pub fn look(&self, objects: &Objects) -> Rendered {
        let environment = Environment {
            class: self.class.clone(),
            hostname: self.hostname.clone(),
            now: now(),
            locality: self.locality.clone(),
        };
        self.publisher.look(objects, &environment)
    }

    /// Hands it to the data plane, if it is anything new there.
    pub fn publish(&mut self, rendered: Rendered) {
        if let Some(snapshot) = self.publisher.take(rendered).snapshot {
            tracing::info!(revision = snapshot.revision, sockets = snapshot.sockets.len(), "published");
            self.channels.snapshots.send_replace(snapshot);
        }
    }

    /// Whether the data plane has been given anything yet.
    #[must_use]
    pub fn has_published(&self) -> bool {
        self.publisher.current().revision > 0
    }

    /// Waits for something new from the data plane; forever when that is gone.
    pub async fn reported(&mut self) {
        if self.channels.reports.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes over what an earlier process said of the objects that are ours, where we have said nothing yet.
    pub fn recall<'a>(&mut self, said: impl Fn(Kind, &Key) -> Option<&'a Value>) {
        for outcome in self.publisher.outcomes().values() {
            if let Some(status) = said(outcome.kind, &outcome.key) {
                self.status.recall(outcome.kind, &outcome.key, status);
            }
        }
    }

    /// Whether the data plane has said what became of the last snapshot.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.channels.reports.borrow().revision >= self.publisher.current().revision
    }

    /// Makes the status of all objects, logs what changed in it, and gives it to the admin server.
    pub fn tell(&mut self, problems: &[String]) -> &Status {
        let report = Arc::clone(&self.channels.reports.borrow_and_update());
        let facts = Facts { published: &self.publisher, report: &report, now: now() };
        let status = Status::new(&facts, &self.status);
        for change in changes(&self.status, &status) {
            if change.alarming {
                tracing::warn!("{}", change.line);
            } else {
                tracing::info!("{}", change.line);
            }
        }
        let document = status.document(self.publisher.current().revision, problems);
        self.channels.statuses.send_replace(Arc::new(document));
        self.status = status;
        &self.status
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
