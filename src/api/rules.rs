//! The CEL rules of all kinds (`x-kubernetes-validations`), each with its error message.
//!
//! They check what depends on one object alone. The renderer checks what depends on other objects, such as the settings
//! that a `MailListener` inherits.

mod effective;
pub mod forms;

use serde_json::{Value, json};

/// Rules of a listener of a `MailServer`.
#[must_use]
pub fn listener() -> Value {
    Value::Array(listener_rules())
}

/// Rules of a `MailListener`'s spec.
#[must_use]
pub fn mail_listener() -> Value {
    let mut rules = listener_rules();
    rules.push(rule(
        "!(has(self.auth) && has(self.auth.passthrough)) || has(self.backendRef) || has(self.backendAddress)",
        "auth.passthrough needs a backend to log in to; name one in backendRef or backendAddress",
    ));
    rules.push(rule(
        "!has(self.tls) || !has(self.tls.mode) || self.tls.mode == 'Disabled' || !has(self.tls.certificateRefs) || \
         size(self.tls.certificateRefs) > 0",
        "TLS needs a certificate, and tls.certificateRefs is empty; name a Secret of type kubernetes.io/tls there, remove \
         it to have the MailServer's, or set tls.mode: Disabled",
    ));
    Value::Array(rules)
}

fn listener_rules() -> Vec<Value> {
    let mut rules = settings_rules();
    rules.extend(PROTOCOLS.map(|(protocol, _)| of_protocol(protocol)));
    rules.extend([
        rule(
            "has(self.port) != self.address.startsWith('unix:')",
            "a listener needs a port, unless its address is unix:/path, which has none; add port, or remove it",
        ),
        rule(
            &format!("has(self.protocol) || (has(self.port) && self.port in [{}])", PROTOCOLS.map(|(_, ports)| ports).join(", ")),
            &format!(
                "protocol is required unless port is one of {}; add it",
                PROTOCOLS.map(|(protocol, ports)| format!("{ports} ({protocol})")).join(", ")
            ),
        ),
        rule(
            "!(has(self.backendRef) && has(self.backendAddress))",
            "backendRef and backendAddress exclude each other; remove one",
        ),
        rule(
            "!(has(self.hostnames) && has(self.tls) && has(self.tls.mode) && self.tls.mode == 'Disabled')",
            "hostnames need TLS, which sends them as SNI; remove them, or set tls.mode to something other than Disabled",
        ),
    ]);
    rules
}

/// Allows the settings of a protocol only on a listener of that protocol.
fn of_protocol(protocol: &str) -> Value {
    let block = protocol.to_ascii_lowercase();
    rule(
        &format!("!has(self.{block}) || {} == '{protocol}'", protocol_of("self")),
        &format!(
            "{block} is for {protocol}, but this listener has another protocol; remove it, or move it to the \
             MailServer's spec, where it is for its {protocol} listeners"
        ),
    )
}

/// Returns a CEL expression for a listener's protocol: the configured one, or the default for its port.
fn protocol_of(listener: &str) -> String {
    let of_port =
        PROTOCOLS.map(|(name, ports)| format!("{listener}.port in [{ports}] ? '{name}' : ")).concat();
    format!("(has({listener}.protocol) ? {listener}.protocol : !has({listener}.port) ? '' : {of_port}'')")
}

/// Rules of a `MailServer`'s spec.
#[must_use]
pub fn server() -> Value {
    let mut rules = settings_rules();
    rules.push(rule(
        "!has(self.listeners) || self.listeners.all(a, has(a.hostnames) || !has(a.port) || \
         self.listeners.exists_one(b, !has(b.hostnames) && has(b.port) && b.port == a.port && b.address == a.address))",
        "two listeners have the same address and port and no hostnames; give one of them another port or \
         address, or set its hostnames",
    ));
    rules.extend(effective::rules());
    Value::Array(rules)
}

/// Rules of `allowedListeners.namespaces`.
#[must_use]
pub fn namespaces() -> Value {
    json!([rule(
        "has(self.selector) == (self.from == 'Selector')",
        "selector is required with from: Selector and not allowed with other values; add or remove selector, or correct from",
    )])
}

/// Rules of a `MailRoute`'s `match`.
#[must_use]
pub fn route_match() -> Value {
    json!([rule(
        "has(self.domains) || has(self.users) || has(self.usersFrom)",
        "match has no users; set domains, users or usersFrom"
    )])
}

/// Rules of a `MailRoute`'s backend for one protocol.
#[must_use]
pub fn route_service() -> Value {
    json!([
        rule(
            "has(self.name) != has(self.address)",
            "a backend has exactly one of name and address; set one of them",
        ),
        rule(
            "has(self.name) == has(self.port)",
            "name and port belong to a Service; set both of them, or only address"
        ),
    ])
}

/// Rules of a `MailRoute`'s affinity.
#[must_use]
pub fn route_affinity() -> Value {
    json!([rule(
        "self.mode == 'Exclusive' || !(has(self.group) || has(self.moveTimeout) || has(self.grace) || has(self.returnGrace))",
        "group, moveTimeout, grace and returnGrace are for mode: Exclusive; remove them, or set the mode",
    )])
}

