//! Certificates, keys and trust, parsed and known to fit together.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use crate::secret::Secret;

/// TLS as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one; chosen by SNI, the first is the default.
    pub certificates: Vec<Arc<Certificate>>,
    /// The oldest version accepted.
    pub min_version: MinVersion,
    /// IANA names, in the order of preference; empty: the library's choice.
    pub cipher_suites: Vec<String>,
    /// Client certificates.
    pub client_auth: ClientAuth,
    /// Stateless resumption.
    pub session_tickets: bool,
    /// Stateful resumption (TLS 1.2 session ids): how many are kept.
    pub session_cache_size: usize,
    /// How long a ticket or cached session may be resumed.
    pub session_timeout: Duration,
}

impl ServerTls {
    /// Equal for equal settings, and most often not for others; cheap.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for certificate in &self.certificates {
            (&certificate.reference, certificate.not_after).hash(&mut hasher);
        }
        (&self.cipher_suites, self.session_cache_size, self.session_timeout).hash(&mut hasher);
        // Not their content, which may be long.
        let clients = &self.client_auth;
        (clients.authorities.len(), clients.crls.len(), clients.depth).hash(&mut hasher);
        hasher.finish()
    }
}

/// A certificate chain with the key that fits its leaf. Made only by `tls::parse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The Secret it came from: `namespace/name`.
    pub reference: String,
    /// Leaf first, each issued by the next.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, PKCS#8, PKCS#1 or SEC1, in DER.
    pub key: Secret,
    /// DNS names of the leaf's subjectAltName, in lower case.
    pub names: Vec<String>,
    /// Unix time in seconds from which the leaf is valid.
    pub not_before: i64,
    /// Unix time in seconds of the first certificate of the chain to expire.
    pub not_after: i64,
}

/// How long before its end a certificate is worth an alarm, in seconds: thirty days, and seven.
/// For a certificate that does not live long, it is no more than this part of its life: one of 90 days is renewed with
/// 30 left, and an alarm that is always there says nothing.
pub const EXPIRY_WARNINGS: [(i64, i64); 2] = [(30 * DAY, 4), (7 * DAY, 10)];

const DAY: i64 = 24 * 3600;

/// When there is something new to say of a certificate's end: the first warning, the second, and the end.
#[must_use]
pub fn expiry_alarms(not_before: i64, not_after: i64) -> [i64; 3] {
    let life = not_after.saturating_sub(not_before).max(0);
    let [month, week] =
        EXPIRY_WARNINGS.map(|(longest, part)| not_after.saturating_sub(longest.min(life / part)));
    [month, week, not_after]
}

/// The oldest TLS version accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl MinVersion {
    /// As manifests write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether they are asked for.
    pub mode: ClientAuthMode,
    /// Who is trusted to issue them; empty only for Disabled and OptionalNoCA.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Revocation lists, in DER.
    pub crls: Vec<Vec<u8>>,
    /// The longest chain accepted, in intermediate certificates.
    pub depth: u32,
}

/// nginx's `ssl_verify_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// Not asked for.
    Disabled,
    /// Asked for; verified when sent.
    Optional,
    /// Asked for; the session ends without one.
    Required,
    /// Asked for; accepted when only the trust is missing.
    OptionalNoCa,
}

/// Who is trusted as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustAnchors {
    /// The host's own roots.
    System,
    /// These certificates only; at least one.
    Certificates(Vec<CertificateDer<'static>>),
}
