//! `limits`: limits for clients, and bans of client addresses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Duration, Size};
use super::rules;

/// Limits for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::limits()))]
pub struct LimitSettings {
    /// Close the session after this many invalid commands. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_errors: Option<u32>,
    /// Which commands count for `maxErrors`. `All`: every command that is answered with an error. `Syntax`: only
    /// commands that cannot be parsed, as in nginx. Default: `All`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_errors: Option<CountedErrors>,
    /// Close the session after this many commands without a successful login. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_commands: Option<u32>,
    /// Close the session after this many refused logins, whether the auth service or the backend refuses them.
    /// Temporary failures and configuration errors do not count. nginx limits only the number of commands. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_auth_failures: Option<u32>,
    /// Maximum length of a command before the login, in bytes, from 512 to 1Mi. A SASL response (the password or token
    /// after AUTH or AUTHENTICATE) may always have 12,288 bytes. Default: 4Ki.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::size(512, 1 << 20, "512 and 1Mi")))]
    pub client_buffer: Option<Size>,
    /// Maximum number of open connections of the listener, counted from the accept. On a port that several listeners
    /// share, a connection counts for the port until SNI selects the listener; the highest limit of these listeners
    /// applies, or none if one of them has none. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections: Option<u32>,
    /// Maximum number of open connections from one client address (IPv6: one /64), counted from the accept. A trusted
    /// peer may have 256 connections that have not sent their PROXY header yet. A connection whose PROXY header has no
    /// client address is not counted. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections_per_client: Option<u32>,
    /// Ban a client address for some time after too many refused logins: new connections are refused, and so are logins
    /// in open sessions. Each listener counts separately, and a ban applies to that listener only. The same wrong
    /// password for the same login counts once in a window, so that a device with an old password is not banned. IPv6
    /// addresses are counted by /64; when the table is full, a /56 or /48 with many entries is counted as a whole. The
    /// address of a trusted peer (`proxyProtocol`) is never banned. Default: no bans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_failures: Option<AuthFailures>,
    /// Networks or addresses of clients to which `authFailures` and `maxConnectionsPerClient` do not apply, for example
    /// webmail, monitoring, or many users behind one address. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 49)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules::forms::networks())
    )]
    pub exempt: Option<Vec<String>>,
}

/// Which commands count for `limits.maxErrors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CountedErrors {
    /// Every command that is answered with an error.
    All,
    /// Only commands that cannot be parsed.
    Syntax,
}

/// Bans of client addresses after refused logins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthFailures {
    /// Number of refused logins that leads to a ban. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
    /// Period in which refused logins are counted. Default: 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub window: Option<Duration>,
    /// Duration of the ban. Default: 15m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub ban: Option<Duration>,
}
