//! What is known of a reference: found, missing, forbidden, or not known yet.

use std::collections::BTreeMap;

use super::Reference;

/// The result of looking a reference up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It exists.
    Found(T),
    /// It does not exist.
    Missing,
    /// The API server does not let us read it; the text says why.
    Forbidden(String),
    /// The source cannot say yet; the text says why.
    Pending(String),
}

/// What a source can say about a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was read: where it is not among the objects, it does not exist.
    Known,
    /// It may not be read; why.
    Forbidden(String),
    /// It has not been read yet; why.
    Pending(String),
}

/// The answers for all references.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    listed: BTreeMap<Reference, Answer>,
    others: Answer,
}

/// All objects were read, as from a folder.
impl Default for Answers {
    fn default() -> Self {
        Self { listed: BTreeMap::new(), others: Answer::Known }
    }
}

impl Answers {
    /// Every reference is pending until it is set.
    #[must_use]
    pub fn of_watched() -> Self {
        Self { listed: BTreeMap::new(), others: Answer::Pending(UNANSWERED.to_owned()) }
    }

    /// Of one reference.
    #[must_use]
    pub fn get(&self, reference: &Reference) -> &Answer {
        self.listed.get(reference).unwrap_or(&self.others)
    }

    /// Sets one, or forgets it. Returns whether it is another than before.
    pub fn set(&mut self, reference: &Reference, answer: Option<Answer>) -> bool {
        if self.get(reference) == answer.as_ref().unwrap_or(&self.others) {
            // An answer like the default's is kept as well: it may be forgotten later.
            self.keep(reference, answer);
            return false;
        }
        self.keep(reference, answer);
        true
    }

    /// Those that were set.
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
    /// What was found, where nothing else matters.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Missing | Self::Forbidden(_) | Self::Pending(_) => None,
        }
    }

    /// Takes something out of what was found.
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Found(found) => Lookup::Found(of(found)),
            Self::Missing => Lookup::Missing,
            Self::Forbidden(why) => Lookup::Forbidden(why),
            Self::Pending(why) => Lookup::Pending(why),
        }
    }
}

/// Why a reference is pending when its watch has not reported an error either.
pub const UNANSWERED: &str = "the API server has not answered yet";
