//! Certificates and models for the tests of `tls`, created at run time.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

use crate::model::settings::{Limits, LoadBalancing, Timeouts, Upstream, UpstreamTls};
use crate::model::{
    Auth, Backend, Certificate, ClientAuth, ClientAuthMode, Hostname, Listener, ListenerId, Listeners,
    MinVersion, Reach, ServerTls, Socket, TlsMode,
};
use crate::net::{ListenAddress, SocketOptions};
use crate::protocol::proxy_header::ProxyVersion;
use crate::protocol::{Cleartext, FrontendConfig, Input, Protocol};

/// A certificate authority, self-signed or below another one.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate in PEM with its key.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: KeyPair,
    pub(super) der: CertificateDer<'static>,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn of(issuer: CertifiedIssuer<'static, KeyPair>) -> Self {
        Self(issuer)
    }

    pub(super) fn below(&self, name: &str) -> Self {
        self.below_with(Self::params(name))
    }

    pub(super) fn below_with(&self, params: CertificateParams) -> Self {
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    pub(super) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(named("leaf", names), KeyPair::generate().unwrap())
    }

    pub(super) fn issue_with(&self, params: CertificateParams, key: KeyPair) -> Issued {
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: certificate.pem(), der: certificate.der().clone(), key }
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns a revocation list with the serial number of [`revocable`].
    pub(super) fn crl(&self, next_update: i32) -> rcgen::CertificateRevocationList {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap()
    }
}

impl Issued {
    pub(super) fn model(&self) -> Arc<Certificate> {
        let key = self.key.serialize_pem();
        let parsed = super::parse::certificate("mail/tls", self.chain.as_bytes(), key.as_bytes()).unwrap();
        Arc::new(parsed.certificate)
    }
}

const REVOKED: u64 = 4711;

pub(super) fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// A client's certificate that [`Ca::crl`] revokes.
pub(super) fn revocable() -> CertificateParams {
    let mut params = named("alice", &[]);
    params.serial_number = Some(SerialNumber::from(REVOKED));
    params
}

pub(super) fn server_tls(certificates: Vec<Arc<Certificate>>) -> ServerTls {
    ServerTls {
        certificates,
        min_version: MinVersion::Tls12,
        cipher_suites: Vec::new(),
        client_auth: client_auth(ClientAuthMode::Disabled, Vec::new()),
        session_tickets: true,
        session_cache_size: 64,
        session_timeout: Duration::from_secs(300),
    }
}

pub(super) fn client_auth(mode: ClientAuthMode, authorities: Vec<CertificateDer<'static>>) -> ClientAuth {
    ClientAuth { mode, authorities, crls: Vec::new(), depth: 1 }
}

fn frontend() -> FrontendConfig {
    FrontendConfig { server_name: "mail.test".to_owned(), ..FrontendConfig::default() }
}

/// A listener with the first host name as its name.
pub(super) fn listener(hostnames: &[&str], tls: ServerTls) -> Arc<Listener> {
    let upstream = Upstream {
        tls: UpstreamTls::Disabled,
        proxy_protocol: Some(ProxyVersion::V2),
        xclient: None,
        client_hello: false,
        smtp_auth: false,
        imap_id: false,
        pass_error_message: false,
        load_balancing: LoadBalancing::RoundRobin,
        health_check: None,
    };
    Arc::new(Listener {
        id: ListenerId {
            namespace: "mail".to_owned(),
            object: "example".to_owned(),
            listener: hostnames.first().copied().unwrap_or_default().to_owned(),
        },
        hostnames: hostnames.iter().map(|name| Hostname::new(name)).collect(),
        frontend: Arc::new(frontend()),
        tls: Some(Arc::new(tls)),
        auth: Auth::Passthrough,
        backend: Some(Arc::new(Backend::new("test".into(), Vec::new()))),
        routes: None,
        reach: Reach::Anywhere,
        upstream: Arc::new(upstream),
        resolver: Arc::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
        greeting_delay: Duration::ZERO,
    })
}

pub(super) fn socket(listeners: Vec<Arc<Listener>>) -> Arc<Socket> {
    Arc::new(Socket {
        address: ListenAddress::Any { port: 993 },
        options: SocketOptions::default(),
        protocol: Protocol::Imap,
        tls_mode: TlsMode::Implicit,
        proxy_protocol: None,
        listeners: Listeners::new(Arc::clone(&listeners[0]), listeners.into_iter().skip(1)),
    })
}

/// A stream from which nothing was read.
pub(super) fn clear<S>(stream: S) -> Cleartext<S> {
    Cleartext::new(stream, Input::new(0))
}
