//! One request and its answer on a connection.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::connect::{Connection, Silence};
use super::head::{End, Head, HeadError};

/// Room for the usual answer.
const ROOM: usize = 2 * 1024;

/// How long a body is waited for, so that its connection can be used again. The decision needs the head only.
const BODY_TIME: Duration = Duration::from_millis(20);

/// An answer.
pub(super) struct Answered {
    /// What it says.
    pub(super) head: Head,
    /// How long it took, from the request on.
    pub(super) took: Duration,
    /// What became of the connection.
    pub(super) after: After,
}

/// A connection after an answer.
pub(super) enum After {
    /// Nothing is on it: it can be kept.
    Kept(Connection),
    /// It is closed: the service closes it, or the answer has no end that can be waited for.
    Closed,
    /// It is closed, because more than the answer was on it.
    Broken,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Bytes before the request: they are no answer to it.
    #[error("it sent bytes before the request")]
    Early,
    /// Not even a byte of one. On a kept connection: the service was closing it, and has not seen the request.
    #[error("{0}")]
    Unanswered(io::Error),
    /// It ends in its head.
    #[error("the connection ended within the headers of the answer: {0}")]
    Cut(io::Error),
    /// It is none.
    #[error("{0}")]
    Nonsense(#[from] HeadError),
}

/// Asks. `keeps`: the connection shall be used again, if that is possible.
///
/// # Errors
/// When there is no answer.
pub(super) async fn exchange(
    mut connection: Connection,
    request: &[u8],
    keeps: bool,
) -> Result<Answered, Failure> {
    let asked = Instant::now();
    connection.write(request).await.map_err(Failure::Unanswered)?;
    let mut received = Zeroizing::new(Vec::with_capacity(ROOM));
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

/// Waits for the rest of the answer for a moment, and looks for what is behind it.
async fn finish(mut connection: Connection, head: &Head, mut received: Zeroizing<Vec<u8>>) -> After {
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
    match connection.silence() {
        _ if received.len() > end => After::Broken,
        Silence::Kept => After::Kept(connection),
        Silence::Ended => After::Closed,
        Silence::Broken => After::Broken,
    }
}

fn failure(received: &[u8], error: io::Error) -> Failure {
    if received.is_empty() { Failure::Unanswered(error) } else { Failure::Cut(error) }
}
