//! The client of a session before the relay: who it is, how it is read and answered within its deadline, and
//! what it is told last.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::auth;
use crate::dns::UNAVAILABLE;
use crate::net::ClientAddress;
use crate::protocol::notices::{self, CertificateProblem};
use crate::protocol::proxy_header::TlsFacts;
use crate::protocol::{Frontend, Protocol};
use crate::tls::ClientCertificate;

use super::attempt::Attempted;
use super::proxied::FirstBytes;
use crate::proxy::connection::Connection;
use crate::proxy::end::End;
use crate::proxy::limits::{Admission, CountedAs, Refusal};
use crate::proxy::metrics::{OpenSession, TlsLabel};
use crate::proxy::serving::{ServedListener, Serving};
use crate::proxy::worker::WorkerContext;

/// A session before its login.
#[derive(Debug)]
pub(super) struct Session {
    /// The client.
    pub(super) connection: Connection,
    /// The listener that serves it.
    pub(super) served: Arc<ServedListener>,
    /// Where it and its worker's shared parts are.
    pub(super) context: Arc<WorkerContext>,
    /// The client's address and the PROXY header's.
    pub(super) ends: Ends,
    /// SMTP: the client's verified host name, or a marker (NGINX section 3.4).
    pub(super) host: Box<str>,
    /// The login that is being decided, until its refusal is logged.
    pub(super) attempted: Option<Attempted>,
    /// Its first bytes, while they may be a PROXY header that it must not send.
    pub(super) first_bytes: Option<FirstBytes>,
    /// Whether it is in the picture that the listener has of its clients' addresses.
    pub(super) is_pictured: bool,
    /// Present under TLS.
    pub(super) secured: Option<Secured>,
    /// The configuration it lives with.
    pub(super) serving: Arc<Serving>,
    /// Counts it.
    pub(super) counted: Counted,
    /// `timeouts.client`.
    pub(super) deadline: Instant,
}

/// The ends of the connection as a trusted proxy sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The client.
    pub(super) client: ClientAddress,
    /// Whether a believed PROXY header says so.
    pub(super) is_proxied: bool,
    /// Source and destination of a PROXY header that carried them; for the auth service, whoever wrote them.
    pub(super) proxied: Option<(SocketAddr, SocketAddr)>,
    /// Where the client connected to, where `client` comes from a believed PROXY header, too. Otherwise the address of
    /// our socket is the other end of the same connection.
    pub(super) destination: Option<SocketAddr>,
    /// The address that limits count.
    pub(super) counted: CountedAs,
    /// Whether a PROXY header at the beginning ends the connection.
    pub(super) takes_no_header: bool,
}

impl Ends {
    /// A connection that nobody stands in front of.
    pub(super) fn direct(client: ClientAddress) -> Self {
        Self {
            client,
            is_proxied: false,
            proxied: None,
            destination: None,
            counted: CountedAs::client(client),
            takes_no_header: false,
        }
    }
}

/// The TLS facts and the certificate of a session that is secured.
#[derive(Debug)]
pub(super) struct Secured {
    /// For the auth service and the PROXY header.
    pub(super) facts: TlsFacts,
    /// For the auth service.
    pub(super) certificate: ClientCertificate,
    /// Why the session must end by the listener's policy.
    pub(super) refusal: Option<CertificateProblem>,
}

impl Secured {
    /// What the auth service is told; nothing where certificates are not asked for.
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

/// What counts a session while it lasts.
#[derive(Debug)]
pub(super) struct Counted {
    admission: Admission,
    /// Absent while it is not known whose session it is.
    _open: Option<OpenSession>,
}

impl Counted {
    /// Counts a connection that was just accepted. `first` is who speaks before a server name is known.
    pub(super) fn at_accept(
        serving: &Serving,
        first: &ServedListener,
        tls: TlsLabel,
    ) -> Result<Self, Refusal> {
        let admission = serving.counters(first).enter(&serving.opening)?;
        let is_known = serving.is_alone() || tls == TlsLabel::Off;
        Ok(Self { admission, _open: is_known.then(|| first.metrics.open(tls)) })
    }

    /// Counts it for its client, too.
    pub(super) fn for_client(&mut self, serving: &Serving, client: CountedAs) -> Result<(), Refusal> {
        self.admission.count(&serving.opening, client, StdInstant::now())
    }

    /// Counts a session whose listener is known.
    pub(super) fn at(served: &ServedListener, client: CountedAs, tls: TlsLabel) -> Result<Self, Refusal> {
        let admission = served.counters.admit(&served.listener.limits, client, StdInstant::now())?;
        Ok(Self { admission, _open: Some(served.metrics.open(tls)) })
    }
}

/// Tells a client that there is no room for it, if it listens, and closes. Only as many as `lingering` has room for are
/// waited for; the others are closed at once, so that a flood of them does not take the descriptors of those that are
/// served.
pub(super) async fn turn_away(
    mut connection: Connection,
    protocol: Protocol,
    end: End,
    lingering: &Semaphore,
) -> End {
    let mut words = notices::too_many_connections(protocol).to_vec();
    match lingering.try_acquire() {
        Ok(_place) => part(connection, words).await,
        // The buffer of a new connection has room for them.
        Err(_) => drop(timeout_at(Instant::now() + LAST_WORDS_TIME, connection.send(&mut words)).await),
    }
    end
}

/// Says last words and closes. A client that does not read is not waited for.
async fn part(mut connection: Connection, mut words: Vec<u8>) {
    let _ = timeout_at(Instant::now() + FAREWELL_TIME, connection.send(&mut words)).await;
    connection.close().await;
}

impl Session {
    /// A session whose client is connected and not yet greeted.
    pub(super) fn new(
        connection: Connection,
        served: Arc<ServedListener>,
        serving: Arc<Serving>,
        context: Arc<WorkerContext>,
        ends: Ends,
        counted: Counted,
    ) -> Self {
        let deadline = Instant::now() + served.listener.timeouts.client;
        Self {
            connection,
            served,
            context,
            ends,
            host: UNAVAILABLE.into(),
            attempted: None,
            first_bytes: ends.takes_no_header.then(FirstBytes::default),
            is_pictured: false,
            secured: None,
            serving,
            counted,
            deadline,
        }
    }

