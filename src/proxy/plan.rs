//! Computes the steps from the running sockets to the wanted ones. Pure: the supervisor carries the steps out.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::model::{Listener, Snapshot, Socket};
use crate::net::{ListenAddress, SocketOptions};

/// One step. The supervisor carries out steps in the order of [`plan`].
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop accepting and let the sessions end.
    Drain(ListenAddress),
    /// Keep the socket; new sessions get the new configuration.
    Swap(Arc<Socket>),
    /// Close the socket and bind it again, because an option changed that an open socket cannot change.
    Rebind(Arc<Socket>),
    /// Bind a new socket.
    Bind(Arc<Socket>),
}

impl Action {
    /// Returns the value of the metric label `action`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drain(_) => "drain",
            Self::Swap(_) => "swap",
            Self::Rebind(_) => "rebind",
            Self::Bind(_) => "bind",
        }
    }

    /// Returns the address that the step changes.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        match self {
            Self::Drain(address) => address,
            Self::Swap(socket) | Self::Rebind(socket) | Self::Bind(socket) => &socket.address,
        }
    }
}

/// Returns the steps from `running`, which must be sorted by address, to `wanted`. Steps that free an address come
/// before steps that may need it. Sockets with the same allocation are not compared.
#[must_use]
pub fn plan<'a>(
    running: impl IntoIterator<Item = (&'a ListenAddress, &'a Arc<Socket>)>,
    wanted: &'a BTreeMap<ListenAddress, Arc<Socket>>,
) -> Vec<Action> {
    let (mut drains, mut swaps, mut rebinds, mut binds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (address, old, new) in beside(running, wanted) {
        match (old, new) {
            (_, None) => drains.push(Action::Drain(address.clone())),
            (None, Some(socket)) => binds.push(Action::Bind(Arc::clone(socket))),
            (Some(old), Some(socket)) if old == socket => {}
            (Some(old), Some(socket)) if needs_new_socket(&old.options, &socket.options) => {
                rebinds.push(Action::Rebind(Arc::clone(socket)));
            }
            (Some(_), Some(socket)) => swaps.push(Action::Swap(Arc::clone(socket))),
        }
    }
    drains.into_iter().chain(swaps).chain(rebinds).chain(binds).collect()
}

/// The listeners that a new snapshot removes and adds. A changed listener is in both lists.
#[derive(Debug, Default)]
pub struct Diff<'a> {
    /// Removed listeners, and changed ones before the change.
    pub removed: Vec<&'a Arc<Listener>>,
    /// Added listeners, and changed ones after the change.
    pub added: Vec<&'a Arc<Listener>>,
}

impl<'a> Diff<'a> {
    /// Compares two snapshots. Parts with the same allocation are not compared.
    #[must_use]
    pub fn new(before: &'a Snapshot, after: &'a Snapshot) -> Self {
        let mut diff = Self::default();
        for (_, old, new) in beside(&before.sockets, &after.sockets) {
            let listeners =
                |socket: Option<&'a Arc<Socket>>| socket.map(|socket| &*socket.listeners).unwrap_or_default();
            if !old.zip(new).is_some_and(|(old, new)| Arc::ptr_eq(old, new)) {
                diff.add(listeners(old), listeners(new));
            }
        }
        diff
    }

    fn add(&mut self, mut old: &'a [Arc<Listener>], mut new: &'a [Arc<Listener>]) {
        // Usually one of many listeners has changed, so skip the equal ones at both ends.
        while let ([first, old_rest @ ..], [same, new_rest @ ..]) = (old, new)
            && Arc::ptr_eq(first, same)
        {
            (old, new) = (old_rest, new_rest);
        }
        while let ([old_rest @ .., last], [new_rest @ .., same]) = (old, new)
            && Arc::ptr_eq(last, same)
        {
            (old, new) = (old_rest, new_rest);
        }
        let objects = |all: &[Arc<Listener>]| all.iter().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (before, after) = (objects(old), objects(new));
        self.removed.extend(old.iter().filter(|listener| !after.contains(&Arc::as_ptr(listener))));
        self.added.extend(new.iter().filter(|listener| !before.contains(&Arc::as_ptr(listener))));
    }
}

