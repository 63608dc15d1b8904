//! The first and last bytes of a line, and the literal that it announces at its end.

/// At most `N` bytes without an allocation. `N` is less than 256: each session in the relay has some of these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> Bytes<N> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Appends as much of `more` as fits.
    pub(super) fn fill(&mut self, more: &[u8]) {
        let room = self.bytes.get_mut(usize::from(self.length)..).unwrap_or_default();
        let taken = room.iter_mut().zip(more).map(|(place, byte)| *place = *byte).count();
        self.length = self.length.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
    }

    /// Appends `more` and keeps only the last `N` bytes.
    pub(super) fn keep_last(&mut self, more: &[u8]) {
        let more = more.get(more.len().saturating_sub(N)..).unwrap_or_default();
        let excess = usize::from(self.length).saturating_add(more.len()).saturating_sub(N);
        self.bytes.rotate_left(excess.min(N));
        self.length = self.length.saturating_sub(u8::try_from(excess).unwrap_or(u8::MAX));
        self.fill(more);
    }
}

/// The end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    Plain,
    /// `{n}`, `{n+}` or `~{n}`.
    Literal(u64),
    /// Like a literal, but with more digits than a size can have.
    Unreadable,
}

impl LineEnd {
    pub(super) fn of(tail: &[u8]) -> Self {
        let text = tail.strip_suffix(b"\r").unwrap_or(tail);
        let Some(text) = text.strip_suffix(b"}") else { return Self::Plain };
        let text = text.strip_suffix(b"+").unwrap_or(text);
        let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (before, digits) = text.split_at(text.len().saturating_sub(digits));
        match before.last() {
            Some(b'{') if !digits.is_empty() => {
                let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                size.map_or(Self::Unreadable, Self::Literal)
            }
            None if digits.len() >= MOST_DIGITS => Self::Unreadable,
            _ => Self::Plain,
        }
    }
}

/// Digits of the largest 64-bit number.
const MOST_DIGITS: usize = 20;
