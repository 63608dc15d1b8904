//! Renders TLS for clients, and referenced certificates, CA bundles and revocation lists.

mod authorities;

use std::sync::Arc;
use std::time::Duration;

use crate::api::common::{BundleKind, BundleRef};
use crate::api::{Settings, tls as api};
use crate::controller::index::{Key, Reference, ReferenceKind, SecretData};
use crate::controller::reason::Reason;
use crate::controller::violation::{Concern, Notice, Violation};
use crate::model::tls::expiry_alarms;
use crate::model::{
    Certificate, ClientAuth, ClientAuthMode, Hostname, MinVersion, ServerTls, TlsMode, TrustAnchors,
};
use crate::protocol::Protocol;
use crate::tls::parse::{self, CertificateWarning, Unused};

use super::bounds;
use super::certificates::Loaded;
use super::references::References;
use super::scope::Scope;
use authorities::authorities;

/// Returns the configured mode, or the default for the port and the certificates.
pub(crate) fn mode(settings: &Settings, port: Option<u16>) -> TlsMode {
    let tls = settings.tls.as_ref();
    let certificates = tls.and_then(|tls| tls.certificate_refs.as_ref()).is_some_and(|refs| !refs.is_empty());
    match tls.and_then(|tls| tls.mode) {
        Some(api::TlsMode::Disabled) => TlsMode::Disabled,
        Some(api::TlsMode::StartTls) => TlsMode::StartTls,
        Some(api::TlsMode::RequireStartTls) => TlsMode::RequireStartTls,
        Some(api::TlsMode::Implicit) => TlsMode::Implicit,
        None => match port {
            Some(port) if Protocol::is_implicit_tls(port) => TlsMode::Implicit,
            _ if !certificates => TlsMode::Disabled,
            Some(25) => TlsMode::StartTls,
            _ => TlsMode::RequireStartTls,
        },
    }
}

/// Renders the settings of a TLS server; `None` without TLS or without a usable certificate.
pub(crate) fn server(
    scope: &Scope<'_>,
    settings: &Settings,
    mode: TlsMode,
    references: &mut References<'_>,
    now: i64,
) -> Option<ServerTls> {
    if mode == TlsMode::Disabled {
        return None;
    }
    let tls = settings.tls.clone().unwrap_or_default();
    let certificates = certificates(scope, &tls, mode, references, now);
    let cipher_suites = tls.cipher_suites.clone().unwrap_or_default();
    if let Err(error) = parse::cipher_suites(&cipher_suites) {
        scope.report(Violation::invalid(&scope.setting("tls.cipherSuites"), error.to_string(), ""));
    }
    if tls.min_version == Some(api::MinVersion::Tls13) && !parse::has_suite_of_tls13(&cipher_suites) {
        let problem = "the list has no suite of TLSv1.3, and tls.minVersion is TLSv1.3";
        let path = scope.setting("tls.cipherSuites");
        scope.report(Violation::invalid(&path, problem, "add one of TLSv1.3, or remove one of the fields"));
    }
    if !parse::has_usable_suite(&cipher_suites, &certificates) {
        let problem = "no client can connect: none of the suites fits the key of a certificate, and none is for TLSv1.3";
        let remedy = "add suites for the type of the key (ECDHE_ECDSA or ECDHE_RSA), or suites for TLSv1.3";
        scope.report(Violation::invalid(&scope.setting("tls.cipherSuites"), problem, remedy));
    }
    let cache = tls.session_cache.clone().unwrap_or_default();
    let timeout = bounds::deadline(Duration::from_secs(300));
    let tls = ServerTls {
        min_version: match tls.min_version {
            None | Some(api::MinVersion::Tls12) => MinVersion::Tls12,
            Some(api::MinVersion::Tls13) => MinVersion::Tls13,
        },
        cipher_suites,
        client_auth: client_auth(scope, tls.client_auth.unwrap_or_default(), references),
        session_tickets: tls.session_tickets.unwrap_or(true),
        session_cache_size: usize::try_from(cache.size.unwrap_or(20_480)).unwrap_or(usize::MAX),
        session_timeout: bounds::duration(
            scope,
            &scope.setting("tls.sessionCache.timeout"),
            cache.timeout.as_ref(),
            timeout,
        ),
        certificates,
    };
    (!tls.certificates.is_empty()).then_some(tls)
}

