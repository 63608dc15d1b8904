//! Which listeners may share a socket, and who wins where they may not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{Hostname, Listener, TlsMode};
use crate::net::ListenAddress;
use crate::protocol::Protocol;

use super::super::reason::Reason;
use super::super::violation::{Concern, Violation};
use super::{Candidate, ListenerOutcome, Serving};

/// Inside one object what was served stays: a listener that has changed, or is new, and cannot be beside the others
/// falls back to its `earlier` claim, and it is said why. Of rivals that are all new none wins.
pub(crate) fn among_siblings(
    claims: &mut [Option<Arc<Candidate>>],
    outcomes: &mut [ListenerOutcome],
    earlier: &[Option<Arc<Candidate>>],
) {
    let wanted = claims.to_vec();
    let contested: Vec<usize> =
        (0..wanted.len()).filter(|index| rival(&wanted, *index, &wanted).is_some()).collect();
    let newcomer = |(wanted, earlier): (&Option<_>, &Option<_>)| wanted.clone().filter(|_| earlier.is_none());
    let newcomers: Vec<_> = wanted.iter().zip(earlier).map(newcomer).collect();
    for index in &contested {
        if let (Some(claim), Some(earlier)) = (claims.get_mut(*index), earlier.get(*index)) {
            claim.clone_from(earlier);
        }
    }
    let why = |index: usize, claims: &[Option<Arc<Candidate>>]| {
        let is_new = newcomers.get(index).is_some_and(Option::is_some);
        let newcomers: &[_] = if is_new { &newcomers } else { &[] };
        rival(&wanted, index, claims).or_else(|| rival(&wanted, index, newcomers))
    };
    // Each that changes may make room for another.
    for _ in &contested {
        for index in &contested {
            if why(*index, claims).is_none()
                && let (Some(claim), Some(wanted)) = (claims.get_mut(*index), wanted.get(*index))
            {
                claim.clone_from(wanted);
            }
        }
    }
    for index in contested {
        let Some(violation) = why(index, claims) else { continue };
        let has_room = rival(claims, index, claims).is_none();
        let (Some(claim), Some(outcome)) = (claims.get_mut(index), outcomes.get_mut(index)) else { continue };
        match claim.as_ref().filter(|_| has_room) {
            Some(kept) => outcome.fall_back(kept, violation),
            None => {
                *claim = None;
                outcome.lose(violation);
            }
        }
    }
}

/// Why a candidate loses against one of these, itself apart.
fn rival(
    candidates: &[Option<Arc<Candidate>>],
    index: usize,
    rivals: &[Option<Arc<Candidate>>],
) -> Option<Violation> {
    let candidate = candidates.get(index)?.as_ref()?;
    let rivals = rivals.iter().enumerate().filter(|(rival, _)| *rival != index);
    rivals.filter_map(|(_, rival)| loss(candidate, rival.as_ref()?)).next()
}

/// Why each of the candidates, the strongest first, loses against a stronger one, if it does.
pub(crate) fn among_strangers<'a>(
    candidates: impl Iterator<Item = &'a Arc<Candidate>>,
) -> Vec<Option<Violation>> {
    let mut admitted = Admitted::default();
    candidates
        .map(|candidate| {
            let violation = admitted.against(candidate);
            if violation.is_none() {
                admitted.admit(candidate);
            }
            violation
        })
        .collect()
}

impl ListenerOutcome {
    /// It is served as before, because of a conflict.
    fn fall_back(&mut self, kept: &Candidate, violation: Violation) {
        self.address = Some(kept.address.clone());
        self.serving = Serving::LastGood;
        self.violations.push(violation);
    }

    /// It is not served, because of a conflict.
    pub(crate) fn lose(&mut self, violation: Violation) {
        self.address = None;
        self.serving = Serving::Nothing;
        self.violations.push(violation);
    }
}

/// Those that are served, so that a newcomer is compared with the few that it can conflict with and not with all:
/// thousands may share a port, told apart by their host names.
#[derive(Default)]
struct Admitted<'a> {
    /// The strongest first.
    order: Vec<&'a Arc<Candidate>>,
    /// Positions in `order`, by what keeps addresses apart, and then by address.
    places: HashMap<Place, BTreeMap<&'a ListenAddress, Sharers<'a>>>,
}

/// Addresses of different places never overlap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// A TCP port.
    Port(u16),
    /// A UNIX socket.
    Path(ListenAddress),
}

impl Place {
    /// Where an address is.
    pub(crate) fn of(address: &ListenAddress) -> Self {
        address.port().map_or_else(|| Self::Path(address.clone()), Self::Port)
    }
}

/// Positions of those that share an address. All are equal but for their host names.
struct Sharers<'a> {
    first: usize,
    names: HashMap<&'a Hostname, usize>,
    unnamed: Option<usize>,
}

