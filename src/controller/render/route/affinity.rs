//! Renders `spec.backend.affinity` of a `MailRoute`: which endpoint a user gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::api::common::Duration as Written;
use crate::api::route::{AffinityMode, MailRouteSpec, RouteAffinity};
use crate::controller::render::bounds::{Bounded, duration};
use crate::controller::render::endpoints::Choice;
use crate::controller::render::scope::Scope;
use crate::controller::render::units::protocol;
use crate::controller::violation::{Notice, Violation};
use crate::model::exclusive::{Affinity, EndpointName, EndpointState, ExclusiveBackend, GroupName, Timing};
use crate::protocol::Protocol;

/// The affinity of a route, for all its protocols.
pub(super) struct Rendered {
    mode: AffinityMode,
    /// `None`: all.
    protocols: Option<Vec<Protocol>>,
    group: GroupName,
    timing: Timing,
}

impl Rendered {
    /// Renders what does not depend on the endpoints.
    pub(super) fn new(scope: &Scope<'_>, spec: &MailRouteSpec) -> Self {
        let RouteAffinity { mode, protocols, group, move_timeout, grace, return_grace } =
            spec.backend.affinity.clone().unwrap_or_default();
        let read = |name: &str, value: Option<Written>, default: u64, most: u64| {
            let (default, most) = (Duration::from_secs(default), Duration::from_secs(most));
            let path = format!("spec.backend.affinity.{name}");
            duration(scope, &path, value.as_ref(), Bounded { default, least: Duration::ZERO, most })
        };
        let timing = Timing {
            move_timeout: read("moveTimeout", move_timeout, 30, 600),
            grace: read("grace", grace, 5, 600),
            return_grace: read("returnGrace", return_grace, 60, 3600),
        };
        // Groups of one namespace cannot be joined from another one.
        let own = scope.own_key(group.as_deref().unwrap_or(scope.listener_name()));
        let protocols = protocols.map(|all| all.into_iter().map(protocol).collect());
        Self { mode, protocols, group: GroupName::from(&*own.to_string()), timing }
    }

    /// Returns which endpoints of a protocol's backend are selected.
    pub(super) fn choice(&self, protocol: Protocol) -> Choice {
        if self.protocols.as_ref().is_some_and(|protocols| !protocols.contains(&protocol)) {
            return Choice::Nearest;
        }
        match self.mode {
            AffinityMode::None => Choice::Nearest,
            AffinityMode::User => Choice::ByUser,
            AffinityMode::Exclusive => Choice::Exclusive,
        }
    }

    /// Returns the affinity of a protocol's backend with these endpoints.
    pub(super) fn of(
        &self,
        protocol: Protocol,
        endpoints: BTreeMap<EndpointName, EndpointState>,
    ) -> Affinity {
        let (group, timing) = (self.group.clone(), self.timing);
        match self.choice(protocol) {
            Choice::Nearest => Affinity::None,
            Choice::ByUser => Affinity::User,
            Choice::Exclusive => Affinity::Exclusive(Arc::new(ExclusiveBackend { group, timing, endpoints })),
        }
    }

    /// Warns that a user is exclusive only within this process.
    pub(super) fn warn_of_replicas(&self, scope: &Scope<'_>) {
        if self.mode == AffinityMode::Exclusive {
            scope.report(Violation::notice(
                Notice::ReplicasUnknown,
                "spec.backend.affinity.mode",
                "Exclusive holds only within each replica of Mailgress, because --replicas is not set",
                "set --replicas to the Service that selects all replicas, or run only one",
            ));
        }
    }

    /// Warns of endpoints that not all protocols have. They get no exclusive users.
    pub(super) fn compare<'a>(
        &self,
        scope: &Scope<'_>,
        states: impl Iterator<Item = (Protocol, &'a BTreeMap<EndpointName, EndpointState>)>,
    ) {
        let exclusive = states
            .filter(|(protocol, states)| self.choice(*protocol) == Choice::Exclusive && !states.is_empty());
        let exclusive: Vec<_> = exclusive.collect();
        let all: BTreeSet<&EndpointName> = exclusive.iter().flat_map(|(_, states)| states.keys()).collect();
        let lacks = |name: &&EndpointName| {
            exclusive.iter().find(|(_, states)| !states.contains_key(*name)).map(|(protocol, _)| *protocol)
        };
        let Some((name, lacking)) = all.iter().find_map(|name| Some((*name, lacks(name)?))) else { return };
        let others = all.iter().filter(|name| lacks(name).is_some()).count().saturating_sub(1);
        let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
        let lacking = lacking.name().to_ascii_uppercase();
        scope.report(Violation::notice(
            Notice::EndpointsDiffer,
            "spec.backend.affinity",
            format!("the Service for {lacking} does not have the endpoint {name}{more}, which another protocol's has; it gets no users"),
            "let the Services select the same Pods, or name in affinity.protocols only the protocols whose Services do",
        ));
    }
}
