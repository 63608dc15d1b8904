//! Sends one question over TCP, if its answer is too long for UDP.
//!
//! Every question has its own connection. hickory would keep a connection and prefer it to UDP after a lost datagram.
//! If a server accepted the connection but never answered, every later lookup would wait until its deadline, and
//! hickory would never count a failure. It would also keep the connection of a cancelled lookup.

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
/// No valid answer to this question arrives.
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
