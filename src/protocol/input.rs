//! The bytes that a peer has sent and no state machine has consumed; bounded, and wiped on drop.
//!
//! Also contains [`Cleartext`], which every TLS handshake starts from. Creating one consumes the input, so that bytes
//! received in cleartext cannot reach the state machine that reads after the handshake (RFC 3207 section 4.2,
//! CVE-2011-0411).

use std::fmt;

use crate::secret::{self, Wiped};

/// A bounded buffer of bytes that were received and not yet consumed.
///
/// Consumed bytes free their room at once, so the limit applies to each of several pipelined commands, not to their
/// sum. After [`Input::release`], an empty input has no allocation, so that idle sessions need no memory.
pub struct Input {
    bytes: Wiped,
    start: usize,
    limit: usize,
    /// Number of bytes at the front that arrived before the last question; `None` if no questions are recorded.
    unasked: Option<usize>,
    /// The current limit, at least `limit`; larger while the line at the front may be longer.
    allowed: usize,
}

/// A cleartext stream whose input was given up. TLS acceptors and connectors accept nothing else.
#[derive(Debug)]
pub struct Cleartext<S> {
    stream: S,
    refused: usize,
}

/// Proof that no bytes received in cleartext survive the handshake. Only [`Cleartext`] creates it.
#[derive(Debug)]
pub struct HandshakeProof(());

impl<S> Cleartext<S> {
    /// `input` must hold everything that was received from `stream`. The bytes that it still holds are wiped and never
    /// parsed, as in nginx.
    pub(crate) fn new(stream: S, input: Input) -> Self {
        Self { stream, refused: input.len() }
    }

    /// Returns the number of wiped bytes. A peer that sends bytes after STARTTLS is broken or attacks.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Returns the parts for the handshake.
    #[must_use]
    pub fn into_parts(self) -> (S, HandshakeProof) {
        (self.stream, HandshakeProof(()))
    }
}

/// The peer sent more bytes than the buffer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input exceeds the buffer of {limit} bytes")]
pub struct InputFull {
    /// The limit that was exceeded, in bytes.
    pub limit: usize,
}

/// Prints how many bytes are buffered, not which: they may contain a password.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("len", &self.len()).field("limit", &self.limit).finish()
    }
}

impl Input {
    /// Creates an empty input that holds at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: Wiped::default(), start: 0, limit, unasked: None, allowed: limit }
    }

    /// Creates an input that holds these bytes, which may be more than the limit. It accepts more when enough of them are
    /// consumed.
    #[must_use]
    pub fn holding(bytes: Wiped, limit: usize) -> Self {
        Self { bytes, start: 0, limit, unasked: None, allowed: limit }
    }

    /// Creates an input for a server's replies. It records which bytes arrived before the last question
    /// ([`Input::note_question`]).
    #[must_use]
    pub fn of_replies(limit: usize) -> Self {
        Self { unasked: Some(0), ..Self::new(limit) }
    }

    /// Call this before a question is sent: the bytes that are here now do not answer it.
    pub fn note_question(&mut self) {
        let held = self.len();
        if let Some(unasked) = &mut self.unasked {
            *unasked = held;
        }
    }

    /// Tells whether the next byte arrived before the last question.
    #[must_use]
    pub fn is_unasked(&self) -> bool {
        self.unasked.is_some_and(|bytes| bytes > 0)
    }

    /// Returns the normal limit in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Raises the limit until bytes are consumed, because the line at the front may have this many bytes.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed = bytes.max(self.limit);
    }

    /// Returns how many more bytes [`Input::append`] accepts. With 0, a state machine must consume first.
    #[must_use]
    pub fn room(&self) -> usize {
        self.allowed.saturating_sub(self.len())
    }

    /// Appends bytes that were read from the peer.
    ///
    /// # Errors
    /// [`InputFull`] if `bytes` is longer than [`Input::room`]. Then nothing is appended.
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

    /// Reserves memory without leaving an unwiped copy.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len().saturating_add(more);
        if needed > self.bytes.capacity() {
            let roomy = self.bytes.capacity().saturating_mul(2).min(self.allowed).max(needed);
            secret::grow(&mut self.bytes, roomy);
        }
    }

    /// Returns the bytes that were received and not consumed.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Consumes the first `count` bytes of [`Input::peek`], at most all of them.
    pub fn consume(&mut self, count: usize) {
        self.unasked = self.unasked.map(|bytes| bytes.saturating_sub(count));
        self.start = self.start.saturating_add(count).min(self.bytes.len());
        self.allowed = self.limit;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Returns the number of bytes that are not consumed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Tells whether all received bytes are consumed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether the buffer is full, so that an incomplete line is too long.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Frees the allocation if nothing is buffered. Call it before waiting for a peer.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.bytes = Wiped::default();
            self.start = 0;
        }
    }

    /// Returns the unconsumed bytes for the relay: what a client sends after its login belongs to the backend.
    #[must_use]
    pub fn into_rest(self) -> Wiped {
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
    fn holds_more_than_its_limit_only_from_the_beginning() {
        let mut input = Input::holding(b"abcdef".to_vec().into(), 4);
        assert!(input.is_full() && input.append(b"g").is_err());
        input.consume(4);
        input.append(b"gh").unwrap();
        assert_eq!((input.peek(), input.room()), (&b"efgh"[..], 0));
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
