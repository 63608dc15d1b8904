//! Warnings about certificates that are served anyway, as nginx does.

use x509_parser::prelude::{GeneralName, X509Certificate, X509Version};

use crate::tls::describe;

/// Why clients may refuse a certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateWarning {
    /// X.509 version 1, which `openssl x509 -req` creates without extensions.
    Version1,
    /// The chain was sorted, or certificates were dropped. Has the served positions, counted from 0.
    Rearranged(Vec<usize>),
    /// The chain is not in order, and several orders are possible.
    NotInOrder,
    /// There is no DNS name or address in subjectAltName.
    NoAlternativeName,
    /// The certificate is not for TLS servers, according to this extension.
    WrongPurpose(&'static str),
    /// The signature uses this broken hash.
    WeakSignature(&'static str),
}

impl CertificateWarning {
    /// Returns the warnings about a certificate itself, without its chain.
    pub(super) fn of(leaf: &X509Certificate<'_>) -> Vec<Self> {
        if leaf.version() == X509Version::V1 {
            return weak_signature(leaf).into_iter().chain([Self::Version1]).collect();
        }
        let names = (!has_alternative_name(leaf)).then_some(Self::NoAlternativeName);
        let purpose = wrong_purpose(leaf).map(Self::WrongPurpose);
        weak_signature(leaf).into_iter().chain(names).chain(purpose).collect()
    }

    /// Describes the problem of the certificate `what`.
    #[must_use]
    pub fn problem(&self, what: &str) -> String {
        match self {
            Self::Version1 => {
                format!("the certificate of {what} is of X.509 version 1, which many clients refuse")
            }
            Self::Rearranged(order) => {
                let numbers: Vec<String> = order.iter().map(|index| (index + 1).to_string()).collect();
                if !order.is_sorted() {
                    return format!("the certificates of {what} are out of order; they are served sorted");
                }
                let served = match numbers.as_slice() {
                    [only] => format!("only certificate {only} of it is served"),
                    all => format!("only certificates {} of it are served", all.join(", ")),
                };
                format!(
                    "the chain of {what} contains duplicate certificates, or certificates that do not belong to it; {served}"
                )
            }
            Self::NotInOrder => {
                format!(
                    "the chain of {what} is not in order and can be sorted in several ways; it is served as it is"
                )
            }
            Self::NoAlternativeName => format!(
                "the certificate of {what} has no DNS name or IP address in subjectAltName; most clients ignore the \
                 common name and refuse it"
            ),
            Self::WrongPurpose(extension) => {
                format!(
                    "the certificate of {what} is not for TLS servers, by its {extension}; most clients refuse it"
                )
            }
            Self::WeakSignature(hash) => {
                format!("the certificate of {what} is signed with {hash}, which most clients refuse")
            }
        }
    }

    /// Says how to fix it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Version1 => {
                "issue it again with extensions, at least subjectAltName, which makes it a certificate of version 3"
            }
            Self::Rearranged(_) => {
                "put only the server's own certificate and then each one's issuer into the file, each once"
            }
            Self::NotInOrder => "put the server's own certificate first, then each one's issuer",
            Self::NoAlternativeName => "issue it again with the server's names in subjectAltName",
            Self::WrongPurpose(_) => {
                "issue it again with extendedKeyUsage serverAuth and keyUsage digitalSignature, or without both"
            }
            Self::WeakSignature(_) => "issue it again, signed with SHA-256",
        }
    }
}

fn has_alternative_name(leaf: &X509Certificate<'_>) -> bool {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let mut names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    names.any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
}

fn wrong_purpose(leaf: &X509Certificate<'_>) -> Option<&'static str> {
    let extended = leaf.extended_key_usage().ok().flatten();
    if extended.is_some_and(|usage| !usage.value.server_auth && !usage.value.any) {
        return Some("extendedKeyUsage");
    }
    let usage = leaf.key_usage().ok().flatten();
    usage.is_some_and(|usage| !usage.value.digital_signature()).then_some("keyUsage")
}

/// The signature of a self-signed certificate does not matter, because nobody verifies it.
fn weak_signature(leaf: &X509Certificate<'_>) -> Option<CertificateWarning> {
    if leaf.issuer().as_raw() == leaf.subject().as_raw() {
        return None;
    }
    describe::weak_hash(leaf).map(CertificateWarning::WeakSignature)
}
