//! A user's steps: install, use, rotate certificates, upgrade, uninstall.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::all_replicas;
use crate::cluster::{BOUND, Cluster};
use crate::images;
use crate::mail::{Mail, PASSWORD};
use crate::release::{DRAIN_DELAY, DRAIN_TIMEOUT, Release};
use crate::rollout;
use crate::steps::{say, step};
use crate::support::pki::AUTHORITY;
use crate::support::wait;
use crate::support::wire::Wire;
use crate::traffic::{Doors, HOST, Sessions, Stream, Traffic, USER, read_all, send};

#[test]
fn a_user_installs_uses_upgrades_and_removes_it_and_no_mail_is_lost() {
    let cluster = match step("there is a cluster", Cluster::find) {
        Ok(cluster) => cluster,
        Err(reason) => {
            let _ = say(&format!("SKIPPED: Mailgress in pods: {reason}"));
            return;
        }
    };
    let name = format!("mailgress-e2e-{}", std::process::id());
    let servers = format!("{name}-mail");
    let definitions =
        ["crd", "mailservers.mailgress.dev", "maillisteners.mailgress.dev", "mailroutes.mailgress.dev"];
    let were_there = cluster.try_kubectl(&[&["get"][..], &definitions].concat()).is_some();
    let done = catch_unwind(AssertUnwindSafe(|| go(&cluster, &name, &servers)));
    if done.is_err() {
        cluster.tell(&[&name, &servers]);
    }
    let _ =
        cluster.try_kubectl(&["delete", "namespace", &name, &servers, "--ignore-not-found", "--wait=false"]);
    if !were_there {
        // They belong to this release. Another release's would be refused.
        let _ = cluster.try_kubectl(&[&["delete", "--ignore-not-found"][..], &definitions].concat());
    }
    done.unwrap_or_else(|panic| resume_unwind(panic));
}

fn go(cluster: &Cluster, name: &str, servers: &str) {
    load_images(cluster);
    let mail = step("Dovecot and Postfix run in pods", || Mail::start(cluster, servers));
    let release = Release::prepare(cluster, name);
    install(cluster, &release, &mail);
    let there = things_in(cluster, name);
    let doors = step("the Service gets a port for each listener", || release.doors());
    use_it(cluster, &release, &mail, doors);
    step("sessions of all replicas are listed and ended with a kubeconfig", || {
        all_replicas::are_asked(cluster, &release, doors);
    });
    step("without permission, the commands say what to grant", || {
        all_replicas::are_asked_only_with_permission(cluster, &release);
    });
    change(cluster, &release, &mail, doors);
    step("helm test speaks mail with every listener", || speaks_mail(&release.test()));
    step("helm uninstall leaves nothing but what was to be kept", || {
        release.uninstall();
        removed(cluster, name, &there);
    });
}

fn load_images(cluster: &Cluster) {
    step("the images are loaded", || {
        cluster.load(&images::mail(), images::MAIL);
        for tag in ["one", "two"] {
            let name = format!("{}:{tag}", images::MAILGRESS);
            cluster.load(&images::mailgress(&name, cluster.files.path()), &name);
        }
    });
}

fn install(cluster: &Cluster, release: &Release, mail: &Mail) {
    step("helm install --wait installs the chart", || {
        release.issue_certificate(&mail.namespace);
        release.install(mail, "one");
    });
    step("kubectl wait --for=condition=Ready is met", || ready(cluster, mail));
}

fn ready(cluster: &Cluster, mail: &Mail) {
    let bound = format!("--timeout={}s", BOUND.as_secs());
    cluster.kubectl(&["wait", "--for=condition=Ready", "mailserver/example", "-n", &mail.namespace, &bound]);
}

fn use_it(cluster: &Cluster, release: &Release, mail: &Mail, doors: Doors) {
    step("mail is sent and read from outside", || send_and_read(doors));
    step("mail is sent and read from inside", || send_and_read_inside(mail, &release.inside()));
    step("Dovecot and Postfix see the client's own address", || {
        let ours = cluster.our_address();
        mail.logs(
            "dovecot",
            &["imap-login: Info: Login: user=<stream@example.test>", &format!("rip={ours},")],
        );
        mail.logs("postfix", &["sasl_username=stream@example.test", &format!("client=unknown[{ours}]")]);
    });
}

