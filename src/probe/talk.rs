//! Sends questions over a connection and reads the answers, with a time limit.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::net::{Socket, Stream};
use crate::protocol::backend::visit::{Login, Question, ServerReply, Visit};
use crate::protocol::{BackendError, Cleartext, Input};
use crate::secret::wipe;

/// A connection with its conversation.
pub(super) struct Talk {
    visit: Visit,
    stream: Stream,
    input: Input,
    bound: Duration,
}

/// Why no answer arrived.
#[derive(Debug)]
pub(super) enum Silence {
    /// It did not arrive within this time.
    Late(Duration),
    /// The server closed the connection.
    Closed,
    /// The connection failed.
    Lost(io::Error),
    /// The answer was too long.
    Endless,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(bound) => write!(f, "no answer within {bound:?}"),
            Self::Closed => f.write_str("the server closed the connection without an answer"),
            Self::Lost(error) => write!(f, "the connection is lost: {error}"),
            Self::Endless => f.write_str("the server's answer does not end"),
        }
    }
}

impl Talk {
    /// Starts with a visit that is new, or continues after STARTTLS.
    pub(super) fn new(visit: Visit, stream: Stream, bound: Duration) -> Self {
        Self { visit, stream, input: Input::new(MAX_ANSWER), bound }
    }

    /// Returns the socket for a TLS handshake. `None` if unexpected bytes arrived in cleartext.
    pub(super) fn into_clear(self) -> Option<Cleartext<Socket>> {
        let Stream::Plain(socket) = self.stream else { return None };
        Some(Cleartext::new(socket, self.input)).filter(|clear| clear.refused() == 0)
    }

    /// Sends a question and waits for the answer.
    pub(super) async fn ask(&mut self, question: Question) -> Result<ServerReply, Silence> {
        let mut out = Vec::new();
        self.visit.ask(question, OUR_NAME, &mut out);
        self.say(question, out).await
    }

    /// Sends all lines of a login and returns the last answer.
    pub(super) async fn log_in(&mut self, login: &mut Login) -> Result<ServerReply, Silence> {
        loop {
            let mut out = Vec::new();
            if !login.next(&mut out) {
                // The server sent another challenge.
                out.extend_from_slice(self.visit.cancellation());
                return self.say(Question::Login, out).await;
            }
            let answer = self.say(Question::Login, out).await?;
            if !login.goes_on(answer.kind) {
                return Ok(answer);
            }
        }
    }

    /// Sends bytes that need no answer.
    pub(super) async fn send(&mut self, mut out: Vec<u8>) -> Result<(), Silence> {
        let bound = self.bound;
        let sent = timeout(bound, write(&mut self.stream, &mut out)).await;
        sent.map_err(|_| Silence::Late(bound))?.map_err(Silence::Lost)
    }

    pub(super) async fn close(mut self) {
        self.stream.close().await;
    }

    async fn say(&mut self, question: Question, mut out: Vec<u8>) -> Result<ServerReply, Silence> {
        let bound = self.bound;
        let Self { visit, stream, input, .. } = self;
        let asking = async {
            write(stream, &mut out).await.map_err(Silence::Lost)?;
            loop {
                if let Some(answer) =
                    visit.take(question, input).map_err(|_: BackendError| Silence::Endless)?
                {
                    return Ok(answer);
                }
                read(stream, input).await?;
            }
        };
        timeout(bound, asking).await.map_err(|_| Silence::Late(bound))?
    }
}

async fn write(stream: &mut Stream, out: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(out).await?;
    stream.flush().await?;
    wipe(out);
    Ok(())
}

async fn read(stream: &mut Stream, input: &mut Input) -> Result<(), Silence> {
    let mut buffer = [0; 4096];
    let room = input.room().min(buffer.len());
    let space = buffer.get_mut(..room).unwrap_or_default();
    match stream.read(space).await {
        Ok(0) => Err(Silence::Closed),
        Ok(count) => {
            let read = space.get(..count).unwrap_or_default();
            input.append(read).map_err(|error| Silence::Lost(io::Error::other(error)))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Silence::Closed),
        Err(error) => Err(Silence::Lost(error)),
    }
}

/// Maximum size of an answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Our name for an SMTP server (RFC 5321 section 4.1.1.1). The domain is reserved by RFC 2606, so it belongs to nobody.
const OUR_NAME: &str = "mailgress-probe.invalid";
