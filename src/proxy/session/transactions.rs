//! Mail without a login where routes place its recipients: each transaction goes to the backend of its first recipient.
//!
//! While a transaction is relayed, [`Recipients`] places its other recipients, and refuses those of another backend. At
//! the next transaction the session leaves the relay and becomes a [`Session`] again, which reads MAIL and RCPT as at
//! its beginning. Meanwhile it keeps the connection to the backend ([`KeptBackend`]). If the new first recipient
//! belongs to the same backend, the connection is used again; otherwise it is ended with QUIT.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::LoadBalancing;
use crate::net::BackendAddress;
use crate::protocol::backend;
use crate::protocol::login::recipient_of;
use crate::protocol::{Backend, BackendStep, Envelope, Frontend, PendingLogin, Protocol};

use super::Waits;
use super::client::{Counted, Secured, Session};
use super::dialogue::Dialogue;
use super::mail::{KeptBackend, MailDestination, PlacedMail};
use super::proxied::Ends;
use super::routing::{Routed, routed};
use super::upstream::{Accepting, Again, Authorised, is_routed_mail};
use crate::proxy::affinity::Membership;
use crate::proxy::balance::EndpointUse;
use crate::proxy::connection::Connection;
use crate::proxy::context::WorkerContext;
use crate::proxy::deadline::Deadline;
use crate::proxy::end::End;
use crate::proxy::goodbye::Goodbye;
use crate::proxy::record::{FurtherRecipients, Record};
use crate::proxy::refused_recipients::RecipientRefusal;
use crate::proxy::relay::{JudgesRecipients, Left};
use crate::proxy::serving::{ServedListener, Serving};

/// Places the recipients of a transaction after the first one.
#[derive(Debug)]
struct Recipients {
    served: Arc<ServedListener>,
    /// Where the first recipient went.
    destination: MailDestination,
    /// Those that were not refused.
    taken: Arc<FurtherRecipients>,
    refused: u32,
}

impl JudgesRecipients for Recipients {
    fn refusal(&mut self, line: &[u8]) -> Option<&'static [u8]> {
        let path = recipient_of(line);
        let refusal = match routed(&self.served, |rules| Some(rules.of_recipient(path))) {
            Routed::To(place) => {
                let destination = place.destination();
                // Users with one endpoint have a transaction each, because their endpoints may differ.
                if destination.user != self.destination.user
                    || !destination.shares_connections(&self.destination)
                {
                    RecipientRefusal::OtherDestination
                } else if self.taken.add(path) {
                    return None;
                } else {
                    RecipientRefusal::TooMany
                }
            }
            Routed::Undecided(_) => RecipientRefusal::Undecided,
            Routed::Held(..) | Routed::UserHeld(_) => RecipientRefusal::Held,
            Routed::Nowhere(_) => RecipientRefusal::Unknown,
        };
        self.refused = self.refused.saturating_add(1);
        self.served.metrics.recipient_refused(refusal);
        Some(refusal.reply())
    }

    fn refused(&self) -> u32 {
        self.refused
    }
}

/// What a session needs after the relay, without the parts that the relay uses.
#[derive(Debug)]
pub(super) struct Parked {
    mail: Box<PlacedMail>,
    takes_chunks: bool,
    context: Arc<WorkerContext>,
    ends: Ends,
    host: Arc<str>,
    is_source_recorded: bool,
    secured: Option<Arc<Secured>>,
    serving: Arc<Serving>,
}

/// A session that enters the relay.
#[derive(Debug)]
pub(super) struct Entering {
    pub(super) connection: Connection,
    pub(super) served: Arc<ServedListener>,
    pub(super) counted: Counted,
    /// Present if the session may leave the relay again.
    pub(super) parked: Option<Box<Parked>>,
    pub(super) waits: Waits,
}

impl Session {
    /// Takes the session apart for the relay.
    pub(super) fn enter(self, mail: Option<Box<PlacedMail>>, takes_chunks: bool) -> Entering {
        let Self { connection, served, counted, context, ends, host, is_source_recorded, .. } = self;
        let (secured, serving) = (self.secured, self.serving);
        let waits = Waits { timer: self.deadline, drained: self.goodbye };
        let parked = mail.map(|mail| {
            let parked =
                Parked { mail, takes_chunks, context, ends, host, is_source_recorded, secured, serving };
            Box::new(parked)
        });
        Entering { connection, served, counted, parked, waits }
    }
}

impl Parked {
    /// Returns what places the further recipients of the transaction.
    pub(super) fn recipients(
        &self,
        served: &Arc<ServedListener>,
        taken: &Arc<FurtherRecipients>,
    ) -> Box<dyn JudgesRecipients> {
        let (destination, taken) = (self.mail.destination.clone(), Arc::clone(taken));
        Box::new(Recipients { served: Arc::clone(served), destination, taken, refused: 0 })
    }

