//! Why a user reaches a backend: the question and the answer of `mailgress why`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::sessions::OpenSession;

/// A user, and the listeners that the question is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhyQuery {
    /// The login name, or the recipient of mail without a login.
    pub user: String,
    /// Whether `user` is a recipient. Then only SMTP listeners are asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recipient: bool,
    /// Only listeners of this protocol: `imap`, `pop3`, `smtp` or `sieve`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Only this listener (`namespace/object/listener`), or those of `namespace/object`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Only listeners that a client with this server name (SNI) reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

/// What one replica does with a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The replica's name.
    pub replica: String,
    /// The listeners that match the question.
    pub listeners: Vec<WhyListener>,
    /// The user's open sessions on this replica.
    pub sessions: Vec<OpenSession>,
    /// The user's last refused logins at these listeners that this replica remembers, the newest first.
    pub refusals: Vec<WhyRefusal>,
    /// Clients of such logins that are banned now.
    pub bans: Vec<WhyBan>,
}

/// A login that was refused or could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyRefusal {
    /// When it was refused.
    pub time: Timestamp,
    /// The listener.
    pub listener: String,
    /// The client's address as the log shows it: `unknown` behind a proxy that does not tell, `unix:` for UNIX sockets.
    pub client: String,
    /// The login name, shortened to 256 bytes and escaped; empty for mail without a login.
    pub login: String,
    /// The `reason` in the log: `credentials`, `repeated`, `policy`, `backend` or `banned`. Or `unavailable`: a temporary
    /// error; or `failed`: the session ended without a decision.
    pub reason: String,
    /// What has failed, for `unavailable` and `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A client that a listener refuses because of `limits.authFailures`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyBan {
    /// The listener.
    pub listener: String,
    /// The client's address.
    pub client: String,
    /// The end of the ban.
    pub until: Timestamp,
}

/// What a listener does with a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyListener {
    /// `mail/example/imaps`, or `mail/example` for a `MailListener`.
    pub listener: String,
    /// `imap`, `pop3`, `smtp` or `sieve`.
    pub protocol: String,
    /// The listener's socket.
    pub address: String,
    /// The user in the form that routes compare, escaped.
    pub user: String,
    /// The auth service, which may name another server; `None` if the backend decides about logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_service: Option<String>,
    /// The route of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<WhyRoute>,
    /// What happens to the user.
    pub outcome: WhyOutcome,
}

/// A route, and what of it matched the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyRoute {
    /// `namespace/name` of the `MailRoute`.
    pub name: String,
    /// The matching entry: `the user`, `the domain example.org` or `the domain *.example.org`.
    pub matched: String,
}

/// What happens to a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum WhyOutcome {
    /// The user goes to a backend.
    Backend(WhyBackend),
    /// The user's route is held: logins wait.
    Held,
    /// The user's route refuses logins.
    RouteRefused,
    /// There is neither a route nor a backend of the listener: the login is refused like a wrong password.
    NoBackend,
    /// What follows the `@` cannot be a domain: the login is refused like a wrong password.
    NoDomain,
    /// The user may be in a list of this route, which could not be read yet: the login gets a temporary error.
    Undecided {
        /// `namespace/name` of the `MailRoute`.
        route: String,
    },
}

/// The backend of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyBackend {
    /// The backend in the manifest, such as `Service mail/dovecot:143`.
    pub backend: String,
    /// Whether this is the listener's own backend.
    pub is_listeners: bool,
    /// `RoundRobin`, `LeastSessions` or `UserHash`.
    pub load_balancing: String,
    /// The ready endpoints; with `UserHash` or affinity, in the order in which they are tried for this user. Otherwise the
    /// order says nothing.
    pub endpoints: Vec<WhyEndpoint>,
    /// The endpoints that are taken out of service (annotation `mailgress.dev/drain` of their Pod).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<WhyEndpoint>,
    /// `affinity` of the user's route, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<WhyAffinity>,
}

/// An endpoint of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyEndpoint {
    /// Its address.
    pub address: String,
    /// The name of its Pod, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The one endpoint of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhyAffinity {
    /// `User` or `Exclusive`.
    pub mode: String,
    /// With `Exclusive`: the group, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// With `Exclusive`: the user's endpoint by the endpoints that there are now, ready or not. While endpoints change, the
    /// user may still have another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}
