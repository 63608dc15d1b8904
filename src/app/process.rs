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
pub(super) fn version() -> String {
    option_env!("MAILGRESS_COMMIT").map_or(VERSION.to_owned(), |commit| format!("{VERSION} ({commit})"))
}

/// The package's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where the build did not say which.
const COMMIT: &str = match option_env!("MAILGRESS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
