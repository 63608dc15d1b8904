//! Converts YAML (and thus JSON) to JSON values, within bounds.
//!
//! A text of a few kilobytes can expand to gigabytes, because aliases and merge keys copy values. Therefore every copy
//! is counted before it is made, and depth, values and text have limits. The same parser checks the limits and creates
//! the values, so both always agree.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Number, Value};

use super::{ParseError, Position};

/// Iterates over the documents of a text.
pub(super) struct Documents<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    composer: Composer,
    refused: Option<ParseError>,
    /// Where the content of the last document starts.
    start: Option<Marker>,
}

impl<'t> Documents<'t> {
    /// Creates an iterator. Errors of the text are returned by the iterator.
    pub(super) fn new(text: &'t str) -> Self {
        let refused = check_text(text).err();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { parser: Parser::new_from_str(text), composer: Composer::default(), refused, start: None }
    }

    /// Returns the position of the last document.
    pub(super) fn position(&self) -> Option<Position> {
        self.start.as_ref().map(position)
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Value, ParseError>;

    /// After an error, the iterator must not be used further.
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.refused.take() {
            return Some(Err(error));
        }
        loop {
            let taken = match self.parser.next()? {
                Ok((event, span)) => {
                    match &event {
                        Event::DocumentStart(_) => self.start = None,
                        _ if self.start.is_none() => self.start = Some(span.start),
                        _ => {}
                    }
                    self.composer.take(event, span)
                }
                Err(error) => Err(of_parser(&error)),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(document)) => return Some(Ok(document)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Limits the number of tokens before the parser starts, because it holds those of a whole flow collection in memory.
fn check_text(text: &str) -> Result<(), ParseError> {
    if text.len() > MAX_TEXT {
        return Err(ParseError { position: None, message: too_large(text.len()) });
    }
    let is_separator = |(_, byte): &(usize, u8)| matches!(byte, b',' | b'[' | b'{');
    let Some((at, _)) = text.bytes().enumerate().filter(is_separator).nth(MAX_SEPARATORS) else {
        return Ok(());
    };
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    let message = format!("the file has more than {MAX_SEPARATORS} commas and opening brackets; {SPLIT}");
    Err(ParseError { position: Some(Position { line, column }), message })
}

/// Returns the message for a text of more than [`MAX_TEXT`] bytes.
pub(crate) fn too_large(bytes: usize) -> String {
    format!("{bytes} bytes is more than the {MAX_TEXT} (3 MiB) that a file may have; {SPLIT}")
}

/// The size of a value, with everything in it.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    values: usize,
    text: usize,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.values = self.values.saturating_add(other.values);
        self.text = self.text.saturating_add(other.text);
    }
}

/// Builds values from events.
#[derive(Default)]
struct Composer {
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, Cost)>,
    /// The size of all values of the text.
    spent: Cost,
    /// The part of it that is copies.
    copied: Cost,
}

/// A list or map that has started and not ended.
struct Open {
    anchor: usize,
    cost: Cost,
    content: Content,
}

enum Content {
    List(Vec<Value>),
    Map { fields: Map<String, Value>, merged: Option<Value>, key: Option<String> },
}

impl Composer {
    /// Applies an event. Returns a document if the event ends one.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Value>, ParseError> {
        let at = &span.start;
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let cost = Cost { values: 1, text: text.len() };
                self.charge(cost, at)?;
                let value = scalar(&text, style, tag.as_deref()).map_err(|problem| error(at, &problem))?;
                return self.put(value, cost, anchor, at);
            }
            Event::Alias(anchor) => {
                let Some((_, cost)) = self.anchors.get(&anchor) else {
                    return Err(error(
                        at,
                        "this alias refers to a value that contains it; write the value out",
                    ));
                };
                let cost = *cost;
                self.charge_copy(cost, at)?;
                let value = self.anchors.get(&anchor).map(|(value, _)| value.clone()).unwrap_or_default();
                return self.put(value, cost, 0, at);
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(anchor, tag.as_deref(), Content::List(Vec::new()), at)?;
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map { fields: Map::new(), merged: None, key: None };
                self.begin(anchor, tag.as_deref(), content, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { anchor, cost, content }) = self.open.pop() else { return Ok(None) };
                let value = match content {
                    Content::List(items) => Value::Array(items),
                    Content::Map { fields, merged, .. } => merge(fields, merged, at)?,
                };
                return self.put(value, cost, anchor, at);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(None)
    }

