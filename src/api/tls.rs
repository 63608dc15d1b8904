//! `tls`: how clients are served over TLS; and `upstream.tls`, how backends are reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BundleRef, Duration, SecretRef};
use super::rules;

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::tls()))]
pub struct TlsSettings {
    /// When TLS begins: `Disabled`, `StartTLS` (the client may ask for it), `RequireStartTLS` (no login or mail before
    /// it) or `Implicit` (with the first byte). Default: `Implicit` on ports 465, 993 and 995. On other ports
    /// `RequireStartTLS` where a certificate is configured (on port 25 `StartTLS`), and `Disabled` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Secrets of type kubernetes.io/tls, chosen by SNI; the first is used where no name matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub certificate_refs: Option<Vec<SecretRef>>,
    /// The oldest version accepted, `TLSv1.2` or `TLSv1.3`. Default: `TLSv1.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<MinVersion>,
    /// Cipher suites by their IANA names, in the order of preference. Default: the TLS library's own choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("items" = { "type": "string", "enum": CIPHER_SUITES }))]
    pub cipher_suites: Option<Vec<String>>,
    /// Client certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Whether sessions are resumed by tickets. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_tickets: Option<bool>,
    /// Resumption by session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_cache: Option<SessionCache>,
}

/// The cipher suites that are spoken, by IANA's names.
pub const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// When the client asks for it.
    #[serde(rename = "StartTLS")]
    StartTls,
    /// When the client asks for it, and no login or mail before that.
    #[serde(rename = "RequireStartTLS")]
    RequireStartTls,
    /// With the first byte.
    Implicit,
}

/// The oldest TLS version accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MinVersion {
    /// TLS 1.2.
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

/// Client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::client_auth()))]
pub struct ClientAuth {
    /// `Disabled`, `Optional` (verified when sent), `Required`, or `OptionalNoCA` (accepted when only the trust is
    /// missing). Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientAuthMode>,
    /// Who may issue client certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
    /// Revocation lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub crl_refs: Option<Vec<BundleRef>>,
    /// The longest chain accepted, in intermediate certificates. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub depth: Option<u32>,
}

/// Whether client certificates are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuthMode {
    /// Not asked for.
    Disabled,
    /// Asked for; verified when sent.
    Optional,
    /// Asked for; the session ends without one.
    Required,
    /// Asked for; accepted when only the trust is missing.
    #[serde(rename = "OptionalNoCA")]
    OptionalNoCa,
}

/// Resumption by session id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionCache {
    /// How many sessions are kept. Default: 20480.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub size: Option<u32>,
    /// How long a session or ticket may be resumed. Default: 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
}

/// TLS towards backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamTls {
    /// `Disabled`, `StartTLS` (a backend that does not offer it is refused) or `Implicit`. Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<UpstreamTlsMode>,
    /// Who may issue the backend's certificate. Default: the system's roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
    /// The name that is verified and sent as SNI. Default: the backend's host name, or its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = rules::forms::verified_name()))]
    pub server_name: Option<String>,
    /// A Secret of type kubernetes.io/tls with our own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretRef>,
}

/// When TLS towards a backend begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamTlsMode {
    /// Never.
    Disabled,
    /// After the protocol's STARTTLS.
    #[serde(rename = "StartTLS")]
    StartTls,
    /// With the first byte.
    Implicit,
}
