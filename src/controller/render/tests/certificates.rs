//! Certificates and authorities: which are served, which cause a warning, and which are refused.

use super::*;

/// Returns a CA bundle whose second certificate has an unknown critical extension.
fn ca_with_an_unknown_one() -> String {
    let authority = |critical: bool| {
        let mut params = CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    document("ConfigMap", "data:", "ca", &[("ca.crt", &(authority(false) + &authority(true)))])
}

#[test]
fn cipher_suites_that_fit_no_certificate_are_refused() {
    let secret = tls_secret_until("mail-tls", &["a.test"], (2030, 1, 1));
    let said = |suites: &str| {
        let tls =
            format!("port: 993, tls: {{certificateRefs: [{{name: mail-tls}}], cipherSuites: [{suites}]}}");
        messages(&once(&format!("{}{secret}", server(&imap("a", &tls), ""))))
    };
    let (rsa, ecdsa) = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let problem = "none of the suites fits the key of a certificate";
    assert!(said(rsa).contains(problem));
    for suites in [ecdsa, &format!("{rsa}, {ecdsa}"), &format!("{rsa}, TLS_AES_128_GCM_SHA256")] {
        assert!(!said(suites).contains(problem), "{suites}: {}", said(suites));
    }
}

#[test]
fn an_unused_authority_is_reported_and_the_others_are_trusted() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required, caCertificateRefs: \
               [{name: ca}]}}";
    let rendered =
        once(&(server(&imap("a", own), "") + &tls_secret("t", &["a.test"]) + &ca_with_an_unknown_one()));
    let trusted = &listener(&rendered, "a").tls.as_ref().unwrap().client_auth.authorities;
    assert_eq!(trusted.len(), 1);
    let found = messages(&rendered);
    assert!(
        found.contains("AuthorityNotUsed") && found.contains("certificate 2 of ConfigMap mail/ca"),
        "{found}"
    );
}

#[test]
fn client_certificates_need_an_authority() {
    let own = "port: 993, tls: {certificateRefs: [{name: t}], clientAuth: {mode: Required}}";
    let rendered = once(&(server(&imap("a", own), "") + &tls_secret("t", &["a"])));
    assert!(
        messages(&rendered)
            .contains("tls.clientAuth.mode needs tls.clientAuth.caCertificateRefs; set it to a ConfigMap")
    );
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let yaml = server(&imap("a", "port: 993"), "tls: {certificateRefs: [{name: t}]}");
    let rendered = once(&(yaml.clone() + &tls_secret_until("t", &["a"], (2020, 1, 1))));
    assert_eq!(sockets(&rendered), ["*:993"]);
    assert!(
        messages(&rendered).starts_with("CertificateExpired spec.tls.certificateRefs[0]: "),
        "{}",
        messages(&rendered)
    );
    // The tests' time is 2027-01-15.
    for (until, reason) in [
        ((2027, 1, 18), "ExpiresWithinAWeek spec.tls.certificateRefs[0]: "),
        ((2027, 2, 10), "ExpiresWithinAMonth spec.tls.certificateRefs[0]: "),
        ((2027, 2, 20), ""),
    ] {
        let rendered = once(&(yaml.clone() + &tls_secret_until("t", &["a"], until)));
        assert!(messages(&rendered).starts_with(reason), "{}", messages(&rendered));
        assert_eq!(messages(&rendered).is_empty(), reason.is_empty());
    }
}

#[test]
fn a_host_name_without_a_certificate_causes_a_warning() {
    let own = "port: 993, hostnames: [a.example, b.example, '*.c.example']";
    let yaml = server(&imap("a", own), "tls: {certificateRefs: [{name: t}]}")
        + &tls_secret("t", &["*.example", "b.example"]);
    let rendered = once(&yaml);
    assert_eq!(sockets(&rendered), ["*:993"]);
    assert!(
        messages(&rendered).contains("no certificate of this listener is for *.c.example;"),
        "{}",
        messages(&rendered)
    );
}

// --- backends ---

#[test]
fn without_host_names_the_certificate_must_contain_the_server_name() {
    let messages_of = |settings: &str, listener: &str, names: &[&str]| {
        let settings = format!("tls: {{certificateRefs: [{{name: t}}]}}{settings}");
        messages(&once(&(server(&imap("a", listener), &settings) + &tls_secret("t", names))))
    };
    let name = ", serverName: mail.example.com";
    assert_eq!(
        messages_of(name, "port: 993", &["other.example.com"]),
        "HostnameNotCovered spec.serverName: no certificate of this listener is for mail.example.com; add a \
         certificate with these names to tls.certificateRefs\n"
    );
    let own = messages_of("", "port: 993, serverName: mx.example.com", &["other.example.com"]);
    assert!(own.starts_with("HostnameNotCovered spec.listeners[a].serverName: "), "{own}");
    for names in [["Mail.Example.COM"], ["*.example.com"]] {
        assert_eq!(messages_of(name, "port: 993", &names), "");
    }
    let hosts = "port: 993, hostnames: [imap.example.com]";
    assert_eq!(messages_of(name, hosts, &["imap.example.com"]), "", "clients ask for the host names");
    assert_eq!(messages_of("", "port: 993", &["other.example.com"]), "", "nobody wrote the Pod's name");
    let yaml = server(&imap("a", "port: 993"), "serverName: a.test, tls: {certificateRefs: [{name: t}]}");
    let rendered = once(&(yaml + &tls_secret("t", &["b.test"])));
    assert_eq!(rendered.objects[0].listeners[0].serving, Serving::Current, "it is served");
}
