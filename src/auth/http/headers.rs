//! The header lines of an answer.

use std::fmt;

use crate::secret::Wiped;

/// Header lines in their order. They are wiped when dropped, because `Auth-Pass` is a password.
#[derive(Default)]
pub struct Headers {
    /// The names and values, one after the other.
    text: Wiped,
    lines: Vec<Line>,
}

/// The position of a line in the text.
#[derive(Clone, Copy)]
struct Line {
    start: usize,
    value: usize,
    end: usize,
}

/// Prints how many lines there are, not what they contain.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").field("lines", &self.lines.len()).finish_non_exhaustive()
    }
}

impl Headers {
    /// Copies lines. The names and values have `room` bytes at most, so that growing leaves no copy of a password.
    pub fn new<'a>(room: usize, lines: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut headers = Self { text: Wiped::with_capacity(room), lines: Vec::with_capacity(lines.len()) };
        for (name, value) in lines {
            let start = headers.text.len();
            headers.text.extend_from_slice(name.as_bytes());
            let at = headers.text.len();
            // White space around it is not part of a value (RFC 9110 section 5.5).
            headers.text.extend_from_slice(value.trim_ascii());
            headers.lines.push(Line { start, value: at, end: headers.text.len() });
        }
        headers
    }

    /// Returns the values of all lines with this name, which is compared without case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.lines.iter().filter_map(move |line| {
            let has_name = self.text.get(line.start..line.value)?.eq_ignore_ascii_case(name.as_bytes());
            has_name.then(|| self.text.get(line.value..line.end)).flatten()
        })
    }

    /// Returns the value of the last line with this name.
    pub fn last<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_without_case_in_their_order() {
        let lines: [(&str, &[u8]); 4] =
            [("Auth-User", b" a "), ("X", b""), ("auth-user", b"b\xff"), ("Auth-Use", b"c")];
        let headers = Headers::new(100, lines.into_iter());
        assert_eq!(headers.all("auth-user").collect::<Vec<_>>(), [&b"a"[..], b"b\xff"]);
        assert_eq!(headers.last("AUTH-USER"), Some(&b"b\xff"[..]));
        assert_eq!(headers.last("x"), Some(&b""[..]));
        assert_eq!(headers.last("y"), None);
        assert_eq!(format!("{headers:?}"), "Headers { lines: 4, .. }");
    }
}
