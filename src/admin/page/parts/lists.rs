//! The lists of backends, faults, changes, problems and replicas.

use maud::{Markup, html};

use crate::admin::page::words;
use crate::model::view::{Backend, Change, Fault, Peer, Role, Sentence, State, View};

use super::{part_shown, table};

/// Shows problems with reading objects or writing status.
pub(in crate::admin::page) fn problems(view: &View) -> Markup {
    html! {
        section #problems data-live aria-label="Problems" {
            @if !view.problems.is_empty() {
                h2 { span.pill.bad { "✕ " (words::things(view.problems.len(), "problem")) } " " small { "the last known configuration is still in use" } }
                div.card { ul.plain { @for problem in &view.problems { li { (problem) } } } }
            }
        }
    }
}

/// Shows the matching backends.
pub(in crate::admin::page) fn backends(view: &View) -> Markup {
    let excerpt = &view.backends;
    html! {
        section #backends data-live aria-labelledby="backends-title" {
            h2 #backends-title {
                "Backends " (part_shown(excerpt))
            }
            div.card {
                @if excerpt.shown.is_empty() {
                    p.empty { @if excerpt.all == 0 { "No backends are configured." } @else { "No matches." } }
                } @else {
                    @let rows = html! { @for backend in &excerpt.shown { (backend_row(backend)) } };
                    (table("Backends with the health of their endpoints", &BACKEND_COLUMNS, &rows))
                }
            }
        }
    }
}

const BACKEND_COLUMNS: [&str; 4] = ["Backend", "State", "Endpoints", "Used by"];

fn backend_row(backend: &Backend) -> Markup {
    let (class, sign, _) = words::state(backend.state);
    let healthy = backend.endpoints.saturating_sub(backend.unhealthy_in_all);
    let word = match (backend.endpoints, backend.is_checked, backend.state) {
        (0, ..) => "No endpoints",
        (_, false, _) => "Not checked",
        (_, true, State::Good) => "Healthy",
        (_, true, State::Bad) => "All fail",
        (_, true, State::Alarming | State::Pending) => "Some fail",
    };
    let (class, sign) = if word == "Not checked" { ("pending", "–") } else { (class, sign) };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (backend.reference)
                @for (address, why) in &backend.unhealthy { p.note { b { (address) } ": " (why) } }
                @let more = backend.unhealthy_in_all.saturating_sub(backend.unhealthy.len());
                @if more > 0 { p.note { "and " (words::things(more, "other")) } }
                @if !backend.leaving.is_empty() { p.note { "Out of service: " (backend.leaving.join(", ")) } }
            }
            td role="cell" data-label=(BACKEND_COLUMNS[1]) { span.pill.(class) { (sign) " " (word) } }
            td role="cell" data-label=(BACKEND_COLUMNS[2]) {
                @if backend.is_checked { (words::size(healthy)) " of " (words::size(backend.endpoints)) " healthy" }
                @else { (words::size(backend.endpoints)) }
            }
            td role="cell" data-label=(BACKEND_COLUMNS[3]) {
                @if backend.listeners > 0 || backend.routes == 0 { (words::things(backend.listeners, "listener")) }
                @if backend.listeners > 0 && backend.routes > 0 { ", " }
                @if backend.routes > 0 { (words::things(backend.routes, "route")) }
            }
        }
    }
}

/// Shows failed sessions and logins, grouped by fault.
pub(in crate::admin::page) fn faults(view: &View) -> Markup {
    html! {
        section #faults data-live aria-labelledby="faults-title" {
            h2 #faults-title {
                "Failed sessions and logins " small { "since the start, by fault" }
            }
            div.card {
                @let has_failed = |fault: &&Fault| fault.sessions > 0 || fault.logins > 0;
                @if !view.faults.iter().any(|fault| has_failed(&fault)) { p.empty { "No session or login has failed." } } @else {
                    @let failed = view.faults.iter().filter(has_failed);
                    @let rows = html! { @for fault in failed { (fault_row(fault, view.replica.now)) } };
                    (table("Failed sessions and logins by fault, with the latest messages", &FAULT_COLUMNS, &rows))
                }
            }
        }
    }
}

const FAULT_COLUMNS: [&str; 4] = ["Fault", "Sessions", "Logins", "Last messages"];

