//! Reports resolvers whose name servers do not answer: in the log, in metrics and in the status of listeners.
//!
//! `failures` detects the silence, after which lookups no longer wait, and `recovery` ends it.

use std::net::IpAddr;
use std::sync::Arc;

use prometheus::{IntGaugeVec, Registry};
use tokio::sync::watch;
use tracing::warn;

use crate::model::{Resolver, metric};
use crate::net::BackendAddress;

/// All silent resolvers.
#[derive(Debug)]
pub(super) struct Silences {
    blocks: watch::Sender<Arc<Vec<Resolver>>>,
    gauges: IntGaugeVec,
}

impl Silences {
    /// Starts without a silent resolver.
    ///
    /// # Errors
    /// A metric with the same name is already registered.
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self { blocks: watch::Sender::default(), gauges: metric::RESOLVER_SILENT.gauges(registry)? })
    }

    /// Returns a channel with the silent resolvers.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Vec<Resolver>>> {
        self.blocks.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Resolver>), servers: &str) {
        self.blocks.send_modify(|blocks| change(Arc::make_mut(blocks)));
        let count = self.blocks.borrow().iter().filter(|block| name(block) == servers).count();
        if count == 0 {
            // The series exists if a resolver with these servers was silent.
            let _ = self.gauges.remove_label_values(&[servers]);
        } else {
            self.gauges.with_label_values(&[servers]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// A silent resolver. It is reported as silent until this is dropped.
#[derive(Debug)]
pub(super) struct Silent {
    among: Arc<Silences>,
    block: Resolver,
}

impl Silent {
    /// Reports a silent resolver.
    pub(super) fn new(among: &Arc<Silences>, block: &Resolver) -> Self {
        warn!(
            servers = %name(block),
            "no name server answers; greeting clients without looking up their names until one does; {}",
            remedy(block)
        );
        among.change(|blocks| blocks.push(block.clone()), &name(block));
        Self { among: Arc::clone(among), block: block.clone() }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let is_other = |block: &Resolver| *block != self.block;
        self.among.change(|blocks| blocks.retain(is_other), &name(&self.block));
    }
}

/// Returns the name servers as shown in logs and metrics.
pub(super) fn name(block: &Resolver) -> String {
    if block.nameservers.is_empty() {
        return "resolv.conf".to_owned();
    }
    block.nameservers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn remedy(block: &Resolver) -> &'static str {
    let is_loopback = |server: &BackendAddress| match server {
        BackendAddress::Ip(address) => address.ip().is_loopback(),
        BackendAddress::Name { host, .. } => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        BackendAddress::Unix(_) => false,
    };
    match block.nameservers.iter().any(is_loopback) {
        true => {
            "a loopback address such as Docker's 127.0.0.11 has no name server in a pod: remove resolver.nameservers, \
             so that the pod's resolv.conf is used"
        }
        false if block.nameservers.is_empty() => {
            "check the host's resolv.conf and the connection to its name servers"
        }
        false => "check resolver.nameservers and the connection to them",
    }
}
