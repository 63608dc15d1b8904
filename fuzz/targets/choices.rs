//! Reads settings from the first bytes of an input; the rest is what a peer sends.
//!
//! One byte decides one thing, and a missing byte is 0, so a small change of an input is a small change of what it means.

/// The bytes that are not read yet.
#[derive(Clone, Copy)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Returns an array of bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Returns the rest in parts; see [`SEPARATOR`].
    pub(super) fn parts(self) -> Vec<&'a [u8]> {
        self.0.split(|byte| *byte == SEPARATOR).collect()
    }
}

/// Tells whether a bit is set.
pub(super) fn bit(byte: u8, number: u32) -> bool {
    byte >> number & 1 == 1
}

/// Returns one of the items.
pub(super) fn pick<T: Copy, const N: usize>(number: u8, items: [T; N]) -> T {
    items[usize::from(number) % N]
}

/// Returns the sizes of chunks, repeated for ever; each at least 1. 0 and 1 stand for single bytes.
pub(super) fn sizes(number: u8) -> impl FnMut(usize) -> usize {
    let mut sizes = [usize::from(number % 16), usize::from(number / 16)].into_iter().cycle();
    move |available| sizes.next().unwrap_or(1).clamp(1, available.max(1))
}

/// Separates what is sent at different times. It is in no valid UTF-8.
pub(super) const SEPARATOR: u8 = 0xff;
