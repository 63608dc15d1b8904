//! Tests of the renderer, from YAML to snapshots and violations.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rcgen::{CertificateParams, CertifiedKey, KeyPair};

use super::oracle::Rendered;
use super::*;
use crate::controller::folder::scan::{Scan, Seen};
use crate::controller::folder::store::Store;
use crate::controller::index::Objects;
use crate::controller::index::{Answer, Index, Key, Reference, ReferenceKind};
use crate::controller::reason::Reason;
use crate::controller::validate::tests::validator;
use crate::model::routes::Routing;
use crate::model::{
    Auth, AuthProof, ClientAuthMode, HeaderText, Listener, ServerNames, Socket, TlsMode, TrustAnchors,
    UntrustedPeers, UpstreamTls,
};
use crate::net::BackendAddress;
use crate::protocol::backend::XclientNegotiation;
use crate::protocol::proxy_header::ProxyVersion;
use crate::protocol::{CountedErrors, Mechanism, Protocol, SmtpRules, StartTlsOffer};
use crate::secret::Secret;

/// A store of manifests. Each rendering is made from changes and from scratch, and both are compared.
pub(crate) struct Fixture {
    store: Store,
    oracle: Rendered,
    pub(crate) index: Index,
    pub(crate) renderer: Renderer,
    pub(crate) now: i64,
    trusted_peers: Vec<IpNet>,
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

/// Returns a CA bundle whose second certificate has an unknown critical extension.
fn ca_with_an_unknown_one() -> String {
    let authority = |critical: bool| {
        let mut params = CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    document("ConfigMap", "data:", "ca", &[("ca.crt", &(authority(false) + &authority(true)))])
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

#[test]
fn protocol_and_tls_mode_follow_from_well_known_ports() {
    let ports = [25, 465, 587, 110, 995, 143, 993, 4190];
    let listeners: Vec<String> =
        ports.iter().map(|port| format!("{{name: p{port}, port: {port}, backendAddress: 'b:1'}}")).collect();
    let yaml =
        server(&listeners.join(", "), "tls: {certificateRefs: [{name: t}]}") + &tls_secret("t", &["a"]);
    let rendered = once(&yaml);
    let kinds: Vec<_> = ports
        .iter()
        .map(|port| {
            let socket = socket(&rendered, &format!("*:{port}"));
            (*port, socket.protocol, socket.tls_mode)
        })
        .collect();
    let expected = [
        (25, Protocol::Smtp, TlsMode::StartTls),
        (465, Protocol::Smtp, TlsMode::Implicit),
        (587, Protocol::Smtp, TlsMode::RequireStartTls),
        (110, Protocol::Pop3, TlsMode::RequireStartTls),
        (995, Protocol::Pop3, TlsMode::Implicit),
        (143, Protocol::Imap, TlsMode::RequireStartTls),
        (993, Protocol::Imap, TlsMode::Implicit),
        (4190, Protocol::Sieve, TlsMode::RequireStartTls),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(listener(&rendered, "p25").frontend.start_tls, StartTlsOffer::Optional);
    assert_eq!(listener(&rendered, "p143").frontend.start_tls, StartTlsOffer::Required);
    assert_eq!(listener(&rendered, "p993").frontend.start_tls, StartTlsOffer::Disabled);
}

#[test]
fn a_managesieve_listener_announces_its_list_or_pigeonholes() {
    let with = |own: &str| once(&any(&format!("port: 4190, tls: {{mode: Disabled}}{own}")));
    let rendered = with("");
    let capabilities = &listener(&rendered, "a").frontend.capabilities;
    assert_eq!(capabilities[0], "IMPLEMENTATION Dovecot Pigeonhole");
    assert!(
        capabilities[1].starts_with("SIEVE fileinto reject ") && capabilities[1].ends_with(" extracttext")
    );
    let own = with(", sieve: {capabilities: [VERSION 1.0, SASL PLAIN, STARTTLS], authMethods: [XOAUTH2]}");
    let frontend = &listener(&own, "a").frontend;
    assert_eq!(
        (frontend.capabilities.as_slice(), frontend.takes_passwords()),
        (&["VERSION 1.0".to_owned()][..], false)
    );
    assert!(messages(&own).contains("CapabilityIgnored spec.listeners[a].sieve.capabilities: "));
}

#[test]
fn without_a_certificate_tls_is_off_with_a_warning() {
    let rendered = once(&server(&imap("a", "port: 143"), ""));
    assert_eq!(socket(&rendered, "*:143").tls_mode, TlsMode::Disabled);
    assert!(messages(&rendered).contains("ClearText"), "{}", messages(&rendered));
    let rendered = once(&server(&imap("a", "port: 143, tls: {mode: Disabled}"), ""));
    assert_eq!(messages(&rendered), "");
}

/// Returns a listener whose protocol and TLS are only in `fields`.
fn any(fields: &str) -> String {
    server(&format!("{{name: a, backendAddress: 'backend:1', {fields}}}"), "")
}

#[test]
fn clear_text_needs_accepted_logins() {
    let warned = |own: &str| messages(&once(&any(own))).contains("ClearText");
    assert!(!warned("port: 25, smtp: {authMethods: [NONE]}"));
    assert!(warned("port: 25, smtp: {authMethods: [NONE], passwordLogins: Always}"));
    assert!(warned("port: 25, smtp: {authMethods: [NONE, XOAUTH2]}"));
}

#[test]
fn automatic_capabilities_are_ignored_with_a_warning() {
    let smtp = "smtp: {capabilities: [PIPELINING, 'AUTH PLAIN LOGIN', STARTTLS]}";
    let rendered = once(&any(&format!("port: 587, tls: {{mode: Disabled}}, {smtp}")));
    assert_eq!(listener(&rendered, "a").frontend.capabilities, ["PIPELINING"]);
    assert_eq!(
        messages(&rendered),
        "CapabilityIgnored spec.listeners[a].smtp.capabilities: Mailgress announces these capabilities itself, so they \
         are ignored here: \"AUTH PLAIN LOGIN\", \"STARTTLS\"; remove them from the list; authMethods and tls determine what is announced\n"
    );
    let pop3 = |methods: &str| {
        let block = format!("pop3: {{capabilities: [USER, TOP], authMethods: [{methods}]}}");
        messages(&once(&any(&format!("port: 110, tls: {{mode: Disabled}}, {block}"))))
    };
    assert_eq!(pop3("PLAIN"), "");
    assert!(pop3("XOAUTH2").contains("pop3.capabilities: "), "{}", pop3("XOAUTH2"));
}

#[test]
fn implicit_tls_needs_a_certificate() {
    let rendered = once(&server(&imap("a", "port: 993"), ""));
    assert!(rendered.snapshot.sockets.is_empty());
    assert_eq!(
        messages(&rendered),
        "Invalid spec: a listener with TLS (by tls.mode, or by its port 465, 993 or 995) has no certificate; name a Secret \
         of type kubernetes.io/tls in tls.certificateRefs, or set tls.mode: Disabled\n"
    );
}

#[test]
fn absent_settings_have_the_documented_default() {
    let rendered = once(&server(&imap("a", "port: 143"), ""));
    let listener = listener(&rendered, "a");
    assert_eq!(listener.frontend.server_name, "host.example");
    assert_eq!(listener.frontend.capabilities, ["IMAP4", "IMAP4rev1", "UIDPLUS"]);
    assert_eq!(listener.frontend.mechanisms, [Mechanism::Plain]);
    assert_eq!((listener.frontend.max_errors, listener.frontend.max_commands), (5, 1000));
    assert_eq!(listener.timeouts.idle, Duration::from_secs(86_400));
    assert_eq!((listener.limits.client_buffer, listener.limits.max_connections), (4096, None));
    assert_eq!(listener.upstream.xclient, Some(XclientNegotiation::Auto));
    assert!(listener.upstream.smtp_auth && !listener.upstream.imap_id);
    assert_eq!(listener.upstream.tls, UpstreamTls::Disabled);
    assert_eq!(socket(&rendered, "*:143").options, crate::net::SocketOptions::default());
}

#[test]
fn defaults_are_safe_if_nginxs_behaviour_is_optional() {
    let smtp = |name: &str, fields: &str| format!("{{name: {name}, backendAddress: 'b:1', {fields}}}");
    let nginxs = "port: 587, limits: {countedErrors: Syntax, maxAuthFailures: 1000}, \
                  smtp: {anonymousBeforeTLS: true, strictSequence: true}, \
                  upstream: {xclientNegotiation: Always}, timeouts: {halfClosed: 0s, announce: false}, \
                  proxyProtocol: {trustedPeers: ['::1'], untrustedPeers: Report}";
    let safe = "port: 25, proxyProtocol: {trustedPeers: ['::1']}";
    let mixed = "protocol: SMTP, port: 2525, proxyProtocol: {trustedPeers: ['::1'], untrustedPeers: Accept}";
    let listeners = [smtp("safe", safe), smtp("nginxs", nginxs), smtp("mixed", mixed)].join(", ");
    let rendered = once(&server(&listeners, ""));
    let untrusted = |address| socket(&rendered, address).proxy_protocol.as_ref().unwrap().untrusted_peers;
    assert_eq!((untrusted("*:25"), untrusted("*:587")), (UntrustedPeers::Refuse, UntrustedPeers::Report));
    assert_eq!(untrusted("*:2525"), UntrustedPeers::Accept);
    let (safe, nginxs) = (listener(&rendered, "safe"), listener(&rendered, "nginxs"));
    assert_eq!(safe.frontend.smtp, SmtpRules::default());
    let ends = |listener: &Listener| (listener.timeouts.half_closed.as_secs(), listener.timeouts.announce);
    assert_eq!((ends(safe), ends(nginxs)), ((60, true), (0, false)));
    assert_eq!(safe.upstream.xclient, Some(XclientNegotiation::Auto));
    assert_eq!(nginxs.upstream.xclient, Some(XclientNegotiation::Always));
    let all = SmtpRules { anonymous_before_tls: true, strict_sequence: true };
    assert_eq!(nginxs.frontend.smtp, all);
    let counted =
        |listener: &Listener| (listener.frontend.counted_errors, listener.frontend.max_auth_failures);
    assert_eq!(counted(safe), (CountedErrors::All, 10));
    assert_eq!(counted(nginxs), (CountedErrors::Syntax, 1000));
}

#[test]
fn a_listeners_fields_win_one_by_one() {
    let settings = "serverName: outer.example, timeouts: {client: 10s, idle: 1h}, \
                    limits: {maxErrors: 3, authFailures: {count: 4, ban: 1m}, exempt: [192.0.2.7]}, \
                    upstream: {xclient: false, tls: {mode: 'StartTLS', serverName: x}}";
    let own = "port: 143, timeouts: {client: 20s}, limits: {authFailures: {count: 9}}, \
               upstream: {tls: {mode: Implicit}}";
    let rendered = once(&server(&imap("a", own), settings));
    let listener = listener(&rendered, "a");
    assert_eq!(listener.frontend.server_name, "outer.example");
    assert_eq!(listener.timeouts.client, Duration::from_secs(20));
    assert_eq!(listener.timeouts.idle, Duration::from_secs(3600));
    assert_eq!(listener.frontend.max_errors, 3);
    assert!(listener.limits.exempts("192.0.2.7".parse().unwrap()));
    assert!(!listener.limits.exempts("192.0.2.8".parse().unwrap()));
    let failures = listener.limits.auth_failures.unwrap();
    assert_eq!((failures.count, failures.ban, failures.window.as_secs()), (9, Duration::from_secs(60), 600));
    assert_eq!(listener.upstream.xclient, None);
    let UpstreamTls::Implicit(tls) = &listener.upstream.tls else { panic!("{:?}", listener.upstream) };
    assert_eq!((tls.server_name.as_deref(), &tls.trust), (Some("x"), &TrustAnchors::System));
}

#[test]
fn the_kind_of_auth_is_inherited_whole() {
    let http = "auth: {http: {url: 'https://auth.example:9000/a?b', timeout: 5s}}";
    let listeners = format!(
        "{}, {}, {}",
        imap("own", "port: 1143, auth: {passthrough: {}}"),
        imap("same", "port: 1144"),
        imap("slower", "port: 1145, auth: {http: {timeout: 9s}}")
    );
    let rendered = once(&server(&listeners, http));
    assert!(listener(&rendered, "own").auth.is_passthrough());
    let of = |name: &str| match &listener(&rendered, name).auth {
        Auth::Http(http) => Arc::clone(http),
        Auth::Passthrough => panic!("{name}"),
    };
    assert_eq!((of("same").timeout.as_secs(), of("slower").timeout.as_secs()), (5, 9));
    assert_eq!((of("slower").host.as_str(), of("slower").path.expose()), ("auth.example", "/a?b"));
    assert_eq!(of("same").endpoints, [BackendAddress::Name { host: "auth.example".to_owned(), port: 9000 }]);
    assert_eq!(of("same").tls, Some(TrustAnchors::System));
}

#[test]
fn a_url_with_a_login_or_a_wrong_port_is_refused_and_not_shown() {
    for url in [
        "http://u:hunter2@auth.test/",
        "https://hunter2@auth.test/",
        "http://u:hunter2/",
        "http://auth.test:hunter2/",
        "http://auth.test:0/",
        "http://auth.test:99999/",
    ] {
        let rendered = once(&server(&imap("a", "port: 143"), &format!("auth: {{http: {{url: '{url}'}}}}")));
        let told = format!("{:?}", rendered.objects);
        assert!(told.contains("this is not the URL of an auth service"), "{url}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn trust_in_an_auth_service_is_not_inherited_by_another_one() {
    let http = "auth: {http: {url: 'http://auth.example/', acceptAnyStatus: true, keepAlive: false}}";
    let listeners = format!(
        "{}, {}, {}",
        imap("same", "port: 1143"),
        imap("strict", "port: 1144, auth: {http: {acceptAnyStatus: false}}"),
        imap("other", "port: 1145, auth: {http: {url: 'http://other.example/'}}")
    );
    let rendered = once(&server(&listeners, http));
    let of = |name: &str| match &listener(&rendered, name).auth {
        Auth::Http(http) => (http.proof, http.keep_alive),
        Auth::Passthrough => panic!("{name}"),
    };
    assert_eq!(of("same"), (AuthProof::Headers, false));
    assert_eq!(of("strict"), (AuthProof::StatusAndHeader, false));
    assert_eq!(of("other"), (AuthProof::StatusAndHeader, true));
}

#[test]
fn mechanisms_are_in_the_order_of_announcement() {
    let own = "port: 143, imap: {authMethods: [XOAUTH2, PLAIN, CRAM-MD5]}";
    let rendered = once(&server(&imap("a", own), ""));
    let expected = [Mechanism::Plain, Mechanism::CramMd5, Mechanism::XOAuth2];
    assert_eq!(listener(&rendered, "a").frontend.mechanisms, expected);
}

#[test]
fn sockets_proxy_protocol_and_resolvers_are_rendered() {
    let own = "port: 143, address: '::1', socket: {backlog: 9, receiveBuffer: 64Ki, multipath: true, keepalive: {idle: 30m}}, \
               proxyProtocol: {trustedPeers: [10.1.2.3/8, '::1']}, resolver: {nameservers: [10.0.0.1, '[::1]:5353']}";
    let rendered = once(&server(&imap("a", own), ""));
    let socket = socket(&rendered, "[::1]:143");
    assert_eq!((socket.options.backlog, socket.options.receive_buffer), (9, Some(65536)));
    assert!(socket.options.multipath && !socket.options.reuse_port);
    assert_eq!(socket.options.keepalive.as_ref().unwrap().idle, Some(Duration::from_secs(1800)));
    let peers: Vec<String> =
        socket.proxy_protocol.as_ref().unwrap().trusted_peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["10.0.0.0/8", "::1/128"]);
    let servers: Vec<String> =
        listener(&rendered, "a").resolver.nameservers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["10.0.0.1:53", "[::1]:5353"]);
}

#[test]
fn listeners_without_proxy_protocol_expect_headers_of_the_load_balancer() {
    let mut fixture = Fixture { trusted_peers: vec!["10.0.0.0/8".parse().unwrap()], ..Fixture::new() };
    let own = imap("own", "port: 144, proxyProtocol: {trustedPeers: ['::1']}");
    let unix = imap("unix", "address: 'unix:/run/imap.sock'");
    let listeners = [imap("a", "port: 143"), own, unix, imap("here", "port: 145, address: '127.0.0.1'")];
    let rendered = fixture.render(&server(&listeners.join(", "), ""));
    let trusted = |address: &str| {
        let rules = socket(&rendered, address).proxy_protocol.as_ref()?;
        assert!(rules.use_as_client_address && rules.untrusted_peers == UntrustedPeers::Refuse);
        Some(rules.trusted_peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(trusted("*:143").as_deref(), Some("10.0.0.0/8"));
    assert_eq!(trusted("*:144").as_deref(), Some("::1/128"));
    // A load balancer cannot reach this address.
    assert_eq!((trusted("unix:/run/imap.sock"), trusted("127.0.0.1:145")), (None, None));
}

#[test]
fn a_unix_listener_has_no_port() {
    let rendered = once(&server(&imap("a", "address: 'unix:/run/imap.sock'"), ""));
    assert_eq!(sockets(&rendered), ["unix:/run/imap.sock"]);
}

#[test]
fn a_server_of_another_class_is_ignored() {
    let rendered = once(&server(&imap("a", "port: 143"), "className: other"));
    assert!(rendered.objects.is_empty() && rendered.snapshot.sockets.is_empty());
}

#[test]
fn an_invalid_server_of_another_class_is_ignored() {
    let ours = once(&server("{name: a}", "className: mailgress"));
    assert_eq!(ours.objects.len(), 1);
    let others = once(&server("{name: a}", "className: other"));
    assert!(others.objects.is_empty());
    // An object that moves to another class is not kept, even if its new spec is not valid.
    let mut fixture = Fixture::new();
    fixture.render(&server(&imap("a", "port: 143"), ""));
    assert!(fixture.render(&server("{name: a}", "className: other")).objects.is_empty());
}

#[test]
fn a_listener_has_the_class_of_its_server() {
    let listener = attached("team", "l", "port: 993");
    let told = |yaml: &str| once(yaml).objects.iter().filter(|object| object.kind == Kind::Listener).count();
    assert_eq!(told(&(server("", "") + &listener)), 1, "it is not allowed, which its own class says");
    assert_eq!(told(&(server("", "className: other") + &listener)), 0);
    assert_eq!(told(&listener), 1, "whose it would be is not known");
    let broken = listener.replace("port: 993", "prot: 993");
    assert_eq!(told(&(server("", "") + &broken)), 1);
    assert_eq!(told(&(server("", "className: other") + &broken)), 0);
}

// --- what a render refuses ---

#[test]
fn a_violation_excludes_its_own_listener_only() {
    let listeners = format!(
        "{}, {}",
        imap("bad", "port: 993, tls: {certificateRefs: [{name: missing}]}"),
        imap("good", "port: 143")
    );
    let rendered = once(&server(&listeners, ""));
    assert_eq!(sockets(&rendered), ["*:143"]);
}

#[test]
fn cipher_suites_that_fit_no_certificate_are_refused() {
    let secret = tls_secret_until("mail-tls", &["a.test"], (2030, 1, 1));
    let said = |suites: &str| {
        let tls =
            format!("port: 993, tls: {{certificateRefs: [{{name: mail-tls}}], cipherSuites: [{suites}]}}");
        messages(&once(&format!("{}{secret}", server(&imap("a", &tls), ""))))
    };
    let (rsa, ecdsa) = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let problem = "none of the suites fits the key of a certificate";
    assert!(said(rsa).contains(problem));
    for suites in [ecdsa, &format!("{rsa}, {ecdsa}"), &format!("{rsa}, TLS_AES_128_GCM_SHA256")] {
        assert!(!said(suites).contains(problem), "{suites}: {}", said(suites));
    }
}

#[test]
fn refuses_values_that_the_schema_cannot_check() {
    let refused = |own: &str| messages(&once(&server(&imap("a", own), "")));
    assert!(refused("port: 143, address: 1.2.3").contains("spec.listeners[a].address"));
    assert!(refused("port: 143, timeouts: {client: 0s}").contains("spec.listeners[a].timeouts.client"));
    assert!(refused("port: 143, limits: {clientBuffer: 1}").contains("between 512 and 1Mi"));
    assert!(refused("port: 143, proxyProtocol: {trustedPeers: [10.0.0.0/99]}").contains("trustedPeers"));
    assert!(refused("port: 143, resolver: {nameservers: ['a b']}").contains("nameservers"));
    let unix = "port: 143, resolver: {nameservers: [10.0.0.1, 'unix:/run/dns.sock']}";
    assert!(refused(unix).contains("nameservers"));
    assert!(refused("port: 143, hostnames: [a.example]").contains("with hostnames has no certificate"));
    assert!(refused("port: 143, tls: {mode: StartTLS, cipherSuites: [X]}").contains("cipherSuites"));
    let nobody = "{name: a, port: 143}";
    assert!(messages(&once(&server(nobody, ""))).contains("needs a backend to log in to"));
    assert!(messages(&once(&server(nobody, "auth: null"))).contains("no authentication is configured"));
    let url = "auth: {http: {url: 'http://user@host/'}}";
    assert!(messages(&once(&server(nobody, url))).contains("without a login in it"));
}

#[test]
fn apop_cannot_be_passed_through_from_server_or_listener() {
    let yaml =
        server("{name: a, port: 110, backendAddress: 'b:1'}", "pop3: {authMethods: [APOP]}, auth: null");
    let yaml = yaml.replace("backendAddress: 'b:1'", "backendAddress: 'b:1', auth: {passthrough: {}}");
    assert!(messages(&once(&yaml)).contains("APOP needs auth.http"));
}

#[test]
fn names_what_is_missing_or_unusable() {
    let refused = |own: &str, more: &str| messages(&once(&(server(&imap("a", own), "") + more)));
    let tls = "port: 993, tls: {certificateRefs: [{name: t}]}";
    assert!(
        refused(tls, "")
            .contains("RefNotFound spec.listeners[a].tls.certificateRefs[0]: Secret mail/t does not exist")
    );
    assert!(refused(tls, &secret("Opaque", "t", &[("a", "b")])).contains("it has no tls.crt"));
    let (one, other) = (tls_secret("t", &["a"]), tls_secret("t", &["b"]));
    let key = other.lines().find(|line| line.contains("tls.key")).unwrap();
    let mixed: String =
        one.lines().map(|l| if l.contains("tls.key") { key } else { l }.to_owned() + "\n").collect();
    let found = refused(tls, &mixed);
    assert!(found.contains("InvalidRef") && found.contains("Secret mail/t"), "{found}");
    let garbage = secret("kubernetes.io/tls", "t", &[("tls.crt", "x"), ("tls.key", "y")]);
    assert!(refused(tls, &garbage).contains("InvalidRef"));
    let upstream = "port: 143, upstream: {tls: {mode: Implicit, caCertificateRefs: [{name: ca}]}}";
    assert!(refused(upstream, "").contains("ConfigMap mail/ca does not exist"));
    let auth = "port: 143, auth: {http: {url: 'http://a/', headers: [{name: X-Key, valueFrom: \
                {secretKeyRef: {name: k, key: key}}}]}}";
    assert!(refused(auth, "").contains("auth.http.headers[X-Key]: Secret mail/k does not exist"));
    let other = secret("Opaque", "k", &[("other", "x")]);
    assert!(refused(auth, &other).contains("Secret mail/k has no key \"key\"; add the key"));
}

// --- certificates ---

#[test]
fn headers_may_say_what_is_different_for_each_session() {
    let auth = |source: &str| {
        format!(
            "port: 143, auth: {{http: {{url: 'http://a/', headers: [{{name: X, valueFrom: {source}}}]}}}}"
        )
    };
    for (value, text) in [("ListenerName", "a"), ("ListenerPort", "143")] {
        let rendered = once(&server(&imap("a", &auth(&format!("{{session: {value}}}"))), ""));
        let Auth::Http(http) = &listener(&rendered, "a").auth else { panic!() };
        assert_eq!(http.headers[0].value, HeaderText::Fixed(Secret::from(text.as_bytes())));
    }
    let rendered = once(&server(&imap("a", &auth("{session: ClientPort}")), ""));
    let Auth::Http(http) = &listener(&rendered, "a").auth else { panic!() };
    assert_eq!(http.headers[0].value, HeaderText::ClientPort);
    for source in ["{}", "{session: ClientPort, secretKeyRef: {name: k, key: key}}"] {
        let found = messages(&once(&server(&imap("a", &auth(source)), "")));
        assert!(found.contains("neither or both of secretKeyRef and session"), "{found}");
    }
}

#[test]
fn an_unused_authority_is_reported_and_the_others_are_trusted() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}";
    let rendered =
        once(&(server(&imap("a", own), "") + &tls_secret("t", &["a.test"]) + &ca_with_an_unknown_one()));
    let trusted = &listener(&rendered, "a").tls.as_ref().unwrap().client_auth.authorities;
    assert_eq!(trusted.len(), 1);
    let found = messages(&rendered);
    assert!(
        found.contains("AuthorityNotUsed") && found.contains("certificate 2 of ConfigMap mail/ca"),
        "{found}"
    );
}

#[test]
fn certificates_authorities_and_headers_come_from_their_objects() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}, auth: {http: {url: 'unix:/run/auth:/x', headers: [{name: X-Key, valueFrom: \
               {secretKeyRef: {name: k, key: key}}}]}}";
    let yaml = server(&imap("a", own), "")
        + &tls_secret("t", &["mail.example"])
        + &ca()
        + &secret("Opaque", "k", &[("key", "s3cret\n")]);
    let rendered = once(&yaml);
    let listener = listener(&rendered, "a");
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(tls.certificates[0].names, ["mail.example"]);
    assert_eq!(tls.certificates[0].reference, "mail/t");
    assert_eq!((tls.client_auth.mode, tls.client_auth.authorities.len()), (ClientAuthMode::Required, 1));
    let Auth::Http(http) = &listener.auth else { panic!() };
    assert_eq!(http.headers[0].value, HeaderText::Fixed(Secret::from(&b"s3cret"[..])));
    assert_eq!((http.endpoints[0].to_string().as_str(), http.path.expose()), ("unix:/run/auth", "/x"));
    assert!(!format!("{rendered:?}").contains("s3cret"));
}

#[test]
fn a_rendering_returns_exactly_the_references_it_used() {
    let found = |rendered: &Rendered| rendered.references.iter().map(ToString::to_string).collect::<Vec<_>>();
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}, backendRef: {name: b, port: 143}";
    let listener = format!("{{name: a, protocol: IMAP, {own}}}");
    let other = secret("Opaque", "unasked", &[("key", "s3cret")]);
    let rendered = once(&(server(&listener, "") + &other));
    // A missing object was looked up too. Objects without a reference were not.
    assert_eq!(found(&rendered), ["Secret mail/t", "ConfigMap mail/ca", "Service mail/b"]);
    let foreign = server(&listener, "className: somebody-else");
    assert!(once(&foreign).references.is_empty());
    let refused = attached("team", "l", "port: 993, tls: {certificateRefs: [{name: t}]}");
    assert!(once(&(server("", "") + &refused)).references.is_empty(), "it is not allowed");
}

#[test]
fn a_forbidden_reference_is_not_missing() {
    let mut fixture = Fixture::new();
    let yaml = server(&imap("a", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    fixture.render(&yaml);
    fixture.answers(&secret_t(), Answer::Forbidden("may not list".to_owned()));
    let messages = messages(&fixture.render_index().0);
    let begin = "RefNotReadable spec.tls.certificateRefs[0]: Secret mail/t cannot be read: may not list;";
    assert!(messages.starts_with(begin), "{messages}");
}

fn secret_t() -> Reference {
    Reference::new(ReferenceKind::Secret, &Key::new("mail", "t"))
}

fn pending() -> Answer {
    Answer::Pending("no answer yet".to_owned())
}

#[test]
fn a_listener_with_a_pending_reference_keeps_its_previous_rendering() {
    let mut fixture = Fixture::new();
    let yaml = |secret: &str, port: u16| {
        server(
            &imap("a", &format!("port: {port}")),
            &format!("tls: {{certificateRefs: [{{name: {secret}}}]}}"),
        )
    };
    let (t, u) = (tls_secret("t", &["a"]), tls_secret("u", &["a"]));
    let first = fixture.render(&(yaml("u", 993) + &u));
    assert_eq!((sockets(&first), messages(&first)), (vec!["*:993".to_owned()], String::new()));
    fixture.answers(&secret_t(), pending());
    let waiting = fixture.render(&(yaml("t", 993) + &u + &t));
    assert_eq!(waiting.snapshot.sockets, first.snapshot.sockets);
    assert_eq!(
        messages(&waiting),
        "Pending spec.tls.certificateRefs[0]: waiting for Secret mail/t: no answer yet\n"
    );
    assert_eq!(sockets(&fixture.render(&(yaml("t", 995) + &u + &t))), ["*:993"], "the new port waits too");
    fixture.answers(&secret_t(), Answer::Known);
    assert_eq!(sockets(&fixture.render_index().0), ["*:995"]);
}

#[test]
fn the_socket_of_a_pending_listener_is_reserved() {
    let mut fixture = Fixture::new();
    let waits = named_server("a", &imap("x", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let younger = named_server("b", &imap("y", "port: 993"), "tls: {certificateRefs: [{name: u}]}");
    let secrets = tls_secret("t", &["a"]) + &tls_secret("u", &["a"]);
    fixture.answers(&secret_t(), pending());
    let rendered = fixture.render(&(waits.clone() + &younger + &secrets));
    assert_eq!(sockets(&rendered), Vec::<String>::new());
    assert!(
        messages(&rendered).contains("SocketConflict spec.listeners[y].hostnames")
            || messages(&rendered).contains("HostnameConflict spec.listeners[y].hostnames"),
        "{}",
        messages(&rendered)
    );
    fixture.answers(&secret_t(), Answer::Known);
    let rendered = fixture.render_index().0;
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/a/x");
}

#[test]
fn a_pending_listener_takes_nothing_from_a_served_one() {
    let mut fixture = Fixture::new();
    let served = named_server("b", &imap("y", "port: 993"), "tls: {certificateRefs: [{name: u}]}");
    let stronger = named_server("a", &imap("x", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let secrets = tls_secret("t", &["a"]) + &tls_secret("u", &["a"]);
    fixture.render(&(served.clone() + &secrets));
    fixture.answers(&secret_t(), pending());
    let rendered = fixture.render(&(served.clone() + &stronger + &secrets));
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/b/y");
    fixture.answers(&secret_t(), Answer::Known);
    let rendered = fixture.render_index().0;
    assert_eq!(socket(&rendered, "*:993").listeners[0].id.to_string(), "mail/a/x");
}

#[test]
fn forbidden_endpoints_are_not_missing() {
    let mut fixture = Fixture::new();
    let yaml = server(
        "{name: a, protocol: IMAP, port: 143, backendRef: {name: b, port: 143}}",
        "tls: {mode: Disabled}",
    );
    let service = document("Service", "spec: {ports: [{port: 143}]}", "b", &[]);
    let slices = Reference::new(ReferenceKind::EndpointSlices, &Key::new("mail", "b"));
    fixture.answers(&slices, Answer::Forbidden("may not list".to_owned()));
    let messages = messages(&fixture.render(&(yaml + &service)));
    let begin = "RefNotReadable spec.listeners[a].backendRef: EndpointSlices of Service mail/b cannot be read: may not list;";
    assert!(messages.starts_with(begin), "{messages}");
}

#[test]
fn client_certificates_need_an_authority() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required}}";
    let rendered = once(&(server(&imap("a", own), "") + &tls_secret("t", &["a"])));
    assert!(
        messages(&rendered)
            .contains("tls.clientAuth.mode needs tls.clientAuth.caCertificateRefs; set it to a ConfigMap")
    );
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let yaml = server(&imap("a", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let rendered = once(&(yaml.clone() + &tls_secret_until("t", &["a"], (2020, 1, 1))));
    assert_eq!(sockets(&rendered), ["*:993"]);
    assert!(
        messages(&rendered).starts_with("CertificateExpired spec.tls.certificateRefs[0]: "),
        "{}",
        messages(&rendered)
    );
    // The tests' time is 2027-01-15.
    for (until, reason) in [
        ((2027, 1, 18), "ExpiresWithinAWeek spec.tls.certificateRefs[0]: "),
        ((2027, 2, 10), "ExpiresWithinAMonth spec.tls.certificateRefs[0]: "),
        ((2027, 2, 20), ""),
    ] {
        let rendered = once(&(yaml.clone() + &tls_secret_until("t", &["a"], until)));
        assert!(messages(&rendered).starts_with(reason), "{}", messages(&rendered));
        assert_eq!(messages(&rendered).is_empty(), reason.is_empty());
    }
}

#[test]
fn a_host_name_without_a_certificate_causes_a_warning() {
    let own = "port: 993, hostnames: [a.example, b.example, '*.c.example']";
    let yaml = server(&imap("a", own), "tls: {certificateRefs: [{name: t}]}")
        + &tls_secret("t", &["*.example", "b.example"]);
    let rendered = once(&yaml);
    assert_eq!(sockets(&rendered), ["*:993"]);
    assert!(
        messages(&rendered).contains("no certificate of this listener is for *.c.example;"),
        "{}",
        messages(&rendered)
    );
}

// --- backends ---

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: dovecot, namespace: mail}\n\
                       spec: {ports: [{name: imap, port: 143}, {name: sieve, port: 4190}]}\n";

#[test]
fn without_host_names_the_certificate_must_contain_the_server_name() {
    let messages_of = |settings: &str, listener: &str, names: &[&str]| {
        let settings = format!("tls: {{certificateRefs: [{{name: t}}]}}{settings}");
        messages(&once(&(server(&imap("a", listener), &settings) + &tls_secret("t", names))))
    };
    let name = ", serverName: mail.example.com";
    assert_eq!(
        messages_of(name, "port: 993", &["other.example.com"]),
        "HostnameNotCovered spec.serverName: no certificate of this listener is for mail.example.com; add a \
         certificate with these names to tls.certificateRefs\n"
    );
    let own = messages_of("", "port: 993, serverName: mx.example.com", &["other.example.com"]);
    assert!(own.starts_with("HostnameNotCovered spec.listeners[a].serverName: "), "{own}");
    for names in [["Mail.Example.COM"], ["*.example.com"]] {
        assert_eq!(messages_of(name, "port: 993", &names), "");
    }
    let hosts = "port: 993, hostnames: [imap.example.com]";
    assert_eq!(messages_of(name, hosts, &["imap.example.com"]), "", "clients ask for the host names");
    assert_eq!(messages_of("", "port: 993", &["other.example.com"]), "", "nobody wrote the Pod's name");
    let yaml = server(&imap("a", "port: 993"), "serverName: a.test, tls: {certificateRefs: [{name: t}]}");
    let rendered = once(&(yaml + &tls_secret("t", &["b.test"])));
    assert_eq!(rendered.objects[0].listeners[0].serving, Serving::Current, "it is served");
}

fn slice(name: &str, family: &str, endpoints: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: mail, labels: {{kubernetes.io/service-name: dovecot}}}}\n\
         addressType: {family}\nports: [{{name: sieve, port: 14190}}, {{name: imap, port: 10143}}]\n\
         endpoints: [{endpoints}]\n"
    )
}

#[test]
fn a_service_resolves_to_its_ready_endpoints() {
    let listener_yaml = "{name: a, port: 143, backendRef: {name: dovecot, port: 143}}";
    let yaml = server(listener_yaml, "")
        + SERVICE
        + &slice("x", "IPv6", "{addresses: ['fd00::1']}")
        + &slice(
            "y",
            "IPv4",
            "{addresses: [10.0.0.2], conditions: {ready: true}}, {addresses: [10.0.0.9], conditions: {ready: \
             false}}, {addresses: [10.0.0.1], targetRef: {kind: Pod, name: dovecot-0, namespace: mail}}",
        );
    let rendered = once(&yaml);
    let backend = listener(&rendered, "a").backend.as_ref().unwrap();
    assert_eq!(backend.reference, "Service mail/dovecot:143");
    let endpoints: Vec<String> = backend.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["10.0.0.1:10143", "10.0.0.2:10143", "[fd00::1]:10143"]);
    let names: Vec<_> =
        backend.names.iter().map(|(address, name)| (address.to_string(), name.as_str())).collect();
    assert_eq!(names, [("10.0.0.1:10143".to_owned(), "dovecot-0")]);
}

#[test]
fn a_backend_port_for_tls_without_tls_is_served_with_a_warning() {
    let of = |backend: &str, settings: &str| {
        let listener = format!("{{name: a, protocol: IMAP, port: 1143, {backend}}}");
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: dovecot, namespace: mail}\n\
                       spec: {ports: [{name: imap, port: 143}, {name: imaps, port: 993}, {name: pop, port: 995}]}\n";
        let endpoints =
            slice("x", "IPv4", "{addresses: [10.0.0.1]}").replace("sieve, port: 14190", "imaps, port: 31993");
        let rendered =
            once(&(server(&listener, &format!("tls: {{mode: Disabled}}{settings}")) + service + &endpoints));
        assert_eq!(rendered.objects[0].listeners[0].serving, Serving::Current, "it is served");
        messages(&rendered)
    };
    let by_address = "backendAddress: 'imap.example.com:993'";
    let by_service = "backendRef: {name: dovecot, port: 993}";
    assert_eq!(
        of(by_address, ""),
        "ImplicitTLSExpected spec.listeners[a].backendAddress: imap.example.com:993 uses port 993, where servers expect \
         TLS from the first byte, and upstream.tls.mode is not set; set upstream.tls.mode: Implicit on the \
         listener, or use the backend's port without TLS\n"
    );
    for backend in [
        by_address,
        by_service,
        "backendAddress: '[2001:db8::1]:995'",
        "backendAddress: 'mx:465'",
        "backendRef: {name: dovecot, port: imaps}",
    ] {
        assert!(of(backend, "").starts_with("ImplicitTLSExpected "), "{backend}");
        let start_tls = of(backend, ", upstream: {tls: {mode: StartTLS}}");
        assert!(start_tls.contains("upstream.tls.mode is StartTLS"), "{start_tls}");
        let off = of(backend, ", upstream: {tls: {mode: Disabled}}");
        assert!(off.contains("upstream.tls.mode is Disabled"), "{off}");
        assert_eq!(of(backend, ", upstream: {tls: {mode: Implicit}}"), "", "{backend}");
    }
    // No endpoint has this port, so the number is only that of the Service.
    let by_number = of("backendRef: {name: dovecot, port: pop}", "");
    assert!(by_number.contains("ImplicitTLSExpected ") && by_number.contains("port 995"), "{by_number}");
    for backend in [
        "backendAddress: 'mx:143'",
        "backendRef: {name: dovecot, port: 143}",
        "backendAddress: 'unix:/run/993'",
    ] {
        assert_eq!(of(backend, ""), "", "{backend}");
    }
}

