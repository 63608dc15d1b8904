//! `auth`: who decides about logins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BundleRef, Duration, PortRef, SecretKeyRef};
use super::rules;

/// Exactly one of `http` and `passthrough`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::auth()))]
pub struct AuthSettings {
    /// An auth service that speaks nginx's `auth_http` protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuth>,
    /// No auth service: the listener's backend itself accepts or refuses the login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<Passthrough>,
}

/// Has no settings yet; write `passthrough: {}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Passthrough {}

/// An auth service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::http_auth()))]
pub struct HttpAuth {
    /// A Service, reached by http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceRef>,
    /// `http://host:port/path`, `https://…`, or `unix:/socket:/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = rules::forms::auth_url()))]
    pub url: Option<String>,
    /// Extra request headers. A listener's list replaces the `MailServer`'s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Option<Vec<Header>>,
    /// How long the whole answer may take. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
    /// Use a connection again after an answer that ends cleanly. With false, every request has a connection of its
    /// own, as in nginx: for a service that may send more than one answer to a request. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Sends the client's certificate (`Auth-SSL-Cert`). Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_client_certificate: Option<bool>,
    /// Take an answer by its headers alone, as nginx does: whatever the HTTP status, and without `Auth-Status` as a
    /// success, if it names `Auth-Server` and `Auth-Port`. Default: false: only a 2xx with `Auth-Status: OK` accepts a
    /// login, so that a misrouted URL authorises nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_any_status: Option<bool>,
    /// Who may issue the certificate of an https `url`. Default: the system's roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
}

/// A Service that answers auth requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name, in the object's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The Service's port, by number or by name.
    pub port: PortRef,
    /// Path and query of the request.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::forms::auth_path()))]
    pub path: String,
}

/// One extra request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::header()))]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_|~-]+$"))]
    pub name: String,
    /// The value, for what is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"))]
    pub value: Option<String>,
    /// Where the value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderSource>,
}

/// Where a header's value comes from: exactly one of `secretKeyRef` and `session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::header_source()))]
pub struct HeaderSource {
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// What is different for each session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionValue>,
}

/// What a header says about the session of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionValue {
    /// The port of the client's address; `0` for a client of a UNIX socket.
    ClientPort,
    /// The name of the listener; of a `MailListener`, its object's name.
    ListenerName,
    /// The port of the listener; `0` for a UNIX socket.
    ListenerPort,
}

fn root_path() -> String {
    "/".to_owned()
}
