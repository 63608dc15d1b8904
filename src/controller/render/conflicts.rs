//! Which listeners may share a socket, and who wins where they may not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::{Hostname, Listener, TlsMode};
use crate::net::ListenAddress;
use crate::protocol::Protocol;

use super::super::violation::{Concern, Violation};
use super::{Candidate, Draft, Serving};

/// Takes the candidate from every draft that loses, and says why. Inside one object neither wins; between
/// objects the smaller precedence does. The drafts of one object stand together.
pub(crate) fn resolve(drafts: &mut [Draft]) {
    let mut losses: Vec<(usize, Violation)> = Vec::new();
    let mut first = 0;
    for siblings in drafts.chunk_by(|a, b| a.object == b.object) {
        for (index, draft) in siblings.iter().enumerate() {
            let rivals = siblings.iter().enumerate().filter(|(rival, _)| *rival != index);
            let lost = rivals.filter_map(|(_, rival)| loss(draft, rival)).next();
            losses.extend(lost.map(|violation| (first + index, violation)));
        }
        first += siblings.len();
    }
    lose(drafts, losses);
    let mut order: Vec<usize> = (0..drafts.len()).filter(|i| drafts[*i].candidate.is_some()).collect();
    order.sort_by(|a, b| drafts[*a].precedence.cmp(&drafts[*b].precedence));
    let mut admitted = Admitted::default();
    let mut losses = Vec::new();
    for index in order {
        let Some(candidate) = &drafts[index].candidate else { continue };
        let mut rivals = admitted.rivals(candidate);
        rivals.sort_unstable();
        let rival = rivals.iter().find_map(|rival| loss(&drafts[index], &drafts[admitted.order[*rival]]));
        match rival {
            Some(violation) => losses.push((index, violation)),
            None => admitted.admit(index, candidate),
        }
    }
    lose(drafts, losses);
}

/// Those that keep their candidates, so that a newcomer is compared with the few that it can conflict with and not
/// with all: thousands may share a port, told apart by their host names.
#[derive(Default)]
struct Admitted {
    /// Drafts, the strongest first.
    order: Vec<usize>,
    /// Positions in `order`, by what keeps addresses apart, and then by address.
    places: HashMap<Place, BTreeMap<ListenAddress, Sharers>>,
}

/// Addresses of different places never overlap.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    Port(u16),
    Path(ListenAddress),
}

/// Positions of those that share an address. All are equal but for their host names.
struct Sharers {
    first: usize,
    names: HashMap<Hostname, usize>,
    unnamed: Option<usize>,
}

