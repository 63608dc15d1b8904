//! Asks all other replicas about their exclusive users, and passes on the list of replicas and their reports.
//!
//! This begins when the first group is served, and lasts as long as the process: a replica that drains still has
//! sessions, and the others must read what it reports, as it must read what they report.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::controller::index::Key;
use crate::model::SharedTicketKeys;
use crate::model::exclusive::{PeerEvent, Report};

use super::replicas::{Event, Listed, Question, Replicas};

/// The connection to the decisions about exclusive users.
#[derive(Clone, Debug)]
pub struct ExclusiveLink {
    /// What the controller learns.
    pub events: mpsc::Sender<PeerEvent>,
    /// What this replica reports.
    pub report: watch::Receiver<Option<Arc<Report>>>,
    /// Why no exclusive user can be admitted. Set as soon as there is a group, because the replicas are not known then.
    pub obstacle: watch::Receiver<Option<String>>,
}

impl ExclusiveLink {
    /// Tells whether there are groups.
    pub(super) fn has_groups(&self) -> bool {
        self.report.borrow().as_ref().is_some_and(|report| !report.known.is_empty())
    }
}

/// Asks the replicas from the first group on. `own` is the Pod of this one.
pub(super) async fn agree(
    client: Client,
    service: Key,
    keys: SharedTicketKeys,
    own: String,
    mut link: ExclusiveLink,
) {
    if link.obstacle.wait_for(Option::is_some).await.is_err() {
        return;
    }
    let (sender, mut events) = mpsc::channel(MAX_ANSWERS);
    let replicas = Replicas::new(client, service, keys, Question::Exclusive(own), sender);
    let _asking = AbortOnDropHandle::new(tokio::spawn(replicas.run()));
    let mut known = Known::default();
    while let Some(event) = events.recv().await {
        if let Some(event) = known.take(event)
            && link.events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// The listed replicas.
#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<SocketAddr, String>,
    /// Those that could not be asked. Each is logged once.
    silent: BTreeSet<String>,
}

impl Known {
    fn take(&mut self, event: Event) -> Option<PeerEvent> {
        match event {
            Event::Listed(listed) => {
                self.names = listed.iter().map(|(at, replica)| (*at, replica.name.clone())).collect();
                self.silent.retain(|silent| listed.values().any(|replica| replica.name == *silent));
                let pods = listed.into_values().map(|Listed { name, is_ready }| (name, is_ready));
                Some(PeerEvent::List(pods.collect()))
            }
            Event::Answered(from, page) => {
                // An address can already belong to another Pod than the list says.
                let pod = self.names.get(&from).filter(|name| **name == page.replica.name)?.clone();
                if self.silent.remove(&pod) {
                    tracing::info!("replica {pod} answers again about its exclusive users");
                }
                let (instance, report) = (page.replica.instance, page.exclusive?);
                Some(PeerEvent::Heard { pod, instance, report })
            }
            Event::Failed(from, why) => {
                let name = self.names.get(&from)?;
                if self.silent.insert(name.clone()) {
                    tracing::warn!(
                        "replica {name} does not answer about its exclusive users, so users that move wait for it: {why}"
                    );
                }
                None
            }
            Event::Unknown(why) => {
                tracing::warn!("cannot read the list of replicas, keeping the previous one: {why}");
                None
            }
        }
    }
}

/// The maximum number of events about replicas that wait.
const MAX_ANSWERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::served::{Page, Replica};

    fn answer(name: &str, exclusive: Option<Report>) -> Event {
        let replica = Replica { name: name.to_owned(), instance: "1".to_owned(), node_address: None };
        let page = Page {
            replica,
            version: 1,
            ready: None,
            whole: false,
            objects: Vec::new(),
            totals: None,
            exclusive,
        };
        Event::Answered(([10, 0, 0, 1], 9090).into(), Box::new(page))
    }

    #[test]
    fn a_report_counts_for_the_pod_that_the_list_has_at_the_address() {
        let mut known = Known::default();
        let report = Report { version: 4, ..Report::default() };
        assert_eq!(known.take(answer("a", Some(report.clone()))), None, "it is not listed");
        let replica = Listed { name: "a".to_owned(), is_ready: false };
        let listed = known.take(Event::Listed(BTreeMap::from([(([10, 0, 0, 1], 9090).into(), replica)])));
        assert_eq!(listed, Some(PeerEvent::List(BTreeMap::from([("a".to_owned(), false)]))));
        assert_eq!(known.take(answer("b", Some(report.clone()))), None, "another Pod has the address now");
        let heard =
            PeerEvent::Heard { pod: "a".to_owned(), instance: "1".to_owned(), report: report.clone() };
        assert_eq!(known.take(answer("a", Some(report))), Some(heard));
        assert_eq!(known.take(answer("a", None)), None, "nothing is new");
    }
}
