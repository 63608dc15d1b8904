//! The settings blocks. On a `MailServer` they apply to all its listeners. The fields of a listener override them one
//! by one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::AuthSettings;
use super::common::Duration;
use super::limits::LimitSettings;
use super::rules;
use super::tls::{TlsSettings, UpstreamTls};

/// Settings of a `MailServer`, for all its listeners, or of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// The server's own name in greetings, SASL challenges and EHLO. Default: the host name of the machine or pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// TLS between clients and Mailgress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// How logins are checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// How Mailgress connects to backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSettings>,
    /// Settings for IMAP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::imap()))]
    pub imap: Option<ProtocolSettings>,
    /// Settings for POP3 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::pop3()))]
    pub pop3: Option<ProtocolSettings>,
    /// Settings for SMTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::smtp()))]
    pub smtp: Option<SmtpSettings>,
    /// Settings for ManageSieve only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::sieve()))]
    pub sieve: Option<SieveSettings>,
    /// DNS lookups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ResolverSettings>,
    /// Timeouts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutSettings>,
    /// Limits for clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitSettings>,
}

/// How Mailgress connects to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamSettings {
    /// TLS between Mailgress and the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// Send a PROXY protocol header as the first bytes of each backend connection: `Disabled`, `V1` (text) or `V2`
    /// (binary). Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// SMTP: send the client's address, name and login to the backend with XCLIENT. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xclient: Option<bool>,
    /// When XCLIENT is sent. `Auto`: only the attributes that the backend offers in its EHLO reply; a backend without
    /// XCLIENT gets none. `Always`: ADDR, LOGIN and NAME without checking the offer, as nginx does; if the backend
    /// rejects them, the session ends. Default: `Auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xclient_negotiation: Option<XclientNegotiation>,
    /// SMTP: the name in EHLO and HELO to the backend. `Client`: the name that the client sent, so that `Received`
    /// headers show it even if the backend does not support XCLIENT; `serverName` if the client sent none. If the
    /// backend rejects the client's name (5yz), `serverName` is sent instead. `Own`: always `serverName`, as nginx does.
    /// Default: `Client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ehlo_name: Option<EhloName>,
    /// SMTP: log in to the backend with AUTH. With `auth.passthrough` this is always done. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_auth: Option<bool>,
    /// IMAP: send the client's address to the backend with the ID command (RFC 2971) if the backend offers ID, together
    /// with the ID fields that the client sent before its login. A client's fields that begin with `x-` are removed.
    /// Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imap_id: Option<bool>,
    /// Show the client the backend's own text when the backend refuses a login, instead of a general error. Default:
    /// false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_error_message: Option<bool>,
    /// Which endpoint of the backend is tried first. `RoundRobin`: each in turn. `LeastSessions`: the one with the
    /// fewest open sessions. `UserHash`: always the same one for a user. Default: `RoundRobin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Check the endpoints of the listener's own backend regularly: connect, read the greeting, send NOOP (not for
    /// POP3) and log out. A failing endpoint gets no new sessions while another endpoint is healthy. Default: no
    /// checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
}

/// When XCLIENT is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum XclientNegotiation {
    /// Only what the backend offers.
    Auto,
    /// Without checking the offer.
    Always,
}

/// The name in EHLO to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EhloName {
    /// `serverName`.
    Own,
    /// The name that the client sent.
    Client,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    /// No header.
    Disabled,
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// Which endpoint is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadBalancing {
    /// Each endpoint in turn.
    RoundRobin,
    /// The endpoint with the fewest open sessions.
    LeastSessions,
    /// By a hash of the login name.
    UserHash,
}

/// Health checks of backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::health_check()))]
pub struct HealthCheck {
    /// Time between two checks. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::check_time()))]
    pub interval: Option<Duration>,
    /// Timeout of one check. Default: 5s, or `interval` if that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::check_time()))]
    pub timeout: Option<Duration>,
    /// Consecutive failures after which an endpoint counts as unhealthy. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<u32>,
    /// Consecutive successes after which it counts as healthy again. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<u32>,
}

/// Capabilities and login methods of IMAP or POP3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProtocolSettings {
    /// Capabilities announced before the login. Capabilities that depend on other settings are announced automatically
    /// and ignored in this list: `AUTH=…`, `STARTTLS`, `LOGINDISABLED`, `SASL`, `STLS`, and `USER` where USER is
    /// refused. Default: `IMAP4 IMAP4rev1 UIDPLUS` for IMAP, `TOP USER UIDL` for POP3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = "^[!-~]+( [!-~]+)*$")))]
    pub capabilities: Option<Vec<String>>,
    /// Login methods: `PLAIN`, `LOGIN`, `CRAM-MD5`, `EXTERNAL`, `XOAUTH2`, `OAUTHBEARER`, and `APOP` for POP3. Methods
    /// that are not listed are refused. `PLAIN` and `LOGIN` each allow both, and also IMAP's LOGIN command and POP3's
    /// USER and PASS; only the listed ones are announced. Default: `PLAIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub auth_methods: Option<Vec<AuthMethod>>,
    /// When logins with a password are allowed. `Listed`: only if `authMethods` has `PLAIN` or `LOGIN`. `Always`:
    /// regardless of the list, as in nginx. Default: `Listed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_logins: Option<PasswordLogins>,
}

