//! Transcript files, and the ways to split their bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A transcript file.
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) lines: Vec<Line>,
}

/// A line of the body.
#[derive(Clone, Debug)]
pub(crate) enum Line {
    /// Bytes of a side, which is named by its capital letter.
    Wire(char, Vec<u8>),
    /// Any other line: its word, and the text after the colon.
    Word(String, String),
}

/// Consecutive bytes of the sender, and the lines that must follow.
pub(crate) struct Turn<'a> {
    pub(crate) sent: Vec<u8>,
    pub(crate) expected: &'a [Line],
}

impl Script {
    /// Returns all files of a folder below `tests`, sorted by name.
    pub(crate) fn all(folder: &str) -> Vec<Self> {
        Self::all_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), folder)
    }

    /// Returns all files of a folder, sorted by name.
    pub(crate) fn all_below(root: &Path, folder: &str) -> Vec<Self> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let name = format!("{folder}/{}", path.file_name().unwrap().to_string_lossy());
                Self::parse(name, &std::fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    fn parse(name: String, text: &str) -> Self {
        let mut settings = BTreeMap::new();
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if let Some(comment) = line.strip_prefix('#') {
                if lines.is_empty()
                    && let Some((key, value)) = comment.split_once(':')
                    && !key.trim().contains(' ')
                {
                    settings.insert(key.trim().to_owned(), value.trim().to_owned());
                }
            } else if !line.is_empty() {
                lines.push(Line::parse(line).unwrap_or_else(|| panic!("{name}:{}: {line}", number + 1)));
            }
        }
        Self { name, settings, lines }
    }

    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.setting(key).map_or(default, |text| text.parse().ok().expect("a number"))
    }

    pub(crate) fn list(&self, key: &str, default: &str) -> Vec<String> {
        let text = self.setting(key).unwrap_or(default);
        text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// Returns what `sender` sends, each time with the expected result. The first turn may send nothing.
    pub(crate) fn turns(&self, sender: char) -> Vec<Turn<'_>> {
        let mut turns = Vec::new();
        let mut rest = self.lines.as_slice();
        while !rest.is_empty() || turns.is_empty() {
            let is_sent = |line: &&Line| matches!(line, Line::Wire(side, _) if *side == sender);
            let (now, later) = rest.split_at(rest.iter().take_while(is_sent).count());
            let (expected, later) = later.split_at(later.iter().take_while(|line| !is_sent(line)).count());
            let sent = now.iter().flat_map(|line| match line {
                Line::Wire(_, bytes) => bytes.clone(),
                Line::Word(..) => Vec::new(),
            });
            turns.push(Turn { sent: sent.collect(), expected });
            rest = later;
        }
        turns
    }

    /// Returns the values of all lines with this word.
    pub(crate) fn directives(&self, word: &str) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(move |line| match line {
            Line::Word(found, value) if found == word => Some(value.as_str()),
            _ => None,
        })
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (word, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let mut letters = word.chars();
        match (letters.next()?, letters.next()) {
            (side, None) if side.is_ascii_uppercase() => {
                Some(Self::Wire(side, [value.as_bytes(), b"\r\n"].concat()))
            }
            (side, None) => Some(Self::Wire(side.to_ascii_uppercase(), unescape(value))),
            _ => Some(Self::Word(word.to_owned(), value.to_owned())),
        }
    }
}

/// Decodes `\r \n \t \0 \\ \" \'` and `\xNN`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            bytes.extend(letter.to_string().bytes());
            continue;
        }
        bytes.push(match letters.next().expect("an escape") {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            'x' => {
                let digits: String = letters.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            other => u8::try_from(other).expect("an escape"),
        });
    }
    bytes
}

/// Formats bytes for comparison: one string for each line on the wire.
pub(crate) fn wire_lines(side: char, bytes: &[u8]) -> Vec<String> {
    let ends = bytes.split_inclusive(|&byte| byte == b'\n');
    ends.map(|line| match line.strip_suffix(b"\r\n") {
        Some(text) => format!("{side}: {}", text.escape_ascii()),
        None => format!("{}: {}", side.to_ascii_lowercase(), line.escape_ascii()),
    })
    .collect()
}

/// Formats the expected lines like recorded events. Directives are omitted.
pub(crate) fn expected_events(lines: &[Line], receiver: char, directive: &str) -> Vec<String> {
    let mut events = Vec::new();
    let mut wire = Vec::new();
    for line in lines {
        match line {
            Line::Wire(side, bytes) => {
                assert_eq!(*side, receiver);
                wire.extend_from_slice(bytes);
            }
            Line::Word(word, _) if word == directive => {}
            Line::Word(word, value) => {
                events.extend(wire_lines(receiver, &std::mem::take(&mut wire)));
                events.push(event(word, value));
            }
        }
    }
    events.extend(wire_lines(receiver, &wire));
    events
}

pub(crate) fn event(word: &str, value: &str) -> String {
    if value.is_empty() { word.to_owned() } else { format!("{word}: {value}") }
}

/// Returns both lists side by side if they differ.
pub(crate) fn compare(sent: &[u8], expected: &[String], found: &[String]) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let list = |events: &[String]| events.iter().map(|event| format!("    {event}\n")).collect::<String>();
    let sent = sent.escape_ascii();
    Err(format!("  sent {sent}\n  expected\n{}  found\n{}", list(expected), list(found)))
}

/// How bytes are split.
pub(crate) enum Chunking {
    Whole,
    Bytes,
    Random(u64, Box<StdRng>),
}

impl Chunking {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let random = (0..RANDOM_RUNS).map(|seed| Self::Random(seed, Box::new(StdRng::seed_from_u64(seed))));
        [Self::Whole, Self::Bytes].into_iter().chain(random)
    }

    /// Returns how many of `available` bytes come next; at least one.
    pub(crate) fn next(&mut self, available: usize) -> usize {
        match self {
            Self::Whole => available,
            Self::Bytes => available.min(1),
            Self::Random(_, random) => random.random_range(1..=available.max(1)).min(available),
        }
    }
}

impl fmt::Display for Chunking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::Bytes => f.write_str("byte by byte"),
            Self::Random(seed, _) => write!(f, "random chunks, seed {seed}"),
        }
    }
}

const RANDOM_RUNS: u64 = 24;
