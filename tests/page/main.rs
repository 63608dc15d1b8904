//! The status page and the metrics of the real binary with real sessions.
//!
//! The page is displayed in headless Chromium, with and without JavaScript, narrow and wide, light and dark.
//! Screenshots are in target/page. If Chromium or its driver is missing, these tests print a message and are skipped.
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
mod routes;
mod secrets;

#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;
