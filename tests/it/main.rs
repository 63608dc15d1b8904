//! Tests of the Mailgress process with real clients and servers: one module per behaviour.
//!
//! Every test starts its own `mailgress run --manifests`. All tests share one Dovecot and one Postfix, so each test
//! uses its own mailboxes. Tests poll for a condition with a time limit instead of sleeping.
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

mod addresses;
mod admin;
mod affinity;
mod all_replicas;
mod bad_auth;
mod bad_backend;
mod bad_client;
mod balance;
mod bans;
mod certificates;
mod check;
mod client_certificates;
mod client_names;
mod delivery;
mod descriptors;
mod folder;
mod followed;
mod health;
mod import;
mod imported_mail;
mod limits;
mod log;
mod logins;
mod mailu;
mod mechanisms;
mod misfits;
mod opening;
mod probe;
mod proxy_header;
mod public_configurations;
mod quickstart;
mod recipients;
mod refusals;
mod relayed;
mod routes;
mod seeing;
mod sessions;
mod shutdown;
mod sieve;
mod signals;
mod silent_resolver;
mod status;
mod support;
mod swap;
mod tenancy;
mod tls;
mod unavailable;
mod upstream;
