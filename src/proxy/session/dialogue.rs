//! The connection to a backend during the login: sends and reads within the deadline, and finds the likely cause of a
//! failure.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::net::BackendAddress;
use crate::protocol::backend::{BackendStartTls, Refusal, header};
use crate::protocol::{Backend, BackendError, Protocol};
use crate::tls::HandshakeError;

use crate::proxy::connection::Connection;
use crate::proxy::connector::Connector;
use crate::proxy::deadline::Deadline;
use crate::proxy::end::End;

/// A connection on which the backend's state machine runs.
pub(super) struct Dialogue<'a> {
    connector: &'a Connector,
    pub(super) address: &'a BackendAddress,
    pub(super) connection: Connection,
    /// Bytes that the state machine wants to send.
    pub(super) out: Vec<u8>,
    began: Instant,
    /// The end of the login.
    pub(super) deadline: Deadline,
    /// `timeouts.connect`.
    patience: Duration,
    /// Whether a PROXY header was sent.
    behind_header: bool,
    talk: Talk,
    /// Whether the client chose the password or token, and so its length.
    has_clients_password: bool,
}

/// What has been said so far.
#[derive(Debug, Default)]
struct Talk {
    /// Whether the backend has sent any byte.
    is_heard: bool,
    /// Nothing was awaited since the last read, so what it left in the kernel is known.
    is_fresh: bool,
    /// Number of commands sent.
    asked: usize,
    /// Bytes of the longest of them.
    longest: usize,
}

impl<'a> Dialogue<'a> {
    /// `deadline` is for the whole login. `patience` is the time that starts again after a relayed challenge.
    pub(super) fn new(
        connector: &'a Connector,
        address: &'a BackendAddress,
        connection: Connection,
        (deadline, patience): (Deadline, Duration),
        takes_introductions: bool,
        has_clients_password: bool,
    ) -> Self {
        Self {
            connector,
            address,
            connection,
            out: Vec::new(),
            began: Instant::now(),
            deadline,
            patience,
            behind_header: takes_introductions && connector.has_header(),
            talk: Talk::default(),
            has_clients_password,
        }
    }

    /// Sends the pending bytes and reads the backend's reply, within the deadline. If bytes arrived before the command
    /// is sent, the state machine reads them first.
    pub(super) async fn exchange(&mut self) -> Result<(), End> {
        let Self { connection, out, talk, deadline, .. } = self;
        match deadline.bound(talk.send_and_read(connection, out)).await {
            Some(Err(End::BackendGone)) => Err(self.explain(End::BackendGone)),
            Some(exchanged) => exchanged,
            None if !self.talk.is_heard => Err(self.silence(self.patience)),
            None => Err(End::BackendTimeout),
        }
    }

    /// Does the TLS handshake after the backend's STARTTLS reply.
    pub(super) async fn upgrade(mut self, agreed: BackendStartTls) -> Result<(Self, Backend), End> {
        self.talk.is_fresh = false;
        let handshake =
            timeout_at(self.deadline.at(), self.connector.start_tls(self.connection, self.address));
        self.connection = handshake.await.unwrap_or(Err(End::TlsTimeout(CONNECT_FIELD)))?;
        let backend = agreed.secured(&mut self.out);
        Ok((self, backend))
    }

    /// Restarts the deadline: the time that the client takes to answer a challenge is not the backend's.
    pub(super) fn extend_deadline(&mut self) {
        self.talk.is_fresh = false;
        self.deadline.set(Instant::now() + self.patience);
    }

    /// Checks that a refusal answers the login, and not the PROXY header before it.
    pub(super) async fn judge(&mut self, protocol: Protocol, refusal: &Refusal) -> Result<(), End> {
        let Some(question) = header::question(protocol).filter(|_| self.is_in_doubt()) else { return Ok(()) };
        let asked = timeout(DOUBT_TIME, self.ask_last(question)).await;
        if asked.is_ok_and(|()| header::is_in_step(self.connection.input.peek())) {
            return Ok(());
        }
        let error = BackendError::out_of_step(&refusal.reply);
        Err(self.explain(error.into()))
    }