#[test]
fn a_service_without_ready_endpoints_is_served_with_a_warning() {
    let rendered =
        once(&(server("{name: a, port: 143, backendRef: {name: dovecot, port: 143}}", "") + SERVICE));
    assert_eq!(listener(&rendered, "a").backend.as_ref().unwrap().endpoints, []);
    assert!(messages(&rendered).contains("NoReadyEndpoints spec.listeners[a].backendRef: "));
}

#[test]
fn an_external_name_is_resolved_when_it_is_used() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: dovecot, namespace: mail}\n\
                   spec: {type: ExternalName, externalName: imap.example.com}\n";
    let rendered =
        once(&(server("{name: a, port: 143, backendRef: {name: dovecot, port: 10143}}", "") + service));
    let endpoints = &listener(&rendered, "a").backend.as_ref().unwrap().endpoints;
    assert_eq!(endpoints[0].to_string(), "imap.example.com:10143");
}

#[test]
fn names_a_missing_service_or_port() {
    let of = |port: u16, more: &str| {
        let listener = format!("{{name: a, port: 143, backendRef: {{name: dovecot, port: {port}}}}}");
        messages(&once(&(server(&listener, "") + more)))
    };
    assert!(of(143, "").contains("spec.listeners[a].backendRef: Service mail/dovecot does not exist"));
    assert!(of(1, SERVICE).contains("has no TCP port 1, only 143 (imap), 4190 (sieve)"));
}

