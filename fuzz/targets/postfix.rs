//! An SMTP server that reads its client's bytes as Postfix does; it does nothing with them.
//!
//! It is written from RFC 5321, RFC 3030 and Postfix's documentation, not from the follower, so that the two can be
//! compared:
//! * a line ends with LF, for commands, responses to challenges and text; CRs before it do not count
//!   ([`Ends::AnyNewline`], `smtpd_forbid_bare_newline = no`), or exactly one does ([`Ends::Standard`], `normalize`);
//! * the text after DATA and 354 ends with a line that is a dot. [`Ends::Standard`]: only if this line and the one before
//!   end with CRLF;
//! * BDAT is followed by as many bytes as it says, whatever its reply;
//! * a command is the first word of its line, without case, up to a NUL.
//!
//! Postfix's `line_length_limit` is not here: it splits long lines of text, and no limit of the split starts a line.

use super::choices::bit;

/// The server.
pub(super) struct Postfix {
    settings: Settings,
    mode: Mode,
    /// Bytes of the current line or chunk.
    line: Vec<u8>,
    /// The line before ended with CRLF.
    is_behind_crlf: bool,
    /// The words of all commands, in upper case.
    pub(super) commands: Vec<Vec<u8>>,
    /// The text of all messages and chunks.
    pub(super) text: Vec<u8>,
    /// The number of RCPT commands.
    pub(super) recipients: usize,
    /// Whether it may have a sender and recipients. The first ones came before the session.
    pub(super) has_transaction: bool,
    /// The current chunk is the last one.
    is_last_chunk: bool,
}

/// What the server offers, and how it decides.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) ends: Ends,
    pub(super) takes_chunks: bool,
    /// Decides about each DATA and AUTH in turn: bit 0 accepts the first one.
    pub(super) accepts: u8,
    /// Replies have several lines.
    pub(super) is_verbose: bool,
}

/// Which line ends count for the end of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    AnyNewline,
    Standard,
}

/// What the server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Command,
    Response,
    Message,
    Chunk(usize),
    /// After QUIT.
    Closed,
}

impl Postfix {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            mode: Mode::Command,
            line: Vec::new(),
            is_behind_crlf: true,
            commands: Vec::new(),
            text: Vec::new(),
            recipients: 0,
            has_transaction: true,
            is_last_chunk: false,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Tells whether it reads commands, and no part of one has arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.mode == Mode::Command && self.line.is_empty()
    }

    /// Reads bytes, and returns the replies.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().flat_map(|byte| self.byte(*byte)).copied().collect()
    }

    fn byte(&mut self, byte: u8) -> &'static [u8] {
        match self.mode {
            Mode::Closed => b"",
            Mode::Chunk(left) => {
                self.text.push(byte);
                if left > 1 {
                    self.mode = Mode::Chunk(left - 1);
                    return b"";
                }
                self.mode = Mode::Command;
                self.after_chunk()
            }
            Mode::Command | Mode::Response | Mode::Message => {
                self.line.push(byte);
                if byte != b'\n' {
                    return b"";
                }
                let line = std::mem::take(&mut self.line);
                self.whole_line(&line)
            }
        }
    }

    fn whole_line(&mut self, line: &[u8]) -> &'static [u8] {
        let is_behind_crlf = std::mem::replace(&mut self.is_behind_crlf, line.ends_with(b"\r\n"));
        let text = self.without_end(line);
        match self.mode {
            Mode::Message => {
                let is_standard = is_behind_crlf && self.is_behind_crlf;
                if text != b"." || !(is_standard || self.settings.ends == Ends::AnyNewline) {
                    self.text.extend_from_slice(line);
                    return b"";
                }
                (self.mode, self.has_transaction) = (Mode::Command, false);
                self.reply()
            }
            Mode::Response => {
                self.mode = Mode::Command;
                b"535 no\r\n"
            }
            Mode::Command | Mode::Chunk(_) | Mode::Closed => self.command(text),
        }
    }

    fn without_end<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let mut text = line.strip_suffix(b"\n").unwrap_or(line);
        while let Some(shorter) = text.strip_suffix(b"\r") {
            text = shorter;
            if self.settings.ends == Ends::Standard {
                break;
            }
        }
        text
    }

    fn command(&mut self, text: &[u8]) -> &'static [u8] {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut words =
            text.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).filter(|word| !word.is_empty());
        let Some(verb) = words.next() else { return b"500 5.5.2 Error: bad syntax\r\n" };
        let verb = verb.to_ascii_uppercase();
        self.commands.push(verb.clone());
        let is_accepted = bit(self.settings.accepts, u32::try_from(self.commands.len() % 8).unwrap_or(0));
        match (verb.as_slice(), words.next()) {
            (b"DATA", None) if is_accepted => {
                // The line of DATA is no line of the message.
                (self.mode, self.is_behind_crlf) = (Mode::Message, true);
                b"354 End data with <CR><LF>.<CR><LF>\r\n"
            }
            (b"DATA", _) => b"503-5.5.1 Error:\r\n503 5.5.1 need RCPT command\r\n",
            (b"AUTH", Some(_)) if is_accepted && words.next().is_none() => {
                self.mode = Mode::Response;
                b"334 \r\n"
            }
            (b"AUTH", _) => b"535 5.7.8 Error: authentication failed\r\n",
            (b"BDAT", Some(size)) if self.settings.takes_chunks => {
                let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
                self.is_last_chunk = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
                match size {
                    Some(0) => return self.after_chunk(),
                    Some(size) => self.mode = Mode::Chunk(size),
                    None => return b"501 5.5.4 Syntax: BDAT count [LAST]\r\n",
                }
                b""
            }
            (b"RSET" | b"HELO", _) => {
                self.has_transaction = false;
                self.reply()
            }
            (b"MAIL", _) => {
                self.has_transaction = true;
                self.reply()
            }
            (b"RCPT", _) => {
                self.recipients += 1;
                self.reply()
            }
            (b"EHLO", _) if self.settings.takes_chunks => b"250-server\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n",
            (b"QUIT", _) => {
                self.mode = Mode::Closed;
                b"221 2.0.0 Bye\r\n"
            }
            _ => self.reply(),
        }
    }

    fn after_chunk(&mut self) -> &'static [u8] {
        self.has_transaction &= !self.is_last_chunk;
        self.reply()
    }

    fn reply(&self) -> &'static [u8] {
        if self.settings.is_verbose { b"250-2.0.0 Ok\r\n250 2.0.0 Ok\r\n" } else { b"250 2.0.0 Ok\r\n" }
    }
}
