//! Tests of the store.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::controller::cluster::resources;
use crate::controller::cluster::watches::WatchUpdate;
use crate::controller::index::{self, Answers, Objects, Reference, ReferenceKind, UNANSWERED};
use crate::controller::manifest;
use crate::controller::validate::Validator;

use super::*;

fn is(key: Key, seen: Result<Seen, String>) -> WatchUpdate {
    WatchUpdate::Is(key, Box::new(seen))
}

struct Heard {
    store: Store,
    validator: Validator,
    now: Instant,
    watches: u64,
}

impl Heard {
    fn new() -> Self {
        let now = Instant::now();
        let mut heard = Self {
            store: Store::new(resources::base(&[])),
            validator: Validator::new().unwrap(),
            now,
            watches: 0,
        };
        let base = heard.store.follow().unwrap();
        for watched in base {
            heard.watch(watched);
        }
        heard
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

    fn says(&mut self, watch: u64, update: WatchUpdate) -> bool {
        self.store.apply(Event { watch, update }, self.now)
    }

    fn answer(&self, reference: &Reference) -> index::Answer {
        self.store.index.objects().answers.get(reference).clone()
    }

    fn nothing_anywhere(&mut self) {
        for watch in 1..=self.watches {
            self.says(watch, WatchUpdate::All(BTreeMap::new()));
        }
    }

    fn seen(&self, kind: WatchedKind, key: &Key, object: &Value) -> Seen {
        let (api, name) = kind.names();
        let content = manifest::content(api, name, key, object.clone(), &self.validator).unwrap();
        let resource_version = "1".to_owned();
        let status = object["status"].clone();
        Seen { content, uid: "u".to_owned(), generation: 1, resource_version, status, is_told: false }
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
    let mut heard = Heard::new();
    assert!(!heard.store.knows_the_base());
    heard.says(SERVERS, WatchUpdate::All(BTreeMap::new()));
    heard.says(2, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned())));
    heard.says(3, WatchUpdate::All(BTreeMap::new()));
    assert!(!heard.store.knows_the_base());
    heard.says(2, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())));
    assert!(heard.store.knows_the_base(), "what we may not know is not waited for");
}

#[test]
fn a_reference_is_pending_until_its_watch_has_answered() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let watch = heard.refer(&reference());
    assert_eq!(heard.answer(&reference()), index::Answer::Pending(UNANSWERED.to_owned()));
    heard.says(watch, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned())));
    assert!(matches!(heard.answer(&reference()), index::Answer::Pending(why) if why.contains("refused")));
    heard.says(watch, WatchUpdate::All(BTreeMap::new()));
    assert_eq!(heard.answer(&reference()), index::Answer::Known, "it does not exist");
}

#[test]
fn the_start_waits_for_a_watch_and_not_for_ever() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let watch = heard.refer(&reference());
    assert!(heard.store.awaits_answers(heard.now) && !heard.store.awaits_answers(heard.now + PATIENCE));
    heard.says(watch, WatchUpdate::All(BTreeMap::new()));
    assert!(!heard.store.awaits_answers(heard.now));
}

#[test]
fn while_others_are_answered_the_next_one_is_waited_for_up_to_a_bound() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let of = |name: &str| Reference::new(ReferenceKind::Secret, &Key::new("mail", name));
    let (first, second) = (heard.refer(&of("first")), heard.refer(&of("second")));
    let begin = heard.now;
    heard.now = begin + PATIENCE / 2;
    heard.says(first, WatchUpdate::All(BTreeMap::new()));
    assert!(heard.store.awaits_answers(begin + PATIENCE));
    assert!(!heard.store.awaits_answers(heard.now + PATIENCE));
    heard.refer(&of("third"));
    heard.now = begin + LONGEST_PATIENCE - PATIENCE / 2;
    heard.says(second + 1, WatchUpdate::All(BTreeMap::new()));
    assert!(heard.store.awaits_answers(heard.now) && !heard.store.awaits_answers(begin + LONGEST_PATIENCE));
}

#[test]
fn at_the_beginning_a_refusal_is_not_believed_at_once() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let watch = heard.refer(&reference());
    heard.says(watch, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())));
    assert!(heard.store.awaits_answers(heard.now) && !heard.store.awaits_answers(heard.now + PATIENCE));
    assert_eq!(heard.answer(&reference()), index::Answer::Pending("no".to_owned()));
    heard.store.believe_refusals();
    assert!(!heard.store.awaits_answers(heard.now));
    assert_eq!(heard.answer(&reference()), index::Answer::Forbidden("no".to_owned()));
}

