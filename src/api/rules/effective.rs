//! Rules about what a `MailServer`'s listeners have in the end: their own settings, or else the `MailServer`'s.
//!
//! A `MailListener` inherits from another object, so of that only the renderer can say the same.

use serde_json::Value;

use super::{rule, spoken};

/// Of a `MailServer`'s spec.
pub(super) fn rules() -> Vec<Value> {
    [authentication(), tls(), protocols_and_checks()].concat()
}

fn authentication() -> Vec<Value> {
    vec![
        rule(
            "!has(self.listeners) || has(self.auth) || self.listeners.all(l, has(l.auth))",
            "no authentication is configured for a listener; write auth.http with an auth service, or auth.passthrough: {} \
             to let the backend decide, in spec or in the listener",
        ),
        rule(
            &of_each(&format!(
                "!{} || {} || {}",
                either("auth", "http"),
                names_a_service("l"),
                names_a_service("self")
            )),
            "auth.http names no auth service; write serviceRef or url in it",
        ),
        rule(
            &of_each(&format!(
                "has(l.backendRef) || has(l.backendAddress) || !{}",
                either("auth", "passthrough")
            )),
            "auth.passthrough needs a backend to log in to; name one in backendRef or backendAddress of each listener",
        ),
    ]
}

fn tls() -> Vec<Value> {
    vec![
        rule(
            &of_each(
                "!has(l.hostnames) || (has(l.tls) && has(l.tls.mode)) || !has(self.tls) || !has(self.tls.mode) || \
                 self.tls.mode != 'Disabled'",
            ),
            "hostnames are told apart by TLS's SNI, and the MailServer's tls.mode is Disabled; remove them, or set the \
             listener's tls.mode",
        ),
        rule(
            &of_each(&format!(
                "!has(l.hostnames) || {} != '' || {IS_IMPLICIT} || {}",
                mode(),
                has_certificate()
            )),
            "hostnames are told apart by TLS's SNI, and a listener with hostnames has no certificate; name a Secret in \
             tls.certificateRefs, or remove the host names",
        ),
        rule(
            &of_each(&format!(
                "{} || (({} == '') ? !({IS_IMPLICIT}) : {1} == 'Disabled')",
                has_certificate(),
                mode()
            )),
            "a listener with TLS (by tls.mode, or by its port 465, 993 or 995) has no certificate; name a Secret of type \
             kubernetes.io/tls in tls.certificateRefs, or set tls.mode: Disabled",
        ),
        rule(
            &of_each(&format!(
                "!({} in ['Optional', 'Required']) || {} > 0 || {} == 'Disabled' || ({2} == '' && !({IS_IMPLICIT}) && !{})",
                setting(&["tls", "clientAuth", "mode"], "''"),
                size(&["tls", "clientAuth", "caCertificateRefs"]),
                mode(),
                has_certificate(),
            )),
            "tls.clientAuth.mode verifies client certificates against nothing; name a ConfigMap or Secret with the CA's \
             certificate in tls.clientAuth.caCertificateRefs",
        ),
        rule(
            &of_each(&format!(
                "{} != 'TLSv1.3' || {}",
                setting(&["tls", "minVersion"], "''"),
                setting_as(&["tls", "cipherSuites"], has_suites, "true"),
            )),
            NO_SUITE,
        ),
    ]
}

fn protocols_and_checks() -> Vec<Value> {
    vec![
        rule(
            &of_each(&format!(
                "{} != 'POP3' || !{} || !{}",
                spoken("l"),
                either("auth", "passthrough"),
                setting_as(&["pop3", "authMethods"], |methods| format!("'APOP' in {methods}"), "false")
            )),
            "APOP needs an auth service, and a listener with it has auth.passthrough: its digest cannot be passed through; \
             remove it from pop3.authMethods, or use auth.http",
        ),
        rule(
            &of_each(&format!(
                // A block that says both has a rule of its own.
                "({timeout} && {interval}) || ({} && {} && !({timeout}) && !({interval})) || duration({}) <= duration({})",
                has_check("self", "timeout"),
                has_check("self", "interval"),
                // Where nobody writes it, it is not above the interval.
                check_setting("timeout", "100ms"),
                check_setting("interval", "10s"),
                timeout = has_check("l", "timeout"),
                interval = has_check("l", "interval"),
            )),
            "upstream.healthCheck.timeout of a listener (default 5s) is above its interval (default 10s), so that checks would overlap; \
             lower timeout, or raise interval",
        ),
    ]
}

fn of_each(condition: &str) -> String {
    format!("!has(self.listeners) || self.listeners.all(l, {condition})")
}

/// Whether the listener's block has the field or, where it has no such block, the `MailServer`'s.
fn either(block: &str, field: &str) -> String {
    format!("(has(l.{block}) ? has(l.{block}.{field}) : has(self.{block}) && has(self.{block}.{field}))")
}

fn names_a_service(whose: &str) -> String {
    let http = format!("{whose}.auth.http");
    format!("(has({whose}.auth) && has({http}) && (has({http}.serviceRef) || has({http}.url)))")
}

/// Whether a list of cipher suites has one for TLS 1.3, or none at all.
pub(super) fn has_suites(list: &str) -> String {
    format!(
        "(size({list}) == 0 || {list}.exists(s, s.startsWith('TLS_AES_') || s.startsWith('TLS_CHACHA20_')))"
    )
}

/// What a listener's field is, or the `MailServer`'s, or else the default.
fn setting(path: &[&str], default: &str) -> String {
    setting_as(path, str::to_owned, default)
}

/// What is to be known of that field. It is asked where the field stands, since an API server does not know how long a
/// list is that is one or the other.
fn setting_as(path: &[&str], ask: impl Fn(&str) -> String, default: &str) -> String {
    let of = |whose: &str| {
        let steps = (1..=path.len()).filter_map(|end| path.get(..end));
        let exists: Vec<String> = steps.map(|step| format!("has({whose}.{})", step.join("."))).collect();
        format!("{} ? {}", exists.join(" && "), ask(&format!("{whose}.{}", path.join("."))))
    };
    format!("({} : {} : {default})", of("l"), of("self"))
}

fn size(path: &[&str]) -> String {
    setting_as(path, |list| format!("size({list})"), "0")
}

/// The mode that somebody wrote.
fn mode() -> String {
    setting(&["tls", "mode"], "''")
}

fn has_certificate() -> String {
    format!("({} > 0)", size(&["tls", "certificateRefs"]))
}

const IS_IMPLICIT: &str = "(has(l.port) && l.port in [465, 993, 995])";

pub(super) const NO_SUITE: &str = "tls.minVersion is TLSv1.3, and tls.cipherSuites has only suites of TLSv1.2; add one of \
                                   TLSv1.3, or remove one of the fields";

fn has_check(whose: &str, field: &str) -> String {
    let upstream = format!("{whose}.upstream");
    format!("has({upstream}) && has({upstream}.healthCheck) && has({upstream}.healthCheck.{field})")
}

fn check_setting(field: &str, default: &str) -> String {
    let path = format!("upstream.healthCheck.{field}");
    format!(
        "({} ? l.{path} : {} ? self.{path} : '{default}')",
        has_check("l", field),
        has_check("self", field)
    )
}
