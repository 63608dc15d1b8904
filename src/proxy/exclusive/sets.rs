//! The sets of endpoints by which a replica may have sessions of a group, and since which version.

use tokio::time::Instant;

use crate::model::exclusive::{EndpointSet, MAX_SETS};

/// Counts the changes of what a replica reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u64);

/// The sets of one group.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    /// The set for new sessions. Empty without endpoints.
    target: EndpointSet,
    /// When `target` changed last.
    changed: Instant,
    /// The sets of all open sessions, and `target`. None is empty, and `active` has none while there can be no session.
    active: Vec<EndpointSet>,
    /// Earlier sets that another replica may still believe to be active.
    retired: Vec<Retired>,
    /// No version from this one on is without a set.
    nonempty_since: Version,
    /// `active` and `retired` have all sets of the versions from this one on.
    complete_since: Version,
}

#[derive(Clone, Debug)]
struct Retired {
    set: EndpointSet,
    /// The first version without the set.
    since: Version,
}

impl Version {
    fn advance(&mut self) {
        self.0 = self.0.saturating_add(1);
    }
}

impl Sets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            target: EndpointSet::default(),
            changed: now,
            active: Vec::new(),
            retired: Vec::new(),
            nonempty_since: Version::default(),
            complete_since: Version::default(),
        }
    }

    pub(super) fn target(&self) -> &EndpointSet {
        &self.target
    }

    pub(super) fn changed(&self) -> Instant {
        self.changed
    }

    pub(super) fn active(&self) -> &[EndpointSet] {
        &self.active
    }

    /// Tells whether all sessions are by `target`.
    pub(super) fn is_settled(&self) -> bool {
        self.active.iter().all(|set| *set == self.target)
    }

    /// Makes a set the target. Returns false if it is already, or if there is no room for one more set. Then the caller
    /// tries again.
    pub(super) fn adopt(&mut self, target: EndpointSet, version: &mut Version, now: Instant) -> bool {
        if self.target == target {
            return false;
        }
        if !target.is_empty() && !self.active.contains(&target) {
            let others = self.retired.iter().filter(|retired| retired.set != target).count();
            if self.active.len().saturating_add(others) >= MAX_SETS {
                return false;
            }
            version.advance();
            if self.active.is_empty() {
                self.nonempty_since = *version;
                self.complete_since = *version;
                self.retired.clear();
            }
            self.retired.retain(|retired| retired.set != target);
            self.active.push(target.clone());
        }
        self.target = target;
        self.changed = now;
        true
    }

    /// Retires all sets but the target. No session may need them.
    pub(super) fn settle(&mut self, version: &mut Version) {
        if self.is_settled() {
            return;
        }
        version.advance();
        let (kept, left) = std::mem::take(&mut self.active).into_iter().partition(|set| *set == self.target);
        self.active = kept;
        self.retired.extend(left.into_iter().map(|set| Retired { set, since: *version }));
        if self.active.is_empty() {
            self.retired.clear();
        }
    }

    /// Tells whether there are sets now, and in all versions from `acknowledged` on.
    pub(super) fn are_nonempty_since(&self, acknowledged: Version) -> bool {
        !self.active.is_empty() && acknowledged >= self.nonempty_since
    }

    /// Returns the sets of all versions from `acknowledged` on. `None` if they are not known, or if one of these
    /// versions had no set.
    pub(super) fn since(&self, acknowledged: Version) -> Option<impl Iterator<Item = &EndpointSet>> {
        let retired = self.retired.iter().filter(move |retired| retired.since > acknowledged);
        (acknowledged >= self.complete_since)
            .then(|| self.active.iter().chain(retired.map(|retired| &retired.set)))
    }

    /// Forgets the sets that no other replica believes to be active. All of them have read version `acknowledged`.
    pub(super) fn forget(&mut self, acknowledged: Version) {
        for retired in self.retired.extract_if(.., |retired| retired.since <= acknowledged) {
            self.complete_since = self.complete_since.max(retired.since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::exclusive::EndpointName;

    fn set(names: &str) -> EndpointSet {
        names.split_whitespace().map(EndpointName::from).collect()
    }

    fn since(sets: &Sets, version: u64) -> Option<Vec<String>> {
        let text =
            |set: &EndpointSet| set.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        sets.since(Version(version)).map(|sets| sets.map(text).collect())
    }

    #[test]
    fn a_set_is_remembered_until_all_others_know_that_it_is_retired() {
        let (now, mut version) = (Instant::now(), Version::default());
        let mut sets = Sets::new(now);
        assert!(sets.adopt(set("a b"), &mut version, now) && !sets.adopt(set("a b"), &mut version, now));
        assert_eq!((since(&sets, 0), since(&sets, 1)), (None, Some(vec!["a b".into()])));
        assert!(sets.adopt(set("a c"), &mut version, now));
        assert_eq!((version, sets.is_settled()), (Version(2), false));
        sets.settle(&mut version);
        assert_eq!((version, sets.is_settled()), (Version(3), true));
        assert_eq!(since(&sets, 2), Some(vec!["a c".into(), "a b".into()]));
        assert_eq!(since(&sets, 3), Some(vec!["a c".into()]));
        sets.forget(Version(2));
        assert!(since(&sets, 2).is_some());
        sets.forget(Version(3));
        // What has been forgotten is not claimed to be unused.
        assert_eq!((since(&sets, 2), since(&sets, 3)), (None, Some(vec!["a c".into()])));
    }

    #[test]
    fn a_set_that_comes_back_is_not_retired() {
        let (now, mut version) = (Instant::now(), Version::default());
        let mut sets = Sets::new(now);
        for target in ["a", "b", "a"] {
            sets.adopt(set(target), &mut version, now);
            sets.settle(&mut version);
        }
        assert_eq!(since(&sets, 5), Some(vec!["a".into()]));
        assert_eq!(since(&sets, 3), Some(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn a_time_without_sets_is_not_passed_over() {
        let (now, mut version) = (Instant::now(), Version::default());
        let mut sets = Sets::new(now);
        sets.adopt(set("a"), &mut version, now);
        sets.adopt(EndpointSet::default(), &mut version, now);
        sets.settle(&mut version);
        assert!(sets.active().is_empty());
        sets.adopt(set("a"), &mut version, now);
        assert_eq!((since(&sets, 1), since(&sets, 2)), (None, None));
        assert_eq!(since(&sets, 3), Some(vec!["a".into()]));
    }

    #[test]
    fn sets_are_bounded_while_a_replica_is_silent() {
        let (now, mut version) = (Instant::now(), Version::default());
        let mut sets = Sets::new(now);
        for number in 0..100 {
            sets.adopt(set(&number.to_string()), &mut version, now);
            sets.settle(&mut version);
        }
        assert_eq!(sets.target(), &set("7"));
        // A known set needs no more room.
        assert!(sets.adopt(set("3"), &mut version, now));
        sets.settle(&mut version);
        assert_eq!(sets.active.len() + sets.retired.len(), MAX_SETS);
        sets.forget(version);
        assert!(sets.adopt(set("99"), &mut version, now));
    }
}
