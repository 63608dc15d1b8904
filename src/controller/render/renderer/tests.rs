//! Rendering changes has the same result as rendering from scratch, for any changes in any order.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::controller::index::{Answer, Key, Kind, Owner, Reference, ReferenceKind, Resource, SecretData};
use crate::controller::render::oracle::Rendered;
use crate::controller::render::{Completeness, Locality, tests as yaml};
use crate::controller::violation::Violation;
use crate::model::tls::EXPIRY_WARNINGS;
use crate::model::{Listener, ListenerId, Socket};
use crate::net::ListenAddress;
use crate::secret::Secret;

/// The number of kinds of events. Frequent kinds have several numbers.
const EVENTS: u8 = 22;

/// All events between two renderings, as numbers.
#[derive(Clone, Debug)]
struct Step {
    events: Vec<(u8, [u8; 16])>,
    passed: i64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = (0..EVENTS, any::<[u8; 16]>());
    let passed = prop_oneof![6 => Just(0), 1 => Just(EXPIRY_WARNINGS[1].0), 1 => Just(2 * 24 * 3600), 1 => Just(-3 * 24 * 3600)];
    let step = (prop::collection::vec(event, 0..6), passed);
    let step = step.prop_map(|(events, passed)| Step { events, passed });
    // The first step starts with some objects.
    let first = prop::collection::vec((0..EVENTS, any::<[u8; 16]>()), 0..20);
    (first, prop::collection::vec(step, 0..16)).prop_map(|(events, mut steps)| {
        steps.insert(0, Step { events, passed: 0 });
        steps
    })
}

#[test]
fn rendering_changes_equals_rendering_from_scratch() {
    proptest!(ProptestConfig::with_cases(120), |(steps in steps())| {
        let mut fixture = Fixture::default();
        for step in &steps {
            fixture.step(step);
        }
    });
}

/// Returns all referenced objects, so that most objects are valid at first.
fn good() -> Index {
    let mut index = Index::default();
    for namespace in NAMESPACES {
        let key = |name: &str| Key::new(namespace, name);
        for secret in ["t", "u"] {
            index.set_secret(&key(secret), Some(Arc::clone(&SECRETS[0])));
        }
        for backend in BACKENDS {
            index.set_service(&key(backend), Some(service(&mut Bytes::new(&[0; 16]))));
        }
        let map = Arc::new(BTreeMap::from([("ca.crt".to_owned(), CA.as_bytes().to_vec())]));
        index.set_config_map(&key("ca"), Some(map));
    }
    index
}

/// The same history, rendered from changes and from scratch.
struct Fixture {
    index: Index,
    renderer: Renderer,
    /// The references that a source would watch.
    watched: BTreeSet<Reference>,
    oracle: Rendered,
    whole: Whole,
    now: i64,
    generation: i64,
    /// The specs of the existing servers, for small changes.
    specs: BTreeMap<Key, Value>,
}

impl Default for Fixture {
    fn default() -> Self {
        let mut fixture = Self {
            index: good(),
            renderer: Renderer::default(),
            watched: BTreeSet::new(),
            oracle: Rendered::default(),
            whole: Whole::default(),
            now: NOW,
            generation: 0,
            specs: BTreeMap::new(),
        };
        for (namespace, host) in [("a", "a.test"), ("b", "c.test"), ("c", "d.test")] {
            fixture.similar_server(&Key::new(namespace, "n"), host);
        }
        fixture
    }
}

impl Fixture {
    fn step(&mut self, step: &Step) {
        step.events.iter().for_each(|(kind, bytes)| self.happens(*kind, &mut Bytes::new(bytes)));
        self.now += step.passed;
        let environment = environment(self.now);
        self.oracle = self.oracle.next(self.index.objects(), &environment);
        let delta = self.renderer.render(&mut self.index, &environment);
        self.renderer.assert_is(&self.oracle);
        self.whole.take(&self.oracle, &self.renderer, &delta);
        for reference in &delta.references.removed {
            assert!(self.watched.remove(reference));
        }
        for reference in delta.references.added {
            assert!(self.watched.insert(reference));
        }
        assert_eq!(self.watched, self.oracle.references);
    }

