//! The endpoints of a group: which are ready, and which may come back.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::model::exclusive::{EndpointName, EndpointSet, EndpointState, MAX_ENDPOINTS, Timing};

/// The endpoints that count, by their identity.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints(BTreeMap<EndpointName, Standing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ready,
    Away {
        /// When it was ready last.
        since: Instant,
        /// When it ceased to exist.
        gone: Gone,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    No,
    Since(Instant),
    /// Its sessions have been told to end.
    Ended,
}

impl Endpoints {
    /// Applies the state of all endpoints. An endpoint counts as soon as it is ready, and while it may come back.
    pub(super) fn observe(&mut self, states: &BTreeMap<EndpointName, EndpointState>, now: Instant) {
        self.0.retain(|name, standing| {
            match states.get(name) {
                Some(EndpointState::Leaving) => return false,
                Some(EndpointState::Ready) => *standing = Standing::Ready,
                Some(EndpointState::Unready) => {
                    *standing = Standing::Away { since: standing.away_since(now), gone: Gone::No };
                }
                None => *standing = standing.without(now),
            }
            true
        });
        for (name, state) in states {
            let has_room = self.0.len() < MAX_ENDPOINTS;
            if *state == EndpointState::Ready && has_room && !self.0.contains_key(name) {
                self.0.insert(name.clone(), Standing::Ready);
            }
        }
    }

    /// Forgets the endpoints that have been away for too long.
    pub(super) fn expire(&mut self, timing: Timing, now: Instant) {
        self.0.retain(|_, standing| match standing {
            Standing::Ready => true,
            Standing::Away { since, .. } => now < *since + timing.return_grace,
        });
    }

    /// Returns the endpoints that have now ceased to exist for `grace`, each once.
    pub(super) fn gone(&mut self, timing: Timing, now: Instant) -> Vec<EndpointName> {
        let mut ended = Vec::new();
        for (name, standing) in &mut self.0 {
            let Standing::Away { gone, .. } = standing else { continue };
            if matches!(gone, Gone::Since(since) if now >= *since + timing.grace) {
                *gone = Gone::Ended;
                ended.push(name.clone());
            }
        }
        ended
    }

    /// Returns the set of all endpoints that count.
    pub(super) fn set(&self) -> EndpointSet {
        self.0.keys().cloned().collect()
    }

    /// Tells whether an endpoint takes new sessions.
    pub(super) fn is_ready(&self, name: &EndpointName) -> bool {
        self.0.get(name) == Some(&Standing::Ready)
    }

    /// Returns when the next endpoint is forgotten, or its sessions end.
    pub(super) fn next(&self, timing: Timing) -> Option<Instant> {
        let times = self.0.values().flat_map(|standing| match standing {
            Standing::Ready => [None, None],
            Standing::Away { since, gone } => {
                let ends = match gone {
                    Gone::Since(gone) => Some(*gone + timing.grace),
                    Gone::No | Gone::Ended => None,
                };
                [Some(*since + timing.return_grace), ends]
            }
        });
        times.flatten().min()
    }
}

impl Standing {
    fn away_since(self, now: Instant) -> Instant {
        match self {
            Self::Ready => now,
            Self::Away { since, .. } => since,
        }
    }

    fn without(self, now: Instant) -> Self {
        match self {
            Self::Ready => Self::Away { since: now, gone: Gone::Since(now) },
            Self::Away { since, gone: Gone::No } => Self::Away { since, gone: Gone::Since(now) },
            gone @ Self::Away { .. } => gone,
        }
    }
}