fn fault_row(fault: &Fault, now: i64) -> Markup {
    let whose = match fault.whose.as_str() {
        "us" => "Mailgress or its limits",
        "configuration" => "Configuration",
        "auth_service" => "Auth service",
        "backend" => "Backend",
        _ => "Client",
    };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { (whose) }
            td role="cell" data-label=(FAULT_COLUMNS[1]) { (words::count(fault.sessions)) }
            td role="cell" data-label=(FAULT_COLUMNS[2]) { (words::count(fault.logins)) }
            td role="cell" data-label=(FAULT_COLUMNS[3]) {
                div {
                    @if fault.sentences.is_empty() { "nothing" }
                    @for Sentence { text, listener, times, last } in &fault.sentences {
                        div {
                            (text)
                            span.muted {
                                @if *times > 1 { (words::count(*times)) " times, the last time " }
                                (moment(*last, now)) " at " (listener)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Shows the last changes.
pub(in crate::admin::page) fn changes(view: &View) -> Markup {
    html! {
        section #changes data-live aria-labelledby="changes-title" {
            h2 #changes-title { "Last changes" }
            div.card {
                @if view.changes.is_empty() { p.empty { "None since the start." } } @else {
                    ul.plain { @for change in &view.changes { (change_item(change, view.replica.now)) } }
                }
            }
        }
    }
}

fn change_item(change: &Change, now: i64) -> Markup {
    let Change { at, what, which, text, is_alarming } = change;
    let (class, sign) = if *is_alarming { ("bad", "✕ ") } else { ("pending", "") };
    html! {
        li {
            span.pill.(class) { (sign) (what) } " " (which)
            @if !text.is_empty() { ": " (text) }
            " " span.muted { (moment(*at, now)) }
        }
    }
}

/// Shows all replicas if this one leads several, else the leader.
pub(in crate::admin::page) fn replicas(view: &View) -> Markup {
    html! {
        section #replicas data-live aria-label="Replicas" {
            @if let Some(Role::Follower { leader: Some(leader) }) = &view.replica.role {
                h2 { "Replicas " small { "only the leader shows them" } }
                div.card {
                    p.empty {
                        (leader) " is the leader. To see all replicas, open its page; in its namespace: "
                        code { "kubectl port-forward pod/" (leader) " " (view.replica.status_port) }
                    }
                }
            }
            @if !view.replicas.is_empty() {
                h2 { "Replicas " small { "this replica is the leader" } }
                div.card {
                    @let rows = html! { @for peer in &view.replicas { (replica_row(peer)) } };
                    (table("Replicas, and the number of objects that they are behind", &REPLICA_COLUMNS, &rows))
                }
            }
        }
    }
}

const REPLICA_COLUMNS: [&str; 7] =
    ["Replica", "State", "Listeners", "Sessions", "Logins", "Address", "Behind"];

fn replica_row(peer: &Peer) -> Markup {
    let (class, sign, _) = words::state(peer.state);
    let word = match (peer.is_own, peer.state) {
        (true, _) => "This one",
        (_, State::Bad) => "Silent",
        (_, State::Pending) if peer.behind > 0 => "Behind",
        (_, State::Pending) => "Not answered yet",
        (_, State::Good | State::Alarming) => "Up to date",
    };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (peer.name)
                @if let Some(problem) = &peer.problem { p.note { (problem) } }
            }
            td role="cell" data-label=(REPLICA_COLUMNS[1]) { span.pill.(class) { (sign) " " (word) } }
            @match &peer.totals {
                Some(totals) => {
                    td role="cell" data-label=(REPLICA_COLUMNS[2]) {
                        (words::count(totals.ready)) " of " (words::count(totals.listeners)) " ready"
                    }
                    td role="cell" data-label=(REPLICA_COLUMNS[3]) { (words::count(totals.sessions)) " open" }
                    td role="cell" data-label=(REPLICA_COLUMNS[4]) {
                        div {
                            span.number { (words::count(totals.accepted)) " accepted" }
                            span.muted.number { (words::count(totals.refused)) " refused" }
                            span.muted.number { (words::count(totals.unavailable)) " unavailable" }
                            span.muted.number { (words::count(totals.failed)) " failed" }
                        }
                    }
                }
                None => td role="cell" colspan="3" data-label=(REPLICA_COLUMNS[2]) { "not reported" },
            }
            td role="cell" data-label=(REPLICA_COLUMNS[5]) { (peer.address) }
            td role="cell" data-label=(REPLICA_COLUMNS[6]) {
                @if peer.behind == 0 { "nothing" } @else { (words::things(peer.behind, "object")) }
            }
        }
    }
}

fn moment(at: i64, now: i64) -> Markup {
    html! { time datetime=(words::instant(at)) { (words::ago(at, now)) } }
}
