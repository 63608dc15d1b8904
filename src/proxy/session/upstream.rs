//! The third part of a session: selects an endpoint, connects, and runs the backend's state machine for the login.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use tokio::time::Instant;

use crate::model::exclusive::ExclusiveBackend;
use crate::model::{self, LoadBalancing, Reach, SessionId};
use crate::net::{BackendAddress, ClientAddress};
use crate::protocol::backend::{BackendLogin, ClientInfo, Refusal, RefusalCause};
use crate::protocol::proxy_header::{self, Details};
use crate::protocol::{
    Backend, BackendPlan, BackendStep, Exchange, ExchangeStep, Frontend, LoginRequest, PendingLogin, Protocol,
};
use crate::secret::Secret;

use super::client::Session;
use super::dialogue::{CONNECT_FIELD, Dialogue};
use super::mail::{MailDestination, PlacedMail};
use crate::proxy::balance::{Balancer, EndpointUse};
use crate::proxy::connection::Connection;
use crate::proxy::connector::{self, BackendTls, Connector, Limit, Reached};
use crate::proxy::end::End;
use crate::proxy::metrics::Timing;
use crate::proxy::metrics::endpoints::{self, EndpointMetrics};
use crate::proxy::record::Record;
use crate::proxy::upstreams::{ServedRoutes, ServedUpstream};

/// A login that may be sent to the backend.
#[derive(Debug)]
pub(super) struct Authorised {
    pub(super) place: Place,
    /// The login, as the backend gets it.
    pub(super) login: BackendLogin,
    /// Whether the backend decides about the client's own password or token, not about one from the auth service.
    pub(super) has_clients_password: bool,
    /// The user name for load balancing.
    pub(super) user: Vec<u8>,
}

/// Where a login goes.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) backend: Arc<model::Backend>,
    pub(super) upstream: Arc<ServedUpstream>,
    /// What may be connected to.
    pub(super) reach: Reach,
    /// Whether the auth service has named the backend.
    pub(super) is_named_by_service: bool,
    /// The routes by which the login was placed. They are in use until the session is listed.
    pub(super) routes: Arc<ServedRoutes>,
    /// Set if the user has one endpoint.
    pub(super) affine: Option<Box<Affine>>,
}

/// A user with one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    /// The user, in the form in which all protocols and replicas know it.
    pub(super) user: Vec<u8>,
    /// Set if the user never has sessions on two endpoints.
    pub(super) exclusive: Option<Arc<ExclusiveBackend>>,
}

impl Place {
    /// Returns the metrics of one of its endpoints. Those that the auth service has named share theirs.
    fn endpoint(&self, address: &BackendAddress) -> Arc<EndpointMetrics> {
        self.upstream.endpoints.of(Some(address).filter(|_| !self.is_named_by_service))
    }

    /// Returns the backend and how to connect to it.
    pub(super) fn destination(&self) -> MailDestination {
        let (backend, upstream) = (Arc::clone(&self.backend), Arc::clone(&self.upstream.settings));
        let user = self.affine.as_ref().map(|affine| affine.user.clone());
        MailDestination { backend, upstream, reach: self.reach.clone(), user }
    }
}

/// A backend that has accepted the login.
#[derive(Debug)]
pub(super) struct Accepting {
    /// The connection. Its input follows after `reply`.
    pub(super) backend: Connection,
    /// The final reply for the client.
    pub(super) reply: Vec<u8>,
    /// SMTP: the backend supports BDAT and reads its content.
    pub(super) takes_chunks: bool,
    /// Mail without a login: why the first recipient was refused.
    pub(super) refused: Option<RefusalCause>,
    /// Counts the session on its endpoint.
    pub(super) placement: EndpointUse,
    /// [`Place::routes`].
    pub(super) routes: Arc<ServedRoutes>,
    /// Set for mail without a login that routes have placed.
    pub(super) mail: Option<Box<PlacedMail>>,
}

/// The backend's decision about a login.
pub(super) enum LoginReply {
    /// The backend accepted the login.
    Accepted(Accepting),
    /// The backend refused the login.
    Refused(PendingLogin, Refusal),
    /// The backend could not be reached, or gave no usable reply.
    Failed(PendingLogin, End),
}

/// The result of one login.
pub(super) enum Decision {
    /// The login was refused; the client may continue.
    Refused(Frontend),
    /// The backend accepted the login.
    Accepted(Accepting),
}

/// The result of [`Session::send_again`].
pub(super) enum Again {
    Accepted(Accepting),
    /// The mail needs a new connection.
    Anew(PendingLogin),
}

/// A connection to one endpoint.
struct Connected {
    reached: Reached,
    address: BackendAddress,
    placement: EndpointUse,
}

