//! Tests with certificates and keys that are common, unusual or invalid.

use super::*;
use crate::tls::testing::{self, Ca, Issued};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

fn inspect(chain: &str, key: &str) -> Result<Parsed, ParseError> {
    certificate("mail/tls", chain.as_bytes(), key.as_bytes())
}

fn parse(chain: &str, key: &str) -> Result<Certificate, ParseError> {
    inspect(chain, key).map(|parsed| parsed.certificate)
}

fn parse_issued(issued: &Issued) -> Result<Certificate, ParseError> {
    parse(&issued.chain, &issued.key.serialize_pem())
}

#[test]
fn holds_names_and_the_earliest_expiry_of_the_chain() {
    let ca = Ca::new("ca");
    let mut params = testing::named("leaf", &["Mail.Test", "*.mail.test"]);
    params.not_after = date_time_ymd(2031, 1, 1);
    let issued = ca.issue_with(params, KeyPair::generate().unwrap());
    let chain = format!("{}{}", issued.chain, ca.pem());
    let parsed = parse(&chain, &issued.key.serialize_pem()).unwrap();
    assert_eq!(parsed.names, ["mail.test", "*.mail.test"]);
    assert_eq!(parsed.not_after, date_time_ymd(2031, 1, 1).unix_timestamp());
    assert_eq!(parsed.chain.len(), 2);
    let shown = format!("{parsed:?}");
    assert!(shown.contains("********") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn the_common_name_stands_in_for_absent_alternative_names() {
    let ca = Ca::new("ca");
    let issued = ca.issue_with(testing::named("Old.Test", &[]), KeyPair::generate().unwrap());
    assert_eq!(parse_issued(&issued).unwrap().names, ["old.test"]);
}

#[test]
fn says_what_is_wrong_and_what_to_do() {
    let ca = Ca::new("ca");
    let (mine, other) = (ca.issue(&["a.test"]), ca.issue(&["b.test"]));
    let key = mine.key.serialize_pem();
    let block = |text: &str| format!("-----BEGIN PRIVATE KEY-----\n{text}-----END PRIVATE KEY-----\n");
    let cases = [
        (parse("", &key), "tls.crt of mail/tls is empty"),
        (parse(&mine.chain, ""), "tls.key of mail/tls is empty"),
        (parse(&mine.chain, &other.key.serialize_pem()), "does not belong"),
        (parse(&format!("{}{}", ca.pem(), mine.chain), &key), "belongs to certificate 2 of its tls.crt"),
        (parse("0\u{82}", &key), "is DER or PKCS#12 (binary), not PEM"),
        (parse("-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n", &key), "is PKCS#7, not PEM"),
        (parse(&mine.chain.replace("-----END CERTIFICATE-----", ""), &key), "no END line"),
        (parse("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key), "not a valid X.509"),
        (parse(&mine.chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"), "encrypted"),
        (parse(&mine.chain, &block("")), "does not contain a private key"),
        (parse(&mine.chain, &block("AAAA\n")), "does not contain a private key"),
        // An empty SEQUENCE, and a key of Ed448.
        (parse(&mine.chain, &block("MAA=\n")), "does not contain a private key"),
        (parse(&mine.chain, &block("MA4CAQAwBQYDK2VxBAKquw==\n")), "of a kind that is not supported (EC256)"),
    ];
    for (outcome, expected) in cases {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(expected) && text.contains("mail/tls"), "{text}");
    }
}

#[test]
fn a_chain_that_no_client_takes_is_refused() {
    let ca = Ca::new("ca");
    let mut authorities = vec![ca.below("authority")];
    for number in 1..200 {
        let last = authorities.last().unwrap();
        authorities.push(last.below(&format!("authority {number}")));
    }
    let chain = |certificates: usize| {
        let leaf = authorities[certificates - 2].issue(&["a.test"]);
        let above: String = authorities[..certificates - 1].iter().rev().map(Ca::pem).collect();
        parse(&format!("{}{above}", leaf.chain), &leaf.key.serialize_pem())
    };
    let error = chain(201).unwrap_err().to_string();
    assert!(
        error.starts_with("the chain of tls.crt of mail/tls has 201 certificates, which are "),
        "{error}"
    );
    assert!(error.contains("refuse more than 100 certificates or 60000 bytes"), "{error}");
    assert!(chain(101).is_err());
    assert_eq!(chain(100).unwrap().chain.len(), 100);
    // A few certificates, but large ones.
    let mut params = testing::named("large", &[]);
    params.subject_alt_names =
        (0..2000).map(|n| SanType::DnsName(format!("{n}.a-long-name.test").try_into().unwrap())).collect();
    let large = ca.issue_with(params, KeyPair::generate().unwrap());
    assert!(parse_issued(&large).is_ok());
    let mut params = testing::named("larger", &[]);
    params.subject_alt_names =
        (0..4000).map(|n| SanType::DnsName(format!("{n}.a-long-name.test").try_into().unwrap())).collect();
    let larger = ca.issue_with(params, KeyPair::generate().unwrap());
    assert!(matches!(parse_issued(&larger), Err(ParseError::ChainTooLong { certificates: 1, .. })));
}

#[test]
fn bundles_and_lists_are_checked_one_by_one() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let bundle = format!("{}{}", ca.pem(), other.pem());
    assert_eq!(authorities(bundle.as_bytes()).unwrap().certificates, [ca.der(), other.der()]);
    assert_eq!(authorities(b"nothing").unwrap_err(), ParseError::NoAuthority);
}

#[test]
fn an_authority_that_cannot_be_used_does_not_spoil_the_others() {
    let ca = Ca::new("ca");
    let mut params = testing::named("odd", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    let odd = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let leaf = ca.issue(&["a.test"]);
    let bundle = [odd.pem(), ca.pem(), leaf.chain.clone(), ca.pem()].concat();
    let found = authorities(bundle.as_bytes()).unwrap();
    assert_eq!(found.certificates, [ca.der(), leaf.der], "each once");
    let unused = |position, why| UnusedAuthority { position, why };
    assert_eq!(found.unused, [unused(1, Unused::Unknown), unused(3, Unused::NotAnAuthority)]);
    assert_eq!(authorities(odd.pem().as_bytes()).unwrap().certificates, []);
    assert_eq!(crls(ca.crl(2090).pem().unwrap().as_bytes()).unwrap().len(), 1);
    assert_eq!(crls(b"").unwrap_err(), ParseError::NoCrl);
    let broken = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert!(matches!(crls(broken).unwrap_err(), ParseError::BadCrl { position: 1, .. }));
}

#[test]
fn cipher_suites_are_iana_names() {
    assert_eq!(cipher_suites(&["TLS_AES_128_GCM_SHA256".to_owned()]), Ok(()));
    let error = cipher_suites(&["HIGH:!aNULL".to_owned()]).unwrap_err();
    assert!(error.to_string().contains("TLS_AES_128_GCM_SHA256"), "{error}");
}

/// Returns the positions of the served certificates in a file, and the warnings. Of equal certificates, the first
/// counts.
fn served(file: &[&Issued], above: &[&Ca]) -> (Vec<usize>, Vec<CertificateWarning>) {
    let ders: Vec<_> =
        file.iter().map(|one| one.der.clone()).chain(above.iter().map(|ca| ca.der())).collect();
    let text: String =
        file.iter().map(|one| one.chain.clone()).chain(above.iter().map(|ca| ca.pem())).collect();
    let parsed = inspect(&text, &file[0].key.serialize_pem()).unwrap();
    let position = |der| ders.iter().position(|other| other == der).unwrap();
    (parsed.certificate.chain.iter().map(position).collect(), parsed.warnings)
}

#[test]
fn a_chain_is_sorted_and_what_does_not_belong_to_it_is_left_out() {
    let root = Ca::new("root");
    let first = root.below("first");
    let second = first.below("second");
    let leaf = second.issue(&["a.test"]);
    let stranger = Ca::new("stranger");
    for (above, order) in [
        (vec![&first, &second], vec![0, 2, 1]),
        (vec![&root, &first, &second], vec![0, 3, 2, 1]),
        (vec![&second, &second, &first], vec![0, 1, 3]),
        (vec![&stranger, &second, &first], vec![0, 2, 3]),
        (vec![&second, &first, &stranger], vec![0, 1, 2]),
        (vec![&stranger], vec![0]),
    ] {
        assert_eq!(served(&[&leaf], &above), (order.clone(), vec![CertificateWarning::Rearranged(order)]));
    }
    let twice = served(&[&leaf, &leaf], &[&second, &first]);
    assert_eq!(twice, (vec![0, 2, 3], vec![CertificateWarning::Rearranged(vec![0, 2, 3])]));
    assert_eq!(served(&[&leaf], &[&second, &first]), (vec![0, 1, 2], vec![]));
    assert_eq!(served(&[&leaf], &[&second, &first, &root]), (vec![0, 1, 2, 3], vec![]));
}

#[test]
fn a_chain_that_can_be_sorted_in_two_ways_is_served_as_it_is() {
    // An authority with certificates from two others, as with cross-signing.
    let key = || KeyPair::try_from(ED25519_KEY).unwrap();
    let cross = |parent: &Ca| {
        let mut params = testing::named("cross", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parent.issue_with(params, key())
    };
    let (one, other) = (cross(&Ca::new("one")), cross(&Ca::new("other")));
    let issuer = Issuer::from_ca_cert_der(&one.der, key()).unwrap();
    let own = KeyPair::generate().unwrap();
    let certificate = testing::named("leaf", &["a.test"]).signed_by(&own, &issuer).unwrap();
    let leaf = Issued { chain: certificate.pem(), der: certificate.der().clone(), key: own };
    assert_eq!(
        served(&[&leaf, &one, &other, &other], &[]),
        (vec![0, 1, 2], vec![CertificateWarning::NotInOrder])
    );
}

/// PKCS#8 (RFC 8410 section 7) around 32 arbitrary bytes.
const ED25519_KEY: &[u8] =
    b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20any 32 bytes are a private key..";

#[test]
fn the_key_identifier_tells_two_authorities_of_one_name_apart() {
    let new = |identifier: u8| {
        let mut params = testing::named("authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![identifier]);
        Ca::of(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    };
    let (old, young) = (new(1), new(2));
    let mut params = testing::named("leaf", &["a.test"]);
    params.use_authority_key_identifier_extension = true;
    let leaf = young.issue_with(params, KeyPair::generate().unwrap());
    let found = served(&[&leaf], &[&Ca::new("stranger"), &old, &young]);
    assert_eq!(found, (vec![0, 3], vec![CertificateWarning::Rearranged(vec![0, 3])]));
}

#[test]
fn what_clients_may_refuse_is_said() {
    let ca = Ca::new("ca");
    let said = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = testing::named("leaf", &["a.test"]);
        change(&mut params);
        let issued = ca.issue_with(params, KeyPair::generate().unwrap());
        inspect(&issued.chain, &issued.key.serialize_pem()).unwrap().warnings
    };
    assert_eq!(said(&|_| {}), []);
    assert_eq!(said(&|params| params.subject_alt_names.clear()), [CertificateWarning::NoAlternativeName]);
    for (usage, warnings) in [
        (ExtendedKeyUsagePurpose::ServerAuth, vec![]),
        (ExtendedKeyUsagePurpose::Any, vec![]),
        (ExtendedKeyUsagePurpose::ClientAuth, vec![CertificateWarning::WrongPurpose("extendedKeyUsage")]),
    ] {
        assert_eq!(said(&|params| params.extended_key_usages = vec![usage.clone()]), warnings);
    }
    for (usage, warnings) in [
        (KeyUsagePurpose::DigitalSignature, vec![]),
        (KeyUsagePurpose::KeyCertSign, vec![CertificateWarning::WrongPurpose("keyUsage")]),
    ] {
        assert_eq!(said(&|params| params.key_usages = vec![usage]), warnings);
    }
}

#[test]
fn of_several_keys_the_one_that_fits_is_taken() {
    let ca = Ca::new("ca");
    let (mine, other) = (ca.issue(&["a.test"]), ca.issue(&["b.test"]));
    let [own, foreign] = [&mine, &other].map(|issued| issued.key.serialize_pem());
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    for keys in [
        format!("{own}{foreign}"),
        format!("{foreign}{own}"),
        format!("{encrypted}{own}"),
        format!("{parameters}{own}"),
    ] {
        assert_eq!(parse(&mine.chain, &keys).unwrap().key.expose(), mine.key.serialize_der());
    }
    let error = parse(&mine.chain, &format!("{foreign}{encrypted}")).unwrap_err();
    assert_eq!(error, ParseError::EncryptedKey("mail/tls".to_owned()));
}

#[test]
fn pem_is_read_as_openssl_reads_it() {
    let issued = Ca::new("ca").issue(&["a.test"]);
    let (chain, key) = (issued.chain.replace('\r', ""), issued.key.serialize_pem().replace('\r', ""));
    let labelled = |label: &str| chain.replace(" CERTIFICATE", &format!(" {label} CERTIFICATE"));
    for text in [
        format!("\u{feff}{chain}"),
        chain.replace('\n', "\r\n"),
        chain.replace('\n', " \t\n"),
        format!("Certificate:\n    Data:\n{chain}behind it"),
        format!("{key}{chain}"),
        labelled("X509"),
        labelled("TRUSTED"),
        chain.trim_end().to_owned(),
    ] {
        let parsed = parse(&text, &format!("\u{feff}{}", key.replace('\n', "\r\n"))).unwrap();
        assert_eq!(parsed.chain, std::slice::from_ref(&issued.der), "{text}");
    }
}

#[test]
fn files_that_are_mistaken_for_each_other_are_named() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let issued = Ca::new("ca").issue(&["a.test"]);
    let (chain, key) = (issued.chain.clone(), issued.key.serialize_pem());
    let said = |chain: &str, key: &str| parse(chain, key).unwrap_err().to_string();
    assert_eq!(said("", &key), "tls.crt of mail/tls is empty; put PEM into it");
    assert_eq!(said(&chain, " \n"), "tls.key of mail/tls is empty; put PEM into it");
    assert!(said(&key, &chain).starts_with("tls.crt and tls.key of mail/tls are swapped"));
    let twice = |text: &str| STANDARD.encode(text);
    let expected = "is base64 that was encoded twice, not PEM; encode it once for data";
    for (what, error) in [("tls.crt", said(&twice(&chain), &key)), ("tls.key", said(&chain, &twice(&key)))] {
        assert!(error.starts_with(&format!("{what} of mail/tls {expected}")), "{error}");
    }
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(parse(&chain, broken).unwrap_err(), ParseError::BrokenKey("mail/tls".to_owned()));
}
