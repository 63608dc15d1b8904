//! Tests of the limits of listeners in other namespaces, from YAML to the model.

use std::fmt::Write;

use serde_json::Value;

use crate::api::crd::{crds, schema_of};
use crate::controller::render::Serving;
use crate::controller::render::oracle::Rendered;
use crate::controller::render::tests::{Fixture, messages, once, server};
use crate::model::{Auth, Introductions, Listener, Reach};

use super::OF_THE_OWNERS_SERVICE;

/// Returns the MailServer `mail/s`, which accepts listeners of all namespaces and allows them `backends`.
fn owner(backends: &str, settings: &str) -> String {
    let backends = if backends.is_empty() { String::new() } else { format!(", backends: {{{backends}}}") };
    let more = if settings.is_empty() { String::new() } else { format!(", {settings}") };
    server("", &format!("allowedListeners: {{namespaces: {{from: All}}{backends}}}{more}"))
}

/// Returns the MailListener `team/m`.
fn guest(fields: &str) -> String {
    listener("team", fields)
}

fn listener(namespace: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: mailgress.dev/v1alpha1\nkind: MailListener\n\
         metadata: {{name: m, namespace: {namespace}}}\n\
         spec: {{serverRef: {{name: s, namespace: mail}}, port: 143, tls: {{mode: Disabled}}, {fields}}}\n"
    )
}

/// Returns the Service `team/d` with the ports 143 and 25, and an EndpointSlice with these endpoints.
fn service(spec: &str, endpoints: &[&str]) -> String {
    let mut yaml = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: d, namespace: team}}\n\
         spec: {{{spec}, ports: [{{name: imap, port: 143}}, {{name: smtp, port: 25}}]}}\n"
    );
    writeln!(
        yaml,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: d-1, namespace: team, labels: {{kubernetes.io/service-name: d}}}}\n\
         addressType: IPv4\nports: [{{name: imap, port: 10143}}, {{name: smtp, port: 10025}}]\n\
         endpoints: [{}]",
        endpoints.join(", ")
    )
    .unwrap();
    yaml
}

const SELECTOR: &str = "selector: {app: dovecot}, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7]";
const POD: &str = "{addresses: [10.1.0.1], targetRef: {kind: Pod, namespace: team, name: d-0}}";
const FOREIGN_POD: &str = "{addresses: [10.1.0.2], targetRef: {kind: Pod, namespace: mail, name: postfix-0}}";
const UNKNOWN_ENDPOINT: &str = "{addresses: [10.1.0.3]}";
const TO_SERVICE: &str = "backendRef: {name: d, port: 143}";

fn served(rendered: &Rendered) -> Option<&Listener> {
    rendered.snapshot.sockets.values().flat_map(|socket| &socket.listeners).next().map(|listener| &**listener)
}

fn endpoints(rendered: &Rendered) -> Vec<String> {
    let backend = served(rendered).unwrap().backend.as_ref().unwrap();
    backend.endpoints.iter().map(ToString::to_string).collect()
}

fn own(rendered: &Rendered) -> Vec<String> {
    let Reach::Within(bounds) = &served(rendered).unwrap().reach else { panic!("it has no bounds") };
    bounds.own.iter().map(ToString::to_string).collect()
}

#[test]
fn a_foreign_listener_does_not_name_a_backend_by_its_address() {
    for address in
        ["10.1.0.2:25", "postfix.mail.svc:25", "127.0.0.1:25", "169.254.169.254:80", "unix:/run/lmtp"]
    {
        let rendered = once(&(owner("", "") + &guest(&format!("backendAddress: '{address}'"))));
        assert!(served(&rendered).is_none(), "{address} is served");
        let messages = messages(&rendered);
        let expected = format!(
            "BackendNotAllowed spec.backendAddress: an object of namespace team may not connect to {address}: "
        );
        assert!(messages.starts_with(&expected) && messages.contains("MailServer mail/s"), "{messages}");
        assert!(messages.contains("spec.allowedListeners.backends"), "{messages}");
    }
}

