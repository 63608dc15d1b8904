//! The claims of all listeners, and the decisions on them. A place (a port or path) is decided again only if a claim on
//! it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::controller::index::ObjectId;
use crate::controller::violation::Violation;
use crate::model::{Listener, ListenerId, Listeners, Snapshot, Socket};
use crate::net::ListenAddress;

use super::conflicts::{Decision, Place, among_objects};
use super::{Candidate, Precedence};

/// The order of claims: the smaller one is stronger. Within an object, the order of its listeners decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) precedence: Precedence,
    /// The listener's position in its object.
    pub(crate) listener: usize,
    /// A listener may have a reservation besides the claim with which it is served.
    pub(crate) is_reserved: bool,
}

/// The claims of an object.
pub(crate) type Claims = BTreeMap<Rank, Arc<Candidate>>;

#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<Place, BTreeMap<Rank, Entry>>);

#[derive(Debug)]
struct Entry {
    candidate: Arc<Candidate>,
    decision: Decision,
    /// The revision of the snapshot in which the listener was last changed, if it is served.
    since: u64,
}

/// The consequences of changed claims.
#[derive(Debug)]
pub(crate) struct Effects {
    /// The revision of the next snapshot.
    revision: u64,
    unsettled: BTreeSet<Place>,
    withdrawn: BTreeMap<ListenerId, Withdrawn>,
    /// Objects with a claim whose decision has changed.
    pub(crate) decided: BTreeSet<ObjectId>,
    /// Objects with a listener that is new or changed in this revision.
    pub(crate) renewed: BTreeSet<ObjectId>,
    /// Addresses whose listeners may have changed.
    pub(crate) addresses: BTreeSet<ListenAddress>,
}

/// A served listener whose claim was removed. Another claim may continue it.
#[derive(Debug)]
struct Withdrawn {
    address: ListenAddress,
    listener: Arc<Listener>,
    since: u64,
}

impl Effects {
    /// Creates the effects for the snapshot of this revision.
    pub(crate) fn new(revision: u64) -> Self {
        Self {
            revision,
            unsettled: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
            decided: BTreeSet::new(),
            renewed: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }
}

impl Ports {
    /// Replaces the claims of an object. New claims are undecided until [`Self::settle`].
    pub(crate) fn replace(&mut self, old: &Claims, new: &Claims, effects: &mut Effects) {
        for (rank, before) in old {
            if new.get(rank).is_none_or(|after| before.claim != after.claim) {
                self.withdraw(rank, before, effects);
            }
        }
        for (rank, after) in new {
            match old.get(rank) {
                Some(before) if before.claim == after.claim => self.renew(rank, after, effects),
                _ => self.claim(rank, after, effects),
            }
        }
    }

    /// Decides all claims of places with a changed claim. `before` is the snapshot that is served now.
    pub(crate) fn settle(&mut self, before: &Snapshot, effects: &mut Effects) {
        for place in std::mem::take(&mut effects.unsettled) {
            let Some(entries) = self.0.get_mut(&place) else { continue };
            let candidates: Vec<_> = entries.values().map(|entry| Arc::clone(&entry.candidate)).collect();
            let decisions = among_objects(&candidates.iter().collect::<Vec<_>>(), before);
            for ((rank, entry), decision) in entries.iter_mut().zip(decisions) {
                if entry.decision != decision {
                    entry.decision = decision;
                    entry.decided(rank, effects);
                }
            }
        }
    }

    /// Marks all listeners at an address as changed in this revision.
    pub(crate) fn restart(&mut self, address: &ListenAddress, effects: &mut Effects) {
        for (rank, entry) in self.0.get_mut(&Place::of(address)).into_iter().flatten() {
            if entry.served().is_some() && entry.candidate.claim.address == *address {
                entry.since = effects.revision;
                effects.renewed.insert(object(rank));
            }
        }
    }

    /// Returns why a claim has lost, if it has.
    pub(crate) fn lost(&self, rank: &Rank, candidate: &Candidate) -> Option<&Violation> {
        match &self.entry(rank, candidate)?.decision {
            Decision::Loses(violation) => Some(violation),
            Decision::Undecided | Decision::Wins | Decision::Yields => None,
        }
    }