fn change(cluster: &Cluster, release: &Release, mail: &Mail, doors: Doors) {
    step("a listener on a new port is reached as soon as it is Ready", || {
        rollout::new_ports_are_reached_when_ready(cluster, mail, doors);
    });
    step("a rotated certificate is on the wire, and no session ends", || {
        undisturbed(doors, "rotated", || {
            let identity = release.issue_certificate(&mail.namespace);
            wait::within(BOUND, "every replica has the new certificate", || {
                let new = |_| certificate(doors).is_ok_and(|found| found == identity.der.as_ref());
                (0..MANY).all(new).then_some(())
            });
        });
    });
    step("a rollout that cannot read the certificate stops, and no client notices", || {
        let traffic = Traffic::start(doors, SESSIONS, "stopped");
        rollout::a_rollout_without_the_certificate_stops(cluster, release, mail);
        traffic.goes_on();
        let (sessions, stream) = traffic.stop();
        nothing_was_refused(&sessions, &stream);
        everything_arrived_once(doors, &stream, "stopped");
    });
    step("a rolling upgrade refuses nothing, loses no mail, and lets sessions go on for their time", || {
        roll(cluster, release, doors, "two");
    });
    step("helm upgrade with changed CRDs ends no session", || {
        undisturbed(doors, "definitions", || {
            release.change_definitions();
            release.upgrade("two");
            assert!(release.has_changed_definitions(), "helm upgrade did not upgrade the CRDs");
            ready(cluster, mail);
        });
    });
    step("the Service still has all its ports", || release.doors());
}

/// Makes a change during traffic, which must not be disturbed.
fn undisturbed(doors: Doors, prefix: &str, change: impl FnOnce()) {
    let traffic = Traffic::start(doors, SESSIONS, prefix);
    change();
    traffic.goes_on();
    let (sessions, stream) = traffic.stop();
    nothing_was_refused(&sessions, &stream);
    assert!(sessions.ended.is_empty(), "sessions ended: {:?}", sessions.ended);
    everything_arrived_once(doors, &stream, prefix);
}

fn speaks_mail(told: &str) {
    let _ = say(told);
    assert!(told.contains("Succeeded"), "{told}");
    for port in ["993", "995", "587"] {
        assert!(told.contains(port), "{told}");
    }
}

fn send_and_read(doors: Doors) {
    send(doors.submission, USER, "outside@example.test").unwrap();
    wait::within(BOUND, "the mail is there", || {
        read_all(doors.imaps, USER).unwrap().contains(&"outside@example.test".to_owned()).then_some(())
    });
}

fn send_and_read_inside(mail: &Mail, address: &str) {
    let resolve = |port: u16| format!("{HOST}:{port}:{address}");
    let login = format!("inside@example.test:{PASSWORD}");
    let file = "/files/main.cf";
    let (send, url) = (resolve(587), format!("smtp://{HOST}:587/client.example.test"));
    let from =
        ["--mail-from", "inside@example.test", "--mail-rcpt", "inside@example.test", "--upload-file", file];
    mail.curl_inside(&[&["--resolve", &send, "--user", &login, "--ssl-reqd", &url], &from[..]].concat());
    for (scheme, port, path) in [("imaps", 993, "/INBOX;MAILINDEX=1"), ("pop3s", 995, "/1")] {
        let (resolve, url) = (resolve(port), format!("{scheme}://{HOST}:{port}{path}"));
        let sent = include_str!("mail/main.cf").lines().next().unwrap();
        wait::within(BOUND, "the mail is there", || {
            let read = mail.try_curl_inside(&["--resolve", &resolve, "--user", &login, &url])?;
            read.contains(sent).then_some(())
        });
    }
}

/// Installs a new image during sessions and a stream of mail.
fn roll(cluster: &Cluster, release: &Release, doors: Doors, tag: &str) {
    let before = release.pods();
    let traffic = Traffic::start(doors, SESSIONS, "rolled");
    let started = Instant::now();
    release.upgrade(tag);
    // The old replicas keep their sessions for some time after Helm has finished.
    wait::within(BOUND, "the old pods are gone", || {
        release.pods().iter().all(|pod| !before.contains(pod)).then_some(())
    });
    traffic.goes_on();
    let (sessions, stream) = traffic.stop();
    let earliest = started + Duration::from_secs(DRAIN_DELAY + DRAIN_TIMEOUT);
    let early: Vec<_> = sessions.ended.iter().filter(|(when, _)| *when < earliest).collect();
    assert!(early.is_empty(), "sessions ended {earliest:?} before they had to: {early:?}");
    assert!(sessions.ended.len() >= SESSIONS, "every session was on an old replica: {sessions:?}");
    // Each session may first have moved to the other old replica.
    assert!(sessions.ended.len() <= SESSIONS * before.len(), "{} sessions ended", sessions.ended.len());
    nothing_was_refused(&sessions, &stream);
    everything_arrived_once(doors, &stream, "rolled");
    let path = "-o=jsonpath={.items[*].spec.containers[0].image}";
    let label = format!("app.kubernetes.io/instance={}", release.name);
    let images = cluster.kubectl(&["get", "pods", "-n", &release.name, "-l", &label, path]);
    assert!(images.split_whitespace().all(|image| image.ends_with(&format!(":{tag}"))), "{images}");
}

