//! From objects to a snapshot, and from what was bound to a status.
//!
//! A source (a folder, or a cluster) keeps an [`index::Index`] current; [`render::Renderer`] turns what changed in it into
//! numbered snapshots and the violations of each object, purely; [`publisher::Publisher`] hands both on; [`status`] makes
//! the conditions of each object, purely.

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
pub mod ports;
pub mod print;
pub mod publisher;
pub mod reason;
pub mod render;
pub mod service;
pub mod status;
pub mod status_store;
pub mod validate;
pub mod violation;

pub use cluster::{Clients, ClusterOptions, ClusterSource, Start};
pub use folder::FolderSource;
