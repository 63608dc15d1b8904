//! Decodes a file: UTF-8, or UTF-16 with a byte order mark, as some Windows programs write it.

/// Returns the text without byte order marks.
///
/// # Errors
///
/// Returns a sentence if the bytes are neither UTF-8 nor UTF-16.
pub(crate) fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let text = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => String::from_utf8(bytes).map_err(|error| {
            let line = error
                .as_bytes()
                .iter()
                .take(error.utf8_error().valid_up_to())
                .filter(|b| **b == b'\n')
                .count();
            format!("line {} is not UTF-8; save the file as UTF-8", line.saturating_add(1))
        })?,
    };
    if !text.contains(MARK) {
        return Ok(text);
    }
    // Concatenated files may have byte order marks at the start of other lines.
    Ok(text.split_inclusive('\n').map(|line| line.trim_start_matches(MARK)).collect())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>();
    match text {
        Ok(text) if rest.is_empty() => Ok(text),
        _ => Err("invalid UTF-16; save the file as UTF-8".to_owned()),
    }
}

const MARK: char = '\u{feff}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_are_removed() {
        let text = |bytes: &[u8]| decode(bytes.to_vec());
        assert_eq!(text(b"a: \xc3\xa4\n").as_deref(), Ok("a: \u{e4}\n"));
        assert_eq!(text("\u{feff}a: b\n---\n\u{feff}c: d\n".as_bytes()).as_deref(), Ok("a: b\n---\nc: d\n"));
        assert_eq!(text("a: 'x\u{feff}y'\n".as_bytes()).as_deref(), Ok("a: 'x\u{feff}y'\n"));
        assert_eq!(text(b"\xff\xfea\0:\0 \0\xe4\0").as_deref(), Ok("a: \u{e4}"));
        assert_eq!(text(b"\xfe\xff\0a\0\n").as_deref(), Ok("a\n"));
        assert!(text(b"\xff\xfea\0b").unwrap_err().contains("invalid UTF-16"));
        assert_eq!(text(b"a\n\xff\n").unwrap_err(), "line 2 is not UTF-8; save the file as UTF-8");
    }
}
