//! The third part of a session: an endpoint is chosen and connected, and the backend's machine logs in.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use rustix::io::Errno;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::dns::Target;
use crate::model::{self, UpstreamTls};
use crate::net::{BackendAddress, ClientAddress, Socket, Stream};
use crate::protocol::backend::{BackendLogin, BackendStartTls, ClientInfo};
use crate::protocol::proxy_header;
use crate::protocol::{
    Backend, BackendError, BackendPlan, BackendStep, Exchange, ExchangeStep, Input, PendingLogin, Protocol,
};
use crate::secret::Secret;
use crate::tls::{ServerNameSource, TlsConnector};

use super::super::balance::Placement;
use super::super::end::{End, Record};
use super::super::leg::Leg;
use super::client::Session;

/// A login that may go to the backend.
#[derive(Debug)]
pub(super) struct Authorised {
    /// Where to.
    pub(super) backend: Arc<model::Backend>,
    /// With what.
    pub(super) login: BackendLogin,
    /// The name that steers the choice of an endpoint.
    pub(super) user: Vec<u8>,
}

/// A backend that has accepted the login.
#[derive(Debug)]
pub(super) struct Accepting {
    /// The connection; what its input holds comes after `reply`.
    pub(super) backend: Leg,
    /// The client's final reply.
    pub(super) reply: Vec<u8>,
    /// Counts the session on its endpoint.
    pub(super) placement: Placement,
}

/// What the backend said to a login.
pub(super) enum Answer {
    /// Yes.
    Accepted(Accepting),
    /// No; its reply, verbatim.
    Refused(PendingLogin, Vec<u8>),
    /// It could not be asked, or did not answer as it must.
    Failed(PendingLogin, End),
}

/// A connection to one endpoint.
struct Connected {
    leg: Leg,
    address: BackendAddress,
    placement: Placement,
}