/// This is set explicitly, so there is no warning.
const NO_TLS: &str = "Disabled";

#[test]
fn a_port_of_a_service_may_be_named() {
    let served = |port: &str, more: &str| {
        let rendered = once(
            &(server(
                &format!(
                    "{{name: a, port: 143, tls: {{mode: '{NO_TLS}'}}, backendRef: {{name: dovecot, port: {port}}}}}"
                ),
                "",
            ) + more),
        );
        let messages = messages(&rendered);
        let socket = rendered.snapshot.sockets.values().next().cloned();
        let backend = socket.and_then(|socket| socket.listeners[0].backend.clone());
        (backend.map(|backend| (backend.reference.clone(), backend.endpoints.clone())), messages)
    };
    let endpoint = slice("x", "IPv4", "{addresses: [10.0.0.1]}");
    let address = |text: &str| vec![units::backend_address(text, None).unwrap()];
    let found =
        |port: &str, endpoint: &str| Some((format!("Service mail/dovecot:{port}"), address(endpoint)));
    let with_ports = SERVICE.to_owned() + &endpoint;
    assert_eq!(served("imap", &with_ports), (found("imap", "10.0.0.1:10143"), String::new()));
    assert_eq!(served("sieve", &with_ports), (found("sieve", "10.0.0.1:14190"), String::new()));
    let (backend, messages) = served("imaps", &with_ports);
    assert_eq!(backend, None);
    assert!(
        messages.contains("RefNotFound spec.listeners[a].backendRef: Service mail/dovecot has no TCP port imaps, only 143 (imap)"),
        "{messages}"
    );
    let (backend, messages) = served("imap", SERVICE);
    assert!(backend.is_some() && messages.contains("has no ready endpoint for port imap"), "{messages}");
    // If a headless Service has no ports, its EndpointSlices have the names.
    let service = |spec: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: dovecot, namespace: mail}}\nspec: {{{spec}}}\n"
        )
    };
    let headless = service("clusterIP: None") + &endpoint;
    assert_eq!(served("imap", &headless), (found("imap", "10.0.0.1:10143"), String::new()));
    let (_, messages) = served("imaps", &headless);
    assert!(messages.contains("has no TCP port imaps, and lists none; "), "{messages}");
    let external =
        service("type: ExternalName, externalName: imap.example.com, ports: [{name: imap, port: 1143}]");
    assert_eq!(served("imap", &external), (found("imap", "imap.example.com:1143"), String::new()));
    let (backend, messages) = served("imap", &service("type: ExternalName, externalName: imap.example.com"));
    assert!(
        backend.is_none()
            && messages.contains("has no TCP port imap, and lists none; write the port's number"),
        "{messages}"
    );
}

