//! Formats events as lines, with the same bytes as `tracing-subscriber`, at a fraction of its cost: every session writes
//! a line. Unlike the library, it escapes control characters in every value, so that no value can forge a line.
//!
//! The library formats what this module does not: coloured lines, events within spans, events of the `log` crate, and
//! fields of rare types. The tests compare both.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug, Write};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `tracing_subscriber::fmt().with_target(false)`.
    Text,
    /// `tracing_subscriber::fmt().json().flatten_event(true)`.
    Json,
}

/// The format of the log.
#[derive(Debug)]
pub struct LineFormat<L> {
    encoding: Encoding,
    /// The library's format for the same encoding.
    library: L,
}

impl<L> LineFormat<L> {
    /// `library` must have the settings that [`Encoding`] names.
    pub const fn new(encoding: Encoding, library: L) -> Self {
        Self { encoding, library }
    }
}

impl<S, N, L> FormatEvent<S, N> for LineFormat<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    L: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let is_plain = !writer.has_ansi_escapes() && context.lookup_current().is_none();
        if is_plain && event.parent().is_none() && event.metadata().target() != "log" {
            let written = LINE.with_borrow_mut(|line| {
                line.clear();
                self.encoding.write(event, SystemTime::now(), line).then(|| writer.write_str(line))
            });
            if let Some(written) = written {
                return written;
            }
        }
        self.library.format_event(context, writer, event)
    }
}

impl Encoding {
    /// Appends the line of an event. Returns false if the event has a field of a rare type.
    fn write(self, event: &Event<'_>, at: SystemTime, line: &mut String) -> bool {
        let metadata = event.metadata();
        match self {
            Self::Text => {
                timestamp(at, line);
                let level = metadata.level().as_str();
                line.extend(std::iter::repeat_n(' ', 6_usize.saturating_sub(level.len())));
                line.push_str(level);
                line.push(' ');
            }
            Self::Json => {
                line.push_str("{\"timestamp\":\"");
                timestamp(at, line);
                line.push_str("\",\"level\":\"");
                line.push_str(metadata.level().as_str());
                line.push('"');
            }
        }
        let mut fields = Fields { line, encoding: self, is_first: true, is_supported: true };
        event.record(&mut fields);
        let Fields { line, is_supported, .. } = fields;
        if self == Self::Json {
            line.push_str(",\"target\":");
            json(metadata.target(), line);
            line.push('}');
        }
        line.push('\n');
        is_supported
    }
}

/// Appends the fields of an event.
struct Fields<'a> {
    line: &'a mut String,
    encoding: Encoding,
    is_first: bool,
    is_supported: bool,
}

