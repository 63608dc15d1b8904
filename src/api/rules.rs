//! The CEL rules of both kinds (`x-kubernetes-validations`), each with the sentence that a user reads.
//!
//! They hold what one object can say about itself without looking elsewhere. What depends on the
//! inheritance from `MailServer` to listener, or on other objects, is the renderer's.

use serde_json::{Value, json};

/// Rules of a listener, whichever kind holds it.
#[must_use]
pub fn listener() -> Value {
    let mut rules = settings_rules();
    rules.extend([
        rule(
            "has(self.port) != self.address.startsWith('unix:')",
            "a listener needs a port, unless its address is unix:/path, which has none",
        ),
        rule(
            "has(self.protocol) || (has(self.port) && self.port in [25, 110, 143, 465, 587, 993, 995])",
            "protocol is required unless port is one of 25, 465, 587 (SMTP), 110, 995 (POP3), 143, 993 (IMAP)",
        ),
        rule(
            "!(has(self.backendRef) && has(self.backendAddress))",
            "backendRef and backendAddress exclude each other; remove one",
        ),
        rule(
            "!(has(self.hostnames) && has(self.tls) && has(self.tls.mode) && self.tls.mode == 'Off')",
            "hostnames are told apart by TLS's SNI; remove them, or set tls.mode to something other than Off",
        ),
    ]);
    Value::Array(rules)
}

/// Rules of a `MailServer`'s spec.
#[must_use]
pub fn server() -> Value {
    let mut rules = settings_rules();
    rules.push(rule(
        "!has(self.listeners) || self.listeners.all(a, has(a.hostnames) || !has(a.port) || \
         self.listeners.exists_one(b, !has(b.hostnames) && has(b.port) && b.port == a.port && b.address == a.address))",
        "two listeners have one address and port and no hostnames; give one of them another port or address, or \
         hostnames of its own",
    ));
    Value::Array(rules)
}

/// Rules of `allowedListeners.namespaces`.
#[must_use]
pub fn namespaces() -> Value {
    json!([rule(
        "has(self.selector) == (self.from == 'Selector')",
        "selector goes with from: Selector, and only with it",
    )])
}

/// Rules of `allowedListeners.backends`.
#[must_use]
pub fn backends() -> Value {
    let octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
    let ipv4 = format!("({octet}[.]){{3}}{octet}(/(3[0-2]|[12]?[0-9]))?");
    let ipv6 = "[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?";
    json!([rule(
        &format!("!has(self.networks) || self.networks.all(n, n.matches('^({ipv4}|{ipv6})$'))"),
        "networks has something that is no network; write a network such as 10.1.2.0/24 or fd00::/64, or an address",
    )])
}

/// Rules of `auth`.
#[must_use]
pub fn auth() -> Value {
    json!([rule("has(self.http) != has(self.passthrough)", "auth has exactly one of http and passthrough",)])
}

/// Rules of `auth.http`.
#[must_use]
pub fn http_auth() -> Value {
    json!([
        rule("!(has(self.serviceRef) && has(self.url))", "serviceRef and url exclude each other; remove one",),
        rule(
            "!(has(self.serviceRef) && has(self.caCertificateRefs))",
            "caCertificateRefs is for an https url; a serviceRef is reached by plain http",
        ),
    ])
}

/// Rules of one extra header.
#[must_use]
pub fn header() -> Value {
    json!([rule("has(self.value) != has(self.valueFrom)", "a header has exactly one of value and valueFrom")])
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

/// Rules of `resolver`.
#[must_use]
pub fn resolver() -> Value {
    json!([rule(
        "!(has(self.ipv4) && !self.ipv4 && has(self.ipv6) && !self.ipv6)",
        "a resolver needs one of ipv4 and ipv6",
    )])
}

/// Rules of `clientAuth`.
#[must_use]
pub fn client_auth() -> Value {
    json!([rule(
        "!(has(self.crlRefs) && has(self.mode) && self.mode == 'Off')",
        "crlRefs without client certificates have no meaning; remove them, or set mode",
    )])
}

fn settings_rules() -> Vec<Value> {
    vec![rule(
        "!(has(self.auth) && has(self.auth.passthrough) && has(self.pop3) && has(self.pop3.authMethods) \
         && 'APOP' in self.pop3.authMethods)",
        "APOP needs an auth service: its digest cannot be passed through; remove it from pop3.authMethods, or \
         use auth.http",
    )]
}

fn not_listed(method: &str, message: &str) -> Value {
    rule(
        &format!("!has(self.authMethods) || !('{method}' in self.authMethods)"),
        &format!("{message}; remove it from authMethods"),
    )
}

fn rule(expression: &str, message: &str) -> Value {
    json!({ "rule": expression, "message": message })
}