#[test]
fn the_owner_allows_networks_and_hosts() {
    let allowed = |backends: &str, address: &str| {
        let rendered = once(&(owner(backends, "") + &guest(&format!("backendAddress: '{address}'"))));
        served(&rendered).is_some()
    };
    assert!(allowed("networks: [10.1.0.0/24]", "10.1.0.2:25"));
    assert!(!allowed("networks: [10.1.0.0/24]", "10.1.1.2:25"));
    assert!(!allowed("networks: [0.0.0.0/0]", "127.0.0.1:9090"));
    assert!(!allowed("networks: [0.0.0.0/0]", "unix:/run/lmtp"));
    assert!(allowed("hosts: ['*.example.com']", "imap.example.com:993"));
    assert!(!allowed("hosts: ['*.example.com']", "imap.example.org:993"));
    // The addresses of the name are checked before the connection.
    assert!(allowed("networks: [10.1.0.0/24]", "imap.example.org:993"));
}

#[test]
fn a_listener_in_the_namespace_of_its_server_connects_to_anything() {
    let rendered = once(&(owner("", "") + &listener("mail", "backendAddress: 'unix:/run/lmtp'")));
    assert_eq!((&served(&rendered).unwrap().reach, messages(&rendered)), (&Reach::Anywhere, String::new()));
    let own = "{name: a, port: 143, tls: {mode: Disabled}, backendAddress: '127.0.0.1:143', \
               upstream: {proxyProtocol: V1, imapId: true}}";
    let rendered = once(&server(own, ""));
    assert_eq!((&served(&rendered).unwrap().reach, messages(&rendered)), (&Reach::Anywhere, String::new()));
}

#[test]
fn pods_of_its_own_services_are_a_foreign_listeners_backends() {
    let rendered = once(&(owner("", "") + &guest(TO_SERVICE) + &service(SELECTOR, &[POD])));
    assert_eq!(
        (endpoints(&rendered), messages(&rendered)),
        (vec!["10.1.0.1:10143".to_owned()], String::new())
    );
    // An auth service may return the Pod's address or the Service's cluster IP.
    assert_eq!(own(&rendered), ["10.1.0.1:10025", "10.1.0.1:10143", "10.96.0.7:25", "10.96.0.7:143"]);
}

#[test]
fn endpoints_that_are_not_pods_of_the_namespace_are_removed() {
    let with =
        |spec: &str, endpoints: &[&str]| owner("", "") + &guest(TO_SERVICE) + &service(spec, endpoints);
    let rendered = once(&with(SELECTOR, &[POD, FOREIGN_POD, UNKNOWN_ENDPOINT]));
    assert_eq!(endpoints(&rendered), ["10.1.0.1:10143"]);
    assert_eq!(
        own(&rendered),
        ["10.1.0.1:10025", "10.1.0.1:10143"],
        "the cluster IP leads to the others, too"
    );
    let messages_of = messages(&rendered);
    assert!(
        messages_of.starts_with("BackendNotAllowed spec.backendRef: Service team/d:143 has endpoints that"),
        "{messages_of}"
    );
    assert!(messages_of.contains("10.1.0.2:10143, 10.1.0.3:10143; "), "{messages_of}");
    // Anyone may write the endpoints of a Service without a selector.
    let rendered = once(&with("clusterIP: 10.96.0.7", &[POD, FOREIGN_POD]));
    assert!(endpoints(&rendered).is_empty() && own(&rendered).is_empty(), "{}", messages(&rendered));
    let loopback = POD.replace("10.1.0.1", "127.0.0.1");
    let rendered = once(&with(SELECTOR, &[&loopback]));
    assert!(endpoints(&rendered).is_empty(), "no Pod has a loopback address");
}

#[test]
fn the_owner_may_allow_endpoints_of_any_kind() {
    let yaml = owner("networks: [10.1.0.2]", "")
        + &guest(TO_SERVICE)
        + &service(SELECTOR, &[FOREIGN_POD, UNKNOWN_ENDPOINT]);
    assert_eq!(endpoints(&once(&yaml)), ["10.1.0.2:10143"]);
}