#[test]
fn a_secret_that_may_not_be_read_says_so() {
    let mut heard = Heard::new();
    heard.store.believe_refusals();
    let watch = heard.refer(&reference());
    assert!(heard.says(watch, WatchUpdate::Failed(Failure::Forbidden("may not list".to_owned()))));
    assert_eq!(heard.answer(&reference()), index::Answer::Forbidden("may not list".to_owned()));
    assert_eq!(heard.store.problems(heard.now), ["Secret mail/mail-tls cannot be read: may not list"]);
}

#[test]
fn endpoint_slices_that_may_not_be_read_are_not_none() {
    let mut heard = Heard::new();
    heard.store.believe_refusals();
    let key = Key::new("mail", "backend");
    let [service, slices] =
        [ReferenceKind::Service, ReferenceKind::EndpointSlices].map(|kind| Reference::new(kind, &key));
    let first = heard.refer(&service);
    heard.refer(&slices);
    heard.says(first, WatchUpdate::All(BTreeMap::new()));
    heard.says(first + 1, WatchUpdate::Failed(Failure::Forbidden("may not list".to_owned())));
    assert_eq!(heard.answer(&service), index::Answer::Known);
    assert_eq!(heard.answer(&slices), index::Answer::Forbidden("may not list".to_owned()));
}

#[test]
fn an_api_server_that_is_away_is_one_problem_and_changes_nothing() {
    let mut heard = Heard::new();
    let seen = heard.seen(WatchedKind::Server, &key(), &server());
    heard.nothing_anywhere();
    heard.says(SERVERS, is(key(), Ok(seen)));
    for watch in 1..=3 {
        assert!(!heard.says(watch, WatchUpdate::Failed(Failure::Unreachable("refused".to_owned()))));
    }
    assert!(heard.store.index.objects().servers.contains_key(&key()));
    let problems = heard.store.problems(heard.now);
    assert!(matches!(problems.as_slice(), [one] if one.contains("cannot be reached")), "{problems:?}");
    assert!(heard.store.problems(heard.now + TOLD).is_empty(), "it would have failed again by then");
}

#[test]
fn a_broken_object_stays_what_it_was_and_affects_no_other() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let (first, second) = (key(), Key::new("mail", "other"));
    let seen = |heard: &Heard, key: &Key| Ok(heard.seen(WatchedKind::Server, key, &server()));
    let both = [&first, &second].map(|key| (key.clone(), seen(&heard, key)));
    heard.says(SERVERS, WatchUpdate::All(BTreeMap::from(both)));
    let listed = [(first.clone(), Err("it is broken".to_owned())), (second.clone(), seen(&heard, &second))];
    heard.says(SERVERS, WatchUpdate::All(BTreeMap::from(listed)));
    assert_eq!(heard.store.index.objects().servers.len(), 2);
    assert_eq!(heard.store.problems(heard.now), ["it is broken; it keeps what it last held"]);
    heard.says(SERVERS, WatchUpdate::All(BTreeMap::new()));
    assert!(heard.store.index.objects().servers.is_empty() && heard.store.problems(heard.now).is_empty());
}

#[test]
fn our_own_status_coming_back_needs_no_render() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let mut seen = heard.seen(WatchedKind::Server, &key(), &server());
    assert!(heard.says(SERVERS, is(key(), Ok(seen.clone()))));
    seen.status = json!({ "observedGeneration": 1 });
    assert!(!heard.says(SERVERS, is(key(), Ok(seen.clone()))));
    let id = ObjectId::new(Kind::Server, &key());
    assert_eq!(heard.store.own(&id).map(|own| &own.status), Some(&seen.status));
    seen.generation = 2;
    assert!(heard.says(SERVERS, is(key(), Ok(seen))));
}

#[test]
fn an_object_that_was_heard_of_is_compared_once_after_a_while() {
    let mut heard = Heard::new();
    let seen = heard.seen(WatchedKind::Server, &key(), &server());
    heard.says(SERVERS, WatchUpdate::All(BTreeMap::from([(key(), Ok(seen.clone()))])));
    let later = heard.now + COMPARE_AFTER;
    assert_eq!(heard.store.take_due(later), BTreeSet::new(), "it is rendered now");
    heard.says(SERVERS, is(key(), Ok(seen.clone())));
    heard.says(SERVERS, is(key(), Ok(seen)));
    assert_eq!(heard.store.take_due(heard.now), BTreeSet::new());
    assert_eq!(heard.store.take_due(later), BTreeSet::from([ObjectId::new(Kind::Server, &key())]));
    assert_eq!(heard.store.take_due(later), BTreeSet::new());
}

