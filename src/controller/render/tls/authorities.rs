//! Renders CA bundles: the trusted certificates, and those that are not used.

use rustls_pki_types::CertificateDer;

use crate::api::common::{BundleKind, BundleRef};
use crate::controller::reason::Reason;
use crate::controller::render::references::References;
use crate::controller::render::scope::Scope;
use crate::controller::violation::{Concern, Notice, Violation};
use crate::tls::parse::{self, Unused, UnusedAuthority};

use super::{pem, usable};

/// Returns the certificates of all bundles. Warns of certificates that are not used for one of the reasons in `named`.
pub(super) fn authorities(
    scope: &Scope<'_>,
    (setting, named): (&str, &[Unused]),
    bundles: &[BundleRef],
    references: &References<'_>,
    found: &mut Vec<Violation>,
) -> Vec<CertificateDer<'static>> {
    let mut all = Vec::new();
    for (index, bundle) in bundles.iter().enumerate() {
        let path = format!("{}[{index}]", scope.setting(setting));
        let key = scope.key(setting, &bundle.name);
        let pem = pem(&path, &key, (bundle, "ca.crt"), references, found);
        let Some(parsed) = usable(&path, pem.map(parse::authorities), found) else { continue };
        let kind = match bundle.kind {
            BundleKind::Secret => "Secret",
            BundleKind::ConfigMap => "ConfigMap",
        };
        let unused = parsed.unused.iter().filter(|unused| named.contains(&unused.why));
        name_unused(&path, &format!("{kind} {key}"), unused, found);
        all.extend(parsed.certificates);
    }
    all
}

/// Warns of unused certificates. The others are trusted, as in nginx.
fn name_unused<'a>(
    path: &str,
    what: &str,
    all: impl Iterator<Item = &'a UnusedAuthority>,
    found: &mut Vec<Violation>,
) {
    for unused in all {
        let concern = Concern::Notice(Notice::CertificateUnusual);
        let remedy = "take it out of the bundle, or have the authority issue it again";
        found.push(Violation::new(concern, Reason::AuthorityNotUsed, path, unused.problem(what), remedy));
    }
}
