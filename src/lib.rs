//! Mailgress: an ingress controller for mail on Kubernetes.
//!
//! Two halves live in one process and meet at two channels: the controller renders objects into a
//! [`model::Snapshot`], and the data plane ([`proxy`]) serves it and reports back what it bound.
//! The modules are layers; `tests/layering.rs` holds the table of which may import which.

pub mod admin;
pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod controller;
pub mod dns;
pub mod import;
pub mod model;
pub mod net;
pub mod probe;
pub mod protocol;
pub mod proxy;
pub mod secret;
pub mod tls;
pub mod words;
