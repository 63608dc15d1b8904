//! Decides which listeners can share a socket, and which one wins a conflict.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::controller::reason::Reason;
use crate::controller::violation::{Concern, Violation};
use crate::model::{Hostname, Snapshot, TlsMode};
use crate::net::ListenAddress;

use super::{Candidate, Claim, ListenerOutcome, Serving};

/// A claim of an object, for the comparison with the object's other claims.
#[derive(Debug)]
pub(crate) struct Sibling {
    /// The position of the listener in the object.
    pub(crate) listener: usize,
    /// The claim in the object's spec.
    pub(crate) wanted: Arc<Candidate>,
    /// The claim with which the listener is served now.
    pub(crate) earlier: Option<Arc<Candidate>>,
}

/// Decides which claims of one object are used, in the order of `siblings`. A listener that is served stays. If its new
/// claim conflicts with the others, it keeps its earlier claim, and its outcome has the violation. Of new listeners
/// that conflict with each other, none is used.
pub(crate) fn among_siblings(
    siblings: &[Sibling],
    outcomes: &mut [ListenerOutcome],
) -> Vec<Option<Arc<Candidate>>> {
    let wanted: Vec<_> = siblings.iter().map(|sibling| Some(Arc::clone(&sibling.wanted))).collect();
    let is_new = |sibling: &Sibling| sibling.earlier.is_none();
    let new_claims: Vec<_> =
        siblings.iter().map(|sibling| is_new(sibling).then(|| Arc::clone(&sibling.wanted))).collect();
    let mut claims = wanted.clone();
    let contested: Vec<usize> =
        (0..siblings.len()).filter(|index| rival(&wanted, *index, &wanted).is_some()).collect();
    for index in &contested {
        if let (Some(claim), Some(sibling)) = (claims.get_mut(*index), siblings.get(*index)) {
            claim.clone_from(&sibling.earlier);
        }
    }
    let why = |index: usize, claims: &[Option<Arc<Candidate>>]| {
        let is_new = new_claims.get(index).is_some_and(Option::is_some);
        let new_claims: &[_] = if is_new { &new_claims } else { &[] };
        rival(&wanted, index, claims).or_else(|| rival(&wanted, index, new_claims))
    };
    // Each claim that changes may make room for another one.
    for _ in &contested {
        for index in &contested {
            if why(*index, &claims).is_none()
                && let (Some(claim), Some(wanted)) = (claims.get_mut(*index), wanted.get(*index))
            {
                claim.clone_from(wanted);
            }
        }
    }
    for index in contested {
        let Some(violation) = why(index, &claims) else { continue };
        let has_room = rival(&claims, index, &claims).is_none();
        let (Some(claim), Some(sibling)) = (claims.get_mut(index), siblings.get(index)) else { continue };
        let Some(outcome) = outcomes.get_mut(sibling.listener) else { continue };
        match claim.as_ref().filter(|_| has_room) {
            Some(kept) => outcome.fall_back(kept, violation),
            None => {
                *claim = None;
                outcome.lose(&sibling.wanted, violation);
            }
        }
    }
    claims
}

/// Returns why a candidate conflicts with one of these, except itself.
fn rival(
    candidates: &[Option<Arc<Candidate>>],
    index: usize,
    rivals: &[Option<Arc<Candidate>>],
) -> Option<Violation> {
    let candidate = candidates.get(index)?.as_ref()?;
    let rivals = rivals.iter().enumerate().filter(|(rival, _)| *rival != index);
    rivals.filter_map(|(_, rival)| loss(&candidate.claim, &rival.as_ref()?.claim)).next()
}

/// The decision on a claim among those of other objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// There is no decision yet.
    Undecided,
    /// The listener is served, or the socket is reserved for it.
    Wins,
    /// The claim is only a reservation, and a weaker listener that is served keeps its socket.
    Yields,
    /// A stronger claim conflicts.
    Loses(Violation),
}

/// Decides on all candidates, the strongest first. `before` is the snapshot that is served now. The result is stable:
/// another decision with the resulting snapshot is the same.
pub(crate) fn among_objects(candidates: &[&Arc<Candidate>], before: &Snapshot) -> Vec<Decision> {
    let mut served = served_before(candidates, before);
    loop {
        let decisions = decide(candidates, &served);
        let wins = |position: &usize| decisions.get(*position) == Some(&Decision::Wins);
        let count = served.len();
        // A reservation does not yield to a candidate that loses anyway.
        served.retain(wins);
        if served.len() == count {
            return decisions;
        }
    }
}