    fn happens(&mut self, kind: u8, bytes: &mut Bytes<'_>) {
        let namespace = bytes.one_of(&NAMESPACES);
        let key = |name: &str| Key::new(namespace, name);
        let is_gone = bytes.one_of(&[false, false, false, false, false, true]);
        match kind {
            0..=3 => {
                let key = key(bytes.one_of(&["s", "r", "q"]));
                let spec = server(bytes);
                self.specs.insert(key.clone(), spec.clone());
                let server = self.resource(spec, is_gone, bytes);
                self.index.set_server(&key, server);
            }
            4 | 5 => {
                let key = key(bytes.one_of(&["l", "k"]));
                let listener = self.resource(attached(bytes), is_gone, bytes);
                self.index.set_listener(&key, listener);
            }
            6 => {
                let [long, short, none] = SECRETS.each_ref();
                let secret = bytes.one_of(&[long, long, short, none]);
                self.index
                    .set_secret(&key(bytes.one_of(&["t", "u"])), (!is_gone).then(|| Arc::clone(secret)));
            }
            7 => self.index.set_service(&key(bytes.one_of(&BACKENDS)), (!is_gone).then(|| service(bytes))),
            8 => self.index.set_slice(&key(bytes.one_of(&["d-1", "d-2"])), (!is_gone).then(|| slice(bytes))),
            9 | 10 => {
                let labels = bytes.one_of(&[vec![], vec![("team".to_owned(), "mail".to_owned())]]);
                let labels = Arc::new(labels.into_iter().collect());
                self.index.set_namespace(namespace, (!is_gone).then_some(labels));
            }
            11..=13 => {
                let keys: Vec<Key> = self.specs.keys().cloned().collect();
                let key = bytes.one_of(&keys);
                let mut spec = self.specs[&key].clone();
                tweak(&mut spec, bytes);
                self.specs.insert(key.clone(), spec.clone());
                let server = self.resource(spec, false, bytes);
                self.index.set_server(&key, server);
            }
            14 | 15 => {
                let key = key(bytes.one_of(&["o", "p"]));
                let route = self.resource(route(bytes), is_gone, bytes);
                self.index.set_route(&key, route);
            }
            16..=18 => self.referred_changes(kind, namespace, is_gone, bytes),
            _ => self.answers(namespace, bytes),
        }
    }

    fn referred_changes(&mut self, kind: u8, namespace: &str, is_gone: bool, bytes: &mut Bytes<'_>) {
        let key = |name: &str| Key::new(namespace, name);
        match kind {
            16 => {
                let users =
                    bytes.one_of(&["x@a.example", "x@a.example\ny@b.example", "y@b.example\n\x07", ""]);
                let map = Arc::new(BTreeMap::from([("users".to_owned(), users.as_bytes().to_vec())]));
                self.index.set_config_map(&key("moved"), (!is_gone).then_some(map));
            }
            _ => {
                let pem = bytes.one_of(&[CA.as_bytes(), CA.as_bytes(), b"nonsense"]);
                let map = Arc::new(BTreeMap::from([("ca.crt".to_owned(), pem.to_vec())]));
                self.index.set_config_map(&key("ca"), (!is_gone).then_some(map));
            }
        }
    }

    fn answers(&mut self, namespace: &str, bytes: &mut Bytes<'_>) {
        let key = |name: &str| Key::new(namespace, name);
        let (kind, name) = bytes.one_of(&[
            (ReferenceKind::Secret, "t"),
            (ReferenceKind::Secret, "u"),
            (ReferenceKind::ConfigMap, "ca"),
            (ReferenceKind::ConfigMap, "moved"),
            (ReferenceKind::Service, "d"),
            (ReferenceKind::EndpointSlices, "d"),
            (ReferenceKind::EndpointSlices, "e"),
        ]);
        let pending = || Answer::Pending("no answer yet".to_owned());
        let answers = [Answer::Known, pending(), pending(), Answer::Forbidden("forbidden".to_owned())];
        self.index.set_answer(&Reference::new(kind, &key(name)), Some(bytes.one_of(&answers)));
    }

