//! The kind `MailRoute`: sends the users of domains, or single users, of a `MailServer` to a backend of their own.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BundleKind, Duration, PortRef};
use super::listener::{Protocol, ServerRef};
use super::rules;
use super::settings::UpstreamSettings;
use super::status::MailRouteStatus;

/// Sends users of a MailServer to a separate backend.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "mailgress.dev",
    version = "v1alpha1",
    kind = "MailRoute",
    namespaced,
    shortname = "mr",
    category = "mail",
    status = "MailRouteStatus",
    derive = "PartialEq",
    doc = "Sends the users of domains, or single users, of a MailServer to a separate backend. It uses only Secrets, ConfigMaps and Services of its own namespace.",
    printcolumn = r#"{"name":"Server","type":"string","jsonPath":".spec.serverRef.name"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".spec.state"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Backends","type":"string","jsonPath":".status.endpoints"}"#,
    printcolumn = r#"{"name":"Domains","type":"integer","jsonPath":".status.domains"}"#,
    printcolumn = r#"{"name":"Users","type":"integer","jsonPath":".status.users"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MailRouteSpec {
    /// The MailServer to attach to. Its `allowedRoutes` must allow this namespace and these domains.
    pub server_ref: ServerRef,
    /// The users of this route. A login matches if any of these matches. An exact user takes precedence over a domain,
    /// and a domain over a wildcard. If two MailRoutes name the same user or domain, the older one has it.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// Where the sessions of these users go.
    pub backend: RouteBackend,
    /// `Active`: these users are sent to the backend. `Held`: their open sessions are ended, and new logins wait until
    /// the state is `Active` again, so that their mailboxes can be moved. `Refused`: their logins are refused like
    /// wrong passwords.
    #[serde(default)]
    pub state: RouteState,
    /// With `state: Held`: how long a login waits before it gets a temporary error. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::hold()))]
    pub hold_timeout: Option<Duration>,
    /// With `state: Held`: the time over which open sessions are ended. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::hold()))]
    pub spread: Option<Duration>,
}

/// The users of a route: at least one of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::route_match()))]
pub struct RouteMatch {
    /// Domains: of the login or, for mail without a login, of the recipient. `*.example.org` stands for all domains below
    /// `example.org`, but not for `example.org`. Upper and lower case, and both forms of international names, are equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub domains: Option<Vec<String>>,
    /// Exact logins, with their domain. The local part is compared as it is written; case matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 320)), extend("x-kubernetes-list-type" = "set"))]
    pub users: Option<Vec<String>>,
    /// Long lists of logins, in ConfigMaps or Secrets: one login in each line. Lines that begin with `#` are comments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-list-type" = "atomic"))]
    pub users_from: Option<Vec<UserListRef>>,
}

/// A list of logins in a ConfigMap or Secret of the object's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserListRef {
    /// `ConfigMap` or `Secret`.
    #[serde(default)]
    pub kind: BundleKind,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in the object's data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A backend, with one address for each protocol that it speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackend {
    /// The backend's address for each protocol. The other protocols of these users use the listener's own backend.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["protocol"]))]
    pub services: Vec<RouteService>,
    /// Settings of the connections to this backend. They override the listener's, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSettings>,
    /// Whether each user has one endpoint of this backend. Without it, `upstream.loadBalancing` selects the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<RouteAffinity>,
}

/// Gives each user one endpoint of the backend. An endpoint is recognised by the name of its Pod, or else by its
/// address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::route_affinity()))]
pub struct RouteAffinity {
    /// `None`: `upstream.loadBalancing` selects the endpoint. `User`: the user's name selects it; all protocols agree on
    /// the Pod, and another endpoint is used if this one cannot be reached. `Exclusive`: as `User`, and a user never has
    /// sessions on two endpoints at one time, over all replicas and protocols.
    pub mode: AffinityMode,
    /// The protocols to which this applies. Default: all protocols of the backend. Leave out a protocol whose Service
    /// has other Pods, such as a submission server without mailboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub protocols: Option<Vec<Protocol>>,
    /// With `Exclusive`: the name of the storage. MailRoutes of one namespace with the same group count together.
    /// Default: the name of the MailRoute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"))]
    pub group: Option<String>,
    /// With `Exclusive`: how long the login of a user waits whose endpoint changes. Then it gets a temporary error.
    /// Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::moving()))]
    pub move_timeout: Option<Duration>,
    /// With `Exclusive`: when the sessions on an endpoint are ended that does not exist any more. Default: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::moving()))]
    pub grace: Option<Duration>,
    /// With `Exclusive`: how long an endpoint that is not ready keeps its users, whose logins wait for it. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::hold()))]
    pub return_grace: Option<Duration>,
}

/// Whether each user has one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AffinityMode {
    #[default]
    #[doc = "No."]
    None,
    #[doc = "Yes, as long as it can be reached."]
    User,
    #[doc = "Yes, and never sessions on two at one time."]
    Exclusive,
}

/// A backend's address for one protocol: a Service (`name` and `port`), or `address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::route_service()))]
pub struct RouteService {
    /// `IMAP`, `POP3`, `SMTP` or `Sieve`.
    pub protocol: Protocol,
    /// The name of a Service in the MailRoute's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// The Service's port, by number or by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
    /// The address instead of a Service: `host:port`, `[IPv6]:port` or `unix:/path`. If the MailRoute is in another
    /// namespace than its MailServer, the MailServer must allow the address (`allowedListeners.backends`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261), extend("x-kubernetes-validations" = rules::forms::backend_address()))]
    pub address: Option<String>,
}

/// What happens to the users of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteState {
    #[default]
    #[doc = "They are sent to the backend."]
    Active,
    #[doc = "Their sessions are ended, and their logins wait."]
    Held,
    #[doc = "Their logins are refused."]
    Refused,
}
