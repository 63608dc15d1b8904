//! Tests the configurations in tests/nginx and their manifests and notes, configurations that are refused, and the
//! table in docs/nginx.md.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use crate::cli::files::Files;
use crate::import::Imported;
use crate::import::directives::DIRECTIVES;

use super::*;

mod generated;

/// The files in tests/nginx, generated certificates, and one host name.
struct Fake {
    /// Valid certificates instead of the placeholder text.
    real: bool,
    /// An additional file that is not in tests/nginx.
    inline: Option<&'static str>,
}

static CERTIFICATES: LazyLock<BTreeMap<&str, String>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let crl = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2200, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = crl.signed_by(&ca).unwrap().pem().unwrap();
    let mut files = BTreeMap::from([("ca.pem", ca.pem()), ("more.pem", ca.pem()), ("ca.crl", crl)]);
    for (chain, key) in [("rsa.pem", "rsa.key"), ("ecdsa.pem", "ecdsa.key"), ("both.pem", "")] {
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap().pem();
        let private = pair.serialize_pem();
        match key {
            "" => files.insert(chain, private + "between\n" + &certificate),
            key => files.insert(chain, certificate).or(files.insert(key, private)),
        };
    }
    let block = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
    files.insert("issuer-first.pem", format!("{}{}", files["ca.pem"], files["rsa.pem"]));
    files.insert("broken-second.pem", format!("{}{}", files["rsa.pem"], block("CERTIFICATE", "AAAA")));
    files.insert("broken.key", block("PRIVATE KEY", "AAAA"));
    files.insert("broken.crl", block("X509 CRL", "AAAA"));
    let common_name =
        CertificateParams::default().self_signed(&KeyPair::from_pem(&files["rsa.key"]).unwrap());
    files.insert("unnamed.pem", common_name.unwrap().pem());
    files
});

fn placeholder(name: &str) -> String {
    let block = |label: &str| format!("-----BEGIN {label}-----\n{name}\n-----END {label}-----\n");
    match name {
        "both.pem" => block("PRIVATE KEY") + "between\n" + &block("CERTIFICATE"),
        "encrypted.key" => block("ENCRYPTED PRIVATE KEY"),
        name if name.ends_with(".key") => block("PRIVATE KEY"),
        name if name.ends_with(".crl") => block("X509 CRL"),
        _ => block("CERTIFICATE"),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nginx")
}

impl Source for Fake {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.to_str().unwrap();
        if let (Some(text), "x.conf") = (self.inline, name) {
            return Ok(text.into());
        }
        match name.strip_prefix("tls/") {
            Some(name) if self.real && name != "encrypted.key" => Ok(CERTIFICATES[name].clone().into()),
            Some(name) if name != "missing.pem" => Ok(placeholder(name).into()),
            _ => std::fs::read(folder().join(path)),
        }
    }

    fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let found = Disk.glob(&folder().join(pattern));
        found.iter().map(|path| path.strip_prefix(folder()).unwrap().to_owned()).collect()
    }

    fn resolve(&self, host: &str) -> Vec<IpAddr> {
        if host == "localhost" { vec![[127, 0, 0, 1].into()] } else { vec![] }
    }

    fn inspect(&self, name: &str, chain: &[u8], key: &[u8]) -> Vec<Inspected> {
        if self.real { Disk.inspect(name, chain, key) } else { Vec::new() }
    }

    fn inspect_bundle(&self, bundle: Bundle, pem: &[u8]) -> Option<String> {
        if self.real { Disk.inspect_bundle(bundle, pem) } else { None }
    }
}

fn import(name: &str, real: bool) -> Imported {
    import::nginx(Path::new(name), None, &Fake { real, inline: None }).unwrap()
}

fn inline(text: &'static str) -> Result<Imported, Refused> {
    import::nginx(Path::new("x.conf"), None, &Fake { real: false, inline: Some(text) })
}

