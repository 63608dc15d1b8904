//! Tests which connections are kept after an answer, and that the others are closed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::auth::AuthAnswer;
use crate::net::BackendAddress;

use super::{Act, OK, Played, accepted, check, client, pass, rest, service, three_logins_are_accepted};

/// A service with its own threads that counts the open connections.
pub(super) struct Counting {
    pub(super) address: BackendAddress,
    open: Arc<AtomicUsize>,
}

impl Counting {
    /// Writes the parts of its answer one by one, as the client accepts them.
    pub(super) fn answering(parts: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = BackendAddress::Ip(listener.local_addr().unwrap());
        let open = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&open);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
                counter.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                        if line == "\r\n" {
                            let _ = parts.iter().try_for_each(|part| stream.write_all(part.as_bytes()));
                        }
                        line.clear();
                    }
                    let _ = reader.read_to_end(&mut Vec::new());
                    counter.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Self { address, open }
    }

    pub(super) async fn has_open(&self, count: usize) {
        let reached = async {
            while self.open.load(Ordering::Relaxed) != count {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
        assert!(reached.is_ok(), "{} connections are open, not {count}", self.open.load(Ordering::Relaxed));
    }
}

#[tokio::test]
async fn an_announced_body_that_never_comes_leaves_no_connection_behind_the_login() {
    for head in [
        &["HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 5\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 5000000\r\n\r\nhello"],
        &["HTTP/1.1 200 OK\r\nAuth-Status: no\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"],
        &["HTTP/1.1 200 OK\r\nAuth-Status: no\r\n\r\n"],
        &["HTTP/1.0 200 OK\r\nAuth-Status: no\r\n\r\n"],
    ] {
        let counting = Counting::answering(head);
        let (client, service) = (Arc::new(client()), Arc::new(service(&[&counting.address])));
        let mut logins = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (client, service) = (Arc::clone(&client), Arc::clone(&service));
            logins.spawn(async move { check(&client, &service).await.unwrap() });
        }
        for answer in logins.join_all().await {
            assert!(matches!(answer, AuthAnswer::Refused { .. }), "{answer:?}");
        }
        counting.has_open(0).await;
    }
}

#[tokio::test]
async fn a_connection_is_kept_behind_a_body_in_parts() {
    for parts in [
        &["HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 5\r\n\r\n", "he", "llo"][..],
        &[
            "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "2\r\nhi\r\n",
            "0\r\n\r\n",
        ],
        &["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 204 No Content\r\nAuth-Status: OK\r\n\r\n"],
    ] {
        let counting = Counting::answering(parts);
        let (client, service) = (client(), Arc::new(service(&[&counting.address])));
        // On a busy machine, a part may be late and the connection closed, but not usually.
        let mut kept = 0;
        for _ in 0..50 {
            let before = counting.open.load(Ordering::Relaxed);
            assert_eq!(check(&client, &service).await.unwrap(), accepted());
            rest().await;
            kept += usize::from(before == 1);
        }
        assert!(kept > 0, "{parts:?}");
        counting.has_open(1).await;
    }
}

#[tokio::test]
async fn no_connection_is_kept_where_the_service_closes_it() {
    for closing in [
        "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let counting = Counting::answering(Box::leak(Box::new([closing])));
        assert_eq!(check(&client(), &Arc::new(service(&[&counting.address]))).await.unwrap(), accepted());
        counting.has_open(0).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_minute() {
    let counting = Counting::answering(&["HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n"]);
    let (client, service) = (client(), Arc::new(service(&[&counting.address])));
    check(&client, &service).await.unwrap();
    // The sweep starts with the first kept connection, and its timer with its first poll.
    tokio::task::yield_now().await;
    pass(Duration::from_secs(30)).await;
    counting.has_open(1).await;
    pass(Duration::from_secs(40)).await;
    counting.has_open(0).await;
}

#[tokio::test]
async fn connections_of_logins_at_once_are_kept_up_to_a_bound() {
    let counting = Counting::answering(&["HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n"]);
    let (client, service) = (Arc::new(client()), Arc::new(service(&[&counting.address])));
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, service) = (Arc::clone(&client), Arc::clone(&service));
        logins.spawn(async move { check(&client, &service).await.unwrap() });
    }
    logins.join_all().await;
    counting.has_open(64).await;
}

#[tokio::test]
async fn a_connection_that_the_service_closed_while_idle_is_replaced() {
    let mut played = Played::tcp(|connection, _| match connection {
        0 => Act::BreakOff("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n"),
        _ => OK,
    })
    .await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    three_logins_are_accepted(&client, &service).await;
    assert_eq!(played.connections(), [0, 1, 1]);
}

/// Answers the first two requests together, so that two connections are kept. Answers the third request twice, and the
/// fourth one late, after the third was repeated.
fn service_with_late_answers() -> BackendAddress {
    const NO: &str = "HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n";
    const YES: &str = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = BackendAddress::Ip(listener.local_addr().unwrap());
    let asked = Arc::new((Mutex::new(0_usize), Condvar::new()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, asked) = (stream.unwrap(), Arc::clone(&asked));
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
                    if line == "\r\n" {
                        let mut count = asked.0.lock();
                        *count += 1;
                        asked.1.notify_all();
                        let (wanted, answer) = match *count {
                            1 | 2 => (2, NO.to_owned()),
                            3 => (4, NO.to_owned() + YES),
                            4 => (5, YES.to_owned()),
                            _ => (0, NO.to_owned()),
                        };
                        asked.1.wait_while(&mut count, |count| *count < wanted);
                        drop(count);
                        let _ = stream.write_all(answer.as_bytes());
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_on_another_kept_connection_does_not_count_once_a_service_is_distrusted() {
    let address = service_with_late_answers();
    let (client, service) = (client(), Arc::new(service(&[&address])));
    for _ in 0..2 {
        let (one, other) = tokio::join!(check(&client, &service), check(&client, &service));
        for answer in [one, other] {
            assert!(matches!(answer, Ok(AuthAnswer::Refused { .. })), "{answer:?}");
        }
        rest().await;
    }
}
