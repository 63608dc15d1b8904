//! Metrics of the build and the process.

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;

use crate::model::metric;

/// Registers the build information and the kernel's counters for the process.
///
/// # Errors
/// A metric with the same name is already registered.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    metric::BUILD_INFO.gauges(registry)?.with_label_values(&[VERSION, COMMIT]).set(1);
    registry.register(Box::new(ProcessCollector::for_self()))
}

/// The version for people, with the commit if it is known.
pub(super) const SHOWN_VERSION: &str = env!("MAILGRESS_VERSION");
/// The package's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit; `unknown` if the build was not told.
const COMMIT: &str = env!("MAILGRESS_BUILD_COMMIT");
