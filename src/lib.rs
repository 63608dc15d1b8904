//! Mailgress: an ingress controller for mail on Kubernetes.
//!
//! One process has two halves, which communicate through two channels. The controller renders objects into a
//! [`model::Snapshot`]. The data plane ([`proxy`]) serves it and reports what it has bound. The modules are layers;
//! `tests/layering.rs` has the table of allowed imports.

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
