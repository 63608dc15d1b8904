//! The way to an endpoint: name resolution, connect, PROXY header, TLS. Sessions and health checks take the same.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::dns::{Dns, DnsError, Target};
use crate::model::{Listener, Reach, Resolver};
use crate::net::{BackendAddress, Socket, Stream, has_no_descriptor};
use crate::tls::{ServerNameSource, TlsConnector};

use super::connection::Connection;
use super::end::{End, Silence};

/// Everything that connecting needs, but for the address.
pub(crate) struct Route {
    dns: Arc<Dns>,
    resolver: Arc<Resolver>,
    reach: Reach,
    tls: BackendTls,
    /// The PROXY header, or nothing.
    header: Vec<u8>,
}

/// TLS towards the backends of a listener.
#[derive(Clone, Debug)]
pub(crate) enum BackendTls {
    Disabled,
    /// After the protocol's STARTTLS.
    StartTls(Arc<TlsConnector>),
    /// From the first byte.
    Implicit(Arc<TlsConnector>),
}

/// A backend that we are connected to.
pub(crate) struct Reached {
    /// The connection.
    pub(crate) connection: Connection,
    /// Whether it may be told who the client is.
    pub(crate) takes_introductions: bool,
}

impl Route {
    /// To the backends of a listener that may connect to `reach` now, with its TLS towards them.
    pub(crate) fn new(
        dns: &Arc<Dns>,
        (listener, reach): (&Listener, &Reach),
        tls: BackendTls,
        header: Vec<u8>,
    ) -> Self {
        Self {
            dns: Arc::clone(dns),
            resolver: Arc::clone(&listener.resolver),
            reach: reach.clone(),
            tls,
            header,
        }
    }

    /// Whether backends that may be told who the client is get a PROXY header.
    pub(crate) fn has_header(&self) -> bool {
        !self.header.is_empty()
    }

    /// What a backend that does not greet may wait for.
    pub(crate) fn silence(&self) -> Silence {
        match self.tls {
            BackendTls::Implicit(_) => Silence::UnderTls,
            _ if self.has_header() => Silence::InClearBehindHeader,
            _ => Silence::InClear,
        }
    }

    /// Connects to the first target of the address that takes us, up to a point where the backend speaks next.
    ///
    /// # Errors
    /// [`End::Connect`] with the reason, [`End::NotAllowed`], or our own limits.
    pub(crate) async fn connect_to(&self, address: &BackendAddress, until: Instant) -> Result<Reached, End> {
        let connecting = async {
            let targets = self.dns.resolve(&self.resolver, &self.reach, address).await;
            let mut last = End::Connect("the name has no address".to_owned());
            for target in targets.map_err(unresolved)? {
                match connect_target(&target).await {
                    Ok(socket) => {
                        let takes_introductions = self.reach.introduces(target.address());
                        let connection = self.open(socket, address, takes_introductions).await?;
                        return Ok(Reached { connection, takes_introductions });
                    }
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
    async fn open(
        &self,
        socket: Socket,
        address: &BackendAddress,
        takes_introductions: bool,
    ) -> Result<Connection, End> {
        let mut connection = Connection::to_backend(Stream::Plain(socket));
        if takes_introductions {
            let mut header = self.header.clone();
            connection.send(&mut header).await.map_err(|_| End::BackendGone)?;
        }
        if let BackendTls::Implicit(connector) = &self.tls {
            let behind_header = takes_introductions && self.has_header();
            connection = secure(connector, connection, address).await.map_err(|end| match end {
                End::Connect(_) if behind_header => End::BehindHeader(Box::new(end)),
                end => end,
            })?;
        }
        Ok(connection)
    }

    /// The handshake after the backend's STARTTLS reply.
    ///
    /// # Errors
    /// [`End`], with the backend or the configuration to blame.
    pub(crate) async fn start_tls(
        &self,
        connection: Connection,
        address: &BackendAddress,
    ) -> Result<Connection, End> {
        match &self.tls {
            BackendTls::StartTls(connector) => secure(connector, connection, address).await,
            _ => Err(End::Internal("STARTTLS towards a backend without it")),
        }
    }
}

/// The handshake with the backend; bytes that it sent in clear before are refused.
async fn secure(
    connector: &TlsConnector,
    connection: Connection,
    address: &BackendAddress,
) -> Result<Connection, End> {
    let clear = connection.into_handshake()?;
    if clear.refused() > 0 {
        return Err(End::BackendInjection);
    }
    let connected = connector.connect(clear, &server_name(address)).await;
    let stream = connected.map_err(|error| End::Connect(error.to_string()))?;
    Ok(Connection::to_backend(Stream::Client(Box::new(stream))))
}

fn unresolved(error: DnsError) -> End {
    match error {
        DnsError::NotAllowed(refusal) => End::NotAllowed(refusal),
        error => End::Connect(error.to_string()),
    }
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
