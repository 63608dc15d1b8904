//! Mail without a login that routes have placed.

use std::sync::Arc;

use crate::model::{Backend, Reach, Upstream};
use crate::net::BackendAddress;
use crate::protocol::{Frontend, Hello, PendingLogin};

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
