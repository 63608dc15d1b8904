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
    let block = Block::of(settings, protocol);
    let mechanisms = block.mechanisms();
    check_mechanisms(
        scope,
        &scope.setting(&format!("{}.authMethods", block_name(protocol))),
        kind,
        &mechanisms,
    );
    let limits = settings.limits.as_ref();
    let defaults = FrontendConfig::default();
    let config = FrontendConfig {
        protocol,
        server_name: settings.server_name.clone().unwrap_or_else(|| environment.hostname.clone()),
        capabilities: capabilities(scope, &block, protocol),
        mechanisms,
        password_logins: block.password_logins(),
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
        let user: Vec<String> = block
            .capabilities
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
fn capabilities(scope: &Scope<'_>, block: &Block<'_>, protocol: Protocol) -> Vec<String> {
    let mut ignored = Vec::new();
    let kept = block.capabilities().into_iter().filter_map(|capability| {
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

/// The settings block of one protocol, with its defaults.
struct Block<'a> {
    capabilities: Option<&'a [String]>,
    auth_methods: Option<&'a [AuthMethod]>,
    password_logins: Option<api::PasswordLogins>,
    default_capabilities: &'static [&'static str],
    default_methods: &'static [AuthMethod],
}

/// Reads the fields that every block has.
macro_rules! block {
    ($settings:expr, $capabilities:expr, $methods:expr) => {{
        let block = $settings.as_ref();
        Block {
            capabilities: block.and_then(|block| block.capabilities.as_deref()),
            auth_methods: block.and_then(|block| block.auth_methods.as_deref()),
            password_logins: block.and_then(|block| block.password_logins),
            default_capabilities: $capabilities,
            default_methods: $methods,
        }
    }};
}

impl<'a> Block<'a> {
    fn of(settings: &'a Settings, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Imap => block!(settings.imap, &["IMAP4", "IMAP4rev1", "UIDPLUS"], &[AuthMethod::Plain]),
            Protocol::Pop3 => block!(settings.pop3, &["TOP", "USER", "UIDL"], &[AuthMethod::Plain]),
            Protocol::Smtp => block!(settings.smtp, &[], &[AuthMethod::Plain, AuthMethod::Login]),
            Protocol::Sieve => block!(settings.sieve, &PIGEONHOLE, &[AuthMethod::Plain]),
        }
    }

    fn capabilities(&self) -> Vec<String> {
        let default = || self.default_capabilities.iter().map(|&name| name.to_owned()).collect();
        self.capabilities.map_or_else(default, <[String]>::to_vec)
    }

    fn password_logins(&self) -> PasswordLogins {
        match self.password_logins {
            None | Some(api::PasswordLogins::Listed) => PasswordLogins::Listed,
            Some(api::PasswordLogins::Always) => PasswordLogins::Always,
        }
    }

    fn mechanisms(&self) -> Vec<Mechanism> {
        let methods = self.auth_methods.unwrap_or(self.default_methods);
        let mut mechanisms: Vec<Mechanism> = methods.iter().map(|method| mechanism(*method)).collect();
        mechanisms.sort_unstable();
        mechanisms.dedup();
        mechanisms
    }
}

/// What Dovecot Pigeonhole 0.5 announces before the login without further settings.
const PIGEONHOLE: [&str; 4] = [
    "IMPLEMENTATION Dovecot Pigeonhole",
    "SIEVE fileinto reject envelope encoded-character vacation subaddress comparator-i;ascii-numeric relational \
     regex imap4flags copy include body variables enotify environment mailbox date index ihave duplicate mime \
     foreverypart extracttext",
    "NOTIFY mailto",
    "VERSION 1.0",
];

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
