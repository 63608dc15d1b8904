//! Verifies client certificates of X.509 version 1, which webpki cannot read.
//!
//! They have no extensions, so there is little to verify: dates, the issuer's name and signature, and revocation lists.
//! The issuer must be a configured authority. As in OpenSSL, chains of such certificates are not followed, because a
//! version 1 certificate does not say that it is an authority.

use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DigitallySignedStruct, PeerMisbehaved};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use webpki::{Error, RawPublicKeyEntity};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version};

use crate::tls::describe;
use crate::tls::parse::is_same_name;

/// Parses the certificate; `None` if it is not of version 1.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, parsed) = X509Certificate::from_der(der).ok()?;
    (rest.is_empty() && parsed.version() == X509Version::V1).then_some(parsed)
}

/// Checks that an authority has issued the certificate, and that it is valid now and not revoked.
pub(super) fn verify(
    leaf: &X509Certificate<'_>,
    authorities: &[CertificateDer<'_>],
    crls: &[Vec<u8>],
    now: UnixTime,
) -> Result<(), Error> {
    check_dates(leaf, now)?;
    let parsed = authorities.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1));
    let mut named = parsed.filter(|authority| is_same_name(leaf.issuer(), authority.subject())).peekable();
    if named.peek().is_none() {
        return Err(Error::UnknownIssuer);
    }
    let has_signed =
        |authority: &X509Certificate<'_>| leaf.verify_signature(Some(authority.public_key())).is_ok();
    let issuer = named
        .find(|authority| describe::weak_hash(leaf).is_none() && has_signed(authority))
        .ok_or(Error::InvalidSignatureForPublicKey)?;
    check_dates(&issuer, now)?;
    if crls.is_empty() { Ok(()) } else { check_revocation(leaf, &issuer, crls, now) }
}

/// Checks that the certificate is valid now.
pub(super) fn check_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = certificate.validity();
    let (not_before, not_after) =
        (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
    match now {
        _ if now < not_before => Err(Error::CertNotValidYet { time: now, not_before }),
        _ if now > not_after => Err(Error::CertExpired { time: now, not_after }),
        _ => Ok(()),
    }
}

/// Verifies a TLS 1.2 signature as rustls does, without its certificate parser.
pub(super) fn verify_tls12_signature(
    message: &[u8],
    certificate: &X509Certificate<'_>,
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let info = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
    let key = RawPublicKeyEntity::try_from(&info).map_err(|_| CertificateError::BadEncoding)?;
    let (_, possible) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == signed.scheme)
        .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let verified = possible.iter().any(|one| key.verify_signature(*one, message, signed.signature()).is_ok());
    if verified {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

/// Checks the issuer's own revocation lists. As with nginx's `ssl_crl`, every authority needs one.
fn check_revocation(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    crls: &[Vec<u8>],
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = crls.iter().filter_map(|der| Some(CertificateRevocationList::from_der(der).ok()?.1));
    let list = parsed
        .filter(|list| list.extensions().iter().all(|extension| !extension.critical))
        .filter(|list| is_same_name(list.issuer(), issuer.subject()))
        .find(|list| list.verify_signature(issuer.public_key()).is_ok())
        .ok_or(Error::UnknownRevocationStatus)?;
    let next_update = list.next_update().map_or(0, |time| time.timestamp());
    if now > time(next_update) {
        return Err(Error::CrlExpired { time: now, next_update: time(next_update) });
    }
    let serial = &leaf.tbs_certificate.serial;
    if list.iter_revoked_certificates().any(|revoked| revoked.serial() == serial) {
        return Err(Error::CertRevoked);
    }
    Ok(())
}

fn time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}
