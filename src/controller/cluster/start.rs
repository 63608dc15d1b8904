//! The start of this replica: it is not ready until the gate allows it, and reports why. A replica that was ready stays
//! ready.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::controller::gate::{self, Gate, GateState, View};
use crate::controller::peers::{Others, Peers};
use crate::controller::publisher::Publisher;

use super::store::Store;

/// The state of a replica's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The replica must not get clients yet, for this reason.
    Waits(String),
    /// The start is complete.
    Complete,
}

/// A starting replica.
#[derive(Debug)]
pub(super) struct Starting {
    gate: Gate,
    state: watch::Sender<Start>,
    /// The time of the first check.
    started: Option<Instant>,
    /// The last log message about the start, and its time.
    logged: Option<(String, Instant)>,
    /// The earliest time of the next check.
    next_check: Option<Instant>,
    timeout: Duration,
}

impl Starting {
    /// Creates the start, which waits at most `timeout` while no other replica is ready.
    pub(super) fn new(timeout: Duration) -> Self {
        let (state, _) =
            watch::channel(Start::Waits("the objects of the cluster are not known yet".to_owned()));
        Self { gate: Gate::new(timeout), state, started: None, logged: None, next_check: None, timeout }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Start> {
        self.state.subscribe()
    }

    /// Tells whether the start is not complete.
    pub(super) fn is_starting(&self) -> bool {
        *self.state.borrow() != Start::Complete
    }

    /// Tells whether this replica may lead. A replica that is not ready does not compete with one that is ready.
    pub(super) fn may_lead(&self, publisher: &Publisher) -> bool {
        !self.is_starting() || publisher.peers().map_or(Others::None, Peers::others) == Others::None
    }

    /// Checks whether the start is complete, and reports the result.
    pub(super) fn check(&mut self, publisher: &Publisher, store: &Store) {
        if !self.is_starting() || !publisher.has_published() {
            return;
        }
        let now = Instant::now();
        if self.next_check.is_some_and(|next| now < next) {
            return;
        }
        let status = |id: &_| store.own(id).map(|seen| (seen.uid.as_str(), seen.status.value()));
        let view = View {
            facts: &publisher.facts(),
            peers: publisher.peers(),
            leads: publisher.leads(),
            status: &status,
            unread: &|id| store.why_unread(id),
            now,
        };
        let verdict = self.gate.check(&view);
        self.next_check = Some(now + now.elapsed() * CHECK_PAUSE);
        match verdict {
            GateState::AwaitsReplicas(why) => self.wait(why),
            GateState::Waits(missing) => {
                let text = gate::summary(&missing);
                self.log(&text, now);
                self.wait(format!(
                    "this replica does not serve listeners that another replica serves or that were served before: {text}"
                ));
            }
            GateState::Ready => {
                if self.logged.is_some() {
                    tracing::info!("ready: this replica serves all listeners that it waited for");
                }
                self.state.send_replace(Start::Complete);
            }
            GateState::ReadyWithout(missing) => {
                tracing::warn!(
                    "ready although listeners are missing that were served before, because no other replica is ready and --ready-timeout ({:?}) is \
                     over: {}",
                    self.timeout,
                    gate::summary(&missing)
                );
                self.state.send_replace(Start::Complete);
            }
        }
    }

    fn wait(&self, why: String) {
        super::send_if_other(&self.state, Start::Waits(why));
    }

    /// Logs the reason, unless it may be over soon. A new reason is logged at once, and the same reason again after
    /// [`LOG_AGAIN_AFTER`].
    fn log(&mut self, text: &str, now: Instant) {
        let started = *self.started.get_or_insert(now);
        let is_new = |(last, at): &(String, Instant)| {
            last != text || now.saturating_duration_since(*at) >= LOG_AGAIN_AFTER
        };
        if now.saturating_duration_since(started) < LOG_AFTER || !self.logged.as_ref().is_none_or(is_new) {
            return;
        }
        tracing::warn!(
            "not ready: this replica does not serve listeners that another replica serves or that were served before: {text}"
        );
        self.logged = Some((text.to_owned(), now));
    }
}

/// A check of thousands of objects takes time. The next check waits for this many times the duration of the last.
const CHECK_PAUSE: u32 = 8;
/// A replica that waits for a shorter time does not log the reason.
const LOG_AFTER: Duration = Duration::from_secs(2);
/// The time between two log messages with the same reason.
const LOG_AGAIN_AFTER: Duration = Duration::from_secs(60);
