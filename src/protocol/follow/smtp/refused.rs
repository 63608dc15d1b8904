//! Commands of a client that do not reach the backend, in all the spellings that a backend may read, and their answers.

/// Whether the start of a line is a refused command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resemblance {
    /// It is; this is the answer.
    Is(&'static [u8]),
    /// It may be, depending on the next letters.
    MayBecome,
    No,
}

/// Compares letters only, ignoring case. Backends may skip white space, quotes or NULs before or within a verb, but no
/// letters. `is_whole`: the line has ended.
pub(super) fn resemblance<const N: usize>(
    line: &[u8],
    is_whole: bool,
    mut candidates: [Refused; N],
) -> Resemblance {
    let mut read = 0_usize;
    let ended = |candidates: &[Refused; N], read: usize| {
        let verb = candidates.iter().find(|verb| read > 0 && verb.letters.len() == read);
        verb.map(|verb| Resemblance::Is(verb.answer))
    };
    for byte in line {
        if !byte.is_ascii_alphabetic() {
            match ended(&candidates, read) {
                Some(is) => return is,
                None => continue,
            }
        }
        let mut is_open = false;
        for verb in &mut candidates {
            if verb.letters.get(read).is_some_and(|expected| expected.eq_ignore_ascii_case(byte)) {
                is_open = true;
                if !verb.is_word && verb.letters.len() == read.saturating_add(1) {
                    return Resemblance::Is(verb.answer);
                }
            } else {
                verb.letters = b"";
            }
        }
        if !is_open {
            return Resemblance::No;
        }
        read = read.saturating_add(1);
    }
    ended(&candidates, read).filter(|_| is_whole).unwrap_or(Resemblance::MayBecome)
}

/// A refused command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    letters: &'static [u8],
    /// The verb must end here; text with further letters is not this command.
    is_word: bool,
    answer: &'static [u8],
}

impl Refused {
    const fn new(letters: &'static [u8], answer: &'static [u8]) -> Self {
        Self { letters, is_word: false, answer }
    }
}

pub(super) const XCLIENT: Refused = Refused::new(b"XCLIENT", b"503 5.5.1 XCLIENT is not for clients\r\n");
pub(super) const XFORWARD: Refused = Refused::new(b"XFORWARD", b"503 5.5.1 XFORWARD is not for clients\r\n");
/// After STARTTLS, the stream could not be followed.
pub(super) const STARTTLS: Refused =
    Refused::new(b"STARTTLS", b"503 5.5.1 STARTTLS is not possible after the login\r\n");
/// Only as a whole word, because header lines may start with `Authentication-Results`.
pub(super) const AUTH: Refused =
    Refused { letters: b"AUTH", is_word: true, answer: b"503 5.5.1 AUTH is not possible now\r\n" };
/// Refused only in doubt, without an answer.
pub(super) const BDAT: Refused = Refused::new(b"BDAT", b"");
/// Only where routes place recipients: in doubt, or if the line cannot be read.
pub(super) const RCPT: Refused = Refused::new(b"RCPT", b"");
/// Only where routes place recipients, if the line cannot be read: it could begin a transaction unnoticed, or end one.
pub(super) const MAIL: Refused = Refused::new(b"MAIL", b"");
pub(super) const HELO: Refused = Refused::new(b"HELO", b"");
pub(super) const EHLO: Refused = Refused::new(b"EHLO", b"");
pub(super) const NONE: Refused = Refused::new(b"", b"");
pub(super) const CONTROL_CHARACTERS: &[u8] = b"500 5.5.2 Control characters in a command\r\n";
pub(super) const TOO_LONG: &[u8] = b"500 5.5.2 Line too long\r\n";
