//! Mail without a login that routes have placed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::model::{Backend, Reach, Upstream};
use crate::net::BackendAddress;
use crate::protocol::{Frontend, Hello, PendingLogin};
use crate::proxy::affinity::Membership;
use crate::proxy::balance::EndpointUse;
use crate::proxy::connection::Connection;
use crate::proxy::context::WorkerContext;

/// Where the mail of a transaction goes.
#[derive(Clone, Debug)]
pub(super) struct MailDestination {
    /// The name of the backend. Its endpoints may change during a transaction.
    pub(super) backend: Arc<Backend>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) reach: Reach,
    /// The recipient's user, if the user has one endpoint.
    pub(super) user: Option<Vec<u8>>,
}

impl MailDestination {
    /// Tells whether a connection to one of them is like a connection to the other.
    pub(super) fn shares_connections(&self, other: &Self) -> bool {
        let Self { backend, upstream, reach, user: _ } = self;
        backend.reference == other.backend.reference && *upstream == other.upstream && *reach == other.reach
    }
}

/// Mail without a login that routes have placed.
#[derive(Debug)]
pub(super) struct PlacedMail {
    pub(super) destination: MailDestination,
    /// What the session is connected to.
    pub(super) endpoint: BackendAddress,
    /// What the backend knows as the client's HELO or EHLO.
    pub(super) hello: Option<Hello>,
    /// For the next transaction.
    pub(super) frontend: Frontend,
}

impl PlacedMail {
    /// `None` if the session did not start with SMTP.
    pub(super) fn new(
        destination: MailDestination,
        endpoint: BackendAddress,
        pending: PendingLogin,
    ) -> Option<Box<Self>> {
        let hello = pending.envelope().hello.clone();
        Some(Box::new(Self { destination, endpoint, hello, frontend: pending.next_mail()? }))
    }
}

/// The connection to the backend of the last transaction.
#[derive(Debug)]
pub(super) struct KeptBackend {
    pub(super) connection: Connection,
    pub(super) endpoint: BackendAddress,
    pub(super) destination: MailDestination,
    pub(super) hello: Option<Hello>,
    pub(super) takes_chunks: bool,
    pub(super) is_in_transaction: bool,
    pub(super) placement: EndpointUse,
}

impl KeptBackend {
    /// Ends the connection with QUIT, without delay for the client. Only as many as `lingering` permits wait for the
    /// reply.
    pub(super) fn end(self, context: &Arc<WorkerContext>, membership: Option<Membership>) {
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let Self { mut connection, placement, .. } = self;
            let place = context.lingering.try_acquire();
            // An exclusive user, who may move, does not wait for the backend's reply.
            let waits = place.is_ok() && membership.is_none();
            let patience = if waits { QUIT_TIME } else { Duration::ZERO };
            let _ = timeout(patience, async {
                connection.send(&mut b"QUIT\r\n".to_vec()).await?;
                while connection.fill().await? > 0 {
                    let heard = connection.input.len();
                    connection.input.consume(heard);
                }
                std::io::Result::Ok(())
            })
            .await;
            drop((connection, placement));
            drop(membership);
        });
    }
}

/// How long a backend may take to reply to QUIT.
const QUIT_TIME: Duration = Duration::from_secs(5);
