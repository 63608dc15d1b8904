//! Status, in Gateway API's vocabulary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a MailServer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MailServerStatus {
    /// The generation of the object that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub listener_count: Option<i32>,
    /// The addresses that clients connect to, or the sockets of the listeners (`*:993, *:587`), for display.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub address: Option<String>,
    /// The state of the backends, for display: `all ready`, `2/3 ready` (of the listener with the smallest share), `none
    /// ready`, `none ready for pop3s`. Absent if it is unknown: for a host name without health checks, or for servers
    /// that only an auth service names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub backends: Option<String>,
    /// Conditions of the object: Accepted, ResolvedRefs, Programmed, Ready, and warnings while they apply.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Status of each listener.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Vec<ListenerStatus>,
}

/// The status of a MailListener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MailListenerStatus {
    /// The generation of the object that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The address that clients connect to, or the socket of the listener, for display.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub address: Option<String>,
    /// The state of the backends, for display: `all ready`, `2/3 ready`, `none ready`. Absent if it is unknown: for a
    /// host name without health checks, or for servers that only an auth service names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub backends: Option<String>,
    /// Addresses that clients connect to: `203.0.113.7:993`. Empty if unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 300)))]
    pub addresses: Vec<String>,
    /// Conditions: Accepted, ResolvedRefs, Conflicted, Programmed, Ready, and warnings while they apply.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The status of a MailRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MailRouteStatus {
    /// The generation of the object that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of domains, with wildcards, that this route has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub domains: Option<u32>,
    /// Number of users in `users` and in the lists of `usersFrom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_000_000_000))]
    pub users: Option<u32>,
    /// With `state: Held`: the open sessions of its users, and their logins that are not decided yet, in all replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_u32))]
    pub sessions: Option<u32>,
    /// For people: the state of the endpoints of all backends: `all ready`, `2/3 ready`, `none ready`, `none ready for
    /// POP3`. Absent if it is unknown: for a host name without health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub endpoints: Option<String>,
    /// The backend of each protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["protocol"]))]
    pub backends: Vec<RouteBackendStatus>,
    /// Conditions: Accepted, ResolvedRefs, Conflicted, Programmed, Ready, with health checks BackendHealthy, with `state: Held`
    /// Drained, and warnings while they apply.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The backend of a MailRoute for one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackendStatus {
    /// `IMAP`, `POP3`, `SMTP` or `Sieve`.
    #[schemars(length(max = 16))]
    pub protocol: String,
    /// The Service or address as in the manifest.
    #[schemars(length(max = 600))]
    pub reference: String,
    /// The state of its endpoints, for display: `all ready`, `2/3 ready`, `none ready`. An endpoint that fails its health
    /// checks is not ready. Absent if it is unknown: for a host name without health checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub endpoints: Option<String>,
}

/// The status of one listener of a MailServer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Addresses that clients connect to: `203.0.113.7:993`. Empty if unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 300)))]
    pub addresses: Vec<String>,
    /// Conditions: Accepted, ResolvedRefs, Conflicted, Programmed, Ready, and warnings while they apply.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A Kubernetes condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The condition's type, in CamelCase.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// The generation of the object that this condition describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed (RFC 3339).
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The reason for the status, in one CamelCase word.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// The reason for the status in a sentence that names the field and the remedy.
    #[schemars(length(max = 32768))]
    pub message: String,
}

/// The value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It is not known yet.
    Unknown,
}
