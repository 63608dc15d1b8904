//! The first part of a session: PROXY header, limits, implicit TLS, greeting.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::dns::TEMPORARILY_UNAVAILABLE;
use crate::model::TlsMode;
use crate::net::{ClientAddress, Socket, Stream};
use crate::protocol::{Frontend, Input, Protocol, notices};
use crate::tls::Accepted;

use super::super::end::End;
use super::super::leg::Leg;
use super::super::metrics::TlsLabel;
use super::super::record::Record;
use super::super::serving::{Served, Serving};
use super::super::worker::WorkerContext;
use super::client::{Ends, Secured, Session, admit, turn_away};
use super::proxied::read_proxy_header;

/// Gives the descriptor to this worker's event queue.
pub(super) fn socket(connection: OwnedFd, is_unix: bool) -> io::Result<Socket> {
    if is_unix {
        Ok(Socket::Unix(UnixStream::from_std(StdUnixStream::from(connection))?))
    } else {
        Ok(Socket::Tcp(TcpStream::from_std(std::net::TcpStream::from(connection))?))
    }
}

/// Brings a connection to its greeting. `first` is who speaks before a server name is known.
pub(super) async fn open(
    socket: Socket,
    peer: ClientAddress,
    first: Arc<Served>,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    record: &mut Record,
) -> Result<(Session, Frontend), End> {
    let deadline = Instant::now() + first.listener.timeouts.client;
    record.served = Some(Arc::clone(&first));
    let ends = match &serving.socket.proxy_protocol {
        None => Ends { client: peer, is_proxied: false, proxied: None, destination: None },
        Some(rules) => read_proxy_header(&socket, peer, rules, deadline).await?,
    };
    record.set_client(ends.client);
    let is_implicit = serving.socket.tls_mode == TlsMode::Implicit;
    let arrival = Arrival { socket, ends, first, serving, context, deadline };
    if is_implicit { arrival.under_tls(record).await } else { arrival.in_clear().await }
}

/// A connection whose ends are known.
struct Arrival {
    socket: Socket,
    ends: Ends,
    first: Arc<Served>,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    deadline: Instant,
}

impl Arrival {
    async fn in_clear(self) -> Result<(Session, Frontend), End> {
        let Self { socket, ends, first: served, serving, context, .. } = self;
        let leg = Leg::new(Stream::Plain(socket), served.listener.limits.client_buffer);
        let config = Arc::clone(&served.listener.frontend);
        let counted = match admit(serving.counters(&served), &served, ends.client, TlsLabel::Off) {
            Ok(counted) => counted,
            Err(end) => return Err(turn_away(leg, config.protocol, end).await),
        };
        let session = Session::new(leg, served, serving, context, ends, counted);
        session.greeted(Frontend::new(config, false)).await
    }

    async fn under_tls(self, record: &mut Record) -> Result<(Session, Frontend), End> {
        let Self { socket, ends, first, serving, context, deadline } = self;
        record.tls = TlsLabel::Implicit;
        let admit = |served: &Served| admit(&served.counters, served, ends.client, TlsLabel::Implicit);
        // With one listener, a client over its limits does not even get the handshake, which costs most.
        let early = serving.is_alone().then(|| admit(&first)).transpose()?;
        let Some(acceptor) = &serving.acceptor else { return Err(End::ClientGone) };
        let Ok(proof) = Input::new(0).into_empty() else { return Err(End::ClientGone) };
        let accepted = timeout_at(deadline, acceptor.accept(socket, proof)).await;
        let Accepted { stream, listener, facts, client, refusal } =
            accepted.map_err(|_| End::ClientTimeout)??;
        let Some(served) = serving.at(listener).cloned() else { return Err(End::ClientGone) };
        record.served = Some(Arc::clone(&served));
        record.tls_version = facts.version.as_str().into();
        let leg = Leg::new(Stream::Server(Box::new(stream)), served.listener.limits.client_buffer);
        let counted = match early.map_or_else(|| admit(&served), Ok) {
            Ok(counted) => counted,
            Err(end) => return Err(turn_away(leg, served.listener.frontend.protocol, end).await),
        };
        let config = Arc::clone(&served.listener.frontend);
        let mut session = Session::new(leg, served, serving, context, ends, counted);
        session.secured = Some(Secured { facts, certificate: client, refusal });
        session.with_certificate_checked().await?.greeted(Frontend::new(config, true)).await
    }
}

/// Randomness for challenges, fresh for every session.
fn nonce() -> String {
    let bits: u128 = rand::random();
    format!("{bits:032x}")
}

impl Session {
    /// Withholds the greeting as long as configured (SMTP), then sends it.
    async fn greeted(mut self, frontend: Frontend) -> Result<(Self, Frontend), End> {
        let mut frontend = frontend.with_nonce(&nonce());
        match self.greet(&mut frontend).await {
            Ok(()) => Ok((self, frontend)),
            Err(end) => Err(self.farewell(end).await),
        }
    }

    /// The client's name by PTR, confirmed forward (NGINX section 3.4). Nothing is read meanwhile; the
    /// resolver's own timeout bounds it.
    async fn look_up_client(&mut self) {
        let listener = &self.served.listener;
        if self.protocol() != Protocol::Smtp || !listener.resolver.looks_up_clients {
            return;
        }
        let host = match self.ends.client.ip() {
            Some(ip) => self.context.dns.client_host(&listener.resolver, ip).await,
            None => TEMPORARILY_UNAVAILABLE.to_owned(),
        };
        self.host = host.into_boxed_str();
    }

    async fn greet(&mut self, frontend: &mut Frontend) -> Result<(), End> {
        self.look_up_client().await;
        let delay = self.served.listener.greeting_delay;
        if !delay.is_zero() && self.protocol() == Protocol::Smtp {
            self.wait_for_early_talkers(delay).await?;
        }
        self.start_deadline();
        let mut out = Vec::new();
        frontend.greet(&mut out);
        self.send(&mut out).await
    }

    async fn wait_for_early_talkers(&mut self, delay: Duration) -> Result<(), End> {
        match timeout_at(Instant::now() + delay, self.leg.fill()).await {
            Err(_) => Ok(()),
            Ok(Ok(0) | Err(_)) => Err(End::ClientGone),
            Ok(Ok(_)) => {
                let mut out = notices::EARLY_TALKER.to_vec();
                // An early talker is told if it listens.
                let _ = self.send(&mut out).await;
                Err(End::EarlyTalker)
            }
        }
    }
}
