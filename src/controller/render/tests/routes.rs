//! MailRoutes: where they send users, who may attach them, and lists that were never read.

use super::*;
use crate::controller::reason::Reason;
use crate::model::routes::Routing;
use crate::protocol::proxy_header::ProxyVersion;

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
fn a_pod_that_is_taken_out_of_service_leaves_the_backends_of_listeners_and_routes() {
    let mut fixture = Fixture::new();
    let listener =
        "{name: a, protocol: IMAP, port: 143, tls: {mode: Disabled}, backendRef: {name: d, port: 143}}";
    let yaml = server(listener, "")
        + &imap_route("mail", "org", "domains: [a.example]", "name: d, port: 143")
        + &service_with_pods("mail");
    let pod = |name: &str, namespace: &str, drain: &str| {
        let metadata = format!(
            "{{name: {name}, namespace: {namespace}, annotations: {{mailgress.dev/drain: '{drain}'}}}}"
        );
        format!("---\n{{apiVersion: v1, kind: Pod, metadata: {metadata}}}\n")
    };
    let staying = yaml.clone() + &pod("d-0", "other", "true") + &pod("d-0", "mail", "false");
    for (text, endpoints, leaving) in
        [(&staying, 1, 0), (&(yaml.clone() + &pod("d-0", "mail", "true")), 0, 1), (&yaml, 1, 0)]
    {
        let rendered = fixture.render(text);
        let listener = rendered.snapshot.sockets.values().next().unwrap().listeners.default();
        let destination = listener.routes.as_ref().unwrap().destinations[0].as_ref().unwrap();
        for backend in [listener.backend.as_ref().unwrap(), &destination.backend] {
            assert_eq!((backend.endpoints.len(), backend.leaving.len()), (endpoints, leaving));
        }
        let warned = said(&rendered, "org").join(" ");
        assert_eq!(
            warned.contains("Pod d-0 of Service mail/d with the annotation"),
            leaving == 1,
            "{warned}"
        );
        assert_eq!(warned.contains("remove the annotation mailgress.dev/drain"), leaving == 1, "{warned}");
    }
}

#[test]
fn exclusive_users_without_a_list_of_replicas_are_a_warning() {
    let mut fixture = Fixture { lacks_replicas: true, ..Fixture::new() };
    let with = |mode: &str| {
        server(&imap("a", "port: 143, tls: {mode: Disabled}"), "")
            + &imap_route("mail", "org", "domains: [a.example]", "address: 'b:1'")
                .replace("backend: {", &format!("backend: {{affinity: {{mode: {mode}}}, "))
    };
    assert_eq!(said(&fixture.render(&with("User")), "org"), Vec::<String>::new());
    let warned = "spec.backend.affinity.mode: Exclusive holds only within each replica of Mailgress, because --replicas is \
                  not set; set --replicas to the Service that selects all replicas, or run only one";
    assert_eq!(said(&fixture.render(&with("Exclusive")), "org"), [warned]);
    fixture.lacks_replicas = false;
    assert_eq!(said(&fixture.render(&with("Exclusive")), "org"), Vec::<String>::new());
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
