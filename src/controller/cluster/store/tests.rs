//! Tests of the store.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::controller::cluster::resources;
use crate::controller::cluster::stored_status::StoredStatus;
use crate::controller::cluster::watches::WatchUpdate;
use crate::controller::index::{self, Answers, Objects, Reference, ReferenceKind, UNANSWERED};
use crate::controller::manifest;
use crate::controller::validate::Validator;

use super::*;

fn is(key: Key, seen: Result<Seen, String>) -> WatchUpdate {
    WatchUpdate::Applied(key, Box::new(seen))
}

struct Fixture {
    store: Store,
    validator: Validator,
    now: Instant,
    watches: u64,
}

impl Fixture {
    fn new() -> Self {
        let now = Instant::now();
        let mut fixture = Self {
            store: Store::new(resources::base(&[])),
            validator: Validator::new().unwrap(),
            now,
            watches: 0,
        };
        let base = fixture.store.follow().unwrap();
        for watched in base {
            fixture.watch(watched);
        }
        fixture
    }

    /// Follows one reference. Returns the number of its first watch.
    fn refer(&mut self, reference: &Reference) -> u64 {
        self.store.refer(&added([reference.clone()]));
        let wanted = self.store.follow().unwrap();
        let new: Vec<Watched> =
            wanted.into_iter().filter(|watched| !self.store.states.contains_key(watched)).collect();
        let first = self.watches + 1;
        for watched in new {
            self.watch(watched);
        }
        first
    }

    fn watch(&mut self, watched: Watched) -> u64 {
        self.watches += 1;
        self.store.started(watched, self.watches, self.now);
        self.watches
    }

    fn apply(&mut self, watch: u64, update: WatchUpdate) -> bool {
        self.store.apply(Event { watch, update }, self.now)
    }

    fn answer(&self, reference: &Reference) -> index::Answer {
        self.store.index.objects().answers.get(reference).clone()
    }

    fn nothing_anywhere(&mut self) {
        for watch in 1..=self.watches {
            self.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
        }
    }

    fn seen(&self, kind: WatchedKind, key: &Key, object: &Value) -> Seen {
        let (api, name) = kind.names();
        let content = manifest::content(api, name, key, object.clone(), &self.validator).unwrap();
        let resource_version = "1".to_owned();
        let status = StoredStatus::new(&object["status"]);
        Seen { content, uid: "u".to_owned(), generation: 1, resource_version, status, has_our_status: false }
    }
}

const SERVERS: u64 = 1;

fn added(references: impl IntoIterator<Item = Reference>) -> ReferenceChanges {
    ReferenceChanges { added: references.into_iter().collect(), removed: BTreeSet::new() }
}

fn removed(reference: Reference) -> ReferenceChanges {
    ReferenceChanges { added: BTreeSet::new(), removed: BTreeSet::from([reference]) }
}

fn key() -> Key {
    Key::new("mail", "edge")
}

fn server() -> Value {
    json!({ "metadata": { "name": "edge", "namespace": "mail" }, "spec": { "listeners": [] } })
}

fn reference() -> Reference {
    Reference::new(ReferenceKind::Secret, &Key::new("mail", "mail-tls"))
}

#[test]
fn nothing_is_rendered_before_our_own_objects_are_known() {
    let mut fixture = Fixture::new();
    assert!(!fixture.store.has_base());
    fixture.apply(SERVERS, WatchUpdate::Listed(BTreeMap::new()));
    fixture.apply(2, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned())));
    for watch in 3..=fixture.watches {
        fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
    }
    assert!(!fixture.store.has_base());
    fixture.apply(2, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())));
    assert!(fixture.store.has_base(), "what we may not know is not waited for");
}

#[test]
fn a_reference_is_pending_until_its_watch_has_answered() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let watch = fixture.refer(&reference());
    assert_eq!(fixture.answer(&reference()), index::Answer::Pending(UNANSWERED.to_owned()));
    fixture.apply(watch, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned())));
    assert!(matches!(fixture.answer(&reference()), index::Answer::Pending(why) if why.contains("refused")));
    fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
    assert_eq!(fixture.answer(&reference()), index::Answer::Known, "it does not exist");
}

#[test]
fn the_start_waits_for_a_watch_with_a_limit() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let watch = fixture.refer(&reference());
    assert!(
        fixture.store.awaits_answers(fixture.now)
            && !fixture.store.awaits_answers(fixture.now + FIRST_ANSWER_TIMEOUT)
    );
    fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
    assert!(!fixture.store.awaits_answers(fixture.now));
}

