//! Explains where a user goes, for `mailgress why`. Pure: it reads the snapshot. [`Routes`] decides here
//! and for logins.

use crate::model::exclusive::{Affinity, EndpointSet, EndpointState};
use crate::model::routes::{Matched, Placement};
use crate::model::settings::LoadBalancing;
use crate::model::why::{WhyAffinity, WhyBackend, WhyEndpoint, WhyListener, WhyOutcome, WhyQuery, WhyRoute};
use crate::model::{
    Auth, Backend, Destination, Listener, Routes, Routing, ServerNames, Snapshot, Socket, Upstream,
};
use crate::net::BackendAddress;
use crate::protocol::Protocol;
use crate::protocol::user::Named;

use super::affinity::groups;
use super::balance::{order_by_hash, user_key};
use super::exclusive::home;
use super::record::{is_listener, shown};

/// Tells what each listener does with a user, in the order of the sockets.
#[must_use]
pub fn why(snapshot: &Snapshot, query: &WhyQuery) -> Vec<WhyListener> {
    let mut all = Vec::new();
    for socket in snapshot.sockets.values().filter(|socket| has_protocol(socket, query)) {
        let reached = query.sni.as_ref().map(|name| ServerNames::new(&socket.listeners).select(Some(name)));
        for (position, listener) in socket.listeners.iter().enumerate() {
            let is_reached = reached.is_none_or(|reached| reached == Some(position));
            let named = query.listener.as_ref();
            if is_reached && named.is_none_or(|named| is_listener(named, &listener.id.to_string())) {
                all.push(of_listener(snapshot, socket, listener, query));
            }
        }
    }
    all
}

fn has_protocol(socket: &Socket, query: &WhyQuery) -> bool {
    let is_asked = query.protocol.as_ref().is_none_or(|protocol| protocol == socket.protocol.name());
    is_asked && (!query.recipient || socket.protocol == Protocol::Smtp)
}

fn of_listener(snapshot: &Snapshot, socket: &Socket, listener: &Listener, query: &WhyQuery) -> WhyListener {
    let user = query.user.as_bytes();
    let rules = listener.routes.as_ref().map(|routes| routes.rules.clone()).unwrap_or_default();
    let named = if query.recipient { rules.of_recipient(user) } else { rules.of_name(user) };
    let routes = listener.routes.as_ref();
    let routing = routes.map_or(Routing::Unmatched, |routes| routes.find(&named));
    let placement = routes.map_or(Placement::Own, |routes| routes.placement(routing));
    WhyListener {
        listener: listener.id.to_string(),
        protocol: socket.protocol.name().to_owned(),
        address: socket.address.to_string(),
        user: shown(named.user.as_bytes()).into(),
        auth_service: match &listener.auth {
            Auth::Http(service) => Some(service.reference.clone()),
            Auth::Passthrough => None,
        },
        route: routes.and_then(|routes| route(routes, routing, &named)),
        outcome: match (placement, outcome(placement, listener, user)) {
            (Placement::To { destination, .. }, WhyOutcome::Backend(backend)) => {
                WhyOutcome::Backend(with_affinity(snapshot, destination, backend, &user_key(&named)))
            }
            (_, outcome) => outcome,
        },
    }
}

fn route(routes: &Routes, routing: Routing<'_>, named: &Named) -> Option<WhyRoute> {
    let Routing::Route(position, matched) = routing else { return None };
    let matched = match matched {
        Matched::User => "the user".to_owned(),
        Matched::Domain => format!("the domain {}", named.user.domain().unwrap_or_default()),
        Matched::Wildcard(domain) => format!("the domain *.{domain}"),
    };
    Some(WhyRoute { name: routes.table.entries().get(position)?.id.to_string(), matched })
}

fn outcome(placement: Placement<'_>, listener: &Listener, login: &[u8]) -> WhyOutcome {
    match (placement, &listener.backend) {
        (Placement::To { destination, .. }, _) => {
            WhyOutcome::Backend(backend(&destination.backend, &destination.upstream, login, false))
        }
        (Placement::Own, Some(own)) => WhyOutcome::Backend(backend(own, &listener.upstream, login, true)),
        (Placement::Own, None) => WhyOutcome::NoBackend,
        (Placement::Held { .. }, _) => WhyOutcome::Held,
        (Placement::Refused, _) => WhyOutcome::RouteRefused,
        (Placement::NoDomain, _) => WhyOutcome::NoDomain,
        (Placement::Undecided(entry), _) => WhyOutcome::Undecided { route: entry.id.to_string() },
    }
}

