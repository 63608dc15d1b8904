//! One direction of the relay: writes what was read at once, as far as the gate allows and the sink accepts.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use crate::protocol::CloseReason;
use crate::protocol::follow::{MAX_COMMAND_LINE, Passage};
use crate::secret::Wiped;

use super::nagle::Nagle;
use crate::proxy::end::End;

/// The state of one direction: the bytes that are not written yet, and how far its end has progressed.
#[derive(Debug)]
pub(super) struct Direction {
    phase: Phase,
    pending: Option<Pending>,
    /// Something was written that may not be sent yet.
    is_unflushed: bool,
    /// Bytes of the source that the gate has passed or dropped, and those inserted by [`Direction::say`].
    pub(super) bytes: u64,
    /// Changes whenever something is read or inserted.
    pub(super) moves: u64,
    counter: IntCounter,
    nagle: Nagle,
}

/// How far the end has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The source has ended; the sink may still have to get its last bytes.
    Ended,
    /// The end was passed on to the sink.
    Shut,
    /// The sink accepts no more bytes, so the source is not read any more.
    Broken {
        has_ended: bool,
    },
}

/// Bytes that were read but not all written.
#[derive(Debug)]
struct Pending {
    bytes: Box<[u8]>,
    cursor: Cursor,
    obstacle: Obstacle,
}

/// Positions in a chunk: `..written` is written, `written..passed` may be written, and the rest is not decided yet.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    written: usize,
    passed: usize,
}

/// Why not all bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The sink accepts no more bytes now.
    Sink,
    /// The gate needs more bytes to decide about the rest.
    Incomplete,
    /// The gate holds the rest back until the other direction has moved.
    Waiting,
}

/// What failed: reading, writing, or the client's bytes violate a rule.
#[derive(Debug)]
pub(super) enum Failure {
    Read(io::Error),
    Write(io::Error),
    Rule(CloseReason),
}

impl Failure {
    pub(super) fn of(self, source: &'static str, sink: &'static str) -> End {
        match self {
            Self::Read(error) => End::Relay { side: source, error },
            Self::Write(error) => End::Relay { side: sink, error },
            Self::Rule(reason) => End::Rule(reason),
        }
    }
}

impl Direction {
    /// Creates a direction that starts with the bytes `first`. The gate is not asked about the first `passed` of them.
    pub(super) fn new(first: &[u8], passed: usize, counter: IntCounter, nagle: Nagle) -> Self {
        let mut direction = Self {
            phase: Phase::Open,
            pending: None,
            is_unflushed: false,
            bytes: 0,
            moves: 0,
            counter,
            nagle,
        };
        direction.count(passed);
        direction.keep(first, Cursor { written: 0, passed }, Obstacle::Sink);
        direction
    }

    /// Tells whether all bytes are written.
    pub(super) const fn is_clear(&self) -> bool {
        self.pending.is_none()
    }

    /// Tells whether all bytes are written and sent.
    pub(super) const fn is_flushed(&self) -> bool {
        self.is_clear() && !self.is_unflushed
    }

    /// Takes the bytes that are not written.
    pub(super) fn into_rest(self) -> Wiped {
        Wiped::from(self.pending.map(|pending| pending.rest().to_vec()).unwrap_or_default())
    }

    /// Tells whether the source has ended.
    pub(super) const fn has_ended(&self) -> bool {
        !matches!(self.phase, Phase::Open | Phase::Broken { has_ended: false })
    }

    /// Tells whether the end was passed on to the sink.
    pub(super) const fn is_shut(&self) -> bool {
        matches!(self.phase, Phase::Shut)
    }

    /// Tells whether the sink accepts no more bytes.
    pub(super) const fn is_broken(&self) -> bool {
        matches!(self.phase, Phase::Broken { .. })
    }

