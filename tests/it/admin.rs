//! Attacks on the admin server: a client that occupies its connections does not block probes, and foreign host names
//! are not answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::mailgress::Mailgress;
use crate::support::manifest::{Folder, listener, mail_server, passthrough};
use crate::support::wire::Wire;
use crate::support::{ports, wait};

/// Time limit of a probe. A kubelet allows one second, but this machine may be loaded.
const PROBE: Duration = Duration::from_secs(5);
/// Shorter than the 250 ms for which the admin server spares a new connection.
const SPARED: Duration = Duration::from_millis(200);
/// More than the admin server has places for.
const ATTACKERS: usize = 300;
const PROBES: usize = 10;
/// Source addresses of probes: the attackers' address, and another one.
const SOURCES: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 99)];

struct Edge {
    mailgress: Mailgress,
    _folder: Folder,
}

impl Edge {
    fn start(arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let listeners = [listener("imap", "IMAP", "Disabled", ports::free(), nobody)];
        folder.write("server.yaml", &mail_server(&json!({ "auth": passthrough(), "listeners": listeners })));
        Self { mailgress: Mailgress::start_with(&folder, arguments), _folder: folder }
    }

    fn get(&self, source: Ipv4Addr, path: &str, host: &str) -> String {
        let mut wire = Wire::connect_from(source, self.mailgress.admin()).unwrap();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap();
        wire.rest(PROBE)
    }

    /// Opens connections that send `request`. Failed writes do not matter.
    fn attack(&self, sources: u8, request: &str) -> Vec<Wire> {
        let attackers = (0..ATTACKERS).map(|index| {
            let source = Ipv4Addr::new(127, 0, 0, 1 + index as u8 % sources);
            let mut wire = Wire::connect_from(source, self.mailgress.admin()).unwrap();
            wire.do_not_wait();
            let _ = wire.send(request);
            wire
        });
        attackers.collect()
    }

    fn is_probed(&self) {
        for round in 0..PROBES {
            for source in SOURCES {
                for path in ["/livez", "/readyz"] {
                    let answer = self.get(source, path, "probe");
                    assert!(answer.starts_with("HTTP/1.1 200"), "{path} from {source}, {round}: {answer:?}");
                }
            }
        }
    }
}

fn requests(path: &str, number: usize) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(number)
}

#[test]
fn probes_are_answered_while_others_pipeline_requests_and_never_read() {
    let edge = Edge::start(&[]);
    for sources in [1, 8] {
        for path in ["/model", "/metrics", "/livez"] {
            let attackers = edge.attack(sources, &requests(path, 1000));
            edge.is_probed();
            drop(attackers);
        }
    }
}

#[test]
fn probes_are_answered_while_others_wait_for_news() {
    let edge = Edge::start(&[]);
    let page = edge.get(SOURCES[0], "/served", "localhost");
    let instance = page.split(r#""instance":""#).nth(1).unwrap().split('"').next().unwrap();
    let version = page.split(r#""version":"#).nth(1).unwrap().split(',').next().unwrap();
    let poll = |wait: u32| format!("/served?instance={instance}&version={version}&wait={wait}");
    for sources in [1, 8] {
        let attackers = edge.attack(sources, &requests(&poll(30), 20));
        edge.is_probed();
        // Another replica gets an answer too.
        let answer = edge.get(SOURCES[1], &poll(1), "localhost");
        assert!(answer.contains(r#""whole":false"#), "{answer:?}");
        drop(attackers);
    }
}

#[test]
fn probes_are_answered_while_others_send_half_a_request() {
    let edge = Edge::start(&[]);
    for sources in [1, 8] {
        for request in
            ["", "GET /livez HTTP/1.1\r\nHo", "POST /served HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"]
        {
            let attackers = edge.attack(sources, request);
            edge.is_probed();
            drop(attackers);
        }
    }
}

#[test]
fn probes_are_answered_while_others_connect_again_and_again() {
    let edge = Edge::start(&[]);
    let (over, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut open = std::collections::VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    if let Ok(mut wire) = Wire::connect_from(SOURCES[0], edge.mailgress.admin()) {
                        let _ = wire.send("GET /model HTTP/1.1\r\n");
                        open.push_back(wire);
                        connects.fetch_add(1, Ordering::Relaxed);
                    }
                    if open.len() > 20 {
                        open.pop_front();
                    }
                }
            });
        }
        wait::eventually("many connects", || (connects.load(Ordering::Relaxed) > 200).then_some(()));
        // Sets `over` even if a probe fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        edge.is_probed();
    });
}

