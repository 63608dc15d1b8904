//! Reads quoted strings and literals, which IMAP (RFC 9051 section 4.3) and ManageSieve (RFC 5804 section 1.2) share.
//!
//! A command stays in the input until it is complete, so the input limits its size, including literals. It is parsed
//! again from its start only when another line of it has arrived: at most once per literal.

use crate::secret::{Secret, Wiped};

/// Why reading stops before the end of the command.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The bytes are no command.
    Invalid,
    /// More bytes have to arrive, at least as many as this position and a line end.
    Incomplete { literal_end: usize },
}

/// Reads the command at the front of `bytes`.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    /// The position of the next byte; of the offending one if the command is invalid.
    pub(crate) at: usize,
    /// The number of literals `{n}`, whose client waits to be asked for them.
    pub(crate) synchronising: usize,
    /// Whether such literals are accepted.
    takes_synchronising: bool,
    literal_end: usize,
    /// A command with a literal must be shorter than this.
    pub(crate) limit: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { bytes, at: 0, synchronising: 0, takes_synchronising: true, literal_end: 0, limit }
    }

    /// Refuses literals `{n}`.
    pub(crate) fn without_synchronising(self) -> Self {
        Self { takes_synchronising: false, ..self }
    }

    /// Reads bytes until a separator or the line end.
    pub(crate) fn atom(&mut self, separators: &[u8]) -> Result<Secret, Stop> {
        let from = self.at;
        while !self.peek_is(|byte| matches!(byte, b'\r' | b'\n') || separators.contains(&byte))? {
            self.advance(1);
        }
        Ok(Secret::from(self.since(from)))
    }

    /// Reads a quoted string from its opening quote. A line end within it is an error (quirk Q-34).
    pub(crate) fn quoted(&mut self) -> Result<Secret, Stop> {
        self.advance(1);
        // Allocated once, so that no unwiped copy of a password remains.
        let mut text = Wiped::with_capacity(self.line_length());
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.advance(1),
                _ => {}
            }
            match self.peek()? {
                b'\r' | b'\n' => return Err(Stop::Invalid),
                byte => text.push(byte),
            }
            self.advance(1);
        }
        self.advance(1);
        Ok(Secret::from(text.as_slice()))
    }

    /// Reads `{n}` or `{n+}` (RFC 7888), a line end and n bytes. A separator must follow. A literal that is too long for
    /// the limit is refused before the client is asked for it.
    pub(crate) fn literal(&mut self, separators: &[u8]) -> Result<Secret, Stop> {
        self.advance(1);
        let mut size = 0_usize;
        while self.peek_is(|byte| byte.is_ascii_digit())? {
            let digit = usize::from(self.peek()?.saturating_sub(b'0'));
            let longer = size.checked_mul(10).and_then(|size| size.checked_add(digit));
            size = longer.ok_or(Stop::Invalid)?;
            self.advance(1);
        }
        let synchronising = self.peek()? != b'+';
        if !synchronising {
            self.advance(1);
        }
        if self.peek()? != b'}' || (synchronising && !self.takes_synchronising) {
            return Err(Stop::Invalid);
        }
        let brace = self.at;
        self.advance(1);
        self.line_end()?;
        // The line end behind the literal is a part of the command.
        let Some(end) = self.at.checked_add(size).filter(|end| *end < self.limit) else {
            self.at = brace;
            return Err(Stop::Invalid);
        };
        if synchronising {
            self.synchronising = self.synchronising.saturating_add(1);
        }
        self.literal_end = end;
        // Wait for the rest of the line, so that the result does not depend on how many bytes have arrived.
        let rest = self.bytes.get(end..).filter(|rest| rest.contains(&b'\n'));
        let content = rest.and_then(|_| self.bytes.get(self.at..end));
        let content = content.ok_or(Stop::Incomplete { literal_end: end })?;
        self.at = end;
        let ends = self.peek_is(|byte| matches!(byte, b'\r' | b'\n') || separators.contains(&byte))?;
        if ends { Ok(Secret::from(content)) } else { Err(Stop::Invalid) }
    }

    /// Tells whether an argument follows. If not, takes the line end.
    pub(crate) fn has_argument(&mut self, separators: &[u8]) -> Result<bool, Stop> {
        self.skip(separators)?;
        let ends = matches!(self.peek()?, b'\r' | b'\n');
        if ends {
            self.line_end()?;
        }
        Ok(!ends)
    }

    /// Takes LF or CRLF. A CR alone is an error.
    fn line_end(&mut self) -> Result<(), Stop> {
        let length = match (self.peek()?, self.bytes.get(self.at.saturating_add(1))) {
            (b'\n', _) => 1,
            (b'\r', Some(b'\n')) => 2,
            (b'\r', None) => return Err(Stop::Incomplete { literal_end: self.literal_end }),
            _ => return Err(Stop::Invalid),
        };
        self.advance(length);
        Ok(())
    }

    pub(crate) fn skip(&mut self, separators: &[u8]) -> Result<(), Stop> {
        while self.peek_is(|byte| separators.contains(&byte))? {
            self.advance(1);
        }
        Ok(())
    }

    pub(crate) fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::Incomplete { literal_end: self.literal_end })
    }

    pub(crate) fn peek_is(&self, accepted: impl Fn(u8) -> bool) -> Result<bool, Stop> {
        self.peek().map(accepted)
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    pub(crate) fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Returns the number of bytes before the next LF.
    fn line_length(&self) -> usize {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
    }

    /// Returns the rejected line without its line end, and the start of the next line.
    pub(crate) fn rest_of_line(&self) -> (&'a [u8], usize) {
        let end = self.at.saturating_add(self.line_length());
        let line = self.bytes.get(..end).unwrap_or_default();
        (line.strip_suffix(b"\r").unwrap_or(line), end.saturating_add(1))
    }
}

/// How much of the command at the front of the input was looked at.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The end of the last literal. The command cannot be complete before.
    literal_end: usize,
    /// Bytes without a line end, which need not be searched again.
    searched: usize,
}

impl Looked {
    /// Tells whether another line of the command has arrived.
    pub(crate) fn has_new_line(&self, bytes: &[u8]) -> bool {
        let from = self.searched.max(self.literal_end);
        bytes.get(from..).is_some_and(|rest| rest.contains(&b'\n'))
    }

    /// Notes that the command ends behind this literal.
    pub(crate) fn note_literal(&mut self, end: usize) {
        self.literal_end = end;
    }

    /// Notes that the command is not complete in this many bytes.
    pub(crate) fn note_searched(&mut self, bytes: usize) {
        self.searched = bytes;
    }
}
