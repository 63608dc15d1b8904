//! Which ports our Service should have: those that listeners have and that are served, everywhere. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::index::ObjectId;

/// The ports of all objects.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    of: BTreeMap<ObjectId, Vec<Claim>>,
    all: BTreeMap<u16, Claims>,
}

/// One listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The port.
    pub port: u16,
    /// Whether the listener is ready.
    pub is_ready: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Claims {
    all: usize,
    ready: usize,
}

impl Ports {
    /// An object's listeners have these ports now, and no others.
    pub fn set(&mut self, object: &ObjectId, claims: Vec<Claim>) {
        for claim in self.of.remove(object).unwrap_or_default() {
            if let Some(claims) = self.all.get_mut(&claim.port) {
                claims.all = claims.all.saturating_sub(1);
                claims.ready = claims.ready.saturating_sub(usize::from(claim.is_ready));
            }
        }
        for claim in &claims {
            let all = self.all.entry(claim.port).or_default();
            all.all = all.all.saturating_add(1);
            all.ready = all.ready.saturating_add(usize::from(claim.is_ready));
        }
        self.all.retain(|_, claims| claims.all > 0);
        if !claims.is_empty() {
            self.of.insert(object.clone(), claims);
        }
    }

    /// Whether an object's listeners have any.
    #[must_use]
    pub fn knows(&self, object: &ObjectId) -> bool {
        self.of.contains_key(object)
    }

    /// The ports to be shown to clients. One that `is_shown` stays until no listener has it any more: a replica that
    /// fails to bind it takes it from nobody else's clients.
    #[must_use]
    pub fn wanted(&self, is_shown: impl Fn(u16) -> bool) -> BTreeSet<u16> {
        let is_wanted = |(port, claims): &(&u16, &Claims)| claims.ready > 0 || is_shown(**port);
        self.all.iter().filter(is_wanted).map(|(port, _)| *port).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::{Key, Kind};

    fn wanted(ports: &Ports, shown: &[u16]) -> Vec<u16> {
        ports.wanted(|port| shown.contains(&port)).into_iter().collect()
    }

    #[test]
    fn a_port_is_shown_when_it_is_served_and_until_nobody_has_it() {
        let object = |name: &str| ObjectId::new(Kind::Server, &Key::new("mail", name));
        let mut ports = Ports::default();
        ports.set(
            &object("a"),
            vec![Claim { port: 993, is_ready: true }, Claim { port: 995, is_ready: false }],
        );
        ports.set(&object("b"), vec![Claim { port: 993, is_ready: false }]);
        assert_eq!(wanted(&ports, &[]), [993]);
        assert_eq!(wanted(&ports, &[995, 143]), [993, 995]);
        ports.set(&object("a"), vec![Claim { port: 993, is_ready: false }]);
        assert_eq!(wanted(&ports, &[]), [0_u16; 0]);
        assert_eq!(wanted(&ports, &[993, 995]), [993]);
        ports.set(&object("a"), vec![]);
        ports.set(&object("b"), vec![]);
        assert_eq!(wanted(&ports, &[993]), [0_u16; 0]);
        assert!(ports.of.is_empty());
    }
}