/// Capabilities and login methods of SMTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SmtpSettings {
    /// Extensions in the EHLO reply, one per line. `AUTH` and `STARTTLS` depend on other settings, are announced
    /// automatically, and are ignored in this list. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = "^[!-~]+( [!-~]+)*$")))]
    pub capabilities: Option<Vec<String>>,
    /// Login methods: `PLAIN`, `LOGIN`, `CRAM-MD5`, `EXTERNAL`, `XOAUTH2`, `OAUTHBEARER`, and `NONE` to accept mail
    /// without a login on port 25. Methods that are not listed are refused; with `NONE` alone nobody can log in.
    /// `PLAIN` and `LOGIN` each allow both; only the listed ones are announced. Default: `PLAIN`, `LOGIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub auth_methods: Option<Vec<AuthMethod>>,
    /// When logins with a password are allowed. `Listed`: only if `authMethods` has `PLAIN` or `LOGIN`. `Always`:
    /// regardless of the list, as in nginx. Default: `Listed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_logins: Option<PasswordLogins>,
    /// Wait this long before the greeting. A client that sends something before the greeting is refused. Default: 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::pause()))]
    pub greeting_delay: Option<Duration>,
    /// With `tls.mode: RequireStartTLS`: accept mail without a login (`NONE`) also before STARTTLS, as nginx does.
    /// Default: false; such mail is refused with 530 5.7.0.
    #[serde(rename = "anonymousBeforeTLS", skip_serializing_if = "Option::is_none")]
    pub anonymous_before_tls: Option<bool>,
    /// Refuse AUTH and MAIL before EHLO or HELO, and AUTH after MAIL (503 5.5.1). Default: false, as in nginx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_sequence: Option<bool>,
}

/// Capabilities and login methods of ManageSieve (RFC 5804).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SieveSettings {
    /// Capabilities announced before the login, one per line: the name, and after a space the value, such as `SIEVE
    /// fileinto vacation`. `SASL` and `STARTTLS` depend on other settings, are announced automatically, and are ignored in
    /// this list. Default: those of Dovecot Pigeonhole. List the backend's own if it has others, because clients decide by
    /// `SIEVE` what they offer to their users.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048), regex(pattern = "^[!-~]+( [!-~]+)*$")))]
    pub capabilities: Option<Vec<String>>,
    /// Login methods: `PLAIN`, `LOGIN`, `CRAM-MD5`, `EXTERNAL`, `XOAUTH2`, `OAUTHBEARER`. Methods that are not listed are
    /// refused. `PLAIN` and `LOGIN` each allow both; only the listed ones are announced. Default: `PLAIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub auth_methods: Option<Vec<AuthMethod>>,
    /// When logins with a password are allowed. `Listed`: only if `authMethods` has `PLAIN` or `LOGIN`. `Always`:
    /// regardless of the list. Default: `Listed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_logins: Option<PasswordLogins>,
}

/// When logins with a password are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PasswordLogins {
    /// If `authMethods` has `PLAIN` or `LOGIN`.
    Listed,
    /// Regardless of `authMethods`.
    Always,
}

/// A login method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AuthMethod {
    /// SASL PLAIN, IMAP LOGIN, and POP3 USER and PASS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SASL LOGIN.
    #[serde(rename = "LOGIN")]
    Login,
    /// POP3 APOP. It needs an auth service.
    #[serde(rename = "APOP")]
    Apop,
    /// SASL CRAM-MD5. It needs an auth service, or a backend that supports it.
    #[serde(rename = "CRAM-MD5")]
    CramMd5,
    /// SASL EXTERNAL: login with the client certificate.
    #[serde(rename = "EXTERNAL")]
    External,
    /// SASL XOAUTH2.
    #[serde(rename = "XOAUTH2")]
    XOAuth2,
    /// SASL OAUTHBEARER.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
    /// SMTP: mail without a login.
    #[serde(rename = "NONE")]
    None,
}

/// DNS lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::resolver()))]
pub struct ResolverSettings {
    /// DNS servers, by address or name, with an optional port: `10.96.0.10`, `[::1]:5353`. A name is looked up again
    /// when its TTL is over, at the latest after five minutes, and all its addresses are used. Default: the pod's
    /// resolv.conf, also after it changes. As in nginx, host names of SMTP clients are looked up only if a `resolver`
    /// block exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 261)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::nameservers())
    )]
    pub nameservers: Option<Vec<String>>,
    /// Cache answers for this long, instead of their TTL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub valid: Option<Duration>,
    /// Look up IPv4 addresses. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Look up IPv6 addresses. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// Timeout of one lookup. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
    /// Count lookups in the metrics `mailgress_resolver_…` with this value of the label `zone`. Default: lookups are
    /// not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub statistics_zone: Option<String>,
}

/// Timeouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeoutSettings {
    /// Time from the greeting to the end of the login. Commands do not extend it. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub client: Option<Duration>,
    /// Time from the connection attempt to the backend's reply to the login. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub connect: Option<Duration>,
    /// Close a session after this time without data in either direction, after the login. Default: 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub idle: Option<Duration>,
    /// The limit of `idle` after the client or the backend has closed its side of the connection. `0s`: the session ends
    /// when the client closes its side, and pending replies are lost, as in nginx. Default: 60s, so that the client
    /// gets the reply to its last command.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::pause()))]
    pub half_closed: Option<Duration>,
    /// Tell the client when `timeouts.client` is over (IMAP, SMTP and ManageSieve; POP3 has no reply for it). nginx closes the
    /// connection without a reply. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
}