    /// Sends a last command and reads until the backend closes.
    async fn ask_last(&mut self, question: &[u8]) {
        let _ = self.connection.send(&mut question.to_vec()).await;
        while self.connection.input.len() < header::MAX_HEARD
            && matches!(self.connection.fill().await, Ok(1..))
        {}
    }

    /// Tells whether the last reply may be an answer to the PROXY header.
    fn is_in_doubt(&self) -> bool {
        self.behind_header && self.talk.asked < 2
    }

    /// Adds the likely cause: the PROXY header, TLS, or the length of the credentials.
    pub(super) fn explain(&self, end: End) -> End {
        match end {
            End::Backend(BackendError::Unavailable { .. } | BackendError::SpeaksTls) => end,
            End::BackendGone if !self.talk.is_heard => End::BackendMute(self.connector.silence()),
            End::BackendGone if self.has_clients_password && self.talk.longest > LONG_COMMAND => {
                End::LongLogin { bytes: self.talk.longest }
            }
            End::Backend(_) | End::BackendGone if self.is_in_doubt() => End::BehindHeader(Box::new(end)),
            end => end,
        }
    }

    /// Returns the end of the session for a client that gives up because the backend has been silent for
    /// [`LONG_SILENCE`].
    pub(super) fn long_silence(&self) -> Option<End> {
        let is_long = self.began.elapsed() >= LONG_SILENCE;
        let waited = Duration::from_secs(self.began.elapsed().as_secs());
        (is_long && !self.talk.is_heard).then(|| self.silence(waited))
    }

    fn silence(&self, waited: Duration) -> End {
        End::BackendSilent { waited, silence: self.connector.silence() }
    }
}

impl Talk {
    async fn send_and_read(&mut self, connection: &mut Connection, out: &mut Vec<u8>) -> Result<(), End> {
        let has_no_more = std::mem::take(&mut self.is_fresh) && connection.is_drained();
        if !out.is_empty() {
            // The command may contain a password, and the early bytes may be an error reply.
            if !has_no_more && connection.fill_at_once().await > 0 {
                self.is_heard = true;
                connection.input.note_question();
                return Ok(());
            }
            self.longest = self.longest.max(out.len());
            connection.send(out).await.map_err(|_| End::BackendGone)?;
            self.asked = self.asked.saturating_add(1);
        }
        match connection.fill().await {
            Ok(0) if connection.input.is_full() => {
                Err(End::Backend(BackendError::TooLong { step: "a command" }))
            }
            Ok(0) => Err(End::BackendGone),
            Err(error) => Err(HandshakeError::late(error)
                .filter(|_| !self.is_heard)
                .map_or(End::BackendGone, |refused| End::Connect(refused.to_string()))),
            Ok(_) => {
                (self.is_heard, self.is_fresh) = (true, true);
                Ok(())
            }
        }
    }
}

