//! What the controller counts, as Prometheus metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// All metrics of the controller.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Watches that run, by kind.
    watches: IntGaugeVec,
    /// Their failures, by kind and reason.
    watch_failures: IntCounterVec,
    /// Requests to the API server, by verb and resource.
    api_requests: IntCounterVec,
    renders: IntCounter,
    render_seconds: Histogram,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("mailgress_{name}"), help), labels)
        };
        let seconds = HistogramOpts::new("mailgress_render_seconds", "One render of what had changed");
        let metrics = Self {
            watches: IntGaugeVec::new(Opts::new("mailgress_watches", "Watches that run"), &["kind"])?,
            watch_failures: counter(
                "watch_failures_total",
                "Failures of watches; each is tried again",
                &["kind", "reason"],
            )?,
            api_requests: counter("api_requests_total", "Requests to the API server", &["verb", "resource"])?,
            renders: IntCounter::new("mailgress_renders_total", "Renders of what had changed")?,
            render_seconds: Histogram::with_opts(seconds.buckets(BUCKETS.to_vec()))?,
        };
        registry.register(Box::new(metrics.watches.clone()))?;
        registry.register(Box::new(metrics.watch_failures.clone()))?;
        registry.register(Box::new(metrics.api_requests.clone()))?;
        registry.register(Box::new(metrics.renders.clone()))?;
        registry.register(Box::new(metrics.render_seconds.clone()))?;
        Ok(metrics)
    }

    /// Times one render, until what it returns is dropped.
    #[must_use]
    pub fn render(&self) -> impl Drop + use<> {
        self.renders.inc();
        self.render_seconds.start_timer()
    }

    /// A watch runs, until what this returns is dropped.
    pub(super) fn watch(&self, kind: &str) -> RunningWatch {
        let running = self.watches.with_label_values(&[kind]);
        running.inc();
        RunningWatch(running)
    }

    /// A watch failed.
    pub(super) fn watch_failed(&self, kind: &str, reason: &str) {
        self.watch_failures.with_label_values(&[kind, reason]).inc();
    }

    /// A request goes to the API server.
    pub fn api_request(&self, verb: &str, path: &str) {
        self.api_requests.with_label_values(&[verb, resource(path)]).inc();
    }
}

/// Counted in `mailgress_watches` until it is dropped.
#[derive(Debug)]
pub(super) struct RunningWatch(prometheus::IntGauge);

impl Drop for RunningWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The resource that a path is about: a label must not have a value for every object.
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

/// What is asked for.
const RESOURCES: [&str; 10] = [
    "mailservers",
    "maillisteners",
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
/// Seconds: a change of one object, and thousands at the start.
const BUCKETS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

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