#[test]
fn a_secret_that_is_listed_again_is_not_parsed_again() {
    let mut heard = Heard::new();
    let watch = heard.refer(&reference());
    let key = reference().key;
    let secret = json!({ "metadata": { "name": "mail-tls" }, "data": { "tls.crt": "AAAA" } });
    for _ in 0..2 {
        let seen = heard.seen(WatchedKind::Secret, &key, &secret);
        heard.says(watch, WatchUpdate::All(BTreeMap::from([(key.clone(), Ok(seen))])));
    }
    let first = Arc::clone(&heard.store.index.objects().secrets[&key]);
    let seen = heard.seen(WatchedKind::Secret, &key, &secret);
    heard.says(watch, is(key.clone(), Ok(seen)));
    assert!(Arc::ptr_eq(&first, &heard.store.index.objects().secrets[&key]));
}

#[test]
fn what_an_ended_watch_still_says_is_not_heard() {
    let mut heard = Heard::new();
    let watch = heard.refer(&reference());
    heard.store.refer(&removed(reference()));
    heard.store.follow().unwrap();
    assert!(!heard.says(watch, WatchUpdate::All(BTreeMap::new())));
    let again = heard.refer(&reference());
    assert!(
        !heard.says(watch, WatchUpdate::All(BTreeMap::new()))
            && heard.says(again, WatchUpdate::All(BTreeMap::new()))
    );
}

#[test]
fn too_many_references_are_told() {
    let mut store = Store::new(resources::base(&[]));
    let secret =
        |index: usize| Reference::new(ReferenceKind::Secret, &Key::new("mail", &format!("s{index}")));
    store.refer(&added((0..wanted::MAX_REFERRED + 2).map(secret)));
    store.follow();
    assert!(store.problems(Instant::now())[0].contains("2 more would be needed"));
}

#[test]
fn services_that_nothing_refers_to_need_no_render() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let backend = Key::new("mail", "backend");
    let watch = heard.refer(&Reference::new(ReferenceKind::Service, &backend));
    heard.refer(&Reference::new(ReferenceKind::EndpointSlices, &backend));
    let slices = watch + 1;
    assert!(heard.says(watch, WatchUpdate::All(BTreeMap::new())), "it does not exist");
    let service = |heard: &Heard, port: u16| {
        let object = json!({ "metadata": {}, "spec": { "ports": [{ "port": port }] } });
        Ok(heard.seen(WatchedKind::Service, &backend, &object))
    };
    let other = Key::new("mail", "other");
    let (one, two) = (service(&heard, 143), service(&heard, 993));
    assert!(!heard.says(watch, is(other.clone(), one.clone())));
    assert!(heard.says(watch, is(backend.clone(), one.clone())));
    assert!(!heard.says(watch, is(backend.clone(), one)), "nothing changed");
    assert!(heard.says(watch, is(backend.clone(), two)));
    assert!(
        !heard.says(watch, WatchUpdate::Gone(other)) && heard.says(watch, WatchUpdate::Gone(backend.clone()))
    );
    heard.says(slices, WatchUpdate::All(BTreeMap::new()));
    for (of, is_ours) in [("backend", true), ("other", false)] {
        let slice = json!({
            "metadata": { "labels": { "kubernetes.io/service-name": of } },
            "addressType": "IPv4",
            "endpoints": [],
        });
        let key = Key::new("mail", &format!("{of}-1"));
        let seen = heard.seen(WatchedKind::Slice, &key, &slice);
        assert_eq!(heard.says(slices, is(key, Ok(seen))), is_ours);
    }
}

#[test]
fn services_of_a_namespace_that_may_be_read_are_known_where_the_cluster_may_not() {
    let mut heard = Heard::new();
    heard.nothing_anywhere();
    let service = Reference::new(ReferenceKind::Service, &Key::new("mail", "backend"));
    heard.store.believe_refusals();
    let first = heard.refer(&service);
    let wide = resources::services(&Scope::Everywhere).map(|watched| heard.watch(watched));
    for watch in wide {
        heard.says(watch, WatchUpdate::Failed(Failure::Forbidden("at the cluster scope".to_owned())));
    }
    assert_eq!(heard.answer(&service), index::Answer::Pending(UNANSWERED.to_owned()));
    for watch in [first, first + 1] {
        heard.says(watch, WatchUpdate::All(BTreeMap::new()));
    }
    assert_eq!(heard.answer(&service), index::Answer::Known);
}