impl Session {
    /// Connects to the backend and logs in. An error is the client's end; the backend's are in the answer.
    pub(super) async fn log_in_to(
        &mut self,
        authorised: Authorised,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<Answer, End> {
        let deadline = Instant::now() + self.served.listener.timeouts.connect;
        let started = StdInstant::now();
        let route = self.route();
        let connected = self.while_present(route.connect(&authorised, deadline)).await?;
        self.served.metrics.connect_seconds.observe(started.elapsed().as_secs_f64());
        let connected = match connected {
            Ok(connected) => connected,
            Err(end) => return Ok(Answer::Failed(pending, end)),
        };
        record.backend = Some(connected.address.clone());
        let plan = self.plan(authorised, &pending);
        let dialogue = Dialogue {
            route: &route,
            leg: connected.leg,
            address: &connected.address,
            deadline,
            out: Vec::new(),
        };
        self.converse(dialogue, Backend::new(plan), pending, connected.placement).await
    }

    fn plan(&self, authorised: Authorised, pending: &PendingLogin) -> BackendPlan {
        let listener = &self.served.listener;
        let upstream = &listener.upstream;
        let info = || ClientInfo {
            address: match self.ends.client {
                ClientAddress::Ip(address) => Some(address),
                ClientAddress::Unix => None,
            },
            destination: self.destination(),
            host: self.host.clone().into_string(),
        };
        BackendPlan {
            protocol: self.protocol(),
            start_tls: matches!(upstream.tls, UpstreamTls::StartTls(_)),
            server_name: listener.frontend.server_name.clone(),
            tag: pending.tag().to_vec(),
            login: authorised.login,
            envelope: pending.envelope().clone(),
            xclient: upstream
                .xclient
                .filter(|_| self.protocol() == Protocol::Smtp)
                .map(|negotiation| (info(), negotiation)),
            imap_id: (upstream.imap_id && self.protocol() == Protocol::Imap)
                .then(|| (info(), pending.client_id().clone())),
            verbatim: listener.auth.is_passthrough(),
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.ends.destination.or_else(|| self.leg.stream.socket().local_address())
    }

    /// What connecting needs, without the client's leg.
    fn route(&self) -> Route {
        let header = self.served.listener.upstream.proxy_protocol.map(|version| {
            let mut header = Vec::new();
            let ends = match (self.ends.client, self.destination()) {
                (ClientAddress::Ip(source), Some(destination)) => Some((source, destination)),
                _ => None,
            };
            let facts = self.secured.as_ref().map(|secured| &secured.facts);
            proxy_header::encode(version, ends, facts, &mut header);
            header
        });
        Route {
            served: self.served.clone(),
            context: Arc::clone(&self.context),
            header: header.unwrap_or_default(),
        }
    }

    /// Lets the backend's machine talk until the login is decided.
    async fn converse(
        &mut self,
        mut dialogue: Dialogue<'_>,
        backend: Backend,
        pending: PendingLogin,
        placement: Placement,
    ) -> Result<Answer, End> {
        let mut backend = backend;
        let mut pending = pending;
        loop {
            match backend.receive(&mut dialogue.leg.input, &mut dialogue.out) {
                BackendStep::Read(same) => {
                    backend = same;
                    if let Err(end) = self.while_present(dialogue.exchange()).await? {
                        return Ok(Answer::Failed(pending, end));
                    }
                }
                BackendStep::StartTls(agreed) => match self.while_present(dialogue.upgrade(agreed)).await? {
                    Ok((next, secured)) => (backend, dialogue) = (secured, next),
                    Err(end) => return Ok(Answer::Failed(pending, end)),
                },
                BackendStep::Challenge(challenge, exchange) => {
                    let (answer, waiting) = self.challenge(&challenge, pending).await?;
                    pending = waiting;
                    dialogue.extend_deadline();
                    backend = exchange.answer(&answer, &mut dialogue.out);
                }
                BackendStep::Ready { reply } => {
                    return Ok(Answer::Accepted(Accepting { backend: dialogue.leg, reply, placement }));
                }
                BackendStep::Refused { reply } => return Ok(Answer::Refused(pending, reply)),
                BackendStep::Failed(error) => return Ok(Answer::Failed(pending, error.into())),
            }
        }
    }

    /// Relays a challenge to the client and takes its answer.
    pub(super) async fn challenge(
        &mut self,
        base64: &[u8],
        pending: PendingLogin,
    ) -> Result<(Secret, PendingLogin), End> {
        let mut out = Vec::new();
        let mut exchange: Exchange = pending.challenge(base64, &mut out);
        self.start_deadline();
        loop {
            self.send(&mut out).await?;
            match exchange.receive(&mut self.leg.input, &mut out) {
                ExchangeStep::Read(same) => {
                    exchange = same;
                    self.read().await?;
                }
                ExchangeStep::Answer(answer, pending) => return Ok((answer, pending)),
                ExchangeStep::Close(reason) => {
                    self.send(&mut out).await?;
                    return Err(End::Rule(reason));
                }
            }
        }
    }
}

/// The way to the backend: everything but the client.
struct Route {
    served: super::super::serving::Served,
    context: Arc<super::super::worker::WorkerContext>,
    header: Vec<u8>,
}

impl Route {
    /// Tries the endpoints in the order of the load balancing until one connects.
    async fn connect(&self, authorised: &Authorised, deadline: Instant) -> Result<Connected, End> {
        let listener = &self.served.listener;
        let balancer = &self.context.balancer;
        let order = balancer.order(&authorised.backend, listener.upstream.load_balancing, &authorised.user);
        if order.is_empty() {
            return Err(End::NoEndpoints(authorised.backend.reference.clone()));
        }
        let mut failures = Vec::new();
        for (index, address) in order.iter().enumerate() {
            // Every endpoint that is left gets its share of what is left of the time.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(order.len().saturating_sub(index)).unwrap_or(u32::MAX).max(1);
            let until = Instant::now() + share.max(MIN_SHARE).min(left);
            match self.connect_to(address, until).await {
                Ok(leg) => {
                    let placement = balancer.place(address);
                    return Ok(Connected { leg, address: address.clone(), placement });
                }
                Err(End::Descriptors) => return Err(End::Descriptors),
                Err(reason) => failures.push(format!("{address}: {reason}")),
            }
        }
        Err(End::Connect(format!("cannot connect to the backend: {}", failures.join("; "))))
    }

    async fn connect_to(&self, address: &BackendAddress, until: Instant) -> Result<Leg, End> {
        let connecting = async {
            let resolver = &self.served.listener.resolver;
            let targets = self.context.dns.resolve(resolver, address).await;
            let mut last = End::Connect("the name has no address".to_owned());
            for target in targets.map_err(|error| End::Connect(error.to_string()))? {
                match connect_target(&target).await {
                    Ok(socket) => return self.open(socket, address).await,
                    Err(error) if has_no_descriptor(&error) => return Err(End::Descriptors),
                    Err(error) => last = End::Connect(error.to_string()),
                }
            }
            Err(last)
        };
        let late = |_| End::Connect("no connection within timeouts.connect".to_owned());
        timeout_at(until, connecting).await.map_err(late)?
    }

    /// PROXY header, then TLS if it is implicit.
    async fn open(&self, socket: Socket, address: &BackendAddress) -> Result<Leg, End> {
        let mut leg = Leg::new(Stream::Plain(socket), BACKEND_BUFFER);
        let mut header = self.header.clone();
        leg.send(&mut header).await.map_err(|_| End::BackendGone)?;
        if matches!(self.served.listener.upstream.tls, UpstreamTls::Implicit(_)) {
            leg = self.secure(leg, address).await?;
        }
        Ok(leg)
    }

    /// The handshake with the backend; bytes that it sent in clear before are refused.
    async fn secure(&self, leg: Leg, address: &BackendAddress) -> Result<Leg, End> {
        let (Some(connector), Stream::Plain(socket)) = (&self.served.connector, leg.stream) else {
            return Err(End::BackendGone);
        };
        let proof = leg.input.into_empty().map_err(|_: Input| End::BackendInjection)?;
        let name = server_name(address);
        let connector: &TlsConnector = connector;
        let stream =
            connector.connect(socket, &name, proof).await.map_err(|error| End::Connect(error.to_string()))?;
        Ok(Leg::new(Stream::Client(Box::new(stream)), BACKEND_BUFFER))
    }
}

/// A connection on which the backend's machine is talking.
struct Dialogue<'a> {
    route: &'a Route,
    leg: Leg,
    address: &'a BackendAddress,
    deadline: Instant,
    out: Vec<u8>,
}

impl Dialogue<'_> {
    /// Sends what the machine has to say and reads the backend's answer, within the deadline.
    async fn exchange(&mut self) -> Result<(), End> {
        let Self { leg, out, deadline, .. } = self;
        let exchange = async {
            leg.send(out).await.map_err(|_| End::BackendGone)?;
            match leg.fill().await {
                Ok(0) if leg.input.is_full() => {
                    Err(End::Backend(BackendError::TooLong { step: "a command" }))
                }
                Ok(0) | Err(_) => Err(End::BackendGone),
                Ok(_) => Ok(()),
            }
        };
        within(*deadline, exchange).await
    }

