//! The settings blocks that may stand on a `MailServer`, for all its listeners, and again on a listener,
//! whose fields win one by one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::AuthSettings;
use super::common::{Duration, Size};
use super::rules;
use super::tls::{TlsSettings, UpstreamTls};

/// All settings blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// The name in greetings, challenges and EHLO. Default: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub server_name: Option<String>,
    /// TLS towards clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// Who decides about logins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSettings>,
    /// How to talk to whichever backend was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSettings>,
    /// IMAP's own settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::imap()))]
    pub imap: Option<ProtocolSettings>,
    /// POP3's own settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::pop3()))]
    pub pop3: Option<ProtocolSettings>,
    /// SMTP's own settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::smtp()))]
    pub smtp: Option<SmtpSettings>,
    /// Name resolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ResolverSettings>,
    /// Deadlines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutSettings>,
    /// Bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitSettings>,
}

/// How to talk to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamSettings {
    /// TLS to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// A PROXY protocol header in front of everything else: `Disabled`, `V1` or `V2`. Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// SMTP: tell the backend about the client with XCLIENT. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xclient: Option<bool>,
    /// How XCLIENT is agreed on: `Auto` sends what the backend's EHLO offers; `Always` sends ADDR, LOGIN and NAME
    /// without looking, as nginx does, and a backend that refuses them ends the session. Default: `Auto`, so that a
    /// backend without XCLIENT is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xclient_negotiation: Option<XclientNegotiation>,
    /// SMTP: whose name is in EHLO and HELO to the backend: `Client` passes on the name that the client said, so that
    /// `Received` lines of mail show it even where the backend does not take XCLIENT; `Own` says `serverName`, as nginx
    /// does. A client that has not said a name has `serverName`. Default: `Client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ehlo_name: Option<EhloName>,
    /// SMTP: log in to the backend with AUTH. Default: false; always so with `auth.passthrough`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smtp_auth: Option<bool>,
    /// IMAP: tell the backend the client's address with ID, and what the client said of itself before its login, where
    /// the backend offers that. Fields that begin with `x-` are ours, and a client's are left out. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imap_id: Option<bool>,
    /// The client sees the backend's own refusal of a login instead of an internal error. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_error_message: Option<bool>,
    /// Which endpoint is tried first: `RoundRobin`, `LeastSessions`, or `UserHash` (a user stays on one endpoint).
    /// Default: `RoundRobin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Checks of the listener's own backend apart from sessions: a greeting, NOOP (not in POP3) and a goodbye. An
    /// endpoint that fails them gets no sessions while another is well. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
}

/// How XCLIENT is agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum XclientNegotiation {
    /// What the backend offers.
    Auto,
    /// Without looking.
    Always,
}

/// Whose name is in EHLO to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EhloName {
    /// `serverName`.
    Own,
    /// What the client said.
    Client,
}

/// The version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProxyProtocolVersion {
    /// None.
    Disabled,
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// Which endpoint is tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoadBalancing {
    /// In turn.
    RoundRobin,
    /// The one with the fewest open sessions.
    LeastSessions,
    /// By the login name.
    UserHash,
}

/// Checks of the backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::health_check()))]
pub struct HealthCheck {
    /// Time between checks. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::check_time()))]
    pub interval: Option<Duration>,
    /// How long one check may take. Default: 5s, or `interval` where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::check_time()))]
    pub timeout: Option<Duration>,
    /// Failures in a row that take an endpoint out. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<u32>,
    /// Successes in a row that bring it back. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<u32>,
}