/// Builds all objects anew from the states of all watches. More specific watches override others.
fn whole(store: &Store) -> Objects {
    let mut objects = Objects { answers: Answers::of_watched(), ..Objects::default() };
    for state in store.states.values() {
        for (key, Seen { content, uid, generation, .. }) in &state.held {
            let key = key.clone();
            match content {
                Content::Server(own) => {
                    objects.servers.insert(key, Arc::new(own.resource(uid, *generation)));
                }
                Content::Secret(secret) => drop(objects.secrets.insert(key, Arc::clone(secret))),
                Content::Service(service) => drop(objects.services.insert(key, Arc::clone(service))),
                Content::Slice(slice) => drop(objects.slices.set(&key, Some(Arc::clone(slice)))),
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
fn what_is_changed_in_place_is_what_all_watches_say_together() {
    let object = |kind: WatchedKind, choice: u8| {
        let service = ["a", "b"][usize::from(choice % 2)];
        let label = json!({ "labels": { "kubernetes.io/service-name": service } });
        match kind {
            WatchedKind::Secret => json!({ "metadata": {}, "type": service }),
            WatchedKind::Service => json!({ "metadata": {}, "spec": { "ports": [{ "port": choice }] } }),
            WatchedKind::Slice => json!({ "metadata": label, "addressType": "IPv4", "endpoints": [] }),
            _ => json!({ "metadata": {}, "spec": { "listeners": [] } }),
        }
    };
    proptest!(ProptestConfig::with_cases(20), |(events in prop::collection::vec(any::<[u8; 4]>(), 0..40))| {
        let mut heard = Heard::new();
        heard.store.believe_refusals();
        let wide = resources::services(&Scope::Everywhere).map(|watched| heard.watch(watched));
        for [what, which, key, choice] in events {
            let name = Key::new(["mail", "other"][usize::from(key / 2 % 2)], ["a", "b"][usize::from(key % 2)]);
            let kinds = [ReferenceKind::Secret, ReferenceKind::Service, ReferenceKind::EndpointSlices];
            let reference = Reference::new(kinds[usize::from(choice % 3)], &name);
            let watch = 1 + u64::from(which) % heard.watches;
            let watched = heard.store.numbers.get(&watch).cloned();
            let kind = watched.as_ref().map_or(WatchedKind::Namespace, |watched| watched.kind);
            // A watch reports only objects in its scope.
            let name = match watched.map(|watched| watched.scope) {
                Some(Scope::Named(key)) => key,
                Some(Scope::In(namespace)) => Key::new(&namespace, &name.name),
                Some(Scope::Everywhere) | None => name,
            };
            match what % 6 {
                0 => heard.store.refer(&added([reference])),
                1 => heard.store.refer(&removed(reference)),
                2 => drop(heard.says(watch, WatchUpdate::Failed(Failure::Forbidden("no".to_owned())))),
                _ if matches!(kind, WatchedKind::Namespace | WatchedKind::Listener) => {}
                3 => drop(heard.says(watch, WatchUpdate::Gone(name))),
                4 => {
                    let seen = heard.seen(kind, &name, &object(kind, choice));
                    heard.says(watch, is(name, Ok(seen)));
                }
                _ => {
                    let seen = heard.seen(kind, &name, &object(kind, choice));
                    let all = if choice % 3 == 0 { BTreeMap::new() } else { BTreeMap::from([(name, Ok(seen))]) };
                    heard.says(watch, WatchUpdate::All(all));
                }
            }
            // The watches of the whole cluster stay, as with many namespaces.
            for watched in heard.store.follow().into_iter().flatten() {
                if !heard.store.states.contains_key(&watched) {
                    heard.watch(watched);
                }
            }
            let mut objects = heard.store.index.objects().clone();
            for reference in &heard.store.references {
                // The texts are ignored: they depend on which of several watches answers.
                let answer = match objects.answers.get(reference) {
                    index::Answer::Known => index::Answer::Known,
                    index::Answer::Forbidden(_) => index::Answer::Forbidden(String::new()),
                    index::Answer::Pending(_) => index::Answer::Pending(String::new()),
                };
                objects.answers.set(reference, Some(answer));
            }
            prop_assert_eq!(&objects, &whole(&heard.store), "{:?}", wide);
        }
    });
}
