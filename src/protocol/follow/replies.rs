//! The replies of an SMTP backend, as far as the follower needs them.

use memchr::memchr;

/// The last line of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// 0 if the line has none.
    pub(super) code: u16,
    /// The enhanced code is `X.7.X`: security or policy (RFC 3463 section 3.8). The backend is in order, and does not
    /// want what the client does.
    pub(super) is_policy: bool,
}

/// Finds the ends of replies (RFC 5321 section 4.2.1).
#[derive(Debug)]
pub(super) struct Replies {
    /// The first bytes of the line, as many as have arrived.
    start: [u8; LINE_START],
    length: usize,
    /// After a line with `-`, so that more lines of the reply follow.
    is_within: bool,
    offers_chunking: bool,
}

impl Replies {
    pub(super) const fn new() -> Self {
        Self { start: [0; LINE_START], length: 0, is_within: false, offers_chunking: false }
    }

    /// Tells whether no part of an incomplete reply has arrived.
    pub(super) const fn is_between(&self) -> bool {
        self.length == 0 && !self.is_within
    }

    /// Tells whether a reply to EHLO had the line `CHUNKING` (RFC 3030 section 2).
    pub(super) const fn offers_chunking(&self) -> bool {
        self.offers_chunking
    }

    /// Returns the reply that ends in `bytes`, and the bytes after it.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> Option<(Reply, &'a [u8])> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest);
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            for byte in line {
                let Some(place) = self.start.get_mut(self.length) else { break };
                *place = *byte;
                self.length = self.length.saturating_add(1);
            }
            let end = end?;
            rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
            if let Some(reply) = self.end_of_line() {
                return Some((reply, rest));
            }
        }
        None
    }

    /// Ends a line. Returns it if it is the last line of its reply.
    fn end_of_line(&mut self) -> Option<Reply> {
        let [code @ .., _, _, _, _, _, _, _, _, _, _] = self.start;
        let line = self.start.get(..self.length).unwrap_or_default();
        self.is_within = line.get(3) == Some(&b'-');
        self.offers_chunking |= matches!(line.split_at_checked(4), Some((b"250-" | b"250 ", keyword))
            if keyword.trim_ascii_end().eq_ignore_ascii_case(b"CHUNKING"));
        let is_policy = matches!(line, [_, _, _, b' ', b'4' | b'5', b'.', b'7', b'.', ..]);
        self.length = 0;
        self.start = [0; LINE_START];
        let code = std::str::from_utf8(&code).ok().and_then(|digits| digits.parse().ok()).unwrap_or_default();
        (!self.is_within).then_some(Reply { code, is_policy })
    }
}

/// Bytes at the start of a line that are looked at.
const LINE_START: usize = "250-CHUNKING\r".len();
