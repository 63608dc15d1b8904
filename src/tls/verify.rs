//! Client certificates: asked for in the handshake, judged after it.
//!
//! A client whose certificate is bad gets the protocol's own text (`* BYE SSL certificate error`), as with
//! nginx, and not a TLS alert. So the handshake checks only that the client holds the key, and
//! [`ClientVerifier::judge`] checks the chain when the session can already speak. It runs for resumed
//! sessions too: a certificate revoked meanwhile is noticed.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptions, RevocationOptionsBuilder, VerifiedPath,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{ClientAuth, ClientAuthMode};
use crate::protocol::notices::CertificateProblem;

use super::TlsError;

/// What is known of the client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It was not asked for.
    NotRequested,
    /// It was asked for and not sent.
    Absent,
    /// It was sent, and the client holds its key.
    Presented {
        /// The certificate itself.
        der: CertificateDer<'static>,
        /// Or why it is not trusted, in OpenSSL's words where it has some.
        verified: Result<(), String>,
    },
}

/// Asks for certificates, lets every handshake through, and judges afterwards.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    mode: ClientAuthMode,
    authorities: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    depth: usize,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    pub(super) fn new(auth: &ClientAuth, crypto: &CryptoProvider) -> Result<Self, TlsError> {
        let anchor = |der: &CertificateDer<'static>| {
            webpki::anchor_from_trusted_cert(der)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| TlsError::Authority(error.to_string()))
        };
        let crl = |der: &Vec<u8>| {
            OwnedCertRevocationList::from_der(der)
                .map(CertRevocationList::Owned)
                .map_err(|error| TlsError::Crl(error.to_string()))
        };
        let anchors = auth.authorities.iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let hints = hints(&anchors);
        Ok(Self {
            mode: auth.mode,
            authorities: auth.authorities.clone(),
            anchors,
            crls: auth.crls.iter().map(crl).collect::<Result<_, _>>()?,
            depth: usize::try_from(auth.depth).unwrap_or(usize::MAX),
            hints,
            algorithms: crypto.signature_verification_algorithms,
        })
    }

    /// What the handshake left, and whether the session may go on.
    pub(super) fn judge(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        now: UnixTime,
    ) -> (ClientCertificate, Option<CertificateProblem>) {
        if self.mode == ClientAuthMode::Disabled {
            return (ClientCertificate::NotRequested, None);
        }
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            let missing = self.mode == ClientAuthMode::Required;
            return (ClientCertificate::Absent, missing.then_some(CertificateProblem::Missing));
        };
        let verdict = self.verify(leaf, intermediates, now);
        let tolerated = match &verdict {
            Ok(()) => true,
            Err(error) => self.mode == ClientAuthMode::OptionalNoCa && is_only_untrusted(error),
        };
        let verified = verdict.map_err(|error| reason(&error));
        let client = ClientCertificate::Presented { der: leaf.clone().into_owned(), verified };
        (client, (!tolerated).then_some(CertificateProblem::Invalid))
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        if self.crls.is_empty() && is_trusted_itself(leaf, &self.authorities, now) {
            return Ok(());
        }
        let shallow = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > self.depth {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        let crls: Vec<_> = self.crls.iter().collect();
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            revocation(&crls),
            Some(&shallow),
        )?;
        Ok(())
    }
}

/// Every certificate of the chain needs a current list, as with nginx's `ssl_crl`.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(crls).ok()?;
    Some(builder.with_expiration_policy(ExpirationPolicy::Enforce).build())
}

/// Whether the very certificate is among the trusted ones and in date. webpki refuses that for the
/// self-signed certificates that `openssl req -x509` makes, because they call themselves a CA; OpenSSL,
/// and so nginx, accepts them.
pub(super) fn is_trusted_itself(
    leaf: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
    now: UnixTime,
) -> bool {
    trusted.iter().any(|other| other.as_ref() == leaf.as_ref())
        && X509Certificate::from_der(leaf).is_ok_and(|(_, parsed)| {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let validity = parsed.validity();
            (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
        })
}

/// nginx's list for `optional_no_ca`: nothing is wrong with the certificate but who signed it.
fn is_only_untrusted(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity)
}

/// As OpenSSL says it, because auth services compare `Auth-SSL-Verify`.
fn reason(error: &webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } => "certificate has expired".to_owned(),
        Error::CertNotValidYet { .. } => "certificate is not yet valid".to_owned(),
        Error::CertRevoked => "certificate revoked".to_owned(),
        Error::UnknownIssuer => "unable to get local issuer certificate".to_owned(),
        Error::CaUsedAsEndEntity => "self-signed certificate".to_owned(),
        Error::UnknownRevocationStatus => "unable to get certificate CRL".to_owned(),
        Error::CrlExpired { .. } => "CRL has expired".to_owned(),
        Error::MaximumPathDepthExceeded => "certificate chain too long".to_owned(),
        Error::PathLenConstraintViolated => "path length constraint exceeded".to_owned(),
        Error::InvalidSignatureForPublicKey => "certificate signature failure".to_owned(),
        Error::RequiredEkuNotFoundContext(_) => "unsuitable certificate purpose".to_owned(),
        other => other.to_string(),
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.mode != ClientAuthMode::Disabled
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The authorities' names, as a help for clients with several certificates. A list that would not fit into TLS's message
/// is left empty, which means: any (RFC 8446 section 4.2.4).
fn hints(anchors: &[TrustAnchor<'static>]) -> Vec<DistinguishedName> {
    let hints: Vec<DistinguishedName> =
        anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
    let bytes: usize = hints.iter().map(|name| name.as_ref().len().saturating_add(HINT_OVERHEAD)).sum();
    if bytes > MAX_HINT_BYTES { Vec::new() } else { hints }
}

/// The length before each name.
const HINT_OVERHEAD: usize = 2;
/// The list's length has 16 bits, and clients take a message of 65,535 bytes; the rest is for what stands beside the list.
const MAX_HINT_BYTES: usize = 60_000;