/// Returns the positions of the candidates that are served now. Empty without reservations, because only they depend on
/// it.
fn served_before(candidates: &[&Arc<Candidate>], before: &Snapshot) -> Vec<usize> {
    if candidates.iter().all(|candidate| candidate.listener.is_some()) {
        return Vec::new();
    }
    let all = before.sockets.iter();
    let all = all.flat_map(|(address, socket)| socket.listeners.iter().map(move |l| (address, &l.id)));
    let all: HashSet<_> = all.collect();
    let is_served = |candidate: &Candidate| {
        candidate.listener.is_some() && all.contains(&(&candidate.claim.address, &candidate.claim.id))
    };
    (0..candidates.len()).filter(|at| candidates.get(*at).is_some_and(|one| is_served(one))).collect()
}

fn decide(candidates: &[&Arc<Candidate>], served: &[usize]) -> Vec<Decision> {
    let mut protected = Admitted::default();
    served.iter().filter_map(|at| candidates.get(*at)).for_each(|candidate| protected.admit(candidate));
    let mut admitted = Admitted::default();
    let mut decisions = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        decisions.push(if let Some(violation) = admitted.against(&candidate.claim) {
            Decision::Loses(violation)
        } else if candidate.listener.is_none() && protected.against(&candidate.claim).is_some() {
            Decision::Yields
        } else {
            admitted.admit(candidate);
            Decision::Wins
        });
    }
    decisions
}

impl ListenerOutcome {
    /// The listener keeps its earlier claim because of a conflict.
    fn fall_back(&mut self, kept: &Candidate, violation: Violation) {
        self.address = Some(kept.claim.address.clone());
        self.serving = Serving::LastGood;
        self.violations.push(violation);
    }

    /// The candidate is not served because of a conflict. If only a reservation is lost, an earlier rendering of the
    /// listener may still be served.
    pub(crate) fn lose(&mut self, candidate: &Candidate, violation: Violation) {
        if candidate.listener.is_some() {
            self.address = None;
            self.serving = Serving::Nothing;
        }
        self.violations.push(violation);
    }
}

/// The accepted claims, indexed so that a new candidate is compared only with the few that can conflict. Thousands of
/// listeners may share a port with different host names.
#[derive(Default)]
struct Admitted<'a> {
    /// The strongest first.
    order: Vec<&'a Claim>,
    /// Positions in `order`, by port or path, and then by address.
    places: HashMap<Place, BTreeMap<&'a ListenAddress, Sharers<'a>>>,
}

/// A port or path. Addresses with different places never overlap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// A TCP port.
    Port(u16),
    /// A UNIX socket.
    Path(ListenAddress),
}

impl Place {
    /// Returns the place of an address.
    pub(crate) fn of(address: &ListenAddress) -> Self {
        address.port().map_or_else(|| Self::Path(address.clone()), Self::Port)
    }
}

/// The positions of claims with the same address. They differ only in their host names, but a listener may have a
/// reservation besides the claim with which it is served.
struct Sharers<'a> {
    /// The first claim, and all reservations.
    representatives: Vec<usize>,
    names: HashMap<&'a Hostname, usize>,
    unnamed: Option<usize>,
}

impl<'a> Admitted<'a> {
    /// Returns why the candidate conflicts: the violation for the strongest of its rivals.
    fn against(&self, claim: &Claim) -> Option<Violation> {
        let mut rivals = self.rivals(claim);
        rivals.sort_unstable();
        rivals.into_iter().filter_map(|rival| loss(claim, self.order.get(rival)?)).next()
    }

    /// Returns the positions of all claims with which the candidate may conflict.
    fn rivals(&self, claim: &Claim) -> Vec<usize> {
        let Some(addresses) = self.places.get(&Place::of(&claim.address)) else { return Vec::new() };
        let mut rivals: Vec<usize> = addresses
            .iter()
            .filter(|(address, _)| claim.address.overlaps(address))
            .flat_map(|(_, sharers)| sharers.representatives.iter().copied())
            .collect();
        if let Some(sharers) = addresses.get(&claim.address) {
            let names = &claim.hostnames;
            rivals.extend(names.iter().filter_map(|name| sharers.names.get(name)));
            rivals.extend(sharers.unnamed.filter(|_| names.is_empty()));
        }
        rivals
    }