impl Admitted {
    /// Positions of all that the candidate may conflict with.
    fn rivals(&self, candidate: &Candidate) -> Vec<usize> {
        let Some(addresses) = self.places.get(&place(&candidate.address)) else { return Vec::new() };
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

    fn admit(&mut self, draft: usize, candidate: &Candidate) {
        let position = self.order.len();
        self.order.push(draft);
        let addresses = self.places.entry(place(&candidate.address)).or_default();
        let sharers = addresses.entry(candidate.address.clone()).or_insert_with(|| Sharers {
            first: position,
            names: HashMap::new(),
            unnamed: None,
        });
        let names = &candidate.listener.hostnames;
        sharers.names.extend(names.iter().map(|name| (name.clone(), position)));
        if names.is_empty() {
            sharers.unnamed = Some(position);
        }
    }
}

fn place(address: &ListenAddress) -> Place {
    address.port().map_or_else(|| Place::Path(address.clone()), Place::Port)
}

fn lose(drafts: &mut [Draft], losses: Vec<(usize, Violation)>) {
    for (index, violation) in losses {
        let draft = &mut drafts[index];
        draft.candidate = None;
        draft.outcome.address = None;
        draft.outcome.serving = Serving::Nothing;
        draft.outcome.violations.push(violation);
    }
}

/// Why the first cannot be served beside the second, if so.
fn loss(draft: &Draft, rival: &Draft) -> Option<Violation> {
    let (ours, theirs) = (draft.candidate.as_ref()?, rival.candidate.as_ref()?);
    if !ours.address.overlaps(&theirs.address) {
        return None;
    }
    let who = &rival.outcome.id;
    let (field, problem, remedy) = if ours.address == theirs.address {
        let difference = difference(ours, theirs)?;
        let problem = format!("listener {who} has {} too: {}", ours.address, difference.problem);
        (difference.field, problem, difference.remedy)
    } else {
        let problem = format!("{} overlaps {} of listener {who}", ours.address, theirs.address);
        ("address", problem, "give both the same address, or one of them another port")
    };
    let prefix = match draft.outcome.id.listener.as_str() {
        "" => "spec".to_owned(),
        name => format!("spec.listeners[{name}]"),
    };
    let reason = if field == "hostnames" { "HostnameConflict" } else { "SocketConflict" };
    Some(Violation::new(Concern::Conflicted, reason, &format!("{prefix}.{field}"), problem, remedy))
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
    if ours.tls_mode == TlsMode::Off && theirs.tls_mode == TlsMode::Off {
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
        return Some(Difference { field: "hostnames", problem, remedy: "give each its own host names" });
    }
    match ours.tls_mode {
        TlsMode::Off | TlsMode::Implicit => None,
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
    use super::super::{Kind, ListenerOutcome};
    use super::*;
    use crate::controller::index::Key;
    use crate::model::ListenerId;
    use proptest::prelude::*;

    /// One candidate of every kind that matters here: addresses, TLS modes, host names and a setting.
    fn candidates() -> Vec<Candidate> {
        let secret = tls_secret("t", &["a.test", "b.test"]);
        let mut all = Vec::new();
        for address in ["'*'", "127.0.0.1", "0.0.0.0", "'::'"] {
            for (mode, names) in [
                ("'Off'", ""),
                ("Implicit", ""),
                ("Implicit", "a.test"),
                ("Implicit", "b.test"),
                ("Implicit", "a.test, b.test"),
                ("StartTLS", "a.test"),
                ("StartTLS", "b.test"),
            ] {
                let certificate = if mode == "'Off'" { "" } else { ", certificateRefs: [{name: t}]" };
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

    fn draft(object: usize, candidate: &Candidate, number: usize) -> Draft {
        let key = Key::new("mail", &format!("{number:03}"));
        let id =
            ListenerId { namespace: "mail".into(), object: object.to_string(), listener: number.to_string() };
        let outcome = ListenerOutcome { id, address: None, serving: Serving::Current, violations: vec![] };
        let precedence = (Kind::Server, i64::try_from(object % 3).unwrap(), key);
        Draft { object, precedence, candidate: Some(candidate.clone()), outcome }
    }

    /// Everybody against everybody.
    fn resolve_pairwise(drafts: &mut [Draft]) {
        let siblings = |a: &Draft, b: &Draft| a.object == b.object && a.outcome.id != b.outcome.id;
        let losses = drafts.iter().enumerate().filter_map(|(index, draft)| {
            let rival = drafts.iter().find(|rival| siblings(draft, rival) && loss(draft, rival).is_some())?;
            Some((index, loss(draft, rival)?))
        });
        lose(drafts, losses.collect());
        let mut order: Vec<usize> = (0..drafts.len()).filter(|i| drafts[*i].candidate.is_some()).collect();
        order.sort_by_key(|index| drafts[*index].precedence.clone());
        let (mut admitted, mut losses) = (Vec::<usize>::new(), Vec::new());
        for index in order {
            match admitted.iter().find_map(|winner| loss(&drafts[index], &drafts[*winner])) {
                Some(violation) => losses.push((index, violation)),
                None => admitted.push(index),
            }
        }
        lose(drafts, losses);
    }

    #[test]
    fn who_loses_and_why_is_as_if_everybody_were_compared_with_everybody() {
        let candidates = candidates();
        let chosen = prop::collection::vec((0..candidates.len(), 0..3_usize), 0..12);
        proptest!(ProptestConfig::with_cases(500), |(chosen in chosen)| {
            let mut object = 0;
            let mut drafts: Vec<Draft> = Vec::new();
            for (number, (candidate, step)) in chosen.into_iter().enumerate() {
                object += step.min(1);
                drafts.push(draft(object, &candidates[candidate], number));
            }
            let mut pairwise = drafts.clone();
            resolve_pairwise(&mut pairwise);
            resolve(&mut drafts);
            let outcomes = |drafts: Vec<Draft>| drafts.into_iter().map(|draft| draft.outcome).collect::<Vec<_>>();
            prop_assert_eq!(outcomes(drafts), outcomes(pairwise));
        });
    }
}
