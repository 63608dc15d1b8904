//! What a listener needs of its socket: an address, host names, and the settings that all listeners of a socket share.
//!
//! A claim is known before the listener can be served: the place of a listener that waits for a Secret is reserved.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Hostname, InboundProxyProtocol, Limits, Listener, ListenerId, Resolver, Socket, Timeouts, TlsMode,
};
use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::{FrontendConfig, Protocol, SmtpRules};

/// The claim of one listener. Equal claims conflict with the same others, for the same reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub id: ListenerId,
    /// Where the socket is bound.
    pub address: ListenAddress,
    /// How the socket is made.
    pub options: SocketOptions,
    /// The protocol spoken.
    pub protocol: Protocol,
    /// When TLS begins.
    pub tls_mode: TlsMode,
    /// A PROXY header on every connection.
    pub proxy_protocol: Option<InboundProxyProtocol>,
    /// Names it answers to by SNI; empty: all.
    pub hostnames: Vec<Hostname>,
    /// What must be equal on a socket where SNI comes with STARTTLS.
    pub before_sni: BeforeSni,
}

/// The settings that have an effect before SNI tells which listener the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeSni {
    /// What is said and accepted before the login.
    pub frontend: Arc<FrontendConfig>,
    /// Bounds.
    pub limits: Limits,
    /// `timeouts.client`.
    pub client_timeout: Duration,
    /// `timeouts.announce`.
    pub announces_timeout: bool,
    /// `smtp.greetingDelay`.
    pub greeting_delay: Duration,
    /// SMTP looks up the client's name before its greeting.
    pub resolver: Option<Arc<Resolver>>,
}

/// A claim with the listener, once that can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// What it needs of its socket.
    pub claim: Claim,
    /// `None` while something that it refers to is pending: its place is reserved, and nothing is served.
    pub listener: Option<Arc<Listener>>,
}

impl Claim {
    /// The socket that it needs, with nobody behind it yet.
    pub(crate) fn socket(&self) -> Socket {
        Socket {
            address: self.address.clone(),
            options: self.options.clone(),
            protocol: self.protocol,
            tls_mode: self.tls_mode,
            proxy_protocol: self.proxy_protocol.clone(),
            listeners: Vec::new(),
        }
    }
}

impl BeforeSni {
    /// Of a listener's settings.
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

    /// The field that differs first, for messages. Each field must be compared here: the patterns name all of them.
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
        // It follows from the socket's TLS mode.
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

/// The names of fields that each protocol has for itself.
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
        };
        Self { capabilities, methods, password_logins }
    }
}
