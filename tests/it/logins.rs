//! Logins by real clients with all protocols, TLS modes and kinds of auth.

use serde_json::{Value, json};

use crate::support::auth_service::AuthService;
use crate::support::clients::{Clients, Endpoint};
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, passthrough, tls_secret, with};
use crate::support::pki::AUTHORITY;
use crate::support::servers::{PASSWORD, new_user, servers};
use crate::support::wire::Wire;
use crate::support::{acceptor, ports};

/// One listener for each TLS mode, each with both kinds of auth.
struct Matrix {
    mailgress: Mailgress,
    auth: AuthService,
    endpoints: Vec<(Endpoint, &'static str)>,
    clients: Clients,
    _folder: Folder,
}

impl Matrix {
    fn start(protocol: &'static str) -> Self {
        let backend = backend_of(protocol);
        let auth = AuthService::routing(PASSWORD, move |_| backend);
        let mut endpoints = Vec::new();
        let mut listeners = Vec::new();
        for tls in ["Disabled", "StartTLS", "RequireStartTLS", "Implicit"] {
            for (kind, settings) in [("http", http_auth(&auth.url())), ("passthrough", passthrough())] {
                let port = ports::free();
                let name = format!("{}-{kind}", tls.to_lowercase());
                listeners
                    .push(with(listener(&name, protocol, tls, port, backend), &json!({ "auth": settings })));
                endpoints.push((Endpoint { protocol, tls, address: ([127, 0, 0, 1], port).into() }, kind));
            }
        }
        let folder = Folder::new();
        folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
        folder.write("server.yaml", &mail_server(&settings(&listeners)));
        let mailgress = Mailgress::start(&folder);
        Self { mailgress, auth, endpoints, clients: Clients::new(), _folder: folder }
    }

