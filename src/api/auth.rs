//! `auth`: who decides about logins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BundleRef, Duration, PortRef, SecretKeyRef};
use super::rules;

/// How logins are checked: exactly one of `http` and `passthrough`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::auth()))]
pub struct AuthSettings {
    /// Ask an auth service with nginx's `auth_http` protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuth>,
    /// No auth service: the listener's backend checks the login itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passthrough: Option<Passthrough>,
}

/// It has no fields yet; write `passthrough: {}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Passthrough {}

/// An auth service with nginx's `auth_http` protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::http_auth()))]
pub struct HttpAuth {
    /// The Service of the auth service. It is asked over http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceRef>,
    /// The URL of the auth service instead of a Service: `http://host:port/path`, `https://…`, or `unix:/socket:/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = rules::forms::auth_url()))]
    pub url: Option<String>,
    /// Additional request headers. A listener's list replaces the MailServer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Option<Vec<Header>>,
    /// Timeout of one request, including the answer. Default: 60s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
    /// Keep connections to the auth service open and reuse them. With false, each request opens a new connection, as in
    /// nginx; use this for a service that may send more than one answer to a request. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Send the client's certificate in `Auth-SSL-Cert`. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass_client_certificate: Option<bool>,
    /// Accept an answer by its headers only, as nginx does: with any HTTP status, and without `Auth-Status` if
    /// `Auth-Server` and `Auth-Port` are present. Default: false; a login is accepted only with a 2xx status and
    /// `Auth-Status: OK`, so that a wrong URL never accepts logins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_any_status: Option<bool>,
    /// CA certificates to verify an https `url` with. Default: the system's root certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
}

/// The Service of an auth service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name, in the object's own namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = rules::forms::service_name()))]
    pub name: String,
    /// The Service's port, by number or by name.
    pub port: PortRef,
    /// Path and query of the request.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = rules::forms::auth_path()))]
    pub path: String,
}

/// An additional request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::header()))]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9!#$%&'*+.^_|~-]+$"))]
    pub name: String,
    /// The value, if it is not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"))]
    pub value: Option<String>,
    /// The source of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderSource>,
}

/// The source of a header's value: exactly one of `secretKeyRef` and `session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::header_source()))]
pub struct HeaderSource {
    /// A key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// A value of the client's session: `ClientPort`, `ListenerName`, `ListenerPort` or `SessionID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionValue>,
}

/// A value of the client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionValue {
    /// The client's port; `0` for a UNIX socket.
    ClientPort,
    /// The listener's name; for a `MailListener`, the object's name.
    ListenerName,
    /// The listener's port; `0` for a UNIX socket.
    ListenerPort,
    /// The session's ID, as in its log line.
    #[serde(rename = "SessionID")]
    SessionId,
}

fn root_path() -> String {
    "/".to_owned()
}