#[test]
fn an_external_name_is_checked_like_an_address() {
    let external = "type: ExternalName, externalName: postfix.mail.svc";
    let rendered = once(&(owner("", "") + &guest(TO_SERVICE) + &service(external, &[POD])));
    assert!(endpoints(&rendered).is_empty() && own(&rendered).is_empty());
    assert!(messages(&rendered).contains("postfix.mail.svc:143"), "{}", messages(&rendered));
    let allowing = owner("hosts: [postfix.mail.svc]", "") + &guest(TO_SERVICE) + &service(external, &[]);
    assert_eq!(endpoints(&once(&allowing)), ["postfix.mail.svc:143"]);
}

#[test]
fn the_auth_service_of_a_foreign_listener_has_the_same_bounds() {
    let of = |backends: &str, http: &str| {
        let fields = format!("auth: {{http: {{{http}}}}}, {TO_SERVICE}");
        once(&(owner(backends, "") + &guest(&fields) + &service(SELECTOR, &[POD])))
    };
    for url in [
        "http://10.1.0.2:8080/",
        "http://kubernetes.default.svc/",
        "http://169.254.169.254/",
        "unix:/run/a:/",
    ] {
        let rendered = of("", &format!("url: '{url}'"));
        assert!(served(&rendered).is_none(), "{url}");
        assert!(
            messages(&rendered).starts_with("BackendNotAllowed spec.auth.http.url: "),
            "{}",
            messages(&rendered)
        );
    }
    for (backends, http) in [
        ("networks: [10.1.0.2]", "url: 'http://10.1.0.2:8080/'"),
        ("hosts: [auth.example.com]", "url: 'https://auth.example.com/'"),
        ("", "serviceRef: {name: d, port: 143}"),
    ] {
        let rendered = of(backends, http);
        let Auth::Http(auth) = &served(&rendered).unwrap().auth else { panic!("{}", messages(&rendered)) };
        assert_eq!((auth.endpoints.len(), &auth.reach), (1, &served(&rendered).unwrap().reach), "{http}");
    }
}

#[test]
fn a_foreign_listener_may_use_the_servers_auth_service() {
    let auth = "auth: {http: {url: 'http://10.9.0.1:9000/'}}";
    let rendered = once(&(owner("", auth) + &guest(TO_SERVICE) + &service(SELECTOR, &[POD])));
    let listener = served(&rendered).unwrap();
    let Auth::Http(http) = &listener.auth else { panic!("{}", messages(&rendered)) };
    assert_eq!(http.reach, Reach::Anywhere);
    assert!(matches!(listener.reach, Reach::Within(_)), "its answers are bound all the same");
}

