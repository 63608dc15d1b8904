//! One client session, from the accept to its line in the log.
//!
//! ```text
//! accept -> open (PROXY header, limits, TLS, greeting) -> login (commands, STARTTLS, credentials)
//!        -> verdict (auth service or backend) -> upstream (connect, TLS, backend's login) -> relay
//! ```
//!
//! Each phase is a future of its own that is freed when the next begins: an idle session in the relay
//! keeps nothing of its login.

mod attempt;
mod client;
mod decision;
mod dialogue;
mod login;
mod open;
mod proxied;
mod upstream;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::net::ClientAddress;
use crate::protocol::Frontend;
use crate::protocol::follow::{Follower, SmtpStart};

use super::balance::Placement;
use super::end::End;
use super::record::Record;
use super::relay::{Relay, Side};
use super::serving::{ServedListener, Serving};
use super::worker::{Seat, WorkerContext};
use client::{Counted, DRAIN_TEXT, Session};
use upstream::Accepting;

/// A connection that was accepted and not looked at.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// The connection, non-blocking.
    pub(crate) connection: OwnedFd,
    /// A UNIX socket, not TCP.
    pub(crate) is_unix: bool,
    /// The peer.
    pub(crate) client: ClientAddress,
    /// When it was accepted.
    pub(crate) accepted: Instant,
    /// The configuration it lives with.
    pub(crate) serving: Arc<Serving>,
    /// Its place on the worker.
    pub(crate) seat: Seat,
}

/// A session whose login the backend accepted.
#[derive(Debug)]
struct LoggedIn {
    client: Side,
    backend: Side,
    follower: Follower,
    placement: Placement,
    served: Arc<ServedListener>,
    counted: Counted,
}

/// Serves one connection; its end is logged and counted, never returned.
pub(crate) async fn run(incoming: Incoming, context: Arc<WorkerContext>) {
    let Incoming { connection, is_unix, client, accepted, serving, seat } = incoming;
    let mut record = Record::new(client, accepted);
    let socket = open::socket(connection, is_unix);
    let before = Box::pin(until_logged_in(socket, client, serving, context, &mut record)).await;
    let end = match before {
        Err(end) => end,
        Ok(logged_in) => {
            let goodbye = logged_in.served.goodbye.clone();
            let (relay, held) = logged_in.into_relay();
            let (relayed, end) = relay.run(&goodbye).await;
            record.to_backend = relayed.to_backend;
            record.to_client = relayed.to_client;
            drop(held);
            end
        }
    };
    record.finish(end);
    drop(seat);
}

async fn until_logged_in(
    socket: std::io::Result<crate::net::Socket>,
    client: ClientAddress,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    record: &mut Record,
) -> Result<LoggedIn, End> {
    let socket = socket.map_err(|_| End::Internal("the event queue does not take the connection"))?;
    let first = Arc::clone(serving.first());
    let goodbye = first.goodbye.clone();
    let (session, frontend) = tokio::select! {
        opened = open::open(socket, client, first, serving, context, record) => opened?,
        () = goodbye.cancelled() => return Err(End::Drained),
    };
    let (session, accepted) = session.log_in(frontend, record).await?;
    Ok(LoggedIn::new(session, accepted))
}

impl LoggedIn {
    fn new(session: Session, accepted: Accepting) -> Self {
        let Accepting { backend, reply, takes_chunks, placement, .. } = accepted;
        let start = SmtpStart { takes_chunks, is_logged_in: session.is_logged_in() };
        let follower = Follower::new(session.protocol(), start);
        let metrics = &session.served.metrics;
        let client = session.connection.into_side(metrics.bytes_to_backend.clone());
        let mut backend = backend.into_side(metrics.bytes_to_client.clone());
        // The client gets the reply first.
        backend.received.splice(..0, reply);
        Self { client, backend, follower, placement, served: session.served, counted: session.counted }
    }

    /// The relay, and what stays counted beside it.
    fn into_relay(self) -> (Relay, (Placement, Counted)) {
        let config = &self.served.listener.frontend;
        let mut goodbye = Vec::new();
        Frontend::goodbye(config.protocol, &config.server_name, DRAIN_TEXT, &mut goodbye);
        let relay =
            Relay::new(self.client, self.backend, self.served.listener.timeouts, goodbye, self.follower);
        (relay, (self.placement, self.counted))
    }
}
