//! Messages of an import about a configuration, with their place.

use std::fmt;
use std::io;
use std::rc::Rc;

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's path.
    pub file: Rc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a configuration is refused, in nginx's words if nginx refuses it too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// The place of the problem.
    pub place: Place,
    /// The message.
    pub message: String,
}

impl Problem {
    /// Creates a problem.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

/// A setting without an equivalent, or with a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The place of the setting.
    pub place: Place,
    /// The message, with the remedy.
    pub message: String,
}

impl Note {
    /// Creates a note.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The result of an import that cannot create manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.problems))]
pub struct Refused {
    /// What has to be corrected first, sorted by place; at least one.
    pub problems: Vec<Problem>,
    /// Settings without an equivalent.
    pub notes: Vec<Note>,
}

/// Collects everything that an import finds, so that one run reports all of it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// A part of the text could not be read, so that missing directives are not reported.
    pub(super) is_incomplete: bool,
    /// Settings without an equivalent.
    pub(super) notes: Vec<Note>,
    /// Settings whose equivalent may not work as expected.
    pub(super) advice: Vec<Note>,
}

impl Findings {
    /// Records a problem and continues without the value.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Sorts by place and removes duplicates. Also removes notes about a line with a problem, because they only follow
    /// from it.
    pub(super) fn tidy(&mut self) {
        self.problems.sort();
        self.problems.dedup();
        let problems = &self.problems;
        for notes in [&mut self.notes, &mut self.advice] {
            notes.retain(|note| problems.iter().all(|problem| problem.place != note.place));
            notes.sort();
            notes.dedup();
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Formats an error as nginx does: `2: No such file or directory`.
pub(super) fn system_error(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => format!("{code}: {}", text.trim_end_matches(&format!(" (os error {code})"))),
        None => text,
    }
}