    fn begin(
        &mut self,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
        at: &Marker,
    ) -> Result<(), ParseError> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(error(at, &unknown_tag(tag)));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(error(at, &too_deep()));
        }
        let cost = Cost { values: 1, text: 0 };
        self.charge(cost, at)?;
        self.open.push(Open { anchor, cost, content });
        Ok(())
    }

    /// Adds a value to the open list or map. Returns it if there is none.
    fn put(
        &mut self,
        value: Value,
        cost: Cost,
        anchor: usize,
        at: &Marker,
    ) -> Result<Option<Value>, ParseError> {
        if anchor > 0 {
            // The value that is stored for aliases is a copy as well.
            self.charge_copy(cost, at)?;
            self.anchors.insert(anchor, (value.clone(), cost));
        }
        let Some(open) = self.open.last_mut() else { return Ok(Some(value)) };
        open.cost.add(cost);
        match &mut open.content {
            Content::List(items) => items.push(value),
            Content::Map { fields, merged, key } => match key.take() {
                None => {
                    let name = key_text(value).ok_or_else(|| error(at, "the key of a map must be text"))?;
                    if fields.contains_key(&name) || (name == MERGE && merged.is_some()) {
                        return Err(error(at, &format!("duplicate key {name:?}; remove one of them")));
                    }
                    *key = Some(name);
                }
                Some(name) if name == MERGE => *merged = Some(value),
                Some(name) => drop(fields.insert(name, value)),
            },
        }
        Ok(None)
    }

    fn charge(&mut self, cost: Cost, at: &Marker) -> Result<(), ParseError> {
        self.spent.add(cost);
        if self.spent.values > MAX_VALUES {
            return Err(error(at, &format!("more than {MAX_VALUES} values, with aliases expanded; {SPLIT}")));
        }
        if self.spent.text > MAX_TEXT {
            return Err(error(
                at,
                &format!("more than {MAX_TEXT} bytes of text, with aliases expanded; {SPLIT}"),
            ));
        }
        Ok(())
    }

    fn charge_copy(&mut self, cost: Cost, at: &Marker) -> Result<(), ParseError> {
        self.copied.add(cost);
        if self.copied.values > MAX_COPIES {
            let problem = format!(
                "its anchors and aliases expand to more than {MAX_COPIES} values; write them out, in several files"
            );
            return Err(error(at, &problem));
        }
        self.charge(cost, at)
    }
}

/// Adds the fields of merged maps (`<<`). Existing fields win, and then the first map with a field.
fn merge(mut fields: Map<String, Value>, merged: Option<Value>, at: &Marker) -> Result<Value, ParseError> {
    let sources = match merged {
        None => Vec::new(),
        Some(Value::Array(sources)) => sources,
        Some(source) => vec![source],
    };
    for source in sources {
        let Value::Object(source) = source else {
            return Err(error(at, "<< takes a map, or a list of maps"));
        };
        for (name, value) in source {
            fields.entry(name).or_insert(value);
        }
    }
    Ok(Value::Object(fields))
}

fn key_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Follows the core schema of YAML 1.2, with additional numbers in base 2, 8 and 16. A number with leading zeros is
/// text, because YAML 1.1 reads it as an octal number.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain { plain(text) } else { Value::from(text) });
    };
    if !tag.is_yaml_core_schema() {
        // The tag `!` marks text.
        let is_text = tag.handle.is_empty() && tag.suffix == "!";
        return if is_text { Ok(Value::from(text)) } else { Err(unknown_tag(tag)) };
    }
    let value = match tag.suffix.as_str() {
        "null" | "bool" | "int" | "float" => plain(text),
        _ => return Ok(Value::from(text)),
    };
    match (tag.suffix.as_str(), &value) {
        ("null", Value::Null) | ("bool", Value::Bool(_)) | ("float", Value::Number(_)) => Ok(value),
        ("int", Value::Number(number)) if !number.is_f64() => Ok(value),
        (name, _) => Err(format!("this is tagged !!{name}, but is not of that type")),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!("the tag {tag} has no meaning here; remove it")
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::from(text), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.get(..1)?, digits),
        None => ("", text),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Number::from);
        }
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let integer = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    integer.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

fn error(at: &Marker, message: &str) -> ParseError {
    ParseError { position: Some(position(at)), message: message.to_owned() }
}

fn position(at: &Marker) -> Position {
    Position { line: at.line(), column: at.col().saturating_add(1) }
}

fn of_parser(found: &ScanError) -> ParseError {
    // The parser has its own limit for flow collections.
    let is_deep = found.info().contains("recursion limit");
    let message = if is_deep { too_deep() } else { found.info().to_owned() };
    error(found.marker(), &message)
}

fn too_deep() -> String {
    format!("values are nested more than {MAX_DEPTH} deep; nest it less deeply")
}

/// The key that merges the fields of another map.
const MERGE: &str = "<<";
/// The maximum size in bytes of a file, and of its text with aliases expanded. An API server accepts no larger request.
pub(crate) const MAX_TEXT: usize = 3 << 20;
/// The maximum depth of maps and lists. A MailServer needs eight.
const MAX_DEPTH: usize = 64;
/// The maximum number of scalars, maps and lists in a file, with aliases expanded: about 50 MB in memory. A MailServer
/// with 64 listeners has about 2,000.
const MAX_VALUES: usize = 200_000;
/// The maximum number of values in a file that anchors store and aliases copy, so that a small file needs little
/// memory.
const MAX_COPIES: usize = 20_000;
/// The maximum number of commas and opening brackets in a file, even in text. The parser needs about 400 bytes for
/// each.
const MAX_SEPARATORS: usize = 200_000;
const SPLIT: &str = "split the file";

#[cfg(test)]
mod tests;
