//! Certificates and keys that are common, unusual or invalid, created with `openssl`: what nginx and Mailgress do with
//! them, and the messages of `check` and `import`.

mod variants;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::backend::Backend;
use crate::support::generated::is_current;
use crate::support::mailgress::{Mailgress, binary};
use crate::support::manifest::{Folder, ca_config_map, listener, mail_server, passthrough, with};
use crate::support::openssl::{authorities, client, script};
use crate::support::ports;

use variants::{Nginx, Ours, VARIANTS};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn secret(name: &str, folder: &Path) -> Value {
    let value = |file: &str| STANDARD.encode(std::fs::read(folder.join(file)).unwrap());
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": name, "namespace": "mail" },
        "data": { "tls.crt": value("tls.crt"), "tls.key": value("tls.key") },
    })
}

/// Tells whether nginx starts with the folder's `tls.crt` and `tls.key`.
fn nginx_starts(folder: &Path) -> bool {
    let at = folder.display();
    let passwords = if folder.join("passwords").exists() { "ssl_password_file passwords;" } else { "" };
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
         events {{}}\nmail {{ server_name mail.test; auth_http 127.0.0.1:1; ssl_certificate tls.crt;\n\
         ssl_certificate_key tls.key; {passwords} server {{ listen 127.0.0.1:{} ssl; protocol imap; }} }}\n",
        ports::free()
    );
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-t", "-q", "-p"]).arg(folder).args(["-c", "nginx.conf"]).stdin(Stdio::null());
    command.output().unwrap().status.success()
}

/// Returns the output of `check`.
fn check(folder: &Folder) -> String {
    let ran = Command::new(binary()).args(["check", "-f"]).arg(folder.path()).output().unwrap();
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn unusual_certificates_are_served_as_nginx_serves_them_and_check_says_what_is_unusual() {
    let made = TempDir::new().unwrap();
    authorities(made.path());
    let backend = Backend::imap("imap");
    let folder = Folder::new();
    let mut listeners = Vec::new();
    let mut addresses = BTreeMap::new();
    for variant in VARIANTS {
        let directory = made.path().join(variant.name);
        script(&directory, variant.script);
        assert_eq!(nginx_starts(&directory), variant.nginx != Nginx::Refuses, "nginx: {}", variant.name);
        folder.write(&format!("{}.yaml", variant.name), &secret(variant.name, &directory));
        let address = loopback();
        let wanted = listener(variant.name, "IMAP", "Implicit", address.port(), backend.address());
        let tls = json!({ "tls": { "certificateRefs": [{ "name": variant.name }] }, "auth": passthrough() });
        listeners.push(with(wanted, &tls));
        addresses.insert(variant.name, address);
    }
    folder.write("server.yaml", &mail_server(&json!({ "listeners": listeners })));
    let said = check(&folder);
    let _mailgress = Mailgress::start_with(&folder, &["--ready-timeout", "1s"]);
    for variant in VARIANTS {
        let field = format!("spec.listeners[{}].tls.certificateRefs[0]: ", variant.name);
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&field)).collect();
        match (variant.ours, lines.as_slice()) {
            (Ours::Serves, []) => {}
            (Ours::Warns(text) | Ours::Refuses(text), [line]) if line.contains(text) => {}
            _ => panic!("{}: {lines:?}", variant.name),
        }
        if matches!(variant.ours, Ours::Refuses(_)) {
            continue;
        }
        for version in variant.versions() {
            let answer = client(addresses[variant.name], &[version]);
            assert!(answer.starts_with("* OK "), "{} {version}: {answer}", variant.name);
        }
    }
}

#[test]
fn generated_rows_of_the_page_about_certificates_are_the_variants() {
    let page = "docs/howto/certificates.md";
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let rows: String = VARIANTS.iter().map(|variant| variant.row() + "\n").collect();
    let head = "| certificate or key | nginx | Mailgress | `check` |\n| --- | --- | --- | --- |\n";
    let (before, rest) = text.split_once(head).unwrap();
    let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
    let wanted = format!("{before}{head}{rows}\n{after}");
    is_current(page, &wanted);
}

/// Encryptions of keys that nginx supports: arguments of `openssl` that convert `plain.key` to `tls.key`.
const ENCRYPTIONS: &[(&str, &str)] = &[
    ("pbes2-aes256", "pkcs8 -topk8"),
    ("pbes2-aes128", "pkcs8 -topk8 -v2 aes-128-cbc"),
    ("pbes2-des3", "pkcs8 -topk8 -v2 des3"),
    ("pbes2-sha1", "pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA1"),
    ("scrypt", "pkcs8 -topk8 -scrypt"),
    ("dek-aes128", "ec -aes128"),
    ("dek-aes192", "ec -aes192"),
    ("dek-aes256", "ec -aes256"),
    ("dek-des3", "ec -des3"),
];

