//! Mailgress in a cluster: the real binary with the permissions of deploy/, a real kube-apiserver and etcd.
//!
//! There are no nodes: the tests write EndpointSlices, and Mailgress runs as a process with a ServiceAccount's token.
//! If there is no control plane and none can be built, the tests print a message and are skipped.
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

mod affinity;
mod cluster;
mod control_plane;
mod definitions;
mod dovecots;
mod faults;
mod forwarder;
mod front;
mod given;
mod mail;
mod network;
mod outage;
mod pending;
mod permissions;
mod refusals;
mod replicas;
mod routes;
mod secrets;
mod serving;
mod sizes;
mod starts;
mod status;
mod tenancy;
mod tickets;
mod validity;

#[allow(dead_code, reason = "shared with tests/it, which needs all of it")]
mod support;

mod tools;
