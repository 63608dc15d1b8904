//! Rules about what a `MailServer`'s listeners have in the end: their own settings, or else the `MailServer`'s.
//!
//! A `MailListener` inherits from another object, so of that only the renderer can say the same.

use serde_json::Value;

use super::rule;

/// Of a `MailServer`'s spec.
pub(super) fn rules() -> Vec<Value> {
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