impl Fields<'_> {
    /// Appends the separator and the field's name.
    fn name(&mut self, name: &str) {
        // Patterns of bytes need no call for each of the fields.
        if let [b'l', b'o', b'g', b'.', ..] | [b'r', b'#', ..] = name.as_bytes() {
            self.is_supported = false;
        }
        match self.encoding {
            Encoding::Text => {
                if !std::mem::take(&mut self.is_first) {
                    self.line.push(' ');
                }
                if name != MESSAGE {
                    self.line.push_str(name);
                    self.line.push('=');
                }
            }
            Encoding::Json => {
                self.line.push_str(",\"");
                self.line.push_str(name);
                self.line.push_str("\":");
            }
        }
    }

    /// Appends a value without quotes, and escapes it if it needs this.
    fn escaped(&mut self, value: &dyn Debug) {
        let start = self.line.len();
        self.append(format_args!("{value:?}"));
        if !self.line.get(start..).is_some_and(is_plain) {
            let value = self.line.split_off(start);
            match self.encoding {
                Encoding::Text => sanitize(&value, self.line),
                Encoding::Json => escape_json(&value, self.line),
            }
        }
    }

    fn append(&mut self, text: fmt::Arguments<'_>) {
        self.is_supported &= self.line.write_fmt(text).is_ok();
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field.name());
        match self.encoding {
            Encoding::Text if field.name() == MESSAGE => self.escaped(&format_args!("{value}")),
            Encoding::Text if is_plain(value) => quoted(value, self.line),
            Encoding::Text => self.append(format_args!("{value:?}")),
            Encoding::Json => json(value, self.line),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field.name());
        match self.encoding {
            Encoding::Text => self.escaped(value),
            Encoding::Json => {
                self.line.push('"');
                self.escaped(value);
                self.line.push('"');
            }
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field.name());
        self.line.push_str(itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.name(field.name());
        self.line.push_str(itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field.name());
        self.append(format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field.name());
        match self.encoding {
            Encoding::Text => self.append(format_args!("{value:?}")),
            Encoding::Json => self.append(format_args!("{}", serde_json::Value::from(value))),
        }
    }

    fn record_i128(&mut self, _: &Field, _: i128) {
        self.is_supported = false;
    }

    fn record_u128(&mut self, _: &Field, _: u128) {
        self.is_supported = false;
    }

    fn record_bytes(&mut self, _: &Field, _: &[u8]) {
        self.is_supported = false;
    }

    fn record_error(&mut self, _: &Field, _: &(dyn std::error::Error + 'static)) {
        self.is_supported = false;
    }
}

/// Tells whether a text needs no escaping: printable ASCII without `"` and `\`.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

fn quoted(text: &str, line: &mut String) {
    line.push('"');
    line.push_str(text);
    line.push('"');
}

/// Appends a JSON string.
fn json(text: &str, line: &mut String) {
    if is_plain(text) {
        quoted(text, line);
    } else {
        line.push('"');
        escape_json(text, line);
        line.push('"');
    }
}

/// Appends the content of a JSON string.
fn escape_json(text: &str, line: &mut String) {
    // Writing a string cannot fail.
    let quoted = serde_json::to_string(text).unwrap_or_default();
    line.push_str(quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default());
}

/// Escapes what could begin a new line or control a terminal. The library escapes the latter, and only in messages.
fn sanitize(text: &str, line: &mut String) {
    for character in text.chars() {
        let code = u32::from(character);
        // Writing to a string cannot fail.
        let _ = match character {
            '\t' => line.write_char(character),
            '\n' => line.write_str("\\n"),
            '\r' => line.write_str("\\r"),
            '\0'..='\x1f' | '\x7f' => write!(line, "\\x{code:02x}"),
            '\u{80}'..='\u{9f}' => write!(line, "\\u{{{code:x}}}"),
            _ => line.write_char(character),
        };
    }
}

/// Appends the time in UTC with microseconds (RFC 3339).
fn timestamp(at: SystemTime, line: &mut String) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let second = since.as_secs();
    let (known, text) = SECOND.get();
    let text = if known == second { text } else { seconds(second) };
    SECOND.set((second, text));
    line.push_str(std::str::from_utf8(&text).unwrap_or_default());
    line.push('.');
    // Six digits behind the first one, which is dropped.
    let micros = 1_000_000_u32.saturating_add(since.subsec_micros());
    line.push_str(itoa::Buffer::new().format(micros).get(1..).unwrap_or_default());
    line.push('Z');
}

/// Formats a time up to its second, as `2026-11-29T17:43:00`.
fn seconds(second: u64) -> [u8; 19] {
    let timestamp = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    let text = timestamp.unwrap_or(jiff::Timestamp::MAX).to_string();
    let bytes = text.as_bytes().first_chunk::<19>();
    bytes.copied().unwrap_or([b'0'; 19])
}

const MESSAGE: &str = "message";

thread_local! {
    /// Reused by all lines of the thread.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The last formatted second: most lines of a busy process have the same one.
    static SECOND: Cell<(u64, [u8; 19])> = const { Cell::new((0, *b"1970-01-01T00:00:00")) };
}

#[cfg(test)]
mod tests;
