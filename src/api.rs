//! The Kubernetes API: the kinds `MailServer`, `MailListener` and `MailRoute` of group `mailgress.dev`.
//!
//! Types, schema and CEL rules, without logic: the fields of a manifest and their texts in `kubectl explain`. Every
//! list and string has a bound, so that the CEL rules fit the API server's cost budget. Settings have no defaults in
//! the schema, because a default on a listener would hide the `MailServer`'s value. The doc comments name the defaults,
//! and the renderer applies them after the inheritance.

pub mod auth;
pub mod common;
pub mod crd;
pub mod limits;
pub mod listener;
pub mod route;
pub mod rules;
pub mod server;
pub mod settings;
pub mod status;
pub mod tls;

pub use crd::crds;
pub use listener::{MailListener, MailListenerSpec};
pub use route::{MailRoute, MailRouteSpec};
pub use server::{MailServer, MailServerSpec};
pub use settings::Settings;

/// The API group.
pub const GROUP: &str = "mailgress.dev";
/// The API version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` in manifests.
pub const API_VERSION: &str = "mailgress.dev/v1alpha1";
/// The default of `className`.
pub const DEFAULT_CLASS: &str = "mailgress";