    fn admit(&mut self, candidate: &'a Candidate) {
        let claim = &candidate.claim;
        let position = self.order.len();
        self.order.push(claim);
        let addresses = self.places.entry(Place::of(&claim.address)).or_default();
        let sharers = addresses.entry(&claim.address).or_insert_with(|| Sharers {
            representatives: Vec::new(),
            names: HashMap::new(),
            unnamed: None,
        });
        if sharers.representatives.is_empty() || candidate.listener.is_none() {
            sharers.representatives.push(position);
        }
        sharers.names.extend(claim.hostnames.iter().map(|name| (name, position)));
        if claim.hostnames.is_empty() {
            sharers.unnamed = Some(position);
        }
    }
}

/// Returns why the first claim conflicts with the second, if it does.
fn loss(ours: &Claim, theirs: &Claim) -> Option<Violation> {
    if ours.id == theirs.id || !ours.address.overlaps(&theirs.address) {
        return None;
    }
    let who = &theirs.id;
    let (field, problem, remedy) = if ours.address == theirs.address {
        let difference = difference(ours, theirs)?;
        let problem = format!("listener {who} has {} too: {}", ours.address, difference.problem);
        (difference.field, problem, difference.remedy)
    } else {
        let problem = format!("{} overlaps {} of listener {who}", ours.address, theirs.address);
        ("address", problem, "give both the same address, or one of them another port")
    };
    let prefix = match ours.id.listener.as_str() {
        "" => "spec".to_owned(),
        name => format!("spec.listeners[{name}]"),
    };
    let reason = if field == "hostnames" { Reason::HostnameConflict } else { Reason::SocketConflict };
    Some(Violation::new(Concern::Conflicted, reason, &format!("{prefix}.{field}"), problem, remedy))
}

/// Why two listeners cannot share an address.
struct Difference {
    field: &'static str,
    problem: String,
    remedy: &'static str,
}

fn difference(ours: &Claim, theirs: &Claim) -> Option<Difference> {
    const EQUAL: &str = "make both equal, or use another port";
    let differs = |field| Some(Difference { field, problem: format!("{field} differs"), remedy: EQUAL });
    if ours.tls_mode == TlsMode::Disabled && theirs.tls_mode == TlsMode::Disabled {
        return Some(Difference {
            field: "port",
            problem: "without TLS (SNI), Mailgress cannot distinguish the two listeners".to_owned(),
            remedy: "use another port or address, or TLS with different hostnames",
        });
    }
    if ours.protocol != theirs.protocol {
        return differs("protocol");
    }
    if ours.tls_mode != theirs.tls_mode {
        return differs("tls.mode");
    }
    if ours.proxy_protocol != theirs.proxy_protocol {
        return differs("proxyProtocol");
    }
    if ours.options != theirs.options {
        return differs("socket");
    }
    if let Some(problem) = same_names(ours, theirs) {
        return Some(Difference {
            field: "hostnames",
            problem,
            remedy: "give each its own host names, or one of them another port",
        });
    }
    match ours.tls_mode {
        TlsMode::Disabled | TlsMode::Implicit => None,
        TlsMode::StartTls | TlsMode::RequireStartTls => {
            let field = ours.before_sni.difference(&theirs.before_sni)?;
            let problem = format!("{field} differs, but clients see it before SNI selects a listener");
            Some(Difference { field, problem, remedy: EQUAL })
        }
    }
}

