//! Formats findings for people, for pipes, and for programs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::controller::reason::Reason;
use crate::words::shown;

use super::place::{Place, Source};

/// A problem or a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Whether it excludes something.
    pub(super) is_error: bool,
    pub(super) path: PathBuf,
    pub(super) place: Option<Place>,
    /// `MailServer mail/example`; empty if no object is known.
    pub(super) object: String,
    /// `spec.listeners[a].port`; empty if no field is known.
    pub(super) field: String,
    /// The reason in the API, if there is one.
    pub(super) reason: Option<Reason>,
    pub(super) problem: String,
    pub(super) remedy: String,
}

impl Finding {
    /// Formats `file:line:column: object: field: reason: problem; remedy`.
    pub(super) fn short(&self) -> String {
        let mut line = shown(&self.path);
        if let Some(Place { line: number, column, .. }) = &self.place {
            line = format!("{line}:{number}:{column}");
        }
        line.push_str(if self.is_error { ": " } else { ": warning: " });
        let reason = self.reason.map(Reason::name).unwrap_or_default();
        for part in [&self.object, &self.field, reason].into_iter().filter(|part| !part.is_empty()) {
            line = format!("{line}{part}: ");
        }
        line.push_str(&self.problem);
        if self.remedy.is_empty() { line } else { format!("{line}; {}", self.remedy) }
    }

    /// Formats the finding with the line of the file and a marker below the affected text.
    pub(super) fn long(&self, texts: &BTreeMap<PathBuf, Source>, width: Option<usize>) -> String {
        let level = if self.is_error { Level::ERROR } else { Level::WARNING };
        let title = level.primary_title(&self.problem);
        let title = match self.reason {
            // A link, if the terminal supports links.
            Some(reason) => title.id(reason.name()).id_url(reason.link()),
            None => title,
        };
        let path = shown(&self.path);
        let about = match (self.field.as_str(), self.object.as_str()) {
            ("", object) => object.to_owned(),
            (field, object) => format!("{field} of {object}"),
        };
        let group: Group<'_> = match (&self.place, texts.get(&self.path)) {
            (Some(place), Some(source)) if place.is_own => {
                let mark = AnnotationKind::Primary.span(place.span.clone());
                let mark = if about.is_empty() { mark } else { mark.label(about) };
                title.element(Snippet::source(source.text.as_str()).path(path).annotation(mark))
            }
            (place, _) => {
                let origin = Origin::path(path);
                let origin = match place {
                    Some(place) => origin.line(place.line).char_column(place.column),
                    None => origin,
                };
                let group = title.element(origin);
                if about.is_empty() { group } else { group.element(Level::NOTE.message(about)) }
            }
        };
        let group =
            if self.remedy.is_empty() { group } else { group.element(Level::HELP.message(&self.remedy)) };
        let renderer = Renderer::styled().term_width(width.unwrap_or(WIDE));
        renderer.render(&[group])
    }

    /// Formats the finding as JSON.
    pub(super) fn document(&self) -> Value {
        json!({
            "level": if self.is_error { "error" } else { "warning" },
            "file": self.path,
            "line": self.place.as_ref().map(|place| place.line),
            "column": self.place.as_ref().map(|place| place.column),
            "object": self.object,
            "field": self.field,
            "reason": self.reason.map(Reason::name),
            "problem": self.problem,
            "remedy": self.remedy,
        })
    }
}

/// The number of columns if the output is not a terminal.
const WIDE: usize = 140;
