//! Tests of the renderer, from YAML to snapshots and violations.

mod attached;
mod backends;
mod certificates;
mod conflicts;
mod last_good;
mod references;
mod routes;
mod settings;

use std::fmt::Write;
use std::sync::Arc;

use ipnet::IpNet;
use rcgen::{CertificateParams, CertifiedKey, KeyPair};

use super::oracle::Rendered;
use super::*;
use crate::controller::folder::scan::{Scan, Seen};
use crate::controller::folder::store::Store;
use crate::controller::index::Objects;
use crate::controller::index::{Answer, Index, Reference};
use crate::controller::validate::tests::validator;
use crate::model::{Listener, Socket};
use crate::secret::Secret;

/// A store of manifests. Each rendering is made from changes and from scratch, and both are compared.
pub(crate) struct Fixture {
    store: Store,
    oracle: Rendered,
    pub(crate) index: Index,
    pub(crate) renderer: Renderer,
    pub(crate) now: i64,
    trusted_peers: Vec<IpNet>,
    lacks_replicas: bool,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::default(),
            oracle: Rendered::default(),
            index: Index::default(),
            renderer: Renderer::default(),
            now: 1_800_000_000,
            trusted_peers: Vec::new(),
            lacks_replicas: false,
        }
    }

    pub(crate) fn render(&mut self, yaml: &str) -> Rendered {
        self.publish(yaml).0
    }

    pub(crate) fn publish(&mut self, yaml: &str) -> (Rendered, Delta) {
        let files = [("a.yaml".into(), Seen::Read(Ok(yaml.to_owned()).into()))];
        self.store.apply(Scan { files: files.into(), ..Scan::default() }, validator());
        let loaded = self.store.load();
        assert_eq!(loaded.problems, vec![]);
        let answers = self.index.objects().answers.clone();
        self.index.replace(&Objects { answers, ..loaded.objects });
        self.render_index()
    }

    /// Sets what is known of a reference.
    pub(crate) fn answers(&mut self, reference: &Reference, answer: Answer) {
        self.index.set_answer(reference, Some(answer));
    }

    /// Renders the current objects of the index.
    pub(crate) fn render_index(&mut self) -> (Rendered, Delta) {
        let environment = Environment {
            class: "mailgress".to_owned(),
            hostname: "host.example".to_owned(),
            now: self.now,
            locality: Locality::default(),
            trusted_peers: self.trusted_peers.clone(),
            completeness: Completeness::Whole,
            lacks_replicas: self.lacks_replicas,
        };
        self.oracle = self.oracle.next(self.index.objects(), &environment);
        let delta = self.renderer.render(&mut self.index, &environment);
        self.renderer.assert_is(&self.oracle);
        (self.oracle.clone(), delta)
    }
}

impl Renderer {
    /// Compares the rendering of changes with that from scratch.
    pub(crate) fn assert_is(&self, rendered: &Rendered) {
        assert_eq!(self.snapshot().sockets, rendered.snapshot.sockets);
        let outcomes: Vec<&ObjectOutcome> = self.outcomes().map(|(_, outcome)| outcome.as_ref()).collect();
        assert_eq!(outcomes, rendered.objects.iter().collect::<Vec<_>>());
        assert!(self.outcomes().all(|(id, outcome)| *id == outcome.id()));
    }
}

pub(crate) fn once(yaml: &str) -> Rendered {
    Fixture::new().render(yaml)
}

/// Returns a MailServer `mail/s` with passthrough to a fixed backend, and these settings.
pub(crate) fn server(listeners: &str, settings: &str) -> String {
    named_server("s", listeners, settings)
}

fn named_server(name: &str, listeners: &str, settings: &str) -> String {
    let auth = if settings.contains("auth:") { "" } else { "auth: {passthrough: {}}, " };
    format!(
        "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailServer\nmetadata: {{name: {name}, namespace: mail}}\n\
         spec: {{{auth}{settings}{} listeners: [{listeners}]}}\n",
        if settings.is_empty() { "" } else { "," }
    )
}