    /// Adds a server that shares its ports with similar ones.
    fn similar_server(&mut self, key: &Key, host: &str) {
        let listener = |name: &str, port: u16| json!({ "name": name, "port": port, "hostnames": [host], "backendAddress": "b:1" });
        let spec = json!({
            "auth": { "passthrough": {} },
            "tls": { "certificateRefs": [{ "name": "t" }] },
            "listeners": [listener("x", 143), listener("y", 993)],
        });
        self.specs.insert(key.clone(), spec.clone());
        let server = self.resource(spec, false, &mut Bytes::new(&[0; 16]));
        self.index.set_server(key, server);
    }

    fn resource<Spec: DeserializeOwned>(
        &mut self,
        spec: Value,
        is_gone: bool,
        bytes: &mut Bytes<'_>,
    ) -> Option<Arc<Resource<Spec>>> {
        if is_gone {
            return None;
        }
        self.generation += 1;
        let kind = if spec.get("serverRef").is_some() { Kind::Listener } else { Kind::Server };
        let owner = Owner::written(kind, "a", &spec);
        let invalid = || Err(vec![Violation::invalid("spec", "it is nonsense", "")]);
        let is_valid = bytes.one_of(&[true, true, true, true, true, false]);
        let spec = if is_valid { Ok(Arc::new(serde_json::from_value(spec).unwrap())) } else { invalid() };
        let created = bytes.one_of(&[None, Some(1), Some(2)]);
        Some(Arc::new(Resource { uid: String::new(), owner, generation: self.generation, created, spec }))
    }
}

/// A publisher that compares complete renderings.
#[derive(Default)]
struct Whole {
    revision: u64,
    sockets: BTreeMap<ListenAddress, Arc<Socket>>,
    since: BTreeMap<ListenerId, u64>,
    outcomes: BTreeMap<ObjectId, ObjectOutcome>,
}

impl Whole {
    fn take(&mut self, rendered: &Rendered, renderer: &Renderer, delta: &Delta) {
        let is_new = self.revision == 0 || self.sockets != rendered.snapshot.sockets;
        self.revision += u64::from(is_new);
        assert_eq!(delta.snapshot.as_ref().map(|s| s.revision), is_new.then_some(self.revision));
        let outcomes: BTreeMap<_, _> = rendered.objects.iter().map(|o| (o.id(), o.clone())).collect();
        let since = self.since(rendered);
        let mut changed: BTreeSet<ObjectId> = BTreeSet::new();
        for id in self.outcomes.keys().chain(outcomes.keys()) {
            let listeners = outcomes.get(id).into_iter().flat_map(|outcome| &outcome.listeners);
            let mut ids = listeners.map(|listener| &listener.id).filter(|id| since.contains_key(*id));
            if self.outcomes.get(id) != outcomes.get(id) || ids.any(|id| self.since.get(id) != since.get(id))
            {
                changed.insert(id.clone());
            }
        }
        assert_eq!(delta.objects, changed);
        for outcome in outcomes.values() {
            for listener in &outcome.listeners {
                assert_eq!(renderer.since(&listener.id), since.get(&listener.id).copied());
            }
        }
        (self.sockets, self.since, self.outcomes) = (rendered.snapshot.sockets.clone(), since, outcomes);
    }