    /// The handshake after the backend's STARTTLS reply.
    async fn upgrade(mut self, agreed: BackendStartTls) -> Result<(Self, Backend), End> {
        self.leg = within(self.deadline, self.route.secure(self.leg, self.address)).await?;
        let backend = agreed.secured(&mut self.out);
        Ok((self, backend))
    }

    /// The time that the client took to answer a challenge is not the backend's.
    fn extend_deadline(&mut self) {
        self.deadline = Instant::now() + self.route.served.listener.timeouts.connect;
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    timeout_at(deadline, work).await.map_err(|_| End::BackendTimeout)?
}

/// Our own limit, not the backend's fault.
fn has_no_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

async fn connect_target(target: &Target) -> io::Result<Socket> {
    let socket = match target {
        Target::Tcp(address) => Socket::Tcp(TcpStream::connect(address).await?),
        Target::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    };
    socket.set_nodelay();
    Ok(socket)
}

/// The name that a certificate of this backend has to carry, where none is configured.
fn server_name(address: &BackendAddress) -> ServerNameSource {
    match address {
        BackendAddress::Ip(address) => ServerNameSource::Ip(address.ip()),
        BackendAddress::Name { host, .. } => ServerNameSource::Host(host.clone()),
        BackendAddress::Unix(_) => ServerNameSource::Host("localhost".to_owned()),
    }
}

/// A backend's reply during the login, in bytes.
const BACKEND_BUFFER: usize = 16 * 1024;

/// No endpoint gets less time to connect, unless all of it is used up.
const MIN_SHARE: Duration = Duration::from_secs(1);