fn backend(backend: &Backend, upstream: &Upstream, login: &[u8], is_listeners: bool) -> WhyBackend {
    let order = match upstream.load_balancing {
        LoadBalancing::UserHash => order_by_hash(backend, login),
        LoadBalancing::RoundRobin | LoadBalancing::LeastSessions => backend.endpoints.clone(),
    };
    let endpoint = |address: &BackendAddress| WhyEndpoint {
        address: address.to_string(),
        pod: backend.names.get(address).cloned(),
    };
    let leaving = backend.leaving.iter();
    let leaving =
        leaving.map(|(address, pod)| WhyEndpoint { address: address.to_string(), pod: Some(pod.clone()) });
    WhyBackend {
        backend: backend.reference.clone(),
        is_listeners,
        load_balancing: format!("{:?}", upstream.load_balancing),
        endpoints: order.iter().map(endpoint).collect(),
        leaving: leaving.collect(),
        affinity: None,
    }
}

/// Leaves the endpoints of a user that has one.
fn with_affinity(
    snapshot: &Snapshot,
    destination: &Destination,
    backend: WhyBackend,
    user: &[u8],
) -> WhyBackend {
    let shown = |endpoints: Vec<BackendAddress>| {
        let name = |address: &BackendAddress| destination.backend.names.get(address).cloned();
        let all = endpoints.into_iter();
        all.map(|address| WhyEndpoint { pod: name(&address), address: address.to_string() }).collect()
    };
    let order = order_by_hash(&destination.backend, user);
    match &destination.affinity {
        Affinity::None => backend,
        Affinity::User => {
            let affinity = WhyAffinity { mode: "User".to_owned(), group: None, endpoint: None };
            WhyBackend { endpoints: shown(order), affinity: Some(affinity), ..backend }
        }
        Affinity::Exclusive(exclusive) => {
            let group = groups(snapshot).remove(&exclusive.group);
            let all = group.into_iter().flat_map(|group| group.endpoints);
            let staying = all.filter(|(_, state)| *state != EndpointState::Leaving);
            let all: EndpointSet = staying.map(|(name, _)| name).collect();
            let endpoint = home(&all, user).map(ToString::to_string);
            let is_home =
                |address: &BackendAddress| destination.backend.names.get(address) == endpoint.as_ref();
            let endpoints = order.into_iter().filter(is_home).collect();
            let group = Some(exclusive.group.to_string());
            let affinity = WhyAffinity { mode: "Exclusive".to_owned(), group, endpoint: endpoint.clone() };
            WhyBackend { endpoints: shown(endpoints), affinity: Some(affinity), ..backend }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{
        AllowedDomains, DomainPattern, Listeners, Reach, RouteEntry, RouteId, RouteState, RouteTable,
        UserList,
    };
    use crate::net::ListenAddress;
    use crate::protocol::{User, UserRules};
    use crate::proxy::tests::socket;

    fn entry(name: &str, domains: &[&str], users: &[&str], state: RouteState) -> RouteEntry {
        RouteEntry {
            id: RouteId { namespace: "mail".to_owned(), name: name.to_owned() },
            domains: domains.iter().map(|domain| DomainPattern::parse(domain).unwrap()).collect(),
            users: vec![Arc::new(UserList::new(users.iter().map(|user| User::new(user.as_bytes()))))],
            unread: None,
            state,
        }
    }

    fn at(last: u8) -> BackendAddress {
        BackendAddress::Ip(([10, 0, 0, last], 110).into())
    }

    /// One POP3 listener with routes. Those in `with_backend` have one; the listener itself has one if `own`.
    fn snapshot(entries: Vec<RouteEntry>, with_backend: &[&str], own: bool) -> Snapshot {
        let address = ListenAddress::Ip(([127, 0, 0, 1], 1110).into());
        let mut socket = socket(&address, vec![at(9)]);
        let mut listener = (**socket.listeners.default()).clone();
        let mut backend = Backend::new("Service mail/new:110".to_owned(), vec![at(1), at(2), at(3)]);
        backend.names = [(at(1), "new-0"), (at(2), "new-1"), (at(3), "new-2")]
            .map(|(address, name)| (address, name.to_owned()))
            .into();
        let upstream = Upstream { load_balancing: LoadBalancing::UserHash, ..(*listener.upstream).clone() };
        let destination = Arc::new(Destination {
            backend: Arc::new(backend),
            upstream: Arc::new(upstream),
            reach: Reach::Anywhere,
            affinity: Affinity::None,
        });
        let has_backend = |entry: &RouteEntry| with_backend.contains(&entry.id.name.as_str());
        let destinations =
            entries.iter().map(|entry| has_backend(entry).then(|| Arc::clone(&destination))).collect();
        listener.routes = Some(Arc::new(Routes {
            rules: UserRules::default(),
            table: Arc::new(RouteTable::new(entries.into_iter().map(Arc::new).collect())),
            destinations,
        }));
        listener.backend = listener.backend.filter(|_| own);
        socket.listeners = Listeners::new(Arc::new(listener), []);
        Snapshot { revision: 1, sockets: BTreeMap::from([(address, Arc::new(socket))]) }
    }

    fn query(user: &str) -> WhyQuery {
        WhyQuery { user: user.to_owned(), ..WhyQuery::default() }
    }

    /// Returns the route, what matched, and the outcome.
    fn explained(snapshot: &Snapshot, user: &str) -> (String, String, WhyOutcome) {
        let mut all = why(snapshot, &query(user));
        assert_eq!(all.len(), 1);
        let WhyListener { route, outcome, .. } = all.remove(0);
        let (name, matched) = route.map(|route| (route.name, route.matched)).unwrap_or_default();
        (name, matched, outcome)
    }

    #[test]
    fn the_match_and_the_state_of_a_route_are_explained() {
        let held = RouteState::Held { timeout: Duration::ZERO, spread: Duration::ZERO };
        let entries = || {
            vec![
                entry("domain", &["a.example"], &[], RouteState::Active),
                entry("below", &["*.example"], &["bob@a.example"], held),
                entry("closed", &["closed.test"], &[], RouteState::Refused),
                entry("other", &["other.test"], &[], RouteState::Active),
            ]
        };
        let snapshot_with = |own| snapshot(entries(), &["domain"], own);
        let own = snapshot_with(true);
        for (user, route, matched, outcome) in [
            ("bob@a.example", "mail/below", "the user", WhyOutcome::Held),
            ("me@b.example", "mail/below", "the domain *.example", WhyOutcome::Held),
            ("me@closed.test", "mail/closed", "the domain closed.test", WhyOutcome::RouteRefused),
        ] {
            assert_eq!(explained(&own, user), (route.to_owned(), matched.to_owned(), outcome), "{user}");
        }
        // A route without a backend for the protocol, and no route.
        for (user, route) in [("me@other.test", "mail/other"), ("me@nowhere.test", "")] {
            let (name, _, outcome) = explained(&own, user);
            let WhyOutcome::Backend(backend) = outcome else { panic!("{user}: {outcome:?}") };
            assert!(name == route && backend.is_listeners, "{user}: {name}, {backend:?}");
            assert_eq!(explained(&snapshot_with(false), user).2, WhyOutcome::NoBackend, "{user}");
        }
    }

    #[test]
    fn user_hash_tells_the_endpoint_that_sessions_get() {
        let active = entry("domain", &["a.example"], &[], RouteState::Active);
        let snapshot = snapshot(vec![active], &["domain"], false);
        let balancer = crate::proxy::balance::Balancer::default();
        let routes = snapshot.sockets.values().next().unwrap().listeners.default().routes.clone().unwrap();
        let destination = routes.destinations[0].clone().unwrap();
        let mut first = std::collections::BTreeSet::new();
        for user in ["al@A.example", "bob@a.example", "carol@a.example", "dave@a.example", "erin@a.example"] {
            let (_, _, outcome) = explained(&snapshot, user);
            let WhyOutcome::Backend(backend) = outcome else { panic!("{outcome:?}") };
            let order: Vec<_> = backend.endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
            let served = balancer.order(&destination.backend, LoadBalancing::UserHash, user.as_bytes());
            assert_eq!(order, served.iter().map(ToString::to_string).collect::<Vec<_>>(), "{user}");
            first.insert(backend.endpoints[0].pod.clone());
        }
        assert!(first.len() > 1, "{first:?}");
    }

    #[test]
    fn an_unread_list_leaves_the_user_undecided() {
        let unread =
            RouteEntry { unread: Some(AllowedDomains::All), ..entry("unread", &[], &[], RouteState::Active) };
        let (_, _, outcome) = explained(&snapshot(vec![unread], &[], true), "me@a.example");
        assert_eq!(outcome, WhyOutcome::Undecided { route: "mail/unread".to_owned() });
    }

    #[test]
    fn a_question_selects_listeners() {
        let snapshot = snapshot(Vec::new(), &[], true);
        let count = |query: WhyQuery| why(&snapshot, &query).len();
        let with = |change: fn(&mut WhyQuery)| {
            let mut query = query("me");
            change(&mut query);
            count(query)
        };
        assert_eq!(with(|query| query.protocol = Some("pop3".to_owned())), 1);
        assert_eq!(with(|query| query.protocol = Some("imap".to_owned())), 0);
        assert_eq!(with(|query| query.recipient = true), 0);
        assert_eq!(with(|query| query.listener = Some("mail/example".to_owned())), 1);
        assert_eq!(with(|query| query.listener = Some("mail/exam".to_owned())), 0);
        assert_eq!(with(|query| query.sni = Some("any.test".to_owned())), 1);
    }
}