    fn since(&self, rendered: &Rendered) -> BTreeMap<ListenerId, u64> {
        let mut since = BTreeMap::new();
        for (address, socket) in &rendered.snapshot.sockets {
            let same =
                |old: &Socket| Socket { listeners: socket.listeners.clone(), ..old.clone() } == **socket;
            let old = self.sockets.get(address).filter(|old| same(old));
            let was = |listener: &Arc<Listener>| old.is_some_and(|old| old.listeners.contains(listener));
            for listener in &socket.listeners {
                let before = self.since.get(&listener.id).filter(|_| was(listener));
                since.insert(listener.id.clone(), before.copied().unwrap_or(self.revision));
            }
        }
        since
    }
}

#[test]
fn a_change_renders_only_the_affected_objects() {
    let mut index = Index::default();
    let spec = |name: &str, timeout: &str| {
        let spec = json!({
            "auth": { "passthrough": {} },
            "tls": { "certificateRefs": [{ "name": name }] },
            "timeouts": { "connect": timeout },
            "listeners": [{
                "name": "x", "port": 993, "hostnames": [format!("{name}.test")],
                "backendRef": { "name": name, "port": 143 },
            }],
        });
        let spec = Ok(Arc::new(serde_json::from_value(spec).unwrap()));
        Some(Arc::new(Resource {
            uid: String::new(),
            owner: Owner::Class("mailgress".to_owned()),
            generation: 1,
            created: Some(1),
            spec,
        }))
    };
    let key = |name: &str| Key::new("a", name);
    for number in 0..20 {
        let name = format!("s{number}");
        index.set_server(&key(&name), spec(&name, "5s"));
        index.set_secret(&key(&name), Some(Arc::clone(&SECRETS[0])));
        index.set_service(&key(&name), Some(service(&mut Bytes::new(&[0; 16]))));
    }
    let mut renderer = Renderer::default();
    let mut affected = |index: &mut Index, environment: &Environment| {
        let affected = renderer.affected(index.changes(), environment);
        let delta = renderer.render(index, environment);
        (affected.iter().map(ToString::to_string).collect::<Vec<_>>(), delta.objects.len())
    };
    assert_eq!(affected(&mut index, &environment(NOW)).0.len(), 20);
    assert_eq!(affected(&mut index, &environment(NOW)), (vec![], 0));
    let one = |name: &str| vec![format!("MailServer a/{name}")];
    index.set_server(&key("s3"), spec("s3", "6s"));
    assert_eq!(affected(&mut index, &environment(NOW)), (one("s3"), 1));
    index.set_server(&key("s3"), spec("s3", "6s"));
    assert_eq!(affected(&mut index, &environment(NOW)), (vec![], 0), "it is the same");
    index.set_secret(&key("s4"), Some(Arc::clone(&SECRETS[1])));
    assert_eq!(affected(&mut index, &environment(NOW)), (one("s4"), 1));
    index.set_service(&key("s5"), Some(service(&mut Bytes::new(&[2; 16]))));
    assert_eq!(affected(&mut index, &environment(NOW)), (one("s5"), 1));
    index.set_secret(&key("nobody's"), Some(Arc::clone(&SECRETS[0])));
    index.set_namespace("a", Some(Arc::default()));
    assert_eq!(affected(&mut index, &environment(NOW)), (vec![], 0));
    // Only the certificate of s4 is about to expire.
    assert_eq!(affected(&mut index, &environment(SOON)), (one("s4"), 1));
    let moved =
        Environment { locality: Locality { zone: Some("z".to_owned()), node: None }, ..environment(SOON) };
    assert_eq!(affected(&mut index, &moved).0.len(), 20);
    let trusting = Environment { trusted_peers: vec!["10.0.0.0/8".parse().unwrap()], ..environment(SOON) };
    assert_eq!(affected(&mut index, &trusting).0.len(), 20);
}

fn named_listener(name: &str, port: u16) -> String {
    format!("{{name: {name}, port: {port}, backendAddress: 'b:1', hostnames: [{name}.test]}}")
}