impl Session {
    /// Connects to the backend and logs in. An `Err` is a failure of the client; failures of the backend are in the
    /// answer.
    pub(super) async fn log_in_to(
        &mut self,
        authorised: Authorised,
        pending: PendingLogin,
        record: &mut Record,
    ) -> Result<LoginReply, End> {
        let connector = self.connector(&authorised.place, record.id);
        let order = self.order(&authorised);
        let mut pending = pending;
        if self.kept.is_some() {
            match Box::pin(self.send_again(&authorised, &order, pending, record)).await? {
                Again::Accepted(accepted) => return Ok(LoginReply::Accepted(accepted)),
                Again::Anew(same) => pending = same,
            }
        }
        let deadline = Instant::now() + self.served.listener.timeouts.connect;
        let started = StdInstant::now();
        let balancer = Arc::clone(&self.context.balancer);
        let connecting = Box::pin(connect_in_turn(&connector, &balancer, &order, &authorised, deadline));
        let mut connected = self.while_deciding(connecting).await?;
        if matches!(connected, Err(End::Descriptors)) {
            self.context.auth.close_kept();
            let again = Box::pin(connect_in_turn(&connector, &balancer, &order, &authorised, deadline));
            connected = self.while_deciding(again).await?;
        }
        self.served.metrics.took(Timing::Connect, started.elapsed());
        let connected = match connected {
            Ok(connected) => connected,
            Err(end) => return Ok(LoginReply::Failed(pending, end)),
        };
        record.set_backend(&connected.address, &authorised.place.backend);
        let Reached { connection, takes_introductions } = connected.reached;
        let has_clients_password = authorised.has_clients_password;
        let endpoint = authorised.place.endpoint(&connected.address);
        let routes = Arc::clone(&authorised.place.routes);
        let mail = is_routed_mail(&authorised).then(|| authorised.place.destination());
        let plan = self.plan(authorised, &pending, takes_introductions);
        let patience = self.served.listener.timeouts.connect;
        let dialogue = Dialogue::new(
            &connector,
            &connected.address,
            connection,
            (self.deadline.lend(deadline), patience),
            takes_introductions,
            has_clients_password,
        );
        let reply =
            self.converse(dialogue, Backend::new(plan), pending, (connected.placement, routes, mail)).await?;
        endpoint.count(match &reply {
            LoginReply::Accepted(_) | LoginReply::Refused(..) => endpoints::Connection::Answered,
            LoginReply::Failed(..) => endpoints::Connection::Failed,
        });
        Ok(reply)
    }

