//! Rules about the effective settings of a `MailServer`'s listeners: their own settings, or else the `MailServer`'s.
//!
//! A `MailListener` inherits from another object, so only the renderer can check the same for it.

use serde_json::Value;

use super::{protocol_of, rule};

/// Returns the rules of a `MailServer`'s spec.
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
                has_auth_service("l"),
                has_auth_service("self")
            )),
            "auth.http names no auth service; set serviceRef or url",
        ),
        rule(
            &format!(
                "has(self.allowedRoutes) || {}",
                of_each_in_parentheses(&format!(
                    "has(l.backendRef) || has(l.backendAddress) || !{}",
                    either("auth", "passthrough")
                ))
            ),
            "auth.passthrough needs a backend to log in to; name one in backendRef or backendAddress of each listener, or \
             set allowedRoutes, and MailRoutes name the backends",
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
            "hostnames need TLS, which sends them as SNI, and the MailServer's tls.mode is Disabled; remove them, or set the \
             listener's tls.mode",
        ),
        rule(
            &of_each(&format!(
                "!has(l.hostnames) || {} != '' || {IS_IMPLICIT} || {}",
                mode(),
                has_certificate()
            )),
            "hostnames need TLS, which sends them as SNI, and a listener with hostnames has no certificate; name a Secret in \
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
            "tls.clientAuth.mode needs tls.clientAuth.caCertificateRefs; set it to a ConfigMap or Secret with the CA's \
             certificate",
        ),
        rule(
            &of_each(&format!(
                "{} != 'TLSv1.3' || {}",
                setting(&["tls", "minVersion"], "''"),
                expression_of_setting(&["tls", "cipherSuites"], has_suites, "true"),
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
                protocol_of("l"),
                either("auth", "passthrough"),
                expression_of_setting(
                    &["pop3", "authMethods"],
                    |methods| format!("'APOP' in {methods}"),
                    "false"
                )
            )),
            "APOP needs auth.http, but a listener with APOP has auth.passthrough, which cannot relay its digest; remove \
             APOP from pop3.authMethods, or use auth.http",
        ),
        rule(
            &of_each(&format!(
                // If one object sets both fields, the rule of `healthCheck` applies instead.
                "({timeout} && {interval}) || ({} && {} && !({timeout}) && !({interval})) || duration({}) <= duration({})",
                has_check("self", "timeout"),
                has_check("self", "interval"),
                // A timeout that is not set never exceeds the interval.
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

fn of_each_in_parentheses(condition: &str) -> String {
    format!("({})", of_each(condition))
}

fn of_each(condition: &str) -> String {
    format!("!has(self.listeners) || self.listeners.all(l, {condition})")
}

/// Returns a CEL expression: whether the listener's block has the field or, if the listener has no such block, the
/// `MailServer`'s.
fn either(block: &str, field: &str) -> String {
    format!("(has(l.{block}) ? has(l.{block}.{field}) : has(self.{block}) && has(self.{block}.{field}))")
}

fn has_auth_service(object: &str) -> String {
    let http = format!("{object}.auth.http");
    format!("(has({object}.auth) && has({http}) && (has({http}.serviceRef) || has({http}.url)))")
}

/// Returns a CEL expression: whether a list of cipher suites is empty or has one for TLS 1.3.
pub(super) fn has_suites(list: &str) -> String {
    format!(
        "(size({list}) == 0 || {list}.exists(s, s.startsWith('TLS_AES_') || s.startsWith('TLS_CHACHA20_')))"
    )
}

/// Returns a CEL expression for a field of the listener, or else of the `MailServer`, or else the default.
fn setting(path: &[&str], default: &str) -> String {
    expression_of_setting(path, str::to_owned, default)
}

/// The same for an expression about the field. The expression is repeated in each branch, because an API server cannot
/// estimate the length of a list that is the result of `?:`.
fn expression_of_setting(path: &[&str], expression: impl Fn(&str) -> String, default: &str) -> String {
    let of = |object: &str| {
        let steps = (1..=path.len()).filter_map(|end| path.get(..end));
        let exists: Vec<String> = steps.map(|step| format!("has({object}.{})", step.join("."))).collect();
        format!("{} ? {}", exists.join(" && "), expression(&format!("{object}.{}", path.join("."))))
    };
    format!("({} : {} : {default})", of("l"), of("self"))
}

fn size(path: &[&str]) -> String {
    expression_of_setting(path, |list| format!("size({list})"), "0")
}

/// Returns a CEL expression for the configured mode, or `''`.
fn mode() -> String {
    setting(&["tls", "mode"], "''")
}

fn has_certificate() -> String {
    format!("({} > 0)", size(&["tls", "certificateRefs"]))
}

const IS_IMPLICIT: &str = "(has(l.port) && l.port in [465, 993, 995])";

pub(super) const NO_SUITE: &str = "tls.minVersion is TLSv1.3, and tls.cipherSuites has only suites of TLSv1.2; add one of \
                                   TLSv1.3, or remove one of the fields";

fn has_check(object: &str, field: &str) -> String {
    let upstream = format!("{object}.upstream");
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
