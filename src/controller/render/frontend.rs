//! What a listener announces and accepts before the login.

use crate::api::Settings;
use crate::api::settings::{self as api, AuthMethod};
use crate::model::TlsMode;
use crate::protocol::{CountedErrors, FrontendConfig, Mechanism, Protocol, SmtpRules, StartTlsOffer};

use super::super::violation::Violation;
use super::Environment;
use super::scope::Scope;

/// The frontend's configuration; `kind` is the protocol, the TLS mode, and whether logins are passed
/// through.
pub(crate) fn render(
    scope: &Scope<'_>,
    settings: &Settings,
    kind: (Protocol, TlsMode, bool),
    environment: &Environment,
    found: &mut Vec<Violation>,
) -> FrontendConfig {
    let (protocol, tls_mode, passthrough) = kind;
    let mechanisms = mechanisms(settings, protocol);
    let block = block_name(protocol);
    check_mechanisms(&scope.setting(&format!("{block}.authMethods")), kind, &mechanisms, found);
    let limits = settings.limits.as_ref();
    FrontendConfig {
        protocol,
        server_name: settings.server_name.clone().unwrap_or_else(|| environment.hostname.clone()),
        capabilities: capabilities(settings, protocol),
        mechanisms,
        start_tls: match tls_mode {
            TlsMode::Disabled | TlsMode::Implicit => StartTlsOffer::Disabled,
            TlsMode::StartTls => StartTlsOffer::Optional,
            TlsMode::RequireStartTls => StartTlsOffer::Required,
        },
        relay_sasl: passthrough,
        max_errors: limits.and_then(|limits| limits.max_errors).unwrap_or(5),
        counted_errors: match limits.and_then(|limits| limits.counted_errors) {
            None | Some(api::CountedErrors::All) => CountedErrors::All,
            Some(api::CountedErrors::Syntax) => CountedErrors::Syntax,
        },
        max_commands: limits.and_then(|limits| limits.max_commands).unwrap_or(1000),
        max_auth_failures: limits.and_then(|limits| limits.max_auth_failures).unwrap_or(10),
        smtp: smtp_rules(settings, protocol),
    }
}

/// Those of other protocols are equal, whatever the block says.
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

fn capabilities(settings: &Settings, protocol: Protocol) -> Vec<String> {
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
    path: &str,
    (protocol, _, passthrough): (Protocol, TlsMode, bool),
    mechanisms: &[Mechanism],
    found: &mut Vec<Violation>,
) {
    let has = |mechanism| mechanisms.contains(&mechanism);
    let mut refuse =
        |problem: &str| found.push(Violation::invalid(path, problem, "remove it from authMethods"));
    if has(Mechanism::Apop) && protocol != Protocol::Pop3 {
        refuse("APOP exists in POP3 only");
    }
    if has(Mechanism::None) && protocol != Protocol::Smtp {
        refuse("NONE exists in SMTP only");
    }
    if has(Mechanism::Apop) && passthrough {
        refuse("APOP needs an auth service: its digest cannot be passed through");
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
