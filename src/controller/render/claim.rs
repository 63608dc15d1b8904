//! What a listener needs from its socket: an address, host names, and the settings that all listeners of a socket
//! share.
//!
//! A claim is known before the listener can be served, so the socket of a listener that waits for a Secret can be
//! reserved.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Hostname, InboundProxyProtocol, Limits, Listener, ListenerId, Listeners, Resolver, Socket, Timeouts,
    TlsMode,
};
use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::{FrontendConfig, Protocol, SmtpRules};

/// The claim of one listener. Equal claims conflict with the same other claims, for the same reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The listener.
    pub id: ListenerId,
    /// The address of the socket.
    pub address: ListenAddress,
    /// The options of the socket.
    pub options: SocketOptions,
    /// The protocol.
    pub protocol: Protocol,
    /// When TLS starts.
    pub tls_mode: TlsMode,
    /// The expected PROXY header.
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// The host names (SNI). Empty for all names.
    pub hostnames: Vec<Hostname>,
    /// The settings that must be equal on a socket with STARTTLS.
    pub before_sni: BeforeSni,
}

/// The settings with an effect before SNI selects a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeSni {
    /// The settings of the protocol before the login.
    pub frontend: Arc<FrontendConfig>,
    /// The limits.
    pub limits: Limits,
    /// `timeouts.client`.
    pub client_timeout: Duration,
    /// `timeouts.announce`.
    pub announces_timeout: bool,
    /// `smtp.greetingDelay`.
    pub greeting_delay: Duration,
    /// The resolver for clients' names, which SMTP looks up before its greeting.
    pub resolver: Option<Arc<Resolver>>,
}

/// A claim, with the listener if it can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The claim.
    pub claim: Claim,
    /// `None` while a reference is pending: the socket is reserved, and nothing is served.
    pub listener: Option<Arc<Listener>>,
}

impl Claim {
    /// Returns the socket with these listeners.
    pub(crate) fn socket(&self, listeners: Listeners) -> Socket {
        Socket {
            address: self.address.clone(),
            options: self.options.clone(),
            protocol: self.protocol,
            tls_mode: self.tls_mode,
            proxy_protocol: self.proxy_protocol.clone(),
            listeners,
        }
    }
}

impl BeforeSni {
    /// Selects the settings of a listener.
    pub(crate) fn new(
        frontend: &Arc<FrontendConfig>,
        limits: &Limits,
        timeouts: &Timeouts,
        greeting_delay: Duration,
        resolver: &Arc<Resolver>,
    ) -> Self {
        Self {
            frontend: Arc::clone(frontend),
            limits: limits.clone(),
            client_timeout: timeouts.client,
            announces_timeout: timeouts.announce,
            greeting_delay,
            resolver: (frontend.protocol == Protocol::Smtp).then(|| Arc::clone(resolver)),
        }
    }

    /// Returns the first field that differs, for messages. The patterns list all fields, so that a new one is not
    /// forgotten.
    pub(crate) fn difference(&self, other: &Self) -> Option<&'static str> {
        let Self { frontend, limits, client_timeout, announces_timeout, greeting_delay, resolver } = self;
        if let Some(field) = frontend_difference(frontend, &other.frontend) {
            return Some(field);
        }
        first([
            ("limits", *limits == other.limits),
            ("timeouts.client", *client_timeout == other.client_timeout),
            ("timeouts.announce", *announces_timeout == other.announces_timeout),
            ("smtp.greetingDelay", *greeting_delay == other.greeting_delay),
            ("resolver", *resolver == other.resolver),
        ])
    }
}

fn frontend_difference(ours: &FrontendConfig, theirs: &FrontendConfig) -> Option<&'static str> {
    let FrontendConfig {
        protocol,
        server_name,
        capabilities,
        mechanisms,
        password_logins,
        // This follows from the socket's TLS mode.
        start_tls: _,
        relay_sasl,
        max_errors,
        counted_errors,
        max_commands,
        max_auth_failures,
        smtp,
    } = ours;
    let SmtpRules { anonymous_before_tls, strict_sequence } = smtp;
    let names = Names::of(*protocol);
    first([
        ("serverName", *server_name == theirs.server_name),
        (names.capabilities, *capabilities == theirs.capabilities),
        (names.methods, *mechanisms == theirs.mechanisms),
        (names.password_logins, *password_logins == theirs.password_logins),
        ("auth", *relay_sasl == theirs.relay_sasl),
        ("limits.maxErrors", *max_errors == theirs.max_errors),
        ("limits.countedErrors", *counted_errors == theirs.counted_errors),
        ("limits.maxCommands", *max_commands == theirs.max_commands),
        ("limits.maxAuthFailures", *max_auth_failures == theirs.max_auth_failures),
        ("smtp.anonymousBeforeTLS", *anonymous_before_tls == theirs.smtp.anonymous_before_tls),
        ("smtp.strictSequence", *strict_sequence == theirs.smtp.strict_sequence),
    ])
}

fn first<const N: usize>(fields: [(&'static str, bool); N]) -> Option<&'static str> {
    fields.into_iter().find(|(_, equal)| !equal).map(|(field, _)| field)
}

/// The names of the fields that each protocol has.
struct Names {
    capabilities: &'static str,
    methods: &'static str,
    password_logins: &'static str,
}

impl Names {
    fn of(protocol: Protocol) -> Self {
        let [capabilities, methods, password_logins] = match protocol {
            Protocol::Imap => ["imap.capabilities", "imap.authMethods", "imap.passwordLogins"],
            Protocol::Pop3 => ["pop3.capabilities", "pop3.authMethods", "pop3.passwordLogins"],
            Protocol::Smtp => ["smtp.capabilities", "smtp.authMethods", "smtp.passwordLogins"],
            Protocol::Sieve => ["sieve.capabilities", "sieve.authMethods", "sieve.passwordLogins"],
        };
        Self { capabilities, methods, password_logins }
    }
}
