//! Certificate authorities and their certificates.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// The authority that all tests share.
pub static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("Test CA"));

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate and those above it, without the root.
    chain: Vec<CertificateDer<'static>>,
}

/// A certificate with its key.
pub struct Identity {
    /// The certificate in PEM.
    pub certificate: String,
    /// The certificate in DER.
    pub der: CertificateDer<'static>,
    /// The certificate and those above it, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key in PEM.
    pub key: String,
    /// The serial number, for revocation lists.
    pub serial: u64,
}

impl Authority {
    /// Creates a self-signed authority.
    pub fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap();
        Self { issuer, chain: Vec::new() }
    }

    /// Creates an authority whose certificate this one issues.
    pub fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(authority(name), key, &self.issuer).unwrap();
        let chain = [&[issuer.der().clone()], self.chain.as_slice()].concat();
        Self { issuer, chain }
    }

    /// Returns a revocation list in PEM with these certificates.
    pub fn revocation_list(&self, revoked: &[&Identity]) -> String {
        let revoked_certs = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Returns its own certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes its certificate to a file.
    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.pem()).unwrap();
    }

    /// Issues a certificate for these DNS names and addresses, for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 4096)
    }

    /// As [`Self::issue`], valid until the start of this year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        self.issue_with(names, |params| params.not_after = date_time_ymd(year, 1, 1))
    }

    /// As [`Self::issue`], valid for this number of days.
    #[allow(dead_code, reason = "short lives are a matter of tests/cluster")]
    pub fn issue_for_days(&self, names: &[&str], days: u64) -> Identity {
        self.issue_with(names, |params| {
            params.not_before = SystemTime::now().into();
            params.not_after = (SystemTime::now() + Duration::from_secs(days * 24 * 3600)).into();
        })
    }

    fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        static NEXT: AtomicU64 = AtomicU64::new(0x4711);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        change(&mut params);
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Python 3.13 and newer require this extension.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let der = certificate.der().clone();
        let chain = [std::slice::from_ref(&der), self.chain.as_slice()].concat();
        Identity { certificate: certificate.pem(), der, chain, key: key.serialize_pem(), serial }
    }

    /// Issues a certificate for all names that tests use for a listener.
    pub fn issue_for_loopback(&self) -> Identity {
        self.issue(&["localhost", "mail.example.test", "127.0.0.1", "::1"])
    }

    /// Returns a TLS client that trusts only this authority.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