fn printed(imported: &Imported) -> String {
    let each = imported
        .manifests
        .iter()
        .map(|manifest| format!("---\n{}", yaml::to_string(&manifest.document().unwrap()).unwrap()));
    each.collect()
}

fn notes(imported: &Imported) -> String {
    imported.notes.iter().map(|note| format!("{note}\n")).collect()
}

fn is_valid(imported: &Imported) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mail.yaml");
    std::fs::write(&path, printed(imported)).unwrap();
    let (loaded, renderer) = Files { paths: vec![path], class: "mailgress".to_owned() }.render().unwrap();
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, Vec::<String>::new());
    for (_, object) in renderer.outcomes() {
        let listeners = object.listeners.iter().flat_map(|listener| &listener.violations);
        let found: Vec<String> = object.violations.iter().chain(listeners).map(ToString::to_string).collect();
        assert_eq!(found, Vec::<String>::new(), "{}", printed(imported));
        assert!(!object.listeners.is_empty());
    }
    assert!(!renderer.snapshot().sockets.is_empty());
}

#[test]
fn names_are_unique_and_stable() {
    let text = "mail { server_name a.example.com; auth_http a;
        server { listen 143; }
        server { listen 110; auth_http b; }
        server { listen 127.0.0.1:993; protocol imap; }
        server { listen 127.0.0.2:993; protocol imap; } }";
    let names = |imported: &Imported| {
        let document = |manifest: &import::Manifest| manifest.document().unwrap();
        let each = imported.manifests.iter().map(|manifest| {
            let document = document(manifest);
            let name = |value: &serde_yaml::Value| value["name"].as_str().unwrap().to_owned();
            let listeners = document["spec"]["listeners"].as_sequence().unwrap();
            (name(&document["metadata"]), listeners.iter().map(name).collect::<Vec<_>>())
        });
        each.collect::<Vec<_>>()
    };
    let found = names(&inline(text).unwrap());
    let first = ["imap", "imaps-127-0-0-1", "imaps-127-0-0-2"].map(str::to_owned).to_vec();
    let second = vec!["pop3".to_owned()];
    assert_eq!(found, [("a-example-com-2".to_owned(), first), ("a-example-com".to_owned(), second)]);
}

#[test]
fn a_listener_without_a_resolver_inherits_none() {
    let text = "mail { auth_http a; resolver 192.0.2.1 ipv6=off; server { listen 25; } server { listen 587; }
        server { listen 465; resolver off; } }";
    let document = inline(text).unwrap().manifests[0].document().unwrap();
    assert!(document["spec"].get("resolver").is_none());
    let has = |index: usize| document["spec"]["listeners"][index].get("resolver").is_some();
    assert_eq!([has(0), has(1), has(2)], [true, true, false]);
}

#[test]
fn both_directives_for_implicit_tls_mean_the_same() {
    let files = "ssl_certificate tls/rsa.pem; ssl_certificate_key tls/rsa.key;";
    let text =
        |server: &str| format!("mail {{ auth_http a; {files} server {{ protocol imap; {server} }} }}").leak();
    let old = inline(text("listen 1993; ssl on;")).unwrap();
    let new = inline(text("listen 1993 ssl;")).unwrap();
    assert_eq!(printed(&old), printed(&new));
    assert!(printed(&old).contains("mode: Implicit"));
}

#[test]
fn passwords_are_taken_whatever_is_listed_as_nginx_does() {
    let text =
        "mail { auth_http a; server { listen 25; smtp_auth none; } server { listen 143; imap_auth cram-md5; }
        server { listen 110; pop3_auth apop; } server { listen 587; smtp_auth login; }
        server { listen 1143; protocol imap; } }";
    let document = inline(text).unwrap().manifests[0].document().unwrap();
    let field = |index: usize, block: &str| {
        let spec = &document["spec"];
        let said =
            |settings: &serde_yaml::Value| settings[block]["passwordLogins"].as_str().map(str::to_owned);
        said(&spec["listeners"][index]).or_else(|| said(spec))
    };
    let always = Some("Always".to_owned());
    assert_eq!([field(0, "smtp"), field(1, "imap"), field(2, "pop3")], [(); 3].map(|()| always.clone()));
    assert_eq!([field(3, "smtp"), field(4, "imap")], [None, None]);
}

