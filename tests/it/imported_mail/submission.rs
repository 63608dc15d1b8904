//! Mail with and without a login is delivered by Postfix to Dovecot and read back. Postfix gets the client's real
//! address in each of the ways that Mailgress can pass it.

use std::time::Duration;

use super::Site;
use crate::support::message::{AWKWARD, ends_with, message, wait_for_mail};
use crate::support::servers::{PASSWORD, new_user, servers};

/// A way for mail to arrive.
struct Way {
    server: &'static str,
    /// The local address that the client connects from.
    source: &'static str,
    /// The PROXY header of a load balancer, if any.
    header: &'static str,
    /// The client address that the auth service and Postfix must get.
    client: &'static str,
    /// Whether the client logs in.
    login: bool,
}

/// All servers for mail. No other test uses these client addresses.
const WAYS: [Way; 7] = [
    Way { server: "submission", source: "127.5.0.1", header: "", client: "127.5.0.1", login: true },
    Way { server: "submission_proxied", source: "127.5.0.2", header: "", client: "127.5.0.2", login: true },
    Way {
        server: "submission_balanced",
        source: "127.5.0.3",
        header: "PROXY TCP4 192.0.2.53 203.0.113.1 40000 587",
        client: "192.0.2.53",
        login: true,
    },
    Way { server: "mx", source: "127.5.0.4", header: "", client: "127.5.0.4", login: false },
    Way { server: "mx_proxied", source: "127.5.0.5", header: "", client: "127.5.0.5", login: false },
    Way {
        server: "mx_balanced",
        source: "127.5.0.6",
        header: "PROXY TCP4 192.0.2.56 203.0.113.1 40000 25",
        client: "192.0.2.56",
        login: false,
    },
    Way {
        server: "mx_balanced",
        source: "127.5.0.7",
        header: "PROXY TCP6 2001:db8::57 2001:db8::1 40000 25",
        client: "2001:db8::57",
        login: false,
    },
];

#[test]
fn mail_is_delivered_and_read_back_and_postfix_knows_the_client() {
    let site = Site::start();
    let (sent, received) = (site.clients.file("sent"), site.clients.file("received"));
    for way in WAYS {
        let what = format!("{} for {}", way.server, way.client);
        let user = new_user("mailed");
        let message = message(&user, AWKWARD);
        std::fs::write(&sent, &message).unwrap();
        let mut arguments = vec!["--source", way.source, "--header", way.header];
        arguments.extend([user.as_str(), &user, sent.to_str().unwrap()]);
        if way.login {
            arguments.extend([user.as_str(), PASSWORD]);
        }
        site.clients.python("send.py", site.at(way.server), &arguments).succeeded();
        let log = servers().postfix.logs(&format!("client=unknown[{}]", way.client));
        assert_eq!(log.len(), 1, "{what}: {log:?}");
        assert_eq!(log[0].contains(&format!("sasl_username={user}")), way.login, "{what}: {log:?}");
        let requests = site.auth.requests();
        let request = requests.last().unwrap();
        assert_eq!(request.header("Client-IP"), Some(way.client), "{what}");
        assert_eq!(request.header("Auth-Method") == Some("none"), !way.login, "{what}");
        wait_for_mail(&user);
        site.clients.curl_fetch(site.at("imaps"), &user, &received).succeeded();
        ends_with(&received, &message, &what);
    }
}

#[test]
fn swaks_sends_with_a_login_and_behind_its_own_proxy_header() {
    let site = Site::start();
    let user = new_user("swaks");
    let source = ["--local-interface", "127.5.0.8"];
    site.clients.swaks_with(site.at("submission"), "CRAM-MD5", &user, PASSWORD, &source).succeeded();
    let log = servers().postfix.logs("client=unknown[127.5.0.8]");
    assert!(log.len() == 1 && log[0].contains(&format!("sasl_username={user}")), "{log:?}");
    let user = new_user("swaks");
    let header = [
        ["--proxy-version", "2"],
        ["--proxy-family", "AF_INET"],
        ["--proxy-source", "192.0.2.59"],
        ["--proxy-source-port", "40000"],
        ["--proxy-dest", "203.0.113.1"],
        ["--proxy-dest-port", "25"],
    ];
    site.clients.swaks_anonymous(site.at("mx_balanced"), &user, header.as_flattened()).succeeded();
    assert_eq!(servers().postfix.logs("client=unknown[192.0.2.59]").len(), 1);
    wait_for_mail(&user);
}

