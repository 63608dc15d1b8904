//! One question over TCP, for an answer that is too long for UDP.
//!
//! Every question has a connection of its own. The library would keep it and prefer it to UDP once a datagram was lost;
//! on a connection that is accepted and never answered, every later lookup then waits until it is given up, and the
//! library, which sees no end of it, never counts a failure. It also keeps the connection of a lookup that is given up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Asks within `limit`. Dropping the future closes the connection.
///
/// # Errors
/// When nobody answers this question.
pub(super) async fn ask(
    server: SocketAddr,
    request: &DnsRequest,
    limit: Duration,
) -> Result<DnsResponse, NetError> {
    timeout(limit, exchange(server, request)).await.unwrap_or(Err(NetError::Timeout))
}

async fn exchange(server: SocketAddr, request: &DnsRequest) -> Result<DnsResponse, NetError> {
    let message = request.to_vec()?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), message.as_slice()].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let answer = DnsResponse::from_buffer(answer)?;
    if answer.metadata.id != request.metadata.id || answer.queries != request.queries {
        return Err(NetError::from("the answer over TCP is to another question"));
    }
    Ok(answer)
}