#[test]
fn a_port_of_the_auth_service_may_be_named() {
    let auth = "auth: {http: {serviceRef: {name: dovecot, port: sieve}}}";
    let rendered = once(
        &(server("{name: a, port: 143}", auth) + SERVICE + &slice("x", "IPv4", "{addresses: [10.0.0.1]}")),
    );
    let Auth::Http(http) = &listener(&rendered, "a").auth else { panic!("{}", messages(&rendered)) };
    assert_eq!(http.endpoints[0].to_string(), "10.0.0.1:14190");
}

// --- conflicts ---

#[test]
fn inside_one_object_neither_listener_wins_a_socket() {
    let listeners = format!(
        "{}, {}, {}",
        imap("a", "port: 143"),
        imap("b", "port: 143, address: 127.0.0.1"),
        imap("c", "port: 1143")
    );
    let rendered = once(&server(&listeners, ""));
    assert_eq!(sockets(&rendered), ["*:1143"]);
    assert!(
        messages(&rendered)
            .contains("SocketConflict spec.listeners[a].address: *:143 overlaps 127.0.0.1:143")
    );
}

#[test]
fn inside_one_object_a_served_listener_stays() {
    let mut fixture = Fixture::new();
    let (a, b) = (imap("a", "port: 143"), imap("b", "port: 144"));
    fixture.render(&server(&format!("{a}, {b}"), ""));
    // A new listener that overlaps.
    let c = imap("c", "port: 143, address: '127.0.0.1'");
    let rendered = fixture.render(&server(&format!("{a}, {b}, {c}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert!(
        messages(&rendered).contains("spec.listeners[c].address: 127.0.0.1:143 overlaps *:143"),
        "{}",
        messages(&rendered)
    );
    assert!(!messages(&rendered).contains("listeners[a]"), "{}", messages(&rendered));
    // A listener that moves to the socket of another one, which changes as well.
    let a = imap("a", "port: 143, limits: {maxConnections: 7}");
    let moved = imap("b", "port: 143, address: '127.0.0.2'");
    let rendered = fixture.render(&server(&format!("{a}, {moved}, {c}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert_eq!(listener(&rendered, "a").limits.max_connections, Some(7));
    assert!(!messages(&rendered).contains("listeners[a]"), "{}", messages(&rendered));
    // If there is no room any more, it is not served.
    let taken = imap("d", "port: 144");
    let rendered = fixture.render(&server(&format!("{a}, {moved}, {taken}"), ""));
    assert_eq!(sockets(&rendered), ["*:143", "*:144"]);
    assert_eq!(socket(&rendered, "*:144").listeners[0].id.listener, "d");
    // Without its rival, it gets its new socket.
    let rendered = fixture.render(&server(&moved, ""));
    assert_eq!(sockets(&rendered), ["127.0.0.2:143"]);
}

#[test]
fn a_listener_kept_in_a_conflict_has_current_endpoints_and_certificates() {
    let mut fixture = Fixture::new();
    let backend = "backendRef: {name: dovecot, port: 143}";
    let yaml = |port: &str, names: &[&str], address: &str| {
        let listeners = format!("{{name: a, port: 993, {backend}}}, {{name: b, {port}, {backend}}}");
        server(&listeners, "tls: {certificateRefs: [{name: t}]}")
            + SERVICE
            + &tls_secret("t", names)
            + &slice("x", "IPv4", &format!("{{addresses: [{address}]}}"))
    };
    let seen = |rendered: &Rendered| {
        let kept = listener(rendered, "b");
        let endpoint = kept.backend.as_ref().unwrap().endpoints[0].to_string();
        (kept.tls.as_ref().unwrap().certificates[0].names.clone(), endpoint)
    };
    let old = (vec!["old".to_owned()], "10.0.0.1:10143".to_owned());
    let new = (vec!["new".to_owned()], "10.0.0.2:10143".to_owned());
    assert_eq!(seen(&fixture.render(&yaml("port: 995, protocol: IMAP", &["old"], "10.0.0.1"))), old);
    let moved = "port: 993, address: '127.0.0.1'";
    for (names, address, expected) in [("old", "10.0.0.1", old), ("new", "10.0.0.2", new)] {
        let rendered = fixture.render(&yaml(moved, &[names], address));
        assert!(messages(&rendered).contains("127.0.0.1:993 overlaps *:993"), "{}", messages(&rendered));
        assert_eq!(sockets(&rendered), ["*:993", "*:995"]);
        assert_eq!(seen(&rendered), expected);
    }
}

#[test]
fn a_second_listener_on_a_port_takes_nothing_from_the_first() {
    let mut fixture = Fixture::new();
    let (first, second) = (imap("a", "port: 143"), imap("b", "port: 143"));
    assert_eq!(sockets(&fixture.render(&server(&first, ""))), ["*:143"]);
    let rendered = fixture.render(&server(&format!("{first}, {second}"), ""));
    assert_eq!(sockets(&rendered), ["*:143"]);
    assert!(
        messages(&rendered).contains("two listeners have the same address and port"),
        "{}",
        messages(&rendered)
    );
}

fn with_tls(listeners: &[(&str, &str)]) -> String {
    let listeners: Vec<String> = listeners.iter().map(|(name, fields)| imap(name, fields)).collect();
    server(&listeners.join(", "), "tls: {certificateRefs: [{name: t}]}") + &tls_secret("t", &["*.example"])
}

#[test]
fn listeners_share_a_port_when_their_host_names_differ() {
    let rendered = once(&with_tls(&[
        ("a", "port: 993, hostnames: [a.example]"),
        ("b", "port: 993, hostnames: [b.example], timeouts: {client: 5s}"),
        ("rest", "port: 993"),
    ]));
    assert_eq!(messages(&rendered), "");
    let socket = socket(&rendered, "*:993");
    assert_eq!(socket.listeners.len(), 3);
    let names = ServerNames::new(&socket.listeners);
    let selected = |name| socket.listeners[names.select(name).unwrap()].id.listener.as_str();
    assert_eq!((selected(Some("b.example")), selected(None)), ("b", "rest"));
}

#[test]
fn a_shared_port_names_the_field_that_differs() {
    let conflict = |a: &str, b: &str| {
        let rendered = once(&with_tls(&[("a", a), ("b", b)]));
        assert!(rendered.snapshot.sockets.is_empty(), "{a} {b}");
        messages(&rendered)
    };
    let a = "port: 993, hostnames: [a.example]";
    assert!(
        conflict(a, "port: 993, hostnames: [a.example, b.example]").contains("both have host name a.example")
    );
    assert!(
        conflict(a, "port: 993, hostnames: [b.example], tls: {mode: StartTLS}").contains("tls.mode differs")
    );
    let proxied = "port: 993, hostnames: [b.example], proxyProtocol: {trustedPeers: ['::1']}";
    assert!(conflict(a, proxied).contains("proxyProtocol differs"));
    assert!(
        conflict(a, "port: 993, hostnames: [b.example], socket: {backlog: 1}").contains("socket differs")
    );
    let a = "port: 143, hostnames: [a.example]";
    let b = |more: &str| format!("port: 143, hostnames: [b.example], {more}");
    assert!(
        conflict(a, &b("timeouts: {client: 5s}")).contains("timeouts.client differs, but clients see it")
    );
    assert!(conflict(a, &b("timeouts: {announce: false}")).contains("timeouts.announce differs"));
    assert!(conflict(a, &b("serverName: b.example")).contains("serverName differs"));
    assert!(conflict(a, &b("limits: {maxErrors: 9}")).contains("limits.maxErrors differs"));
    assert!(conflict(a, &b("limits: {countedErrors: Syntax}")).contains("limits.countedErrors differs"));
    assert!(conflict(a, &b("limits: {maxAuthFailures: 9}")).contains("limits.maxAuthFailures differs"));
    assert!(conflict(a, &b("limits: {maxConnections: 9}")).contains("limits differs"));
    assert!(conflict(a, &b("imap: {capabilities: [IMAP4rev1]}")).contains("imap.capabilities differs"));
    assert!(conflict(a, &b("imap: {authMethods: [LOGIN]}")).contains("imap.authMethods differs"));
}

#[test]
fn between_objects_the_server_wins_then_the_older_then_the_name() {
    let own = server(&imap("a", "port: 143"), "");
    let rendered = once(&(own + &attached("mail", "m", "port: 143")));
    assert_eq!(socket(&rendered, "*:143").listeners[0].id.to_string(), "mail/s/a");
    assert!(
        messages(&rendered).contains("SocketConflict spec.port: listener mail/s/a has *:143 too"),
        "{}",
        messages(&rendered)
    );

    let nameless = once(&(with_tls(&[("a", "port: 993")]) + &attached("mail", "m", "port: 993")));
    assert!(messages(&nameless).contains("neither has host names"), "{}", messages(&nameless));

    let twins = server("", "") + &attached("mail", "m", "port: 143") + &attached("mail", "l", "port: 143");
    assert_eq!(socket(&once(&twins), "*:143").listeners[0].id.to_string(), "mail/l");
    let older = twins.replace("{name: m,", "{name: m, creationTimestamp: '2020-01-01T00:00:00Z',");
    assert_eq!(socket(&once(&older), "*:143").listeners[0].id.to_string(), "mail/m");
}

#[test]
fn of_two_servers_on_one_port_only_the_later_loses_only_that_listener() {
    let listeners = format!("{}, {}", imap("a", "port: 143"), imap("b", "port: 1143"));
    let rendered = once(&(server(&imap("a", "port: 143"), "") + &named_server("t", &listeners, "")));
    assert_eq!(sockets(&rendered), ["*:143", "*:1143"]);
    assert_eq!(socket(&rendered, "*:143").listeners[0].id.to_string(), "mail/s/a");
    assert!(
        messages(&rendered)
            .contains("SocketConflict spec.listeners[a].port: listener mail/s/a has *:143 too")
    );
}

// --- MailListener ---

#[test]
fn a_mail_listener_inherits_and_is_served() {
    let yaml = server("", "serverName: mail.example, tls: {certificateRefs: [{name: t}]}")
        + &tls_secret("t", &["mail.example"])
        + &attached("mail", "m", "port: 993, timeouts: {client: 5s}");
    let rendered = once(&yaml);
    let listener = &socket(&rendered, "*:993").listeners[0];
    assert_eq!(listener.id.to_string(), "mail/m");
    assert_eq!(listener.frontend.server_name, "mail.example");
    assert_eq!(messages(&rendered), "");
}

#[test]
fn a_server_says_which_namespaces_may_attach() {
    let attach = |allowed: &str, more: &str| {
        let settings = format!("allowedListeners: {{namespaces: {allowed}, backends: {{hosts: [b]}}}}");
        let rendered = once(&(server("", &settings) + &attached("team", "m", "port: 143") + more));
        (rendered.snapshot.sockets.len(), messages(&rendered))
    };
    let (served, messages) = attach("{}", "");
    assert_eq!(served, 0);
    assert!(messages.contains(
        "NotAllowed spec.serverRef: MailServer mail/s does not allow listeners from namespace team"
    ));
    assert_eq!(attach("{from: All}", "").0, 1);
    let selector = "{from: Selector, selector: {matchLabels: {mail: 'yes'}}}";
    assert_eq!(attach(selector, "").0, 0);
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {mail: 'yes'}}\n";
    assert_eq!(attach(selector, namespace).0, 1);
    let by_name = "{from: Selector, selector: {matchExpressions: [{key: kubernetes.io/metadata.name, \
                   operator: In, values: [team]}, {key: x, operator: DoesNotExist}]}}";
    assert_eq!(attach(by_name, "").0, 1);
}

#[test]
fn a_mail_listener_refers_to_its_own_namespace_only() {
    let settings = "allowedListeners: {namespaces: {from: All}}";
    let own = "port: 993, tls: {certificateRefs: [{name: t}]}";
    let rendered = once(&(server("", settings) + &tls_secret("t", &["a"]) + &attached("team", "m", own)));
    assert!(messages(&rendered).contains("Secret team/t does not exist"), "{}", messages(&rendered));
}

#[test]
fn a_servers_headers_are_not_sent_to_a_listeners_own_auth_service() {
    let settings = "allowedListeners: {namespaces: {from: All}, backends: {hosts: [b, evil]}}, \
                    auth: {http: {url: 'http://auth/', headers: [{name: X-Key, value: a}]}}";
    let yaml = server("", settings)
        + &attached("team", "same", "port: 143")
        + &attached("team", "own", "port: 1143, protocol: IMAP, auth: {http: {url: 'http://evil/'}}");
    let rendered = once(&yaml);
    let headers = |address: &str| match &socket(&rendered, address).listeners[0].auth {
        Auth::Http(http) => http.headers.len(),
        Auth::Passthrough => panic!(),
    };
    assert_eq!((headers("*:143"), headers("*:1143")), (1, 0));
}

#[test]
fn a_mail_listener_without_its_server_has_a_violation() {
    let rendered = once(&attached("mail", "m", "port: 143"));
    assert!(messages(&rendered).contains("RefNotFound spec.serverRef: MailServer mail/s does not exist"));
}

// --- last good ---

#[test]
fn an_object_that_was_good_keeps_its_last_good_spec() {
    let mut fixture = Fixture::new();
    let good = server(&imap("a", "port: 143"), "") + &attached("mail", "m", "port: 1143, protocol: IMAP");
    let before = fixture.render(&good).snapshot;
    assert_eq!(before.sockets.len(), 2);
    let bad = good.replace("port: 143,", "port: 99999,").replace("port: 143}", "port: 99999}");
    let after = fixture.render(&bad);
    assert_eq!(after.snapshot, before);
    assert!(messages(&after).contains("OutOfRange spec.listeners[a].port"), "{}", messages(&after));
    assert_eq!(after.objects[0].listeners[0].serving, Serving::LastGood);
    assert_eq!(after.objects[0].generation, 2);
    let again = fixture.render(&good);
    assert_eq!(again.objects[0].listeners[0].serving, Serving::Current);
}

#[test]
fn a_listener_that_was_good_keeps_its_last_good_rendering() {
    let mut fixture = Fixture::new();
    let yaml = with_tls(&[("a", "port: 993"), ("b", "port: 143")]);
    let before = fixture.render(&yaml).snapshot;
    let without_secret = yaml.replace("metadata: {name: t,", "metadata: {name: gone,");
    let after = fixture.render(&without_secret);
    assert_eq!(after.snapshot, before);
    assert!(messages(&after).contains("Secret mail/t does not exist"));
    assert_eq!(after.objects[0].listeners[0].serving, Serving::LastGood);
    assert!(Fixture::new().render(&without_secret).snapshot.sockets.is_empty());
}

#[test]
fn a_last_good_rendering_has_current_endpoints_and_certificates() {
    let mut fixture = Fixture::new();
    let listener_yaml =
        "{name: a, port: 993, backendRef: {name: dovecot, port: 143}, timeouts: {client: 5s}}";
    let good = server(listener_yaml, "tls: {certificateRefs: [{name: t}]}") + SERVICE;
    fixture.render(
        &(good.clone() + &tls_secret("t", &["old"]) + &slice("x", "IPv4", "{addresses: [10.0.0.1]}")),
    );
    let bad = good.replace("client: 5s", "client: 0s");
    let later = bad + &tls_secret("t", &["new"]) + &slice("x", "IPv4", "{addresses: [10.0.0.2]}");
    let rendered = fixture.render(&later);
    let kept = listener(&rendered, "a");
    assert_eq!(kept.timeouts.client, Duration::from_secs(5));
    assert_eq!(kept.backend.as_ref().unwrap().endpoints[0].to_string(), "10.0.0.2:10143");
    assert_eq!(kept.tls.as_ref().unwrap().certificates[0].names, ["new"]);
}

#[test]
fn deleted_objects_are_not_kept() {
    let mut fixture = Fixture::new();
    let both = format!("{}, {}", imap("a", "port: 143"), imap("b", "port: 1143"));
    fixture.render(&server(&both, ""));
    assert_eq!(sockets(&fixture.render(&server(&imap("a", "port: 143"), ""))), ["*:143"]);
    assert!(fixture.render("").snapshot.sockets.is_empty());
}

#[test]
fn one_bad_object_never_affects_another() {
    let bad = named_server("bad", "{name: x, port: 143, nonsense: 1}", "");
    let rendered = once(&(bad + &server(&imap("a", "port: 1143"), "")));
    assert_eq!(sockets(&rendered), ["*:1143"]);
    assert!(messages(&rendered).contains("UnknownField spec.listeners[x].nonsense"));
}

#[test]
fn a_render_is_the_same_for_the_same_objects() {
    let mut fixture = Fixture::new();
    let yaml = with_tls(&[("a", "port: 993, hostnames: [a.example]"), ("b", "port: 993")]);
    let (first, second) = (fixture.render(&yaml), fixture.render(&yaml));
    assert_eq!(first.snapshot, second.snapshot);
    assert_eq!(first.objects, second.objects);
}

/// Returns a MailRoute of MailServer `mail/s`.
fn route(namespace: &str, name: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{serverRef: {{name: s, namespace: mail}}, {fields}}}\n"
    )
}

/// Returns a route of these users to an IMAP backend.
fn imap_route(namespace: &str, name: &str, matches: &str, service: &str) -> String {
    let backend = format!("backend: {{services: [{{protocol: IMAP, {service}}}]}}");
    route(namespace, name, &format!("match: {{{matches}}}, {backend}"))
}

fn users(namespace: &str, users: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: moved, namespace: {namespace}}}, data: {{users: {users:?}}}}}\n"
    )
}

