//! The start of this replica: it is told to wait, and why, until the gate lets it be ready. Once ready, it stays so.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::controller::gate::{self, Gate, GateState, View};
use crate::controller::peers::{Others, Peers};
use crate::controller::publisher::Publisher;

use super::store::Store;

/// How far the start of a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It must not be sent clients yet, for this reason.
    Waits(String),
    /// It is over.
    Over,
}

/// A replica that starts.
#[derive(Debug)]
pub(super) struct Starting {
    gate: Gate,
    told: watch::Sender<Start>,
    /// When the first look was taken.
    began: Option<Instant>,
    /// What the log last said, and when.
    logged: Option<(String, Instant)>,
    /// Before which no other look is worth its time.
    next_look: Option<Instant>,
    timeout: Duration,
}

impl Starting {
    /// Which waits for `timeout` at most while no other replica is ready.
    pub(super) fn new(timeout: Duration) -> Self {
        let (told, _) =
            watch::channel(Start::Waits("the objects of the cluster are not known yet".to_owned()));
        Self { gate: Gate::new(timeout), told, began: None, logged: None, next_look: None, timeout }
    }

    /// How far it is.
    pub(super) fn watch(&self) -> watch::Receiver<Start> {
        self.told.subscribe()
    }

    /// Whether it goes on.
    pub(super) fn goes_on(&self) -> bool {
        *self.told.borrow() != Start::Over
    }

    /// Whether this replica may lead: one that is not ready leaves that to one that is.
    pub(super) fn may_lead(&self, publisher: &Publisher) -> bool {
        !self.goes_on() || publisher.asked().map_or(Others::None, Peers::others) == Others::None
    }

    /// Looks whether it is over, and says so.
    pub(super) fn look(&mut self, publisher: &Publisher, store: &Store, leads: bool) {
        if !self.goes_on() || !publisher.has_published() {
            return;
        }
        let now = Instant::now();
        if self.next_look.is_some_and(|next| now < next) {
            return;
        }
        let status = |id: &_| store.own(id).map(|seen| (seen.uid.as_str(), &seen.status));
        let view = View {
            facts: &publisher.facts(),
            peers: publisher.asked(),
            leads,
            status: &status,
            unread: &|id| store.why_unread(id),
            now,
        };
        let verdict = self.gate.look(&view);
        self.next_look = Some(now + now.elapsed() * SHARE);
        match verdict {
            GateState::Asks(why) => self.wait(why),
            GateState::Waits(missing) => {
                let text = gate::told(&missing);
                self.log(&text, now);
                self.wait(format!(
                    "this replica does not serve listeners that another replica serves or that were served before: {text}"
                ));
            }
            GateState::Ready => {
                if self.logged.is_some() {
                    tracing::info!("ready: this replica serves all listeners that it waited for");
                }
                self.told.send_replace(Start::Over);
            }
            GateState::ReadyWithout(missing) => {
                tracing::warn!(
                    "ready although listeners are missing that were served before, because no other replica is ready and --ready-timeout ({:?}) is \
                     over: {}",
                    self.timeout,
                    gate::told(&missing)
                );
                self.told.send_replace(Start::Over);
            }
        }
    }

    fn wait(&self, why: String) {
        super::send_if_other(&self.told, Start::Waits(why));
    }

    /// What is only being bound is not worth a line; what lasts is told again, and what is new at once.
    fn log(&mut self, text: &str, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let is_new =
            |(last, at): &(String, Instant)| last != text || now.saturating_duration_since(*at) >= TOLD_AGAIN;
        if now.saturating_duration_since(began) < TOLD_AFTER || !self.logged.as_ref().is_none_or(is_new) {
            return;
        }
        tracing::warn!(
            "not ready: this replica does not serve listeners that another replica serves or that were served before: {text}"
        );
        self.logged = Some((text.to_owned(), now));
    }
}

/// A look at thousands of objects takes a while: of the time of the controller, this share at most.
const SHARE: u32 = 8;
/// Before a replica that waits says so in the log.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// Between two lines that say the same.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