/// Rules of one requirement on labels.
#[must_use]
pub fn requirement() -> Value {
    json!([rule(
        "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
        "In and NotIn need values, Exists and DoesNotExist have none; correct operator or values",
    )])
}

/// Rules of `upstream.healthCheck`.
#[must_use]
pub fn health_check() -> Value {
    json!([rule(
        "!has(self.timeout) || !has(self.interval) || duration(self.timeout) <= duration(self.interval)",
        "timeout is above interval, so that checks would overlap; lower timeout, or raise interval",
    )])
}

/// Rules of `limits`.
#[must_use]
pub fn limits() -> Value {
    json!([rule(
        "!has(self.maxConnections) || !has(self.maxConnectionsPerClient) || \
         self.maxConnectionsPerClient <= self.maxConnections",
        "maxConnectionsPerClient must not be larger than maxConnections; lower it, or raise maxConnections",
    )])
}

/// Rules of `auth`.
#[must_use]
pub fn auth() -> Value {
    json!([rule(
        "has(self.http) != has(self.passthrough)",
        "auth has exactly one of http and passthrough; set one of them"
    )])
}

/// Rules of `auth.http`.
#[must_use]
pub fn http_auth() -> Value {
    json!([
        rule("!(has(self.serviceRef) && has(self.url))", "serviceRef and url exclude each other; remove one",),
        rule(
            "!(has(self.serviceRef) && has(self.caCertificateRefs))",
            "caCertificateRefs is for an https url, and a serviceRef is reached by plain http; remove it, or use url \
             instead of serviceRef",
        ),
    ])
}

/// Rules of an additional header. The schema's pattern refuses the other control characters.
#[must_use]
pub fn header() -> Value {
    json!([
        rule(
            "has(self.value) != has(self.valueFrom)",
            "a header has exactly one of value and valueFrom; set one of them"
        ),
        rule(
            "!has(self.value) || !self.value.matches('[\\r\\n]')",
            "value contains a line break; write it as one line",
        ),
    ])
}

/// Rules of the source of a header's value.
#[must_use]
pub fn header_source() -> Value {
    let text = "valueFrom has neither or both of secretKeyRef and session; set exactly one of them";
    json!([rule("has(self.secretKeyRef) != has(self.session)", text)])
}

/// Rules of `imap`.
#[must_use]
pub fn imap() -> Value {
    json!([not_listed("APOP", "APOP exists in POP3 only"), not_listed("NONE", "NONE exists in SMTP only")])
}

/// Rules of `pop3`.
#[must_use]
pub fn pop3() -> Value {
    json!([not_listed("NONE", "NONE exists in SMTP only")])
}

/// Rules of `smtp`.
#[must_use]
pub fn smtp() -> Value {
    json!([not_listed("APOP", "APOP exists in POP3 only")])
}

/// Rules of `sieve`.
#[must_use]
pub fn sieve() -> Value {
    imap()
}

/// Rules of `resolver`.
#[must_use]
pub fn resolver() -> Value {
    json!([rule(
        "!(has(self.ipv4) && !self.ipv4 && has(self.ipv6) && !self.ipv6)",
        "a resolver needs one of ipv4 and ipv6; leave one of them on",
    )])
}

/// Rules of `tls`.
#[must_use]
pub fn tls() -> Value {
    json!([rule(
        &format!(
            "!has(self.minVersion) || self.minVersion != 'TLSv1.3' || !has(self.cipherSuites) || {}",
            effective::has_suites("self.cipherSuites")
        ),
        effective::NO_SUITE,
    )])
}

/// Rules of `clientAuth`.
#[must_use]
pub fn client_auth() -> Value {
    json!([rule(
        "!(has(self.crlRefs) && has(self.mode) && self.mode == 'Disabled')",
        "crlRefs need client certificates; set mode to Optional or Required, or remove crlRefs",
    )])
}

fn settings_rules() -> Vec<Value> {
    vec![rule(
        "!(has(self.auth) && has(self.auth.passthrough) && has(self.pop3) && has(self.pop3.authMethods) \
         && 'APOP' in self.pop3.authMethods)",
        "APOP needs auth.http, because passthrough cannot relay its digest; remove APOP from pop3.authMethods, or \
         use auth.http",
    )]
}

fn not_listed(method: &str, message: &str) -> Value {
    rule(
        &format!("!has(self.authMethods) || !('{method}' in self.authMethods)"),
        &format!("{message}; remove it from authMethods"),
    )
}

/// The protocols and their standard ports.
const PROTOCOLS: [(&str, &str); 4] =
    [("SMTP", "25, 465, 587"), ("POP3", "110, 995"), ("IMAP", "143, 993"), ("Sieve", "4190")];

fn rule(expression: &str, message: &str) -> Value {
    json!({ "rule": expression, "message": message })
}
