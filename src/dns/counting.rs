//! Connections to name servers that count for a zone what goes out and what comes back.
//!
//! A request over UDP is counted where the datagram is sent, because one that stays unanswered is sent again
//! below everything else that could be counted. A request over TCP is sent once.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, ProtocolConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, DnsResponseStream, FirstAnswer};
use hickory_resolver::proto::op::{DnsRequest, DnsResponse, Message};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{ConnectionProvider, PoolContext};
use tokio::net::UdpSocket;

use super::metrics::Zone;

/// Makes connections to name servers; they count where there is a zone.
#[derive(Clone)]
pub(super) struct Connections(Sockets);

/// Makes the sockets of these connections.
#[derive(Clone)]
pub(super) struct Sockets {
    tokio: TokioRuntimeProvider,
    zone: Option<Arc<Zone>>,
}

/// A UDP socket that counts what it sends.
pub(super) struct Datagrams {
    socket: UdpSocket,
    zone: Option<Arc<Zone>>,
}

/// A connection that counts what comes back.
#[derive(Clone)]
pub(super) struct Connection {
    exchange: DnsExchange<Sockets>,
    zone: Option<Arc<Zone>>,
    /// Whether it counts what goes out, too.
    stream: bool,
}

impl Connections {
    /// For this zone.
    pub(super) fn new(zone: Option<Arc<Zone>>) -> Self {
        Self(Sockets { tokio: TokioRuntimeProvider::default(), zone })
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
        let connecting = self.0.new_connection(ip, config, context)?;
        let (zone, stream) = (self.0.zone.clone(), matches!(config.protocol, ProtocolConfig::Tcp));
        Ok(Box::pin(async move { Ok(Connection { exchange: connecting.await?, zone, stream }) }))
    }

    fn runtime_provider(&self) -> &Sockets {
        &self.0
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
        if let (true, Some(zone), Some(of)) = (self.stream, &self.zone, asked_for(&request)) {
            zone.sent(of);
        }
        let (answering, zone) = (self.exchange.send(request), self.zone.clone());
        let answer = async move {
            let answer = answering.first_answer().await;
            if let Some(zone) = zone {
                count(&zone, &answer);
            }
            answer
        };
        Box::pin(answer).into()
    }
}

fn asked_for(message: &Message) -> Option<RecordType> {
    message.queries.first().map(|query| query.query_type())
}

/// A name server that cannot be reached, or says nothing, has not answered; that a whole lookup has had no
/// answer is counted where its deadline is.
fn count(zone: &Zone, answer: &Result<DnsResponse, NetError>) {
    match answer {
        Ok(response) => zone.answered(response.metadata.response_code),
        Err(NetError::Proto(_) | NetError::QueryCaseMismatch) => zone.answered_badly(),
        Err(_) => {}
    }
}
