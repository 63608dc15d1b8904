//! A listener with all its settings resolved.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::{Serialize, Serializer};

use crate::protocol::FrontendConfig;

use super::auth::Auth;
use super::exclusive::Affinity;
use super::hostname::Hostname;
use super::reach::Reach;
use super::routes::{Destination, Routes};
use super::settings::{Backend, Limits, Resolver, Timeouts, Upstream};
use super::tls::ServerTls;

/// Identifies a listener across changes. It is the value of the metric label `listener`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    /// The namespace of the listener's object.
    pub namespace: String,
    /// The `MailServer`, or the `MailListener` of an attached listener.
    pub object: String,
    /// The listener's name in the `MailServer`; empty for a `MailListener`.
    pub listener: String,
}

/// Formats the id: `mail/example/imaps`, or `mail/example` for a `MailListener`.
impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.object)?;
        if self.listener.is_empty() { Ok(()) } else { write!(f, "/{}", self.listener) }
    }
}

impl Serialize for ListenerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A listener with its settings, as the data plane uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The listener's id.
    pub id: ListenerId,
    /// The host names that select it by SNI. Empty: all names.
    pub hostnames: Vec<Hostname>,
    /// What it announces and accepts before the login.
    pub frontend: Arc<FrontendConfig>,
    /// Set unless the socket's TLS mode is `Disabled`.
    pub tls: Option<Arc<ServerTls>>,
    /// Who decides about logins.
    pub auth: Auth,
    /// The backend of users without a route, unless the auth service names one. Without it, they are refused.
    pub backend: Option<Arc<Backend>>,
    /// Users with a backend of their own.
    pub routes: Option<Arc<Routes>>,
    /// Limits what it may connect to, whoever names the backend.
    pub reach: Reach,
    /// How it talks to backends.
    pub upstream: Arc<Upstream>,
    /// How it resolves names.
    pub resolver: Arc<Resolver>,
    /// The time limits of its sessions.
    pub timeouts: Timeouts,
    /// The limits of its sessions and clients.
    pub limits: Limits,
    /// SMTP: delay of the greeting. A client that sends before the greeting is refused.
    #[serde(serialize_with = "duration::required::serialize")]
    pub greeting_delay: Duration,
}

impl Listener {
    /// Returns the listener's own backend, and how to connect to it.
    #[must_use]
    pub fn destination(&self) -> Option<Destination> {
        let (backend, upstream) = (Arc::clone(self.backend.as_ref()?), Arc::clone(&self.upstream));
        Some(Destination { backend, upstream, reach: self.reach.clone(), affinity: Affinity::None })
    }

    /// Returns the backends of all its users: its own, and those of its routes.
    pub fn destinations(&self) -> impl Iterator<Item = Destination> {
        let routes = self.routes.iter().flat_map(|routes| routes.destinations.iter().flatten());
        self.destination().into_iter().chain(routes.map(|destination| (**destination).clone()))
    }
}
