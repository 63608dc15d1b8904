//! What an import says about a configuration, with the place that it is about.

use std::fmt;
use std::io;
use std::rc::Rc;

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it is opened.
    pub file: Rc<str>,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a configuration is refused, in nginx's words where nginx has some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What.
    pub message: String,
}

impl Problem {
    /// A refusal.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

/// What has no equivalent, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where.
    pub place: Place,
    /// What it is, and what to do.
    pub message: String,
}

impl Note {
    /// A note.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A configuration without manifests: what has to be corrected first.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", listed(.problems))]
pub struct Refused {
    /// Why there are no manifests: at least one, in the order of the files' lines.
    pub problems: Vec<Problem>,
    /// What has no equivalent besides.
    pub notes: Vec<Note>,
}

/// Everything that an import finds, so that one run names all of it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Some of the text could not be read: what it should have said is not called missing.
    pub(super) is_incomplete: bool,
    /// What has no equivalent.
    pub(super) notes: Vec<Note>,
    /// What has an equivalent that may not do what is expected of it.
    pub(super) advice: Vec<Note>,
}

impl Findings {
    /// Remembers a problem, and goes on without the value.
    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Sorts by place, and names nothing twice. A note about a line that has a problem only follows from it.
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

/// An error as nginx writes it: `2: No such file or directory`.
pub(super) fn system_error(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => format!("{code}: {}", text.trim_end_matches(&format!(" (os error {code})"))),
        None => text,
    }
}