#[test]
fn dovecot_knows_the_client_behind_a_load_balancer() {
    let site = Site::start();
    let user = new_user("balanced");
    let header = "PROXY TCP4 192.0.2.60 203.0.113.1 40000 143";
    let arguments = [user.as_str(), PASSWORD, "127.5.0.9", header];
    site.clients.python("proxied.py", site.at("imap_balanced"), &arguments).succeeded();
    assert_eq!(site.last_request_of(&user).header("Client-IP"), Some("192.0.2.60"));
    let log = servers().dovecot.logs(&user);
    assert!(log.iter().any(|line| line.contains("rip=192.0.2.60,")), "{log:?}");
}

#[test]
fn the_parameters_of_mail_reach_the_backend_as_they_were() {
    let site = Site::start();
    let (sent, received) = (site.clients.file("sent"), site.clients.file("received"));
    let user = new_user("parameters");
    let message = message(&user, AWKWARD);
    std::fs::write(&sent, &message).unwrap();
    let parameters = ["--parameter", "BODY=8BITMIME", "--parameter", "SMTPUTF8"];
    let rest = [user.as_str(), &user, sent.to_str().unwrap()];
    let arguments = [&parameters[..], &rest].concat();
    site.clients.python("send.py", site.at("mx_verbose"), &arguments).succeeded();
    let size = message.len();
    let from = format!("FROM:<{user}> size={size} BODY=8BITMIME SMTPUTF8");
    let requests = site.auth.requests();
    let told = requests.last().unwrap().header("Auth-SMTP-From").unwrap();
    assert!(told.ends_with(&from), "{told}");
    let heard = servers().postfix.logs(&from);
    assert!(heard.iter().any(|line| line.contains("< unknown[127.0.0.1]: ")), "{heard:?}");
    wait_for_mail(&user);
    let arguments = [user.as_str(), PASSWORD, received.to_str().unwrap()];
    site.clients.python("fetch.py", site.at("imaps"), &arguments).succeeded();
    let added = ends_with(&received, &message, "with all parameters");
    assert!(added.contains("with UTF8SMTP id"), "Postfix was asked for SMTPUTF8: {added}");
}

#[test]
fn a_size_that_the_backend_does_not_take_is_refused_in_its_words() {
    let site = Site::start();
    let mut wire = site.connect("mx");
    let mail = "MAIL FROM:<sender@example.org> SIZE=99999999";
    assert_eq!(wire.ask(mail).unwrap(), "250 2.0.0 OK");
    let reply = wire.ask("RCPT TO:<somebody@example.test>").unwrap();
    assert!(reply.starts_with("552 5.3.4 "), "{reply}");
    assert_eq!(wire.rest(SOON), "");
}

#[test]
fn a_chunk_before_the_login_is_refused_and_never_read_as_commands() {
    let site = Site::start();
    let victim = new_user("victim");
    let chunk = format!("MAIL FROM:<{victim}>\r\nRCPT TO:<{victim}>\r\nNOOP\r\n");
    for (server, before) in [("mx", ""), ("mx", "MAIL FROM:<sender@example.org>"), ("submission", "")] {
        for last in ["", " LAST"] {
            let mut wire = site.connect(server);
            if !before.is_empty() {
                assert_eq!(wire.ask(before).unwrap(), "250 2.0.0 OK");
            }
            let bytes = format!("BDAT {}{last}\r\n{chunk}", chunk.len());
            wire.send(bytes).unwrap();
            assert_eq!(wire.rest(SOON), "500 5.5.1 Invalid command\r\n", "{server} {before:?}{last}");
        }
    }
    assert!(site.auth.requests().is_empty(), "nothing of a chunk is a recipient");
}

#[test]
fn a_chunk_behind_the_first_recipient_is_the_backends() {
    let site = Site::start();
    let user = new_user("chunks");
    let mut wire = site.connect("mx");
    assert_eq!(wire.ask(&format!("MAIL FROM:<{user}> BODY=8BITMIME")).unwrap(), "250 2.0.0 OK");
    assert_eq!(wire.ask(&format!("RCPT TO:<{user}>")).unwrap(), "250 2.1.5 Ok");
    let message = message(&user, AWKWARD);
    for (chunk, last) in [(&message[..100], ""), (&message[100..], " LAST")] {
        wire.send([format!("BDAT {}{last}\r\n", chunk.len()).as_bytes(), chunk].concat()).unwrap();
        let reply = wire.line().unwrap();
        assert!(reply.starts_with("250 2.0.0 Ok"), "{reply}");
    }
    assert_eq!(wire.ask("QUIT").unwrap(), "221 2.0.0 Bye");
    wait_for_mail(&user);
    let file = site.clients.file("received");
    site.clients.curl_fetch(site.at("imaps"), &user, &file).succeeded();
    ends_with(&file, &message, "in two chunks");
}

const SOON: Duration = Duration::from_secs(20);
