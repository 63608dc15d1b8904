//! Client certificates: requested in the handshake, judged after it.
//!
//! As with nginx, a client with a bad certificate gets the protocol's error (`* BYE SSL certificate error`), not a TLS
//! alert. Therefore the handshake only checks that the client has the key. [`ClientVerifier::judge`] checks the chain
//! when the session can send a reply. It also checks resumed sessions, so that a certificate revoked in the meantime is
//! noticed.

mod version1;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptions, RevocationOptionsBuilder, VerifiedPath,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{ClientAuth, ClientAuthMode};
use crate::protocol::notices::CertificateProblem;

use super::TlsError;
use super::parse::is_authority;

/// The client's certificate after the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No certificate was requested.
    NotRequested,
    /// The client sent no certificate.
    Absent,
    /// The client sent a certificate and has its key.
    Presented {
        /// The client's own certificate.
        der: CertificateDer<'static>,
        /// Whether it is trusted, else the reason, in OpenSSL's words if possible.
        verified: Result<(), String>,
    },
}

/// Requests certificates, accepts every handshake, and judges the certificate later.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    mode: ClientAuthMode,
    authorities: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    /// The same lists in DER, for certificates of version 1.
    raw_crls: Vec<Vec<u8>>,
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
            raw_crls: auth.crls.clone(),
            crls: auth.crls.iter().map(crl).collect::<Result<_, _>>()?,
            depth: usize::try_from(auth.depth).unwrap_or(usize::MAX),
            hints,
            algorithms: crypto.signature_verification_algorithms,
        })
    }

    /// Judges the certificate of a handshake. Returns the problem if the session must end.
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
        if let Some(old) = version1::parse(leaf) {
            return version1::verify(&old, &self.authorities, &self.raw_crls, now);
        }
        let is_accepted = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > self.depth {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            self.check_anchor(path.anchor(), leaf, now)
        };
        let crls: Vec<_> = self.crls.iter().collect();
        EndEntityCert::try_from(leaf)?.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            KeyUsage::client_auth(),
            revocation(&crls),
            Some(&is_accepted),
        )?;
        Ok(())
    }

    /// webpki accepts every anchor. OpenSSL, and so nginx, requires that it is valid now and an authority. A renewed
    /// authority has several certificates with the same name and key; one valid certificate is enough.
    fn check_anchor(
        &self,
        anchor: &TrustAnchor<'_>,
        leaf: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), webpki::Error> {
        let is_same = |other: &TrustAnchor<'_>| {
            other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut verdict = Ok(());
        for (_, der) in self.anchors.iter().zip(&self.authorities).filter(|(other, _)| is_same(other)) {
            let Ok((_, parsed)) = X509Certificate::from_der(der) else { continue };
            verdict = match version1::check_dates(&parsed, now) {
                Ok(()) if der.as_ref() == leaf.as_ref() || is_authority(&parsed) => return Ok(()),
                Ok(()) => Err(webpki::Error::EndEntityUsedAsCa),
                Err(error) => Err(error),
            };
        }
        verdict
    }
}

/// Every certificate of the chain needs a current list, as with nginx's `ssl_crl`.
fn revocation<'a>(crls: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(crls).ok()?;
    Some(builder.with_expiration_policy(ExpirationPolicy::Enforce).build())
}

/// Tells whether the certificate itself is among the trusted ones and valid now. webpki refuses this for the
/// self-signed certificates of `openssl req -x509`, which are marked as CA. OpenSSL, and so nginx, accepts them.
pub(super) fn is_trusted_itself(
    leaf: &CertificateDer<'_>,
    trusted: &[CertificateDer<'static>],
    now: UnixTime,
) -> bool {
    trusted.iter().any(|other| other.as_ref() == leaf.as_ref())
        && X509Certificate::from_der(leaf)
            .is_ok_and(|(_, parsed)| version1::check_dates(&parsed, now).is_ok())
}

/// The errors that nginx accepts with `optional_no_ca`: only the issuer is not trusted.
fn is_only_untrusted(error: &webpki::Error) -> bool {
    matches!(error, webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity)
}

/// Uses OpenSSL's words, because auth services compare `Auth-SSL-Verify`.
fn reason(error: &webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } => "certificate has expired".to_owned(),
        Error::CertNotValidYet { .. } => "certificate is not yet valid".to_owned(),
        Error::CertRevoked => "certificate revoked".to_owned(),
        Error::UnknownIssuer => "unable to get local issuer certificate".to_owned(),
        Error::EndEntityUsedAsCa => "invalid CA certificate".to_owned(),
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
        match version1::parse(cert) {
            Some(old) => version1::verify_tls12_signature(message, &old, dss, &self.algorithms),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match version1::parse(cert) {
            Some(old) => {
                let key = SubjectPublicKeyInfoDer::from(old.public_key().raw);
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns the names of the authorities, which help clients with several certificates. Returns an empty list, which
/// means any authority (RFC 8446 section 4.2.4), if the names do not fit into TLS's message.
fn hints(anchors: &[TrustAnchor<'static>]) -> Vec<DistinguishedName> {
    let hints: Vec<DistinguishedName> =
        anchors.iter().map(|anchor| DistinguishedName::in_sequence(&anchor.subject)).collect();
    let bytes: usize = hints.iter().map(|name| name.as_ref().len().saturating_add(HINT_OVERHEAD)).sum();
    if bytes > MAX_HINT_BYTES { Vec::new() } else { hints }
}

/// Bytes for the length before each name.
const HINT_OVERHEAD: usize = 2;
/// The list's length has 16 bits, and clients accept a message of 65,535 bytes. This leaves room for the rest of the
/// message.
const MAX_HINT_BYTES: usize = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider;
    use crate::tls::testing::{Ca, client_auth, named};
    use rcgen::{CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

    /// Returns the verdict on a certificate of `issuer` if `trusted` are the authorities.
    fn verdict(issuer: &Ca, trusted: &[&Ca]) -> Result<(), String> {
        let trusted = trusted.iter().map(|ca| ca.der()).collect();
        let auth = client_auth(ClientAuthMode::Required, trusted);
        let verifier = ClientVerifier::new(&auth, &provider()).unwrap();
        match verifier.judge(Some(&[issuer.issue(&["alice"]).der]), UnixTime::now()).0 {
            ClientCertificate::Presented { verified, .. } => verified,
            other => panic!("{other:?}"),
        }
    }

    fn authority(is_ca: IsCa, until: i32, key: &KeyPair) -> Ca {
        let mut params = named("ca", &[]);
        (params.is_ca, params.not_after) = (is_ca, date_time_ymd(until, 1, 1));
        let key = KeyPair::from_pem(&key.serialize_pem()).unwrap();
        Ca::of(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    const CA: IsCa = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);

    #[test]
    fn no_chain_goes_through_an_authority_that_has_expired() {
        let key = KeyPair::generate().unwrap();
        let (old, renewed) = (authority(CA, 2020, &key), authority(CA, 2090, &key));
        assert_eq!(verdict(&old, &[&old]), Err("certificate has expired".to_owned()));
        assert_eq!(verdict(&old, &[&old, &renewed]), Ok(()), "it was renewed with the same key");
        assert_eq!(verdict(&old, &[&renewed, &old, &old]), Ok(()));
    }

    #[test]
    fn no_chain_goes_through_a_trusted_certificate_that_is_no_authority() {
        let key = KeyPair::generate().unwrap();
        let not_one = authority(IsCa::ExplicitNoCa, 2090, &key);
        assert_eq!(verdict(&not_one, &[&not_one]), Err("invalid CA certificate".to_owned()));
    }
}
