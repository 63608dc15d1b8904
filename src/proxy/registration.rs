//! What the listeners of the current snapshot have registered: metrics, health checks and resolver zones. A listener
//! that is removed drops its [`Registration`], which forgets everything that no other listener uses.

use std::collections::HashMap;
use std::sync::Arc;

use crate::dns::Dns;
use crate::model::{Listener, ListenerId};

use super::certificates::{CertificateId, certificates};
use super::health::{CheckId, HealthChecks};
use super::metrics::{ListenerMetrics, Metrics};
use super::plan::Diff;
use super::uses::{Use, Uses};

/// The registrations of all listeners of the current snapshot, whether or not their sockets are bound.
#[derive(Debug)]
pub(crate) struct Registrations {
    metrics: Arc<Metrics>,
    dns: Arc<Dns>,
    zones: Uses<String>,
    certificates: Uses<CertificateId>,
    session_limits: Uses<ListenerId>,
    held: HashMap<ListenerId, Registration>,
}

/// The registrations of one listener.
#[derive(Debug)]
struct Registration {
    /// Sessions hold them too. Held here, they survive while the socket is bound again.
    _metrics: Arc<ListenerMetrics>,
    _session_limit: Option<Use<ListenerId>>,
    _zone: Option<Use<String>>,
    _certificates: Vec<Use<CertificateId>>,
    _checks: Vec<Use<CheckId>>,
}

impl Registrations {
    pub(crate) fn new(metrics: &Arc<Metrics>, dns: &Arc<Dns>) -> Self {
        let (of_zones, of_certificates, of_limits) =
            (Arc::clone(dns), Arc::clone(metrics), Arc::clone(metrics));
        Self {
            metrics: Arc::clone(metrics),
            dns: Arc::clone(dns),
            zones: Uses::new(move |zone: &String| of_zones.forget_zone(zone)),
            certificates: Uses::new(move |id| of_certificates.forget_certificate(id)),
            session_limits: Uses::new(move |id| of_limits.forget_session_limit(id)),
            held: HashMap::new(),
        }
    }

    /// Registers what a snapshot adds, and then forgets what it removes.
    pub(crate) fn turn(&mut self, diff: &Diff<'_>, health: &HealthChecks) {
        let new: HashMap<_, _> = diff
            .added
            .iter()
            .map(|listener| (listener.id.clone(), self.register(listener, health)))
            .collect();
        for listener in &diff.removed {
            if !new.contains_key(&listener.id) {
                self.held.remove(&listener.id);
            }
        }
        self.held.extend(new);
    }

    fn register(&self, listener: &Listener, health: &HealthChecks) -> Registration {
        let limit = listener.limits.max_connections.map(|limit| {
            self.metrics.session_limit(&listener.id, limit);
            self.session_limits.begin(listener.id.clone())
        });
        let zone = listener.resolver.statistics_zone.clone().map(|zone| {
            self.dns.add_zone(&zone);
            self.zones.begin(zone)
        });
        let certificates = certificates(listener).map(|(id, certificate)| {
            self.metrics.certificate(&id, certificate);
            self.certificates.begin(id)
        });
        Registration {
            _metrics: self.metrics.listener(&listener.id, listener.frontend.protocol),
            _session_limit: limit,
            _zone: zone,
            _certificates: certificates.collect(),
            _checks: health.register(listener),
        }
    }
}