#[test]
fn waits_for_the_next_watch_while_others_are_answered_up_to_a_limit() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let of = |name: &str| Reference::new(ReferenceKind::Secret, &Key::new("mail", name));
    let (first, second) = (fixture.refer(&of("first")), fixture.refer(&of("second")));
    let begin = fixture.now;
    fixture.now = begin + FIRST_ANSWER_TIMEOUT / 2;
    fixture.apply(first, WatchUpdate::Listed(BTreeMap::new()));
    assert!(fixture.store.awaits_answers(begin + FIRST_ANSWER_TIMEOUT));
    assert!(!fixture.store.awaits_answers(fixture.now + FIRST_ANSWER_TIMEOUT));
    fixture.refer(&of("third"));
    fixture.now = begin + MAX_ANSWER_WAIT - FIRST_ANSWER_TIMEOUT / 2;
    fixture.apply(second + 1, WatchUpdate::Listed(BTreeMap::new()));
    assert!(
        fixture.store.awaits_answers(fixture.now) && !fixture.store.awaits_answers(begin + MAX_ANSWER_WAIT)
    );
}

#[test]
fn a_refusal_counts_only_after_the_start() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let watch = fixture.refer(&reference());
    fixture.apply(watch, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())));
    assert!(
        fixture.store.awaits_answers(fixture.now)
            && !fixture.store.awaits_answers(fixture.now + FIRST_ANSWER_TIMEOUT)
    );
    assert_eq!(fixture.answer(&reference()), index::Answer::Pending("no".to_owned()));
    fixture.store.accept_refusals();
    assert!(!fixture.store.awaits_answers(fixture.now));
    assert_eq!(fixture.answer(&reference()), index::Answer::Forbidden("no".to_owned()));
}

#[test]
fn a_forbidden_secret_is_reported() {
    let mut fixture = Fixture::new();
    fixture.store.accept_refusals();
    let watch = fixture.refer(&reference());
    assert!(fixture.apply(watch, WatchUpdate::Failed(Failure::Forbidden("may not list".to_owned()))));
    assert_eq!(fixture.answer(&reference()), index::Answer::Forbidden("may not list".to_owned()));
    assert_eq!(fixture.store.problems(fixture.now), ["Secret mail/mail-tls cannot be read: may not list"]);
}

#[test]
fn forbidden_endpoint_slices_are_not_missing() {
    let mut fixture = Fixture::new();
    fixture.store.accept_refusals();
    let key = Key::new("mail", "backend");
    let [service, slices] =
        [ReferenceKind::Service, ReferenceKind::EndpointSlices].map(|kind| Reference::new(kind, &key));
    let first = fixture.refer(&service);
    fixture.refer(&slices);
    fixture.apply(first, WatchUpdate::Listed(BTreeMap::new()));
    fixture.apply(first + 1, WatchUpdate::Failed(Failure::Forbidden("may not list".to_owned())));
    assert_eq!(fixture.answer(&service), index::Answer::Known);
    assert_eq!(fixture.answer(&slices), index::Answer::Forbidden("may not list".to_owned()));
}

#[test]
fn an_unreachable_api_server_is_one_problem_and_changes_nothing() {
    let mut fixture = Fixture::new();
    let seen = fixture.seen(WatchedKind::Server, &key(), &server());
    fixture.nothing_anywhere();
    fixture.apply(SERVERS, is(key(), Ok(seen)));
    for watch in 1..=3 {
        assert!(!fixture.apply(watch, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned()))));
    }
    assert!(fixture.store.index.objects().servers.contains_key(&key()));
    let problems = fixture.store.problems(fixture.now);
    assert!(matches!(problems.as_slice(), [one] if one.contains("cannot be reached")), "{problems:?}");
    assert!(
        fixture.store.problems(fixture.now + REPORTED_FOR).is_empty(),
        "it would have failed again by then"
    );
}