impl<'a> Admitted<'a> {
    /// Why the candidate cannot be served beside the others: the strongest of those that keep it from that.
    fn against(&self, candidate: &Candidate) -> Option<Violation> {
        let mut rivals = self.rivals(candidate);
        rivals.sort_unstable();
        rivals.into_iter().filter_map(|rival| loss(candidate, self.order.get(rival)?)).next()
    }

    /// Positions of all that the candidate may conflict with.
    fn rivals(&self, candidate: &Candidate) -> Vec<usize> {
        let Some(addresses) = self.places.get(&Place::of(&candidate.address)) else { return Vec::new() };
        let mut rivals: Vec<usize> = addresses
            .iter()
            .filter(|(address, _)| candidate.address.overlaps(address))
            .map(|(_, sharers)| sharers.first)
            .collect();
        if let Some(sharers) = addresses.get(&candidate.address) {
            let names = &candidate.listener.hostnames;
            rivals.extend(names.iter().filter_map(|name| sharers.names.get(name)));
            rivals.extend(sharers.unnamed.filter(|_| names.is_empty()));
        }
        rivals
    }

    fn admit(&mut self, candidate: &'a Arc<Candidate>) {
        let position = self.order.len();
        self.order.push(candidate);
        let addresses = self.places.entry(Place::of(&candidate.address)).or_default();
        let sharers = addresses.entry(&candidate.address).or_insert_with(|| Sharers {
            first: position,
            names: HashMap::new(),
            unnamed: None,
        });
        let names = &candidate.listener.hostnames;
        sharers.names.extend(names.iter().map(|name| (name, position)));
        if names.is_empty() {
            sharers.unnamed = Some(position);
        }
    }
}

/// Why the first cannot be served beside the second, if so.
fn loss(ours: &Candidate, theirs: &Candidate) -> Option<Violation> {
    if !ours.address.overlaps(&theirs.address) {
        return None;
    }
    let who = &theirs.listener.id;
    let (field, problem, remedy) = if ours.address == theirs.address {
        let difference = difference(ours, theirs)?;
        let problem = format!("listener {who} has {} too: {}", ours.address, difference.problem);
        (difference.field, problem, difference.remedy)
    } else {
        let problem = format!("{} overlaps {} of listener {who}", ours.address, theirs.address);
        ("address", problem, "give both the same address, or one of them another port")
    };
    let prefix = match ours.listener.id.listener.as_str() {
        "" => "spec".to_owned(),
        name => format!("spec.listeners[{name}]"),
    };
    let reason = if field == "hostnames" { Reason::HostnameConflict } else { Reason::SocketConflict };
    Some(Violation::new(Concern::Conflicted, reason, &format!("{prefix}.{field}"), problem, remedy))
}

/// Whether both conflict with the same others, and for the same reasons: one may replace the other, and nobody else
/// sees a difference.
pub(crate) fn is_same_claim(a: &Candidate, b: &Candidate) -> bool {
    a.address == b.address
        && a.listener.id == b.listener.id
        && a.listener.hostnames == b.listener.hostnames
        && has_same_head(a, b)
        && before_handshake(&a.listener, &b.listener).is_none()
}

/// Whether both want the same socket at the same address.
pub(crate) fn has_same_head(a: &Candidate, b: &Candidate) -> bool {
    a.options == b.options
        && a.protocol == b.protocol
        && a.tls_mode == b.tls_mode
        && a.proxy_protocol == b.proxy_protocol
}

/// What keeps two listeners from sharing an address.
struct Difference {
    field: &'static str,
    problem: String,
    remedy: &'static str,
}

