//! Which listeners may share a socket, and who wins where they may not.

use std::sync::Arc;

use crate::model::{Listener, TlsMode};
use crate::protocol::Protocol;

use super::super::violation::{Concern, Violation};
use super::{Candidate, Draft, Serving};

/// Takes the candidate from every draft that loses, and says why. Inside one object neither wins; between
/// objects the smaller precedence does.
pub(crate) fn resolve(drafts: &mut [Draft]) {
    let mut losses: Vec<(usize, Violation)> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let rivals =
            drafts.iter().enumerate().filter(|(i, rival)| *i != index && rival.object == draft.object);
        losses.extend(rivals.filter_map(|(_, rival)| Some((index, loss(draft, rival)?))).take(1));
    }
    lose(drafts, losses);
    let mut order: Vec<usize> = (0..drafts.len()).filter(|i| drafts[*i].candidate.is_some()).collect();
    order.sort_by(|a, b| drafts[*a].precedence.cmp(&drafts[*b].precedence));
    let mut admitted: Vec<usize> = Vec::new();
    let mut losses = Vec::new();
    for index in order {
        let rival = admitted.iter().find_map(|winner| loss(&drafts[index], &drafts[*winner]));
        match rival {
            Some(violation) => losses.push((index, violation)),
            None => admitted.push(index),
        }
    }
    lose(drafts, losses);
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
