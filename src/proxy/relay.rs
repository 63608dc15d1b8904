//! The relay: after the login, bytes go both ways and no parser sees them.
//!
//! Here most sessions spend most of their life, so an idle one holds no buffer: what is read goes through a
//! buffer of the worker's thread and is written at once; only what the other side does not take yet is
//! kept, and then nothing more is read from its source. A FIN is passed on (quirk Q-33), and activity in
//! either direction counts for both timeouts.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::model::Timeouts;
use crate::net::Stream;

use super::end::End;

/// Both legs of a session that is logged in.
#[derive(Debug)]
pub(crate) struct Relay {
    client: Stream,
    backend: Stream,
    up: Direction,
    down: Direction,
    idle: Duration,
    half_closed: Duration,
    goodbye: Box<[u8]>,
}

/// One direction: what could not be written yet, and how far its end has come.
#[derive(Debug)]
struct Direction {
    pending: Option<Pending>,
    ended: bool,
    shut: bool,
    broken: bool,
    dirty: bool,
    at_line_start: bool,
    bytes: u64,
    counter: IntCounter,
}

#[derive(Debug)]
struct Pending {
    bytes: Box<[u8]>,
    written: usize,
}

/// What makes the relay look up.
#[derive(Debug)]
enum Progress {
    /// One side has ended; the other may have less time from now on: for most clients the session is over.
    HalfClosed,
    /// All is done, or broken.
    Ended(End),
}

/// What was relayed, whatever the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Relayed {
    /// From the client.
    pub(crate) to_backend: u64,
    /// To the client.
    pub(crate) to_client: u64,
}

impl Relay {
    /// A relay that first delivers `to_backend` (what the client pipelined behind its login) and
    /// `to_client` (the backend's last reply and what came behind it). `goodbye` is the protocol's line for
    /// the end of a drain; `counters` count towards the backend and towards the client.
    pub(crate) fn new(
        client: (Stream, &[u8]),
        backend: (Stream, &[u8]),
        timeouts: Timeouts,
        goodbye: Vec<u8>,
        counters: (IntCounter, IntCounter),
    ) -> Self {
        Self {
            up: Direction::new(client.1, counters.0),
            down: Direction::new(backend.1, counters.1),
            client: client.0,
            backend: backend.0,
            idle: timeouts.idle,
            half_closed: timeouts.half_closed,
            goodbye: goodbye.into_boxed_slice(),
        }
    }

    /// Relays until both sides are done, the idle timeout, or the end of a drain.
    pub(crate) async fn run(mut self, drained: &CancellationToken) -> (Relayed, End) {
        let end = tokio::select! {
            end = self.until_done() => end,
            () = drained.cancelled() => End::Drained,
        };
        let relayed = Relayed { to_backend: self.up.bytes, to_client: self.down.bytes };
        if matches!(end, End::Drained) {
            self.say_goodbye().await;
        }
        if self.down.ended && !self.up.ended {
            // A client that is still sending would lose the backend's last words to a reset.
            if self.down.shut {
                Box::pin(self.client.linger()).await;
            } else {
                Box::pin(self.client.close()).await;
            }
        }
        (relayed, end)
    }

