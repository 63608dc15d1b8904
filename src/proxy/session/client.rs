//! The client's side of a session before the relay: reads and writes within the deadline, and the last message before
//! closing.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::auth;
use crate::dns::UNAVAILABLE;
use crate::protocol::notices::{self, CertificateProblem};
use crate::protocol::proxy_header::TlsFacts;
use crate::protocol::{Frontend, Protocol, StartTlsOffer};
use crate::tls::ClientCertificate;

use super::mail::KeptBackend;
use super::proxied::{Ends, FirstBytes};
use crate::proxy::affinity::Membership;
use crate::proxy::connection::Connection;
use crate::proxy::context::WorkerContext;
use crate::proxy::deadline::Deadline;
use crate::proxy::end::End;
use crate::proxy::goodbye::Goodbye;
use crate::proxy::guess::Guess;
use crate::proxy::limits::{Admission, CountedAs, LimitReached};
use crate::proxy::metrics::routes::RouteMetrics;
use crate::proxy::metrics::{OpenSession, TlsLabel};
use crate::proxy::record::SessionUser;
use crate::proxy::serving::{ServedListener, Serving};

/// A session before its login is accepted. Functions take it in a box: their futures would have room for it twice each.
#[derive(Debug)]
pub(super) struct Session {
    /// The connection to the client.
    pub(super) connection: Connection,
    /// The listener that serves it.
    pub(super) served: Arc<ServedListener>,
    /// What the sessions of a worker share.
    pub(super) context: Arc<WorkerContext>,
    /// The addresses of the client and of the PROXY header.
    pub(super) ends: Ends,
    /// SMTP: the client's verified host name, or a marker (NGINX section 3.4).
    pub(super) host: Arc<str>,
    /// The login that is being decided, until its refusal is logged.
    pub(super) attempted: Option<Attempted>,
    /// The metrics of the route that the last login has matched.
    pub(super) route: Option<Arc<RouteMetrics>>,
    /// The first bytes, while they may be the start of a PROXY header that the peer must not send.
    pub(super) first_bytes: Option<FirstBytes>,
    /// Whether the connection is counted in the listener's summary of client addresses.
    pub(super) is_source_recorded: bool,
    /// Set after the TLS handshake.
    pub(super) secured: Option<Arc<Secured>>,
    /// The configuration of the socket when the session began.
    pub(super) serving: Arc<Serving>,
    /// Counts the session while it lasts.
    pub(super) counted: Counted,
    /// Mail without a login: the connection of the last transaction.
    pub(super) kept: Option<Box<KeptBackend>>,
    /// The end of `timeouts.client`.
    pub(super) deadline: Deadline,
    /// The end of the listener's drain.
    pub(super) goodbye: Goodbye,
    /// The exclusive user whose login goes to its endpoint. Dropped after the connection to it is closed.
    pub(super) membership: Option<Membership>,
}

/// The data of a TLS connection.
#[derive(Debug)]
pub(super) struct Secured {
    /// For the auth service and the PROXY header.
    pub(super) facts: TlsFacts,
    /// For the auth service.
    pub(super) certificate: ClientCertificate,
    /// Set if the listener's certificate policy requires to end the session.
    pub(super) refusal: Option<CertificateProblem>,
}

impl Secured {
    /// Returns what the auth service is told; `None` if certificates are not requested.
    pub(super) fn certificate(&self) -> Option<auth::ClientCertificate<'_>> {
        match &self.certificate {
            ClientCertificate::NotRequested => None,
            ClientCertificate::Absent => Some(auth::ClientCertificate::Absent),
            ClientCertificate::Presented { der, verified } => {
                let verified = verified.as_ref().copied().map_err(String::as_str);
                Some(auth::ClientCertificate::Presented { der, verified })
            }
        }
    }
}

/// Guards that count a session while it lasts.
#[derive(Debug)]
pub(super) struct Counted {
    admission: Admission,
    /// Absent until the listener is known.
    _open: Option<OpenSession>,
}

impl Counted {
    /// Counts a connection that was just accepted. `first` is the listener that is used before a server name is known.
    pub(super) fn at_accept(
        serving: &Serving,
        first: &ServedListener,
        tls: TlsLabel,
    ) -> Result<Self, LimitReached> {
        let admission = serving.counters(first).enter(&serving.opening)?;
        let is_known = serving.is_alone() || tls == TlsLabel::Off;
        Ok(Self { admission, _open: is_known.then(|| first.metrics.open(tls)) })
    }

