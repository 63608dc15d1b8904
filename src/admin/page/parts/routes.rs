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

const COLUMNS: [&str; 4] = ["MailRoute", "State", "Matches", "Backends"];

fn row(route: &Route) -> Markup {
    let (class, sign, word) = words::state(route.state);
    let count = |number: u32| words::count(u64::from(number));
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                (route.object)
                @for (reason, message) in &route.notes { p.note { b { (reason) } ": " (message) } }
            }
            td role="cell" data-label=(COLUMNS[1]) { span.pill.(class) { (sign) " " (word) } }
            td role="cell" data-label=(COLUMNS[2]) {
                (count(route.domains)) @if route.domains == 1 { " domain" } @else { " domains" } ", "
                (count(route.users)) @if route.users == 1 { " user" } @else { " users" }
            }
            td role="cell" data-label=(COLUMNS[3]) {
                @for backend in &route.backends { div { (backend) } }
            }
        }
    }
}
