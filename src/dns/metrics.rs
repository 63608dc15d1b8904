//! Counters of resolvers with a zone (`resolver.statisticsZone`), with the label values of Angie's API.

use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Registry};

use crate::model::metric;

/// The counters of all zones.
#[derive(Debug)]
pub(super) struct Metrics {
    queries: IntCounterVec,
    requests: IntCounterVec,
    responses: IntCounterVec,
    zones: Mutex<BTreeMap<String, Arc<Zone>>>,
}

/// The counters of one zone. A resolver that still uses a removed zone counts without effect.
#[derive(Debug)]
pub(super) struct Zone {
    queries: Family,
    requests: Family,
    responses: Family,
}

/// The counters of one metric, by label.
#[derive(Debug)]
struct Family(Vec<(&'static str, IntCounter)>);

impl Metrics {
    /// Registers all metrics. They have no series until zones are added.
    ///
    /// # Errors
    /// A metric with the same name is already registered.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            queries: metric::RESOLVER_QUERIES.counters(registry)?,
            requests: metric::RESOLVER_REQUESTS.counters(registry)?,
            responses: metric::RESOLVER_RESPONSES.counters(registry)?,
            zones: Mutex::default(),
        })
    }

    /// Returns the zone with this name. A new zone has all its counters at zero.
    pub(super) fn zone(&self, name: &str) -> Arc<Zone> {
        let mut zones = self.zones.lock();
        let zone = zones.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Zone {
                queries: Family::new(&self.queries, name, &KINDS),
                requests: Family::new(&self.requests, name, &TYPES),
                responses: Family::new(&self.responses, name, &OUTCOMES),
            })
        });
        Arc::clone(zone)
    }

    /// Removes the zone with this name.
    pub(super) fn forget(&self, name: &str) {
        if let Some(zone) = self.zones.lock().remove(name) {
            zone.queries.remove(&self.queries, name);
            zone.requests.remove(&self.requests, name);
            zone.responses.remove(&self.responses, name);
        }
    }
}

impl Zone {
    /// Counts a lookup from a name to addresses.
    pub(super) fn asked_for_name(&self) {
        self.queries.count(NAME);
    }

    /// Counts a lookup from an address to a name.
    pub(super) fn asked_for_address(&self) {
        self.queries.count(ADDRESS);
    }

    /// Counts a request to a name server.
    pub(super) fn sent(&self, of: RecordType) {
        match of {
            RecordType::A => self.requests.count(A),
            RecordType::AAAA => self.requests.count(AAAA),
            RecordType::SRV => self.requests.count(SRV),
            RecordType::PTR => self.requests.count(PTR),
            _ => {}
        }
    }

    /// Counts an answer from a name server.
    pub(super) fn answered(&self, code: ResponseCode) {
        self.responses.count(match code {
            ResponseCode::NoError => SUCCESS,
            ResponseCode::FormErr => FORMAT_ERROR,
            ResponseCode::ServFail => SERVER_FAILURE,
            ResponseCode::NXDomain => NOT_FOUND,
            ResponseCode::NotImp => UNIMPLEMENTED,
            ResponseCode::Refused => REFUSED,
            _ => OTHER,
        });
    }

    /// Counts an invalid answer from a name server.
    pub(super) fn answered_badly(&self) {
        self.responses.count(OTHER);
    }

    /// Counts a lookup that no name server answered in time.
    pub(super) fn timed_out(&self) {
        self.responses.count(TIMED_OUT);
    }
}

impl Family {
    fn new(counters: &IntCounterVec, zone: &str, labels: &[&'static str]) -> Self {
        Self(labels.iter().map(|label| (*label, counters.with_label_values(&[zone, *label]))).collect())
    }

    fn count(&self, label: &str) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == label) {
            counter.inc();
        }
    }

    fn remove(&self, counters: &IntCounterVec, zone: &str) {
        for (label, _) in &self.0 {
            // The series exists, because [`Family::new`] created it.
            let _ = counters.remove_label_values(&[zone, *label]);
        }
    }
}

/// Values of the label `kind`.
const KINDS: [&str; 3] = [NAME, SRV, ADDRESS];
const NAME: &str = "name";
const ADDRESS: &str = "addr";

/// Values of the label `type`.
const TYPES: [&str; 4] = [A, AAAA, SRV, PTR];
const A: &str = "a";
const AAAA: &str = "aaaa";
const SRV: &str = "srv";
const PTR: &str = "ptr";

/// Values of the label `outcome`.
const OUTCOMES: [&str; 8] =
    [SUCCESS, TIMED_OUT, FORMAT_ERROR, SERVER_FAILURE, NOT_FOUND, UNIMPLEMENTED, REFUSED, OTHER];
const SUCCESS: &str = "success";
const TIMED_OUT: &str = "timedout";
const FORMAT_ERROR: &str = "format_error";
const SERVER_FAILURE: &str = "server_failure";
const NOT_FOUND: &str = "not_found";
const UNIMPLEMENTED: &str = "unimplemented";
const REFUSED: &str = "refused";
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_there_from_its_naming_until_nothing_names_it() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        metrics.zone("other");
        let kept = metrics.zone("edge");
        kept.answered(ResponseCode::ServFail);
        kept.answered(ResponseCode::YXDomain);
        for line in [
            r#"mailgress_resolver_queries_total{kind="srv",zone="other"} 0"#,
            r#"mailgress_resolver_responses_total{outcome="server_failure",zone="edge"} 1"#,
            r#"mailgress_resolver_responses_total{outcome="other",zone="edge"} 1"#,
        ] {
            assert!(text().contains(line), "{line} is missing in {}", text());
        }
        metrics.forget("edge");
        kept.sent(RecordType::A);
        assert!(!text().contains("edge"), "{}", text());
        assert!(text().contains("other"));
    }
}
