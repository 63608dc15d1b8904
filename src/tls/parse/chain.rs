//! Sorts a certificate chain: the server's own certificate, then each one's issuer (RFC 8446 section 4.4.2).

use std::collections::HashSet;

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{X509Certificate, X509Name};

use super::CertificateWarning;

/// The certificates of a chain to serve.
pub(super) struct Arranged {
    /// Their positions in the file, counted from 0, in the order to serve.
    pub(super) order: Vec<usize>,
    /// A warning about the file.
    pub(super) warning: Option<CertificateWarning>,
}

/// Sorts a chain and drops certificates that do not belong to it. If several orders are possible (an authority with two
/// certificates), only drops duplicates. The first certificate stays the first.
pub(super) fn arrange(chain: &[X509Certificate<'_>]) -> Arranged {
    let mut seen = HashSet::new();
    let distinct: Vec<(usize, &X509Certificate<'_>)> =
        chain.iter().enumerate().filter(|(_, certificate)| seen.insert(certificate.as_raw())).collect();
    let positions =
        |of: &[(usize, &X509Certificate<'_>)]| of.iter().map(|(index, _)| *index).collect::<Vec<_>>();
    let is_in_order = distinct
        .iter()
        .zip(distinct.iter().skip(1))
        .all(|((_, child), (_, parent))| is_same_name(child.issuer(), parent.subject()));
    if is_in_order {
        let order = positions(&distinct);
        let warning = (order.len() < chain.len()).then(|| CertificateWarning::Rearranged(order.clone()));
        return Arranged { order, warning };
    }
    match path(&distinct) {
        Some(path) => {
            let order = positions(&path);
            Arranged { order: order.clone(), warning: Some(CertificateWarning::Rearranged(order)) }
        }
        None => Arranged { order: positions(&distinct), warning: Some(CertificateWarning::NotInOrder) },
    }
}

/// Follows the issuers from the first certificate. `None` if two certificates could follow.
fn path<'a, 'b>(chain: &[(usize, &'a X509Certificate<'b>)]) -> Option<Vec<(usize, &'a X509Certificate<'b>)>> {
    let (first, rest) = chain.split_first()?;
    let mut path = vec![*first];
    let mut rest = rest.to_vec();
    let mut child = first.1;
    while !is_same_name(child.issuer(), child.subject()) {
        let mut issuers = rest.iter().enumerate().filter(|(_, (_, parent))| may_have_issued(parent, child));
        let Some((at, (_, parent))) = issuers.next() else { break };
        if issuers.next().is_some() {
            return None;
        }
        child = parent;
        path.push(rest.remove(at));
    }
    Some(path)
}

/// Compares the names and, if both certificates have them, the key identifiers (RFC 5280 section 4.2.1.1).
fn may_have_issued(parent: &X509Certificate<'_>, child: &X509Certificate<'_>) -> bool {
    let wanted = child.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
        _ => None,
    });
    let own = parent.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier),
        _ => None,
    });
    let contradicts = wanted.zip(own).is_some_and(|(wanted, own)| wanted.0 != own.0);
    is_same_name(child.issuer(), parent.subject()) && !contradicts
}

/// Compares names as OpenSSL does: ignores string types and case, and treats several blanks as one.
pub(in crate::tls) fn is_same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.as_raw() == other.as_raw() || canonical(one) == canonical(other)
}

fn canonical(name: &X509Name<'_>) -> Vec<Vec<(String, Vec<u8>)>> {
    let folded = |text: &str| {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        words.join(" ").to_ascii_lowercase().into_bytes()
    };
    let attributes = |set: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        let mut attributes: Vec<(String, Vec<u8>)> = set
            .iter()
            .map(|attribute| {
                let value = attribute.as_str().map_or_else(|_| attribute.as_slice().to_vec(), folded);
                (attribute.attr_type().to_id_string(), value)
            })
            .collect();
        attributes.sort();
        attributes
    };
    name.iter_rdn().map(attributes).collect()
}
