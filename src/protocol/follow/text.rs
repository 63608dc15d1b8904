//! Finds the end of an SMTP message or chunk, and places where servers disagree about it.
//!
//! RFC 5321 section 4.1.1.4 allows only CRLF `.` CRLF. Some servers also accept a dot between bare LFs or CRs, or with
//! NULs on its line: for example, Postfix with `smtpd_forbid_bare_newline = no`, the default before 3.9 ("SMTP
//! smuggling"). Such a place is in doubt.

use memchr::memchr2;

/// A position in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the start of a line; `proper`: after CRLF.
    Start { proper: bool },
    /// After the dot at the start of a line.
    Dot { proper: bool },
    /// After this dot and a CR.
    DotCr { proper: bool },
    /// After a CR elsewhere.
    Cr,
    /// Within a line.
    Inside,
}

/// How far the text extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Past all the bytes.
    All(Place),
    /// This many bytes, including the end of the message.
    End(usize),
    /// This many bytes, possibly 0; after them, it is in doubt.
    Doubt(usize),
}

impl Place {
    /// After DATA and its reply.
    pub(super) const FIRST: Self = Self::Start { proper: true };

    /// Reads `bytes` from this position.
    pub(super) fn read(mut self, bytes: &[u8]) -> Extent {
        let mut at = 0_usize;
        while let Some(&byte) = bytes.get(at) {
            if self == Self::Inside && !matches!(byte, b'\r' | b'\n') {
                let rest = bytes.get(at..).unwrap_or_default();
                let Some(found) = memchr2(b'\r', b'\n', rest) else { return Extent::All(Self::Inside) };
                at = at.saturating_add(found);
                continue;
            }
            let next = at.saturating_add(1);
            self = match (self, byte) {
                (Self::DotCr { proper: true }, b'\n') => return Extent::End(next),
                (Self::DotCr { proper: false } | Self::Dot { .. }, b'\n') => return Extent::Doubt(next),
                (Self::DotCr { .. }, _) => return Extent::Doubt(at),
                (Self::Dot { proper }, b'\r') => Self::DotCr { proper },
                (Self::Dot { .. }, 0) => Self::Dot { proper: false },
                (Self::Cr, b'\n') => Self::Start { proper: true },
                (Self::Start { .. } | Self::Inside, b'\n') => Self::Start { proper: false },
                (_, b'\r') => Self::Cr,
                (Self::Start { proper }, b'.') => Self::Dot { proper },
                // Some servers accept a bare CR as a line end.
                (Self::Cr, b'.') => Self::Dot { proper: false },
                (Self::Start { .. } | Self::Cr, 0) => Self::Start { proper: false },
                (Self::Start { .. } | Self::Cr | Self::Dot { .. } | Self::Inside, _) => Self::Inside,
            };
            at = next;
        }
        Extent::All(self)
    }
}

/// Reads the arguments of BDAT: a size of digits only, small enough that all backends read the same number, and
/// whether LAST follows. After anything else, backends disagree whether a chunk follows.
pub(super) fn chunk_size<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<(u64, bool)> {
    let (word, last) = (arguments.next()?, arguments.next());
    if last.is_some_and(|last| !last.eq_ignore_ascii_case(b"LAST")) || arguments.next().is_some() {
        return None;
    }
    let digits = word.iter().all(u8::is_ascii_digit);
    let size = std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()?;
    (size <= MAX_CHUNK).then_some((size, last.is_some()))
}

/// A backend with 32-bit sizes would read the rest of a larger chunk as commands.
const MAX_CHUNK: u64 = i32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Extent {
        Place::FIRST.read(text)
    }

    #[test]
    fn a_message_ends_with_a_dot_between_crlf() {
        assert_eq!(read(b".\r\nQUIT\r\n"), Extent::End(3));
        assert_eq!(read(b"a\r\n.\r\nQUIT\r\n"), Extent::End(6));
        assert_eq!(read(b"a\n.b\r\n..\r\n.c\r\n.\r\n"), Extent::End(17));
    }

    #[test]
    fn ends_that_servers_disagree_about_are_in_doubt() {
        for text in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r.\r\n",
            b"a\r\n.\rb",
            b"a\r\n.\r\r\n",
            b"a\r\n\0.\r\n",
            b"a\r\n.\0\r\n",
            b".\n",
            b"\n.\r\n",
        ] {
            assert!(matches!(read(text), Extent::Doubt(_)), "{}: {:?}", text.escape_ascii(), read(text));
        }
    }

    #[test]
    fn text_is_no_end() {
        for text in
            [&b"a\r\n..\r\n"[..], b"a.\r\n", b"a\nb\r\n", b". \r\n", b"\r\r\n", b"a\r\n.", b"a\r\n.\r"]
        {
            assert!(matches!(read(text), Extent::All(_)), "{}: {:?}", text.escape_ascii(), read(text));
        }
    }
}