/// An address with its old and its new socket.
type Pair<'a> = (&'a ListenAddress, Option<&'a Arc<Socket>>, Option<&'a Arc<Socket>>);

/// Merges both sides by address. Both must be sorted by address.
fn beside<'a>(
    old: impl IntoIterator<Item = (&'a ListenAddress, &'a Arc<Socket>)>,
    new: &'a BTreeMap<ListenAddress, Arc<Socket>>,
) -> impl Iterator<Item = Pair<'a>> {
    let (mut old, mut new) = (old.into_iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let first = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => *a.min(b),
            (Some((address, _)), None) | (None, Some((address, _))) => *address,
            (None, None) => return None,
        };
        let is_first = |(address, _): &(&'a ListenAddress, &'a Arc<Socket>)| *address == first;
        let pair = (old.next_if(is_first), new.next_if(is_first));
        Some((first, pair.0.map(|(_, socket)| socket), pair.1.map(|(_, socket)| socket)))
    })
}

/// Tells whether an option changed that an open socket cannot change. Backlog, buffers and keepalive can be changed.
fn needs_new_socket(old: &SocketOptions, new: &SocketOptions) -> bool {
    let fixed = |options: &SocketOptions| (options.ipv6_only, options.reuse_port, options.multipath);
    fixed(old) != fixed(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Listeners, TlsMode};
    use crate::protocol::Protocol;

    fn socket(port: u16, change: impl FnOnce(&mut Socket)) -> Arc<Socket> {
        let mut socket = Socket {
            address: ListenAddress::Any { port },
            options: SocketOptions::default(),
            protocol: Protocol::Imap,
            tls_mode: TlsMode::Disabled,
            proxy_protocol: None,
            listeners: crate::proxy::tests::socket(&ListenAddress::Any { port }, Vec::new()).listeners,
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
    fn a_listener_that_changed_comes_and_goes_and_the_others_are_left_alone() {
        let listener = |name: &str| {
            let socket = crate::proxy::tests::socket(&ListenAddress::Any { port: 993 }, Vec::new());
            let mut listener = (*socket.listeners[0]).clone();
            listener.id.listener = name.to_owned();
            Arc::new(listener)
        };
        let snapshot = |port: u16, listeners: &[&Arc<Listener>]| {
            let mut all = listeners.iter().copied().map(Arc::clone);
            let listeners = Listeners::new(all.next().unwrap(), all);
            let sockets = sockets(&[socket(port, |socket| socket.listeners = listeners)]);
            Snapshot { revision: 1, sockets }
        };
        let names = |listeners: &[&Arc<Listener>]| {
            listeners.iter().map(|listener| listener.id.listener.clone()).collect::<Vec<_>>().join(" ")
        };
        let diff = |before: &Snapshot, after: &Snapshot| {
            let diff = Diff::new(before, after);
            (names(&diff.removed), names(&diff.added))
        };
        let [a, b, c, d] = ["a", "b", "c", "d"].map(listener);
        let all = snapshot(993, &[&a, &b, &c, &d]);
        assert_eq!(diff(&all, &all.clone()), (String::new(), String::new()));
        assert_eq!(diff(&all, &snapshot(993, &[&a, &listener("b"), &c, &d])), ("b".into(), "b".into()));
        assert_eq!(diff(&all, &snapshot(993, &[&d, &c, &listener("e"), &a])), ("b".into(), "e".into()));
        assert_eq!(diff(&all, &snapshot(995, &[&a])), ("a b c d".into(), "a".into()), "another socket");
    }

    #[test]
    fn frees_addresses_before_it_binds_others() {
        let running = sockets(&[socket(993, |_| ())]);
        let added = socket(110, |_| ());
        let actions = plan(&running, &sockets(&[Arc::clone(&added)]));
        assert_eq!(actions, [Action::Drain(ListenAddress::Any { port: 993 }), Action::Bind(added)]);
    }
}
