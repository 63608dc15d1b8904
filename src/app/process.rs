//! What runs, and what it takes: metrics of the process as a whole.

use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;

use crate::model::metric;

/// Registers the build, and what the kernel counts for the process.
///
/// # Errors
/// When a metric of the same name is registered already.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    metric::BUILD_INFO.gauges(registry)?.with_label_values(&[VERSION, COMMIT]).set(1);
    registry.register(Box::new(ProcessCollector::for_self()))
}

/// For people: with the commit where it is known.
pub(super) const SHOWN_VERSION: &str = env!("MAILGRESS_VERSION");
/// The package's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `unknown` where nobody said it to the build.
const COMMIT: &str = env!("MAILGRESS_BUILD_COMMIT");
