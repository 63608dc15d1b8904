//! Mailgress as a user installs it: the image in pods on a real node, installed with the chart, with real mail servers.
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

mod all_replicas;
mod artifacts;
mod book;
mod by_hand;
mod cluster;
#[path = "../cluster/control_plane.rs"]
#[allow(dead_code, reason = "shared with tests/cluster, which needs all of it")]
mod control_plane;
mod flow;
mod image;
mod images;
mod mail;
mod namespaces;
mod node;
#[path = "../docs/pages.rs"]
#[allow(dead_code, reason = "shared with tests/docs, which needs all of it")]
mod pages;
#[path = "../docs/play.rs"]
mod play;
mod release;
mod rollout;
#[path = "../docs/shell.rs"]
mod shell;
mod steps;
#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;
mod traffic;
