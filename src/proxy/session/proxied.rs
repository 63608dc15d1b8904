//! Reads the PROXY header in front of a connection: exactly it, since what follows it in the same segment may be
//! a TLS ClientHello.

use std::time::Instant as StdInstant;

use tokio::time::{Instant, timeout_at};

use crate::model::{InboundProxyProtocol, Limits, UntrustedPeers};
use crate::net::{ClientAddress, Socket};
use crate::protocol::Input;
use crate::protocol::proxy_header::{self, ProxyHeader, ProxyHeaderError};

use super::super::end::End;
use super::super::limits::{Admission, MAX_AWAITED_HEADERS, Refusal};
use super::super::serving::Serving;
use super::client::Ends;

/// The ends of the connection, as the header of a trusted peer has them. What any other peer writes is read for
/// the auth service at most (quirk Q-14).
pub(super) async fn read_proxy_header(
    socket: &Socket,
    peer: ClientAddress,
    rules: &InboundProxyProtocol,
    serving: &Serving,
    deadline: Instant,
) -> Result<Ends, End> {
    let trusted = peer.ip().is_none_or(|ip| rules.trusted_peers.iter().any(|net| net.contains(&ip)));
    if !trusted && rules.untrusted_peers == UntrustedPeers::Refuse {
        return Err(End::UntrustedPeer(peer.to_string()));
    }
    let is_believed = trusted && rules.use_as_client_address;
    let _awaits = await_header(serving, peer, is_believed)?;
    let header = timeout_at(deadline, take_header(socket)).await.map_err(|_| End::ClientTimeout)??;
    Ok(match header {
        ProxyHeader::Proxied { source, destination } => {
            let client = if is_believed { ClientAddress::new(source) } else { peer };
            let proxied = Some((source, destination));
            Ends { client, is_proxied: is_believed, proxied, destination: is_believed.then_some(destination) }
        }
        ProxyHeader::Local => Ends { client: peer, is_proxied: false, proxied: None, destination: None },
    })
}

/// Counts a connection of `peer` that has not sent its header. A peer whose header does not say who the client is has
/// a client's limit.
fn await_header(serving: &Serving, peer: ClientAddress, is_believed: bool) -> Result<Admission, Refusal> {
    let own = serving.opening.max_connections_per_client.filter(|_| !is_believed);
    let limits = Limits {
        client_buffer: 0,
        max_connections: None,
        max_connections_per_client: Some(own.unwrap_or(MAX_AWAITED_HEADERS)),
        auth_failures: None,
    };
    serving.unproxied.admit(&limits, peer, StdInstant::now()).map_err(|_| Refusal::HeadersAwaited)
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
        // Within the room that was asked for.
        let _ = input.append(space.get(..taken).unwrap_or_default());
        if let Some(header) = proxy_header::parse(&mut input)? {
            return Ok(header);
        }
    }
}