/// Returns the reference of the backend to which a login goes.
fn routed(rendered: &Rendered, login: &str) -> String {
    let listener = listener(rendered, "a");
    let Some(routes) = &listener.routes else { return "no routes".to_owned() };
    match routes.find(&routes.rules.of_name(login.as_bytes())) {
        Routing::Route(position, _) => match &routes.destinations[position] {
            Some(destination) => destination.backend.reference.clone(),
            None => "own".to_owned(),
        },
        Routing::Undecided(entry) => format!("undecided {}", entry.id),
        Routing::NoDomain => "no domain".to_owned(),
        Routing::Unmatched => "unmatched".to_owned(),
    }
}

fn of_object<'a>(rendered: &'a Rendered, name: &str) -> &'a ObjectOutcome {
    rendered.objects.iter().find(|object| object.key.name == name).unwrap()
}

fn said(rendered: &Rendered, name: &str) -> Vec<String> {
    of_object(rendered, name).violations.iter().map(ToString::to_string).collect()
}

#[test]
fn routes_send_users_to_their_backends() {
    let yaml = server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
        + &imap_route("mail", "org", "domains: ['*.Example.ORG', example.org]", "address: 'b:1'")
        + &imap_route("mail", "moved", "users: [bob@example.org]", "address: 'c:1'");
    let rendered = once(&yaml);
    assert_eq!(routed(&rendered, "me@example.org"), "b:1");
    assert_eq!(routed(&rendered, "me@x.example.org"), "b:1");
    assert_eq!(routed(&rendered, "bob@example.org"), "c:1");
    assert_eq!(routed(&rendered, "bob@example.com"), "unmatched");
    let route = of_object(&rendered, "org").route.as_ref().unwrap();
    assert_eq!((route.serving, route.entry.domains.len()), (Serving::Current, 2));
}

