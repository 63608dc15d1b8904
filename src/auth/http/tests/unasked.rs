//! Tests with services that send more answers than requests.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::auth::AuthAnswer;
use crate::model::HttpAuth;
use crate::net::BackendAddress;

use super::{Act, OK, Played, check, client, pass, rest, service, three_logins_are_accepted};

const REFUSAL: &str = "HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n";
const ACCEPTANCE: &str = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n";

/// When the unexpected acceptance is sent after each refusal.
#[derive(Clone, Copy, Debug)]
enum Extra {
    InTheSameWrite,
    InAWriteOfItsOwn,
    AfterAMillisecond,
}

/// A service with its own threads, so that it runs in parallel with the client.
struct Talkative {
    address: BackendAddress,
    /// Number of requests with an extra acceptance sent.
    sent: Arc<AtomicUsize>,
}

impl Talkative {
    fn start(extra: Extra) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = BackendAddress::Ip(listener.local_addr().unwrap());
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, counter) = (stream.unwrap(), Arc::clone(&counter));
                std::thread::spawn(move || serve(&stream, extra, &counter));
            }
        });
        Self { address, sent }
    }

    async fn has_sent(&self, count: usize) {
        let sent = async {
            while self.sent.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), sent).await.expect("the service answers twice");
    }
}

/// Serves a connection. If the client has left, the extra answer counts as sent.
fn serve(stream: &TcpStream, extra: Extra, sent: &AtomicUsize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        if !line?.is_empty() {
            continue;
        }
        let write = |text: &str| { stream }.write_all(text.as_bytes());
        let written = match extra {
            Extra::InTheSameWrite => write(&format!("{REFUSAL}{ACCEPTANCE}")),
            Extra::InAWriteOfItsOwn => write(REFUSAL).and_then(|()| write(ACCEPTANCE)),
            Extra::AfterAMillisecond => write(REFUSAL).and_then(|()| {
                std::thread::sleep(Duration::from_millis(1));
                write(ACCEPTANCE)
            }),
        };
        sent.fetch_add(1, Ordering::Relaxed);
        written?;
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_behind_a_refusal_accepts_no_later_login() {
    for extra in [Extra::InTheSameWrite, Extra::InAWriteOfItsOwn, Extra::AfterAMillisecond] {
        let talkative = Talkative::start(extra);
        let mut logins = 0;
        while logins < 800 {
            // A client that has not seen such bytes yet.
            let (client, service) = (client(), Arc::new(service(&[&talkative.address])));
            for _ in 0..20 {
                let answer = check(&client, &service).await.unwrap();
                assert!(
                    matches!(answer, AuthAnswer::Refused { .. }),
                    "login {logins}, {extra:?}: {answer:?}"
                );
                logins += 1;
                talkative.has_sent(logins).await;
                rest().await;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_with_another_one_behind_it_on_a_kept_connection_is_asked_for_again() {
    let mut played = Played::tcp(|connection, request| match (connection, request) {
        (0, 1) => Act::Answer(
            "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n\
             HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n",
        ),
        _ => Act::Answer(REFUSAL),
    })
    .await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    for _ in 0..2 {
        assert!(matches!(check(&client, &service).await.unwrap(), AuthAnswer::Refused { .. }));
        rest().await;
    }
    assert_eq!(played.connections(), [0, 0, 1]);
}

#[tokio::test]
async fn no_connection_is_kept_for_a_while_after_bytes_that_nobody_asked_for() {
    let mut played = Played::tcp(|connection, _| match connection {
        0 => Act::Answer("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n?"),
        _ => OK,
    })
    .await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    three_logins_are_accepted(&client, &service).await;
    assert_eq!(played.connections(), [0, 1, 2]);
    pass(Duration::from_secs(601)).await;
    three_logins_are_accepted(&client, &service).await;
    assert_eq!(played.connections(), [3, 3, 3]);
}

#[tokio::test]
async fn every_request_has_its_own_connection_without_keep_alive() {
    let mut played = Played::tcp(|_, _| OK).await;
    let service = Arc::new(HttpAuth { keep_alive: false, ..service(&[&played.address]) });
    let client = client();
    three_logins_are_accepted(&client, &service).await;
    let seen = played.seen();
    assert_eq!(seen.iter().map(|(connection, _)| *connection).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(seen.iter().all(|(_, head)| head.contains("\r\nConnection: close\r\n")), "{seen:?}");
}