    /// Returns the session that has left the relay, with the frontend for its next commands.
    pub(super) fn resume(
        self,
        left: Left,
        served: Arc<ServedListener>,
        (placement, counted, membership): (EndpointUse, Counted, Option<Membership>),
    ) -> (Box<Session>, Frontend) {
        let Self { mail, takes_chunks, context, ends, host, is_source_recorded, secured, serving } = self;
        let Left { client, unread, backend, is_in_transaction } = left;
        let PlacedMail { destination, endpoint, hello, frontend } = *mail;
        let connection = Connection::to_backend(backend);
        let kept = KeptBackend {
            connection,
            endpoint,
            destination,
            hello,
            takes_chunks,
            is_in_transaction,
            placement,
        };
        // An exclusive user is released when the connection is closed, and other users may have another endpoint.
        let kept = match membership {
            Some(membership) => {
                kept.end(&context, Some(membership));
                None
            }
            None => Some(Box::new(kept)),
        };
        let session = Box::new(Session {
            connection: Connection::resumed(client, unread, served.listener.limits.client_buffer),
            deadline: Deadline::new(Instant::now() + served.listener.timeouts.client),
            goodbye: Goodbye::new(&served.goodbye),
            served,
            context,
            ends,
            host,
            attempted: None,
            route: None,
            first_bytes: None,
            is_source_recorded,
            secured,
            serving,
            counted,
            kept,
            membership: None,
        });
        (session, frontend)
    }
}

/// Tells whether the connection is what a new one would be.
fn fits(kept: &KeptBackend, authorised: &Authorised, order: &[BackendAddress], envelope: &Envelope) -> bool {
    let place = &authorised.place;
    let policy = place.upstream.settings.load_balancing;
    let is_by_user = place.affine.is_some() || policy == LoadBalancing::UserHash;
    let is_endpoint =
        if is_by_user { order.first() == Some(&kept.endpoint) } else { order.contains(&kept.endpoint) };
    is_endpoint
        && is_routed_mail(authorised)
        && !kept.is_in_transaction
        && kept.hello == envelope.hello
        && kept.destination.shares_connections(&place.destination())
}

impl Session {
    /// Sends the envelope on the connection of the last transaction, if it fits. If the backend does not accept MAIL there
    /// or closes the connection, a new connection decides: the backend may limit the messages of a connection.
    pub(super) async fn send_again(
        &mut self,
        authorised: &Authorised,
        order: &[BackendAddress],
        pending: PendingLogin,
        record: &Record,
    ) -> Result<Again, End> {
        let Some(kept) = self.kept.take() else { return Ok(Again::Anew(pending)) };
        if !fits(&kept, authorised, order, pending.envelope()) {
            kept.end(&self.context, None);
            return Ok(Again::Anew(pending));
        }
        let KeptBackend { connection, endpoint, takes_chunks, placement, .. } = *kept;
        let connector = self.connector(&authorised.place, record.id);
        let patience = self.served.listener.timeouts.connect;
        let limits = (Deadline::new(Instant::now() + patience), patience);
        let mut dialogue = Dialogue::new(&connector, &endpoint, connection, limits, false, false);
        let mut machine = Backend::next_mail(pending.envelope().clone(), takes_chunks, &mut dialogue.out);
        loop {
            if self.while_deciding(dialogue.exchange()).await?.is_err() {
                return Ok(Again::Anew(pending));
            }
            match machine.receive(&mut dialogue.connection.input, &mut dialogue.out) {
                BackendStep::Read(same) => machine = same,
                BackendStep::Ready { reply, takes_chunks, refused }
                    if !backend::is_closing(Protocol::Smtp, &reply) =>
                {
                    let backend = dialogue.connection;
                    let (destination, routes) =
                        (authorised.place.destination(), Arc::clone(&authorised.place.routes));
                    let mail = PlacedMail::new(destination, endpoint, pending);
                    return Ok(Again::Accepted(Accepting {
                        backend,
                        reply,
                        takes_chunks,
                        refused,
                        placement,
                        routes,
                        mail,
                    }));
                }
                _ => return Ok(Again::Anew(pending)),
            }
        }
    }

    /// Ends both connections.
    pub(super) async fn end(mut self: Box<Self>, end: End) -> End {
        self.end_kept();
        self.end_with_message(end).await
    }

    /// Ends the connection to the backend of the last transaction.
    pub(super) fn end_kept(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end(&self.context, None);
        }
    }
}
