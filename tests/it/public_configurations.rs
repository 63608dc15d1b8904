//! Configurations in the form of published ones: each is imported, served, and used by clients.
//!
//! Lines that start with `#@` name a listener, its protocol, when TLS starts, and what a client may do. Lines that
//! start with `#!` are the expected messages of the import.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::support::auth_service::{Answer, AuthRequest, AuthService};
use crate::support::backend::Backend;
use crate::support::imported::Imported;
use crate::support::manifest::Folder;
use crate::support::pki::AUTHORITY;
use crate::support::ports;
use crate::support::talk::{greeted, is_success, log_in};
use crate::support::tls_client::secured;
use crate::support::wire::Wire;

macro_rules! served {
    ($($test:ident: $file:literal,)*) => {$(
        #[test]
        fn $test() {
            serve(include_str!(concat!("public_configurations/", $file)));
        }
    )*};
}

served! {
    the_shape_of_mailus_front_is_served: "mailu.conf",
    the_shape_of_zimbras_proxy_without_its_own_directives_is_served: "zimbra.conf",
    the_shape_of_bluemind_is_served: "bluemind.conf",
    the_shape_of_nauthilus_is_served: "nauthilus.conf",
    the_shape_of_iredmail_is_served: "iredmail.conf",
    a_mere_mx_is_served: "mx.conf",
    mail_in_several_includes_is_served: "includes.conf",
    what_nginx_minus_t_prints_is_served: "dump.txt",
    the_example_of_nginxs_documentation_is_served: "documentation.conf",
    an_old_configuration_with_ssl_on_is_served: "old.conf",
    a_submission_relay_is_served: "submission.conf",
    a_configuration_of_angie_is_served: "angie.conf",
    a_configuration_behind_a_load_balancer_is_served: "balanced.conf",
    a_configuration_of_one_machine_with_sockets_is_served: "sockets.conf",
}

/// One `#@` line.
struct Expected<'a> {
    name: &'a str,
    protocol: &'a str,
    tls: &'a str,
    verdict: &'a str,
    port: u16,
}

impl<'a> Expected<'a> {
    fn all(text: &'a str) -> Vec<Self> {
        let each = text.lines().filter_map(|line| line.strip_prefix("#@ ")).map(|line| {
            let [name, protocol, tls, verdict] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            Self { name, protocol, tls, verdict, port: ports::free() }
        });
        each.collect()
    }

    /// Connects, ready for a login.
    fn connect(&self, folder: &Folder) -> Wire {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let tls = |mode| secured((self.protocol, mode), address, &AUTHORITY.client(), "localhost").unwrap();
        match self.tls {
            "implicit" => tls("Implicit"),
            "starttls" | "only" => tls("StartTLS"),
            "unix" => {
                let mut wire = Wire::connect_unix(&folder.file(self.name)).unwrap();
                wire.line().unwrap();
                wire
            }
            "proxied" => {
                let mut wire = Wire::connect(address).unwrap();
                wire.send(format!("PROXY TCP4 {CLIENT} 192.0.2.1 4711 {}\r\n", self.port)).unwrap();
                wire.line().unwrap();
                wire
            }
            _ => greeted(address).unwrap(),
        }
    }

    fn holds(&self, folder: &Folder) {
        let name = self.name;
        if self.verdict == "anonymous" {
            let mut wire = self.connect(folder);
            wire.smtp("EHLO client.example.test").unwrap();
            for command in ["MAIL FROM:<a@example.test>", "RCPT TO:<b@example.test>"] {
                let answer = wire.ask(command).unwrap();
                assert!(answer.starts_with("250 "), "{name}: {command}: {answer}");
            }
            return;
        }
        for (password, expected) in [("wrong", false), (PASSWORD, true)] {
            let mut wire = self.connect(folder);
            let answer = log_in(&mut wire, self.protocol, "user@example.test", password).unwrap();
            assert_eq!(is_success(self.protocol, &answer), expected, "{name}: {answer}");
        }
        if self.tls == "only" {
            let mut wire = greeted(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).unwrap();
            let first = match self.protocol {
                "IMAP" => wire.imap("a", "LOGIN user@example.test secret").unwrap().pop().unwrap(),
                "POP3" => wire.ask("USER user@example.test").unwrap(),
                _ => log_in(&mut wire, "SMTP", "user@example.test", PASSWORD).unwrap(),
            };
            assert!(!is_success(self.protocol, &first), "{name}: {first}");
        }
    }
}

fn serve(text: &str) {
    let folder = Folder::new();
    let backends = Arc::new([
        Backend::imap("b"),
        Backend::pop3("b"),
        Backend::smtp("b"),
        Backend::imap_behind_proxy("b", |header| assert!(header.starts_with("PROXY TCP4 "), "{header}")),
    ]);
    let auth = AuthService::start(move |request| decide(request, &backends));
    let identity = AUTHORITY.issue_for_loopback();
    folder.write_text("mail.pem", &(identity.certificate + &identity.key));
    folder.write_text("ca.pem", &AUTHORITY.pem());
    folder.write_text("dhparam.pem", "-----BEGIN DH PARAMETERS-----\n-----END DH PARAMETERS-----\n");
    let expected = Expected::all(text);
    let mut written =
        text.replace("@AUTH@", &auth.address().to_string()).replace("@DIR@", folder.path().to_str().unwrap());
    for listener in &expected {
        written = written.replace(&format!("@{}@", listener.name), &listener.port.to_string());
    }
    // Every part except the first is an included file.
    for (index, part) in written.split("#FILE ").enumerate() {
        match part.split_once('\n') {
            Some((name, content)) if index > 0 => folder.write_text(name, content),
            _ => folder.write_text("nginx.conf", part),
        };
    }
    let imported = Imported::of(&folder, "nginx.conf", &[]);
    for said in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        assert!(imported.said().contains(said), "{said:?} is not in\n{}", imported.said());
    }
    for listener in &expected {
        listener.holds(&folder);
    }
    let proxied = expected.iter().any(|listener| listener.tls == "proxied");
    if proxied {
        assert!(auth.requests().iter().any(|request| request.header("Client-IP") == Some(CLIENT)));
    }
    assert!(expected.len() > 1 || !auth.requests().is_empty());
}

/// A correct password, or mail without a login, leads to the protocol's backend.
fn decide(request: &AuthRequest, [imap, pop3, smtp, proxied]: &[Backend; 4]) -> Answer {
    let header = |name| request.header(name).unwrap_or_default();
    let is_anonymous = header("Auth-Method") == "none";
    if !is_anonymous && header("Auth-Pass") != PASSWORD {
        return Answer::refuse("Invalid login or password");
    }
    Answer::Backend(match (header("Auth-Protocol"), header("X-Backend")) {
        ("imap", "proxied") => proxied.address(),
        ("imap", _) => imap.address(),
        ("pop3", _) => pop3.address(),
        _ => smtp.address(),
    })
}

const PASSWORD: &str = "secret";
/// The client behind a load balancer.
const CLIENT: &str = "198.51.100.7";
