//! What has to be done to get from the sockets that run to the sockets that are wanted. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Socket;
use crate::net::{ListenAddress, SocketOptions};

/// One step. Steps are carried out in the order in which [`plan`] gives them.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop accepting and let the sessions end.
    Drain(ListenAddress),
    /// Keep the socket and give new sessions the new configuration.
    Swap(Arc<Socket>),
    /// Close the socket and bind it again: an option changed that only a new socket can have.
    Rebind(Arc<Socket>),
    /// Bind a new socket.
    Bind(Arc<Socket>),
}

/// The steps from `running` to `wanted`: everything that frees an address comes before what may need it.
#[must_use]
pub fn plan(
    running: &BTreeMap<ListenAddress, Arc<Socket>>,
    wanted: &BTreeMap<ListenAddress, Arc<Socket>>,
) -> Vec<Action> {
    let drains = running.keys().filter(|address| !wanted.contains_key(*address)).cloned().map(Action::Drain);
    let mut swaps = Vec::new();
    let mut rebinds = Vec::new();
    let mut binds = Vec::new();
    for (address, socket) in wanted {
        match running.get(address) {
            None => binds.push(Action::Bind(Arc::clone(socket))),
            Some(old) if old == socket => {}
            Some(old) if needs_new_socket(&old.options, &socket.options) => {
                rebinds.push(Action::Rebind(Arc::clone(socket)));
            }
            Some(_) => swaps.push(Action::Swap(Arc::clone(socket))),
        }
    }
    drains.chain(swaps).chain(rebinds).chain(binds).collect()
}

/// Backlog, buffers and keepalive can be changed on a listening socket; these cannot.
fn needs_new_socket(old: &SocketOptions, new: &SocketOptions) -> bool {
    let fixed = |options: &SocketOptions| (options.ipv6_only, options.reuse_port, options.multipath);
    fixed(old) != fixed(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TlsMode;
    use crate::protocol::Protocol;

    fn socket(port: u16, change: impl FnOnce(&mut Socket)) -> Arc<Socket> {
        let mut socket = Socket {
            address: ListenAddress::Any { port },
            options: SocketOptions::default(),
            protocol: Protocol::Imap,
            tls_mode: TlsMode::Off,
            proxy_protocol: None,
            listeners: Vec::new(),
        };
        change(&mut socket);
        Arc::new(socket)
    }

    fn sockets(all: &[Arc<Socket>]) -> BTreeMap<ListenAddress, Arc<Socket>> {
        all.iter().map(|socket| (socket.address.clone(), Arc::clone(socket))).collect()
    }

    #[test]
    fn leaves_alone_what_did_not_change() {
        let running = sockets(&[socket(143, |_| ())]);
        assert_eq!(plan(&running, &sockets(&[socket(143, |_| ())])), []);
    }

    #[test]
    fn keeps_the_socket_when_only_what_is_behind_it_changed() {
        let running = sockets(&[socket(143, |_| ())]);
        let changed = socket(143, |socket| socket.tls_mode = TlsMode::StartTls);
        assert_eq!(plan(&running, &sockets(&[Arc::clone(&changed)])), [Action::Swap(changed)]);
        let tuned = socket(143, |socket| socket.options.backlog = 1);
        assert_eq!(plan(&running, &sockets(&[Arc::clone(&tuned)])), [Action::Swap(tuned)]);
    }

    #[test]
    fn binds_again_for_what_only_a_new_socket_can_have() {
        let running = sockets(&[socket(143, |_| ())]);
        let changes: [fn(&mut SocketOptions); 3] = [
            |options| options.reuse_port = true,
            |options| options.ipv6_only = false,
            |options| options.multipath = true,
        ];
        for change in changes {
            let changed = socket(143, |socket| change(&mut socket.options));
            assert_eq!(plan(&running, &sockets(&[Arc::clone(&changed)])), [Action::Rebind(changed)]);
        }
    }

    #[test]
    fn frees_addresses_before_it_binds_others() {
        let running = sockets(&[socket(993, |_| ())]);
        let added = socket(110, |_| ());
        let actions = plan(&running, &sockets(&[Arc::clone(&added)]));
        assert_eq!(actions, [Action::Drain(ListenAddress::Any { port: 993 }), Action::Bind(added)]);
    }
}
