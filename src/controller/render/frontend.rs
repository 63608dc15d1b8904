//! Renders the settings of the protocol before the login.

use crate::api::settings::{self as api, AuthMethod};
use crate::api::{Settings, limits};
use crate::controller::violation::{Notice, Violation};
use crate::model::TlsMode;
use crate::protocol::{
    CountedErrors, FrontendConfig, Mechanism, OwnExtensions, PasswordLogins, Protocol, SmtpRules,
    StartTlsOffer, own_extensions,
};

use super::Environment;
use super::scope::Scope;

/// Renders the configuration. `kind` has the protocol, the TLS mode, and whether logins are passed through.
pub(crate) fn render(
    scope: &Scope<'_>,
    settings: &Settings,
    kind: (Protocol, TlsMode, bool),
    environment: &Environment,
) -> FrontendConfig {
    let (protocol, tls_mode, passthrough) = kind;
    let mechanisms = mechanisms(settings, protocol);
    let block = block_name(protocol);
    check_mechanisms(scope, &scope.setting(&format!("{block}.authMethods")), kind, &mechanisms);
    let limits = settings.limits.as_ref();
    let password_logins = password_logins(settings, protocol);
    let defaults = FrontendConfig::default();
    let config = FrontendConfig {
        protocol,
        server_name: settings.server_name.clone().unwrap_or_else(|| environment.hostname.clone()),
        capabilities: capabilities(scope, settings, protocol),
        mechanisms,
        password_logins,
        start_tls: match tls_mode {
            TlsMode::Disabled | TlsMode::Implicit => StartTlsOffer::Disabled,
            TlsMode::StartTls => StartTlsOffer::Optional,
            TlsMode::RequireStartTls => StartTlsOffer::Required,
        },
        relay_sasl: passthrough,
        max_errors: limits.and_then(|limits| limits.max_errors).unwrap_or(defaults.max_errors),
        counted_errors: match limits.and_then(|limits| limits.counted_errors) {
            None => defaults.counted_errors,
            Some(limits::CountedErrors::All) => CountedErrors::All,
            Some(limits::CountedErrors::Syntax) => CountedErrors::Syntax,
        },
        max_commands: limits.and_then(|limits| limits.max_commands).unwrap_or(defaults.max_commands),
        max_auth_failures: limits
            .and_then(|limits| limits.max_auth_failures)
            .unwrap_or(defaults.max_auth_failures),
        smtp: smtp_rules(settings, protocol),
    };
    if protocol == Protocol::Pop3 && !config.takes_passwords() {
        let configured = settings.pop3.as_ref().and_then(|pop3| pop3.capabilities.as_deref());
        let user: Vec<String> = configured
            .unwrap_or_default()
            .iter()
            .filter(|name| name.eq_ignore_ascii_case("USER"))
            .cloned()
            .collect();
        ignore(scope, protocol, &user);
    }
    config
}

/// Listeners of other protocols have the defaults, so that the block does not make them differ.
fn smtp_rules(settings: &Settings, protocol: Protocol) -> SmtpRules {
    match settings.smtp.as_ref().filter(|_| protocol == Protocol::Smtp) {
        None => SmtpRules::default(),
        Some(smtp) => SmtpRules {
            anonymous_before_tls: smtp.anonymous_before_tls.unwrap_or(false),
            strict_sequence: smtp.strict_sequence.unwrap_or(false),
        },
    }
}

fn block_name(protocol: Protocol) -> &'static str {
    protocol.name()
}

/// Returns the listed capabilities, without those that Mailgress announces itself.
fn capabilities(scope: &Scope<'_>, settings: &Settings, protocol: Protocol) -> Vec<String> {
    let mut ignored = Vec::new();
    let kept = listed_capabilities(settings, protocol).into_iter().filter_map(|capability| {
        let OwnExtensions { kept, own } = own_extensions(protocol, &capability);
        ignored.extend(own);
        kept
    });
    let kept = kept.collect();
    ignore(scope, protocol, &ignored);
    kept
}