fn published(fixture: &mut yaml::Fixture, yaml: &str) -> (Option<u64>, Vec<String>) {
    let Delta { snapshot, objects, .. } = fixture.publish(yaml).1;
    (snapshot.map(|snapshot| snapshot.revision), objects.iter().map(ToString::to_string).collect())
}

#[test]
fn a_change_of_a_listener_does_not_affect_others_of_its_socket() {
    let mut fixture = yaml::Fixture::new();
    let secret = yaml::tls_secret("t", &["*.test"]);
    let both = |settings: &str| {
        let first = yaml::server(
            &named_listener("a", 993),
            &format!("tls: {{certificateRefs: [{{name: t}}]}}{settings}"),
        );
        let second = yaml::server(&named_listener("b", 993), "tls: {certificateRefs: [{name: t}]}");
        first + &second.replace("name: s,", "name: r,") + &secret
    };
    let everything = vec!["MailServer mail/r".to_owned(), "MailServer mail/s".to_owned()];
    assert_eq!(published(&mut fixture, &both("")), (Some(1), everything.clone()));
    assert_eq!(published(&mut fixture, &both("")), (None, vec![]));
    let changed = published(&mut fixture, &both(", timeouts: {connect: 5s}"));
    assert_eq!(changed, (Some(2), vec!["MailServer mail/s".to_owned()]));
    let since = |object: &str, listener: &str| {
        let (namespace, object, listener) = ("mail".into(), object.into(), listener.into());
        fixture.renderer.since(&ListenerId { namespace, object, listener })
    };
    assert_eq!((since("s", "a"), since("r", "b"), since("s", "c")), (Some(2), Some(1), None));
    let gone = published(&mut fixture, "");
    assert_eq!(gone, (Some(3), everything));
}

#[test]
fn a_change_of_a_socket_affects_all_its_listeners() {
    let mut fixture = yaml::Fixture::new();
    let secret = yaml::tls_secret("t", &["*.test"]);
    let with = |backlog: u16| {
        let socket = |name| {
            named_listener(name, 993).replace("port", &format!("socket: {{backlog: {backlog}}}, port"))
        };
        let listeners = format!("{}, {}", socket("a"), socket("b"));
        yaml::server(&listeners, "tls: {certificateRefs: [{name: t}]}") + &secret
    };
    published(&mut fixture, &with(100));
    published(&mut fixture, &with(200));
    let since = |listener: &str| {
        let (namespace, object, listener) = ("mail".into(), "s".into(), listener.into());
        fixture.renderer.since(&ListenerId { namespace, object, listener })
    };
    assert_eq!((since("a"), since("b")), (Some(2), Some(2)));
}

// --- generated objects ---

/// Random choices.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl<'a> Bytes<'a> {
    fn new(bytes: &'a [u8; 16]) -> Self {
        Self(bytes.iter())
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        let byte = self.0.next().copied().unwrap_or_default();
        choices[usize::from(byte) % choices.len()].clone()
    }
}

fn environment(now: i64) -> Environment {
    Environment {
        class: "mailgress".to_owned(),
        hostname: "host.example".to_owned(),
        now,
        locality: Locality::default(),
        trusted_peers: Vec::new(),
        completeness: Completeness::Whole,
        lacks_replicas: false,
    }
}

fn server(bytes: &mut Bytes<'_>) -> Value {
    let names = bytes.one_of(&[vec!["x"], vec!["x", "y"], vec!["y", "x"], vec![]]);
    let allowed = json!({ "from": "Selector", "selector": { "matchLabels": { "team": "mail" } } });
    let mut spec = json!({
        "className": bytes.one_of(&["mailgress", "mailgress", "mailgress", "other"]),
    });
    spec["allowedListeners"] = bytes.one_of(&[
        json!({ "namespaces": { "from": "All" }, "backends": { "hosts": ["b"], "networks": ["192.0.2.1"] } }),
        json!({ "namespaces": allowed, "backends": { "hosts": ["b"], "networks": ["192.0.2.0/24"] } }),
        json!({ "namespaces": { "from": "All" } }),
        json!({}),
    ]);
    let everyone = json!({ "from": "All" });
    spec["allowedRoutes"] = bytes.one_of(&[
        json!([{ "namespaces": everyone }]),
        json!([{ "namespaces": everyone, "domains": ["a.example", "*.example"] }]),
        json!([{ "namespaces": { "from": "Selector", "selector": { "matchLabels": { "team": "mail" } } } }, {}]),
        json!(null),
    ]);
    let settings = settings(bytes);
    for (name, value) in settings.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let listeners = names.into_iter().map(|name| {
        let mut listener = listener(bytes);
        listener["name"] = json!(name);
        listener
    });
    spec["listeners"] = listeners.collect();
    spec
}