#[test]
fn passthrough_needs_no_backend_if_routes_are_allowed() {
    let bare = "{name: a, protocol: IMAP, port: 143, tls: {mode: Disabled}}";
    let rendered = once(&server(bare, "allowedRoutes: [{}]"));
    assert_eq!(listener(&rendered, "a").backend, None);
}

#[test]
fn tenants_may_route_the_domains_that_the_owner_allows() {
    let rule = "{namespaces: {from: All}, domains: [a.example, '*.b.example']}";
    let with = |namespace: &str, matches: &str| {
        let pods = service_with_pods(namespace);
        server(&imap("a", "port: 143, tls: {mode: Disabled}"), &format!("allowedRoutes: [{rule}]"))
            + &pods
            + &imap_route(namespace, "r", matches, "name: d, port: 143")
    };
    let rendered = once(&with("tenant", "domains: [a.example, x.b.example, '*.x.b.example']"));
    assert_eq!(said(&rendered, "r"), [""; 0]);
    assert_eq!(routed(&rendered, "me@x.b.example"), "Service tenant/d:143");
    for (matches, field) in [
        (
            "domains: [a.example, b.example]",
            "spec.match.domains[1]: MailServer mail/s allows no routes of this namespace for b.example",
        ),
        ("domains: ['*.example']", "spec.match.domains[0]"),
        (
            "users: [me@c.example]",
            "spec.match.users[0]: MailServer mail/s allows no routes of this namespace for c.example",
        ),
        ("users: [me]", "spec.match.users[0]"),
    ] {
        let rendered = once(&with("tenant", matches));
        let said = said(&rendered, "r");
        assert!(said[0].starts_with(field), "{matches}: {said:?}");
        assert_eq!(of_object(&rendered, "r").violations[0].reason, Reason::DomainNotAllowed);
        assert_eq!(of_object(&rendered, "r").route, None);
    }
    let closed = server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
        + &imap_route("tenant", "r", "domains: [a.example]", "name: d, port: 143");
    assert!(said(&once(&closed), "r")[0].contains("does not allow routes from namespace tenant"));
}