#[test]
fn capabilities_that_are_announced_anyway_are_named_and_left_out() {
    let text = "mail { auth_http a; server { listen 587;
        smtp_capabilities PIPELINING \"AUTH PLAIN LOGIN\" STARTTLS; }
        server { listen 143; imap_capabilities IMAP4rev1 AUTH=PLAIN; } }";
    let imported = inline(text).unwrap();
    let left_out = |line: u32, what: &str| {
        format!("x.conf:{line}: {what} is omitted: Mailgress announces it automatically\n")
    };
    let expected = [
        left_out(2, "smtp_capabilities \"AUTH PLAIN LOGIN\""),
        left_out(2, "smtp_capabilities \"STARTTLS\""),
        left_out(3, "imap_capabilities \"AUTH=PLAIN\""),
    ];
    let advice: String = imported
        .advice
        .iter()
        .map(|note| format!("{note}\n"))
        .filter(|line| line.contains("is omitted: Mailgress"))
        .collect();
    assert_eq!(advice, expected.concat());
    assert_eq!(notes(&imported), "", "nothing has to be done");
    let printed = printed(&imported);
    assert!(printed.contains("- PIPELINING") && printed.contains("- IMAP4rev1"), "{printed}");
    assert!(!printed.contains("AUTH") && !printed.contains("STARTTLS"), "{printed}");
}

#[test]
fn characters_that_a_url_cannot_have_are_encoded() {
    let text = r##"mail { server { listen 143; auth_http "http://192.0.2.1/{a}?x=<1>&y=\"2\"#3"; } }"##;
    let imported = inline(text).unwrap();
    let printed = printed(&imported);
    assert!(printed.contains("http://192.0.2.1/%7Ba%7D?x=%3C1%3E&y=%222%22%233"), "{printed}");
    let advice: Vec<String> = imported.advice.iter().map(ToString::to_string).collect();
    let expected = "x.conf:1: auth_http: nginx sends characters that a URL cannot have; the manifest has \" as %22, \
                    < as %3C, > as %3E, { as %7B, } as %7D, # as %23";
    assert!(advice.iter().any(|note| note == expected), "{advice:?}");
    is_valid(&imported);
}

#[test]
fn keys_are_masked_when_an_import_is_printed_for_debugging() {
    assert!(!format!("{:?}", import("tls.conf", false)).contains("secret string"));
}

// --- errors as in nginx ---

/// Configurations within `server { listen 143; auth_http a; … }`, all in the first line.
macro_rules! refused {
    ($($name:ident: $($text:literal => $message:literal,)*;)*) => {$(
        #[test]
        fn $name() {
            $(
                let text = concat!("mail { server { listen 143; auth_http a; ", $text, " } }");
                let said = inline(text).map(|_| String::new()).unwrap_or_else(|problem| problem.to_string());
                assert_eq!(said, concat!("x.conf:1: ", $message), "{text}");
            )*
        }
    )*};
}

