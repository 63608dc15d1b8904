//! The rendering of a `MailRoute`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::listener::ListenerFields;
use crate::api::route::MailRouteSpec;
use crate::controller::index::Key;
use crate::model::exclusive::Affinity;
use crate::model::{Backend, Reach, RouteEntry};
use crate::protocol::Protocol;

use super::service::Usable;

/// The rendering of a route that its `MailServer` accepts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteDraft {
    /// The `MailServer`.
    pub(crate) server: Key,
    /// Its users.
    pub(crate) entry: Arc<RouteEntry>,
    /// Its backends. A Service that cannot be used is a backend without endpoints, so that its users are not sent
    /// elsewhere.
    pub(crate) backends: BTreeMap<Protocol, Arc<Backend>>,
    /// For each protocol, which endpoint a user gets.
    pub(crate) affinities: BTreeMap<Protocol, Affinity>,
    /// Those of its backends that could be used, now or earlier.
    pub(super) usable: BTreeMap<Protocol, Usable>,
    /// What it may connect to.
    pub(crate) reach: Reach,
    /// The spec from which it was rendered.
    pub(crate) spec: Arc<MailRouteSpec>,
    /// Its settings, in the form of a listener's fields.
    pub(crate) fields: Arc<ListenerFields>,
    /// Whether a part of it is from an earlier rendering.
    pub(crate) is_last_good: bool,
}