/// A Service `d` with one Pod.
fn service_with_pods(namespace: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: d, namespace: {namespace}}}, \
         spec: {{selector: {{app: d}}, ports: [{{name: imap, port: 143}}]}}}}\n\
         ---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: d-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: d}}}}, \
         ports: [{{name: imap, port: 143}}], endpoints: [{{addresses: [10.0.0.9], \
         targetRef: {{kind: Pod, name: d-0, namespace: {namespace}}}}}]}}\n"
    )
}

#[test]
fn a_list_that_was_never_read_leaves_its_users_undecided_and_keeps_its_last_content_later() {
    let mut fixture = Fixture::new();
    let routes = server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
        + &imap_route("mail", "moved", "usersFrom: [{name: moved, key: users}]", "address: 'c:1'");
    let rendered = fixture.render(&routes);
    assert_eq!(routed(&rendered, "bob@example.org"), "undecided mail/moved");
    assert_eq!(
        said(&rendered, "moved"),
        ["spec.match.usersFrom[0]: ConfigMap mail/moved does not exist; create it, or correct the name"]
    );
    let rendered = fixture.render(&(routes.clone() + &users("mail", "bob@example.org\n\n# x\nal@B\n@c")));
    assert_eq!(routed(&rendered, "bob@example.org"), "c:1");
    assert_eq!(routed(&rendered, "me@example.org"), "unmatched");
    assert!(
        said(&rendered, "moved")[0].contains("line 5 has no name before the @"),
        "{:?}",
        said(&rendered, "moved")
    );
    let rendered = fixture.render(&routes);
    assert_eq!(routed(&rendered, "al@b"), "c:1");
    assert_eq!(of_object(&rendered, "moved").route.as_ref().unwrap().serving, Serving::LastGood);
    let rendered = fixture.render(&routes.replace("key: users", "key: other"));
    assert_eq!(routed(&rendered, "al@b"), "undecided mail/moved", "this is another list");
}