/// Writes nginx.conf with a server for each name. Returns their addresses.
fn imports(folder: &Path, names: &[&str]) -> BTreeMap<String, SocketAddr> {
    let mut text = String::from("events {}\nmail {\n auth_http 127.0.0.1:1;\n");
    let mut addresses = BTreeMap::new();
    for name in names {
        let address = loopback();
        writeln!(
            text,
            " server {{ listen {address} ssl; protocol imap; ssl_certificate {name}/tls.crt; \
             ssl_certificate_key {name}/tls.key; ssl_password_file {name}/passwords; }}"
        )
        .unwrap();
        addresses.insert((*name).to_owned(), address);
    }
    text.push_str("}\n");
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    addresses
}

/// Runs an import. Returns its standard output and error.
fn import(folder: &Path) -> (String, String) {
    let ran =
        Command::new(binary()).args(["import", "nginx"]).arg(folder.join("nginx.conf")).output().unwrap();
    let notes = String::from_utf8(ran.stderr).unwrap();
    // Ignore notes that are not about certificates.
    let about_certificates = notes.lines().filter(|line| line.contains("certificate"));
    let notes = about_certificates.map(|line| format!("{line}\n")).collect();
    (String::from_utf8(ran.stdout).unwrap(), notes)
}

fn encrypt(made: &Path, name: &str, openssl: &str, passwords: &str) {
    let text = format!(
        "ec; sign $names; mv tls.key plain.key\n\
         openssl {openssl} -in plain.key -passout pass:secret -out tls.key\nprintf '{passwords}' > passwords"
    );
    script(&made.join(name), &text);
    assert!(nginx_starts(&made.join(name)) != passwords.is_empty(), "nginx: {name}");
}

#[test]
fn an_import_decrypts_keys_with_the_passphrases_that_nginx_has() {
    let made = TempDir::new().unwrap();
    authorities(made.path());
    for (name, openssl) in ENCRYPTIONS {
        encrypt(made.path(), name, openssl, "wrong\\r\\n\\nsecret\\r\\n");
    }
    let names: Vec<&str> = ENCRYPTIONS.iter().map(|(name, _)| *name).collect();
    let addresses = imports(made.path(), &names);
    let (manifests, notes) = import(made.path());
    assert_eq!(notes.lines().count(), names.len(), "{notes}");
    for name in names {
        let note =
            format!("ssl_certificate_key {name}/tls.key was decrypted with a passphrase of {name}/passwords");
        assert!(notes.contains(&note), "{notes}");
    }
    assert!(!manifests.contains("ENCRYPTED") && !notes.contains("secret\n"), "{notes}");
    let folder = Folder::new();
    folder.write_text("mail.yaml", &manifests);
    let _mailgress = Mailgress::start(&folder);
    for (name, address) in addresses {
        let answer = client(address, &[]);
        assert!(answer.starts_with("* OK "), "{name}: {answer}");
    }
}

#[test]
fn an_import_says_which_keys_it_cannot_decrypt() {
    let made = TempDir::new().unwrap();
    authorities(made.path());
    for (name, openssl) in [
        ("camellia", "ec -camellia256"),
        ("pbes1", "pkcs8 -topk8 -v1 PBE-SHA1-3DES"),
        ("pbes2-camellia", "pkcs8 -topk8 -v2 camellia-256-cbc"),
    ] {
        encrypt(made.path(), name, openssl, "secret\\n");
        imports(made.path(), &[name]);
        let (manifests, notes) = import(made.path());
        assert!(manifests.contains("ENCRYPTED"), "{name}: {notes}");
        assert!(
            notes.contains("which the import cannot decrypt; decrypt the key with `openssl pkey`"),
            "{notes}"
        );
    }
    encrypt(made.path(), "wrong", "pkcs8 -topk8", "");
    std::fs::write(made.path().join("wrong/passwords"), "wrong\n").unwrap();
    imports(made.path(), &["wrong"]);
    let (manifests, notes) = import(made.path());
    let problem =
        "cannot load certificate key \"wrong/tls.key\": no passphrase in \"wrong/passwords\" decrypts it";
    assert!(manifests.is_empty() && notes.contains(problem), "{notes}");
}

