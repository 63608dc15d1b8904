//! Connects to an endpoint: name resolution, connect, PROXY header, TLS. Sessions and health checks share this code.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::dns::{Dns, DnsError, Target};
use crate::model::{Reach, Resolver};
use crate::net::{BackendAddress, Socket, Stream, has_no_descriptor};
use crate::tls::{ServerNameSource, TlsConnector};

use super::connection::Connection;
use super::end::{End, Silence};

/// Everything needed to connect, except the address.
pub(crate) struct Connector {
    dns: Arc<Dns>,
    resolver: Arc<Resolver>,
    /// Limits the addresses.
    reach: Reach,
    tls: BackendTls,
    /// The encoded PROXY header; empty if none is sent.
    header: Vec<u8>,
}

/// TLS to the backends of a listener.
#[derive(Clone, Debug)]
pub(crate) enum BackendTls {
    Disabled,
    /// After the protocol's STARTTLS.
    StartTls(Arc<TlsConnector>),
    /// From the first byte.
    Implicit(Arc<TlsConnector>),
}

impl BackendTls {
    /// Returns the same TLS without resumption, so that every connection verifies the certificate.
    pub(crate) fn without_resumption(&self) -> Self {
        match self {
            Self::Disabled => Self::Disabled,
            Self::StartTls(connector) => Self::StartTls(Arc::new(connector.without_resumption())),
            Self::Implicit(connector) => Self::Implicit(Arc::new(connector.without_resumption())),
        }
    }
}

/// A time limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The end of the time.
    pub(crate) until: Instant,
    /// The field that sets it, for messages.
    pub(crate) field: &'static str,
}

impl Limit {
    fn late(self) -> End {
        End::Connect(format!("no connection within {}", self.field))
    }
}

/// A connection to a backend.
pub(crate) struct Reached {
    /// The connection, ready for the backend's next bytes.
    pub(crate) connection: Connection,
    /// Whether the listener's `reach` allows the backend to get the client's identity (PROXY header, XCLIENT, ID).
    pub(crate) takes_introductions: bool,
}

impl Connector {
    /// Creates a connector. `reach` limits the addresses.
    pub(crate) fn new(
        dns: &Arc<Dns>,
        resolver: &Arc<Resolver>,
        reach: Reach,
        tls: BackendTls,
        header: Vec<u8>,
    ) -> Self {
        Self { dns: Arc::clone(dns), resolver: Arc::clone(resolver), reach, tls, header }
    }

    /// Tells whether allowed backends get a PROXY header.
    pub(crate) fn has_header(&self) -> bool {
        !self.header.is_empty()
    }

    /// Returns how the connection was opened, to explain a backend that sends no greeting.
    pub(crate) fn silence(&self) -> Silence {
        match self.tls {
            BackendTls::Implicit(_) => Silence::UnderTls,
            _ if self.has_header() => Silence::InClearBehindHeader,
            _ => Silence::InClear,
        }
    }

