//! The Prometheus metrics of the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::model::clock::unix_now;
use crate::model::metric::{self, PLAIN};

use super::gauges::ObjectGauges;
use super::peers::{ReplicaLiveness, ReplicaState};

/// All metrics of the controller.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Running watches, by kind.
    watches: IntGaugeVec,
    /// Failures of watches, by kind and reason.
    watch_failures: IntCounterVec,
    /// Requests to the API server, by verb and resource.
    api_requests: IntCounterVec,
    /// The time of the last answer.
    api_answered: IntGaugeVec,
    renders: IntCounter,
    render_seconds: Histogram,
    problems: IntGauge,
    /// Has no value without a cluster.
    leader: IntGaugeVec,
    replica_up: IntGaugeVec,
    replica_behind: IntGaugeVec,
    /// The names of replicas that have gauges.
    replicas: Arc<Mutex<BTreeSet<String>>>,
    /// The state of objects.
    pub(super) objects: ObjectGauges,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    ///
    /// Fails if a metric with the same name is already registered.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            watches: metric::WATCHES.gauges(registry)?,
            watch_failures: metric::WATCH_FAILURES.counters(registry)?,
            api_requests: metric::API_REQUESTS.counters(registry)?,
            api_answered: metric::API_ANSWERED.gauges(registry)?,
            renders: metric::RENDERS.counters(registry)?.with_label_values(&PLAIN),
            render_seconds: metric::RENDER_DURATION.histograms(registry)?.with_label_values(&PLAIN),
            problems: metric::PROBLEMS.gauges(registry)?.with_label_values(&PLAIN),
            leader: metric::LEADER.gauges(registry)?,
            replica_up: metric::REPLICA_UP.gauges(registry)?,
            replica_behind: metric::REPLICA_OBJECTS_BEHIND.gauges(registry)?,
            replicas: Arc::default(),
            objects: ObjectGauges::register(registry)?,
        })
    }

    /// Sets the number of problems in `/status`.
    pub(super) fn problems(&self, number: usize) {
        self.problems.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Sets whether this replica leads.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.with_label_values(&PLAIN).set(leads.into());
    }

    /// Sets the gauges of these replicas, and removes those of all others.
    pub(super) fn replicas(&self, all: &[ReplicaState]) {
        let names: BTreeSet<String> = all.iter().map(|replica| replica.name.clone()).collect();
        for replica in all {
            let is_up = !matches!(replica.state, ReplicaLiveness::Silent(_));
            self.replica_up.with_label_values(&[&replica.name]).set(is_up.into());
            let behind = i64::try_from(replica.behind).unwrap_or(i64::MAX);
            self.replica_behind.with_label_values(&[&replica.name]).set(behind);
        }
        let mut known = self.replicas.lock();
        for removed in known.difference(&names) {
            // The removal cannot fail: the values were set before.
            let _ = self.replica_up.remove_label_values(&[removed]);
            let _ = self.replica_behind.remove_label_values(&[removed]);
        }
        *known = names;
    }

    /// Counts a rendering, and measures its time until the result is dropped.
    #[must_use]
    pub fn render(&self) -> impl Drop + use<> {
        self.renders.inc();
        self.render_seconds.start_timer()
    }

    /// Counts a running watch until the result is dropped.
    pub(super) fn watch(&self, kind: &str) -> RunningWatch {
        let running = self.watches.with_label_values(&[kind]);
        running.inc();
        RunningWatch(running)
    }

    /// Counts a failure of a watch.
    pub(super) fn watch_failed(&self, kind: &str, reason: &str) {
        self.watch_failures.with_label_values(&[kind, reason]).inc();
    }

    /// Counts a request to the API server.
    pub fn api_request(&self, verb: &str, path: &str) {
        self.api_requests.with_label_values(&[verb, resource(path)]).inc();
    }

    /// Stores the time of an answer of the API server.
    pub fn api_answered(&self, verb: &str, path: &str) {
        self.api_answered.with_label_values(&[verb, resource(path)]).set(unix_now());
    }
}

/// Counted in `mailgress_watches` until it is dropped.
#[derive(Debug)]
pub(super) struct RunningWatch(IntGauge);

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Returns the resource in a path. Labels must not have a value for each object.
fn resource(path: &str) -> &'static str {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let before = match segments.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return OTHER,
    };
    let mut segments = segments.skip(before);
    let named = match (segments.next(), segments.nth(1)) {
        (Some("namespaces"), Some(inside)) => Some(inside),
        (first, _) => first,
    };
    RESOURCES.into_iter().find(|resource| named == Some(resource)).unwrap_or(OTHER)
}

/// The resources that Mailgress requests.
const RESOURCES: [&str; 11] = [
    "mailservers",
    "maillisteners",
    "mailroutes",
    "namespaces",
    "secrets",
    "configmaps",
    "services",
    "endpointslices",
    "leases",
    "events",
    "pods",
];
const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_about() {
        for (path, expected) in [
            ("/api/v1/namespaces", "namespaces"),
            ("/api/v1/namespaces/mail", "namespaces"),
            ("/api/v1/namespaces/mail/secrets", "secrets"),
            ("/apis/mailgress.dev/v1alpha1/mailservers", "mailservers"),
            ("/apis/mailgress.dev/v1alpha1/namespaces/mail/mailservers/edge/status", "mailservers"),
            ("/apis/discovery.k8s.io/v1/endpointslices", "endpointslices"),
            ("/apis/apps/v1/namespaces/mail/deployments/x", "other"),
            ("/version", "other"),
            ("", "other"),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
    }

    #[test]
    fn watches_are_counted_while_they_run() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let watch = metrics.watch("Secret");
        drop(metrics.render());
        let value = || metrics.watches.with_label_values(&["Secret"]).get();
        assert_eq!((value(), metrics.renders.get()), (1, 1));
        drop(watch);
        assert_eq!((value(), metrics.render_seconds.get_sample_count()), (0, 1));
    }
}