#[test]
fn a_list_whose_key_is_missing_was_never_read_and_one_whose_key_goes_keeps_its_content() {
    let routes = server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
        + &imap_route("mail", "moved", "usersFrom: [{name: moved, key: users}]", "address: 'c:1'");
    let without = routes.clone() + &users("mail", "bob@b").replace("users:", "other:");
    let mut fixture = Fixture::new();
    let rendered = fixture.render(&without);
    assert_eq!(routed(&rendered, "bob@b"), "undecided mail/moved");
    assert!(said(&rendered, "moved")[0].contains("ConfigMap mail/moved has no key users"));
    fixture.render(&(routes + &users("mail", "BOMbob@b\n").replace("BOM", "\u{feff}")));
    assert_eq!(routed(&fixture.render(&without), "bob@b"), "c:1");
}

#[test]
fn a_mistake_in_the_allowed_domains_keeps_the_routes_that_are_served() {
    let yaml = |domain: &str, backend: &str| {
        let allowed = format!("allowedRoutes: [{{domains: [{domain}]}}]");
        server(&imap("a", "port: 143, tls: {mode: Disabled}"), &allowed)
            + &imap_route("mail", "r", "domains: [a.example]", &format!("address: '{backend}'"))
    };
    let mut fixture = Fixture::new();
    assert_eq!(routed(&fixture.render(&yaml("a.example", "b:1")), "me@a.example"), "b:1");
    let rendered = fixture.render(&yaml("a..example", "c:1"));
    assert_eq!(routed(&rendered, "me@a.example"), "b:1");
    assert_eq!(of_object(&rendered, "r").route.as_ref().unwrap().serving, Serving::LastGood);
    assert!(said(&rendered, "r")[0].contains("MailServer mail/s has errors in spec.allowedRoutes"));
    assert_eq!(routed(&fixture.render(&yaml("a.example", "c:1")), "me@a.example"), "c:1");
    assert_eq!(routed(&fixture.render(&yaml("b.example", "c:1")), "me@a.example"), "no routes");
}

#[test]
fn a_conflict_over_many_users_names_some_and_their_number() {
    let list =
        |name: &str| imap_route("mail", name, "usersFrom: [LIST, LIST]", &format!("address: '{name}:1'"));
    let list = |name: &str| list(name).replace("LIST", "{name: moved, key: users}");
    let text: String = (0..1000).map(|number| format!("u{number}@x\n")).collect();
    let rendered = once(
        &(server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
            + &list("a")
            + &list("b")
            + &imap_route("mail", "c", "users: [u7@x, v@x]", "address: 'c:1'")
            + &users("mail", &text)),
    );
    assert_eq!(routed(&rendered, "u7@x"), "a:1");
    assert_eq!(said(&rendered, "a"), [""; 0]);
    let of = |name: &str| said(&rendered, name).concat();
    assert!(of("b").contains("MailRoute mail/a comes first"), "{}", of("b"));
    assert!(of("b").contains("these users: u0@x, u1@x, u2@x and 997 more;"), "{}", of("b"));
    assert!(of("c").contains("these users: u7@x;"), "{}", of("c"));
}

#[test]
fn the_older_of_two_routes_has_a_common_user_or_domain() {
    let old = imap_route("mail", "old", "domains: [a.example], users: [u@x]", "address: 'b:1'");
    let old = old.replace("metadata: {", "metadata: {creationTimestamp: '2026-01-01T00:00:00Z', ");
    let new =
        imap_route("mail", "new", "domains: [A.example., b.example], users: [u@x, v@x]", "address: 'c:1'");
    let new = new.replace("metadata: {", "metadata: {creationTimestamp: '2026-01-02T00:00:00Z', ");
    let rendered = once(&(server(&imap("a", "port: 143, tls: {mode: Disabled}"), "") + &new + &old));
    for (login, backend) in [("me@a.example", "b:1"), ("u@x", "b:1"), ("v@x", "c:1"), ("me@b.example", "c:1")]
    {
        assert_eq!(routed(&rendered, login), backend, "{login}");
    }
    assert_eq!(said(&rendered, "old"), [""; 0]);
    let said = said(&rendered, "new");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].contains(
            "MailRoute mail/old comes first (it is older, or first by name) and has these domains: a.example;"
        ),
        "{said:?}"
    );
    assert!(said[1].contains("has these users: u@x;"), "{said:?}");
}

#[test]
fn a_service_that_cannot_be_used_keeps_its_users_from_other_backends() {
    let mut fixture = Fixture::new();
    let yaml = server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
        + &imap_route("mail", "r", "domains: [a.example]", "name: d, port: 143");
    let rendered = fixture.render(&yaml);
    assert_eq!(routed(&rendered, "me@a.example"), "Service mail/d:143");
    let endpoints = |rendered: &Rendered| {
        let routes = listener(rendered, "a").routes.clone().unwrap();
        routes.destinations[0].as_ref().unwrap().backend.endpoints.len()
    };
    assert_eq!(endpoints(&rendered), 0);
    assert_eq!(endpoints(&fixture.render(&(yaml.clone() + &service_with_pods("mail")))), 1);
    let rendered = fixture.render(&yaml);
    assert_eq!(endpoints(&rendered), 1, "the last endpoints stay");
    assert_eq!(of_object(&rendered, "r").route.as_ref().unwrap().serving, Serving::LastGood);
}

#[test]
fn upstream_settings_of_a_route_override_those_of_the_listener_field_by_field() {
    let settings = "upstream: {smtpAuth: true, proxyProtocol: V1}";
    let backend = "backend: {services: [{protocol: IMAP, address: 'b:1'}], upstream: {proxyProtocol: V2}}";
    let yaml = server(&imap("a", "port: 143, tls: {mode: Disabled}"), settings)
        + &route("mail", "r", &format!("match: {{domains: [a.example]}}, {backend}"))
        + &imap_route("mail", "same", "domains: [b.example]", "address: 'c:1'");
    let rendered = once(&yaml);
    let listener = listener(&rendered, "a");
    let routes = listener.routes.as_ref().unwrap();
    let [one, same] = &routes.destinations[..] else { panic!() };
    let (one, same) = (one.as_ref().unwrap(), same.as_ref().unwrap());
    assert_eq!(one.upstream.proxy_protocol, Some(ProxyVersion::V2));
    assert!(one.upstream.smtp_auth);
    assert!(Arc::ptr_eq(&same.upstream, &listener.upstream));
}

#[test]
fn a_listener_of_another_namespace_has_no_routes() {
    let yaml = server(
        &imap("a", "port: 143, tls: {mode: Disabled}"),
        "allowedListeners: {namespaces: {from: All}, backends: {hosts: [b], networks: [10.0.0.0/8]}}",
    ) + &attached(
        "tenant",
        "foreign",
        "port: 1143, protocol: IMAP, tls: {mode: Disabled}, auth: {passthrough: {}}",
    ) + &attached(
        "mail",
        "own",
        "port: 1144, protocol: IMAP, tls: {mode: Disabled}, auth: {passthrough: {}}",
    ) + &imap_route("mail", "r", "domains: [a.example]", "address: 'b:1'");
    let rendered = once(&yaml);
    let has_routes = |object: &str| {
        let mut all = rendered.snapshot.sockets.values().flat_map(|socket| socket.listeners.iter());
        all.find(|listener| listener.id.object == object).unwrap().routes.is_some()
    };
    assert!(has_routes("s") && has_routes("own") && !has_routes("foreign"));
}