#[test]
fn a_broken_object_keeps_its_previous_state_and_affects_no_other() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let (first, second) = (key(), Key::new("mail", "other"));
    let seen = |fixture: &Fixture, key: &Key| Ok(fixture.seen(WatchedKind::Server, key, &server()));
    let both = [&first, &second].map(|key| (key.clone(), seen(&fixture, key)));
    fixture.apply(SERVERS, WatchUpdate::Listed(BTreeMap::from(both)));
    let listed = [(first.clone(), Err("it is broken".to_owned())), (second.clone(), seen(&fixture, &second))];
    fixture.apply(SERVERS, WatchUpdate::Listed(BTreeMap::from(listed)));
    assert_eq!(fixture.store.index.objects().servers.len(), 2);
    assert_eq!(fixture.store.problems(fixture.now), ["it is broken; its last content stays in use"]);
    fixture.apply(SERVERS, WatchUpdate::Listed(BTreeMap::new()));
    assert!(
        fixture.store.index.objects().servers.is_empty() && fixture.store.problems(fixture.now).is_empty()
    );
}

#[test]
fn our_own_status_coming_back_needs_no_render() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let mut seen = fixture.seen(WatchedKind::Server, &key(), &server());
    assert!(fixture.apply(SERVERS, is(key(), Ok(seen.clone()))));
    seen.status = StoredStatus::new(&json!({ "observedGeneration": 1 }));
    assert!(!fixture.apply(SERVERS, is(key(), Ok(seen.clone()))));
    let id = ObjectId::new(Kind::Server, &key());
    assert_eq!(fixture.store.own(&id).map(|own| &own.status), Some(&seen.status));
    seen.generation = 2;
    assert!(fixture.apply(SERVERS, is(key(), Ok(seen))));
}

#[test]
fn an_object_with_an_event_is_compared_once_after_a_minute() {
    let mut fixture = Fixture::new();
    let seen = fixture.seen(WatchedKind::Server, &key(), &server());
    fixture.apply(SERVERS, WatchUpdate::Listed(BTreeMap::from([(key(), Ok(seen.clone()))])));
    let later = fixture.now + COMPARE_AFTER;
    assert_eq!(fixture.store.take_due(later), BTreeSet::new(), "it is rendered now");
    fixture.apply(SERVERS, is(key(), Ok(seen.clone())));
    fixture.apply(SERVERS, is(key(), Ok(seen)));
    assert_eq!(fixture.store.take_due(fixture.now), BTreeSet::new());
    assert_eq!(fixture.store.take_due(later), BTreeSet::from([ObjectId::new(Kind::Server, &key())]));
    assert_eq!(fixture.store.take_due(later), BTreeSet::new());
}

#[test]
fn a_secret_that_is_listed_again_is_not_parsed_again() {
    let mut fixture = Fixture::new();
    let watch = fixture.refer(&reference());
    let key = reference().key;
    let secret = json!({ "metadata": { "name": "mail-tls" }, "data": { "tls.crt": "AAAA" } });
    for _ in 0..2 {
        let seen = fixture.seen(WatchedKind::Secret, &key, &secret);
        fixture.apply(watch, WatchUpdate::Listed(BTreeMap::from([(key.clone(), Ok(seen))])));
    }
    let first = Arc::clone(&fixture.store.index.objects().secrets[&key]);
    let seen = fixture.seen(WatchedKind::Secret, &key, &secret);
    fixture.apply(watch, is(key.clone(), Ok(seen)));
    assert!(Arc::ptr_eq(&first, &fixture.store.index.objects().secrets[&key]));
}

#[test]
fn ignores_events_of_an_ended_watch() {
    let mut fixture = Fixture::new();
    let watch = fixture.refer(&reference());
    fixture.store.refer(&removed(reference()));
    fixture.store.follow().unwrap();
    assert!(!fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new())));
    let again = fixture.refer(&reference());
    assert!(
        !fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()))
            && fixture.apply(again, WatchUpdate::Listed(BTreeMap::new()))
    );
}

#[test]
fn too_many_references_are_reported() {
    let mut store = Store::new(resources::base(&[]));
    let secret =
        |index: usize| Reference::new(ReferenceKind::Secret, &Key::new("mail", &format!("s{index}")));
    store.refer(&added((0..wanted::MAX_REFERRED + 2).map(secret)));
    store.follow();
    assert!(store.problems(Instant::now())[0].contains("; 2 referenced objects are not watched"));
}

