//! The names of SMTP clients: looked up by PTR, confirmed, and passed to the auth service and the backend.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use serde_json::{Value, json};

use crate::support::auth_service::{Answer, AuthService};
use crate::support::backend::Backend;
use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, http_auth, listener, mail_server, with};
use crate::support::name_server::{NameServer, Reply};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// Port 25 and a UNIX socket without logins, with their own resolver.
struct Site {
    smtp: SocketAddr,
    socket: PathBuf,
    xclients: Arc<Mutex<Vec<String>>>,
    auth: AuthService,
    mailgress: Mailgress,
    folder: Folder,
    spec: Value,
    _backend: Backend,
    _names: NameServer,
}

/// The records of the name server: a client with a name, one whose name resolves to another address, and one whose
/// lookup fails.
fn known(name: &str, of: RecordType) -> Reply {
    match (name, of) {
        ("1.0.0.127.in-addr.arpa", RecordType::PTR) => Reply::Pointer("Client.Example.test."),
        ("2.0.0.127.in-addr.arpa", RecordType::PTR) => Reply::Pointer("client.example.test."),
        ("4.0.0.127.in-addr.arpa", RecordType::PTR) => Reply::Code(ResponseCode::ServFail),
        ("client.example.test", RecordType::A) => Reply::Address(Ipv4Addr::LOCALHOST),
        _ => Reply::Code(ResponseCode::NXDomain),
    }
}

impl Site {
    fn start() -> Self {
        Self::start_with(known, &json!({}))
    }

    fn start_with(known: fn(&str, RecordType) -> Reply, settings: &Value) -> Self {
        let names = NameServer::start(known);
        let xclients = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&xclients);
        let backend = Backend::smtp_after_xclient("mx", move |line| seen.lock().unwrap().push(line));
        let address = backend.address();
        let auth = AuthService::start(move |_| Answer::Backend(address));
        let (port, folder) = (ports::free(), Folder::new());
        let socket = folder.file("smtp.sock");
        let spec = json!({
            "auth": http_auth(&auth.url()),
            "smtp": { "authMethods": ["NONE"] },
            "resolver": {
                "nameservers": [names.address().to_string()],
                "statisticsZone": "edge",
                "ipv6": false,
                "timeout": "20s",
            },
            "listeners": [listener("mx", "SMTP", "Disabled", port, address), {
                "name": "local",
                "protocol": "SMTP",
                "address": format!("unix:{}", socket.display()),
                "tls": { "mode": "Disabled" },
                "backendAddress": address.to_string(),
            }],
        });
        let spec = with(spec, settings);
        folder.write("server.yaml", &mail_server(&spec));
        let mailgress = Mailgress::start(&folder);
        let smtp = ([127, 0, 0, 1], port).into();
        Self { smtp, socket, xclients, auth, mailgress, folder, spec, _backend: backend, _names: names }
    }

    /// Sends an envelope. Returns the client's name as the auth service got it.
    fn told_of(&self, mut wire: Wire) -> String {
        wire.line().unwrap();
        wire.smtp("EHLO mail.example.test").unwrap();
        wire.ask("MAIL FROM:<sender@example.org>").unwrap();
        assert_eq!(wire.ask("RCPT TO:<somebody@example.test>").unwrap(), "250 2.0.0 OK");
        let requests = self.auth.requests();
        requests.last().unwrap().header("Client-Host").unwrap().to_owned()
    }

    fn told_from(&self, client: [u8; 4]) -> String {
        self.told_of(Wire::connect_from(client.into(), self.smtp).unwrap())
    }

    fn counted(&self, metric: &str, label: &str) -> Option<u64> {
        let start = format!("mailgress_resolver_{metric}_total{{{label},zone=\"edge\"}} ");
        let metrics = self.mailgress.metrics();
        metrics.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
    }
}

