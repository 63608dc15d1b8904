//! From objects to a snapshot, and from what was bound to a status.
//!
//! A source (a folder, or a cluster) makes an [`index::Objects`]; [`render`] turns it into a snapshot and
//! violations, purely; [`publish::Publisher`] gives the snapshot its revision and keeps what must be
//! remembered between renders; [`status`] says, purely, how every object is.

pub mod board;
pub mod cluster;
pub mod folder;
pub mod gate;
pub mod gauges;
pub mod index;
pub mod inventory;
pub mod manifest;
pub mod metrics;
pub mod outlet;
pub mod ports;
pub mod print;
pub mod publish;
pub mod reason;
pub mod render;
pub mod roll;
pub mod service;
pub mod status;
pub mod validate;
pub mod violation;

pub use cluster::{Clients, ClusterOptions, ClusterSource, Start};
pub use folder::FolderSource;