fn imap(name: &str, fields: &str) -> String {
    format!("{{name: {name}, backendAddress: 'dovecot:143', protocol: IMAP, {fields}}}")
}

fn attached(namespace: &str, name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailListener\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{serverRef: {{name: s, namespace: mail}}, backendAddress: 'b:1', {fields}}}\n"
    )
}

/// Returns a kubernetes.io/tls Secret for these names.
pub(crate) fn tls_secret_until(name: &str, names: &[&str], until: (i32, u8, u8)) -> String {
    let mut params = CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    secret("kubernetes.io/tls", name, &[("tls.crt", &certificate.pem()), ("tls.key", &key.serialize_pem())])
}

pub(crate) fn tls_secret(name: &str, names: &[&str]) -> String {
    tls_secret_until(name, names, (2200, 1, 1))
}

fn secret(kind: &str, name: &str, data: &[(&str, &str)]) -> String {
    document("Secret", &format!("type: {kind}\nstringData:"), name, data)
}

fn document(kind: &str, head: &str, name: &str, data: &[(&str, &str)]) -> String {
    let mut yaml =
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: mail}}\n{head}\n");
    for (key, value) in data {
        writeln!(yaml, "  {key}: {:?}", value).unwrap();
    }
    yaml
}

pub(crate) fn ca() -> String {
    let CertifiedKey { cert, .. } = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
    document("ConfigMap", "data:", "ca", &[("ca.crt", &cert.pem())])
}

fn listener<'a>(rendered: &'a Rendered, name: &str) -> &'a Arc<Listener> {
    let mut all = rendered.snapshot.sockets.values().flat_map(|socket| &socket.listeners);
    all.find(|listener| listener.id.listener == name).unwrap_or_else(|| panic!("{}", messages(rendered)))
}

fn socket<'a>(rendered: &'a Rendered, address: &str) -> &'a Socket {
    let mut all = rendered.snapshot.sockets.values();
    all.find(|socket| socket.address.to_string() == address)
        .unwrap_or_else(|| panic!("{}", messages(rendered)))
}

/// Returns all violations, one per line: `reason message`.
pub(crate) fn messages(rendered: &Rendered) -> String {
    let of_object = |object: &ObjectOutcome| {
        let listeners = object.listeners.iter().flat_map(|listener| listener.violations.clone());
        object.violations.iter().cloned().chain(listeners).collect::<Vec<_>>()
    };
    let all = rendered.objects.iter().flat_map(of_object);
    all.map(|violation| format!("{} {violation}\n", violation.reason)).collect()
}

fn sockets(rendered: &Rendered) -> Vec<String> {
    rendered.snapshot.sockets.keys().map(ToString::to_string).collect()
}

// --- defaults and inheritance ---

/// Returns a listener whose protocol and TLS are only in `fields`.
fn any(fields: &str) -> String {
    server(&format!("{{name: a, backendAddress: 'backend:1', {fields}}}"), "")
}

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: dovecot, namespace: mail}\n\
                       spec: {ports: [{name: imap, port: 143}, {name: sieve, port: 4190}]}\n";

fn slice(name: &str, family: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: mail, labels: {{kubernetes.io/service-name: dovecot}}}}\n\
         addressType: {family}\nports: [{{name: sieve, port: 14190}}, {{name: imap, port: 10143}}]\n\
         endpoints: [{endpoints}]\n"
    )
}

fn with_tls(listeners: &[(&str, &str)]) -> String {
    let listeners: Vec<String> = listeners.iter().map(|(name, fields)| imap(name, fields)).collect();
    server(&listeners.join(", "), "tls: {certificateRefs: [{name: t}]}") + &tls_secret("t", &["*.example"])
}

fn of_object<'a>(rendered: &'a Rendered, name: &str) -> &'a ObjectOutcome {
    rendered.objects.iter().find(|object| object.key.name == name).unwrap()
}

fn said(rendered: &Rendered, name: &str) -> Vec<String> {
    of_object(rendered, name).violations.iter().map(ToString::to_string).collect()
}