refused! {
    directives_that_nginx_refuses_are_refused:
        "foo bar;" => "unknown directive \"foo\"",
        "worker_processes 1;" => "\"worker_processes\" directive is not allowed here",
        "server { }" => "\"server\" directive is not allowed here",
        "timeout;" => "invalid number of arguments in \"timeout\" directive",
        "timeout 1 2;" => "invalid number of arguments in \"timeout\" directive",
        "timeout 1; timeout 2;" => "\"timeout\" directive is duplicate",
        "timeout 1 { }" => "directive \"timeout\" is not terminated by \";\"",
        "include nothere.conf;" => "open() \"nothere.conf\" failed (2: No such file or directory)",;
    values_that_nginx_refuses_are_refused:
        "timeout x;" => "\"timeout\" directive invalid value",
        "timeout 1M;" => "\"timeout\" directive invalid value",
        "protocol IMAP;" => "unknown protocol \"IMAP\"",
        "auth_http unix:/a.sock:u;" =>
            "the URI in auth_http \"unix:/a.sock:u\" is not valid in HTTP/1.1; write a path that begins with /, percent-encoded",
        "auth_http 'a/b c';" =>
            "the URI in auth_http \"a/b c\" is not valid in HTTP/1.1; write a path that begins with /, percent-encoded",
        "imap_client_buffer 1x;" => "\"imap_client_buffer\" directive invalid value",
        "max_errors x;" => "\"max_errors\" directive invalid number",
        "xclient maybe;" => "invalid value \"maybe\" in \"xclient\" directive, it must be \"on\" or \"off\"",
        "starttls maybe;" => "invalid value \"maybe\"",
        "imap_auth plain foo;" => "invalid value \"foo\"",
        "protocol ftp;" => "unknown protocol \"ftp\"",
        "proxy_protocol v3;" => "invalid value \"v3\"",
        "resolver 127.0.0.1 valid=x;" => "invalid parameter: valid=x",
        "resolver valid=5s;" => "no name servers defined",
        "resolver 127.0.0.1 foo=bar;" => "host not found in resolver \"foo=bar\"",
        "resolver 127.0.0.1:x;" => "invalid port in resolver \"127.0.0.1:x\"",
        "resolver a ipv4=off ipv6=off;" => "\"ipv4\" and \"ipv6\" cannot both be \"off\"",
        "set_real_ip_from 10.0.0.0/33;" => "host not found in set_real_ip_from \"10.0.0.0/33\"",
        "ssl_protocols foo;" => "invalid value \"foo\"",
        "ssl_session_cache foo;" => "invalid session cache \"foo\"",
        "ssl_session_cache shared:a:1k;" => "session cache \"shared:a:1k\" is too small",;
    listens_that_nginx_refuses_are_refused:
        "listen 143;" => "duplicate \"0.0.0.0:143\" address and port pair",
        "listen nowhere:25;" => "host not found in \"nowhere:25\" of the \"listen\" directive",
        "listen 127.0.0.1:99999;" => "invalid port in \"127.0.0.1:99999\" of the \"listen\" directive",
        "listen 127.0.0.1;" => "no port in \"127.0.0.1\" of the \"listen\" directive",
        "listen unix:;" => "no path in the unix domain socket in \"unix:\" of the \"listen\" directive",
        "listen 25 foo;" => "the invalid \"foo\" parameter",
        "listen 25 backlog=0;" => "invalid backlog \"backlog=0\"",
        "listen 25 rcvbuf=x;" => "invalid rcvbuf \"rcvbuf=x\"",
        "listen 25 ipv6only=x;" => "invalid ipv6only flags \"x\"",
        "listen 25 so_keepalive=::;" => "invalid so_keepalive value: \"::\"",
        "listen 25 so_keepalive=x;" => "invalid so_keepalive value: \"x\"",;
    tls_that_nginx_refuses_is_refused:
        "starttls on;" => "no \"ssl_certificate\" is defined for the \"starttls\" directive",
        "listen 993 ssl;" => "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive",
        "ssl ON; starttls on;" => "\"starttls\" directive conflicts with \"ssl on\"",
        "ssl on;" => "no \"ssl_certificate\" is defined for the \"ssl\" directive",
        "starttls on; ssl_certificate tls/rsa.pem;" =>
            "no \"ssl_certificate_key\" is defined for the \"starttls\" directive",
        "starttls on; ssl_certificate tls/rsa.pem; ssl_certificate tls/b.pem; ssl_certificate_key tls/rsa.key;" =>
            "no \"ssl_certificate_key\" is defined for certificate \"tls/b.pem\" and the \"starttls\" directive",
        "starttls on; ssl_certificate tls/missing.pem; ssl_certificate_key tls/rsa.key;" =>
            "cannot load certificate \"tls/missing.pem\": 2: No such file or directory",
        "starttls on; ssl_verify_client on; ssl_certificate tls/rsa.pem; ssl_certificate_key tls/rsa.key;" =>
            "no ssl_client_certificate for ssl_verify_client",;
}

