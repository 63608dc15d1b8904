//! The first part of a session: PROXY header, limits, implicit TLS, greeting.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::dns::TEMPORARILY_UNAVAILABLE;
use crate::net::{ClientAddress, Socket, Stream};
use crate::protocol::{Frontend, Protocol, begins_tls, notices};
use crate::tls::{Accepted, TlsAcceptor};

use super::client::{Counted, Secured, Session, refuse_for_limit};
use super::proxied::{Ends, read_proxy_header, refuse_header_before_tls};
use crate::proxy::connection::Connection;
use crate::proxy::context::WorkerContext;
use crate::proxy::end::End;
use crate::proxy::limits::LimitReached;
use crate::proxy::metrics::TlsLabel;
use crate::proxy::record::Record;
use crate::proxy::serving::{ServedListener, Serving, SocketTls};

/// Registers the descriptor with this worker's event queue.
pub(super) fn socket(connection: OwnedFd, is_unix: bool) -> io::Result<Socket> {
    if is_unix {
        Ok(Socket::Unix(UnixStream::from_std(StdUnixStream::from(connection))?))
    } else {
        Ok(Socket::Tcp(TcpStream::from_std(std::net::TcpStream::from(connection))?))
    }
}

/// Takes a connection up to its greeting. What most sessions do not need is boxed, so that a client that has not logged
/// in costs little memory. `first` is the listener that is used before a server name is known. The
/// connection is counted before anything is read from it.
pub(super) async fn open(
    socket: Socket,
    peer: ClientAddress,
    first: Arc<ServedListener>,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    record: &mut Record,
) -> Result<(Box<Session>, Frontend), End> {
    let deadline = Instant::now() + first.listener.timeouts.client;
    let is_implicit = matches!(serving.tls, SocketTls::Implicit(_));
    record.served = Some(Arc::clone(&first));
    record.tls = if is_implicit { TlsLabel::Implicit } else { TlsLabel::Off };
    let mut counted = match Counted::at_accept(&serving, &first, record.tls) {
        Ok(counted) => counted,
        Err(refusal) => {
            return Err(Box::pin(refuse(socket, &first, is_implicit, refusal, &context.lingering)).await);
        }
    };
    let mut ends = match &serving.socket.proxy_protocol {
        None => Ends::direct(peer),
        Some(rules) => Box::pin(read_proxy_header(&socket, peer, rules, &serving, deadline)).await?,
    };
    record.set_client(ends.client);
    if is_implicit && std::mem::take(&mut ends.takes_no_header) {
        Box::pin(refuse_header_before_tls(&socket, peer, deadline)).await?;
    }
    if let Err(refusal) = counted.for_client(&serving, ends.counted) {
        // Closing takes time, and the refused client must not count meanwhile.
        drop(counted);
        return Err(Box::pin(refuse(socket, &first, is_implicit, refusal, &context.lingering)).await);
    }
    let connection = Connection::new(Stream::Plain(socket), first.listener.limits.client_buffer);
    let arrival =
        Arrival { connection, ends, first, serving: Arc::clone(&serving), context, deadline, counted };
    match &serving.tls {
        SocketTls::Implicit(acceptor) => Box::pin(arrival.under_tls(acceptor, record)).await,
        SocketTls::StartTls(_) | SocketTls::Disabled => arrival.in_clear().await,
    }
}

/// Tells a client that it exceeds a limit. With implicit TLS it just closes, because the handshake would be the largest
/// cost.
async fn refuse(
    socket: Socket,
    first: &ServedListener,
    is_implicit: bool,
    refusal: LimitReached,
    lingering: &Semaphore,
) -> End {
    if is_implicit {
        return refusal.into();
    }
    let connection = Connection::new(Stream::Plain(socket), first.listener.limits.client_buffer);
    refuse_for_limit(connection, first.listener.frontend.protocol, refusal.into(), lingering).await
}

/// A connection whose addresses are known.
struct Arrival {
    connection: Connection,
    ends: Ends,
    first: Arc<ServedListener>,
    serving: Arc<Serving>,
    context: Arc<WorkerContext>,
    deadline: Instant,
    counted: Counted,
}

impl Arrival {
    async fn in_clear(self) -> Result<(Box<Session>, Frontend), End> {
        let Self { connection, ends, first: served, serving, context, counted, .. } = self;
        let config = Arc::clone(&served.listener.frontend);
        let session = Session::new(connection, served, serving, context, ends, counted);
        session.greeted(Frontend::new(config, false)).await
    }

