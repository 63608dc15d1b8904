//! Services and their endpoints, external names, and ports.

use super::*;
use crate::model::Auth;

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
