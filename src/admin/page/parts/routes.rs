//! The list of routes. It is shown only if there are some.

use maud::{Markup, html};

use crate::admin::page::words;
use crate::model::view::{Route, View};

use super::{part_shown, table};

/// Shows the matching routes.
pub(in crate::admin::page) fn routes(view: &View) -> Markup {
    let excerpt = &view.routes;
    html! {
        section #routes data-live aria-labelledby="routes-title" {
            @if excerpt.all > 0 {
                h2 #routes-title {
                    "Routes " (part_shown(excerpt))
                }
                div.card {
                    @if excerpt.shown.is_empty() { p.empty { "No matches." } } @else {
                        @let rows = html! { @for route in &excerpt.shown { (row(route)) } };
                        (table("MailRoutes with their domains, users and backends", &COLUMNS, &rows))
                    }
                }
            }
        }
    }
}

/// Formats what is not listed: `2 more domains, 1 user`.
fn rest(route: &Route) -> Option<String> {
    let more = number(route.domains).saturating_sub(route.domain_names.len());
    let domain = if route.domain_names.is_empty() { "domain" } else { "more domain" };
    let domains = (more > 0).then(|| words::things(more, domain));
    let users = (route.users > 0).then(|| words::things(number(route.users), "user"));
    let parts: Vec<String> = domains.into_iter().chain(users).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn number(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

const COLUMNS: [&str; 4] = ["MailRoute", "State", "Matches", "Backends"];

fn row(route: &Route) -> Markup {
    let (class, sign, word) = words::state(route.state);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (route.object)
                @for (reason, message) in &route.notes { p.note { b { (reason) } ": " (message) } }
            }
            td role="cell" data-label=(COLUMNS[1]) { span.pill.(class) { (sign) " " (word) } }
            td role="cell" data-label=(COLUMNS[2]) {
                @for domain in &route.domain_names { div { (domain) } }
                @if let Some(text) = rest(route) { div { (text) } }
                @if let Some(sessions) = route.sessions {
                    div { "Held: " (words::things(number(sessions), "session")) " open" }
                }
            }
            td role="cell" data-label=(COLUMNS[3]) {
                @for backend in &route.backends { div { (backend) } }
            }
        }
    }
}
