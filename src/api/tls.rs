//! `tls`: TLS between clients and Mailgress. `upstream.tls`: TLS between Mailgress and backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{BundleRef, Duration, SecretRef};
use super::rules;

/// TLS between clients and Mailgress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::tls()))]
pub struct TlsSettings {
    /// When TLS starts. `Disabled`: never. `StartTLS`: when the client asks for it. `RequireStartTLS`: like `StartTLS`,
    /// but logins and mail are refused before TLS. `Implicit`: with the first byte. Default: `Implicit` on ports 465, 993
    /// and 995. On other ports: `RequireStartTLS` if a certificate is configured (`StartTLS` on port 25), otherwise
    /// `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Secrets with the certificates (type `kubernetes.io/tls`). SNI selects the certificate; if no name matches, the
    /// first is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub certificate_refs: Option<Vec<SecretRef>>,
    /// The oldest TLS version to accept: `TLSv1.2` or `TLSv1.3`. Default: `TLSv1.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<MinVersion>,
    /// Cipher suites by their IANA names, most preferred first. Default: the TLS library's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("items" = { "type": "string", "enum": CIPHER_SUITES }))]
    pub cipher_suites: Option<Vec<String>>,
    /// Verification of client certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Allow session resumption with tickets. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_tickets: Option<bool>,
    /// Session resumption with session IDs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_cache: Option<SessionCache>,
}

/// The cipher suites that Mailgress supports, by their IANA names.
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

/// When TLS starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// When the client asks for it.
    #[serde(rename = "StartTLS")]
    StartTls,
    /// When the client asks for it; logins and mail are refused before.
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

/// Verification of client certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules::client_auth()))]
pub struct ClientAuth {
    /// `Disabled`: do not ask for a certificate. `Optional`: verify a certificate if the client sends one. `Required`:
    /// the client must send a valid certificate. `OptionalNoCA`: also accept a certificate of an unknown issuer.
    /// Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ClientAuthMode>,
    /// CA certificates that may issue client certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
    /// Certificate revocation lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub crl_refs: Option<Vec<BundleRef>>,
    /// Maximum number of intermediate certificates in a chain. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub depth: Option<u32>,
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuthMode {
    /// Do not ask.
    Disabled,
    /// Ask, and verify a certificate that is sent.
    Optional,
    /// Ask, and close sessions without a valid certificate.
    Required,
    /// Ask, and accept certificates of unknown issuers too.
    #[serde(rename = "OptionalNoCA")]
    OptionalNoCa,
}

/// Session resumption with session IDs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionCache {
    /// Maximum number of cached sessions. Default: 20480.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub size: Option<u32>,
    /// How long a session or ticket can be resumed. Default: 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules::forms::deadline()))]
    pub timeout: Option<Duration>,
}

/// TLS between Mailgress and backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamTls {
    /// `Disabled`, `StartTLS` (backends that do not offer it are not used) or `Implicit`. Default: `Disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<UpstreamTlsMode>,
    /// CA certificates to verify the backend's certificate with. Default: the system's root certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "name"]))]
    pub ca_certificate_refs: Option<Vec<BundleRef>>,
    /// The name to verify in the backend's certificate and to send as SNI. Default: the backend's host name or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), extend("x-kubernetes-validations" = rules::forms::verified_name()))]
    pub server_name: Option<String>,
    /// A Secret (type `kubernetes.io/tls`) with the client certificate that Mailgress sends to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<SecretRef>,
}

/// When TLS to a backend starts.
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