fn route(bytes: &mut Bytes<'_>) -> Value {
    let (name, namespace) = (bytes.one_of(&["s", "r"]), bytes.one_of(&NAMESPACES));
    let domains: [&[&str]; 5] =
        [&["a.example"], &["a.example", "b.example"], &["*.example"], &["c!"], &["other"]];
    let of_service = json!({ "protocol": "IMAP", "name": "d", "port": 143 });
    let of_address = json!({ "protocol": "IMAP", "address": "b:1" });
    json!({
        "serverRef": { "name": name, "namespace": namespace },
        "match": {
            "domains": bytes.one_of(&domains),
            "users": bytes.one_of(&[json!(null), json!(["x@a.example", "z@other"])]),
            "usersFrom": bytes.one_of(&[json!(null), json!([{ "name": "moved", "key": "users" }])]),
        },
        "backend": {
            "services": [bytes.one_of(&[of_service, of_address])],
            "upstream": bytes.one_of(&[json!(null), json!({ "proxyProtocol": "V2" })]),
        },
        "state": bytes.one_of(&["Active", "Active", "Refused"]),
    })
}

/// Changes one field of one listener.
fn tweak(spec: &mut Value, bytes: &mut Bytes<'_>) {
    let number: usize = bytes.one_of(&[0, 1]);
    let Some(listener) = spec["listeners"].get_mut(number) else { return };
    let (field, value) = bytes.one_of(&[
        ("limits", json!({ "maxErrors": 7 })),
        ("limits", json!(null)),
        ("socket", json!({ "backlog": 77 })),
        ("socket", json!(null)),
        ("timeouts", json!({ "connect": "7s" })),
        ("hostnames", json!(["b.test"])),
        ("hostnames", json!(["a.test", "d.test"])),
        ("port", json!(143)),
        ("serverName", json!("other.test")),
        // The schema refuses two listeners with the same name in one server.
        ("name", json!(["v", "w"][number])),
    ]);
    listener[field] = value;
}

fn attached(bytes: &mut Bytes<'_>) -> Value {
    let mut spec = listener(bytes);
    let (name, namespace) = (bytes.one_of(&["s", "r"]), bytes.one_of(&NAMESPACES));
    spec["serverRef"] = json!({ "name": name, "namespace": namespace });
    spec
}

fn listener(bytes: &mut Bytes<'_>) -> Value {
    let backends =
        [json!({ "backendAddress": "b:1" }), json!({ "backendRef": { "name": "d", "port": 143 } })];
    let mut listener = bytes.one_of(&backends);
    listener["port"] = json!(bytes.one_of(&[993, 143, 993, 995]));
    listener["address"] = json!(bytes.one_of(&["*", "*", "*", "*", "*", "127.0.0.1", "nonsense"]));
    let names: [&[&str]; 6] =
        [&[], &["a.test"], &["b.test"], &["c.test"], &["d.test"], &["a.test", "b.test"]];
    listener["hostnames"] = json!(bytes.one_of(&names));
    let own = [
        json!({}),
        json!({ "limits": { "maxErrors": 7 } }),
        json!({ "tls": { "certificateRefs": [{ "name": "u" }] } }),
        json!({ "socket": { "backlog": 77 } }),
        json!({ "timeouts": { "connect": "7s" } }),
    ];
    for (name, value) in bytes.one_of(&own).as_object().unwrap() {
        listener[name] = value.clone();
    }
    listener
}

