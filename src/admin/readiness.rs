//! Whether the process may be sent clients, for `/readyz` and for whoever counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Registry};

use crate::model::metric::{self, PLAIN};

/// Whether the process may be sent clients: when nobody blocks it any more, and never again after
/// [`Readiness::drain`].
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reasons: Mutex<Vec<&'static str>>,
    draining: AtomicBool,
}

/// Blocks readiness until it is dropped.
#[derive(Debug)]
#[must_use = "readiness is blocked for as long as the guard lives"]
pub struct ReadinessGuard {
    readiness: Readiness,
    reason: &'static str,
}

/// The reason that stays.
pub(super) const DRAINING: &str = "draining";

impl Readiness {
    /// Ready at once; block it before anybody asks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready for `reason`, until the guard is dropped.
    pub fn block(&self, reason: &'static str) -> ReadinessGuard {
        self.lock().push(reason);
        ReadinessGuard { readiness: self.clone(), reason }
    }

    /// Never ready again: the process is about to end.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Why it is not ready; empty when it is.
    #[must_use]
    pub fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = self.lock().clone();
        if self.is_draining() {
            reasons.push(DRAINING);
        }
        reasons
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Has the registry tell it, too.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(Gauges {
            readiness: self.clone(),
            ready: metric::READINESS.unregistered_gauges()?,
            draining: metric::DRAINING.unregistered_gauges()?,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        let mut reasons = self.readiness.lock();
        if let Some(position) = reasons.iter().position(|reason| *reason == self.reason) {
            reasons.remove(position);
        }
    }
}

/// What a scrape is told, as it is then.
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
        drop(guard);
        assert_eq!(values(), ["mailgress_draining 0", "mailgress_ready 1"]);
        readiness.drain();
        assert_eq!(values(), ["mailgress_draining 1", "mailgress_ready 0"]);
    }
}
