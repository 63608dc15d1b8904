//! Selects the routes for the status page.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::api::status::RouteBackendStatus;
use crate::controller::status::{Row, public};
use crate::model::view::{Excerpt, Question, Route, State};
use crate::model::{DomainPattern, RouteTable, Snapshot};

use super::{MAX_NOTES, excerpt, state};

/// The domains of the routes, by `namespace/name`.
type Domains<'a> = HashMap<String, &'a [DomainPattern]>;

/// Returns the matching routes, worst state first.
pub(super) fn select(rows: &[Row<'_>], snapshot: &Snapshot, question: &Question) -> Excerpt<Route> {
    let (text, all) = (question.text.to_lowercase(), domains(snapshot));
    let mut asked_for: Vec<(State, Route)> = rows
        .iter()
        .filter(|row| !question.only_troubled || state(row) != State::Good)
        .map(|row| {
            let domains = all.get(&row.object.key.to_string()).copied().unwrap_or_default();
            (row, domains, route(row, domains))
        })
        .filter(|(_, domains, route)| text.is_empty() || contains(route, domains, &text))
        .map(|(row, _, route)| (state(row), route))
        .collect();
    asked_for.sort_by_key(|(state, _)| *state);
    excerpt(asked_for, rows.len(), 1, ROUTES_SHOWN).map(|(_, route)| route)
}

fn domains(snapshot: &Snapshot) -> Domains<'_> {
    let listeners = snapshot.sockets.values().flat_map(|socket| &socket.listeners);
    let mut seen: HashSet<*const RouteTable> = HashSet::new();
    let tables = listeners.filter_map(|listener| listener.routes.as_ref()).map(|routes| &routes.table);
    let tables = tables.filter(|table| seen.insert(Arc::as_ptr(table)));
    let entries = tables.flat_map(|table| table.entries());
    entries.map(|entry| (entry.id.to_string(), entry.domains.as_slice())).collect()
}

fn route(row: &Row<'_>, domains: &[DomainPattern]) -> Route {
    let details = row.route.cloned().unwrap_or_default();
    let ready = row.ready().filter(|_| state(row) != State::Good && state(row) != State::Alarming);
    let notes = ready.into_iter().chain(row.alarms());
    Route {
        object: row.object.key.to_string(),
        state: state(row),
        notes: notes.map(|note| (note.reason.clone(), public(note))).take(MAX_NOTES).collect(),
        domain_names: domains.iter().take(DOMAINS_SHOWN).map(ToString::to_string).collect(),
        domains: details.domains,
        users: details.users,
        sessions: details.sessions,
        backends: details.backends.iter().map(backend).collect(),
    }
}

fn backend(backend: &RouteBackendStatus) -> String {
    let RouteBackendStatus { protocol, reference, endpoints } = backend;
    let endpoints = endpoints.as_ref().map(|state| format!(", {state}")).unwrap_or_default();
    format!("{protocol} {reference}{endpoints}")
}

fn contains(route: &Route, domains: &[DomainPattern], text: &str) -> bool {
    let has = |value: &String| value.to_lowercase().contains(text);
    // An international name is written in two ways.
    let domain = DomainPattern::parse(text);
    has(&format!("mailroute {}", route.object))
        || route.backends.iter().any(has)
        || route.notes.iter().any(|(reason, _)| has(reason))
        || domains.iter().any(|one| Some(one) == domain.as_ref() || one.to_string().contains(text))
}

/// Routes per page.
const ROUTES_SHOWN: usize = 25;
/// Domains shown of each route.
const DOMAINS_SHOWN: usize = 3;
