//! Ends sessions one after the other, so that their clients do not come back at one moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::SessionId;
use crate::protocol::Protocol;

use super::live::Order;
use super::sessions::RelayedSession;

/// When sessions have to end.
#[derive(Debug, Default)]
pub(super) struct Spreading {
    due: HashMap<SessionId, Instant>,
}

impl Spreading {
    /// Gives each new session its time, and ends those whose time has come. Each group has its own time over which its
    /// sessions are spread: IMAP sessions come first, and of these the longest idle ones. Sessions that are in no group
    /// any more are forgotten.
    pub(super) fn end_due<'a>(
        &mut self,
        groups: impl Iterator<Item = (Duration, &'a mut Vec<Arc<RelayedSession>>)>,
        order: Order,
        now: Instant,
    ) {
        let mut due = HashMap::new();
        for (spread, open) in groups {
            open.sort_by_cached_key(|session| {
                (session.record().protocol() != Some(Protocol::Imap), session.live().moved_at())
            });
            let is_new = |session: &&Arc<RelayedSession>| !self.due.contains_key(&session.record().id);
            let new = u32::try_from(open.iter().filter(is_new).count()).unwrap_or(u32::MAX).max(1);
            let step = spread / new;
            let mut next = now;
            for session in open {
                let id = session.record().id;
                let at = *self.due.get(&id).unwrap_or_else(|| {
                    next += step;
                    &next
                });
                due.insert(id, at);
                if at <= now {
                    session.live().end(order);
                }
            }
        }
        self.due = due;
    }
}
