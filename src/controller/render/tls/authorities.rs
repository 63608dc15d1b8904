//! Renders CA bundles: the trusted certificates, and those that are not used.

use rustls_pki_types::CertificateDer;

use crate::api::common::{BundleKind, BundleRef};
use crate::controller::reason::Reason;
use crate::controller::render::references::References;
use crate::controller::render::scope::Scope;
use crate::controller::violation::{Concern, Notice, Violation};
use crate::tls::parse::{self, Unused, UnusedAuthority};

use super::{pem, usable};

/// Returns the certificates of each bundle that can be read. Warns of certificates that are not used for one of the reasons in `named`.
pub(super) fn authorities(
    scope: &Scope<'_>,
    (setting, named): (&str, &[Unused]),
    bundles: &[BundleRef],
    references: &References<'_>,
) -> Vec<Vec<CertificateDer<'static>>> {
    let mut all = Vec::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let path = format!("{}[{index}]", scope.setting(setting));
        let key = scope.key(setting, &bundle.name);
        let pem = pem(scope, &path, &key, (bundle, "ca.crt"), references);
        let Some(parsed) = usable(scope, &path, pem.map(parse::authorities)) else { continue };
        let kind = match bundle.kind {
            BundleKind::Secret => "Secret",
            BundleKind::ConfigMap => "ConfigMap",
        };
        let unused = parsed.unused.iter().filter(|unused| named.contains(&unused.why));
        name_unused(scope, &path, &format!("{kind} {key}"), unused);
        all.push(parsed.certificates);
    }
    all
}

/// Warns of unused certificates. The others are trusted, as in nginx.
fn name_unused<'a>(
    scope: &Scope<'_>,
    path: &str,
    what: &str,
    all: impl Iterator<Item = &'a UnusedAuthority>,
) {
    for unused in all {
        let concern = Concern::Notice(Notice::CertificateUnusual);
        let remedy = "remove it from the bundle, or get a new certificate from the authority";
        scope.report(Violation::new(concern, Reason::AuthorityNotUsed, path, unused.problem(what), remedy));
    }
}