fn nothing_was_refused(sessions: &Sessions, stream: &Stream) {
    let _ = say(&format!(
        "    {} IMAP connections, {} answers, {} sessions ended; {} messages sent",
        sessions.attempts,
        sessions.answers,
        sessions.ended.len(),
        stream.taken.len()
    ));
    assert!(sessions.refused.is_empty(), "of {} attempts: {:?}", sessions.attempts, sessions.refused);
    assert!(stream.refused.is_empty(), "of {} attempts: {:?}", stream.attempts, stream.refused);
    assert!(sessions.answers > 0 && !stream.taken.is_empty(), "nobody did anything");
}

fn everything_arrived_once(doors: Doors, stream: &Stream, prefix: &str) {
    let prefix = format!("{prefix}.");
    let found = wait::within(BOUND, "all mail that was taken arrives", || {
        let all = read_all(doors.imaps, USER).unwrap();
        let found: Vec<String> = all.into_iter().filter(|id| id.starts_with(&prefix)).collect();
        (found.len() >= stream.taken.len()).then_some(found)
    });
    let different: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(different, stream.taken, "what arrived is not what was sent");
    assert_eq!(found.len(), different.len(), "some mail arrived twice: {found:?}");
}

fn certificate(doors: Doors) -> std::io::Result<Vec<u8>> {
    let wire = Wire::connect(doors.imaps)?.handshake_as(AUTHORITY.client(), HOST)?;
    Ok(wire.certificate().to_vec())
}

/// Returns everything in a namespace except events, by kind and name, and the release's objects outside of it.
fn things_in(cluster: &Cluster, name: &str) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--namespaced", "--verbs=list,delete", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let inside = cluster.kubectl(&["get", &kinds.join(","), "-n", name, "-o", "name", "--ignore-not-found"]);
    let label = format!("app.kubernetes.io/instance={name}");
    let kinds =
        cluster.kubectl(&["api-resources", "--namespaced=false", "--verbs=list,delete", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().collect();
    let outside =
        cluster.kubectl(&["get", &kinds.join(","), "-l", &label, "-o", "name", "--ignore-not-found"]);
    inside.lines().chain(outside.lines()).map(str::to_owned).collect()
}

fn removed(cluster: &Cluster, name: &str, before: &BTreeSet<String>) {
    let kept = |thing: &String| {
        // The user's own objects, what Kubernetes creates in every namespace, the pod that Helm keeps for the test's
        // log, and the definitions, because of `crds.keep`.
        thing == "secret/login"
            || *thing == format!("pod/{name}-test")
            || thing == "configmap/kube-root-ca.crt"
            || thing == "serviceaccount/default"
            || thing.starts_with("customresourcedefinition.")
    };
    assert!(before.iter().any(|thing| thing.starts_with("clusterrole.")), "{before:?}");
    let mut last = Vec::new();
    wait::within(BOUND, "everything of the release is gone", || {
        let left: Vec<String> = things_in(cluster, name).into_iter().filter(|thing| !kept(thing)).collect();
        if left != last {
            let _ = say(&format!("    left: {}", left.join(" ")));
            last.clone_from(&left);
        }
        left.is_empty().then_some(())
    });
    let definitions: Value = cluster.get(&["crd", "mailservers.mailgress.dev"]);
    assert_eq!(definitions["metadata"]["name"], "mailservers.mailgress.dev");
    // No replica serves now.
    let servers = cluster.get(&["mailservers", "-A"]);
    let ours = |server: &&Value| server["spec"]["className"] == name;
    assert_eq!(servers["items"].as_array().unwrap().iter().filter(ours).count(), 0, "{servers}");
}

/// Sessions that stay.
const SESSIONS: usize = 8;
/// With this many connections, each of two replicas gets one, except in one case of a thousand.
const MANY: usize = 10;