#[test]
fn a_probe_that_takes_its_time_to_ask_is_answered_while_others_connect_again_and_again() {
    let edge = Edge::start(&[]);
    let (over, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (edge, over, connects) = (&edge, &over, &connects);
            scope.spawn(move || {
                let mut open = std::collections::VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    let source = Ipv4Addr::new(127, 0, 0, 2 + index % 3);
                    if let Ok(mut wire) = Wire::connect_from(source, edge.mailgress.admin()) {
                        let _ = wire.send("GET /livez HTTP/1.1\r\n");
                        open.push_back(wire);
                        connects.fetch_add(1, Ordering::Relaxed);
                    }
                    if open.len() > 20 {
                        open.pop_front();
                    }
                }
            });
        }
        wait::eventually("many connects", || (connects.load(Ordering::Relaxed) > 200).then_some(()));
        let mut answers = Vec::new();
        for _ in 0..50 {
            let mut wire = Wire::connect_from(SOURCES[1], edge.mailgress.admin()).unwrap();
            let (opened, from) = (Instant::now(), connects.load(Ordering::Relaxed));
            // Before the probe asks, more clients connect than there are places.
            wait::eventually("more connects", || {
                (connects.load(Ordering::Relaxed) > from + 200).then_some(())
            });
            let _ = wire.send("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            // On a loaded machine, the connects may take longer than a new connection is spared.
            if opened.elapsed() < SPARED {
                answers.push(wire.rest(PROBE));
            }
            if answers.len() == 5 {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        let good = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
        assert!(good * 2 >= answers.len(), "{answers:?}");
    });
}

#[test]
fn an_answer_that_nobody_reads_and_half_a_request_end_by_themselves() {
    let edge = Edge::start(&[]);
    for request in [requests("/metrics", 1000), "GET /livez HTTP/1.1\r\nHo".to_owned(), String::new()] {
        let mut wire = Wire::connect_from(SOURCES[1], edge.mailgress.admin()).unwrap();
        wire.do_not_wait();
        let _ = wire.send(request);
        wait::within(Duration::from_secs(60), "the server ends it", || {
            // A client that never reads notices the end by a failed write.
            wire.send("x").is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock).then_some(())
        });
    }
}

#[test]
fn the_admin_address_shows_health_and_metrics_and_the_status_address_the_rest() {
    let status = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let edge = Edge::start(&["--status-address", &status.to_string()]);
    let [here, _] = SOURCES;
    let shown = |path: &str| {
        let mut wire = Wire::connect_from(here, status).unwrap();
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).unwrap();
        wire.rest(PROBE)
    };
    for path in ["/livez", "/readyz", "/metrics", "/served"] {
        assert!(edge.get(here, path, "localhost").starts_with("HTTP/1.1 200"), "{path}");
        assert!(shown(path).starts_with("HTTP/1.1 404"), "{path}");
    }
    for path in ["/", "/status", "/model"] {
        assert!(shown(path).starts_with("HTTP/1.1 200"), "{path}");
        let hint = edge.get(here, path, "localhost");
        assert!(hint.starts_with("HTTP/1.1 404") && hint.contains("--status-address"), "{path}: {hint}");
    }
}

#[test]
fn a_page_that_is_called_by_a_strangers_name_is_refused_and_probes_are_not() {
    let edge = Edge::start(&["--admin-hosts", "mail-admin.example,mail-admin", "--pod-name", "mailgress-7"]);
    let [here, _] = SOURCES;
    for path in ["/", "/status", "/model", "/metrics", "/served", "/nothing"] {
        let answer = edge.get(here, path, "evil.example:9090");
        assert!(answer.starts_with("HTTP/1.1 421"), "{path}: {answer}");
        assert!(
            answer.ends_with("--admin-hosts (MAILGRESS_ADMIN_HOSTS; admin.hosts in the chart)\n"),
            "{answer}"
        );
    }
    for path in ["/livez", "/readyz"] {
        assert!(edge.get(here, path, "evil.example").starts_with("HTTP/1.1 200"), "{path}");
    }
    for host in [
        "localhost:9090",
        "127.0.0.1",
        "[::1]:9090",
        "10.1.2.3:9090",
        "mailgress-7",
        "mail-admin.example",
        "MAIL-ADMIN:80",
    ] {
        assert!(edge.get(here, "/status", host).starts_with("HTTP/1.1 200"), "{host}");
    }
}
