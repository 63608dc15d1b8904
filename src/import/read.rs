//! Tokenises nginx's configuration language: words, quotes, escapes, comments and blocks.

use std::rc::Rc;

use super::problem::{Place, Problem};

/// A token of the configuration.
pub(super) enum Item {
    /// Words that end with `;`.
    Simple(Vec<String>, Place),
    /// Words that end with `{`.
    Open(Vec<String>, Place),
    /// A `}`.
    Close(Place),
    /// The end of the file.
    End(Place),
}

/// Reads the text of one file.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    position: usize,
    line: u32,
    file: Rc<str>,
}

/// Maximum length of a word in bytes, from nginx's buffer.
const LONGEST_WORD: usize = 4096;

impl<'a> Reader<'a> {
    pub(super) fn new(file: &str, text: &'a [u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { text, position: 0, line: 1, file: file.into() }
    }

    /// Returns the next directive, or the end of the block or file.
    pub(super) fn next(&mut self) -> Result<Item, Problem> {
        let mut words: Vec<String> = Vec::new();
        let mut start = None;
        loop {
            self.skip_blanks();
            let place = start.get_or_insert_with(|| self.place()).clone();
            let Some(byte) = self.peek() else {
                return if words.is_empty() { Ok(Item::End(self.place())) } else { Err(self.cut_off()) };
            };
            match byte {
                b';' | b'{' if words.is_empty() => return Err(self.unexpected(byte)),
                b'}' if !words.is_empty() => return Err(self.unexpected(byte)),
                b';' => {
                    self.bump();
                    return Ok(Item::Simple(words, place));
                }
                b'{' => {
                    self.bump();
                    return Ok(Item::Open(words, place));
                }
                b'}' => {
                    self.bump();
                    return Ok(Item::Close(place));
                }
                b'"' | b'\'' => words.push(self.quoted(byte)?),
                _ => words.push(self.bare()?),
            }
        }
    }

    /// Skips the code of a `…_by_lua_block` with its `}`, because it is not in this language.
    pub(super) fn skip_code(&mut self) -> Result<(), Problem> {
        let mut depth = 1_u32;
        while let Some(byte) = self.bump() {
            match byte {
                b'{' => depth = depth.saturating_add(1),
                b'}' if depth == 1 => return Ok(()),
                b'}' => depth -= 1,
                _ => {}
            }
        }
        Err(Problem::new(&self.place(), "unexpected end of file, expecting \"}\""))
    }

    fn place(&self) -> Place {
        Place { file: Rc::clone(&self.file), line: self.line }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.position).copied()
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.position += 1;
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.bump();
                }
                b'#' => while self.peek().is_some() && self.bump() != Some(b'\n') {},
                _ => return,
            }
        }
    }

    /// Reads a quoted word. White space or the end of the directive must follow.
    fn quoted(&mut self, quote: u8) -> Result<String, Problem> {
        let place = self.place();
        self.bump();
        let mut word = Vec::new();
        loop {
            match self.bump() {
                None => return Err(self.cut_off()),
                Some(byte) if byte == quote => break,
                Some(byte) => self.character(byte, &mut word)?,
            }
            bounded(&word, &place)?;
        }
        match self.peek() {
            Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') | None => Ok(text(&word)),
            Some(byte) => Err(self.unexpected(byte)),
        }
    }

    /// Reads a word without quotes. `${` does not start a block.
    fn bare(&mut self) -> Result<String, Problem> {
        let place = self.place();
        let mut word = Vec::new();
        let mut variable = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if variable => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => return Ok(text(&word)),
                _ => {}
            }
            variable = byte == b'$';
            self.bump();
            self.character(byte, &mut word)?;
            bounded(&word, &place)?;
        }
        Err(self.cut_off())
    }

    /// Reads one character. A backslash is kept, unless a quote, a backslash, `t`, `r` or `n` follows.
    fn character(&mut self, byte: u8, word: &mut Vec<u8>) -> Result<(), Problem> {
        if byte != b'\\' {
            word.push(byte);
            return Ok(());
        }
        match self.bump().ok_or_else(|| self.cut_off())? {
            next @ (b'"' | b'\'' | b'\\') => word.push(next),
            b't' => word.push(b'\t'),
            b'r' => word.push(b'\r'),
            b'n' => word.push(b'\n'),
            next => word.extend([b'\\', next]),
        }
        Ok(())
    }

    fn unexpected(&self, byte: u8) -> Problem {
        Problem::new(&self.place(), format!("unexpected \"{}\"", char::from(byte)))
    }

    fn cut_off(&self) -> Problem {
        Problem::new(&self.place(), "unexpected end of file, expecting \";\" or \"}\"")
    }
}

fn bounded(word: &[u8], place: &Place) -> Result<(), Problem> {
    if word.len() <= LONGEST_WORD {
        return Ok(());
    }
    let start: String = text(word).chars().take(10).collect();
    Err(Problem::new(place, format!("too long parameter \"{start}...\" started")))
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, String> {
        match Reader::new("a", text.as_bytes()).next() {
            Ok(Item::Simple(words, _) | Item::Open(words, _)) => Ok(words),
            Ok(_) => Ok(vec![]),
            Err(problem) => Err(problem.to_string()),
        }
    }

    #[test]
    fn words_are_quoted_and_escaped_as_in_nginx() {
        assert_eq!(
            words("a 'b c' \"d\\\"e\" f\\ g h#i # j\n \\k;").unwrap(),
            ["a", "b c", "d\"e", "f\\ g", "h#i", "\\k"]
        );
        assert_eq!(words("set ${a}b \"x\\ty\" '' {").unwrap(), ["set", "${a}b", "x\ty", ""]);
    }

    #[test]
    fn broken_text_is_refused_in_nginxs_words() {
        let refused = |text| words(text).unwrap_err();
        assert_eq!(refused("\n;"), "a:2: unexpected \";\"");
        assert_eq!(refused("{"), "a:1: unexpected \"{\"");
        assert_eq!(refused("a }"), "a:1: unexpected \"}\"");
        assert_eq!(refused("\"abc\"d e;"), "a:1: unexpected \"d\"");
        assert_eq!(refused("a b"), "a:1: unexpected end of file, expecting \";\" or \"}\"");
        assert_eq!(refused("a 'b\n"), "a:2: unexpected end of file, expecting \";\" or \"}\"");
        let long = format!("a {};", "0123456789ab".repeat(400));
        assert_eq!(refused(&long), "a:1: too long parameter \"0123456789...\" started");
    }
}
