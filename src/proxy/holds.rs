//! Ends the sessions of held routes, spread over `spec.spread`, and counts those that are left.
//!
//! New logins of these users wait (`session/routing.rs`). A login that was placed before the route was held may still be
//! on its way to the backend: it counts until its session is listed, and then the session is ended like the others. Mail
//! without a login counts for the first recipient of its last transaction. A session that has left the relay for its next
//! one has no user: it can send nothing to a backend before its recipient is placed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::model::{ListenerId, RouteId, RouteState, Routes, Routing};
use crate::protocol::user::Named;

use super::live::Order;
use super::record::Record;
use super::serving::ServedListener;
use super::sessions::{RelayedSession, Sessions};
use super::spreading::Spreading;

/// When the sessions of held routes have to end.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    spreading: Spreading,
    /// The time of the next pass, while routes are held.
    next: Option<Instant>,
}

/// The open sessions of one held route.
#[derive(Debug, Default)]
struct HeldSessions {
    spread: Duration,
    open: Vec<Arc<RelayedSession>>,
    /// Listeners with logins that may be on their way to a backend.
    under_way: u64,
}

impl Holds {
    /// Ends the sessions that are due. Returns, for each held route of these listeners, how many sessions are open, with
    /// the logins that may still be on their way to a backend. `ending` is the number of removed listeners that still
    /// have connections: these have earlier routes, so each of them counts for every held route.
    pub(crate) fn pass<'a>(
        &mut self,
        listeners: impl Iterator<Item = &'a Arc<ServedListener>>,
        ending: u64,
        sessions: &Sessions,
        now: Instant,
    ) -> BTreeMap<RouteId, u64> {
        let mut held: BTreeMap<RouteId, HeldSessions> = BTreeMap::new();
        let mut with_held: HashMap<ListenerId, Arc<Routes>> = HashMap::new();
        for served in listeners {
            let Some(routes) = served.routes.load().routes.clone() else { continue };
            let mut has_held = false;
            for entry in routes.table.entries() {
                let RouteState::Held { spread, .. } = entry.state else { continue };
                has_held = true;
                let of_route = held.entry(entry.id.clone()).or_default();
                of_route.spread = spread;
                let is_under_way = served.routes.are_earlier_in_use();
                of_route.under_way = of_route.under_way.saturating_add(u64::from(is_under_way));
            }
            if has_held {
                with_held.insert(served.listener.id.clone(), routes);
            }
        }
        if !held.is_empty() {
            for of_route in held.values_mut() {
                of_route.under_way = of_route.under_way.saturating_add(ending);
            }
            for session in sessions.all() {
                let Some((routes, users)) = users(session.record(), &with_held) else { continue };
                let mut of: BTreeSet<&RouteId> = BTreeSet::new();
                for named in users {
                    match routes.find(&named) {
                        Routing::Route(position, _) => {
                            of.extend(routes.table.entries().get(position).map(|entry| &entry.id));
                        }
                        // Perhaps a user of one of them.
                        Routing::Undecided(_) => {
                            for entry in routes.table.entries() {
                                if let Some(of_route) = held.get_mut(&entry.id) {
                                    of_route.under_way = of_route.under_way.saturating_add(1);
                                }
                            }
                        }
                        Routing::Unmatched | Routing::NoDomain => {}
                    }
                }
                for id in of {
                    if let Some(of_route) = held.get_mut(id) {
                        of_route.open.push(Arc::clone(&session));
                    }
                }
            }
        }
        let open = held.values_mut().map(|of_route| (of_route.spread, &mut of_route.open));
        self.spreading.end_due(open, Order::Hold, now);
        self.next = (!held.is_empty()).then(|| now + INTERVAL);
        let count = |of_route: HeldSessions| {
            u64::try_from(of_route.open.len()).unwrap_or(u64::MAX).saturating_add(of_route.under_way)
        };
        held.into_iter().map(|(id, of_route)| (id, count(of_route))).collect()
    }

    /// Waits until the next pass is due; for ever while no route is held.
    pub(crate) async fn next(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }
}

/// The time between two passes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns the users of a session, and the routes of its listener.
fn users<'a>(
    record: &Record,
    with_held: &'a HashMap<ListenerId, Arc<Routes>>,
) -> Option<(&'a Routes, Vec<Named>)> {
    let routes = with_held.get(&record.served.as_ref()?.listener.id)?;
    Some((routes, record.users(&routes.rules)))
}