    /// Returns the listener of a claim, if it is served, and the revision in which it was last changed.
    pub(crate) fn served(&self, rank: &Rank, candidate: &Candidate) -> Option<(&Arc<Listener>, u64)> {
        let entry = self.entry(rank, candidate)?;
        Some((entry.served()?, entry.since))
    }

    /// Returns the socket at an address with all its listeners.
    pub(crate) fn socket(&self, address: &ListenAddress) -> Option<Socket> {
        let entries = self.0.get(&Place::of(address)).into_iter().flat_map(BTreeMap::values);
        let served = entries.filter_map(|entry| Some((&entry.candidate.claim, entry.served()?)));
        let mut here = served.filter(|(claim, _)| claim.address == *address);
        let (claim, first) = here.next()?;
        let others = here.map(|(_, listener)| Arc::clone(listener));
        Some(claim.socket(Listeners::new(Arc::clone(first), others)))
    }

    fn entry(&self, rank: &Rank, candidate: &Candidate) -> Option<&Entry> {
        self.0.get(&Place::of(&candidate.claim.address))?.get(rank)
    }

    /// Replaces a listener whose claim has not changed.
    fn renew(&mut self, rank: &Rank, candidate: &Arc<Candidate>, effects: &mut Effects) {
        let place = self.0.get_mut(&Place::of(&candidate.claim.address));
        let Some(entry) = place.and_then(|entries| entries.get_mut(rank)) else { return };
        let before = std::mem::replace(&mut entry.candidate, Arc::clone(candidate));
        let is_same = match (&before.listener, &candidate.listener) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            _ => false,
        };
        if !is_same && entry.served().is_some() {
            entry.since = effects.revision;
            effects.renewed.insert(object(rank));
            effects.addresses.insert(candidate.claim.address.clone());
        }
    }

    fn claim(&mut self, rank: &Rank, candidate: &Arc<Candidate>, effects: &mut Effects) {
        let place = Place::of(&candidate.claim.address);
        let entry = Entry { candidate: Arc::clone(candidate), decision: Decision::Undecided, since: 0 };
        self.0.entry(place.clone()).or_default().insert(rank.clone(), entry);
        effects.unsettled.insert(place);
    }

    fn withdraw(&mut self, rank: &Rank, candidate: &Candidate, effects: &mut Effects) {
        let place = Place::of(&candidate.claim.address);
        let Some(entries) = self.0.get_mut(&place) else { return };
        if let Some(entry) = entries.remove(rank)
            && let Some(listener) = entry.served()
        {
            let address = entry.candidate.claim.address.clone();
            effects.addresses.insert(address.clone());
            let withdrawn = Withdrawn { address, listener: Arc::clone(listener), since: entry.since };
            effects.withdrawn.insert(listener.id.clone(), withdrawn);
        }
        if entries.is_empty() {
            self.0.remove(&place);
        }
        effects.unsettled.insert(place);
    }
}

impl Entry {
    /// Returns the listener, if it is served.
    fn served(&self) -> Option<&Arc<Listener>> {
        self.candidate.listener.as_ref().filter(|_| self.decision == Decision::Wins)
    }

    /// Records a changed decision.
    fn decided(&mut self, rank: &Rank, effects: &mut Effects) {
        effects.decided.insert(object(rank));
        let Some(listener) = &self.candidate.listener else { return };
        let address = &self.candidate.claim.address;
        effects.addresses.insert(address.clone());
        if self.decision == Decision::Wins {
            let same = effects.withdrawn.get(&listener.id);
            let same = same.filter(|old| old.address == *address && Arc::ptr_eq(&old.listener, listener));
            self.since = same.map_or(effects.revision, |old| old.since);
            if same.is_none() {
                effects.renewed.insert(object(rank));
            }
        }
    }
}

fn object(rank: &Rank) -> ObjectId {
    let (kind, _, key) = &rank.precedence;
    ObjectId::new(*kind, key)
}
