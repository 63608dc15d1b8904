//! Parses the head of an HTTP reply and finds the end of its body. Pure.

use http::StatusCode;
use httparse::{EMPTY_HEADER, Status, parse_chunk_size, parse_headers};

use super::headers::Headers;

/// Maximum size of a head in bytes; nginx's is 1 KiB.
pub const MAX_HEAD: usize = 8 * 1024;

/// Maximum size of a body, in bytes on the wire, that is read to reuse the connection.
pub const MAX_BODY: usize = 16 * 1024;

/// Maximum number of header lines.
const MAX_HEADERS: usize = 100;

/// Maximum number of trailer lines after the last chunk.
const MAX_TRAILERS: usize = 16;

/// A complete head.
#[derive(Debug)]
pub struct Head {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, in their order.
    pub headers: Headers,
    /// The position where the body starts.
    length: usize,
    framing: Framing,
}

/// Why a head is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is not HTTP.
    #[error("it is not an HTTP/1.x response ({0})")]
    NotHttp(httparse::Error),
    /// It is of another version than HTTP/1.0 and HTTP/1.1.
    #[error("its HTTP version is not 1.0 or 1.1")]
    Version,
    /// A header line has a wrong form.
    #[error("one of its headers is invalid ({0})")]
    Header(httparse::Error),
    /// It has more header lines than are read.
    #[error("it has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    /// The status is not one of HTTP.
    #[error("it is not an HTTP/1.x response ({0})")]
    NoStatus(String),
    /// It is longer than [`MAX_HEAD`].
    #[error("its headers are longer than {MAX_HEAD} bytes")]
    TooLong,
}

impl HeadError {
    fn of(error: httparse::Error, bytes: &[u8]) -> Self {
        match error {
            httparse::Error::Version if bytes.starts_with(b"HTTP/") => Self::Version,
            httparse::Error::HeaderName | httparse::Error::HeaderValue => Self::Header(error),
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            other => Self::NotHttp(other),
        }
    }
}

/// How the end of the body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    /// By the end of the connection, ambiguously, or irrelevant because the service closes the connection.
    Unkept,
}

/// Where the reply ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After this many bytes of the received ones.
    At(usize),
    /// After bytes that have not arrived.
    Later,
    /// Unknown or too far: close the connection.
    Never,
}

impl Head {
    /// Parses received bytes; `None` if more are needed. Skips interim responses (1xx).
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn parse(received: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut skipped = 0;
        loop {
            let rest = received.get(skipped..).unwrap_or_default();
            match Self::first(rest)? {
                None if received.len() >= MAX_HEAD => return Err(HeadError::TooLong),
                None => return Ok(None),
                Some(head) if skipped + head.length > MAX_HEAD => return Err(HeadError::TooLong),
                Some(head) if head.is_interim() => skipped += head.length,
                Some(head) => return Ok(Some(Self { length: skipped + head.length, ..head })),
            }
        }
    }

    fn first(bytes: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut lines = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut lines);
        let Status::Complete(length) = response.parse(bytes).map_err(|error| HeadError::of(error, bytes))?
        else {
            return Ok(None);
        };
        let status = StatusCode::from_u16(response.code.unwrap_or_default())
            .map_err(|error| HeadError::NoStatus(error.to_string()))?;
        let headers = Headers::new(length, response.headers.iter().map(|line| (line.name, line.value)));
        let framing = match response.version {
            Some(1) => framing(status, &headers),
            // HTTP/1.0 closes the connection.
            _ => Framing::Unkept,
        };
        Ok(Some(Self { status, headers, length, framing }))
    }

    fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// Finds the end of the reply with this head.
    pub fn end(&self, received: &[u8]) -> End {
        let body = received.get(self.length..).unwrap_or_default();
        let end = match self.framing {
            Framing::Unkept => End::Never,
            Framing::Length(length) if length > MAX_BODY => End::Never,
            Framing::Length(length) if body.len() < length => End::Later,
            Framing::Length(length) => End::At(length),
            Framing::Chunked => end_of_chunks(body),
        };
        match end {
            End::At(length) => End::At(self.length + length),
            End::Later if body.len() > MAX_BODY => End::Never,
            other => other,
        }
    }
}