fn difference(ours: &Candidate, theirs: &Candidate) -> Option<Difference> {
    const EQUAL: &str = "make both equal, or use another port";
    let differs = |field| Some(Difference { field, problem: format!("{field} differs"), remedy: EQUAL });
    if ours.tls_mode == TlsMode::Disabled && theirs.tls_mode == TlsMode::Disabled {
        return Some(Difference {
            field: "port",
            problem: "nothing tells them apart without TLS".to_owned(),
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
    if let Some(problem) = same_names(&ours.listener, &theirs.listener) {
        return Some(Difference {
            field: "hostnames",
            problem,
            remedy: "give each its own host names, or one of them another port",
        });
    }
    match ours.tls_mode {
        TlsMode::Disabled | TlsMode::Implicit => None,
        TlsMode::StartTls | TlsMode::RequireStartTls => {
            let field = before_handshake(&ours.listener, &theirs.listener)?;
            let problem =
                format!("{field} differs, and clients see it before STARTTLS tells which host they want");
            Some(Difference { field, problem, remedy: EQUAL })
        }
    }
}

fn same_names(ours: &Listener, theirs: &Listener) -> Option<String> {
    if ours.hostnames.is_empty() && theirs.hostnames.is_empty() {
        return Some("neither has host names".to_owned());
    }
    let shared = ours.hostnames.iter().find(|name| theirs.hostnames.contains(name))?;
    Some(format!("both have host name {}", shared.as_str()))
}

/// The first setting that has an effect before SNI is known, and differs.
fn before_handshake(ours: &Listener, theirs: &Listener) -> Option<&'static str> {
    let (a, b) = (&ours.frontend, &theirs.frontend);
    let smtp = a.protocol == Protocol::Smtp;
    let settings = [
        ("serverName", a.server_name == b.server_name),
        (capabilities_field(a.protocol), a.capabilities == b.capabilities),
        (methods_field(a.protocol), a.mechanisms == b.mechanisms),
        ("auth", a.relay_sasl == b.relay_sasl),
        ("limits.maxErrors", a.max_errors == b.max_errors),
        ("limits.countedErrors", a.counted_errors == b.counted_errors),
        ("limits.maxCommands", a.max_commands == b.max_commands),
        ("limits.maxAuthFailures", a.max_auth_failures == b.max_auth_failures),
        ("limits", ours.limits == theirs.limits),
        ("timeouts.client", ours.timeouts.client == theirs.timeouts.client),
        ("timeouts.announce", ours.timeouts.announce == theirs.timeouts.announce),
        ("smtp.anonymousBeforeTLS", a.smtp.anonymous_before_tls == b.smtp.anonymous_before_tls),
        ("smtp.strictSequence", a.smtp.strict_sequence == b.smtp.strict_sequence),
        ("smtp.greetingDelay", ours.greeting_delay == theirs.greeting_delay),
        (
            "resolver",
            !smtp || Arc::ptr_eq(&ours.resolver, &theirs.resolver) || ours.resolver == theirs.resolver,
        ),
    ];
    settings.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field)
}

fn capabilities_field(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "imap.capabilities",
        Protocol::Pop3 => "pop3.capabilities",
        Protocol::Smtp => "smtp.capabilities",
    }
}

fn methods_field(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "imap.authMethods",
        Protocol::Pop3 => "pop3.authMethods",
        Protocol::Smtp => "smtp.authMethods",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{once, server, tls_secret};
    use super::*;
    use crate::model::ListenerId;
    use proptest::prelude::*;

    /// One candidate of every kind that matters here: addresses, TLS modes, host names and a setting.
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
                    all.push(Candidate {
                        address: socket.address.clone(),
                        options: socket.options.clone(),
                        protocol: socket.protocol,
                        tls_mode: socket.tls_mode,
                        proxy_protocol: socket.proxy_protocol.clone(),
                        listener: Arc::clone(&socket.listeners[0]),
                    });
                }
            }
        }
        all
    }

    /// The candidate as the listener `number` of the object `object`.
    fn claim(object: usize, candidate: &Candidate, number: usize) -> Arc<Candidate> {
        let id =
            ListenerId { namespace: "mail".into(), object: object.to_string(), listener: number.to_string() };
        let listener = Arc::new(Listener { id, ..(*candidate.listener).clone() });
        Arc::new(Candidate { listener, ..candidate.clone() })
    }

    /// Everybody against everybody: who loses, and why.
    fn pairwise(objects: &[Vec<Arc<Candidate>>]) -> Vec<Option<Violation>> {
        let mut admitted = Vec::<&Arc<Candidate>>::new();
        let mut lost = Vec::new();
        for siblings in objects {
            let against_siblings: Vec<_> = siblings
                .iter()
                .map(|claim| {
                    let rivals = siblings.iter().filter(|rival| !Arc::ptr_eq(claim, rival));
                    rivals.filter_map(|rival| loss(claim, rival)).next()
                })
                .collect();
            for (claim, violation) in siblings.iter().zip(against_siblings) {
                let against_others = || admitted.iter().find_map(|winner| loss(claim, winner));
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
    fn who_loses_and_why_is_as_if_everybody_were_compared_with_everybody() {
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
                let mut claims: Vec<_> = object.iter().cloned().map(Some).collect();
                let mut outcomes: Vec<_> = object.iter().map(|claim| outcome(claim)).collect();
                let earlier = vec![None; claims.len()];
                among_siblings(&mut claims, &mut outcomes, &earlier);
                for (claim, mut outcome) in claims.into_iter().zip(outcomes) {
                    left.extend(claim.map(|claim| (lost.len(), claim)));
                    lost.push(outcome.violations.pop());
                }
            }
            let against_others = among_strangers(left.iter().map(|(_, claim)| claim));
            for ((position, _), violation) in left.iter().zip(against_others) {
                lost[*position] = violation;
            }
            prop_assert_eq!(lost, pairwise(&objects));
        });
    }

    fn outcome(claim: &Candidate) -> ListenerOutcome {
        let address = Some(claim.address.clone());
        ListenerOutcome {
            id: claim.listener.id.clone(),
            address,
            wanted: Some(claim.address.clone()),
            serving: Serving::Current,
            is_backend_service: false,
            violations: vec![],
        }
    }
}