#[test]
fn a_foreign_listener_with_introductions_gets_a_warning() {
    let of = |backends: &str, settings: &str, fields: &str| {
        let yaml = owner(backends, settings) + &guest(fields) + &service(SELECTOR, &[POD]);
        let messages = messages(&once(&yaml));
        messages.lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = "backendRef: {name: d, port: 143}, upstream: {proxyProtocol: V2, imapId: true, xclient: true}";
    let imap =
        ["IntroductionNotAllowed spec.upstream.proxyProtocol", "IntroductionNotAllowed spec.upstream.imapId"];
    assert_eq!(of("", "", all), imap);
    assert_eq!(of("introductions: Never", "", all), imap);
    let smtp = format!("{all}, protocol: SMTP");
    let smtp_messages = [
        "IntroductionNotAllowed spec.upstream.proxyProtocol",
        "IntroductionNotAllowed spec.upstream.xclient",
    ];
    assert_eq!(of("", "", &smtp), smtp_messages);
    let inherited = "IntroductionNotAllowed MailServer mail/s spec.upstream.proxyProtocol";
    assert_eq!(of("", "upstream: {proxyProtocol: V1}", TO_SERVICE), [inherited]);
    assert!(of("", "", TO_SERVICE).is_empty(), "nobody asked");
    assert!(of("introductions: OwnServices", "", all).is_empty());
    assert!(of("introductions: Always", "", all).is_empty());
    let elsewhere = all.replace(TO_SERVICE, "backendAddress: '10.5.0.1:143'");
    assert_eq!(of("introductions: OwnServices, networks: [10.5.0.1]", "", &elsewhere), imap);
    let rendered =
        once(&(owner("introductions: Always", "") + &guest(TO_SERVICE) + &service(SELECTOR, &[POD])));
    let Reach::Within(bounds) = &served(&rendered).unwrap().reach else { panic!() };
    assert_eq!(bounds.introductions, Introductions::Always);
}

#[test]
fn a_foreign_listener_does_not_choose_the_name_servers() {
    let fields = format!("{TO_SERVICE}, resolver: {{nameservers: [10.1.0.1]}}");
    let rendered = once(&(owner("networks: [10.1.0.1]", "") + &guest(&fields) + &service(SELECTOR, &[POD])));
    assert!(served(&rendered).is_none());
    assert!(
        messages(&rendered).starts_with("BackendNotAllowed spec.resolver.nameservers: "),
        "{}",
        messages(&rendered)
    );
    let timeout = fields.replace("nameservers: [10.1.0.1]", "timeout: 5s");
    let of_server = "resolver: {nameservers: [10.96.0.10]}";
    let rendered = once(&(owner("", of_server) + &guest(&timeout) + &service(SELECTOR, &[POD])));
    assert_eq!(messages(&rendered), "");
}

#[test]
fn a_foreign_listener_does_not_change_settings_of_the_servers_auth_service() {
    let own = "url: 'http://10.1.0.9/', ";
    let of = |place: &str, http: &str, tls: &str| {
        let fields = format!("auth: {{http: {{{place}{http}}}}}, {TO_SERVICE}");
        let fields = fields.replace("auth: {http: {}}, ", "") + tls;
        let auth = "auth: {http: {url: 'http://10.9.0.1:9000/'}}";
        let yaml = owner("networks: [10.1.0.9]", auth) + &guest(&fields) + &service(SELECTOR, &[POD]);
        let messages = messages(&once(&yaml));
        messages.lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (http, field) in [
        ("headers: [{name: Auth-User, value: bob}]", "auth.http.headers"),
        ("acceptAnyStatus: true", "auth.http.acceptAnyStatus"),
        ("passClientCertificate: true", "auth.http.passClientCertificate"),
    ] {
        assert_eq!(of("", http, ""), [format!("BackendNotAllowed spec.{field}")]);
        assert!(of(own, http, "").is_empty(), "{field} of its own service");
    }
    // With EXTERNAL, the owner of this CA's key could log in as any user.
    let ca = ", tls: {clientAuth: {mode: Optional, caCertificateRefs: [{name: ca}]}}";
    let fields = format!("port: 993, {TO_SERVICE}{ca}");
    let yaml = owner("", "auth: {http: {url: 'http://10.9.0.1:9000/'}}") + &guest(&fields);
    let yaml = yaml.replace("port: 143, tls: {mode: Disabled}, ", "");
    let messages = messages(&once(&(yaml + &service(SELECTOR, &[POD]))));
    assert!(messages.contains("BackendNotAllowed spec.tls.clientAuth.caCertificateRefs: "), "{messages}");
    // The owner requires client certificates and limits the failures.
    for (settings, field) in [
        ("tls: {clientAuth: {mode: Disabled}}", "tls.clientAuth.mode"),
        ("limits: {authFailures: {count: 1000}}", "limits.authFailures"),
        ("limits: {maxAuthFailures: 1000}", "limits.maxAuthFailures"),
    ] {
        let yaml = owner("", "auth: {http: {url: 'http://10.9.0.1:9000/'}}");
        let yaml = yaml + &guest(&format!("{TO_SERVICE}, {settings}")) + &service(SELECTOR, &[POD]);
        let yaml =
            if settings.starts_with("tls") { yaml.replace("tls: {mode: Disabled}, ", "") } else { yaml };
        let messages = self::messages(&once(&yaml));
        assert!(messages.contains(&format!("BackendNotAllowed spec.{field}: ")), "{messages}");
    }
}

#[test]
fn a_foreign_listener_does_not_get_the_servers_client_certificate() {
    let settings = "upstream: {tls: {mode: Implicit, clientCertificateRef: {name: mine}}}";
    let of = |backends: &str| {
        let yaml = owner(backends, settings) + &guest(TO_SERVICE) + &service(SELECTOR, &[POD]);
        messages(&once(&yaml)).contains("Secret mail/mine does not exist")
    };
    assert!(!of("") && !of("introductions: OwnServices"), "it is not looked for");
    assert!(of("introductions: Always"));
}

#[test]
fn a_backend_that_is_no_longer_allowed_is_not_served() {
    let mut fixture = Fixture::new();
    let guest = guest("backendAddress: '10.1.0.2:25', protocol: SMTP");
    assert!(served(&fixture.render(&(owner("networks: [10.1.0.2]", "") + &guest))).is_some());
    let rendered = fixture.render(&(owner("", "") + &guest));
    assert!(served(&rendered).is_none(), "{}", messages(&rendered));
    assert_eq!(rendered.objects[1].listeners[0].serving, Serving::Nothing);
}

#[test]
fn a_last_good_rendering_has_the_current_bounds() {
    let mut fixture = Fixture::new();
    let backends = |networks: &str| format!("networks: [{networks}]");
    let auth = "auth: {http: {url: 'http://10.1.0.3:80/'}}, backendRef: {name: d, port: 143}";
    let good =
        guest(&format!("{auth}, timeouts: {{client: 5s}}")) + &service(SELECTOR, &[POD, UNKNOWN_ENDPOINT]);
    let bad = good.replace("client: 5s", "client: 0s");
    assert!(messages(&fixture.render(&(owner(&backends("10.1.0.3, 10.1.0.9"), "") + &good))).is_empty());
    let rendered = fixture.render(&(owner(&backends("10.1.0.3"), "") + &bad));
    let Reach::Within(bounds) = &served(&rendered).unwrap().reach else { panic!() };
    assert_eq!(bounds.networks.len(), 1);
    assert_eq!(rendered.objects[1].listeners[0].serving, Serving::LastGood);
    let Auth::Http(http) = &served(&rendered).unwrap().auth else { panic!() };
    assert_eq!(http.reach, served(&rendered).unwrap().reach);
}

#[test]
fn an_invalid_network_allows_nothing_and_is_reported() {
    let rendered =
        once(&(owner("networks: ['1:2:3']", "") + &guest("backendAddress: '10.1.0.2:25', protocol: SMTP")));
    let messages = messages(&rendered);
    assert!(
        messages.contains("Invalid spec.allowedListeners.backends.networks: one of these is not a network"),
        "{messages}"
    );
    assert!(served(&rendered).is_none());
}

#[test]
fn a_new_setting_is_the_owners_or_anybodys() {
    let [_, listener, _] = crds().map(|crd| schema_of(&crd)["properties"]["spec"].clone());
    let mut undecided = Vec::new();
    undecided_in(&listener, "", &mut undecided);
    assert!(
        undecided.is_empty(),
        "may a listener of another namespace set {undecided:?} and use the MailServer's auth service? If it changes which \
         logins are accepted, add it to OF_THE_OWNERS_SERVICE, otherwise to ANYBODYS"
    );
}

fn undecided_in(schema: &Value, prefix: &str, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().unwrap() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if OF_THE_OWNERS_SERVICE.contains(&&*path) || ANYBODYS.split(' ').any(|free| free == path) {
            continue;
        }
        match field["properties"].is_object() {
            true => undecided_in(field, &path, found),
            false => found.push(path),
        }
    }
}

/// Settings that do not change which logins an auth service accepts, and fields that only a listener has.
const ANYBODYS: &str = "address auth.http.caCertificateRefs auth.http.keepAlive auth.http.serviceRef auth.http.timeout auth.http.url \
     auth.passthrough backendAddress backendRef hostnames imap limits.clientBuffer limits.countedErrors \
     limits.exempt limits.maxCommands limits.maxConnections limits.maxConnectionsPerClient limits.maxErrors pop3 \
     port protocol proxyProtocol resolver serverName serverRef sieve smtp socket timeouts tls.certificateRefs \
     tls.cipherSuites tls.minVersion tls.mode tls.sessionCache tls.sessionTickets upstream";
