//! Writes and reads strings and responses of ManageSieve (RFC 5804 sections 1.2 and 1.3).

/// Who sends a string. The two sides have different literals (RFC 5804 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// `{n+}`
    Client,
    /// `{n}`
    Server,
}

/// Appends a string: quoted where this is possible, otherwise as a literal.
pub(crate) fn append_string(text: &[u8], sender: Sender, out: &mut Vec<u8>) {
    // At once, so that no part of a password stays in smaller buffers: quotes and escapes, or a literal's head, and CRLF.
    out.reserve(text.len().saturating_mul(2).saturating_add(32));
    if text.len() > MAX_QUOTED || text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        let plus = if sender == Sender::Client { "+" } else { "" };
        out.extend_from_slice(format!("{{{}{plus}}}\r\n", text.len()).as_bytes());
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Appends a response: `OK`, `NO` or `BYE`, and text from us or others on one line. The text may begin with a response
/// code in parentheses, without arguments.
pub(crate) fn append_response(word: &[u8], text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(word);
    out.push(b' ');
    let (code, text) = split_code(text);
    if let Some(code) = code {
        out.extend_from_slice(code);
        out.push(b' ');
    }
    let line: Vec<u8> =
        text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { byte }).collect();
    append_string(&line, Sender::Server, out);
    out.extend_from_slice(b"\r\n");
}

/// Splits `(CODE) text`. The code keeps its parentheses.
fn split_code(text: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let is_code = |code: &[u8]| match code {
        [b'(', name @ .., b')'] => {
            !name.is_empty()
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/'))
        }
        _ => false,
    };
    let end = text.iter().position(|byte| *byte == b')').map_or(0, |end| end.saturating_add(1));
    match text.split_at_checked(end) {
        Some((code, rest)) if is_code(code) => (Some(code), rest.trim_ascii_start()),
        _ => (None, text),
    }
}

/// Returns the text of `NO (CODE) "text"` as [`append_response`] takes it. `None` for any other response, and for a code
/// with arguments.
pub(crate) fn refusal_text(line: &[u8]) -> Option<Vec<u8>> {
    let (word, rest) = line.split_at_checked(3)?;
    if !word.eq_ignore_ascii_case(b"NO ") {
        return None;
    }
    let (code, rest) = split_code(rest);
    let text = string(rest.strip_suffix(b"\r\n").unwrap_or(rest))?;
    Some(code.map_or_else(|| text.clone(), |code| [code, b" ", &text].concat()))
}

/// Returns the content of a string that takes up all of `text`: quoted, or the literal of a server.
pub(crate) fn string(text: &[u8]) -> Option<Vec<u8>> {
    if let Some(literal) = text.strip_prefix(b"{") {
        let end = literal.iter().position(|byte| *byte == b'\n')?.saturating_add(1);
        return literal.get(end..).map(<[u8]>::to_vec);
    }
    let inside = text.strip_prefix(b"\"")?;
    let mut content = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => content.push(*bytes.next()?),
            byte => content.push(*byte),
        }
    }
    bytes.as_slice().is_empty().then_some(content)
}

/// Splits the first string from the rest of a line, which starts behind spaces.
pub(crate) fn first_string(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut is_escaped = false;
    let end = line.iter().skip(1).position(|byte| {
        let is_plain = !std::mem::take(&mut is_escaped);
        is_escaped = is_plain && *byte == b'\\';
        is_plain && *byte == b'"'
    })?;
    let (first, rest) = line.split_at_checked(end.saturating_add(2))?;
    Some((string(first)?, rest.trim_ascii()))
}

/// Bytes of a quoted string (RFC 5804 section 1.2).
const MAX_QUOTED: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn response(text: &str) -> String {
        let mut out = Vec::new();
        append_response(b"NO", text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_text_of_others_stays_in_its_string() {
        assert_eq!(response("a \"b\" \\"), "NO \"a \\\"b\\\" \\\\\"\r\n");
        assert_eq!(response("a\r\nOK \"b\""), "NO \"a  OK \\\"b\\\"\"\r\n");
        let long = "x".repeat(1025);
        assert_eq!(response(&long), format!("NO {{1025}}\r\n{long}\r\n"));
    }

    #[test]
    fn a_code_without_arguments_stays_a_code() {
        assert_eq!(response("(TRYLATER) later"), "NO (TRYLATER) \"later\"\r\n");
        assert_eq!(response("(QUOTA/MAXSIZE) big"), "NO (QUOTA/MAXSIZE) \"big\"\r\n");
        for text in ["() x", "(a b) x", "(SASL \"eA==\") x", "(open", "x (TRYLATER)"] {
            assert!(response(text).starts_with("NO \""), "{text}");
        }
    }

    #[test]
    fn reads_what_it_writes() {
        for text in ["plain", "a \"b\" \\", "(TRYLATER) later", ""] {
            assert_eq!(refusal_text(response(text).as_bytes()).unwrap(), text.as_bytes(), "{text}");
        }
        for other in ["OK \"x\"\r\n", "BYE \"x\"\r\n", "NO x\r\n", "NO \"x\r\n", "NO \"x\" y\r\n", "NO\r\n"] {
            assert_eq!(refusal_text(other.as_bytes()), None, "{other}");
        }
        assert_eq!(string(b"{3}\r\na\"b"), Some(b"a\"b".to_vec()));
    }

    #[test]
    fn splits_the_first_string() {
        assert_eq!(first_string(b"\"SASL\" \"PLAIN\"\r\n"), Some((b"SASL".to_vec(), &b"\"PLAIN\""[..])));
        assert_eq!(first_string(b"\"a\\\"b\"\r\n"), Some((b"a\"b".to_vec(), &b""[..])));
        assert_eq!(first_string(b"\"open\r\n"), None);
        assert_eq!(first_string(b""), None);
    }
}