/// Applies RFC 9112 section 6.3. If the length is ambiguous, the connection is not kept.
fn framing(status: StatusCode, headers: &Headers) -> Framing {
    let closes = headers.all("connection").any(|value| {
        value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    if closes || status == StatusCode::SWITCHING_PROTOCOLS {
        return Framing::Unkept;
    }
    let mut lengths = headers.all("content-length");
    let mut codings = headers.all("transfer-encoding");
    match (lengths.next(), codings.next()) {
        _ if lengths.next().is_some() || codings.next().is_some() => Framing::Unkept,
        // These have no body, whatever they announce.
        (_, None) if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
            Framing::Length(0)
        }
        (Some(length), None) => digits(length).map_or(Framing::Unkept, Framing::Length),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        _ => Framing::Unkept,
    }
}

fn digits(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Finds the end of a chunked body (RFC 9112 section 7.1).
fn end_of_chunks(body: &[u8]) -> End {
    let mut at = 0;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        match parse_chunk_size(rest) {
            Ok(Status::Complete((line, 0))) => {
                at += line;
                break;
            }
            Ok(Status::Complete((line, size))) => {
                let Some(end) = usize::try_from(size).ok().and_then(|size| size.checked_add(at + line))
                else {
                    return End::Never;
                };
                match body.get(end..) {
                    Some([b'\r', b'\n', ..]) => at = end + 2,
                    None | Some([] | [b'\r']) => return End::Later,
                    Some(_) => return End::Never,
                }
            }
            Ok(Status::Partial) => return End::Later,
            Err(_) => return End::Never,
        }
    }
    let mut trailers = [EMPTY_HEADER; MAX_TRAILERS];
    match parse_headers(body.get(at..).unwrap_or_default(), &mut trailers) {
        Ok(Status::Complete((length, _))) => End::At(at + length),
        Ok(Status::Partial) => End::Later,
        Err(_) => End::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the end of the reply, and its number of bytes.
    fn end(reply: &str) -> (End, usize) {
        let head = Head::parse(reply.as_bytes()).unwrap().expect("a whole head");
        (head.end(reply.as_bytes()), reply.len())
    }

    #[test]
    fn a_reply_ends_where_its_framing_says() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200\r\ncontent-length:  5 \r\nConnection: keep-alive\r\n\r\nhello",
            "HTTP/1.1 204 None\r\n\r\n",
            "HTTP/1.1 304 Same\r\nContent-Length: 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        ] {
            let (at, length) = end(whole);
            assert_eq!(at, End::At(length), "{whole}");
            assert_eq!(end(&format!("{whole}HTTP/1.1 200 OK\r\n")).0, End::At(length), "{whole}");
        }
    }

    #[test]
    fn every_reply_that_is_cut_is_continued_later() {
        for whole in [
            "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        ] {
            for cut in 0..whole.len() {
                let part = &whole.as_bytes()[..cut];
                if let Some(head) = Head::parse(part).unwrap() {
                    assert_eq!(head.end(part), End::Later, "{cut} of {whole}");
                }
            }
        }
    }

    #[test]
    fn a_connection_is_not_kept_behind_what_is_ambiguous_endless_or_closed() {
        for unkept in [
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 101 Up\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert_eq!(end(unkept).0, End::Never, "{unkept}");
        }
        let endless =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{}", "x".repeat(MAX_BODY));
        assert_eq!(end(&endless).0, End::Never);
    }

    #[test]
    fn what_is_no_head_or_too_long_a_one_is_refused() {
        let error = Head::parse(b"220 mail.test ESMTP\r\n").unwrap_err().to_string();
        assert!(error.starts_with("it is not an HTTP/1.x response ("), "{error}");
        for (answer, said) in [
            ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), "its HTTP version is not 1.0 or 1.1"),
            (format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101)), "it has more than 100 headers"),
            (
                "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n".to_owned(),
                "one of its headers is invalid (invalid header name)",
            ),
        ] {
            assert_eq!(Head::parse(answer.as_bytes()).unwrap_err().to_string(), said);
        }
        for text in [
            "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nname: a\0b\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS + 1)),
        ] {
            assert!(Head::parse(text.as_bytes()).is_err(), "{text}");
        }
        let long = |length| format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(length));
        assert!(Head::parse(long(100).as_bytes()).unwrap().is_none());
        assert_eq!(Head::parse(long(MAX_HEAD).as_bytes()).unwrap_err(), HeadError::TooLong);
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD);
        assert_eq!(Head::parse(interim.as_bytes()).unwrap_err(), HeadError::TooLong);
    }
}