    /// Tells whether the gate holds bytes back until the other direction has moved.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.obstacle == Obstacle::Waiting)
    }

    /// Inserts `text` after the source's bytes. The caller makes sure that everything before is written
    /// ([`Self::is_clear`]).
    pub(super) fn say(&mut self, text: &'static [u8]) {
        self.moves = self.moves.wrapping_add(1);
        self.count(text.len());
        self.keep(text, Cursor { written: 0, passed: text.len() }, Obstacle::Sink);
    }

    /// Stops the direction, because the sink accepts no more bytes.
    pub(super) fn give_up(&mut self) {
        self.pending = None;
        self.phase = Phase::Broken { has_ended: self.has_ended() };
    }

    /// Moves as many bytes as possible. Ready when the source has ended and the end is passed on. `gate` decides about
    /// every byte before it is written.
    pub(super) fn poll(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        mut gate: impl FnMut(&[u8]) -> Passage,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        if self.is_broken() {
            return Poll::Pending;
        }
        loop {
            match self.write_pending(to, &mut gate, cx)? {
                Some(Obstacle::Sink) => return Poll::Pending,
                Some(Obstacle::Waiting) => {
                    self.read_ahead(from, cx)?;
                    ready!(self.poll_flush(to, cx))?;
                    return Poll::Pending;
                }
                None if self.has_ended() => return self.poll_end(to, cx),
                None | Some(Obstacle::Incomplete) => {}
            }
            let moved =
                RELAY_BUFFER.with_borrow_mut(|buffer| self.poll_chunk(from, to, &mut gate, buffer, cx));
            match moved {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => {
                    ready!(self.poll_flush(to, cx))?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads once, after the incomplete rest, and writes as much as the gate and the sink allow.
    fn poll_chunk(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        gate: &mut impl FnMut(&[u8]) -> Passage,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        let held = self.pending.as_ref().map_or(&[][..], Pending::rest);
        let mut read = ReadBuf::new(buffer);
        read.put_slice(held);
        let before = held.len();
        match ready!(Pin::new(&mut *from).poll_read(cx, &mut read)) {
            Ok(()) => {}
            // Closed without close_notify. Many clients do this, and it is safe because the mail protocol marks the end
            // of each message.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => read.set_filled(before),
            Err(error) => return Poll::Ready(Err(Failure::Read(error))),
        }
        self.pending = None;
        let count = read.filled().len().saturating_sub(before);
        if count == 0 {
            // An incomplete command at the end is dropped.
            self.phase = Phase::Ended;
            return Poll::Ready(Ok(()));
        }
        self.moves = self.moves.wrapping_add(1);
        if is_last(from, read.remaining(), cx) {
            self.phase = Phase::Ended;
        }
        let (cursor, obstacle) = self.write(read.filled(), Cursor::default(), to, gate, cx)?;
        if let Some(obstacle) = obstacle {
            self.keep(read.filled(), cursor, obstacle);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what the source sends while its bytes wait for the other direction, to detect its end or reset at once.
    /// Keeps at most one read in total. If the source sends more, it is read when the other direction moves.
    fn read_ahead(&mut self, from: &mut Stream, cx: &mut Context<'_>) -> Result<(), Failure> {
        while self.phase == Phase::Open {
            let Some(pending) = &mut self.pending else { return Ok(()) };
            let room = RELAY_BUFFER_SIZE.saturating_sub(pending.rest().len());
            if room == 0 {
                return Ok(());
            }
            let read = RELAY_BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
                match Pin::new(&mut *from).poll_read(cx, &mut read) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                        return Err(Failure::Read(error));
                    }
                    Poll::Ready(_) => {}
                }
                pending.append(read.filled());
                Ok(Some(read.filled().len()))
            })?;
            match read {
                None => return Ok(()),
                Some(0) => self.phase = Phase::Ended,
                Some(_) => self.moves = self.moves.wrapping_add(1),
            }
        }
        Ok(())
    }

    fn write_pending(
        &mut self,
        to: &mut Stream,
        gate: &mut impl FnMut(&[u8]) -> Passage,
        cx: &mut Context<'_>,
    ) -> Result<Option<Obstacle>, Failure> {
        let Some(mut pending) = self.pending.take() else { return Ok(None) };
        let mut obstacle = Some(pending.obstacle);
        if pending.obstacle != Obstacle::Incomplete {
            (pending.cursor, obstacle) = self.write(&pending.bytes, pending.cursor, to, gate, cx)?;
        }
        self.pending = obstacle.map(|obstacle| Pending { obstacle, ..pending });
        Ok(obstacle)
    }

    /// Writes the bytes that the gate allows. Without an obstacle, all bytes are written or dropped.
    fn write(
        &mut self,
        bytes: &[u8],
        cursor: Cursor,
        to: &mut Stream,
        gate: &mut impl FnMut(&[u8]) -> Passage,
        cx: &mut Context<'_>,
    ) -> Result<(Cursor, Option<Obstacle>), Failure> {
        let Cursor { mut written, mut passed } = cursor;
        let obstacle = loop {
            let open = bytes.get(written..passed).unwrap_or_default();
            if !open.is_empty() {
                self.nagle.before_write(to);
                match Pin::new(&mut *to).poll_write(cx, open) {
                    Poll::Ready(Ok(0)) => return Err(Failure::Write(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => written = written.saturating_add(count),
                    Poll::Ready(Err(error)) => return Err(Failure::Write(error)),
                    Poll::Pending => break Some(Obstacle::Sink),
                }
                self.is_unflushed = true;
                continue;
            }
            let rest = bytes.get(passed..).unwrap_or_default();
            if rest.is_empty() {
                break None;
            }
            match gate(rest) {
                Passage::Pass(count) => {
                    self.count(count);
                    passed = passed.saturating_add(count);
                }
                Passage::Drop(count) => {
                    self.count(count);
                    passed = passed.saturating_add(count);
                    written = passed;
                }
                Passage::More => break Some(Obstacle::Incomplete),
                Passage::Wait => break Some(Obstacle::Waiting),
                Passage::Close(reason) => return Err(Failure::Rule(reason)),
            }
        };
        Ok((Cursor { written, passed }, obstacle))
    }

    /// Keeps the bytes that are not written.
    fn keep(&mut self, bytes: &[u8], Cursor { written, passed }: Cursor, obstacle: Obstacle) {
        let rest = bytes.get(written..).unwrap_or_default();
        self.pending = (!rest.is_empty()).then(|| Pending {
            bytes: rest.into(),
            cursor: Cursor { written: 0, passed: passed.saturating_sub(written) },
            obstacle,
        });
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.counter.inc_by(bytes as u64);
    }

    fn poll_flush(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.is_unflushed {
            ready!(Pin::new(to).poll_flush(cx)).map_err(Failure::Write)?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.is_shut() {
            // The sink may already be closed, so errors do not matter.
            let _ = ready!(Pin::new(&mut *to).poll_flush(cx));
            let _ = ready!(Pin::new(to).poll_shutdown(cx));
            self.phase = Phase::Shut;
        }
        Poll::Ready(Ok(()))
    }
}

/// Tells whether a read that left `room` has got the last bytes of the source.
fn is_last(source: &Stream, room: usize, cx: &mut Context<'_>) -> bool {
    matches!(source, Stream::Plain(socket) if room > 0 && socket.has_end_event(cx))
}

impl Pending {
    fn append(&mut self, more: &[u8]) {
        if !more.is_empty() {
            let Cursor { written, passed } = self.cursor;
            self.cursor = Cursor { written: 0, passed: passed.saturating_sub(written) };
            self.bytes = [self.bytes.get(written..).unwrap_or_default(), more].concat().into_boxed_slice();
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.cursor.written..).unwrap_or_default()
    }
}

/// Bytes per read. Each worker has one such buffer, whatever its number of sessions.
const RELAY_BUFFER_SIZE: usize = 64 * 1024;

const _: () = assert!(MAX_COMMAND_LINE < RELAY_BUFFER_SIZE, "an incomplete command leaves room to read");

thread_local! {
    static RELAY_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; RELAY_BUFFER_SIZE].into_boxed_slice());
}