#[test]
fn certificates_that_nginx_cannot_load_are_refused() {
    let imported = |files: &str| {
        let [chain, key, rest] = files.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{files}") };
        let text = format!(
            "mail {{ auth_http a; server {{ listen 993 ssl;\nssl_certificate tls/{chain};\nssl_certificate_key tls/{key};\n{rest} }} }}"
        );
        import::nginx(Path::new("x.conf"), None, &Fake { real: true, inline: Some(text.leak()) })
    };
    let verify = "ssl_verify_client on; ssl_client_certificate";
    for (files, expected) in [
        (
            "rsa.pem ecdsa.key ",
            "x.conf:3: key values mismatch: the key \"tls/ecdsa.key\" does not belong to the certificate \"tls/rsa.pem\"",
        ),
        (
            "issuer-first.pem rsa.key ",
            "x.conf:3: key values mismatch: the key \"tls/rsa.key\" belongs to certificate 2 of \
             \"tls/issuer-first.pem\"; put this certificate first",
        ),
        (
            "broken-second.pem rsa.key ",
            "x.conf:2: cannot load certificate \"tls/broken-second.pem\": certificate 2 in it is not a valid X.509 \
             certificate",
        ),
        (
            "rsa.pem broken.key ",
            "x.conf:3: cannot load certificate key \"tls/broken.key\": it contains no valid private key",
        ),
    ] {
        assert_eq!(imported(files).unwrap_err().to_string(), expected, "{files}");
    }
    let broken =
        imported(&format!("rsa.pem rsa.key {verify} tls/broken-second.pem;")).unwrap_err().to_string();
    assert!(broken.starts_with("x.conf:4: cannot load \"tls/broken-second.pem\": certificate 2"), "{broken}");
    let broken = imported(&format!("rsa.pem rsa.key {verify} tls/ca.pem; ssl_crl tls/broken.crl;"));
    let broken = broken.unwrap_err().to_string();
    assert!(broken.starts_with("x.conf:4: cannot load \"tls/broken.crl\": "), "{broken}");
    let passwords = imported("rsa.pem rsa.key ssl_password_file nowhere;").unwrap_err().to_string();
    let reason = "2: No such file or directory";
    assert_eq!(passwords, format!("x.conf:4: cannot load password file \"nowhere\": {reason}"));
    assert!(imported(&format!("rsa.pem rsa.key {verify} tls/ca.pem; ssl_crl tls/ca.crl;")).is_ok());
    for (directive, expected) in [
        ("ssl_dhparam nowhere", format!("cannot load DH parameters \"nowhere\": {reason}")),
        ("ssl_dhparam tls/ca.pem", "cannot load DH parameters \"tls/ca.pem\": the file contains no DH parameters in PEM".to_owned()),
        ("ssl_ciphers FOO:!aNULL", "ssl_ciphers \"FOO:!aNULL\": no cipher match; name suites of OpenSSL".to_owned()),
        (
            "ssl_ecdh_curve prime256v1:foo",
            "ssl_ecdh_curve \"prime256v1:foo\": group 'foo' cannot be set; correct the name, or remove the directive"
                .to_owned(),
        ),
    ] {
        let refused = imported(&format!("rsa.pem rsa.key {directive};")).unwrap_err().to_string();
        assert_eq!(refused, format!("x.conf:4: {expected}"));
    }
    assert!(imported("rsa.pem rsa.key ssl_ciphers HIGH; ssl_ecdh_curve X25519:P-256;").is_ok());
}

