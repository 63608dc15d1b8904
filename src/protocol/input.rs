//! What a peer has sent and no machine has taken yet; bounded, wiped on drop.
//!
//! Also the home of [`Cleartext`], with which every TLS handshake starts. Making one consumes the input, so bytes that
//! arrived in clear cannot reach the machine that reads after the handshake (RFC 3207 section 4.2, CVE-2011-0411).

use std::fmt;

use zeroize::Zeroizing;

/// A bounded buffer of bytes received and not yet consumed.
///
/// Consumed bytes free their room at once: pipelined commands are bounded one by one, never by their sum.
/// An empty input holds no allocation after [`Input::release`], so that idle sessions cost nothing.
pub struct Input {
    bytes: Zeroizing<Vec<u8>>,
    start: usize,
    limit: usize,
    /// Bytes at the front that came before the last question; `None` where nobody asks.
    unasked: Option<usize>,
    /// What the line at the front may have in place of `limit`.
    allowed: usize,
}

/// A stream in clear, after its input was given up. TLS acceptors and connectors take nothing else.
#[derive(Debug)]
pub struct Cleartext<S> {
    stream: S,
    refused: usize,
}

/// Proof that nothing received in clear outlives the handshake; only a [`Cleartext`] gives it.
#[derive(Debug)]
pub struct HandshakeProof(());

impl<S> Cleartext<S> {
    /// `input` is everything that was received from `stream`. What it still holds is wiped and never parsed, as nginx
    /// does.
    #[must_use]
    pub fn new(stream: S, input: Input) -> Self {
        Self { stream, refused: input.len() }
    }

    /// The number of bytes that were wiped. A peer that pipelines behind STARTTLS is broken or an attack.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// For the handshake.
    #[must_use]
    pub fn into_parts(self) -> (S, HandshakeProof) {
        (self.stream, HandshakeProof(()))
    }
}

/// The peer sent more than the buffer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input exceeds the buffer of {limit} bytes")]
pub struct InputFull {
    /// The bound that was exceeded, in bytes.
    pub limit: usize,
}

/// Says how much is buffered and not what: it may be a password.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("len", &self.len()).field("limit", &self.limit).finish()
    }
}

impl Input {
    /// An empty input that will hold at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: Zeroizing::new(Vec::new()), start: 0, limit, unasked: None, allowed: limit }
    }

    /// The same for a server's replies: it knows which bytes came before the last question ([`Input::note_question`]).
    #[must_use]
    pub fn of_replies(limit: usize) -> Self {
        Self { unasked: Some(0), ..Self::new(limit) }
    }

    /// A question is about to be sent: whatever is here now does not answer it.
    pub fn note_question(&mut self) {
        let held = self.len();
        if let Some(unasked) = &mut self.unasked {
            *unasked = held;
        }
    }

    /// Whether the next byte came before the last question.
    #[must_use]
    pub fn is_unasked(&self) -> bool {
        self.unasked.is_some_and(|bytes| bytes > 0)
    }

    /// What it holds at most, unless more is allowed.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Lets it hold more until something is consumed: what stands at its front may be that long.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed = bytes.max(self.limit);
    }

    /// How many more bytes [`Input::append`] takes now; 0 means that a machine must consume first.
    #[must_use]
    pub fn room(&self) -> usize {
        self.allowed.saturating_sub(self.len())
    }

    /// Appends what was read from the peer.
    ///
    /// # Errors
    /// [`InputFull`] when `bytes` is longer than [`Input::room`]; nothing is appended then.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), InputFull> {
        if bytes.len() > self.room() {
            return Err(InputFull { limit: self.allowed });
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Makes room without leaving an unwiped copy behind.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len().saturating_add(more);
        if needed > self.bytes.capacity() {
            let roomy = self.bytes.capacity().saturating_mul(2).min(self.allowed).max(needed);
            let mut bytes = Zeroizing::new(Vec::with_capacity(roomy));
            bytes.extend_from_slice(&self.bytes);
            self.bytes = bytes;
        }
    }

    /// Everything that was received and not consumed.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Forgets the first `count` bytes of [`Input::peek`]; at most all of them.
    pub fn consume(&mut self, count: usize) {
        self.unasked = self.unasked.map(|bytes| bytes.saturating_sub(count));
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        self.allowed = self.limit;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// The number of bytes not consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Whether everything received was consumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the peer filled the buffer without completing what a machine waits for.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Gives the allocation back when nothing is buffered; called before waiting for a quiet peer.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.bytes = Zeroizing::new(Vec::new());
            self.start = 0;
        }
    }

    /// The rest, for the relay: bytes that a client pipelined behind its login belong to the backend.
    #[must_use]
    pub fn into_rest(self) -> Zeroizing<Vec<u8>> {
        let Self { mut bytes, start, .. } = self;
        bytes.drain(..start);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_what_is_buffered() {
        let mut input = Input::new(16);
        input.append(b"PASS pw").unwrap();
        assert_eq!(format!("{input:?}"), "Input { len: 7, limit: 16 }");
    }

    #[test]
    fn bounds_what_is_held_and_not_what_passed_through() {
        let mut input = Input::new(4);
        for _ in 0..100 {
            input.append(b"abc").unwrap();
            input.consume(3);
        }
        input.append(b"abcd").unwrap();
        assert!(input.is_full());
        assert_eq!(input.append(b"e"), Err(InputFull { limit: 4 }));
        assert_eq!(input.peek(), b"abcd");
    }

    #[test]
    fn knows_which_bytes_came_before_a_question() {
        let mut input = Input::of_replies(16);
        input.append(b"+OK\n-ERR\n").unwrap();
        assert!(!input.is_unasked(), "a greeting answers nothing");
        input.consume(4);
        input.note_question();
        input.append(b"+OK\n").unwrap();
        assert!(input.is_unasked());
        input.consume(5);
        assert!(!input.is_unasked());
        let mut commands = Input::new(16);
        commands.append(b"NOOP\n").unwrap();
        commands.note_question();
        assert!(!commands.is_unasked());
    }

    #[test]
    fn what_is_allowed_lasts_until_something_is_consumed() {
        let mut input = Input::new(4);
        input.append(b"abcd").unwrap();
        input.allow(6);
        assert_eq!(input.room(), 2);
        input.append(b"ef").unwrap();
        input.consume(1);
        assert_eq!((input.room(), input.is_full()), (0, true));
        input.consume(3);
        assert_eq!((input.peek(), input.room()), (&b"ef"[..], 2));
    }

    #[test]
    fn moves_the_tail_to_the_front() {
        let mut input = Input::new(4);
        input.append(b"abcd").unwrap();
        input.consume(3);
        input.append(b"efg").unwrap();
        assert_eq!(input.peek(), b"defg");
    }

    #[test]
    fn what_came_in_clear_is_refused_before_the_handshake() {
        let mut input = Input::new(8);
        input.append(b"NOOP\r\n").unwrap();
        assert_eq!(Cleartext::new((), input).refused(), 6);
        assert_eq!(Cleartext::new((), Input::new(8)).refused(), 0);
    }
}