#[test]
fn services_without_a_reference_cause_no_rendering() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let backend = Key::new("mail", "backend");
    let watch = fixture.refer(&Reference::new(ReferenceKind::Service, &backend));
    fixture.refer(&Reference::new(ReferenceKind::EndpointSlices, &backend));
    let slices = watch + 1;
    assert!(fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new())), "it does not exist");
    let service = |fixture: &Fixture, port: u16| {
        let object = json!({ "metadata": {}, "spec": { "ports": [{ "port": port }] } });
        Ok(fixture.seen(WatchedKind::Service, &backend, &object))
    };
    let other = Key::new("mail", "other");
    let (one, two) = (service(&fixture, 143), service(&fixture, 993));
    assert!(!fixture.apply(watch, is(other.clone(), one.clone())));
    assert!(fixture.apply(watch, is(backend.clone(), one.clone())));
    assert!(!fixture.apply(watch, is(backend.clone(), one)), "nothing changed");
    assert!(fixture.apply(watch, is(backend.clone(), two)));
    assert!(
        !fixture.apply(watch, WatchUpdate::Deleted(other))
            && fixture.apply(watch, WatchUpdate::Deleted(backend.clone()))
    );
    fixture.apply(slices, WatchUpdate::Listed(BTreeMap::new()));
    for (of, is_ours) in [("backend", true), ("other", false)] {
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": of } },
            "addressType": "IPv4",
            "endpoints": [],
        });
        let key = Key::new("mail", &format!("{of}-1"));
        let seen = fixture.seen(WatchedKind::Slice, &key, &slice);
        assert_eq!(fixture.apply(slices, is(key, Ok(seen))), is_ours);
    }
}

#[test]
fn services_of_an_allowed_namespace_are_known_if_the_cluster_is_forbidden() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let service = Reference::new(ReferenceKind::Service, &Key::new("mail", "backend"));
    fixture.store.accept_refusals();
    let first = fixture.refer(&service);
    let wide = resources::services(&Scope::Everywhere).map(|watched| fixture.watch(watched));
    for watch in wide {
        fixture.apply(watch, WatchUpdate::Failed(Failure::Forbidden("at the cluster scope".to_owned())));
    }
    assert_eq!(fixture.answer(&service), index::Answer::Pending(UNANSWERED.to_owned()));
    for watch in [first, first + 1] {
        fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
    }
    assert_eq!(fixture.answer(&service), index::Answer::Known);
}

#[test]
fn pods_that_may_not_be_read_are_no_problem_and_nothing_waits_for_them() {
    let mut fixture = Fixture::new();
    fixture.nothing_anywhere();
    let service = Reference::new(ReferenceKind::Service, &Key::new("mail", "backend"));
    let first = fixture.refer(&service);
    for watch in [first, first + 1] {
        fixture.apply(watch, WatchUpdate::Listed(BTreeMap::new()));
    }
    assert!(fixture.store.awaits_answers(fixture.now));
    fixture.apply(first + 2, WatchUpdate::Failed(Failure::Forbidden("pods is forbidden".to_owned())));
    assert!(!fixture.store.awaits_answers(fixture.now));
    assert_eq!(fixture.answer(&service), index::Answer::Known);
    let problem = "Pod objects in mail cannot be read, so their annotation mailgress.dev/drain has no effect; grant list \
                   and watch on pods: pods is forbidden";
    assert_eq!(fixture.store.notices(), BTreeSet::from([problem.to_owned()]));
    assert_eq!(fixture.store.problems(fixture.now), [""; 0]);
    // Later it is allowed.
    let pod = Key::new("mail", "backend-0");
    let seen =
        fixture.seen(WatchedKind::Pod, &pod, &json!({ "metadata": { "annotations": { DRAIN: "true" } } }));
    fixture.apply(first + 2, WatchUpdate::Listed(BTreeMap::from([(pod.clone(), Ok(seen))])));
    assert!(fixture.store.index.objects().leaving.contains(&pod));
    fixture.apply(first + 2, WatchUpdate::Deleted(pod));
    assert!(fixture.store.index.objects().leaving.is_empty());
}