#[test]
fn an_import_names_certificates_that_clients_may_refuse() {
    let text = "mail { auth_http a; server { listen 993 ssl;
        ssl_certificate tls/unnamed.pem; ssl_certificate_key tls/rsa.key; } }";
    let imported =
        import::nginx(Path::new("x.conf"), None, &Fake { real: true, inline: Some(text) }).unwrap();
    let advice: Vec<String> = imported.advice.iter().map(ToString::to_string).collect();
    assert!(
        advice.iter().any(|line| line.contains("has no DNS name or IP address in subjectAltName")),
        "{advice:?}"
    );
    assert_eq!(notes(&imported), "");
}

#[test]
fn an_import_reports_where_it_accepts_passwords_that_are_not_listed() {
    let text = "mail { auth_http a;\nserver { listen 25; smtp_auth none; }\nserver { listen 587; smtp_auth login; } }";
    let imported = inline(text).unwrap();
    let advice: Vec<String> = imported.advice.iter().map(ToString::to_string).collect();
    let said: Vec<&String> = advice.iter().filter(|line| line.contains("passwordLogins")).collect();
    assert_eq!(
        said,
        ["x.conf:2: smtp_auth none: nginx also accepts password logins, so the manifests set \
          smtp.passwordLogins: Always; remove this field to refuse them"]
    );
}

#[test]
fn whole_configurations_that_nginx_refuses_are_refused() {
    let refused = |text| inline(text).unwrap_err().to_string();
    assert_eq!(refused("events { }\nhttp { }\n"), "x.conf:1: there is no mail {} in this configuration");
    assert_eq!(refused("mail { }\nmail { }"), "x.conf:2: \"mail\" directive is duplicate");
    assert_eq!(refused("mail;"), "x.conf:1: directive \"mail\" has no opening \"{\"");
    assert_eq!(refused("auth_http a;"), "x.conf:1: \"auth_http\" directive is not allowed here");
    assert_eq!(refused("mail {\n listen 25;\n}"), "x.conf:2: \"listen\" directive is not allowed here");
    let server = |body| refused(body);
    assert_eq!(server("mail { auth_http a;\nserver { } }"), "x.conf:2: no \"listen\" is defined for server");
    assert_eq!(server("mail { server { listen 25; } }"), "x.conf:1: no \"auth_http\" is defined for server");
    assert_eq!(
        server("mail { auth_http a;\nserver { listen 1143; } }"),
        "x.conf:2: unknown mail protocol for server"
    );
    assert_eq!(
        server("mail { auth_http https://a/; server { listen 25; } }"),
        "x.conf:1: invalid port in auth_http \"https://a/\""
    );
    assert_eq!(
        server("mail { auth_http http://u:hunter2@a:1/b?c; server { listen 25; } }"),
        "x.conf:1: invalid host in auth_http \"http://********@a:1/b?********\": nginx sends no login; use \
         auth_http_header"
    );
    assert_eq!(refused("mail {\n"), "x.conf:2: unexpected end of file, expecting \"}\"");
    assert_eq!(refused("mail { } }"), "x.conf:1: unexpected \"}\"");
    assert_eq!(refused("include x.conf;"), "x.conf:1: files include each other more than 16 deep");
}

#[test]
fn accepts_any_case_and_order_that_nginx_accepts() {
    let text = "mail { auth_http a:1; auth_http b:2; proxy_pass_error_message ON; xclient Off; starttls OFF;
        server { listen 127.0.0.1:2525; listen 127.0.0.1:25 so_keepalive=30m; smtp_auth PLAIN None; } }";
    let imported = inline(text).unwrap();
    let text = printed(&imported);
    for expected in [
        "url: http://b:2/",
        "protocol: SMTP",
        "passErrorMessage: true",
        "xclient: false",
        "idle: 30m",
        "- PLAIN\n",
        "- NONE\n",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("StartTLS") && notes(&imported).is_empty(), "{text}");
}

