//! Reads the PROXY header at the start of a connection, and no byte more, because a TLS ClientHello may follow in the
//! same segment. Also detects the header of a peer that must not send one.

use std::net::SocketAddr;
use std::time::Instant as StdInstant;

use tokio::time::{Instant, timeout_at};

use crate::model::{InboundProxyProtocol, Limits, UntrustedPeers};
use crate::net::{ClientAddress, Socket};
use crate::protocol::Input;
use crate::protocol::proxy_header::{self, ProxyHeader, ProxyHeaderError};
use crate::proxy::end::End;
use crate::proxy::limits::{Admission, CountedAs, LimitReached, MAX_AWAITED_HEADERS};
use crate::proxy::serving::Serving;

/// Returns the addresses from a trusted peer's header. The header of any other peer is at most passed to the auth
/// service (quirk Q-14).
pub(super) async fn read_proxy_header(
    socket: &Socket,
    peer: ClientAddress,
    rules: &InboundProxyProtocol,
    serving: &Serving,
    deadline: Instant,
) -> Result<Ends, End> {
    let trusted = peer.ip().is_none_or(|ip| rules.trusted_peers.iter().any(|net| net.contains(&ip)));
    match rules.untrusted_peers {
        UntrustedPeers::Refuse if !trusted => return Err(End::UntrustedPeer(peer.to_string())),
        UntrustedPeers::Accept if !trusted => {
            return Ok(Ends { takes_no_header: true, ..Ends::direct(peer) });
        }
        UntrustedPeers::Refuse | UntrustedPeers::Accept | UntrustedPeers::Report => {}
    }
    let is_believed = trusted && rules.use_as_client_address;
    let _awaits = await_header(serving, peer, is_believed)?;
    let header = timeout_at(deadline, take_header(socket)).await;
    let header = header.map_err(|_| End::NoHeader(peer.to_string()))??;
    Ok(match header {
        ProxyHeader::Proxied { source, destination } if is_believed => {
            let client = ClientAddress::new(source);
            let (proxied, destination) = (Some((source, destination)), Some(destination));
            Ends { is_proxied: true, proxied, destination, ..Ends::direct(client) }
        }
        ProxyHeader::Proxied { source, destination } => {
            let direct = Ends { proxied: Some((source, destination)), ..Ends::direct(peer) };
            if trusted { Ends { counted: CountedAs::trusted_peer(peer), ..direct } } else { direct }
        }
        ProxyHeader::Local if trusted => Ends { counted: CountedAs::nobody(), ..Ends::direct(peer) },
        ProxyHeader::Local => Ends::direct(peer),
    })
}

/// The addresses of a connection, with those of a trusted PROXY header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The client.
    pub(super) client: ClientAddress,
    /// Whether `client` comes from a trusted PROXY header.
    pub(super) is_proxied: bool,
    /// Source and destination of a PROXY header, trusted or not; for the auth service.
    pub(super) proxied: Option<(SocketAddr, SocketAddr)>,
    /// The address that the client connected to, if it comes from the same PROXY header as `client`. Otherwise it is
    /// our socket's address.
    pub(super) destination: Option<SocketAddr>,
    /// The addresses under which limits count the client.
    pub(super) counted: CountedAs,
    /// Whether a PROXY header at the start ends the connection.
    pub(super) takes_no_header: bool,
}

impl Ends {
    /// Creates the addresses of a connection without a PROXY header.
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

/// The first bytes of a connection that must not start with a PROXY header, until they are decided.
#[derive(Debug, Default)]
pub(super) struct FirstBytes(Vec<u8>);

impl FirstBytes {
    /// Adds received bytes. Returns whether they are a header, or `None` if this is not known yet.
    pub(super) fn add(&mut self, received: &[u8]) -> Option<bool> {
        // Bounded: after the length of a signature, the question is decided.
        self.0.extend_from_slice(received.get(..proxy_header::MAX_HEADER).unwrap_or(received));
        proxy_header::is_header(&self.0)
    }
}

/// Waits for the first bytes of a connection with implicit TLS, and fails if they start a PROXY header.
pub(super) async fn refuse_header_before_tls(
    socket: &Socket,
    peer: ClientAddress,
    deadline: Instant,
) -> Result<(), End> {
    let mut first = [0; 16];
    let peeked = timeout_at(deadline, socket.peek(&mut first)).await.map_err(|_| End::ClientTimeout)?;
    let seen = peeked.ok().and_then(|count| first.get(..count)).unwrap_or_default();
    // A ClientHello differs from a PROXY header in its first byte.
    if seen.is_empty() || proxy_header::is_header(seen) == Some(false) {
        return Ok(());
    }
    Err(End::UnwantedHeader(peer.to_string()))
}

/// Counts a connection whose PROXY header has not arrived. If the header does not decide the client's address, the
/// limit of a client applies.
fn await_header(
    serving: &Serving,
    peer: ClientAddress,
    is_believed: bool,
) -> Result<Admission, LimitReached> {
    let opening = &serving.opening;
    let has_limit = !is_believed && !peer.ip().is_some_and(|ip| opening.exempts(ip));
    let own = opening.max_connections_per_client.filter(|_| has_limit);
    let limits =
        Limits { max_connections_per_client: Some(own.unwrap_or(MAX_AWAITED_HEADERS)), ..Limits::default() };
    let counted = CountedAs::client(peer);
    serving.unproxied.admit(&limits, counted, StdInstant::now()).map_err(|_| LimitReached::HeadersAwaited)
}

async fn take_header(socket: &Socket) -> Result<ProxyHeader, End> {
    let mut input = Input::new(proxy_header::MAX_HEADER);
    let mut window = vec![0; proxy_header::MAX_HEADER];
    loop {
        let room = input.room();
        let Some(space) = window.get_mut(..room).filter(|space| !space.is_empty()) else {
            return Err(ProxyHeaderError::TooLong.into());
        };
        let seen = socket.peek(space).await.map_err(|_| End::ClientGone)?;
        if seen == 0 {
            return Err(End::ClientGone);
        }
        let held = input.len();
        let mut all = input.peek().to_vec();
        all.extend_from_slice(space.get(..seen).unwrap_or_default());
        let take = match proxy_header::header_length(&all)? {
            Some(length) => length.saturating_sub(held).min(seen),
            None => seen,
        };
        let taken =
            socket.take(space.get_mut(..take).unwrap_or_default()).await.map_err(|_| End::ClientGone)?;
        // The input has room for this.
        let _ = input.append(space.get(..taken).unwrap_or_default());
        if let Some(header) = proxy_header::parse(&mut input)? {
            return Ok(header);
        }
    }
}
