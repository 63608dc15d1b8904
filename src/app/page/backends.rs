//! Collects the backends that objects name, each once, with the results of their health checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::view::{Backend, Excerpt, Question, State};
use crate::model::{self, BackendHealth, BindReport, RouteBackend, Snapshot};

/// Returns the matching backends, worst state first.
pub(super) fn select(snapshot: &Snapshot, report: &BindReport, question: &Question) -> Excerpt<Backend> {
    let mut all: BTreeMap<&str, BackendSummary<'_>> = BTreeMap::new();
    for listener in snapshot.sockets.values().flat_map(|socket| &socket.listeners) {
        let of_routes = listener.routes.iter();
        let of_routes = of_routes.flat_map(|routes| routes.table.entries().iter().zip(&routes.destinations));
        for (entry, destination) in of_routes {
            let Some(destination) = destination else { continue };
            let known = count(&mut all, &destination.backend);
            known.routes += 1;
            let id = RouteBackend { route: entry.id.clone(), protocol: listener.frontend.protocol };
            known.add(report.routes.get(&id));
        }
        let Some(backend) = listener.backend.as_ref() else { continue };
        let known = count(&mut all, backend);
        known.listeners += 1;
        known.add(report.backends.get(&listener.id));
    }
    let text = question.text.to_lowercase();
    let number = all.len();
    let mut asked_for: Vec<_> = all
        .into_iter()
        .map(|(reference, known)| (known.state(), reference, known))
        .filter(|(state, ..)| !question.only_troubled || *state != State::Good)
        .filter(|(_, reference, _)| text.is_empty() || reference.to_lowercase().contains(&text))
        .collect();
    asked_for.sort_by_key(|(state, ..)| *state);
    super::excerpt(asked_for, number, 1, BACKENDS_SHOWN)
        .map(|(state, reference, known)| known.into_view(reference, state))
}

/// Counts the endpoints of a backend.
fn count<'a, 'b>(
    all: &'b mut BTreeMap<&'a str, BackendSummary<'a>>,
    backend: &'a model::Backend,
) -> &'b mut BackendSummary<'a> {
    let known = all.entry(&backend.reference).or_default();
    known.endpoints = known.endpoints.max(backend.endpoints.len());
    known.leaving.extend(backend.leaving.values());
    known
}

/// The data of one backend.
#[derive(Default)]
struct BackendSummary<'a> {
    endpoints: usize,
    leaving: BTreeSet<&'a String>,
    listeners: usize,
    routes: usize,
    health: Option<&'a BackendHealth>,
}

impl<'a> BackendSummary<'a> {
    /// Listeners and routes may check the same endpoints in different ways; the worst result is shown.
    fn add(&mut self, health: Option<&'a BackendHealth>) {
        if health.map(|health| health.unhealthy.len()) > self.health.map(|health| health.unhealthy.len()) {
            self.health = health;
        }
    }
}

impl BackendSummary<'_> {
    fn state(&self) -> State {
        let unhealthy = self.health.map_or(0, |health| health.unhealthy.len());
        if self.endpoints == 0 || (unhealthy > 0 && unhealthy >= self.endpoints) {
            State::Bad
        } else if unhealthy > 0 {
            State::Alarming
        } else {
            State::Good
        }
    }

    fn into_view(self, reference: &str, state: State) -> Backend {
        let unhealthy = self.health.map(|health| health.unhealthy.as_slice()).unwrap_or_default();
        let shown = unhealthy.iter().take(ENDPOINTS_SHOWN);
        Backend {
            reference: reference.to_owned(),
            state,
            endpoints: self.endpoints,
            leaving: self.leaving.into_iter().take(ENDPOINTS_SHOWN).cloned().collect(),
            is_checked: self.health.is_some(),
            unhealthy: shown.map(|(address, why)| (address.to_string(), why.clone())).collect(),
            unhealthy_in_all: unhealthy.len(),
            listeners: self.listeners,
            routes: self.routes,
        }
    }
}

/// Backends per page.
const BACKENDS_SHOWN: usize = 25;
/// Failing or leaving endpoints shown per backend.
const ENDPOINTS_SHOWN: usize = 3;
