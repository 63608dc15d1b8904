//! Protocols, TLS modes, settings with their defaults and inheritance, and what the schema cannot check.

use std::time::Duration;

use super::*;
use crate::model::{Auth, AuthProof, TlsMode, TrustAnchors, UntrustedPeers, UpstreamTls};
use crate::net::BackendAddress;
use crate::protocol::backend::XclientNegotiation;
use crate::protocol::{CountedErrors, Mechanism, Protocol, SmtpRules, StartTlsOffer};

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