    fn plan(&self, authorised: Authorised, pending: &PendingLogin, takes_introductions: bool) -> BackendPlan {
        let listener = &self.served.listener;
        let ServedUpstream { settings: upstream, tls, .. } = &*authorised.place.upstream;
        let protocol = self.protocol();
        let introduces = |by: Protocol| takes_introductions && protocol == by;
        let info = || ClientInfo {
            address: match self.ends.client {
                ClientAddress::Ip(address) => Some(address),
                ClientAddress::Unix => None,
            },
            destination: self.destination(),
            host: self.host.to_string(),
        };
        BackendPlan {
            protocol,
            start_tls: matches!(tls, BackendTls::StartTls(_)),
            server_name: listener.frontend.server_name.clone(),
            client_hello: upstream.client_hello,
            tag: pending.tag().to_vec(),
            login: authorised.login,
            envelope: pending.envelope().clone(),
            xclient: upstream
                .xclient
                .filter(|_| introduces(Protocol::Smtp))
                .map(|negotiation| (info(), negotiation)),
            imap_id: (upstream.imap_id && introduces(Protocol::Imap))
                .then(|| (info(), pending.client_id().clone())),
            verbatim: listener.auth.is_passthrough(),
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.ends.destination.or_else(|| self.connection.local_address())
    }

    /// Returns the endpoints in the order of the load balancing, without failing ones unless all fail.
    pub(super) fn order(&self, authorised: &Authorised) -> Vec<BackendAddress> {
        let Place { backend, upstream, affine, .. } = &authorised.place;
        let policy = upstream.settings.load_balancing;
        let balancer = &self.context.balancer;
        let mut order = match affine.as_deref() {
            // Only the user's endpoint is left in the backend.
            Some(Affine { exclusive: Some(_), .. }) => return backend.endpoints.clone(),
            Some(Affine { user, exclusive: None }) => balancer.order(backend, LoadBalancing::UserHash, user),
            None => balancer.order(backend, policy, &authorised.user),
        };
        if let Some(health) = &upstream.health {
            health.keep_healthy(&mut order);
        }
        order
    }

    /// Collects what is needed to connect.
    pub(super) fn connector(&self, place: &Place, id: SessionId) -> Connector {
        let header = place.upstream.settings.proxy_protocol.map(|version| {
            let mut header = Vec::new();
            let ends = match (self.ends.client, self.destination()) {
                (ClientAddress::Ip(source), Some(destination)) => Some((source, destination)),
                _ => None,
            };
            let facts = self.secured.as_ref().map(|secured| &secured.facts);
            let id = id.to_string();
            let details = Details { tls: facts, unique_id: Some(&id) };
            proxy_header::encode(version, ends, details, &mut header);
            header
        });
        let resolver = &self.served.listener.resolver;
        let (reach, tls) = (place.reach.clone(), place.upstream.tls.clone());
        Connector::new(&self.context.dns, resolver, reach, tls, header.unwrap_or_default())
    }

    /// Runs the backend's state machine until the login is decided.
    async fn converse(
        &mut self,
        mut dialogue: Dialogue<'_>,
        backend: Backend,
        pending: PendingLogin,
        (placement, routes, mail): (EndpointUse, Arc<ServedRoutes>, Option<MailDestination>),
    ) -> Result<LoginReply, End> {
        let mut backend = backend;
        let mut pending = pending;
        loop {
            match backend.receive(&mut dialogue.connection.input, &mut dialogue.out) {
                BackendStep::Read(same) => match self.exchange(&mut dialogue).await? {
                    Ok(()) => backend = same,
                    Err(end) => {
                        return Ok(match same.unanswered() {
                            Some(Ok(refusal)) => LoginReply::Refused(pending, refusal),
                            Some(Err(error)) => LoginReply::Failed(pending, dialogue.explain(error.into())),
                            None => LoginReply::Failed(pending, end),
                        });
                    }
                },
                BackendStep::StartTls(agreed) => {
                    match self.while_deciding(Box::pin(dialogue.upgrade(agreed))).await? {
                        Ok((next, secured)) => (backend, dialogue) = (secured, next),
                        Err(end) => return Ok(LoginReply::Failed(pending, end)),
                    }
                }
                BackendStep::Challenge(challenge, exchange) => {
                    self.end_if_banned().await?;
                    // Counted before the client gets it, because the client may leave then.
                    if self.refuses_token(&challenge) {
                        let _ = self.count_refusal(RefusalCause::Credentials);
                    }
                    let (answer, waiting) = Box::pin(self.challenge(&challenge, pending)).await?;
                    pending = waiting;
                    dialogue.extend_deadline();
                    backend = exchange.answer(&answer, &mut dialogue.connection.input, &mut dialogue.out);
                }
                BackendStep::Ready { reply, takes_chunks, refused } => {
                    let (backend, endpoint) = (dialogue.connection, dialogue.address.clone());
                    self.deadline.take_back(dialogue.deadline);
                    let mail = mail.and_then(|to| PlacedMail::new(to, endpoint, pending));
                    let accepted =
                        Accepting { backend, reply, takes_chunks, refused, placement, routes, mail };
                    return Ok(LoginReply::Accepted(accepted));
                }
                BackendStep::Refused(refusal) => {
                    return Ok(
                        match self.while_deciding(Box::pin(dialogue.judge(self.protocol(), &refusal))).await?
                        {
                            Ok(()) => LoginReply::Refused(pending, refusal),
                            Err(end) => LoginReply::Failed(pending, end),
                        },
                    );
                }
                BackendStep::Failed(error) => {
                    return Ok(LoginReply::Failed(pending, dialogue.explain(error.into())));
                }
            }
        }
    }

    /// Exchanges bytes with the backend. A client that leaves because the backend is silent is not at fault.
    async fn exchange(&mut self, dialogue: &mut Dialogue<'_>) -> Result<Result<(), End>, End> {
        let exchanged = self.while_deciding(dialogue.exchange()).await;
        exchanged.map_err(|end| match end {
            End::ClientGone => dialogue.long_silence().unwrap_or(end),
            end => end,
        })
    }

    /// Relays a challenge to the client and returns the client's response.
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
            match exchange.receive(&mut self.connection.input, &mut out) {
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

/// Tells whether routes, and not the auth service, have placed mail without a login.
pub(super) fn is_routed_mail(authorised: &Authorised) -> bool {
    let Place { is_named_by_service, routes, .. } = &authorised.place;
    let is_mail = matches!(authorised.login, BackendLogin::Request(LoginRequest::Anonymous));
    is_mail && !is_named_by_service && routes.routes.is_some()
}

/// Tries the endpoints of the backend in this order until one connects.
async fn connect_in_turn(
    connector: &Connector,
    balancer: &Balancer,
    order: &[BackendAddress],
    authorised: &Authorised,
    deadline: Instant,
) -> Result<Connected, End> {
    if order.is_empty() {
        return Err(End::NoEndpoints(authorised.place.backend.reference.clone()));
    }
    let (mut failures, mut misconfigured) = (Vec::new(), None);
    for (index, address) in order.iter().enumerate() {
        let until = connector::share(deadline, order.len().saturating_sub(index));
        match connector.connect_to(address, Limit { until, field: CONNECT_FIELD }).await {
            Ok(reached) => {
                let placement = balancer.place(address);
                return Ok(Connected { reached, address: address.clone(), placement });
            }
            Err(End::Descriptors) => return Err(End::Descriptors),
            Err(End::UnknownName(reason)) if authorised.place.is_named_by_service => {
                return Err(End::UnknownServer(reason));
            }
            Err(end @ (End::NotAllowed(_) | End::UnknownName(_))) => misconfigured = Some(end),
            Err(reason) => {
                authorised.place.endpoint(address).count(endpoints::Connection::Unreachable);
                failures.push(format!("{address}: {reason}"));
            }
        }
    }
    match misconfigured.filter(|_| failures.is_empty()) {
        Some(end) => Err(end),
        None => Err(End::Connect(format!("cannot connect to the backend: {}", failures.join("; ")))),
    }
}