/// Builds all objects anew from the states of all watches. More specific watches override others.
fn whole(store: &Store) -> Objects {
    let mut objects = Objects { answers: Answers::of_watched(), ..Objects::default() };
    for state in store.states.values() {
        for (key, seen) in &state.held {
            let Seen { content, uid, generation, .. } = &**seen;
            let key = key.clone();
            match content {
                Content::Server(own) => {
                    objects.servers.insert(key, Arc::new(own.resource(uid, *generation)));
                }
                Content::Secret(secret) => drop(objects.secrets.insert(key, Arc::clone(secret))),
                Content::Service(service) => drop(objects.services.insert(key, Arc::clone(service))),
                Content::Slice(slice) => drop(objects.slices.set(&key, Some(Arc::clone(slice)))),
                Content::LeavingPod => drop(objects.leaving.insert(key)),
                other => panic!("{other:?}"),
            }
        }
    }
    for reference in &store.references {
        let covering = store
            .states
            .iter()
            .filter(|(watched, _)| watched.covered(&store.references).contains(&reference));
        let states: Vec<&WatchState> = covering.map(|(_, state)| state).collect();
        let any = |answer: ListState| states.iter().any(|state| state.list == answer);
        let answer = match (any(ListState::Whole), any(ListState::None), any(ListState::Forbidden)) {
            (true, ..) => index::Answer::Known,
            (false, false, true) => index::Answer::Forbidden(String::new()),
            _ => index::Answer::Pending(String::new()),
        };
        objects.answers.set(reference, Some(answer));
    }
    objects
}

#[test]
fn changes_in_place_equal_the_result_of_all_watches() {
    let object = |kind: WatchedKind, choice: u8| {
        let service = ["a", "b"][usize::from(choice % 2)];
        let label = json!({ "labels": { "kubernetes.io/service-name": service } });
        match kind {
            WatchedKind::Secret => json!({ "metadata": {}, "type": service }),
            WatchedKind::Service => json!({ "metadata": {}, "spec": { "ports": [{ "port": choice }] } }),
            WatchedKind::Slice => json!({ "metadata": label, "addressType": "IPv4", "endpoints": [] }),
            WatchedKind::Pod => json!({ "metadata": { "annotations": { DRAIN: "true" } } }),
            _ => json!({ "metadata": {}, "spec": { "listeners": [] } }),
        }
    };
    proptest!(ProptestConfig::with_cases(20), |(events in prop::collection::vec(any::<[u8; 4]>(), 0..40))| {
        let mut fixture = Fixture::new();
        fixture.store.accept_refusals();
        let wide = resources::services(&Scope::Everywhere).map(|watched| fixture.watch(watched));
        for [what, which, key, choice] in events {
            let name = Key::new(["mail", "other"][usize::from(key / 2 % 2)], ["a", "b"][usize::from(key % 2)]);
            let kinds = [ReferenceKind::Secret, ReferenceKind::Service, ReferenceKind::EndpointSlices];
            let reference = Reference::new(kinds[usize::from(choice % 3)], &name);
            let watch = 1 + u64::from(which) % fixture.watches;
            let watched = fixture.store.numbers.get(&watch).cloned();
            let kind = watched.as_ref().map_or(WatchedKind::Namespace, |watched| watched.kind);
            // A watch reports only objects in its scope.
            let name = match watched.map(|watched| watched.scope) {
                Some(Scope::Named(key)) => key,
                Some(Scope::In(namespace)) => Key::new(&namespace, &name.name),
                Some(Scope::Everywhere) | None => name,
            };
            match what % 6 {
                0 => fixture.store.refer(&added([reference])),
                1 => fixture.store.refer(&removed(reference)),
                2 => drop(fixture.apply(watch, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())))),
                _ if matches!(kind, WatchedKind::Namespace | WatchedKind::Listener | WatchedKind::Route) => {}
                3 => drop(fixture.apply(watch, WatchUpdate::Deleted(name))),
                4 => {
                    let seen = fixture.seen(kind, &name, &object(kind, choice));
                    fixture.apply(watch, is(name, Ok(seen)));
                }
                _ => {
                    let seen = fixture.seen(kind, &name, &object(kind, choice));
                    let all = if choice % 3 == 0 { BTreeMap::new() } else { BTreeMap::from([(name, Ok(seen))]) };
                    fixture.apply(watch, WatchUpdate::Listed(all));
                }
            }
            // The watches of the whole cluster stay, as with many namespaces.
            for watched in fixture.store.follow().into_iter().flatten() {
                if !fixture.store.states.contains_key(&watched) {
                    fixture.watch(watched);
                }
            }
            let mut objects = fixture.store.index.objects().clone();
            for reference in &fixture.store.references {
                // The texts are ignored: they depend on which of several watches answers.
                let answer = match objects.answers.get(reference) {
                    index::Answer::Known => index::Answer::Known,
                    index::Answer::Forbidden(_) => index::Answer::Forbidden(String::new()),
                    index::Answer::Pending(_) => index::Answer::Pending(String::new()),
                };
                objects.answers.set(reference, Some(answer));
            }
            prop_assert_eq!(&objects, &whole(&fixture.store), "{:?}", wide);
        }
    });
}