    /// Counts it for its client too.
    pub(super) fn for_client(&mut self, serving: &Serving, client: CountedAs) -> Result<(), LimitReached> {
        self.admission.count(&serving.opening, client, StdInstant::now())
    }

    /// Counts a session whose listener is known.
    pub(super) fn at(
        served: &ServedListener,
        client: CountedAs,
        tls: TlsLabel,
    ) -> Result<Self, LimitReached> {
        let admission = served.counters.admit(&served.listener.limits, client, StdInstant::now())?;
        Ok(Self { admission, _open: Some(served.metrics.open(tls)) })
    }
}

/// Tells a client that a limit is reached, and closes. Only as many closes as `lingering` permits wait for their
/// client. Other connections are closed at once, so that a flood does not use up the descriptors of served sessions.
pub(super) async fn refuse_for_limit(
    mut connection: Connection,
    protocol: Protocol,
    end: End,
    lingering: &Semaphore,
) -> End {
    let mut message = notices::too_many_connections(protocol).to_vec();
    match lingering.try_acquire() {
        Ok(_place) => send_and_close(connection, message).await,
        // The message fits into the send buffer of a new connection.
        Err(_) => {
            drop(timeout_at(Instant::now() + UNAWAITED_MESSAGE_TIME, connection.send(&mut message)).await)
        }
    }
    end
}

/// Sends a last message and closes. A client that does not read delays this by at most [`LAST_MESSAGE_TIME`] and the
/// close. Within a reply that was not sent completely, the message would become a part of it, so there is none.
async fn send_and_close(mut connection: Connection, mut message: Vec<u8>) {
    if !connection.is_mid_reply() {
        let _ = timeout_at(Instant::now() + LAST_MESSAGE_TIME, connection.send(&mut message)).await;
    }
    connection.close().await;
}

/// The data of a login that is needed until it is decided or its refusal is logged.
#[derive(Debug)]
pub(super) struct Attempted {
    /// Escaped and shortened for the log.
    pub(super) login: Box<str>,
    /// `None` if only a later message of the login names the user.
    pub(super) user: Option<SessionUser>,
    pub(super) method: &'static str,
    /// Counted from 1 for each connection.
    pub(super) number: u32,
    /// False for mail without a login, for which nothing can be guessed.
    pub(super) has_credentials: bool,
    /// XOAUTH2 or OAUTHBEARER, relayed to the backend.
    pub(super) is_token: bool,
    pub(super) guess: Option<Guess>,
}