fn ignore(scope: &Scope<'_>, protocol: Protocol, ignored: &[String]) {
    if ignored.is_empty() {
        return;
    }
    let written: Vec<String> = ignored.iter().map(|capability| format!("{capability:?}")).collect();
    scope.report(Violation::notice(
        Notice::CapabilityIgnored,
        &scope.setting(&format!("{}.capabilities", block_name(protocol))),
        format!(
            "Mailgress announces these capabilities itself, so they are ignored here: {}",
            written.join(", ")
        ),
        "remove them from the list; authMethods and tls determine what is announced",
    ));
}

fn listed_capabilities(settings: &Settings, protocol: Protocol) -> Vec<String> {
    let (configured, default): (_, &[&str]) = match protocol {
        Protocol::Imap => (
            settings.imap.as_ref().and_then(|imap| imap.capabilities.clone()),
            &["IMAP4", "IMAP4rev1", "UIDPLUS"],
        ),
        Protocol::Pop3 => {
            (settings.pop3.as_ref().and_then(|pop3| pop3.capabilities.clone()), &["TOP", "USER", "UIDL"])
        }
        Protocol::Smtp => (settings.smtp.as_ref().and_then(|smtp| smtp.capabilities.clone()), &[]),
    };
    configured.unwrap_or_else(|| default.iter().map(|&name| name.to_owned()).collect())
}

fn password_logins(settings: &Settings, protocol: Protocol) -> PasswordLogins {
    let configured = match protocol {
        Protocol::Imap => settings.imap.as_ref().and_then(|imap| imap.password_logins),
        Protocol::Pop3 => settings.pop3.as_ref().and_then(|pop3| pop3.password_logins),
        Protocol::Smtp => settings.smtp.as_ref().and_then(|smtp| smtp.password_logins),
    };
    match configured {
        None | Some(api::PasswordLogins::Listed) => PasswordLogins::Listed,
        Some(api::PasswordLogins::Always) => PasswordLogins::Always,
    }
}

fn mechanisms(settings: &Settings, protocol: Protocol) -> Vec<Mechanism> {
    let (configured, default): (_, &[AuthMethod]) = match protocol {
        Protocol::Imap => {
            (settings.imap.as_ref().and_then(|imap| imap.auth_methods.clone()), &[AuthMethod::Plain])
        }
        Protocol::Pop3 => {
            (settings.pop3.as_ref().and_then(|pop3| pop3.auth_methods.clone()), &[AuthMethod::Plain])
        }
        Protocol::Smtp => (
            settings.smtp.as_ref().and_then(|smtp| smtp.auth_methods.clone()),
            &[AuthMethod::Plain, AuthMethod::Login],
        ),
    };
    let mut mechanisms: Vec<Mechanism> =
        configured.as_deref().unwrap_or(default).iter().map(|method| mechanism(*method)).collect();
    mechanisms.sort_unstable();
    mechanisms.dedup();
    mechanisms
}

fn check_mechanisms(
    scope: &Scope<'_>,
    path: &str,
    (protocol, _, passthrough): (Protocol, TlsMode, bool),
    mechanisms: &[Mechanism],
) {
    let has = |mechanism| mechanisms.contains(&mechanism);
    let refuse =
        |problem: &str| scope.report(Violation::invalid(path, problem, "remove it from authMethods"));
    if has(Mechanism::Apop) && protocol != Protocol::Pop3 {
        refuse("APOP exists in POP3 only");
    }
    if has(Mechanism::None) && protocol != Protocol::Smtp {
        refuse("NONE exists in SMTP only");
    }
    if has(Mechanism::Apop) && passthrough {
        refuse("APOP needs auth.http, because passthrough cannot relay its digest");
    }
}

fn mechanism(method: AuthMethod) -> Mechanism {
    match method {
        AuthMethod::Plain => Mechanism::Plain,
        AuthMethod::Login => Mechanism::Login,
        AuthMethod::Apop => Mechanism::Apop,
        AuthMethod::CramMd5 => Mechanism::CramMd5,
        AuthMethod::External => Mechanism::External,
        AuthMethod::XOAuth2 => Mechanism::XOAuth2,
        AuthMethod::OAuthBearer => Mechanism::OAuthBearer,
        AuthMethod::None => Mechanism::None,
    }
}
