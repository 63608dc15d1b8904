//! Selects the routes for the status page.

use crate::controller::status::{Row, public};
use crate::model::view::{Excerpt, Question, Route, State};

use super::{MAX_NOTES, excerpt, state};

/// Returns the matching routes, worst state first.
pub(super) fn select(rows: &[Row<'_>], question: &Question) -> Excerpt<Route> {
    let text = question.text.to_lowercase();
    let mut asked_for: Vec<(State, Route)> = rows
        .iter()
        .map(|row| (state(row), route(row)))
        .filter(|(state, _)| !question.only_troubled || *state != State::Good)
        .filter(|(_, route)| text.is_empty() || contains(route, &text))
        .collect();
    asked_for.sort_by_key(|(state, _)| *state);
    excerpt(asked_for, rows.len(), 1, ROUTES_SHOWN).map(|(_, route)| route)
}

fn route(row: &Row<'_>) -> Route {
    let details = row.route.cloned().unwrap_or_default();
    let ready = row.ready().filter(|_| state(row) != State::Good && state(row) != State::Alarming);
    let notes = ready.into_iter().chain(row.alarms());
    let backends =
        details.backends.iter().map(|backend| format!("{} {}", backend.protocol, backend.reference));
    Route {
        object: row.object.key.to_string(),
        state: state(row),
        notes: notes.map(|note| (note.reason.clone(), public(note))).take(MAX_NOTES).collect(),
        domains: details.domains,
        users: details.users,
        backends: backends.collect(),
    }
}

fn contains(route: &Route, text: &str) -> bool {
    let has = |value: &String| value.to_lowercase().contains(text);
    has(&format!("mailroute {}", route.object))
        || route.backends.iter().any(has)
        || route.notes.iter().any(|(reason, _)| has(reason))
}

/// Routes per page.
const ROUTES_SHOWN: usize = 25;