/// Warns of names that no certificate contains: the host names or, without host names, the configured server name. The
/// default server name is the Pod's name, which clients do not use.
pub(crate) fn check_names(
    scope: &Scope<'_>,
    hostnames: &[Hostname],
    server_name: Option<&str>,
    tls: &ServerTls,
) {
    let server_name = server_name.filter(|_| hostnames.is_empty()).map(Hostname::new);
    let path = if server_name.is_some() { scope.setting("serverName") } else { scope.field("hostnames") };
    let covered = |hostname: &Hostname| {
        let mut names = tls.certificates.iter().flat_map(|certificate| &certificate.names);
        names.any(|name| {
            let name = Hostname::new(name);
            name == *hostname || name.covers(hostname.as_str())
        })
    };
    let names = hostnames.iter().chain(&server_name);
    let missing: Vec<&str> = names.filter(|name| !covered(name)).map(Hostname::as_str).collect();
    if !missing.is_empty() {
        scope.report(Violation::notice(
            Notice::HostnameNotCovered,
            &path,
            format!("no certificate of this listener is for {}", missing.join(", ")),
            "add a certificate with these names to tls.certificateRefs",
        ));
    }
}

/// Returns the certificate of a Secret.
pub(crate) fn certificate(
    scope: &Scope<'_>,
    path: &str,
    key: &Key,
    references: &mut References<'_>,
) -> Option<Loaded> {
    let remedy = "create it, or correct the name";
    let secret = references.secret(key).required(scope, (ReferenceKind::Secret, key), path, remedy)?;
    match references.certificates.of(key, secret) {
        Ok(loaded) => Some(loaded),
        Err(problem) => {
            scope.report(Violation::unusable(path, format!("Secret {key}: {problem}"), ""));
            None
        }
    }
}

/// Renders the CAs that a TLS client trusts: the given bundles, or those of the system.
pub(crate) fn trust(
    scope: &Scope<'_>,
    setting: &str,
    bundles: &[BundleRef],
    references: &References<'_>,
) -> TrustAnchors {
    if bundles.is_empty() {
        return TrustAnchors::System;
    }
    // For chains of backends, the TLS library accepts any trusted certificate as a CA.
    let read = authorities(scope, (setting, &[Unused::Unknown]), bundles, references);
    let (are_all_read, trusted) = (read.len() == bundles.len(), read.concat());
    if trusted.is_empty() && are_all_read {
        scope.report(Violation::unusable(
            &scope.setting(setting),
            parse::ParseError::UnusableAuthorities.to_string(),
            "",
        ));
    }
    TrustAnchors::Certificates(trusted)
}

fn certificates(
    scope: &Scope<'_>,
    tls: &api::TlsSettings,
    mode: TlsMode,
    references: &mut References<'_>,
    now: i64,
) -> Vec<Arc<Certificate>> {
    let names = tls.certificate_refs.as_deref().unwrap_or_default();
    if names.is_empty() {
        scope.report(Violation::invalid(
            &scope.absent("tls.certificateRefs"),
            format!("TLS mode {} needs a certificate", mode.name()),
            "name a Secret of type kubernetes.io/tls there, or set tls.mode: Disabled",
        ));
    }
    let mut certificates = Vec::new();
    for (index, reference) in names.iter().enumerate() {
        let path = format!("{}[{index}]", scope.setting("tls.certificateRefs"));
        let key = scope.key("tls.certificateRefs", &reference.name);
        let Some(loaded) = certificate(scope, &path, &key, references) else { continue };
        references.until(&alarms(&loaded.certificate));
        report_warnings(scope, &path, &loaded, now);
        check_expiry(scope, &path, &loaded.certificate, now);
        certificates.push(loaded.certificate);
    }
    certificates
}

/// Returns the times at which the warnings change: the start of the validity, both warnings, and the end.
fn alarms(certificate: &Certificate) -> [i64; 4] {
    let [month, week, end] = expiry_alarms(certificate.not_before, certificate.not_after);
    [certificate.not_before, month, week, end]
}

/// Warns of properties for which clients may refuse the certificate. It is served anyway, as nginx does.
fn report_warnings(scope: &Scope<'_>, path: &str, loaded: &Loaded, now: i64) {
    let push = |reason, problem, remedy: &str| {
        scope.report(Violation::new(
            Concern::Notice(Notice::CertificateUnusual),
            reason,
            path,
            problem,
            remedy,
        ));
    };
    let certificate = &loaded.certificate;
    let what = format!("Secret {}", certificate.reference);
    for warning in &*loaded.warnings {
        let reason = match warning {
            CertificateWarning::Version1 => Reason::CertificateVersion1,
            CertificateWarning::Rearranged(_) => Reason::ChainRearranged,
            CertificateWarning::NotInOrder => Reason::ChainNotInOrder,
            CertificateWarning::NoAlternativeName => Reason::NoAlternativeName,
            CertificateWarning::WrongPurpose(_) => Reason::WrongPurpose,
            CertificateWarning::WeakSignature(_) => Reason::WeakSignature,
        };
        push(reason, warning.problem(&what), warning.remedy());
    }
    if now < certificate.not_before {
        let when = jiff::Timestamp::from_second(certificate.not_before).unwrap_or_default();
        let problem = format!("the certificate of {what} is not valid before {when} and is still being used");
        push(
            Reason::CertificateNotYetValid,
            problem,
            "wait, put another certificate into the Secret, or correct the clock",
        );
    }
}

