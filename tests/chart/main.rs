//! The chart, `deploy/` which is generated from it, its alerts and dashboard, and the manifests of the pages: checked
//! with the tools of their users, and installed in a real API server.
//!
//! The tools are Go modules. Without Go, these tests print a message and are skipped.
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

mod alerts;
#[path = "../cluster/control_plane.rs"]
#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
mod control_plane;
mod dashboard;
mod deploy;
mod examples;
mod files;
mod installed;
mod listing;
mod manifests;
#[allow(dead_code, reason = "shared with tests/docs, which needs all of it")]
#[path = "../docs/pages.rs"]
mod pages;
mod schemas;
mod tools;
mod valid;
mod values;

#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
#[path = "../cluster/support.rs"]
mod support;