    /// The idle timer is set anew only when it fires: activity just leaves its time behind.
    async fn until_done(&mut self) -> End {
        let mut active = Instant::now();
        let timer = sleep_until(active + self.idle);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                biased;
                progress = poll_fn(|cx| self.poll(&mut active, cx)) => match progress {
                    Progress::Ended(end) => return end,
                    Progress::HalfClosed => timer.as_mut().reset(active + self.patience()),
                },
                () = timer.as_mut() => {
                    let end = active + self.patience();
                    if end <= Instant::now() {
                        return End::Idle;
                    }
                    timer.as_mut().reset(end);
                }
            }
        }
    }

    /// For how long both directions may be quiet.
    fn patience(&self) -> Duration {
        if self.is_half_closed() && !self.ends_with_client() {
            self.idle.min(self.half_closed)
        } else {
            self.idle
        }
    }

    /// nginx's way: no time for an answer to a client that has ended its direction (quirk Q-33).
    fn ends_with_client(&self) -> bool {
        self.half_closed.is_zero()
    }

    fn is_half_closed(&self) -> bool {
        self.up.ended || self.up.broken || self.down.ended
    }

    fn poll(&mut self, active: &mut Instant, cx: &mut Context<'_>) -> Poll<Progress> {
        let was_half_closed = self.is_half_closed();
        let moved = (self.up.bytes, self.down.bytes);
        let end = self.poll_both(cx);
        if moved != (self.up.bytes, self.down.bytes) {
            *active = Instant::now();
        }
        match end {
            Poll::Ready(end) => Poll::Ready(Progress::Ended(end)),
            Poll::Pending if !was_half_closed && self.is_half_closed() => {
                *active = Instant::now();
                Poll::Ready(Progress::HalfClosed)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.up.poll(&mut self.client, &mut self.backend, cx) {
            // A backend that takes no more may have said why: that is still delivered.
            Poll::Ready(Err(Failure::Write(_))) if !self.down.ended => self.up.give_up(),
            Poll::Ready(Err(failure)) => return Poll::Ready(failure.of("client", "backend")),
            _ => {}
        }
        // A backend that ended has nothing more to say to any command.
        match self.down.poll(&mut self.backend, &mut self.client, cx) {
            Poll::Ready(Err(failure)) => Poll::Ready(failure.of("backend", "client")),
            Poll::Ready(Ok(())) => Poll::Ready(End::Done),
            Poll::Pending if self.up.shut && self.ends_with_client() => Poll::Ready(End::Done),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Only between lines: in the middle of one the goodbye would be read as part of the data.
    async fn say_goodbye(&mut self) {
        let farewell = async {
            if self.down.pending.is_none() && self.down.at_line_start && !self.down.ended {
                self.client.write_all(&self.goodbye).await?;
            }
            self.client.flush().await?;
            self.client.shutdown().await?;
            self.backend.shutdown().await
        };
        // A client that does not read has been told as far as it can be.
        let _ = timeout(GOODBYE_TIME, farewell).await;
    }
}

/// Which of a direction's two ends failed.
#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

impl Failure {
    fn of(self, source: &'static str, sink: &'static str) -> End {
        match self {
            Self::Read(error) => End::Relay { side: source, error },
            Self::Write(error) => End::Relay { side: sink, error },
        }
    }
}

impl Direction {
    fn new(first: &[u8], counter: IntCounter) -> Self {
        counter.inc_by(first.len() as u64);
        let pending = (!first.is_empty()).then(|| Pending { bytes: first.into(), written: 0 });
        Self {
            bytes: first.len() as u64,
            at_line_start: first.last().is_none_or(|byte| *byte == b'\n'),
            pending,
            ended: false,
            shut: false,
            broken: false,
            dirty: false,
            counter,
        }
    }

    /// Reads no more: the sink takes no more.
    fn give_up(&mut self) {
        self.pending = None;
        self.broken = true;
    }

    /// Moves what can be moved; ready when the source has ended and its end is passed on.
    fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        if self.broken {
            return Poll::Pending;
        }
        loop {
            ready!(self.poll_pending(to, cx))?;
            if self.ended {
                return self.poll_end(to, cx);
            }
            match RELAY_BUFFER.with_borrow_mut(|buffer| self.poll_chunk(from, to, buffer, cx)) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => {
                    if self.dirty {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(Failure::Write)?;
                        self.dirty = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// One read and as much of it written as the sink takes.
    fn poll_chunk(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let mut read = ReadBuf::new(buffer);
        match ready!(Pin::new(from).poll_read(cx, &mut read)) {
            Ok(()) => {}
            // Closed without close_notify: the relay's bytes are framed by the mail protocol, and half the
            // clients do it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => read.clear(),
            Err(error) => return Poll::Ready(Err(Failure::Read(error))),
        }
        let chunk = read.filled();
        let Some(last) = chunk.last() else {
            self.ended = true;
            return Poll::Ready(Ok(()));
        };
        self.at_line_start = *last == b'\n';
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
        self.counter.inc_by(chunk.len() as u64);
        self.dirty = true;
        let mut rest = chunk;
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Failure::Write(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Write(error))),
                Poll::Pending => {
                    self.pending = Some(Pending { bytes: rest.into(), written: 0 });
                    return Poll::Ready(Ok(()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_pending(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while let Some(pending) = &mut self.pending {
            let rest = pending.bytes.get(pending.written..).unwrap_or_default();
            if rest.is_empty() {
                self.pending = None;
                self.dirty = true;
                break;
            }
            match ready!(Pin::new(&mut *to).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(Failure::Write(io::ErrorKind::WriteZero.into()))),
                Ok(written) => pending.written = pending.written.saturating_add(written),
                Err(error) => return Poll::Ready(Err(Failure::Write(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.shut {
            // A sink that is gone already has been told.
            let _ = ready!(Pin::new(&mut *to).poll_flush(cx));
            let _ = ready!(Pin::new(to).poll_shutdown(cx));
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// For the goodbye of one session.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// Bytes moved by one read; a worker needs one such buffer, however many sessions it has.
const RELAY_BUFFER_SIZE: usize = 64 * 1024;

thread_local! {
    static RELAY_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; RELAY_BUFFER_SIZE].into_boxed_slice());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;

    use crate::net::Socket;

    struct Ends {
        client: UnixStream,
        backend: UnixStream,
        relay: JoinHandle<(Relayed, End)>,
        drained: CancellationToken,
    }

    fn relay(to_backend: &[u8], to_client: &[u8], idle: Duration) -> Ends {
        relay_within(to_backend, to_client, idle, HALF_CLOSED)
    }

    fn relay_within(to_backend: &[u8], to_client: &[u8], idle: Duration, half_closed: Duration) -> Ends {
        let (client, ours) = UnixStream::pair().unwrap();
        let (backend, theirs) = UnixStream::pair().unwrap();
        let drained = CancellationToken::new();
        let counter = || IntCounter::new("test", "test").unwrap();
        let relay = Relay::new(
            (Stream::Plain(Socket::Unix(ours)), to_backend),
            (Stream::Plain(Socket::Unix(theirs)), to_client),
            Timeouts { client: HOUR, connect: HOUR, idle, half_closed, announce: true },
            b"* BYE later\r\n".to_vec(),
            (counter(), counter()),
        );
        let token = drained.clone();
        let relay = tokio::spawn(async move { relay.run(&token).await });
        Ends { client, backend, relay, drained }
    }

    async fn read_all(mut stream: UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn delivers_what_was_left_of_the_login_first() {
        let mut ends = relay(b"b NOOP\r\n", b"a OK\r\n", HOUR);
        ends.backend.write_all(b"b OK\r\n").await.unwrap();
        let mut seen = [0; 12];
        ends.client.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"a OK\r\nb OK\r\n");
        let mut asked = [0; 8];
        ends.backend.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"b NOOP\r\n");
    }

    #[tokio::test]
    async fn passes_a_half_close_on_and_still_delivers_the_answer() {
        let mut ends = relay(b"", b"", HOUR);
        ends.client.write_all(b"QUIT\r\n").await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        ends.backend.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, b"QUIT\r\n");
        ends.backend.write_all(b"221 Bye\r\n").await.unwrap();
        drop(ends.backend);
        assert_eq!(read_all(ends.client).await, b"221 Bye\r\n");
        let (relayed, end) = ends.relay.await.unwrap();
        assert!(matches!(end, End::Done), "{end}");
        assert_eq!((relayed.to_backend, relayed.to_client), (6, 9));
    }

    #[tokio::test]
    async fn holds_back_a_source_whose_sink_is_slow_and_loses_nothing() {
        let ends = relay(b"", b"", HOUR);
        let (backend, client) = (ends.backend, ends.client);
        let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut backend = backend;
            backend.write_all(&sent).await.unwrap();
        });
        tokio::task::yield_now().await;
        assert!(read_all(client).await == expected);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn delivers_the_backends_last_words_to_a_client_that_is_still_sending() {
        for _ in 0..20 {
            let Ends { client, mut backend, relay, .. } = relay(b"", b"", HOUR);
            let (mut reader, mut writer) = client.into_split();
            let sending = tokio::spawn(async move { while writer.write_all(&[b'x'; 4096]).await.is_ok() {} });
            let mut seen = [0; 4096];
            backend.read_exact(&mut seen).await.unwrap();
            backend.write_all(b"421 shutting down\r\n").await.unwrap();
            drop(backend);
            let mut heard = Vec::new();
            // The connection may break after the words, never before.
            let _ = reader.read_to_end(&mut heard).await;
            assert_eq!(heard, b"421 shutting down\r\n");
            relay.await.unwrap();
            sending.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_only_when_neither_side_sends_within_the_idle_timeout() {
        let mut ends = relay(b"", b"", Duration::from_secs(30));
        for _ in 0..3 {
            ends.backend.write_all(b"* 1 EXISTS\r\n").await.unwrap();
            let mut seen = [0; 12];
            ends.client.read_exact(&mut seen).await.unwrap();
            tokio::time::advance(Duration::from_secs(20)).await;
        }
        assert!(!ends.relay.is_finished());
        let (_, end) = ends.relay.await.unwrap();
        assert!(matches!(end, End::Idle), "{end}");
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_the_time_of_a_session_of_which_one_side_has_ended() {
        let mut ends = relay(b"", b"", HOUR);
        let started = Instant::now();
        ends.client.shutdown().await.unwrap();
        let (_, end) = ends.relay.await.unwrap();
        assert!(matches!(end, End::Idle), "{end}");
        assert!((HALF_CLOSED..HALF_CLOSED * 2).contains(&started.elapsed()));
    }

    #[tokio::test]
    async fn the_end_of_the_client_is_the_end_of_the_session_where_nothing_is_waited_for() {
        let mut ends = relay_within(b"", b"", HOUR, Duration::ZERO);
        ends.backend.write_all(b"* 1 EXISTS\r\n").await.unwrap();
        ends.client.write_all(b"QUIT\r\n").await.unwrap();
        ends.client.shutdown().await.unwrap();
        assert_eq!(read_all(ends.client).await, b"* 1 EXISTS\r\n");
        assert_eq!(read_all(ends.backend).await, b"QUIT\r\n");
        let (relayed, end) = ends.relay.await.unwrap();
        assert!(matches!(end, End::Done), "{end}");
        assert_eq!((relayed.to_backend, relayed.to_client), (6, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_backend_is_never_the_end_of_what_it_said() {
        let Ends { client, mut backend, relay, .. } = relay_within(b"", b"", HOUR, Duration::ZERO);
        let said = vec![b'x'; 4_000_000];
        let expected = said.len();
        let saying = tokio::spawn(async move { backend.write_all(&said).await.unwrap() });
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(read_all(client).await.len(), expected);
        saying.await.unwrap();
        let (_, end) = relay.await.unwrap();
        assert!(matches!(end, End::Done), "{end}");
    }

    #[tokio::test]
    async fn says_goodbye_between_lines_only() {
        let mut between = relay(b"", b"a OK\r\n", HOUR);
        let mut seen = [0; 6];
        between.client.read_exact(&mut seen).await.unwrap();
        between.drained.cancel();
        assert_eq!(read_all(between.client).await, b"* BYE later\r\n");

        let mut within = relay(b"", b"* 1 FETCH {9}\r\nabc", HOUR);
        let mut seen = [0; 18];
        within.client.read_exact(&mut seen).await.unwrap();
        within.drained.cancel();
        assert_eq!(read_all(within.client).await, b"");
    }

    const HOUR: Duration = Duration::from_secs(3600);
    const HALF_CLOSED: Duration = Duration::from_secs(60);
}