    fn each(&self, check: impl Fn(&Endpoint, &str)) {
        for (endpoint, kind) in &self.endpoints {
            eprintln!("{} with TLS {} and auth {kind}", endpoint.protocol, endpoint.tls);
            check(endpoint, kind);
        }
    }
}

fn settings(listeners: &[Value]) -> Value {
    json!({
        "serverName": "mail.example.test",
        "tls": { "certificateRefs": [{ "name": "mail-tls" }] },
        "imap": { "authMethods": ["PLAIN", "LOGIN"] },
        "pop3": { "authMethods": ["PLAIN", "LOGIN"] },
        "smtp": { "authMethods": ["PLAIN", "LOGIN"] },
        "listeners": listeners,
    })
}

fn backend_of(protocol: &str) -> std::net::SocketAddr {
    match protocol {
        "IMAP" => servers().dovecot.imap(),
        "POP3" => servers().dovecot.pop3(),
        _ => servers().postfix.submission(),
    }
}

fn python_and_curl_log_in(protocol: &'static str) {
    let matrix = Matrix::start(protocol);
    let clients = &matrix.clients;
    matrix.each(|endpoint, _| {
        let user = new_user("login");
        for method in ["login", "plain", "plain-ir"] {
            clients.python_login(endpoint, method, &user, PASSWORD).succeeded();
        }
        clients.curl_login(endpoint, &user, PASSWORD).succeeded();
    });
    auth_service_was_told_the_truth(&matrix);
}

/// Checks the headers that nginx-compatible services need, and that requests share connections.
fn auth_service_was_told_the_truth(matrix: &Matrix) {
    let requests = matrix.auth.requests();
    assert_eq!(requests.len(), 4 * 4, "three Python logins and one by curl in four TLS modes");
    for request in &requests {
        assert_eq!(request.header("Auth-Method"), Some("plain"));
        assert_eq!(request.header("Auth-Pass"), Some(PASSWORD));
        assert_eq!(request.header("Client-IP"), Some("127.0.0.1"));
        assert_eq!(request.header("Auth-Login-Attempt"), Some("1"));
    }
    let secured = requests.iter().filter(|request| request.header("Auth-SSL") == Some("on")).count();
    assert_eq!(secured, 3 * 4, "all but those with TLS Disabled");
    assert!(matrix.auth.connections() < 16, "connections to the auth service are kept");
}

fn a_wrong_password_is_refused(protocol: &'static str) {
    let matrix = Matrix::start(protocol);
    let refusal = match protocol {
        "IMAP" | "POP3" => "uthenticat",
        _ => "535",
    };
    matrix.each(|endpoint, kind| {
        let user = new_user("refused");
        let ran = matrix.clients.python_login(endpoint, "login", &user, "guess").failed();
        let expected = if kind == "http" { "Invalid login or password" } else { refusal };
        assert!(ran.errors.contains(expected), "{expected} is not in {}", ran.errors);
        matrix.clients.curl_login(endpoint, &user, "guess").failed();
    });
    assert!(!matrix.mailgress.log().contains("guess"), "a password is in the log");
}

fn openssl_logs_in(protocol: &'static str, login: &[&str], expected: &[&str]) {
    let matrix = Matrix::start(protocol);
    matrix.each(|endpoint, _| {
        if endpoint.tls == "Disabled" {
            return;
        }
        let ran = matrix.clients.openssl(endpoint, login);
        for text in expected {
            assert!(ran.output.contains(text), "{text} is not in {ran:?}");
        }
    });
}

#[test]
fn imap_clients_log_in_with_every_tls_mode_and_auth_kind() {
    python_and_curl_log_in("IMAP");
}

#[test]
fn pop3_clients_log_in_with_every_tls_mode_and_auth_kind() {
    python_and_curl_log_in("POP3");
}

#[test]
fn smtp_clients_log_in_with_every_tls_mode_and_auth_kind() {
    python_and_curl_log_in("SMTP");
}

#[test]
fn swaks_sends_with_every_tls_mode_and_auth_kind() {
    let matrix = Matrix::start("SMTP");
    matrix.each(|endpoint, _| {
        let user = new_user("swaks");
        matrix.clients.swaks(endpoint, "PLAIN", &user, PASSWORD).succeeded();
        matrix.clients.swaks(endpoint, "LOGIN", &user, PASSWORD).succeeded();
        matrix.clients.swaks(endpoint, "PLAIN", &user, "guess").failed();
    });
}

#[test]
fn imap_refuses_a_wrong_password_in_the_words_of_whoever_decides() {
    a_wrong_password_is_refused("IMAP");
}

#[test]
fn pop3_refuses_a_wrong_password_in_the_words_of_whoever_decides() {
    a_wrong_password_is_refused("POP3");
}

#[test]
fn smtp_refuses_a_wrong_password_in_the_words_of_whoever_decides() {
    a_wrong_password_is_refused("SMTP");
}

#[test]
fn openssl_logs_in_by_imap_with_commands_pipelined_behind_the_login() {
    let login = format!("a LOGIN {} {PASSWORD}", new_user("openssl"));
    openssl_logs_in("IMAP", &[&login, "b SELECT INBOX", "c LOGOUT"], &["a OK", "b OK", "* BYE", "c OK"]);
}

#[test]
fn openssl_logs_in_by_pop3_with_commands_pipelined_behind_the_login() {
    let user = format!("USER {}", new_user("openssl"));
    let password = format!("PASS {PASSWORD}");
    openssl_logs_in("POP3", &[&user, &password, "STAT", "QUIT"], &["+OK 0 0", "+OK Logging out"]);
}

#[test]
fn openssl_logs_in_by_smtp_with_commands_pipelined_behind_the_login() {
    use base64::Engine;
    let user = new_user("openssl");
    let response = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
    let (login, from) = (format!("AUTH PLAIN {response}"), format!("MAIL FROM:<{user}>"));
    openssl_logs_in(
        "SMTP",
        &["EHLO client.example.test", &login, &from, "QUIT"],
        &["235 2.", "250 2.1.0 Ok", "221 2.0.0 Bye"],
    );
}

#[test]
fn no_password_is_taken_before_starttls_where_it_is_required() {
    let port = [ports::free(), ports::free(), ports::free()];
    let listeners = ["IMAP", "POP3", "SMTP"].map(|protocol| {
        let index = ["IMAP", "POP3", "SMTP"].iter().position(|name| *name == protocol).unwrap();
        listener(&protocol.to_lowercase(), protocol, "RequireStartTLS", port[index], backend_of(protocol))
    });
    let folder = Folder::new();
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    let spec = with(settings(&listeners), &json!({ "auth": passthrough() }));
    folder.write("server.yaml", &mail_server(&spec));
    let _mailgress = Mailgress::start(&folder);
    let connect = |index: usize| Wire::connect(([127, 0, 0, 1], port[index]).into()).unwrap();

    let mut imap = connect(0);
    imap.line().unwrap();
    let capabilities = imap.imap("a", "CAPABILITY").unwrap();
    assert!(capabilities[0].contains("STARTTLS") && capabilities[0].contains("LOGINDISABLED"));
    assert_eq!(
        imap.ask("b LOGIN user secret").unwrap(),
        "b NO [PRIVACYREQUIRED] STARTTLS is required before a login"
    );
    let mut pop3 = connect(1);
    pop3.line().unwrap();
    assert_eq!(pop3.ask("USER user").unwrap(), "-ERR invalid command");
    let mut smtp = connect(2);
    smtp.line().unwrap();
    let capabilities = smtp.smtp("EHLO client.example.test").unwrap();
    assert!(capabilities.iter().any(|line| line.ends_with("STARTTLS")), "{capabilities:?}");
    assert!(!capabilities.iter().any(|line| line.contains("AUTH")), "{capabilities:?}");
    assert_eq!(
        smtp.ask("AUTH PLAIN AHVzZXIAc2VjcmV0").unwrap(),
        "530 5.7.0 Must issue a STARTTLS command first"
    );
}

#[test]
fn an_auth_service_may_send_every_user_elsewhere() {
    use crate::support::backend::Backend;
    let (first, second) = (Backend::imap("first"), Backend::imap("second"));
    let (one, other) = (first.address(), second.address());
    let auth = AuthService::start(move |request| {
        let address = if request.header("Auth-User") == Some("one") { one } else { other };
        crate::support::auth_service::Answer::Backend(address)
    });
    let port = ports::free();
    let nobody = acceptor::Acceptor::start(drop);
    let folder = Folder::new();
    let listeners = [listener("imap", "IMAP", "Disabled", port, nobody.address())];
    let spec = with(settings(&listeners), &json!({ "auth": http_auth(&auth.url()) }));
    folder.write("tls.yaml", &tls_secret("mail-tls", &AUTHORITY.issue_for_loopback()));
    folder.write("server.yaml", &mail_server(&spec));
    let _mailgress = Mailgress::start(&folder);
    for (user, name) in [("one", "first"), ("two", "second"), ("one", "first")] {
        let mut wire = Wire::connect(([127, 0, 0, 1], port).into()).unwrap();
        wire.line().unwrap();
        assert_eq!(wire.ask(&format!("a LOGIN {user} secret")).unwrap(), format!("a OK {name}"));
    }
    assert_eq!(nobody.accepted(), 0);
}