#[test]
fn names_do_not_depend_on_the_order_of_servers() {
    let names = |text| {
        let text = printed(&inline(text).unwrap());
        let documents = text.split("---\n").filter(|document| document.contains("kind: MailServer"));
        let mut found: Vec<(String, String)> = documents
            .map(|document| {
                let line =
                    |key: &str| document.lines().find(|line| line.trim().starts_with(key)).unwrap().trim();
                (line("url:").to_owned(), line("name:").to_owned())
            })
            .collect();
        found.sort();
        found
    };
    let forth = names(
        "mail { server_name mx.example.com; server { listen 25; auth_http a; } server { listen 143; auth_http b; } }",
    );
    let back = names(
        "mail { server_name mx.example.com; server { listen 143; auth_http b; } server { listen 25; auth_http a; } }",
    );
    assert_eq!(forth, back);
    assert_eq!(forth[1].1, "name: mx-example-com-2");
}

#[test]
fn a_path_that_no_socket_can_have_is_refused() {
    let text =
        format!("mail {{ auth_http a; server {{ listen unix:/{}; protocol imap; }} }}", "a".repeat(107));
    let said = inline(Box::leak(text.into_boxed_str())).unwrap_err().to_string();
    assert!(said.starts_with("x.conf:1: too long path in the unix domain socket in \"unix:/aaa"), "{said}");
}

#[test]
fn strict_prints_nothing_but_notes() {
    let run = |strict, text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = Nginx { file, prefix: None, strict }.run(&mut out, &mut err).unwrap();
        (code == ExitCode::SUCCESS, out.is_empty(), String::from_utf8(err).unwrap())
    };
    let noted = "mail { auth_http a; ssl_dhparam dh.pem; server { listen 25; } }";
    let (success, silent, said) = run(true, noted);
    assert!(
        !success && silent && said.contains("nginx.conf:1: warning: ssl_dhparam has no equivalent"),
        "{said}"
    );
    assert!(said.ends_with("\n1 warning, 1 note\nno manifests: --strict allows no warning\n"), "{said}");
    let (success, silent, said) = run(false, noted);
    assert!(success && !silent && said.contains("ssl_dhparam"), "{said}");
    let unneeded =
        "mail { auth_http a; proxy_buffer 8k; error_log mail.log; ssl_session_ticket_key ticket.key;
        ssl_certificate_compression on; imap_capabilities IMAP4rev1 AUTH=PLAIN; server { listen 143; } }";
    let (success, silent, said) = run(true, unneeded);
    assert!(success && !silent && said.lines().count() >= 5, "nothing has to be done: {said}");
    let (success, silent, said) = run(true, "mail { auth_http a; server { listen 25; } }");
    assert!(success && !silent && said.contains("nginx.conf:1: note: no server_name"), "advice: {said}");
    assert!(said.ends_with("\n0 warnings, 1 note\n"), "{said}");
    let (success, silent, said) = run(false, "mail { foo; ssl_dhparam dh.pem;");
    assert!(!success && silent, "{said}");
    assert!(said.ends_with("\nno manifests: correct the last 2 lines above\n"), "{said}");
}

#[test]
fn a_file_without_an_end_is_refused() {
    let error = Disk.read(Path::new("/dev/zero")).unwrap_err();
    assert!(error.to_string().contains("larger than 3 MiB"), "{error}");
}

#[test]
fn reports_only_the_missing_file() {
    let text = "mail { auth_http a; foo; include nothere.conf; server { include gone.conf; } }";
    let said = inline(text).unwrap_err().to_string();
    assert_eq!(
        said,
        "x.conf:1: open() \"gone.conf\" failed (2: No such file or directory)\n\
         x.conf:1: open() \"nothere.conf\" failed (2: No such file or directory)\n\
         x.conf:1: unknown directive \"foo\""
    );
}

