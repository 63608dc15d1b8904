//! The status page and the metrics of the real binary with real sessions, as people and Prometheus see them.
//!
//! The page is looked at in headless Chromium, with JavaScript and without, narrow and wide, light and dark; its
//! screenshots are in target/page. Where Chromium or its driver is missing, those tests say so and are skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole crate is tests and their fixtures: to panic is how they fail"
)]
#![allow(
    unreachable_pub,
    reason = "`pub` is what a fixture offers to the tests, private what it keeps to itself"
)]

mod browser;
mod edge;
mod looks;
mod many;
mod metrics;
mod secrets;

#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;