    /// The protocol spoken.
    pub(super) fn protocol(&self) -> Protocol {
        self.served.listener.frontend.protocol
    }

    /// `timeouts.client` begins anew: with the greeting, and after a refused login.
    pub(super) fn start_deadline(&mut self) {
        self.deadline = Instant::now() + self.served.listener.timeouts.client;
    }

    /// Writes replies within the deadline.
    pub(super) async fn send(&mut self, out: &mut Vec<u8>) -> Result<(), End> {
        match timeout_at(self.deadline, self.connection.send(out)).await {
            Err(_) => Err(End::ClientTimeout),
            Ok(sent) => sent.map_err(|_| End::ClientGone),
        }
    }

    /// Reads from the client within the deadline, unless the drain ends first.
    pub(super) async fn read(&mut self) -> Result<(), End> {
        let held = self.connection.input.len();
        let read = tokio::select! {
            read = timeout_at(self.deadline, self.connection.fill()) => read,
            () = self.served.goodbye.cancelled() => return Err(End::Drained),
        };
        match read {
            Err(_) => Err(End::ClientTimeout),
            Ok(Ok(0) | Err(_)) => Err(End::ClientGone),
            Ok(Ok(_)) => self.refuse_header(held),
        }
    }

    /// Looks at what came behind the first `held` bytes of the input: a peer that must not send a PROXY header is
    /// refused with it.
    pub(super) fn refuse_header(&mut self, held: usize) -> Result<(), End> {
        let Some(first) = &mut self.first_bytes else { return Ok(()) };
        match first.add(self.connection.input.peek().get(held..).unwrap_or_default()) {
            None => {}
            Some(false) => self.first_bytes = None,
            Some(true) => return Err(End::UnwantedHeader(self.ends.client.to_string())),
        }
        Ok(())
    }

    /// Runs something that does not need the client, and gives up when the client is gone (quirk Q-30) or
    /// the drain ends. What the client sends meanwhile is kept.
    pub(super) fn while_present<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, End>> {
        self.run(work, true)
    }

    /// Runs a part of a login. Where failed logins are counted, a client that leaves does not escape its verdict.
    pub(super) fn while_deciding<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, End>> {
        let needs_client = self.served.listener.limits.auth_failures.is_none();
        self.run(work, needs_client)
    }

    async fn run<T>(&mut self, work: impl Future<Output = T>, needs_client: bool) -> Result<T, End> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.connection.gone(), if needs_client => Err(End::ClientGone),
            () = self.served.goodbye.cancelled() => Err(End::Drained),
        }
    }

    /// Tells the client why the session ends, where the protocol has words for it, and closes.
    pub(super) async fn farewell(self, end: End) -> End {
        let protocol = self.protocol();
        let text = match end {
            End::Drained => Some(DRAIN_TEXT),
            // RFC 1939 section 3: an autologout closes without a response; nginx never has one (quirk Q-26).
            End::ClientTimeout if protocol != Protocol::Pop3 && self.served.listener.timeouts.announce => {
                Some("Autologout; idle for too long")
            }
            _ => None,
        };
        let mut words = Vec::new();
        if let Some(text) = text {
            Frontend::goodbye(protocol, &self.served.listener.frontend.server_name, text, &mut words);
        }
        part(self.connection, words).await;
        end
    }

    /// Whether the client is banned; a session outlasts the ban that another one earned.
    pub(super) fn is_banned(&self) -> bool {
        let limits = &self.served.listener.limits;
        self.served.counters.is_banned(limits, self.ends.counted, StdInstant::now())
    }

    /// nginx's client certificate policy: the handshake succeeds, and the protocol says why the session
    /// ends.
    pub(super) async fn with_certificate_checked(mut self) -> Result<Self, End> {
        let Some(problem) = self.secured.as_ref().and_then(|secured| secured.refusal) else {
            return Ok(self);
        };
        let mut out = notices::certificate_refusal(self.protocol(), problem).into_bytes();
        // The client may be gone; the end is the same.
        let _ = self.send(&mut out).await;
        Err(self.farewell(End::ClientCertificate(problem)).await)
    }
}

/// What a client is told at the end of a drain.
pub(super) const DRAIN_TEXT: &str = "Service is being restarted, please reconnect";

/// For the last words to a client that is not waited for.
const LAST_WORDS_TIME: Duration = Duration::from_millis(100);

/// For one last line.
const FAREWELL_TIME: Duration = Duration::from_secs(2);
