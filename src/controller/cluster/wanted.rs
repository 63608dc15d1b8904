//! Selects the watches for the current references. Pure.

use std::collections::BTreeSet;

use crate::controller::index::{Reference, ReferenceKind};

use super::resources::{Scope, Watched, by_name, services};
use super::store::ListState;

/// Returns the base and the watches for these references, up to the limit, and the number of watches above the limit.
/// `answer` returns the state of a watch that runs.
pub(super) fn wanted(
    base: &[Watched],
    references: &BTreeSet<Reference>,
    answer: impl Fn(&Watched) -> Option<ListState>,
) -> (BTreeSet<Watched>, usize) {
    let mut wanted: BTreeSet<Watched> = base.iter().cloned().collect();
    let fixed = wanted.len();
    let services = of_services(base, references, answer);
    let others = references.iter().filter_map(by_name);
    let mut excess: usize = 0;
    // Services first: few watches serve many references.
    for watched in services.into_iter().chain(others) {
        if wanted.len().saturating_sub(fixed) < MAX_REFERRED {
            wanted.insert(watched);
        } else {
            excess = excess.saturating_add(1);
        }
    }
    (wanted, excess)
}

/// Returns the watches for Services: one pair per namespace or, with many namespaces and if it is allowed, one pair for
/// the whole cluster. The watches of namespaces stay until that of the cluster is complete.
fn of_services(
    base: &[Watched],
    references: &BTreeSet<Reference>,
    answer: impl Fn(&Watched) -> Option<ListState>,
) -> BTreeSet<Watched> {
    let of = |reference: &&Reference| {
        matches!(reference.kind, ReferenceKind::Service | ReferenceKind::EndpointSlices)
    };
    let namespaces: BTreeSet<&str> =
        references.iter().filter(of).map(|reference| reference.key.namespace.as_str()).collect();
    let narrow = namespaces.iter().flat_map(|namespace| services(&Scope::In((*namespace).to_owned())));
    let all = services(&Scope::Everywhere);
    let is_cluster_wide = base.iter().any(|watched| watched.scope == Scope::Everywhere);
    let runs = all.iter().any(|watched| answer(watched) == Some(ListState::Whole));
    // A watch of the whole cluster stays. Otherwise, changes around the limit would list everything again each time.
    if !is_cluster_wide || !runs && namespaces.len() <= MAX_NAMESPACES {
        return narrow.collect();
    }
    let is_known = |kind| {
        let wide = all.iter().find(|watched| watched.kind == kind);
        wide.and_then(&answer)
    };
    let kept = narrow.filter(|watched| match is_known(watched.kind) {
        Some(ListState::Whole) => false,
        Some(ListState::Forbidden) => true,
        Some(ListState::None) | None => answer(watched).is_some(),
    });
    kept.chain(all.clone()).collect()
}

/// The maximum number of watches for references.
pub(super) const MAX_REFERRED: usize = 16384;
/// With more namespaces, Services of the whole cluster are watched. Each namespace needs three watches.
const MAX_NAMESPACES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::cluster::resources::{WatchedKind, base};
    use crate::controller::index::Key;

    fn references(namespaces: usize) -> BTreeSet<Reference> {
        let of = |index| Reference::new(ReferenceKind::Service, &Key::new(&format!("n{index}"), "backend"));
        (0..namespaces).map(of).collect()
    }

    fn of_services_in(
        base: &[Watched],
        namespaces: usize,
        answer: impl Fn(&Watched) -> Option<ListState>,
    ) -> (usize, usize) {
        let (wanted, excess) = wanted(base, &references(namespaces), answer);
        assert_eq!(excess, 0);
        let of = |kind| kind == WatchedKind::Service || kind == WatchedKind::Slice;
        let (wide, narrow): (Vec<_>, Vec<_>) =
            wanted.iter().filter(|watched| of(watched.kind)).partition(|w| w.scope == Scope::Everywhere);
        (wide.len(), narrow.len())
    }

    #[test]
    fn services_of_few_namespaces_are_watched_there_and_those_of_many_everywhere() {
        let nothing = |_: &Watched| None;
        let whole = |_: &Watched| Some(ListState::Whole);
        assert_eq!(of_services_in(&base(&[]), 3, nothing), (0, 6));
        assert_eq!(of_services_in(&base(&[]), MAX_NAMESPACES + 1, nothing), (2, 0));
        assert_eq!(of_services_in(&base(&[]), 3, whole), (2, 0), "it is there, and it stays");
    }

    #[test]
    fn watches_of_namespaces_stay_until_that_of_the_cluster_is_complete() {
        let is_old = |watched: &Watched| matches!(&watched.scope, Scope::In(namespace) if namespace != "n0");
        let asked = |watched: &Watched| match watched.scope {
            Scope::Everywhere => Some(ListState::None),
            _ => is_old(watched).then_some(ListState::Whole),
        };
        assert_eq!(of_services_in(&base(&[]), MAX_NAMESPACES + 1, asked), (2, 2 * MAX_NAMESPACES));
        let forbidden =
            |watched: &Watched| (watched.scope == Scope::Everywhere).then_some(ListState::Forbidden);
        let each = 2 * (MAX_NAMESPACES + 1);
        assert_eq!(of_services_in(&base(&[]), MAX_NAMESPACES + 1, forbidden), (2, each));
    }

    #[test]
    fn watches_only_the_given_namespaces() {
        let named = base(&["n0".to_owned()]);
        let many = 3 * MAX_NAMESPACES;
        assert_eq!(of_services_in(&named, many, |_| None), (0, 2 * many));
    }

    #[test]
    fn no_more_is_watched_than_the_bound() {
        let secret = |index| Reference::new(ReferenceKind::Secret, &Key::new("mail", &format!("s{index}")));
        let references = (0..MAX_REFERRED + 2).map(secret).collect();
        let (wanted, excess) = wanted(&base(&[]), &references, |_| None);
        assert_eq!((wanted.len(), excess), (4 + MAX_REFERRED, 2));
    }
}
