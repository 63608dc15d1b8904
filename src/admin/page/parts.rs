//! The parts of the page. An element that the script updates has `data-live` and an id. Elements inside it that may
//! appear or disappear keep their position or have their own id.
//!
//! On a narrow screen, table rows are displayed as blocks, for which some browsers drop the table's roles. Therefore
//! roles are explicit.

mod certificates;
mod listener;
mod lists;
mod routes;

use maud::{Markup, html};

use crate::model::served;
use crate::model::view::{Excerpt, Question, Role, View};

use super::{BY_SECRET, DRAINING, MAX_TEXT, TROUBLED, words};

pub(super) use certificates::certificates;
pub(super) use listener::listeners;
pub(super) use lists::{backends, changes, faults, problems, replicas};
pub(super) use routes::routes;

/// Returns the title for the browser's tab, starting with the problem.
pub(super) fn title(view: &View, blocked: &[&str]) -> String {
    let name = &view.replica.name;
    match (view.totals.not_ready, blocked.first()) {
        (_, Some(reason)) => format!("✕ {reason} · {name} · Mailgress"),
        (0, None) => format!("{name} · Mailgress"),
        (number, None) => format!("✕ {} not ready · {name} · Mailgress", words::size(number)),
    }
}

/// Shows the replica and its state.
pub(super) fn head(view: &View, blocked: &[&str]) -> Markup {
    let replica = &view.replica;
    html! {
        header #head data-live {
            div.wide {
                h1 { "Mailgress " span { (replica.name) } }
                @if blocked.is_empty() {
                    (health(view))
                } @else if blocked.contains(&DRAINING) {
                    span.pill.alarming { "▲ Draining" }
                } @else {
                    span.pill.bad { "✕ Not ready: " (blocked.join(", ")) }
                }
                @match &replica.role {
                    Some(Role::Leader) => span.pill.pending { "★ Leads" },
                    Some(Role::Follower { leader }) => span.pill.pending {
                        @if let Some(leader) = leader { "Leader: " (leader) } @else { "Leader unknown" }
                    },
                    None => {}
                }
                p.facts {
                    span { "Version " (replica.version) }
                    span { "Class " (replica.class) }
                    span { "Up " (words::duration(replica.uptime)) }
                    time datetime=(words::instant(replica.now)) { (words::instant(replica.now)) }
                }
            }
        }
    }
}

/// Shows the worst state of all listeners, with the number of listeners in it.
fn health(view: &View) -> Markup {
    let totals = &view.totals;
    let of = |number| format!("{} of {}", words::size(number), words::things(totals.listeners, "listener"));
    match (totals.not_ready, totals.alarming, totals.pending) {
        (0, 0, 0) => html! { span.pill.good { "● Ready" } },
        (0, 0, pending) => html! { span.pill.pending { "… " (of(pending)) " pending" } },
        (0, alarming, _) => html! { span.pill.alarming { "▲ " (of(alarming)) " with an alarm" } },
        (not_ready, ..) => html! { span.pill.bad { "✕ " (of(not_ready)) " not ready" } },
    }
}

/// Returns the totals of all replicas that report theirs; `None` if there are no others.
fn everywhere(view: &View) -> Option<(usize, served::Totals)> {
    let known: Vec<_> = view.replicas.iter().filter_map(|peer| peer.totals).collect();
    let sum = known.iter().fold(served::Totals::default(), |sum, totals| served::Totals {
        sessions: sum.sessions.saturating_add(totals.sessions),
        accepted: sum.accepted.saturating_add(totals.accepted),
        refused: sum.refused.saturating_add(totals.refused),
        unavailable: sum.unavailable.saturating_add(totals.unavailable),
        ..sum
    });
    (known.len() > 1).then_some((known.len(), sum))
}

/// Shows the totals.
pub(super) fn tiles(view: &View, draining: bool) -> Markup {
    let totals = &view.totals;
    let numbers = &totals.numbers;
    html! {
        dl.tiles #sums data-live {
            div {
                dt { "Listeners" }
                dd {
                    (words::size(totals.listeners))
                    small {
                        @if draining { "draining: no new sessions; open sessions end soon" }
                        @else if totals.not_ready + totals.alarming + totals.pending == 0 { "all Ready" } @else {
                            (words::size(totals.not_ready)) " not ready"
                            @if totals.alarming > 0 { ", " (words::size(totals.alarming)) " with an alarm" }
                            @if totals.pending > 0 { ", " (words::size(totals.pending)) " pending" }
                        }
                    }
                }
            }
            div {
                dt { "Open sessions" }
                dd {
                    (words::count(numbers.open))
                    small { "on this replica" }
                    @if let Some((replicas, sum)) = everywhere(view) {
                        small { (words::count(sum.sessions)) " on all " (words::size(replicas)) " replicas" }
                    }
                }
            }
            div {
                dt { "New sessions" }
                dd { (words::rate(numbers.sessions_per_minute)) small { "a minute" } }
            }
            div { dt { "Relayed" } dd { (words::bytes(numbers.bytes_per_second)) small { "a second" } } }
            div {
                dt { "Logins" }
                dd {
                    (words::count(numbers.accepted)) " accepted"
                    small {
                        (words::count(numbers.refused)) " refused, "
                        (words::count(numbers.unavailable)) " unavailable, "
                        (words::count(numbers.failed)) " failed"
                    }
                    @if let Some((replicas, sum)) = everywhere(view) {
                        small {
                            "on all " (words::size(replicas)) ": " (words::count(sum.accepted)) " accepted, "
                            (words::count(sum.refused)) " refused, " (words::count(sum.unavailable)) " unavailable"
                        }
                    }
                }
            }
        }
    }
}

/// Shows the search form. It is not updated, so that the text being typed is kept.
pub(super) fn search(question: &Question) -> Markup {
    html! {
        form role="search" method="get" action="/" {
            label.text {
                "Find"
                input type="search" name="q" value=(question.text) maxlength=(MAX_TEXT)
                    placeholder="name, port, protocol, reason, certificate, backend";
            }
            label {
                input type="checkbox" name="only" value=(TROUBLED) checked[question.only_troubled];
                " only with a problem"
            }
            button type="submit" { "Show" }
            @if question.only_troubled || !question.text.is_empty() { a href="/" { "Show all" } }
        }
    }
}

/// Tells how many of all entries are shown, if some are not.
fn part_shown<T>(excerpt: &Excerpt<T>) -> Markup {
    let (shown, all) = (excerpt.shown.len(), excerpt.all);
    html! { @if shown < all { small { (words::size(shown)) " of " (words::size(all)) } } }
}

/// Creates a table whose rows start with a heading.
fn table(caption: &str, columns: &[&str], rows: &Markup) -> Markup {
    html! {
        table role="table" {
            caption { (caption) }
            thead role="rowgroup" {
                tr role="row" { @for name in columns { th scope="col" role="columnheader" { (name) } } }
            }
            tbody role="rowgroup" { (rows) }
        }
    }
}

/// Shows links to other pages. The script adds whether it updates the page.
pub(super) fn foot() -> Markup {
    html! {
        footer {
            div.wide {
                a href="/status" { "Status as JSON" }
                a href="/model" { "What is served, as JSON" }
                a href="/metrics" { "Metrics" }
                a href="/readyz" { "Readiness" }
                span #live { noscript { a href="" { "Reload" } " to see what is new" } }
            }
        }
    }
}
