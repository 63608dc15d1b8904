//! The other replicas: which of them count, and what they have reported.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::exclusive::Report;

/// This replica and the others.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pod: String,
    instance: String,
    place: Place,
    peers: BTreeMap<String, Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// There are no other replicas.
    Alone,
    /// The list of replicas is not known, or this replica is not in it: the others may not know of it.
    Unlisted,
    Listed,
}

#[derive(Clone, Debug)]
struct Peer {
    /// When it left the list.
    left: Option<Instant>,
    heard: Heard,
}

#[derive(Clone, Debug)]
enum Heard {
    /// It has not reported. `counts`: it may have sessions. Otherwise it is new, and cannot open one before this replica
    /// has read its report.
    Nothing {
        counts: bool,
    },
    Report {
        instance: String,
        report: Report,
    },
}

impl Members {
    /// Creates the only replica.
    pub(super) fn alone(instance: &str) -> Self {
        let (pod, instance) = (String::new(), instance.to_owned());
        Self { pod, instance, place: Place::Alone, peers: BTreeMap::new() }
    }

    /// Creates a replica that does not know the others yet.
    pub(super) fn unlisted(pod: &str, instance: &str) -> Self {
        Self { pod: pod.to_owned(), place: Place::Unlisted, ..Self::alone(instance) }
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Tells whether the others know of this replica, or will before they act.
    pub(super) fn may_act(&self) -> bool {
        self.place != Place::Unlisted
    }

    /// Applies the list of replicas: for each Pod, whether it is ready. Returns true if this replica has left it.
    pub(super) fn list(&mut self, pods: &BTreeMap<String, bool>, now: Instant) -> bool {
        // An empty list has not even this replica, so it says nothing about the others.
        if self.place == Place::Alone || pods.is_empty() {
            return false;
        }
        let before = self.place;
        self.place = if pods.contains_key(&self.pod) { Place::Listed } else { Place::Unlisted };
        let joins = before == Place::Unlisted && self.place == Place::Listed;
        let leaves = before == Place::Listed && self.place == Place::Unlisted;
        for (pod, peer) in &mut self.peers {
            peer.left = if pods.contains_key(pod) { None } else { peer.left.or(Some(now)) };
        }
        for (pod, is_ready) in pods.iter().filter(|(pod, _)| **pod != self.pod) {
            let nothing = Peer { left: None, heard: Heard::Nothing { counts: false } };
            let peer = self.peers.entry(pod.clone()).or_insert(nothing);
            if let Heard::Nothing { counts } = &mut peer.heard {
                *counts |= joins || *is_ready;
            }
        }
        if leaves {
            // The others forget this replica. What they have acknowledged does not count any more.
            self.peers.values_mut().for_each(|peer| peer.heard = Heard::Nothing { counts: true });
        }
        self.peers.retain(|_, peer| peer.left.is_none() || peer.may_have_sessions());
        leaves
    }

    /// Applies the report of a replica. Returns whether it changes anything.
    pub(super) fn heard(&mut self, pod: &str, instance: &str, report: Report) -> bool {
        let Some(peer) = self.peers.get_mut(pod) else { return false };
        if instance == self.instance || !report.is_bounded() {
            return false;
        }
        if let Heard::Report { instance: known, report: last } = &peer.heard
            && known == instance
            && (report.version < last.version || report == *last)
        {
            return false;
        }
        peer.heard = Heard::Report { instance: instance.to_owned(), report };
        if peer.left.is_some() && !peer.may_have_sessions() {
            self.peers.remove(pod);
        }
        true
    }

    /// Forgets the replicas that left the list long enough ago. Their processes have ended. Returns whether it changes
    /// anything.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.peers.len();
        self.peers.retain(|_, peer| peer.left.is_none_or(|left| now < left + GONE_AFTER));
        self.peers.len() != before
    }

    /// Returns when the next replica is forgotten.
    pub(super) fn next(&self) -> Option<Instant> {
        self.peers.values().filter_map(|peer| peer.left).min().map(|left| left + GONE_AFTER)
    }

    /// Returns the versions that this replica has read, by instance.
    pub(super) fn acknowledged(&self) -> BTreeMap<String, u64> {
        let heard = self.peers.values().filter_map(|peer| match &peer.heard {
            Heard::Nothing { .. } => None,
            Heard::Report { instance, report } => Some((instance.clone(), report.version)),
        });
        heard.collect()
    }

    /// Returns the other replicas that count, each with its last report.
    pub(super) fn counting(&self) -> impl Iterator<Item = (&str, Option<&Report>)> {
        self.peers.iter().filter_map(|(pod, peer)| match &peer.heard {
            Heard::Nothing { counts } => counts.then_some((pod.as_str(), None)),
            Heard::Report { report, .. } => Some((pod.as_str(), Some(report))),
        })
    }
}

impl Peer {
    fn may_have_sessions(&self) -> bool {
        match &self.heard {
            Heard::Nothing { counts } => *counts,
            Heard::Report { report, .. } => !report.groups.is_empty(),
        }
    }
}

/// A replica counts for this time after it has left the list. Kubernetes lists a Pod until its containers have ended. The
/// time is for a replica that was taken out of the list alive: it sees this too, and ends its sessions.
const GONE_AFTER: Duration = Duration::from_secs(5);
