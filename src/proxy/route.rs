//! The way to an endpoint: name resolution, connect, PROXY header, TLS. Sessions and health checks take the same.

use std::io;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use crate::dns::{Dns, DnsError, Target};
use crate::model::{Listener, Reach, Resolver, UpstreamTls};
use crate::net::{BackendAddress, Socket, Stream, has_no_descriptor};
use crate::protocol::Input;
use crate::tls::{ServerNameSource, TlsConnector};

use super::end::{End, Silence};
use super::leg::Leg;

/// Everything that connecting needs, but for the address.
pub(crate) struct Route {
    dns: Arc<Dns>,
    resolver: Arc<Resolver>,
    reach: Reach,
    /// Towards the backend, implicit or after STARTTLS.
    connector: Option<Arc<TlsConnector>>,
    /// TLS begins with the first byte.
    implicit_tls: bool,
    /// The PROXY header, or nothing.
    header: Vec<u8>,
}

/// A backend that we are connected to.
pub(crate) struct Reached {
    /// The connection.
    pub(crate) leg: Leg,
    /// Whether it may be told who the client is.
    pub(crate) takes_introductions: bool,
}

impl Route {
    /// To the backends of a listener that may connect to `reach` now, with its TLS towards them.
    pub(crate) fn new(
        dns: &Arc<Dns>,
        (listener, reach): (&Listener, &Reach),
        connector: Option<Arc<TlsConnector>>,
        header: Vec<u8>,
    ) -> Self {
        Self {
            dns: Arc::clone(dns),
            resolver: Arc::clone(&listener.resolver),
            reach: reach.clone(),
            connector,
            implicit_tls: matches!(listener.upstream.tls, UpstreamTls::Implicit(_)),
            header,
        }
    }

    /// Whether backends that may be told who the client is get a PROXY header.
    pub(crate) fn has_header(&self) -> bool {
        !self.header.is_empty()
    }

    /// What a backend that does not greet may wait for.
    pub(crate) fn silence(&self) -> Silence {
        match (self.implicit_tls, self.has_header()) {
            (true, _) => Silence::UnderTls,
            (false, true) => Silence::InClearBehindHeader,
            (false, false) => Silence::InClear,
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
                        let leg = self.open(socket, address, takes_introductions).await?;
                        return Ok(Reached { leg, takes_introductions });
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
    ) -> Result<Leg, End> {
        let mut leg = Leg::to_backend(Stream::Plain(socket));
        if takes_introductions {
            let mut header = self.header.clone();
            leg.send(&mut header).await.map_err(|_| End::BackendGone)?;
        }
        if self.implicit_tls {
            let behind_header = takes_introductions && self.has_header();
            leg = self.secure(leg, address).await.map_err(|end| match end {
                End::Connect(_) if behind_header => End::BehindHeader(Box::new(end)),
                end => end,
            })?;
        }
        Ok(leg)
    }

    /// The handshake with the backend; bytes that it sent in clear before are refused.
    ///
    /// # Errors
    /// [`End`], with the backend or the configuration to blame.
    pub(crate) async fn secure(&self, leg: Leg, address: &BackendAddress) -> Result<Leg, End> {
        let (Some(connector), Stream::Plain(socket)) = (&self.connector, leg.stream) else {
            return Err(End::BackendGone);
        };
        let proof = leg.input.into_empty().map_err(|_: Input| End::BackendInjection)?;
        let name = server_name(address);
        let stream =
            connector.connect(socket, &name, proof).await.map_err(|error| End::Connect(error.to_string()))?;
        Ok(Leg::to_backend(Stream::Client(Box::new(stream))))
    }
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
