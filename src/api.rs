//! The Kubernetes API: the kinds `MailServer` and `MailListener` of group `mailgress.dev`.
//!
//! Types, schema and CEL rules, no logic: what a manifest may say, and what `kubectl explain` says about
//! it. Every list and string has a bound, so that the CEL rules fit the API server's cost budget. Settings
//! have no defaults in the schema, because a default on a listener would hide what its `MailServer` says;
//! the doc comments name them and the renderer applies them after the inheritance.

pub mod auth;
pub mod common;
pub mod crd;
pub mod limits;
pub mod listener;
pub mod rules;
pub mod server;
pub mod settings;
pub mod status;
pub mod tls;

pub use crd::crds;
pub use listener::{MailListener, MailListenerSpec};
pub use server::{MailServer, MailServerSpec};
pub use settings::Settings;

/// The API group.
pub const GROUP: &str = "mailgress.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as manifests write it.
pub const API_VERSION: &str = "mailgress.dev/v1alpha1";
/// The class that a `MailServer` without `className` has.
pub const DEFAULT_CLASS: &str = "mailgress";