fn settings(bytes: &mut Bytes<'_>) -> Value {
    let header =
        json!({ "name": "X-Key", "valueFrom": { "secretKeyRef": { "name": "u", "key": "tls.crt" } } });
    let http = json!({ "serviceRef": { "name": "e", "port": 143, "path": "/" }, "headers": [header] });
    let certificates = json!([{ "name": "t" }]);
    let client = json!({ "mode": "Required", "caCertificateRefs": [{ "kind": "ConfigMap", "name": "ca" }] });
    let mut settings = json!({
        "auth": bytes.one_of(&[json!({ "passthrough": {} }), json!({ "http": http })]),
        "tls": bytes.one_of(&[
            json!({ "certificateRefs": certificates }),
            json!({ "certificateRefs": certificates, "mode": "Implicit" }),
            json!({ "certificateRefs": certificates, "clientAuth": client }),
            json!({ "mode": "Disabled" }),
        ]),
        "timeouts": { "connect": bytes.one_of(&["5s", "6s"]) },
    });
    settings["limits"] = bytes.one_of(&[json!(null), json!(null), json!({ "maxErrors": 7 })]);
    settings
}

fn service(bytes: &mut Bytes<'_>) -> Arc<Service> {
    let specs = [
        json!({ "ports": [{ "name": "imap", "port": 143 }] }),
        json!({ "ports": [{ "name": "other", "port": 143 }] }),
        json!({ "ports": [{ "name": "imap", "port": 144 }] }),
        json!({ "type": "ExternalName", "externalName": "mail.example" }),
    ];
    Arc::new(serde_json::from_value(json!({ "spec": bytes.one_of(&specs) })).unwrap())
}

fn slice(bytes: &mut Bytes<'_>) -> Arc<EndpointSlice> {
    let slice = json!({
        "metadata": { "labels": { "kubernetes.io/service-name": bytes.one_of(&BACKENDS) } },
        "addressType": "IPv4",
        "ports": [{ "name": "imap", "port": 10143 }],
        "endpoints": [{ "addresses": [bytes.one_of(&["192.0.2.1", "192.0.2.2"])] }],
    });
    Arc::new(serde_json::from_value(slice).unwrap())
}

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const BACKENDS: [&str; 2] = ["d", "e"];
/// A time in the middle of the year 2026.
const NOW: i64 = 1_782_864_000;
/// A time at which the second certificate is about to expire.
const SOON: i64 = NOW + 9 * 24 * 3600;

fn certificate(names: &[&str], days: i64) -> (String, String) {
    let mut params =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let end = jiff::Timestamp::from_second(NOW + days * 24 * 3600).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
    let (month, day) = (u8::try_from(end.month()).unwrap(), u8::try_from(end.day()).unwrap());
    params.not_after = rcgen::date_time_ymd(i32::from(end.year()), month, day);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

static CA: LazyLock<String> = LazyLock::new(|| certificate(&["ca"], 3650).0);

/// A certificate that is valid for long, one for a short time, and no certificate.
static SECRETS: LazyLock<[Arc<SecretData>; 3]> = LazyLock::new(|| {
    let secret = |chain: &str, key: &str| {
        let value = |text: &str| Secret::from(text.as_bytes());
        let data = BTreeMap::from([("tls.crt".to_owned(), value(chain)), ("tls.key".to_owned(), value(key))]);
        Arc::new(SecretData { kind: "kubernetes.io/tls".to_owned(), data })
    };
    let [long, short] = [(&["a.test", "b.test"][..], 3650), (&["a.test"], 10)]
        .map(|(names, days)| certificate(names, days))
        .map(|(chain, key)| secret(&chain, &key));
    [long, short, secret("nonsense", "nonsense")]
});
