//! Whether the process is ready for clients, for `/readyz` and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Registry};

use crate::model::metric::{self, PLAIN};

/// Whether the process is ready for clients. It becomes ready when the last guard is dropped, and is never ready again
/// after [`Readiness::drain`].
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reasons: Mutex<Reasons>,
    draining: AtomicBool,
}

/// The reasons for not being ready, by the number of their guard.
#[derive(Debug, Default)]
struct Reasons {
    all: BTreeMap<u64, String>,
    guards: u64,
}

/// Blocks readiness until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is blocked for as long as the guard lives"]
pub struct ReadinessGuard {
    readiness: Readiness,
    number: u64,
}

/// The reason after [`Readiness::drain`].
pub(super) const DRAINING: &str = "draining";

impl Readiness {
    /// Starts as ready. Block it before the first probe.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Blocks readiness with `reason` until the guard is dropped.
    pub fn block(&self, reason: impl Into<String>) -> ReadinessGuard {
        let mut reasons = self.lock();
        reasons.guards = reasons.guards.saturating_add(1);
        let number = reasons.guards;
        reasons.all.insert(number, reason.into());
        ReadinessGuard { readiness: self.clone(), number }
    }

    /// Makes the process not ready for good, because it is about to end.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Returns why the process is not ready. Empty if it is ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.lock().all.values().cloned().collect();
        if self.is_draining() {
            reasons.push(DRAINING.to_owned());
        }
        reasons
    }

    /// Tells whether the process is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Registers the readiness as metrics.
    ///
    /// # Errors
    /// A metric with the same name is already registered.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(Gauges {
            readiness: self.clone(),
            ready: metric::READINESS.unregistered_gauges()?,
            draining: metric::DRAINING.unregistered_gauges()?,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Reasons> {
        self.0.reasons.lock()
    }
}

impl ReadinessGuard {
    /// Changes the reason.
    pub fn say(&self, reason: String) {
        self.readiness.lock().all.insert(self.number, reason);
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.readiness.lock().all.remove(&self.number);
    }
}

/// Sets the gauges at each scrape.
struct Gauges {
    readiness: Readiness,
    ready: IntGaugeVec,
    draining: IntGaugeVec,
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.ready.desc(), self.draining.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let is_ready = self.readiness.reasons().is_empty();
        self.ready.with_label_values(&PLAIN).set(is_ready.into());
        self.draining.with_label_values(&PLAIN).set(self.readiness.is_draining().into());
        [self.ready.collect(), self.draining.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_told_how_it_is_then() {
        let (registry, readiness) = (Registry::new(), Readiness::new());
        readiness.register(&registry).unwrap();
        let values = || {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let guard = readiness.block("no snapshot yet");
        assert_eq!(values(), ["mailgress_draining 0", "mailgress_ready 0"]);
        guard.say("a listener is missing".to_owned());
        assert_eq!(readiness.reasons(), ["a listener is missing"]);
        drop(guard);
        assert_eq!(values(), ["mailgress_draining 0", "mailgress_ready 1"]);
        readiness.drain();
        assert_eq!(values(), ["mailgress_draining 1", "mailgress_ready 0"]);
    }
}
