//! Certificates, keys and trusted authorities, already parsed and checked.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use rustls_pki_types::CertificateDer;
use serde::{Serialize, Serializer};

use crate::secret::Secret;

/// TLS settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTls {
    /// At least one. SNI selects one; the first is the default.
    pub certificates: Vec<Arc<Certificate>>,
    /// The oldest accepted version.
    pub min_version: MinVersion,
    /// IANA names in the order of preference. Empty: the TLS library's default.
    pub cipher_suites: Vec<String>,
    /// Client certificates.
    pub client_auth: ClientAuth,
    /// Whether stateless resumption is enabled.
    pub session_tickets: bool,
    /// Maximum number of sessions for stateful resumption (TLS 1.2 session ids). 0 disables it.
    pub session_cache_size: usize,
    /// How long a ticket or cached session can be resumed.
    #[serde(serialize_with = "duration::required::serialize")]
    pub session_timeout: Duration,
}

impl ServerTls {
    /// A cheap hash: equal for equal settings, and usually different for others.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for certificate in &self.certificates {
            (&certificate.reference, certificate.not_after).hash(&mut hasher);
        }
        (&self.cipher_suites, self.session_cache_size, self.session_timeout).hash(&mut hasher);
        // Hash the numbers only, because the content may be long.
        let clients = &self.client_auth;
        (clients.authorities.len(), clients.crls.len(), clients.depth).hash(&mut hasher);
        hasher.finish()
    }
}

/// A certificate chain and the key of its first certificate. Created by `tls::parse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The Secret of the certificate: `namespace/name`.
    pub reference: String,
    /// The server's own certificate first, then each issuer, unless the file could not be sorted.
    #[serde(serialize_with = "number")]
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, PKCS#8, PKCS#1 or SEC1, in DER.
    pub key: Secret,
    /// DNS names of subjectAltName, or without any the common name; in lower case.
    pub names: Vec<String>,
    /// Start of the first certificate's validity, in Unix seconds.
    #[serde(serialize_with = "date")]
    pub not_before: i64,
    /// End of the chain's validity, in Unix seconds: the first certificate to expire counts.
    #[serde(serialize_with = "date")]
    pub not_after: i64,
}

/// When to warn before a certificate expires: in seconds (30 days, 7 days), but at most this part of its lifetime. A
/// certificate with 90 days is renewed with 30 days left, so an earlier warning would always be present and mean
/// nothing.
pub const EXPIRY_WARNINGS: [(i64, i64); 2] = [(30 * DAY, 4), (7 * DAY, 10)];

const DAY: i64 = 24 * 3600;

/// Returns the times of the first warning, the second warning and the expiry.
#[must_use]
pub fn expiry_alarms(not_before: i64, not_after: i64) -> [i64; 3] {
    let life = not_after.saturating_sub(not_before).max(0);
    let [month, week] =
        EXPIRY_WARNINGS.map(|(longest, part)| not_after.saturating_sub(longest.min(life / part)));
    [month, week, not_after]
}

/// The oldest accepted TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum MinVersion {
    /// TLS 1.2.
    #[serde(rename = "TLSv1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLSv1.3")]
    Tls13,
}

impl MinVersion {
    /// Returns the value of `tls.minVersion` in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// Settings for client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAuth {
    /// Whether they are requested and required.
    pub mode: ClientAuthMode,
    /// The trusted authorities. Empty only for `Disabled` and `OptionalNoCA`.
    #[serde(serialize_with = "number")]
    pub authorities: Vec<CertificateDer<'static>>,
    /// Revocation lists in DER.
    #[serde(serialize_with = "number")]
    pub crls: Vec<Vec<u8>>,
    /// Maximum number of intermediate certificates in a chain.
    pub depth: u32,
}

/// The values of nginx's `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ClientAuthMode {
    /// Not requested.
    Disabled,
    /// Requested, and verified if sent.
    Optional,
    /// Requested; a session without one ends.
    Required,
    /// Requested; accepted if only its issuer is not trusted.
    OptionalNoCa,
}

/// The authorities that a TLS client trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TrustAnchors {
    /// The host's CA certificates.
    System,
    /// Only these certificates; at least one.
    Certificates(#[serde(serialize_with = "number")] Vec<CertificateDer<'static>>),
}

/// Shows only how many certificates or lists there are: their bytes tell a reader nothing.
fn number<T, S: Serializer>(list: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    list.len().serialize(serializer)
}

/// Shows Unix seconds as a date.
fn date<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&jiff::Timestamp::from_second(*seconds).unwrap_or_default())
}
