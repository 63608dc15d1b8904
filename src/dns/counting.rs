//! Connections to name servers: UDP, then TCP if the answer is truncated. Requests and answers are counted.
//!
//! A UDP request is counted where its datagram is sent, because the library below sends it again if no answer arrives.
//! A TCP request is sent once.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, DnsResponseStream, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, Message};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{ConnectionProvider, PoolContext};
use tokio::net::UdpSocket;

use super::metrics::Zone;
use super::tcp;

/// Creates connections to name servers. They count if there is a zone.
#[derive(Clone)]
pub(super) struct Connections {
    sockets: Sockets,
    /// Number of answers from all name servers, including errors.
    answers: Arc<AtomicU64>,
}

/// Creates the sockets of these connections.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    zone: Option<Arc<Zone>>,
}

/// A UDP socket that counts the requests it sends.
pub(super) struct Datagrams {
    socket: UdpSocket,
    zone: Option<Arc<Zone>>,
}

/// A connection to one name server. It holds no socket: each request has its own.
#[derive(Clone)]
pub(super) struct Connection {
    datagrams: DnsExchange<Sockets>,
    server: SocketAddr,
    /// Time limit of a TCP request.
    limit: Duration,
    counter: Counter,
}

/// Counts TCP requests, and all answers.
#[derive(Clone)]
struct Counter {
    zone: Option<Arc<Zone>>,
    answers: Arc<AtomicU64>,
}

impl Connections {
    pub(super) fn new(zone: Option<Arc<Zone>>) -> Self {
        let sockets = Sockets { tokio: TokioRuntimeProvider::default(), zone };
        Self { sockets, answers: Arc::default() }
    }

    /// Returns the number of answers.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }
}

impl ConnectionProvider for Connections {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = Sockets;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let connecting = self.sockets.new_connection(ip, config, context)?;
        let (server, limit) = (SocketAddr::new(ip, config.port), context.options.timeout);
        let counter = Counter { zone: self.sockets.zone.clone(), answers: Arc::clone(&self.answers) };
        Ok(Box::pin(async move {
            let datagrams = connecting.await?;
            Ok(Connection { datagrams, server, limit, counter })
        }))
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.sockets
    }
}

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = Datagrams;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.tokio.connect_tcp(server, local, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Datagrams>>>> {
        let (binding, zone) = (self.tokio.bind_udp(local, server), self.zone.clone());
        Box::pin(async move { Ok(Datagrams { socket: binding.await?, zone }) })
    }
}

impl DnsUdpSocket for Datagrams {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.socket, context, buffer)
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(DnsUdpSocket::poll_send_to(&self.socket, context, bytes, target));
        if let (Ok(_), Some(zone)) = (&sent, &self.zone)
            && let Ok(message) = Message::from_vec(bytes)
            && let Some(of) = asked_for(&message)
        {
            zone.sent(of);
        }
        Poll::Ready(sent)
    }
}

impl DnsHandle for Connection {
    type Response = DnsResponseStream;
    type Runtime = Sockets;

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        let (server, limit, counter) = (self.server, self.limit, self.counter.clone());
        let answering = self.datagrams.send(request.clone());
        let answer = async move {
            let answer = answering.first_answer().await;
            counter.came_back(&answer);
            if !answer.as_ref().is_ok_and(|answer| answer.truncation) {
                return answer;
            }
            counter.goes_out(&request);
            let answer = tcp::ask(server, &request, limit).await;
            counter.came_back(&answer);
            answer
        };
        Box::pin(answer).into()
    }
}

impl Counter {
    fn goes_out(&self, request: &DnsRequest) {
        if let (Some(zone), Some(of)) = (&self.zone, asked_for(request)) {
            zone.sent(of);
        }
    }

    /// Counts an answer. A name server that cannot be reached or is silent has not answered; a lookup without any
    /// answer is counted at its deadline.
    fn came_back(&self, answer: &Result<DnsResponse, NetError>) {
        let zone = self.zone.as_ref();
        match answer {
            Ok(response) => {
                zone.inspect(|zone| zone.answered(response.metadata.response_code));
            }
            Err(NetError::Proto(_) | NetError::QueryCaseMismatch) => {
                zone.inspect(|zone| zone.answered_badly());
            }
            Err(_) => return,
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
    }
}

fn asked_for(message: &Message) -> Option<RecordType> {
    message.queries.first().map(|query| query.query_type())
}
