//! The state of each reference: found, missing, forbidden, or pending.

use std::collections::BTreeMap;

use super::Reference;

/// The result of the lookup of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It exists.
    Found(T),
    /// It does not exist.
    Missing,
    /// The API server refuses access, for this reason.
    Forbidden(String),
    /// The source does not know it yet, for this reason.
    Pending(String),
}

/// What a source knows about a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has been read. If it is not among the objects, it does not exist.
    Known,
    /// It may not be read, for this reason.
    Forbidden(String),
    /// It has not been read yet, for this reason.
    Pending(String),
}

/// The answers for all references.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    listed: BTreeMap<Reference, Answer>,
    others: Answer,
}

/// The default: all objects have been read, as from a folder.
impl Default for Answers {
    fn default() -> Self {
        Self { listed: BTreeMap::new(), others: Answer::Known }
    }
}

impl Answers {
    /// Creates answers for which every reference is pending until it is set.
    #[must_use]
    pub fn of_watched() -> Self {
        Self { listed: BTreeMap::new(), others: Answer::Pending(UNANSWERED.to_owned()) }
    }

    /// Returns the answer for a reference.
    #[must_use]
    pub fn get(&self, reference: &Reference) -> &Answer {
        self.listed.get(reference).unwrap_or(&self.others)
    }

    /// Sets or removes an answer. Returns whether it has changed.
    pub fn set(&mut self, reference: &Reference, answer: Option<Answer>) -> bool {
        if self.get(reference) == answer.as_ref().unwrap_or(&self.others) {
            // An answer that equals the default is set as well, so that it can be removed later.
            self.keep(reference, answer);
            return false;
        }
        self.keep(reference, answer);
        true
    }

    /// Returns the answers that were set.
    pub(super) fn listed(&self) -> &BTreeMap<Reference, Answer> {
        &self.listed
    }

    fn keep(&mut self, reference: &Reference, answer: Option<Answer>) {
        match answer.filter(|answer| *answer != self.others) {
            Some(answer) => self.listed.insert(reference.clone(), answer),
            None => self.listed.remove(reference),
        };
    }
}

impl<T> Lookup<T> {
    /// Returns the object, if it was found.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Forbidden(_) | Self::Pending(_) => None,
        }
    }

    /// Applies `of` to the object, if it was found.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(found) => Lookup::Found(of(found)),
            Self::Missing => Lookup::Missing,
            Self::Forbidden(why) => Lookup::Forbidden(why),
            Self::Pending(why) => Lookup::Pending(why),
        }
    }
}

/// The reason for a pending reference if its watch has not reported an error.
pub const UNANSWERED: &str = "the API server has not answered yet";
