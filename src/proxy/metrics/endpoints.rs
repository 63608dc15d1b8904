//! The metrics of backends' endpoints: connections of sessions, by what came of them.
//!
//! An endpoint has series from its first connection until no configuration with it is used any more.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::model::metric;
use crate::net::BackendAddress;
use crate::protocol::Protocol;

use super::families::{Family, Kept, Series};

/// The metrics of all endpoints.
pub(crate) type EndpointFamilies = Family<EndpointSeries>;

/// The metric handles of one endpoint for one protocol.
pub(crate) type EndpointMetrics = Kept<EndpointSeries>;

/// The series with the label `backend`.
#[derive(Debug)]
pub(crate) struct EndpointSeries {
    connections: IntCounterVec,
}

/// What came of a connection to an endpoint; the label `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// The backend decided about the login.
    Answered,
    /// The connection could not be made, or its TLS.
    Unreachable,
    /// The connection was made, and the backend gave no usable answer to the login.
    Failed,
}

/// The endpoints that the sessions of one configuration have connected to.
#[derive(Debug)]
pub(crate) struct UsedEndpoints {
    families: Arc<EndpointFamilies>,
    protocol: Protocol,
    used: Mutex<Vec<Arc<EndpointMetrics>>>,
}

impl Connection {
    const ALL: [Self; 3] = [Self::Answered, Self::Unreachable, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

impl EndpointSeries {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self { connections: metric::BACKEND_CONNECTIONS.counters(registry)? })
    }
}

impl Series for EndpointSeries {
    type Id = BackendAddress;
    /// In the order of [`Connection`].
    type Handles = [IntCounter; 3];

    fn handles(&self, [name, protocol]: [&str; 2]) -> [IntCounter; 3] {
        Connection::ALL.map(|outcome| self.connections.with_label_values(&[name, protocol, outcome.name()]))
    }

    fn remove(&self, _: &[IntCounter; 3], [name, protocol]: [&str; 2]) {
        for outcome in Connection::ALL {
            // The series exist since the handles were made.
            let _ = self.connections.remove_label_values(&[name, protocol, outcome.name()]);
        }
    }
}

impl EndpointFamilies {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        Ok(Self::new(EndpointSeries::register(registry)?, MAX_ENDPOINTS))
    }
}

impl UsedEndpoints {
    /// None is used yet, except those of `previous` that are among `endpoints` still.
    pub(crate) fn new(
        families: &Arc<EndpointFamilies>,
        protocol: Protocol,
        previous: Option<&Self>,
        endpoints: &[BackendAddress],
    ) -> Self {
        let is_kept =
            |metrics: &&Arc<EndpointMetrics>| metrics.id().is_none_or(|address| endpoints.contains(address));
        let previous = previous.filter(|previous| previous.protocol == protocol);
        let kept = previous.map(|previous| previous.used.lock().iter().filter(is_kept).cloned().collect());
        Self { families: Arc::clone(families), protocol, used: Mutex::new(kept.unwrap_or_default()) }
    }

    /// Returns the handles of an endpoint. `None`: of all endpoints that an auth service has named.
    pub(crate) fn of(&self, address: Option<&BackendAddress>) -> Arc<EndpointMetrics> {
        let mut used = self.used.lock();
        if let Some(same) = used.iter().find(|metrics| metrics.id() == address) {
            return Arc::clone(same);
        }
        let made = self.families.of(address, self.protocol);
        if !used.iter().any(|known| Arc::ptr_eq(known, &made)) {
            used.push(Arc::clone(&made));
        }
        made
    }
}

impl EndpointMetrics {
    /// Counts a connection.
    pub(crate) fn count(&self, what: Connection) {
        let [answered, unreachable, failed] = &self.handles;
        match what {
            Connection::Answered => answered.inc(),
            Connection::Unreachable => unreachable.inc(),
            Connection::Failed => failed.inc(),
        }
    }
}

/// Endpoints, each counted once for each protocol, that have series of their own.
const MAX_ENDPOINTS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> BackendAddress {
        BackendAddress::Ip(([10, 0, 0, last], 143).into())
    }

    #[test]
    fn an_endpoint_keeps_its_counts_over_configurations_and_is_forgotten_with_the_last() {
        let registry = Registry::new();
        let families = EndpointFamilies::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let counted = |backend: &str, outcome: &str, value: u8| {
            let series = format!(
                "mailgress_backend_connections_total{{backend=\"{backend}\",outcome=\"{outcome}\",protocol=\"imap\"}} {value}"
            );
            assert!(text().contains(&series), "{series}: {}", text());
        };
        let used = |previous: Option<&UsedEndpoints>, endpoints: &[BackendAddress]| {
            UsedEndpoints::new(&families, Protocol::Imap, previous, endpoints)
        };
        let first = used(None, &[at(1), at(2)]);
        first.of(Some(&at(1))).count(Connection::Answered);
        first.of(Some(&at(2))).count(Connection::Unreachable);
        first.of(None).count(Connection::Failed);
        let second = used(Some(&first), &[at(1)]);
        drop(first);
        second.of(Some(&at(1))).count(Connection::Answered);
        counted("10.0.0.1:143", "answered", 2);
        counted("other", "failed", 1);
        assert!(!text().contains("10.0.0.2:143"), "{}", text());
        drop(second);
        assert!(!text().contains("10.0.0.1:143"), "{}", text());
    }

    #[test]
    fn endpoints_beyond_the_limit_share_their_series() {
        let families = EndpointFamilies::new(EndpointSeries::register(&Registry::new()).unwrap(), 2);
        let of = |last| families.of(Some(&at(last)), Protocol::Imap);
        let (_one, _two, three, four) = (of(1), of(2), of(3), of(4));
        assert!(three.id().is_none() && Arc::ptr_eq(&three, &four));
        assert_eq!(of(1).name, "10.0.0.1:143");
    }
}