/// Waits until an exclusive user has to leave its endpoint; for ever if there is none.
async fn told(membership: Option<&Membership>) -> End {
    match membership {
        // In memory of its own, because most sessions have no membership.
        Some(membership) => Box::pin(membership.told()).await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Creates a session for a client that is not greeted yet.
    pub(super) fn new(
        connection: Connection,
        served: Arc<ServedListener>,
        serving: Arc<Serving>,
        context: Arc<WorkerContext>,
        ends: Ends,
        counted: Counted,
    ) -> Box<Self> {
        let deadline = Deadline::new(Instant::now() + served.listener.timeouts.client);
        let goodbye = Goodbye::new(&served.goodbye);
        Box::new(Self {
            connection,
            served,
            context,
            ends,
            host: UNAVAILABLE.into(),
            attempted: None,
            route: None,
            first_bytes: ends.takes_no_header.then(FirstBytes::default),
            is_source_recorded: false,
            secured: None,
            serving,
            counted,
            kept: None,
            deadline,
            goodbye,
            membership: None,
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.served.listener.frontend.protocol
    }

    /// Returns the end of the session for a client that does not wait for STARTTLS.
    pub(super) fn speaks_tls(&self) -> End {
        let frontend = &self.served.listener.frontend;
        let has_start_tls = frontend.start_tls != StartTlsOffer::Disabled;
        End::SpeaksTls { protocol: frontend.protocol, has_start_tls }
    }

    /// Restarts `timeouts.client`: with the greeting, and after a refused login.
    pub(super) fn start_deadline(&mut self) {
        self.deadline.set(Instant::now() + self.served.listener.timeouts.client);
    }

    /// Writes replies within the deadline.
    pub(super) async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        match self.deadline.bound(self.connection.send(out)).await {
            None => Err(End::ClientTimeout),
            Some(sent) => sent.map_err(|_| End::ClientGone),
        }
    }

    /// Reads from the client within the deadline, unless a drain ends before.
    pub(super) async fn read(&mut self) -> Result<(), End> {
        // A client that always has sent something must not delay the end of the drain.
        if self.goodbye.is_said() {
            return Err(End::Drained);
        }
        let held = self.connection.input.len();
        let read = tokio::select! {
            biased;
            read = self.connection.fill() => read,
            () = self.goodbye.said() => return Err(End::Drained),
            end = told(self.membership.as_ref()) => return Err(end),
            () = self.deadline.passed() => return Err(End::ClientTimeout),
        };
        match read {
            Ok(0) | Err(_) => Err(End::ClientGone),
            Ok(_) => self.refuse_header(held),
        }
    }

    /// Checks the input after its first `held` bytes. Fails if the connection starts with a PROXY header that the peer
    /// must not send.
    pub(super) fn refuse_header(&mut self, held: usize) -> Result<(), End> {
        let Some(first) = &mut self.first_bytes else { return Ok(()) };
        match first.add(self.connection.input.peek().get(held..).unwrap_or_default()) {
            None => {}
            Some(false) => self.first_bytes = None,
            Some(true) => return Err(End::UnwantedHeader(self.ends.client.to_string())),
        }
        Ok(())
    }

    /// Runs `work`, and stops when the client disconnects (quirk Q-30) or a drain ends. Bytes that the client sends
    /// meanwhile are kept.
    pub(super) fn while_present<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, End>> {
        self.run(work, true)
    }

    /// Runs a part of a login. If failed logins are counted, a client cannot avoid the count by disconnecting.
    pub(super) fn while_deciding<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, End>> {
        let needs_client = self.served.current.load().limits.auth_failures.is_none();
        self.run(work, needs_client)
    }

    async fn run<T>(&mut self, work: impl Future<Output = T>, needs_client: bool) -> Result<T, End> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.connection.disconnected(), if needs_client => Err(End::ClientGone),
            () = self.goodbye.said() => Err(End::Drained),
            end = told(self.membership.as_ref()) => Err(end),
        }
    }

    /// Tells the client why the session ends, if the protocol has a message for it, and closes.
    pub(super) async fn end_with_message(self: Box<Self>, end: End) -> End {
        let protocol = self.protocol();
        let text = match end {
            End::Drained => Some(DRAIN_TEXT),
            End::Kicked => Some(KICK_TEXT),
            End::Held => Some(HOLD_TEXT),
            End::Moved(_) | End::Joined | End::EndpointLeaves => Some(MOVE_TEXT),
            // RFC 1939 section 3: an autologout closes without a response. nginx never sends one (quirk Q-26).
            End::ClientTimeout if protocol != Protocol::Pop3 && self.served.listener.timeouts.announce => {
                Some("Autologout; idle for too long")
            }
            _ => None,
        };
        let mut message = Vec::new();
        if let Some(text) = text {
            Frontend::goodbye(protocol, &self.served.listener.frontend.server_name, text, &mut message);
        }
        send_and_close(self.connection, message).await;
        end
    }

    /// Tells whether the client is banned. Another session of the client may have caused the ban.
    pub(super) fn is_banned(&self) -> bool {
        let limits = &self.served.current.load().limits;
        self.served.counters.is_banned(limits, self.ends.counted, StdInstant::now())
    }

    /// Applies nginx's client certificate policy: the handshake succeeds, and the protocol reports why the session
    /// ends.
    pub(super) async fn with_certificate_checked(mut self: Box<Self>) -> Result<Box<Self>, End> {
        let Some(problem) = self.secured.as_ref().and_then(|secured| secured.refusal) else {
            return Ok(self);
        };
        let mut out = notices::certificate_refusal(self.protocol(), problem).into_bytes();
        // The client may have left; the session ends in any case.
        let _ = self.send(&mut out).await;
        Err(self.end_with_message(End::ClientCertificate(problem)).await)
    }
}

/// The closing message of a session whose user has to leave its endpoint.
pub(super) const MOVE_TEXT: &str = "Mailbox has moved to another server, please reconnect";

/// The closing message at the end of a drain.
pub(super) const DRAIN_TEXT: &str = "Service is being restarted, please reconnect";

/// The closing message of a session that an operator has ended.
pub(super) const KICK_TEXT: &str = "Session ended by the administrator";

/// The closing message of a session whose route is held.
pub(super) const HOLD_TEXT: &str = "Mailbox is being moved, please reconnect";

/// Time limit for a message to a client that is closed at once.
const UNAWAITED_MESSAGE_TIME: Duration = Duration::from_millis(100);

/// Time limit for a last message.
const LAST_MESSAGE_TIME: Duration = Duration::from_secs(2);
