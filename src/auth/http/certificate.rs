//! Describes a client certificate as OpenSSL does, because nginx passes these descriptions to auth services.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};
use x509_parser::x509::AttributeTypeAndValue;

/// The values of the headers `Auth-SSL-*`.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The distinguished name in the form of RFC 2253, most specific attribute first.
    pub(super) subject: String,
    /// The issuer's name in the same form.
    pub(super) issuer: String,
    /// In upper-case hexadecimal.
    pub(super) serial: String,
    /// SHA-1 in lower-case hexadecimal. It identifies a certificate in this protocol, and protects nothing.
    pub(super) fingerprint: String,
}

impl Facts {
    /// Reads a certificate. rustls has accepted it before, so in practice no value is missing.
    pub(super) fn of(der: &[u8]) -> Self {
        let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, der);
        let fingerprint = fingerprint.as_ref().iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        match X509Certificate::from_der(der) {
            Err(_) => Self { fingerprint, ..Self::default() },
            Ok((_, certificate)) => Self {
                subject: rfc2253(certificate.subject()),
                issuer: rfc2253(certificate.issuer()),
                serial: serial(certificate.raw_serial()),
                fingerprint,
            },
        }
    }
}

/// Formats a serial number without the zero byte that marks it as positive.
fn serial(bytes: &[u8]) -> String {
    let significant = match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    significant.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02X}");
        hex
    })
}

fn rfc2253(name: &X509Name<'_>) -> String {
    let relative = |name: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        name.iter().map(attribute).collect::<Vec<_>>().join("+")
    };
    let mut parts: Vec<_> = name.iter().map(relative).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let key = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map_or(oid.as_str(), |(_, short)| short);
    match attribute.as_str() {
        Ok(value) => format!("{key}={}", escape(value)),
        Err(_) => {
            let der = attribute.attr_value().data;
            der.iter().fold(format!("{key}=#"), |mut hex, byte| {
                let _ = write!(hex, "{byte:02X}");
                hex
            })
        }
    }
}

/// Escapes by RFC 2253 section 2.4, with OpenSSL's `\XX` for control characters and bytes beyond ASCII.
fn escape(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (index, byte) in value.bytes().enumerate() {
        let edge = (index == 0 && matches!(byte, b' ' | b'#')) || (index == last && byte == b' ');
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            _ if edge => out.extend(['\\', char::from(byte)]),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\{byte:02X}");
            }
        }
    }
    out
}

/// OpenSSL's short names. Other attributes are written as object identifiers.
const SHORT_NAMES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};

    #[test]
    fn speaks_as_openssl_does() {
        let mut params = CertificateParams::new(vec![]).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::CommonName, "Bj\u{f6}rn+Co ");
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0x8a, 0x01]));
        let key = KeyPair::generate().unwrap();
        let facts = Facts::of(params.self_signed(&key).unwrap().der());
        assert_eq!(facts.subject, r"CN=Bj\C3\B6rn\+Co\ ,O=Example\, Inc.,C=DE");
        assert_eq!(facts.issuer, facts.subject);
        assert_eq!(facts.serial, "8A01");
        assert_eq!(facts.fingerprint.len(), 40);
    }

    #[test]
    fn something_else_than_a_certificate_has_only_a_fingerprint() {
        let facts = Facts::of(b"");
        assert_eq!(facts.fingerprint, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(facts.subject, "");
    }
}