#[test]
fn an_import_says_what_is_not_served_as_it_is() {
    let made = TempDir::new().unwrap();
    authorities(made.path());
    let names = ["twice", "ed448", "version-1"];
    for variant in VARIANTS.iter().filter(|variant| names.contains(&variant.name)) {
        script(&made.path().join(variant.name), variant.script);
        std::fs::write(made.path().join(variant.name).join("passwords"), "unused\n").unwrap();
    }
    imports(made.path(), &names);
    let (_, notes) = import(made.path());
    let lines: Vec<&str> = notes.lines().collect();
    let [twice, ed448, version_1] = lines.as_slice() else { panic!("{notes}") };
    assert!(twice.contains("certificates 1, 3 of it are served"), "{notes}");
    assert!(version_1.contains("note: ") && version_1.contains("is of X.509 version 1"), "{notes}");
    assert!(ed448.contains("this certificate cannot be served") && ed448.contains("(Ed448)"), "{notes}");
}

#[test]
fn a_client_certificate_of_version_1_is_verified() {
    let made = TempDir::new().unwrap();
    authorities(made.path());
    script(&made.path().join("server"), "ec; sign $names");
    script(made.path(), CLIENTS);
    let folder = Folder::new();
    folder.write("tls.yaml", &secret("mail-tls", &made.path().join("server")));
    let read = |name: &str| std::fs::read_to_string(made.path().join(name)).unwrap();
    folder.write("ca.yaml", &ca_config_map("client-ca", &read("ca.crt")));
    let lists = json!({ "metadata": { "name": "client-crl" }, "data": { "ca.crl": read("ca.crl") } });
    folder.write("crl.yaml", &with(ca_config_map("client-crl", ""), &lists));
    let backend = Backend::imap("imap");
    let (plain, listed) = (loopback(), loopback());
    let asking = |name: &str, address: SocketAddr, crls: Value| {
        let wanted = listener(name, "IMAP", "Implicit", address.port(), backend.address());
        let client_auth = json!({
            "mode": "Required", "caCertificateRefs": [{ "kind": "ConfigMap", "name": "client-ca" }],
        });
        let tls =
            json!({ "certificateRefs": [{ "name": "mail-tls" }], "clientAuth": with(client_auth, &crls) });
        with(wanted, &json!({ "tls": tls, "auth": passthrough() }))
    };
    let crls = json!({ "crlRefs": [{ "kind": "ConfigMap", "name": "client-crl" }] });
    let listeners = [asking("plain", plain, json!({})), asking("listed", listed, crls)];
    folder.write("server.yaml", &mail_server(&json!({ "listeners": listeners })));
    let _mailgress = Mailgress::start(&folder);
    for (name, [without_list, with_list]) in [
        ("alice", [true, true]),
        ("rsa", [true, true]),
        ("foreign", [false, false]),
        ("forged", [false, false]),
        ("expired", [false, false]),
        ("revoked", [true, false]),
    ] {
        for (address, accepted) in [(plain, without_list), (listed, with_list)] {
            for version in ["-tls1_2", "-tls1_3"] {
                let path = |ending: &str| made.path().join(format!("{name}.{ending}")).display().to_string();
                let answer = client(address, &[version, "-cert", &path("crt"), "-key", &path("key")]);
                let expected = if accepted { "* OK " } else { "* BYE SSL certificate error" };
                assert!(answer.starts_with(expected), "{name} {version}: {answer}");
            }
        }
    }
}

/// Two authorities, one of which takes the first one's name, certificates of each, and a revocation list of the first
/// one.
const CLIENTS: &str = "for ca in ca other; do ec $ca.key; version1 -key $ca.key -subj /CN=$ca -out $ca.crt; done
         : > index; echo 01 > crlnumber
         printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\ncrlnumber=crlnumber\\ndefault_md=sha256\\n\
             default_crl_days=100\\n' > ca.cnf
         client() { # name, authority, serial number, then arguments
             name=$1 ca=$2 serial=$3; shift 3
             openssl req -new -key $name.key -subj /CN=$name -out $name.csr
             openssl x509 -req -in $name.csr -CA $ca.crt -CAkey $ca.key -set_serial $serial -out $name.crt \"$@\"; }
         ec alice.key; client alice ca 1 -days 100
         openssl genrsa -out rsa.key 2048; client rsa ca 2 -days 100
         ec foreign.key; client foreign other 3 -days 100
         cp alice.key forged.key; cp ca.crt real.crt; cp other.key forger.key
         version1 -key forger.key -subj /CN=ca -out forger.crt; client forged forger 4 -days 100
         ec expired.key; client expired ca 5 -days -1
         ec revoked.key; client revoked ca 6 -days 100
         openssl ca -config ca.cnf -revoke revoked.crt -cert ca.crt -keyfile ca.key
         openssl ca -config ca.cnf -gencrl -cert ca.crt -keyfile ca.key -out ca.crl";