#[test]
fn a_client_whose_name_leads_back_to_it_is_named_to_the_auth_service_and_to_the_backend() {
    let site = Site::start();
    for _ in 0..2 {
        assert_eq!(site.told_from([127, 0, 0, 1]), "client.example.test");
    }
    let xclients = site.xclients.lock().unwrap();
    assert_eq!(xclients.len(), 2);
    assert!(xclients[0].contains("ADDR=127.0.0.1") && xclients[0].ends_with("NAME=client.example.test"));
    for (metric, label, expected) in [
        ("queries", r#"kind="addr""#, 2),
        ("queries", r#"kind="name""#, 2),
        ("queries", r#"kind="srv""#, 0),
        // The answers for the second client are cached.
        ("requests", r#"type="ptr""#, 1),
        ("requests", r#"type="a""#, 1),
        ("requests", r#"type="aaaa""#, 0),
        ("responses", r#"outcome="success""#, 2),
        ("responses", r#"outcome="timedout""#, 0),
    ] {
        assert_eq!(site.counted(metric, label), Some(expected), "{metric} {label}");
    }
}

#[test]
fn a_client_without_a_name_that_leads_back_to_it_has_the_marker_of_the_reason() {
    let site = Site::start();
    for (client, expected) in [
        ([127, 0, 0, 2], "[UNAVAILABLE]"),
        ([127, 0, 0, 3], "[UNAVAILABLE]"),
        ([127, 0, 0, 4], "[TEMPUNAVAIL]"),
    ] {
        assert_eq!(site.told_from(client), expected, "{client:?}");
        let xclients = site.xclients.lock().unwrap();
        assert!(xclients.last().unwrap().ends_with(&format!("NAME={expected}")), "{xclients:?}");
    }
    assert_eq!(site.counted("responses", r#"outcome="not_found""#), Some(1));
    assert!(site.counted("responses", r#"outcome="server_failure""#) > Some(0));
    assert_eq!(site.told_of(Wire::connect_unix(&site.socket).unwrap()), "[TEMPUNAVAIL]");
}

#[test]
fn a_client_that_leaves_while_its_name_is_looked_up_leaves_no_descriptor_open() {
    let site = Site::start_with(|_, _| Reply::Silence, &json!({}));
    let before = site.mailgress.descriptors();
    let clients: Vec<Wire> =
        (1..=50).map(|last| Wire::connect_from([127, 0, 1, last].into(), site.smtp).unwrap()).collect();
    wait::eventually("all names are looked up, each over a socket", || {
        (site.mailgress.descriptors() >= before + 2 * clients.len()).then_some(())
    });
    drop(clients);
    wait::eventually("nothing is left", || (site.mailgress.descriptors() <= before).then_some(()));
    assert_eq!(site.counted("responses", r#"outcome="timedout""#), Some(0), "no lookup came to its end");
}

#[test]
fn a_client_that_talks_while_its_name_is_looked_up_is_an_early_talker() {
    let settings = json!({ "resolver": { "timeout": "500ms" }, "smtp": { "greetingDelay": "100ms" } });
    let site = Site::start_with(|_, _| Reply::Silence, &settings);
    let mut wire = Wire::connect(site.smtp).unwrap();
    assert_eq!(
        wire.ask("EHLO early.example.test").unwrap(),
        "503 5.5.0 Improper use of SMTP command pipelining"
    );
}

#[test]
fn a_zone_that_nothing_names_any_more_is_counted_no_longer() {
    let site = Site::start();
    assert_eq!(site.counted("queries", r#"kind="addr""#), Some(0));
    let renamed = with(site.spec.clone(), &json!({ "resolver": { "statisticsZone": "elsewhere" } }));
    site.folder.write("server.yaml", &mail_server(&renamed));
    wait::eventually("the zone is gone", || {
        let metrics = site.mailgress.metrics();
        let counted = |zone: &str| metrics.contains(&format!("zone=\"{zone}\""));
        (counted("elsewhere") && !counted("edge")).then_some(())
    });
}
