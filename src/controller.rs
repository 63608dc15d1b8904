//! The controller: renders objects into a snapshot, and computes status from what was bound.
//!
//! A source (a folder or a cluster) keeps an [`index::Index`] current. [`render::Renderer`] (pure) renders what has
//! changed into numbered snapshots and the violations of each object. [`publisher::Publisher`] publishes both.
//! [`status`] (pure) computes the conditions of each object.

pub mod cluster;
pub mod folder;
pub mod gate;
pub mod gauges;
pub mod index;
pub mod inventory;
pub mod manifest;
pub mod metrics;
mod names;
pub mod peers;
pub mod pods;
pub mod ports;
pub mod publisher;
pub mod reason;
pub mod render;
pub mod service;
pub mod status;
pub mod status_store;
pub mod tickets;
pub mod validate;
pub mod violation;

pub use cluster::{Clients, ClusterOptions, ClusterSource, ExclusiveLink, Leadership, Start};
pub use folder::FolderSource;
