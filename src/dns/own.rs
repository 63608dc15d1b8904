//! The sockets that this process listens on. A login that is sent to one of them would come back without end.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::net::is_ours;

use super::Target;

/// The sockets of the data plane. Empty before the first configuration is served.
#[derive(Debug, Default)]
pub(super) struct OwnSockets(ArcSwap<Own>);

#[derive(Debug, Default)]
struct Own {
    targets: BTreeSet<Target>,
    /// Ports that are bound on all addresses.
    ports: BTreeSet<u16>,
    /// Whether addresses belong to this machine, as far as that was asked; at most [`MAX_KNOWN`].
    known: Mutex<HashMap<IpAddr, bool>>,
}

impl OwnSockets {
    /// Replaces the sockets.
    pub(super) fn set(&self, targets: BTreeSet<Target>) {
        let any = targets.iter().filter_map(Target::address).filter(|address| address.ip().is_unspecified());
        let ports = any.map(|address| address.port()).collect();
        self.0.store(Arc::new(Own { targets, ports, known: Mutex::default() }));
    }

    /// Tells whether a connection to `target` would reach this process.
    pub(super) fn have(&self, target: &Target) -> bool {
        let own = self.0.load();
        if own.targets.contains(target) {
            return true;
        }
        let Some(address) = target.address().filter(|address| own.ports.contains(&address.port())) else {
            return false;
        };
        let mut known = own.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        *known.entry(address.ip()).or_insert_with_key(|ip| is_ours(*ip))
    }
}

const MAX_KNOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Target {
        Target::Tcp(text.parse().unwrap())
    }

    #[test]
    fn knows_sockets_of_one_address_of_all_addresses_and_of_a_path() {
        let own = OwnSockets::default();
        assert!(!own.have(&tcp("127.0.0.1:143")));
        let unix = Target::Unix("/run/imap.sock".into());
        own.set(BTreeSet::from([tcp("127.0.0.1:143"), tcp("0.0.0.0:110"), tcp("[::]:995"), unix.clone()]));
        for target in [tcp("127.0.0.1:143"), tcp("127.0.0.9:110"), tcp("[::1]:995"), unix] {
            assert!(own.have(&target), "{target}");
        }
        for target in [tcp("127.0.0.9:143"), tcp("127.0.0.1:25"), Target::Unix("/run/pop3.sock".into())] {
            assert!(!own.have(&target), "{target}");
        }
        own.set(BTreeSet::new());
        assert!(!own.have(&tcp("127.0.0.1:143")));
    }
}
