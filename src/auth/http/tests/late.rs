//! Tests with a slow service that answers one request twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::auth::AuthAnswer;
use crate::net::BackendAddress;

use super::{check_login, client, service};

const NO: &str = "HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n";
/// Time between two logins.
const PACE: Duration = Duration::from_millis(25);

/// Starts a slow service. It accepts `good` and refuses others. `twice` is refused, and accepted `late` after the
/// refusal.
async fn start(latency: Duration, late: Duration) -> BackendAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = BackendAddress::Ip(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, latency, late));
        }
    });
    address
}

async fn serve(stream: TcpStream, latency: Duration, late: Duration) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (answers, mut asked) = tokio::sync::mpsc::unbounded_channel::<(Instant, &str)>();
    tokio::spawn(async move {
        while let Some((at, answer)) = asked.recv().await {
            sleep_until(at).await;
            let _ = write.write_all(answer.as_bytes()).await;
        }
    });
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(login) = line.strip_prefix("Auth-User: ") else { continue };
        let at = Instant::now() + latency;
        let _ = answers.send((at, if login == "good" { OK } else { NO }));
        if login == "twice" {
            let _ = answers.send((at + late, OK));
        }
    }
}

#[tokio::test]
async fn one_doubled_answer_does_not_shift_the_verdicts_behind_it() {
    for late in [10, 40, 80, 200] {
        let address = start(Duration::from_millis(60), Duration::from_millis(late)).await;
        let client = client();
        let service = Arc::new(service(&[&address]));
        assert!(matches!(check_login(&client, &service, "twice").await.unwrap(), AuthAnswer::Refused { .. }));
        for number in 0..8 {
            sleep(PACE).await;
            let login = if number % 2 == 1 { "good" } else { "wrong" };
            let is_accepted =
                matches!(check_login(&client, &service, login).await.unwrap(), AuthAnswer::Accepted { .. });
            assert_eq!(is_accepted, login == "good", "login {number} behind an answer {late} ms late");
        }
    }
}

#[tokio::test]
async fn an_acceptance_that_comes_too_early_is_asked_for_again() {
    // Later than the end of the rest, which is four times the answer time.
    let (latency, late) = (Duration::from_millis(400), Duration::from_millis(2500));
    let (client, address) = (Arc::new(client()), start(latency, late).await);
    let service = Arc::new(service(&[&address]));
    // Measures the answer time.
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, service) = (Arc::clone(&client), Arc::clone(&service));
        logins.spawn(async move { check_login(&client, &service, "wrong").await.unwrap() });
    }
    logins.join_all().await;
    sleep(Duration::from_millis(2000)).await;
    // Uses the connection that was kept last.
    check_login(&client, &service, "twice").await.unwrap();
    sleep(late - Duration::from_millis(10)).await;
    let answer = check_login(&client, &service, "wrong").await.unwrap();
    assert!(matches!(answer, AuthAnswer::Refused { .. }), "{answer:?}");
}