fn same_names(ours: &Claim, theirs: &Claim) -> Option<String> {
    if ours.hostnames.is_empty() && theirs.hostnames.is_empty() {
        return Some("neither has host names".to_owned());
    }
    let shared = ours.hostnames.iter().find(|name| theirs.hostnames.contains(name))?;
    Some(format!("both have host name {}", shared.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::render::claim::BeforeSni;
    use crate::controller::render::tests::{once, server, tls_secret};
    use crate::model::{Listener, ListenerId};
    use proptest::prelude::*;

    /// Returns candidates with all relevant differences: addresses, TLS modes, host names and a setting.
    fn candidates() -> Vec<Candidate> {
        let secret = tls_secret("t", &["a.test", "b.test"]);
        let mut all = Vec::new();
        for address in ["'*'", "127.0.0.1", "0.0.0.0", "'::'"] {
            for (mode, names) in [
                ("'Disabled'", ""),
                ("Implicit", ""),
                ("Implicit", "a.test"),
                ("Implicit", "b.test"),
                ("Implicit", "a.test, b.test"),
                ("StartTLS", "a.test"),
                ("StartTLS", "b.test"),
            ] {
                let certificate = if mode == "'Disabled'" { "" } else { ", certificateRefs: [{name: t}]" };
                for errors in [5, 6] {
                    let names =
                        if names.is_empty() { String::new() } else { format!("hostnames: [{names}],") };
                    let listener = format!(
                        "{{name: x, backendAddress: 'b:1', address: {address}, port: 143, {names} \
                         limits: {{maxErrors: {errors}}}, tls: {{mode: {mode}{certificate}}}}}"
                    );
                    let rendered = once(&(server(&listener, "") + &secret));
                    let socket = rendered.snapshot.sockets.into_values().next().unwrap();
                    let listener = &socket.listeners[0];
                    let Listener { frontend, limits, timeouts, greeting_delay, resolver, .. } = &**listener;
                    let claim = Claim {
                        id: listener.id.clone(),
                        address: socket.address.clone(),
                        options: socket.options.clone(),
                        protocol: socket.protocol,
                        tls_mode: socket.tls_mode,
                        proxy_protocol: socket.proxy_protocol.clone(),
                        hostnames: listener.hostnames.clone(),
                        before_sni: BeforeSni::new(frontend, limits, timeouts, *greeting_delay, resolver),
                    };
                    all.push(Candidate { claim, listener: Some(Arc::clone(listener)) });
                }
            }
        }
        all
    }

    /// Returns the candidate as listener `number` of the object `object`.
    fn claim(object: usize, candidate: &Candidate, number: usize) -> Arc<Candidate> {
        let id =
            ListenerId { namespace: "mail".into(), object: object.to_string(), listener: number.to_string() };
        let claim = Claim { id, ..candidate.claim.clone() };
        Arc::new(Candidate { claim, listener: candidate.listener.clone() })
    }

    /// Compares all candidates with each other, and returns the violations.
    fn pairwise(objects: &[Vec<Arc<Candidate>>]) -> Vec<Option<Violation>> {
        let mut admitted = Vec::<&Arc<Candidate>>::new();
        let mut lost = Vec::new();
        for siblings in objects {
            let against_siblings: Vec<_> = siblings
                .iter()
                .map(|claim| {
                    let rivals = siblings.iter().filter(|rival| !Arc::ptr_eq(claim, rival));
                    rivals.filter_map(|rival| loss(&claim.claim, &rival.claim)).next()
                })
                .collect();
            for (claim, violation) in siblings.iter().zip(against_siblings) {
                let against_others = || admitted.iter().find_map(|winner| loss(&claim.claim, &winner.claim));
                let violation = violation.or_else(against_others);
                if violation.is_none() {
                    admitted.push(claim);
                }
                lost.push(violation);
            }
        }
        lost
    }

    #[test]
    fn conflicts_are_those_of_comparing_all_claims() {
        let candidates = candidates();
        let chosen = prop::collection::vec((0..candidates.len(), 0..3_usize), 0..12);
        proptest!(ProptestConfig::with_cases(500), |(chosen in chosen)| {
            let mut objects: Vec<Vec<Arc<Candidate>>> = vec![vec![]];
            for (number, (candidate, step)) in chosen.into_iter().enumerate() {
                if step > 0 {
                    objects.push(vec![]);
                }
                let object = objects.len();
                let claim = claim(object, &candidates[candidate], number);
                objects.last_mut().unwrap().push(claim);
            }
            let mut lost: Vec<Option<Violation>> = Vec::new();
            let mut left: Vec<(usize, Arc<Candidate>)> = Vec::new();
            for object in &objects {
                let sibling = |(listener, wanted): (usize, &Arc<Candidate>)| {
                    Sibling { listener, wanted: Arc::clone(wanted), earlier: None }
                };
                let siblings: Vec<_> = object.iter().enumerate().map(sibling).collect();
                let mut outcomes: Vec<_> = object.iter().map(|claim| outcome(&claim.claim)).collect();
                let claims = among_siblings(&siblings, &mut outcomes);
                for (claim, mut outcome) in claims.into_iter().zip(outcomes) {
                    left.extend(claim.map(|claim| (lost.len(), claim)));
                    lost.push(outcome.violations.pop());
                }
            }
            let left_claims: Vec<_> = left.iter().map(|(_, claim)| claim).collect();
            let against_others = among_objects(&left_claims, &Snapshot::default());
            for ((position, _), decision) in left.iter().zip(against_others) {
                lost[*position] = match decision {
                    Decision::Loses(violation) => Some(violation),
                    _ => None,
                };
            }
            prop_assert_eq!(lost, pairwise(&objects));
        });
    }

    fn outcome(claim: &Claim) -> ListenerOutcome {
        let address = Some(claim.address.clone());
        ListenerOutcome {
            id: claim.id.clone(),
            address,
            wanted: Some(claim.address.clone()),
            serving: Serving::Current,
            is_backend_service: false,
            violations: vec![],
        }
    }
}
