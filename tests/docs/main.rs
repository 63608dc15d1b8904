//! Tests of the documentation: links resolve, manifests are accepted, commands run and print what the pages show, and
//! reference pages match the code.
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

mod commands;
#[path = "../cluster/control_plane.rs"]
#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
mod control_plane;
mod links;
mod manifests;
mod pages;
mod play;
mod prose;
mod reference;
mod shell;
mod source;
#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;
