//! One client session, from the accept to its log line.
//!
//! ```text
//! accept -> open (PROXY header, limits, TLS, greeting) -> login (commands, STARTTLS, credentials)
//!        -> verdict (auth service or backend) -> upstream (connect, TLS, backend's login) -> relay
//! ```
//!
//! Mail without a login whose recipients are placed by routes goes back from the relay to the login for each
//! transaction (`session/transactions.rs`).
//!
//! Each phase has memory of its own that is freed when the next one begins, so that an idle session in the relay keeps
//! none of its login.

mod attempt;
mod client;
mod decision;
mod dialogue;
mod login;
mod mail;
mod open;
mod proxied;
mod refuse;
mod routing;
mod transactions;
mod upstream;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::model::SessionId;
use crate::net::ClientAddress;
use crate::protocol::follow::{Follower, SmtpStart};
use crate::protocol::{Frontend, FrontendConfig};

use super::affinity::{Membership, groups_of};
use super::balance::EndpointUse;
use super::context::{Seat, WorkerContext};
use super::deadline::Deadline;
use super::end::End;
use super::goodbye::Goodbye;
use super::live::{Order, Relayed};
use super::metrics::routes::{RouteMetrics, RouteSession};
use super::record::Record;
use super::relay::{Finish, Relay, Until};
use super::serving::{ServedListener, Serving};
use super::sessions::Listed;
use client::{Counted, DRAIN_TEXT, HOLD_TEXT, KICK_TEXT, MOVE_TEXT, Session};
use transactions::{Entering, Parked};
use upstream::Accepting;

/// An accepted connection, before anything is read from it.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The connection, in non-blocking mode.
    pub(crate) connection: OwnedFd,
    /// A UNIX socket instead of TCP.
    pub(crate) is_unix: bool,
    /// The peer's address.
    pub(crate) client: ClientAddress,
    pub(crate) accepted: Instant,
    pub(crate) id: SessionId,
    /// The configuration that the session keeps.
    pub(crate) serving: Arc<Serving>,
    /// Its seat on the worker.
    pub(crate) seat: Seat,
}

/// A session whose login the backend has accepted, while bytes move. It is in memory of its own: the task of a session
/// lasts for hours, and would be as large as the largest of all phases.
#[derive(Debug)]
struct Relaying {
    relay: Relay,
    served: Arc<ServedListener>,
    listed: Listed,
    /// They count the session while it lasts.
    counted: (EndpointUse, Counted, Option<RouteSession>),
    /// Present if the session may leave the relay for another transaction.
    parked: Option<Box<Parked>>,
    /// Counts an exclusive user. Dropped after `relay`, which closes the connection to the endpoint.
    membership: Option<Membership>,
}

/// What a session waits for from its greeting to its end. Both register once, not for each wait or phase.
#[derive(Debug)]
struct Waits {
    timer: Deadline,
    drained: Goodbye,
}

/// A session that has left the relay, and continues with commands.
#[derive(Debug)]
struct Resumed {
    session: Box<Session>,
    frontend: Frontend,
    record: Box<Record>,
    /// Set if the session was told to end while it left.
    order: Option<End>,
}

/// Serves one connection. The result is logged and counted, not returned.
pub(crate) async fn run(incoming: Incoming, context: Arc<WorkerContext>) {
    let Incoming { connection, is_unix, client, accepted, id, serving, seat } = incoming;
    // On the heap from the beginning: it outlives the part before the login.
    let record = Box::new(Record::new(id, client, accepted));
    let socket = open::socket(connection, is_unix);
    let mut relayed = Box::pin(until_relayed(socket, client, (serving, context), record)).await;
    while let Some((session, waits)) = relayed {
        relayed = match session.relay(waits).await {
            Some(resumed) => Box::pin(resumed.until_relayed()).await,
            None => None,
        };
    }
    drop(seat);
}

/// Returns the session when its login is accepted. Otherwise it has ended and is logged.
async fn until_relayed(
    socket: std::io::Result<crate::net::Socket>,
    client: ClientAddress,
    (serving, context): (Arc<Serving>, Arc<WorkerContext>),
    mut record: Box<Record>,
) -> Option<(Box<Relaying>, Waits)> {
    let result = until_logged_in(socket, client, serving, context, &mut record).await;
    relayed_or_finished(result, record)
}

/// Returns the session that enters the relay. Logs one that has ended before.
fn relayed_or_finished(
    result: Result<(Box<Session>, Accepting), End>,
    record: Box<Record>,
) -> Option<(Box<Relaying>, Waits)> {
    match result {
        Ok((session, accepted)) => Some(Relaying::new(session, accepted, record)),
        Err(end) => {
            record.finish(&end, Relayed::default());
            None
        }
    }
}

async fn until_logged_in(
    socket: std::io::Result<crate::net::Socket>,
    client: ClientAddress,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    record: &mut Record,
) -> Result<(Box<Session>, Accepting), End> {
    let socket = socket.map_err(|_| End::Internal("the event queue does not take the connection"))?;
    let first = Arc::clone(serving.first());
    let drained = Arc::clone(&first);
    let (session, frontend) = tokio::select! {
        // Most connections are open without waiting.
        biased;
        opened = open::open(socket, client, first, serving, context, record) => opened?,
        () = drained.goodbye.cancelled() => return Err(End::Drained),
    };
    drop(drained);
    session.log_in(frontend, record).await
}

impl Resumed {
    /// As the function of the same name.
    async fn until_relayed(self) -> Option<(Box<Relaying>, Waits)> {
        let Self { session, frontend, mut record, order } = self;
        let result = match order {
            None => session.log_in(frontend, &mut record).await,
            Some(end) => Err(session.end(end).await),
        };
        relayed_or_finished(result, record)
    }
}

