//! What listeners claim, port by port, and who has it: judged again only where a claim has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Listener, ListenerId, Socket};
use crate::net::ListenAddress;

use super::super::index::ObjectId;
use super::super::violation::Violation;
use super::Candidate;
use super::conflicts::{Place, among_strangers, is_same_claim};
use super::draft::Precedence;

/// Who is stronger: the smaller. The listeners of one object in their order.
pub(crate) type Rank = (Precedence, usize);

/// What an object claims, by its listeners' positions.
pub(crate) type Claims = BTreeMap<Rank, Arc<Candidate>>;

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<Place, BTreeMap<Rank, Claim>>);

#[derive(Debug)]
struct Claim {
    candidate: Arc<Candidate>,
    verdict: Verdict,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    None,
    Served,
    Lost(Violation),
}

/// What changed claims lead to.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    unsettled: BTreeSet<Place>,
    /// Objects of which a listener has won or lost.
    pub(crate) objects: BTreeSet<ObjectId>,
    /// Addresses with other listeners behind them.
    pub(crate) addresses: BTreeSet<ListenAddress>,
    /// Where these listeners are served now; `None`: nowhere.
    pub(crate) listeners: BTreeMap<ListenerId, Option<Served>>,
}

/// A listener that is served.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) object: ObjectId,
    pub(crate) address: ListenAddress,
    pub(crate) listener: Arc<Listener>,
}

impl Ports {
    /// An object claims other things than before. What it claims newly is nobody's until [`Self::settle`].
    pub(crate) fn replace(&mut self, old: &Claims, new: &Claims, effects: &mut Effects) {
        for (rank, before) in old {
            let stays = new.get(rank).is_some_and(|after| is_same_claim(before, after));
            if !stays {
                self.withdraw(rank, before, effects);
            }
        }
        for (rank, after) in new {
            match old.get(rank) {
                Some(before) if is_same_claim(before, after) => self.renew(rank, after, effects),
                _ => self.claim(rank, after, effects),
            }
        }
    }

    /// Decides about everything that is claimed newly, and everything that this may change.
    pub(crate) fn settle(&mut self, effects: &mut Effects) {
        for place in std::mem::take(&mut effects.unsettled) {
            let Some(claims) = self.0.get_mut(&place) else { continue };
            let lost = among_strangers(claims.values().map(|claim| &claim.candidate));
            for ((rank, claim), lost) in claims.iter_mut().zip(lost) {
                let verdict = lost.map_or(Verdict::Served, Verdict::Lost);
                if claim.verdict != verdict {
                    claim.verdict = verdict;
                    effects.objects.insert(object(rank));
                    effects.note(rank, claim);
                }
            }
        }
    }

    /// Why the claim is lost, if it is.
    pub(crate) fn lost(&self, rank: &Rank, candidate: &Candidate) -> Option<&Violation> {
        match &self.0.get(&Place::of(&candidate.address))?.get(rank)?.verdict {
            Verdict::Lost(violation) => Some(violation),
            Verdict::None | Verdict::Served => None,
        }
    }

    /// The socket at an address, with all listeners behind it.
    pub(crate) fn socket(&self, address: &ListenAddress) -> Option<Socket> {
        let mut socket = self.served(address).next()?.1.socket();
        socket.listeners.extend(self.served(address).map(|(_, candidate)| Arc::clone(&candidate.listener)));
        Some(socket)
    }

    /// Whose these listeners are.
    pub(crate) fn objects(&self, address: &ListenAddress) -> impl Iterator<Item = ObjectId> {
        self.served(address).map(|(rank, _)| object(rank))
    }

    fn served(&self, address: &ListenAddress) -> impl Iterator<Item = (&Rank, &Arc<Candidate>)> {
        let claims = self.0.get(&Place::of(address)).into_iter().flatten();
        let served = claims.filter(|(_, claim)| claim.verdict == Verdict::Served);
        let candidates = served.map(|(rank, claim)| (rank, &claim.candidate));
        candidates.filter(move |(_, candidate)| candidate.address == *address)
    }

    /// Nobody sees a difference but the clients.
    fn renew(&mut self, rank: &Rank, candidate: &Arc<Candidate>, effects: &mut Effects) {
        let place = self.0.get_mut(&Place::of(&candidate.address));
        if let Some(claim) = place.and_then(|claims| claims.get_mut(rank))
            && !Arc::ptr_eq(&claim.candidate, candidate)
        {
            claim.candidate = Arc::clone(candidate);
            if claim.verdict == Verdict::Served {
                effects.note(rank, claim);
            }
        }
    }

    fn claim(&mut self, rank: &Rank, candidate: &Arc<Candidate>, effects: &mut Effects) {
        let place = Place::of(&candidate.address);
        let claim = Claim { candidate: Arc::clone(candidate), verdict: Verdict::None };
        self.0.entry(place.clone()).or_default().insert(rank.clone(), claim);
        effects.unsettled.insert(place);
    }

    fn withdraw(&mut self, rank: &Rank, candidate: &Candidate, effects: &mut Effects) {
        let place = Place::of(&candidate.address);
        let Some(claims) = self.0.get_mut(&place) else { return };
        if let Some(mut claim) = claims.remove(rank) {
            claim.verdict = Verdict::None;
            effects.note(rank, &claim);
        }
        if claims.is_empty() {
            self.0.remove(&place);
        }
        effects.unsettled.insert(place);
    }
}

impl Effects {
    fn note(&mut self, rank: &Rank, claim: &Claim) {
        let Candidate { address, listener, .. } = &*claim.candidate;
        let served = (claim.verdict == Verdict::Served).then(|| Served {
            object: object(rank),
            address: address.clone(),
            listener: Arc::clone(listener),
        });
        self.addresses.insert(address.clone());
        self.listeners.insert(listener.id.clone(), served);
    }
}

fn object(((kind, _, key), _): &Rank) -> ObjectId {
    ObjectId::new(*kind, key)
}