/// The field that limits the whole login.
pub(super) const CONNECT_FIELD: &str = "timeouts.connect";
/// After this time without a byte from the backend, the backend is the reason why a client leaves.
const LONG_SILENCE: Duration = Duration::from_secs(5);
/// Bytes of a command or SASL response beyond which a server may close instead of replying. Dovecot closes after a
/// response of more than 8,192 bytes, and Postfix limits lines to 2,048.
const LONG_COMMAND: usize = 2048;
/// Time limit for the reply that tells what a refusal answers.
const DOUBT_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::dns::{Dns, Host};
    use crate::model::Reach;
    use crate::net::{ListenAddress, Socket, Stream};
    use crate::protocol::backend::RefusalCause;
    use crate::proxy::connector::BackendTls;
    use crate::proxy::tests::socket;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Creates a connector with this PROXY header.
    fn connector(header: &[u8]) -> Connector {
        let dns = Arc::new(Dns::new(Host::default(), &Registry::new()).unwrap());
        let socket = socket(&ListenAddress::Any { port: 110 }, Vec::new());
        let resolver = &socket.listeners[0].resolver;
        Connector::new(&dns, resolver, Reach::Anywhere, BackendTls::Disabled, header.to_vec())
    }

    /// Creates a dialogue on `connection`, after the connector's header.
    fn dialogue<'a>(
        connector: &'a Connector,
        address: &'a BackendAddress,
        connection: UnixStream,
    ) -> Dialogue<'a> {
        let connection = Connection::to_backend(Stream::Plain(Socket::Unix(connection)));
        Dialogue::new(
            connector,
            address,
            connection,
            (Deadline::new(Instant::now() + PATIENCE), PATIENCE),
            true,
            true,
        )
    }

    fn address() -> BackendAddress {
        BackendAddress::Unix("/run/pop3".into())
    }

    fn refusal() -> Refusal {
        Refusal { reply: b"-ERR unknown command\r\n".to_vec(), cause: RefusalCause::Credentials }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_a_silent_backend_soon_leaves_by_itself_and_later_because_of_it() {
        let (connector, address) = (connector(b""), address());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut dialogue = dialogue(&connector, &address, ours);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(dialogue.long_silence().is_none());
        tokio::time::advance(Duration::from_millis(2999)).await;
        let end = dialogue.long_silence().unwrap();
        assert!(end.to_string().starts_with("the backend sent nothing for 6s; "), "{end}");
        dialogue.talk.is_heard = true;
        assert!(dialogue.long_silence().is_none(), "it is not silent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_never_greets_is_silent_and_one_that_stops_is_late() {
        let (connector, address) = (connector(b""), address());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut silent = dialogue(&connector, &address, ours);
        // Connecting has used some of `timeouts.connect`.
        tokio::time::advance(Duration::from_millis(1)).await;
        let end = silent.exchange().await.unwrap_err();
        assert!(end.to_string().starts_with("the backend sent nothing for 60s; "), "{end}");
        assert!(end.to_string().contains("upstream.tls.mode: Implicit"), "{end}");
        let (ours, mut late) = UnixStream::pair().unwrap();
        late.write_all(b"+OK\r\n").await.unwrap();
        let mut dialogue = dialogue(&connector, &address, ours);
        dialogue.exchange().await.unwrap();
        assert!(matches!(dialogue.exchange().await, Err(End::BackendTimeout)));
        theirs.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn nothing_is_sent_before_what_came_first_is_judged() {
        let (connector, address) = (connector(b""), address());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut dialogue = dialogue(&connector, &address, ours);
        theirs.write_all(b"-ERR what\r\n").await.unwrap();
        dialogue.out = b"PASS secret\r\n".to_vec();
        dialogue.exchange().await.unwrap();
        assert!(dialogue.connection.input.is_unasked() && dialogue.out == b"PASS secret\r\n");
        drop(dialogue);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap_or_default();
        assert_eq!(heard, b"");
    }

    #[tokio::test]
    async fn what_comes_while_a_client_answers_a_challenge_is_judged_before_the_answer_is_sent() {
        let (connector, address) = (connector(b""), address());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut dialogue = dialogue(&connector, &address, ours);
        theirs.write_all(b"+ Y2hhbGxlbmdl\r\n").await.unwrap();
        dialogue.exchange().await.unwrap();
        let challenge = dialogue.connection.input.len();
        dialogue.connection.input.consume(challenge);
        theirs.write_all(b"-ERR too late\r\n").await.unwrap();
        dialogue.extend_deadline();
        dialogue.out = b"cGFzc3dvcmQ=\r\n".to_vec();
        dialogue.exchange().await.unwrap();
        assert!(dialogue.connection.input.is_unasked() && dialogue.out == b"cGFzc3dvcmQ=\r\n");
    }

    #[tokio::test]
    async fn a_refusal_behind_a_header_counts_when_the_next_answer_is_the_next_commands() {
        let (connector, address) = (connector(b"PROXY UNKNOWN\r\n"), address());
        for (rest, is_meant) in [(&b"+OK bye\r\n"[..], true), (b"+OK\r\n+OK bye\r\n", false), (b"", false)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut dialogue = dialogue(&connector, &address, ours);
            dialogue.talk.asked = 1;
            theirs.write_all(rest).await.unwrap();
            theirs.shutdown().await.unwrap();
            let judged = dialogue.judge(Protocol::Pop3, &refusal()).await;
            assert_eq!(judged.is_ok(), is_meant, "{judged:?}");
            assert!(is_meant || matches!(judged, Err(End::BehindHeader(_))));
        }
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut later = dialogue(&connector, &address, ours);
        later.talk.asked = 2;
        assert!(later.judge(Protocol::Pop3, &refusal()).await.is_ok(), "PASS was refused");
    }
}
