//! Renders again only what a change touches, with the outcome that [`super::render`] would have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::index::{Index, ObjectId, Reference};
use super::draft::{Drafted, Drafting, Ours};
use super::interest::Interest;
use super::ports::{Claims, Effects, Ports};
use super::references::Looked;
use super::tls::Certificates;
use super::{Candidate, Environment, LastGood, ObjectOutcome};

/// All renderings, and what they depend on.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    last_good: LastGood,
    certificates: Certificates,
    interest: Interest,
    known: BTreeMap<ObjectId, Known>,
    ports: Ports,
    /// Objects that have been touched since something was taken.
    touched: BTreeSet<ObjectId>,
    /// What else was last looked at.
    environment: Option<Environment>,
}

/// What came of looking at what has changed: to be taken, or to be forgotten and made again.
#[derive(Debug, Default)]
pub struct Look {
    drafted: BTreeMap<ObjectId, Option<Drafted>>,
    asked: BTreeSet<Reference>,
}

impl Look {
    /// What was looked for by name and has not been of interest before.
    #[must_use]
    pub fn asked(&self) -> &BTreeSet<Reference> {
        &self.asked
    }
}

/// An object as it was taken.
#[derive(Debug)]
struct Known {
    looked: Looked,
    claims: Claims,
    /// What is known without looking at other objects; `None`: it is of another class.
    outcome: Option<Arc<ObjectOutcome>>,
}

/// What a look changes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What became of sockets and listeners.
    pub(crate) effects: Effects,
    /// The outcomes of all objects for which it may be another; `None`: not ours any more.
    pub(crate) outcomes: BTreeMap<ObjectId, Option<Arc<ObjectOutcome>>>,
    /// What nobody looks for any more.
    pub(crate) released: Vec<Reference>,
}

impl Renderer {
    /// Renders what was touched since something was last taken.
    pub(crate) fn look(&mut self, index: &mut Index, environment: &Environment) -> Look {
        let (objects, changes) = index.take();
        self.touched.extend(self.interest.touched(&changes));
        if let Some(before) = &self.environment {
            let same = Environment { now: before.now, ..environment.clone() } == *before;
            let elsewhere = self.known.keys().filter(|_| !same);
            let later = self.interest.between(before.now, environment.now);
            self.touched.extend(elsewhere.chain(later).cloned());
        }
        self.environment = Some(environment.clone());
        let (last_good, certificates) = (&self.last_good, &mut self.certificates);
        for reference in &changes.references {
            certificates.renew(objects, reference);
        }
        let mut drafting = Drafting { objects, environment, last_good, certificates };
        let mut look = Look::default();
        for id in &self.touched {
            let drafted = drafting.object(id);
            let references = drafted.iter().flat_map(|drafted| &drafted.looked.references);
            look.asked.extend(references.filter(|reference| !self.interest.has(reference)).cloned());
            look.drafted.insert(id.clone(), drafted);
        }
        look
    }

    /// Takes the last look.
    pub(crate) fn take(&mut self, look: Look) -> Taken {
        let mut taken = Taken::default();
        self.touched.clear();
        for (id, drafted) in look.drafted {
            self.replace(&id, drafted, &mut taken);
            taken.outcomes.insert(id, None);
        }
        self.ports.settle(&mut taken.effects);
        for id in std::mem::take(&mut taken.effects.objects) {
            taken.outcomes.insert(id, None);
        }
        for (id, outcome) in &mut taken.outcomes {
            *outcome = self.outcome(id);
        }
        taken.released.retain(|reference| !self.interest.has(reference));
        for reference in &taken.released {
            self.certificates.forget(reference);
        }
        taken
    }

    /// Whether anything taken has looked for it.
    pub(crate) fn wants(&self, reference: &Reference) -> bool {
        self.interest.has(reference)
    }

    /// All claims.
    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    fn replace(&mut self, id: &ObjectId, drafted: Option<Drafted>, taken: &mut Taken) {
        let old = self.known.remove(id).unwrap_or_else(Known::nothing);
        let new = drafted.map(|drafted| {
            let kept = self.same_stay_the_same(id, drafted);
            self.last_good.keep(id, Some(&kept));
            Known::new(kept)
        });
        if new.is_none() {
            self.last_good.keep(id, None);
        }
        let nothing = Known::nothing();
        let after = new.as_ref().unwrap_or(&nothing);
        taken.released.extend(self.interest.replace(id, &old.looked, &after.looked));
        self.ports.replace(&old.claims, &after.claims, &mut taken.effects);
        if let Some(new) = new {
            self.known.insert(id.clone(), new);
        }
    }

    /// What is equal to what it was becomes the same allocation: from here on nobody compares anything else.
    fn same_stay_the_same(&self, id: &ObjectId, mut drafted: Drafted) -> Drafted {
        let Some(ours) = &mut drafted.ours else { return drafted };
        let same = |candidate: &mut Arc<Candidate>| {
            let listener = &candidate.listener.id;
            let earlier = [self.last_good.candidate(id, listener), self.last_good.claim(id, listener)];
            let earlier = || earlier.into_iter().flatten();
            if let Some(old) = earlier().find(|old| *old == candidate) {
                *candidate = Arc::clone(old);
            } else if let Some(old) = earlier().find(|old| old.listener == candidate.listener) {
                let listener = Arc::clone(&old.listener);
                *candidate = Arc::new(Candidate { listener, ..(**candidate).clone() });
            }
        };
        ours.good.iter_mut().for_each(same);
        ours.claims.iter_mut().flatten().for_each(same);
        drafted
    }

    /// With what other objects take from it.
    fn outcome(&self, id: &ObjectId) -> Option<Arc<ObjectOutcome>> {
        let known = self.known.get(id)?;
        let own = known.outcome.as_ref()?;
        let mut losses = known
            .claims
            .iter()
            .filter_map(|(rank, claim)| Some((rank.1, self.ports.lost(rank, claim)?)))
            .peekable();
        if losses.peek().is_none() {
            return Some(Arc::clone(own));
        }
        let mut outcome = (**own).clone();
        for (position, violation) in losses {
            if let Some(listener) = outcome.listeners.get_mut(position) {
                listener.lose(violation.clone());
            }
        }
        Some(Arc::new(outcome))
    }
}

impl Known {
    fn nothing() -> Self {
        Self { looked: Looked::default(), claims: Claims::new(), outcome: None }
    }

    fn new(drafted: Drafted) -> Self {
        let Drafted { looked, ours, .. } = drafted;
        let Some(Ours { precedence, claims, outcome, .. }) = ours else {
            return Self { looked, ..Self::nothing() };
        };
        let claims = claims.into_iter().enumerate();
        let claims = claims.filter_map(|(position, claim)| Some(((precedence.clone(), position), claim?)));
        Self { looked, claims: claims.collect(), outcome: Some(Arc::new(outcome)) }
    }
}

#[cfg(test)]
mod tests;
