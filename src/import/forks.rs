//! Recognises directives of nginx's forks. nginx refuses them, but the operator needs to know the equivalent in
//! Mailgress.

use super::problem::Note;
use super::tree::Directive;

/// Returns the note about a fork's directive in `mail {}`.
pub(super) fn of_mail(directive: &Directive) -> Option<Note> {
    let name = directive.name();
    let note = |program: &str, remedy: &str| {
        Some(directive.note(format!("\"{name}\" is a directive of {program} and is omitted; {remedy}")))
    };
    if let Some((_, remedy)) = ZIMBRA.iter().find(|(names, _)| names.contains(&name)) {
        return note("Zimbra's nginx", remedy);
    }
    if let Some((_, remedy)) = ZIMBRA_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return note("Zimbra's nginx", remedy);
    }
    let (_, program, remedy) = OTHERS.iter().find(|(known, _, _)| *known == name)?;
    note(program, remedy)
}

/// Returns the note about a fork's block outside of `mail {}` that its mail proxy depends on.
pub(super) fn of_the_main_level(directive: &Directive) -> Option<Note> {
    let name = directive.name();
    let is_zimbras = matches!(name, "zm_lookup" | "memcache") && directive.block.is_some();
    is_zimbras
        .then(|| directive.note(format!("\"{name}\" is a block of Zimbra's nginx and is omitted; {LOOKUP}")))
}

const LOOKUP: &str = "an auth service (auth.http) names the backend of each login";
const THROTTLE: &str = "set limits.authFailures and limits.maxConnectionsPerClient";
const GSSAPI: &str = "Kerberos (GSSAPI) is not supported";
const MASTER: &str =
    "configure the auth service to answer with Auth-User and Auth-Pass of the backend's master user";
const GREETING: &str = "the greeting cannot be changed";

/// Directives of Zimbra (and of its fork Carbonio), with the remedy.
const ZIMBRA: &[(&[&str], &str)] = &[
    (&["auth_wait"], "configure the auth service to answer with Auth-Wait"),
    (&["default_realm", "sasl_app_name", "sasl_service_name", "sasl_host_from_ip"], GSSAPI),
    (&["master_auth_username", "master_auth_password"], MASTER),
    (&["imap_greeting", "pop3_greeting"], GREETING),
    (&["imap_id", "proxy_issue_imap_id"], "set upstream.imapId"),
    (&["imap_literalauth"], "backends get logins as literals in any case"),
    (&["proxy_issue_pop3_xoip"], "XOIP is not sent; set upstream.proxyProtocol"),
    (&["proxy_ctimeout"], "set timeouts.connect"),
    (&["pop3_client_buffer"], "set limits.clientBuffer"),
];

/// Prefixes of Zimbra's directives.
const ZIMBRA_PREFIXES: &[(&str, &str)] = &[
    ("mail_login_", THROTTLE),
    ("mail_throttle_", THROTTLE),
    ("mail_whitelist_", THROTTLE),
    ("memcache_", LOOKUP),
    ("zm_lookup", LOOKUP),
    ("proxy_ssl", "set upstream.tls"),
];

/// Directives of others: the name, the program and the remedy.
const OTHERS: &[(&str, &str, &str)] = &[
    ("so_keepalive", "an old nginx", "set so_keepalive=on in each listen"),
    ("auth", "an old nginx", "use imap_auth, pop3_auth or smtp_auth"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::directives::DIRECTIVES;

    #[test]
    fn no_directive_of_nginx_or_angie_is_called_somebody_elses() {
        let is_ours = |name: &str| DIRECTIVES.iter().any(|known| known.name == name);
        let named = ZIMBRA.iter().flat_map(|(names, _)| names.iter().copied());
        let others = OTHERS.iter().map(|(name, _, _)| *name);
        assert!(!named.chain(others).any(is_ours));
        let begins = |name: &str| ZIMBRA_PREFIXES.iter().any(|(prefix, _)| name.starts_with(prefix));
        assert!(!DIRECTIVES.iter().any(|known| begins(known.name)));
    }
}