impl Relaying {
    fn new(mut session: Box<Session>, accepted: Accepting, mut record: Box<Record>) -> (Box<Self>, Waits) {
        let Accepting { backend, reply, takes_chunks, placement, routes, mail, .. } = accepted;
        let is_routed = mail.is_some();
        let follower = Follower::new(session.protocol(), SmtpStart { takes_chunks, is_routed });
        record.count_transaction();
        let (context, route) = (Arc::clone(&session.context), session.route.take());
        let membership = session.membership.take();
        let Entering { connection, served, counted, parked, waits } = session.enter(mail, takes_chunks);
        let metrics = &served.metrics;
        let client = connection.into_side(metrics.bytes_to_backend.clone());
        let mut backend = backend.into_side(metrics.bytes_to_client.clone());
        // The client's final reply comes before other bytes of the backend.
        backend.received.splice(..0, reply);
        let further = parked.as_ref().map(|_| Arc::default());
        let judge = parked.as_ref().zip(further.as_ref());
        let relay = Relay::new(client, backend, served.listener.timeouts, follower)
            .with_recipients(judge.map(|(parked, taken)| parked.recipients(&served, taken)));
        record.further = further;
        let listed = context.sessions.enter(record, Instant::now());
        if let Some(order) = late_order(&served, &listed, membership.as_ref()) {
            listed.live().end(order);
        }
        // From now on, the session is counted by the list.
        drop(routes);
        let counted = (placement, counted, route.map(RouteMetrics::open));
        (Box::new(Self { relay, served, listed, counted, parked, membership }), waits)
    }

    /// Returns the session if it has left the relay. Otherwise it has ended and is logged.
    async fn relay(mut self: Box<Self>, mut waits: Waits) -> Option<Box<Resumed>> {
        let served = &self.served;
        let goodbye = |end: &End| goodbye(&served.listener.frontend, end);
        let Waits { timer, drained } = &mut waits;
        let until = Until { drained, timer, live: self.listed.live() };
        let (relayed, finish) = self.relay.run(until, goodbye).await;
        self.finished(relayed, finish)
    }

    fn finished(self: Box<Self>, relayed: Relayed, finish: Finish) -> Option<Box<Resumed>> {
        let Self { relay, served, listed, counted, parked, membership } = *self;
        let end = match (finish, parked) {
            (Finish::Left, Some(parked)) => {
                let (record, order) = listed.leave(relayed);
                let (placement, counted, _) = counted;
                let counted = (placement, counted, membership);
                let (session, frontend) = parked.resume(relay.into_left(), served, counted);
                return Some(Box::new(Resumed { session, frontend, record, order }));
            }
            (Finish::Left, None) => End::Internal("a session without routes left the relay"),
            (Finish::Ended(end), _) => end,
        };
        drop((relay, served, counted, membership));
        listed.finish(end, relayed);
        None
    }
}

/// Returns the order for a session that has just been listed, if it should have ended meanwhile: its exclusive user moves,
/// or its user has become exclusive.
fn late_order(served: &ServedListener, listed: &Listed, membership: Option<&Membership>) -> Option<Order> {
    if let Some(reason) = membership.and_then(Membership::reason) {
        return Some(reason.order());
    }
    let current = served.routes.load();
    let groups = groups_of(current.routes.as_ref().filter(|_| current.has_groups)?, listed.record());
    let own = membership.map(Membership::group);
    groups.into_iter().any(|group| own != Some(group)).then_some(Order::Join)
}

/// Returns the message for a client whose session is ended from our side.
fn goodbye(config: &FrontendConfig, end: &End) -> Vec<u8> {
    let text = match end {
        End::Kicked => KICK_TEXT,
        End::Held => HOLD_TEXT,
        End::Moved(_) | End::Joined | End::EndpointLeaves => MOVE_TEXT,
        _ => DRAIN_TEXT,
    };
    let mut goodbye = Vec::new();
    Frontend::goodbye(config.protocol, &config.server_name, text, &mut goodbye);
    goodbye
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Attempt;

    const ID: SessionId = SessionId { process: 1, number: 1 };

    fn size_of_future<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    type Accepted = (std::io::Result<crate::net::Socket>, ClientAddress);
    type Shared = (Arc<Serving>, Arc<WorkerContext>);

    /// Every open session has a task, and either the part before the login or the relay. Debug builds have the same
    /// layout.
    #[test]
    fn an_idle_session_and_one_before_the_login_are_small() {
        fn before(
            accepted: Accepted,
            shared: Shared,
        ) -> impl Future<Output = Option<(Box<Relaying>, Waits)>> {
            let record = Box::new(Record::new(ID, accepted.1, Instant::now()));
            until_relayed(accepted.0, accepted.1, shared, record)
        }
        let sizes = [size_of_future(run), size_of_future(before), size_of::<Relaying>()];
        let bounds = [576, 2304, 512];
        assert!(sizes.iter().zip(bounds).all(|(size, bound)| *size <= bound), "{sizes:?} exceed {bounds:?}");
    }

    /// The future of a login is freed when it is decided, but a slow auth service makes many wait.
    #[test]
    fn a_login_that_is_being_decided_is_small() {
        fn deciding(session: &'static mut Session, attempt: Attempt) -> impl Future {
            let client = ClientAddress::Unix;
            session.decide(attempt, Box::leak(Box::new(Record::new(ID, client, Instant::now()))))
        }
        let size = size_of_future(deciding);
        assert!(size <= 5 * 1024 + 512, "{size} bytes");
    }
}