/// What IMAP or POP3 announces and accepts before the login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProtocolSettings {
    /// Capabilities announced before the login, as they are. What follows from other settings is announced by itself and
    /// left out of the list: `AUTH=…`, `STARTTLS`, `LOGINDISABLED`, `SASL`, `STLS`, and `USER` where USER is refused.
    /// Default: `IMAP4 IMAP4rev1 UIDPLUS` for IMAP, `TOP USER UIDL` for POP3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = "^[!-~]+( [!-~]+)*$")))]
    pub capabilities: Option<Vec<String>>,
    /// Ways to log in: `PLAIN`, `LOGIN`, `CRAM-MD5`, `EXTERNAL`, `XOAUTH2`, `OAUTHBEARER`, and `APOP` for POP3. What is
    /// not listed is refused. `PLAIN` and `LOGIN` are announced as listed and stand for each other: with either, IMAP's
    /// LOGIN command and POP3's USER and PASS are taken, too. Default: `PLAIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub auth_methods: Option<Vec<AuthMethod>>,
    /// Logins with a password: `Listed` takes them where `authMethods` has `PLAIN` or `LOGIN`, `Always` takes them whatever
    /// is listed, as nginx does. Default: `Listed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_logins: Option<PasswordLogins>,
}

/// What SMTP announces and accepts before the login.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SmtpSettings {
    /// Lines of the EHLO reply, as they are. `AUTH` and `STARTTLS` follow from other settings, are announced by themselves
    /// and left out of the list. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128), regex(pattern = "^[!-~]+( [!-~]+)*$")))]
    pub capabilities: Option<Vec<String>>,
    /// Ways to log in: `PLAIN`, `LOGIN`, `CRAM-MD5`, `EXTERNAL`, `XOAUTH2`, `OAUTHBEARER`, and `NONE` for mail
    /// without a login on port 25. What is not listed is refused: with `NONE` alone, nobody can log in. `PLAIN` and `LOGIN`
    /// are announced as listed and stand for each other. Default: `PLAIN`, `LOGIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub auth_methods: Option<Vec<AuthMethod>>,
    /// Logins with a password: `Listed` takes them where `authMethods` has `PLAIN` or `LOGIN`, `Always` takes them whatever
    /// is listed, as nginx does. Default: `Listed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_logins: Option<PasswordLogins>,
    /// How long the greeting is withheld; a client that talks before it is refused. Default: 0s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::pause()))]
    pub greeting_delay: Option<Duration>,
    /// With `tls.mode: RequireStartTLS`, take mail without a login (`NONE`) before STARTTLS, as nginx does. Default:
    /// false: it is refused (530 5.7.0), since whoever requires TLS means the mail itself.
    #[serde(rename = "anonymousBeforeTLS", skip_serializing_if = "Option::is_none")]
    pub anonymous_before_tls: Option<bool>,
    /// Refuse AUTH and MAIL before EHLO or HELO, and AUTH after MAIL (503 5.5.1). Default: false, as in nginx: old
    /// clients and scripts do it, and it does no harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_sequence: Option<bool>,
}

/// Which logins with a password are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PasswordLogins {
    /// Where `authMethods` has `PLAIN` or `LOGIN`.
    Listed,
    /// Whatever is listed.
    Always,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AuthMethod {
    /// SASL PLAIN, IMAP LOGIN and POP3 USER/PASS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SASL LOGIN.
    #[serde(rename = "LOGIN")]
    Login,
    /// POP3 APOP; needs an auth service.
    #[serde(rename = "APOP")]
    Apop,
    /// CRAM-MD5.
    #[serde(rename = "CRAM-MD5")]
    CramMd5,
    /// The client certificate.
    #[serde(rename = "EXTERNAL")]
    External,
    /// XOAUTH2.
    #[serde(rename = "XOAUTH2")]
    XOAuth2,
    /// OAUTHBEARER.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
    /// SMTP without a login.
    #[serde(rename = "NONE")]
    None,
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::resolver()))]
pub struct ResolverSettings {
    /// Name servers by address or name, with an optional port: `10.96.0.10`, `[::1]:5353`. A name is looked up
    /// again as its TTL says, at least every five minutes, and all its addresses are used. Default: the pod's
    /// resolv.conf, which is read again when it changes. As in nginx, the names of SMTP clients are looked up only
    /// where there is a resolver block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 8),
        inner(length(min = 1, max = 261)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::nameservers())
    )]
    pub nameservers: Option<Vec<String>>,
    /// How long answers are kept, instead of their TTL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub valid: Option<Duration>,
    /// Look up IPv4 addresses. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<bool>,
    /// Look up IPv6 addresses. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// How long one lookup may take. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
    /// The `zone` label under which the resolver's work is counted in the metrics `mailgress_resolver_…`.
    /// Default: it is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub statistics_zone: Option<String>,
}

/// Deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TimeoutSettings {
    /// From the greeting to the login, whatever the client does meanwhile. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub client: Option<Duration>,
    /// From the connect to the backend's answer to the login. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub connect: Option<Duration>,
    /// How long a session may be silent in both directions after the login. Default: 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub idle: Option<Duration>,
    /// How long a session of which one side has ended may be silent. `0s`: the client's end ends the session at once,
    /// and what its backend has not said yet is lost, as in nginx. Default: 60s, so that a client that ends its
    /// direction behind its last command hears the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::pause()))]
    pub half_closed: Option<Duration>,
    /// Whether a client hears that its time before the login is over (IMAP and SMTP; POP3 has no word for it). Default:
    /// true, so that a client knows why. nginx closes without a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
}

/// Bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::limits()))]
pub struct LimitSettings {
    /// The invalid command at which a session ends. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_errors: Option<u32>,
    /// What counts towards `maxErrors`: `All` commands that are answered with an error, or, as in nginx, only
    /// those with an error of `Syntax`. Default: `All`, so that nobody probes mechanisms, addresses and bad base64
    /// for as long as `maxCommands` allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_errors: Option<CountedErrors>,
    /// Commands that a client may send before its login succeeds. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_commands: Option<u32>,
    /// End the session at this many refused logins, whether the auth service or the backend refuses them. Refusals that
    /// are the server's own fault do not count: a temporary failure, or a set-up that does not fit. Default: 10, so that
    /// one connection is not enough to guess passwords. nginx bounds only the number of commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_auth_failures: Option<u32>,
    /// The longest command before the login, in bytes, from 512 to 1Mi. A SASL response (a password or token in AUTH or
    /// AUTHENTICATE, or behind it) may have 12,288 bytes whatever stands here. Default: 4Ki.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(512, 1 << 20, "512 and 1Mi")))]
    pub client_buffer: Option<Size>,
    /// Open connections of the listener, counted from the accept on. Connections on a port that several listeners share
    /// count for the port until the server name is known: up to the highest limit of these listeners, or without a bound if
    /// one of them has no limit. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections: Option<u32>,
    /// Open connections from one client address (IPv6: one /64), counted from the accept on. A trusted peer that waits
    /// to send its PROXY header is not a client; it may have 256 such connections. A connection whose header names no
    /// client is not counted. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections_per_client: Option<u32>,
    /// Refuse clients for a while after too many logins with wrong credentials: new connections, and logins in open
    /// sessions. The same wrong password for the same login counts once for each window: a device with an old password
    /// guesses nothing. IPv6 clients are counted by /64; when the table is full, a /56 or /48 with many entries is
    /// counted as a whole. The address of a trusted peer (`proxyProtocol`) is never banned. Default: no bans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_failures: Option<AuthFailures>,
    /// Networks (or addresses) of clients to which `authFailures` and `maxConnectionsPerClient` do not apply, such as
    /// webmail, monitoring, or many users behind one address. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 49)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::networks())
    )]
    pub exempt: Option<Vec<String>>,
}

/// What counts towards `limits.maxErrors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CountedErrors {
    /// Every command that is answered with an error.
    All,
    /// Lines that are no known command, or cannot be read as one.
    Syntax,
}

/// So many refused logins in the window, and the client is refused for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthFailures {
    /// Refused logins. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
    /// The time in which they count. Default: 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub window: Option<Duration>,
    /// How long the client is refused then. Default: 15m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub ban: Option<Duration>,
}