#[test]
fn a_dump_has_the_files_that_are_here() {
    let text = "# configuration file nginx.conf:\nmail { auth_http a; server { listen 993 ssl;
        ssl_certificate tls/rsa.pem; ssl_certificate_key tls/rsa.key; } }\n";
    assert!(printed(&inline(text).unwrap()).contains("tls.key: |"));
}

#[test]
fn values_above_a_limit_of_the_schema_are_cut_and_reported() {
    let headers: String = (0..40).map(|n| format!("auth_http_header X-{n} {n}; ")).collect();
    let zone = "z".repeat(70);
    let text = format!(
        "mail {{ auth_http a; {headers} server {{ listen 25; resolver 192.0.2.1 valid=0 status_zone={zone}; }} }}"
    );
    let imported = inline(text.leak()).unwrap();
    let said = notes(&imported);
    for expected in ["the first 32 headers are kept", "resolver valid=0 became", "became status_zone=zzz"] {
        assert!(said.contains(expected), "{said}");
    }
    is_valid(&imported);
    let long = format!("mail {{ auth_http a/{}; server {{ listen 25; }} }}", "x".repeat(2100));
    assert_eq!(
        inline(long.leak()).unwrap_err().to_string(),
        "x.conf:1: auth_http is longer than 2048 bytes; shorten it"
    );
}

#[test]
fn headers_whose_names_differ_in_signs_only_keep_their_own_values() {
    let text =
        "mail { auth_http a; auth_http_header X-A! one; auth_http_header X-A* two; server { listen 25; } }";
    let printed = printed(&inline(text).unwrap());
    assert!(printed.contains("x-a-: one") && printed.contains("x-a--2: two"), "{printed}");
}

#[test]
fn relative_paths_begin_at_the_prefix() {
    let (configuration, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = configuration.path().join("nginx.conf");
    std::fs::write(&file, "include mail*.conf;").unwrap();
    let mail =
        "mail { auth_http a; server { listen 993 ssl; ssl_certificate c.pem; ssl_certificate_key c.pem; } }";
    std::fs::write(elsewhere.path().join("mail.conf"), mail).unwrap();
    std::fs::write(elsewhere.path().join("c.pem"), &CERTIFICATES["both.pem"]).unwrap();
    let run = |prefix: Option<&Path>| {
        let nginx = Nginx { file: file.clone(), prefix: prefix.map(Path::to_owned), strict: true };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        nginx.run(&mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (out, err) = run(Some(elsewhere.path()));
    assert!(out.contains("name: imaps") && err.is_empty(), "{out}{err}");
    let (out, err) = run(None);
    assert!(
        out.is_empty() && err.contains("nginx.conf:1: error: there is no mail {} in this configuration\n"),
        "{err}"
    );
}

#[test]
fn skips_everything_outside_of_mail() {
    let text = "user nobody; http { include nothere.conf; content_by_lua_block { if a then b = '{}' end } }
        stream { server { listen 25; } } mail { auth_http a; server { listen 25; } }";
    assert!(printed(&inline(text).unwrap()).contains("name: smtp"));
}

// --- docs/nginx.md ---

#[test]
fn the_documentation_has_a_full_row_for_every_directive() {
    let read =
        |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let page = read("docs/nginx.md");
    let sources = [
        "src/cli/import/tests.rs",
        "src/cli/import/tests/generated.rs",
        "tests/it/import.rs",
        "tests/it/certificates.rs",
    ]
    .map(read)
    .concat();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for row in &rows {
        assert_eq!(row.len(), 4, "directive, field, default, test: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let test = row[3].trim_matches('`');
        let known = [format!("fn {test}("), format!("    {test}:")].iter().any(|text| sources.contains(text));
        assert!(known, "there is no test {test}: {row:?}");
    }
    for known in DIRECTIVES {
        let row = format!("`{}`", known.name);
        assert!(rows.iter().any(|cells| cells[0] == row), "{row} has no row in docs/nginx.md");
    }
}
