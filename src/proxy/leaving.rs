//! Ends the sessions at endpoints that are taken out of service, spread over some seconds.
//!
//! New sessions do not go there, because the endpoint is not in the backend any more. A login that is on its way to it
//! ends as soon as its session is listed. The sessions of exclusive users end with their group, because all of them wait
//! for the last one (`exclusive`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::model::{Backend, Snapshot};
use crate::net::BackendAddress;

use super::live::Order;
use super::record::Record;
use super::sessions::Sessions;
use super::spreading::Spreading;

/// The endpoints that are taken out of service, and when their sessions have to end.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    endpoints: Endpoints,
    spreading: Spreading,
    /// The time of the next pass, while endpoints leave.
    next: Option<Instant>,
}

/// Endpoints by the name of their backend. Another backend may have an endpoint with the same address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Endpoints(HashMap<String, HashSet<BackendAddress>>);

impl Leaving {
    /// Takes the endpoints of a snapshot.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot, now: Instant) {
        let endpoints = Endpoints::of(snapshot);
        if self.endpoints != endpoints {
            self.endpoints = endpoints;
            self.next = (!self.endpoints.0.is_empty()).then_some(now);
            if self.next.is_none() {
                self.spreading = Spreading::default();
            }
        }
    }

    /// Ends the sessions that are due.
    pub(crate) fn pass(&mut self, sessions: &Sessions, now: Instant) {
        let all = sessions.all().into_iter();
        let mut open: Vec<_> = all.filter(|session| self.endpoints.have(session.record())).collect();
        self.next = Some(now + if open.is_empty() { IDLE_INTERVAL } else { INTERVAL });
        self.spreading.end_due(std::iter::once((SPREAD, &mut open)), Order::Leave, now);
    }

    /// Waits until the next pass is due; for ever while no endpoint leaves.
    pub(crate) async fn next(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }
}

impl Endpoints {
    fn of(snapshot: &Snapshot) -> Self {
        let listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
        let backends = listeners.flat_map(|listener| {
            let routes = listener.routes.iter().flat_map(|routes| routes.destinations.iter().flatten());
            listener.backend.iter().chain(routes.map(|destination| &destination.backend))
        });
        let mut endpoints: HashMap<String, HashSet<BackendAddress>> = HashMap::new();
        for backend in backends.map(Arc::as_ref).filter(|backend| !backend.leaving.is_empty()) {
            let Backend { reference, leaving, .. } = backend;
            endpoints.entry(reference.clone()).or_default().extend(leaving.keys().cloned());
        }
        Self(endpoints)
    }

    fn have(&self, record: &Record) -> bool {
        record.endpoint().is_some_and(|(backend, address)| {
            self.0.get(&backend.reference).is_some_and(|addresses| addresses.contains(address))
        })
    }
}

/// Over which time the sessions at one endpoint, or at several that leave together, are ended.
const SPREAD: Duration = Duration::from_secs(10);
/// The time between two passes while there are sessions.
const INTERVAL: Duration = Duration::from_millis(500);
/// The same while there are none, for logins that were on their way.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Listeners, SessionId};
    use crate::net::{ClientAddress, ListenAddress};
    use crate::proxy::end::End;
    use crate::proxy::sessions::Listed;
    use crate::proxy::tests::socket;

    fn at(last: u8) -> BackendAddress {
        BackendAddress::Ip(([10, 0, 0, last], 143).into())
    }

    fn backend(reference: &str, leaving: &[u8]) -> Backend {
        let leaving = leaving.iter().map(|last| (at(*last), format!("pod-{last}"))).collect();
        Backend { leaving, ..Backend::new(reference.to_owned(), vec![at(9)]) }
    }

    fn snapshot(backend: Backend) -> Snapshot {
        let address = ListenAddress::Ip(([127, 0, 0, 1], 1143).into());
        let mut socket = socket(&address, Vec::new());
        let mut listener = (**socket.listeners.default()).clone();
        listener.backend = Some(Arc::new(backend));
        socket.listeners = Listeners::new(Arc::new(listener), []);
        Snapshot { revision: 1, sockets: BTreeMap::from([(address, Arc::new(socket))]) }
    }

    fn enter(sessions: &Sessions, number: u64, reference: &str, last: u8) -> Listed {
        let now = std::time::Instant::now();
        let mut record = Record::new(SessionId { process: 1, number }, ClientAddress::Unix, now);
        record.set_backend(&at(last), &Arc::new(backend(reference, &[])));
        sessions.shard(0).enter(Box::new(record), now)
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_at_an_endpoint_that_leaves_end_one_after_the_other() {
        let (sessions, mut leaving) = (Sessions::new(1), Leaving::default());
        let at_it = [1, 2, 3, 4].map(|number| enter(&sessions, number, "Service mail/a:143", 1));
        let elsewhere = [
            enter(&sessions, 5, "Service mail/a:143", 2),
            // Another tenant cannot end sessions of this one with an endpoint of the same address.
            enter(&sessions, 6, "Service other/a:143", 1),
        ];
        leaving.observe(&snapshot(backend("Service mail/a:143", &[1])), Instant::now());
        let begun = Instant::now();
        let mut ended = Vec::new();
        while begun.elapsed() <= SPREAD {
            leaving.next().await;
            leaving.pass(&sessions, Instant::now());
            ended.push(at_it.iter().filter(|listed| listed.live().ordered().is_some()).count());
        }
        let half = ended[ended.len() / 2];
        assert!((1..=3).contains(&half) && ended.last() == Some(&4), "{ended:?}");
        assert!(at_it.iter().all(|listed| matches!(listed.live().ordered(), Some(End::EndpointLeaves))));
        assert!(elsewhere.iter().all(|listed| listed.live().ordered().is_none()));
        leaving.observe(&snapshot(backend("Service mail/a:143", &[])), Instant::now());
        assert!(leaving.next.is_none());
    }
}