    /// Resolves the address and connects to the first target that works. Returns when the backend is to speak next.
    ///
    /// # Errors
    /// [`End::Connect`] with the reason, [`End::TlsTimeout`], [`End::UnknownName`], [`End::NotAllowed`], or
    /// [`End::Descriptors`]. If only one target was tried, its
    /// own failure.
    pub(crate) async fn connect_to(&self, address: &BackendAddress, limit: Limit) -> Result<Reached, End> {
        let resolving = self.dns.resolve(&self.resolver, &self.reach, address);
        let resolved = timeout_at(limit.until, resolving).await.map_err(|_| limit.late())?;
        let targets = resolved.map_err(unresolved)?;
        let mut failures = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let until = share(limit.until, targets.len().saturating_sub(index));
            match self.reach(target, address, Limit { until, ..limit }).await {
                Ok(reached) => return Ok(reached),
                Err(End::Descriptors) => return Err(End::Descriptors),
                Err(end) => failures.push((target, end)),
            }
        }
        if failures.len() > 1 {
            let each: Vec<String> = failures.iter().map(|(target, end)| format!("{target}: {end}")).collect();
            return Err(End::Connect(each.join("; ")));
        }
        let none = || End::Connect("the name has no address".to_owned());
        Err(failures.pop().map_or_else(none, |(_, end)| end))
    }

    /// Connects to one target.
    async fn reach(&self, target: &Target, address: &BackendAddress, limit: Limit) -> Result<Reached, End> {
        let connected = timeout_at(limit.until, target.connect()).await.map_err(|_| limit.late())?;
        let socket = connected.map_err(|error| {
            if has_no_descriptor(&error) { End::Descriptors } else { End::Connect(error.to_string()) }
        })?;
        // Without TLS, the relay does this when the client sends more than one command.
        if !matches!(self.tls, BackendTls::Disabled) {
            socket.set_nodelay();
        }
        let takes_introductions = self.reach.introduces(target.address());
        // The PROXY header fits into the send buffer, so only TLS takes time.
        let opening = timeout_at(limit.until, self.open(socket, address, takes_introductions));
        let connection = opening.await.unwrap_or(Err(End::TlsTimeout(limit.field)))?;
        Ok(Reached { connection, takes_introductions })
    }

    /// Sends the PROXY header, then does TLS if it is implicit.
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
            connection = Box::pin(secure(connector, connection, address)).await.map_err(|end| match end {
                End::Connect(_) if behind_header => End::BehindHeader(Box::new(end)),
                end => end,
            })?;
        }
        Ok(connection)
    }

    /// Does the TLS handshake after the backend's STARTTLS reply.
    ///
    /// # Errors
    /// [`End::Connect`] if the handshake fails, [`End::BackendInjection`] if bytes followed the reply.
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

/// Does the TLS handshake. Bytes that the backend sent in cleartext before it end the session.
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

/// Divides the time until `until` among `left` attempts. Returns the end of the first of them.
pub(super) fn share(until: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let time = until.saturating_duration_since(now);
    let share = time / u32::try_from(left).unwrap_or(u32::MAX).max(1);
    now + share.max(MIN_SHARE).min(time)
}

/// Minimum time for one attempt, if that much time remains.
const MIN_SHARE: Duration = Duration::from_secs(1);

fn unresolved(error: DnsError) -> End {
    match error {
        DnsError::NotFound(_) => End::UnknownName(error.to_string()),
        _ if error.is_refusal() => End::NotAllowed(error.to_string()),
        _ => End::Connect(error.to_string()),
    }
}

/// Returns the name that the backend's certificate must match if none is configured.
fn server_name(address: &BackendAddress) -> ServerNameSource {
    match address {
        BackendAddress::Ip(address) => ServerNameSource::Ip(address.ip()),
        BackendAddress::Name { host, .. } => ServerNameSource::Host(host.clone()),
        BackendAddress::Unix(_) => ServerNameSource::Host("localhost".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Host;
    use crate::model::TrustAnchors;
    use crate::model::settings::ClientTls;
    use crate::net::ListenAddress;
    use crate::proxy::end::Outcome;
    use crate::proxy::tests::socket;
    use crate::tls::connector;
    use prometheus::Registry;

    #[tokio::test(start_paused = true)]
    async fn a_tls_handshake_that_hangs_is_not_called_a_missing_connection() {
        // The kernel completes the connection, and nobody answers on it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = BackendAddress::Ip(silent.local_addr().unwrap());
        let tls = ClientTls { trust: TrustAnchors::System, server_name: None, certificate: None };
        let tls = BackendTls::Implicit(Arc::new(connector(&tls, None).unwrap()));
        let dns = Arc::new(Dns::new(Host::default(), &Registry::new()).unwrap());
        let socket = socket(&ListenAddress::Any { port: 110 }, Vec::new());
        let listener = &socket.listeners[0];
        let connector = Connector::new(&dns, &listener.resolver, Reach::Anywhere, tls, Vec::new());
        let until = Instant::now() + Duration::from_secs(10);
        let reached = connector.connect_to(&address, Limit { until, field: "healthCheck.timeout" }).await;
        let end = reached.err().expect("no handshake");
        assert_eq!(
            end.to_string(),
            "the TLS handshake with the backend did not finish within healthCheck.timeout"
        );
        assert_eq!(end.outcome(), Outcome::BackendTimeout);
    }
}
