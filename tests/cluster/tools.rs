//! The commands for people, with a cluster.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::cluster::{Cluster, at, backend, listener, ready};
use crate::support::mailgress::binary;
use crate::support::manifest::{tls_secret, with};
use crate::support::pki::{AUTHORITY, Authority};

fn run(cluster: &Cluster, command: &str, arguments: &[&str]) -> Output {
    let kubeconfig = cluster.account();
    let own = ["--class", cluster.name, "--kubeconfig"];
    Command::new(binary()).arg(command).args(own).arg(kubeconfig).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn status_says_of_a_cluster_what_is_served_and_what_not_and_why() {
    let Some(cluster) = Cluster::new("status-command") else { return };
    let (at, backend) = (at(), backend("backend"));
    cluster.backends(&[(&backend, ready())]);
    cluster.apply(&cluster.edge(&[("imap", at.port())]));
    let unseen = run(&cluster, "status", &["-n", cluster.name]);
    assert_eq!(unseen.status.code(), Some(1));
    assert!(
        text(&unseen).contains("Ready (NoStatus): no controller of class status-command"),
        "{}",
        text(&unseen)
    );
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    for scope in [&["-n", cluster.name][..], &["-A"]] {
        let output = run(&cluster, "status", scope);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let row = said.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        let expected = [cluster.name, "mailserver/edge", "imap", &at.to_string(), "IMAP", "Disabled", "True"];
        assert_eq!(row[..7], expected, "{said}");
    }
    let elsewhere = run(&cluster, "status", &["-n", "default"]);
    assert!(text(&elsewhere).starts_with("There are no listeners."), "{}", text(&elsewhere));
}

#[test]
fn probe_visits_every_listener_behind_the_service_and_says_which_work() {
    let Some(cluster) = Cluster::new("probe-command") else { return };
    let (clear, secure, lost) = (at(), at(), at());
    let backend = backend("backend");
    cluster.backends(&[(&backend, ready())]);
    cluster.allow_secrets(&["mail-tls"]);
    cluster.apply(&cluster.here(tls_secret("mail-tls", &AUTHORITY.issue(&["*.example.test"]))));
    let tls = json!({
        "tls": { "mode": "Implicit", "certificateRefs": [{ "name": "mail-tls" }] }, "hostnames": ["*.example.test"],
    });
    let imaps = with(listener("imaps", secure.port()), &tls);
    let listeners = [listener("imap", clear.port()), imaps, listener("lost", lost.port())];
    cluster.apply(&with(cluster.edge(&[]), &json!({ "spec": { "listeners": listeners } })));
    let port = |name: &str, port: u16| json!({ "name": name, "port": port });
    let ports = [port("imap", clear.port()), port("imaps", secure.port())];
    cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "edge" }, "spec": { "ports": ports },
    }));
    let _mailgress = cluster.mailgress();
    cluster.wait_for("Ready", "mailserver/edge");
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    AUTHORITY.write(&file("ca.pem"));
    Authority::new("Stranger").write(&file("stranger.pem"));
    std::fs::write(file("login"), "user\nsecret\n").unwrap();
    let (service, login) = (format!("{}/edge", cluster.name), file("login").display().to_string());
    let probe = |ca: &str, more: &[&str]| {
        let ca = file(ca).display().to_string();
        // Cluster addresses do not work here.
        let fixed = ["--service", &service, "--at", "127.0.0.1", "--login-file", &login, "--ca", &ca];
        run(&cluster, "probe", &[&fixed, more].concat())
    };
    let output = probe("ca.pem", &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let visited: Value = serde_json::from_slice(&output.stdout).unwrap();
    for index in [0, 1] {
        assert_eq!(visited[index]["report"]["login"]["accepted"], true, "{visited:#}");
    }
    assert_eq!(visited[1]["report"]["certificates"][0]["names"], json!(["*.example.test"]), "{visited:#}");
    let said = text(&probe("stranger.pem", &[]));
    let results: Vec<&str> =
        said.lines().skip(1).take(3).filter_map(|row| row.split_whitespace().nth(6)).collect();
    assert_eq!(results, ["ok", "FAIL", "FAIL"], "{said}");
    assert!(said.contains(&format!("the Service has no port {}", lost.port())), "{said}");
    assert!(said.contains("its issuer is not trusted"), "{said}");
    assert!(said.ends_with("1 of 3 listeners work\n"), "{said}");
}