    async fn under_tls(
        self,
        acceptor: &TlsAcceptor,
        record: &mut Record,
    ) -> Result<(Box<Session>, Frontend), End> {
        let Self { connection, ends, serving, context, deadline, counted, .. } = self;
        let accepted = timeout_at(deadline, acceptor.accept(connection.into_handshake()?)).await;
        let Accepted { stream, listener, facts, client, refusal, .. } =
            accepted.map_err(|_| End::ClientTimeout)??;
        let served = Arc::clone(serving.at(listener)?);
        record.served = Some(Arc::clone(&served));
        record.tls_version = facts.version.as_str().into();
        let connection =
            Connection::new(Stream::Server(Box::new(stream)), served.listener.limits.client_buffer);
        // With several listeners, the limits of the one that SNI selected apply.
        let decided = if serving.is_alone() {
            Ok(counted)
        } else {
            drop(counted);
            Counted::at(&served, ends.counted, TlsLabel::Implicit)
        };
        let counted = match decided {
            Ok(counted) => counted,
            Err(refusal) => {
                let protocol = served.listener.frontend.protocol;
                return Err(refuse_for_limit(connection, protocol, refusal.into(), &context.lingering).await);
            }
        };
        let config = Arc::clone(&served.listener.frontend);
        let mut session = Session::new(connection, served, serving, context, ends, counted);
        session.secured = Some(Arc::new(Secured { facts, certificate: client, refusal }));
        session.with_certificate_checked().await?.greeted(Frontend::new(config, true)).await
    }
}

/// Returns a random value for challenges; each session has a new one.
fn nonce() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes: [u8; 16] = rand::random();
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

impl Session {
    /// Waits for the configured delay (SMTP), then sends the greeting.
    async fn greeted(mut self: Box<Self>, frontend: Frontend) -> Result<(Box<Self>, Frontend), End> {
        let frontend = if frontend.sends_challenges() { frontend.with_nonce(nonce()) } else { frontend };
        let mut frontend = frontend.with_client(self.ends.client.ip());
        match self.greet(&mut frontend).await {
            Ok(()) => Ok((self, frontend)),
            Err(end) => Err(Box::pin(self.end_with_message(end)).await),
        }
    }

    /// Finds the client's host name with a PTR query, confirmed by a forward query (NGINX section 3.4). It ends after
    /// the resolver's timeout, or when the client leaves.
    async fn look_up_client(&mut self) -> Result<(), End> {
        let listener = Arc::clone(&self.served.listener);
        if self.protocol() != Protocol::Smtp || !listener.resolver.looks_up_clients {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        let host = match self.ends.client.ip() {
            Some(ip) => {
                let lookup = Box::pin(context.dns.client_host(&listener.resolver, ip));
                self.while_present(lookup).await?
            }
            None => TEMPORARILY_UNAVAILABLE.to_owned(),
        };
        self.host = host.into();
        Ok(())
    }

    async fn greet(&mut self, frontend: &mut Frontend) -> Result<(), End> {
        self.look_up_client().await?;
        self.refuse_header(0)?;
        let delay = self.served.listener.greeting_delay;
        if !delay.is_zero() && self.protocol() == Protocol::Smtp {
            Box::pin(self.wait_for_early_talkers(delay)).await?;
        }
        self.start_deadline();
        let mut out = Vec::new();
        frontend.greet(&mut out);
        self.send(&mut out).await
    }

    async fn wait_for_early_talkers(&mut self, delay: Duration) -> Result<(), End> {
        // Bytes that arrived during the lookup are already in the input.
        if self.connection.input.is_empty() {
            match timeout_at(Instant::now() + delay, self.connection.fill()).await {
                Err(_) => return Ok(()),
                Ok(Ok(0) | Err(_)) => return Err(End::ClientGone),
                Ok(Ok(_)) => self.refuse_header(0)?,
            }
        }
        if begins_tls(self.connection.input.peek()) && self.secured.is_none() {
            return Err(self.speaks_tls());
        }
        let mut out = notices::EARLY_TALKER.to_vec();
        // The client may not read the message.
        let _ = self.send(&mut out).await;
        Err(End::EarlyTalker)
    }
}
