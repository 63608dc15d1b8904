//! Sends one request on a connection and reads the answer.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::secret::Wiped;

use super::connect::{Connection, Silence};
use super::head::{End, Head, HeadError};

/// Initial capacity for an answer, in bytes. Most are shorter; more would cost time, because all of it is wiped.
const ROOM: usize = 512;

/// How long the body is awaited, to reuse the connection. The decision needs only the head.
const BODY_TIME: Duration = Duration::from_millis(20);

pub(super) struct Answered {
    /// The status and headers.
    pub(super) head: Head,
    /// The time from the request to the end of the head.
    pub(super) took: Duration,
    /// Whether the connection can be reused.
    pub(super) after: After,
}

/// The state of a connection after an answer.
pub(super) enum After {
    /// It can be reused.
    Kept(Connection),
    /// It is closed, by the service, or because the end of the answer is unknown or late.
    Closed,
    /// It is closed, because bytes followed the answer.
    Broken,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Bytes arrived before the request was sent.
    #[error("sent bytes before the request")]
    Early,
    /// The connection ended before the first byte. A kept connection may have been closed before the service saw the
    /// request.
    #[error("closed the connection without an answer: {0}")]
    Unanswered(io::Error),
    /// The connection ended within the head.
    #[error("broke the connection in the middle of the headers: {0}")]
    Cut(io::Error),
    /// The bytes are not an HTTP answer.
    #[error("sent an answer that cannot be used: {0}")]
    Nonsense(#[from] HeadError),
}

/// Sends a request and reads the answer. `keeps`: try to keep the connection.
///
/// # Errors
/// There is no valid answer.
pub(super) async fn exchange(
    mut connection: Connection,
    request: &[u8],
    keeps: bool,
) -> Result<Answered, Failure> {
    let asked = Instant::now();
    connection.write(request).await.map_err(Failure::Unanswered)?;
    let mut received = Wiped::with_capacity(ROOM);
    let head = loop {
        match connection.read(&mut received).await {
            Ok(0) => return Err(failure(&received, io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(failure(&received, error)),
            Ok(_) => {}
        }
        if let Some(head) = Head::parse(&received)? {
            break head;
        }
    };
    let took = asked.elapsed();
    let after = if keeps { finish(connection, &head, received).await } else { After::Closed };
    Ok(Answered { head, took, after })
}

/// Waits briefly for the rest of the answer, and checks for bytes after it.
async fn finish(mut connection: Connection, head: &Head, mut received: Wiped) -> After {
    let rest = async {
        loop {
            match head.end(&received) {
                End::At(end) => return Some(end),
                End::Never => return None,
                End::Later => {}
            }
            match connection.read(&mut received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    };
    let Ok(Some(end)) = tokio::time::timeout(BODY_TIME, rest).await else { return After::Closed };
    match connection.silence_behind() {
        _ if received.len() > end => After::Broken,
        Silence::Kept => After::Kept(connection),
        Silence::Ended => After::Closed,
        Silence::Broken => After::Broken,
    }
}

fn failure(received: &[u8], error: io::Error) -> Failure {
    if received.is_empty() { Failure::Unanswered(error) } else { Failure::Cut(error) }
}