fn check_expiry(scope: &Scope<'_>, path: &str, certificate: &Certificate, now: i64) {
    let [_, month, week, end] = alarms(certificate);
    let (notice, reason, verb) = match now {
        _ if now >= end => (Notice::CertificateExpired, Reason::CertificateExpired, "expired"),
        _ if now >= week => (Notice::CertificateExpiring, Reason::ExpiresWithinAWeek, "expires"),
        _ if now >= month => (Notice::CertificateExpiring, Reason::ExpiresWithinAMonth, "expires"),
        _ => return,
    };
    let when = jiff::Timestamp::from_second(certificate.not_after).unwrap_or_default();
    let problem = format!(
        "the certificate in Secret {} {verb} at {when} and is still being used",
        certificate.reference
    );
    let remedy = "put a new one into the Secret";
    scope.report(Violation::new(Concern::Notice(notice), reason, path, problem, remedy));
}

fn client_auth(scope: &Scope<'_>, settings: api::ClientAuth, references: &References<'_>) -> ClientAuth {
    let mode = match settings.mode {
        None | Some(api::ClientAuthMode::Disabled) => ClientAuthMode::Disabled,
        Some(api::ClientAuthMode::Optional) => ClientAuthMode::Optional,
        Some(api::ClientAuthMode::Required) => ClientAuthMode::Required,
        Some(api::ClientAuthMode::OptionalNoCa) => ClientAuthMode::OptionalNoCa,
    };
    let depth = settings.depth.unwrap_or(1);
    if mode == ClientAuthMode::Disabled {
        return ClientAuth { mode, authorities: vec![], crls: vec![], depth };
    }
    let bundles = settings.ca_certificate_refs.unwrap_or_default();
    if bundles.is_empty() && mode != ClientAuthMode::OptionalNoCa {
        scope.report(Violation::invalid(
            &scope.setting("tls.clientAuth.caCertificateRefs"),
            "there is no CA to verify client certificates",
            "name a ConfigMap or Secret with the CA's certificate",
        ));
    }
    let setting = "tls.clientAuth.crlRefs";
    let mut crls = Vec::new();
    for (index, bundle) in settings.crl_refs.iter().flatten().enumerate() {
        let path = format!("{}[{index}]", scope.setting(setting));
        let pem = pem(scope, &path, &scope.key(setting, &bundle.name), (bundle, "ca.crl"), references);
        crls.extend(usable(scope, &path, pem.map(parse::crls)).into_iter().flatten());
    }
    let unused = [Unused::Unknown, Unused::NotAnAuthority];
    let setting = "tls.clientAuth.caCertificateRefs";
    let authorities = authorities(scope, (setting, &unused), &bundles, references).concat();
    ClientAuth { mode, authorities, crls, depth }
}

/// Returns the PEM data of a bundle. `default` is the key if the reference has none.
fn pem<'a>(
    scope: &Scope<'_>,
    path: &str,
    key: &Key,
    (bundle, default): (&BundleRef, &str),
    references: &'a References<'_>,
) -> Option<&'a [u8]> {
    let name = bundle.key.as_deref().unwrap_or(default);
    let (kind, data) = match bundle.kind {
        BundleKind::Secret => {
            let value =
                |secret: &'a Arc<SecretData>| secret.data.get(name).map(crate::secret::Secret::expose);
            (ReferenceKind::Secret, references.secret(key).map(value))
        }
        BundleKind::ConfigMap => (ReferenceKind::ConfigMap, references.in_config_map(key, name)),
    };
    let value = data.required(scope, (kind, key), path, "create it, or correct kind and name")?;
    if value.is_none() {
        let problem = format!("{} has no key {name:?}", Reference::new(kind, key));
        scope.report(Violation::missing(path, problem, "add the key, or name another one in key"));
    }
    value
}

fn usable<T>(scope: &Scope<'_>, path: &str, parsed: Option<Result<T, parse::ParseError>>) -> Option<T> {
    match parsed? {
        Ok(value) => Some(value),
        Err(error) => {
            scope.report(Violation::unusable(path, error.to_string(), ""));
            None
        }
    }
}
