//! Tests of the relay.

use std::sync::Arc;

use super::*;
use prometheus::IntCounter;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::net::Socket;
use crate::protocol::follow::SmtpStart;
use crate::protocol::{CloseReason, Protocol};
use crate::proxy::end::{Fault, Outcome};
use crate::proxy::live::Order;

struct Ends {
    client: UnixStream,
    backend: UnixStream,
    relay: JoinHandle<(Relayed, Finish)>,
    drained: CancellationToken,
    live: Arc<Live>,
}

fn relay(to_backend: &[u8], to_client: &[u8], idle: Duration) -> Ends {
    relay_within(to_backend, to_client, idle, HALF_CLOSED)
}

fn relay_within(to_backend: &[u8], to_client: &[u8], idle: Duration, half_closed: Duration) -> Ends {
    relay_of(Protocol::Imap, to_backend, to_client, (idle, half_closed))
}

fn relay_of(protocol: Protocol, to_backend: &[u8], to_client: &[u8], timeouts: (Duration, Duration)) -> Ends {
    relay_to(UnixStream::pair().unwrap(), protocol, to_backend, to_client, timeouts)
}

/// The client has the first of the two sockets.
fn relay_to(
    (client, ours): (UnixStream, UnixStream),
    protocol: Protocol,
    to_backend: &[u8],
    to_client: &[u8],
    (idle, half_closed): (Duration, Duration),
) -> Ends {
    let (backend, theirs) = UnixStream::pair().unwrap();
    let drained = CancellationToken::new();
    let side = |socket, received: &[u8]| Side {
        stream: Stream::Plain(Socket::Unix(socket)),
        received: received.to_vec().into(),
        relayed: IntCounter::new("test", "test").unwrap(),
    };
    let mut relay = Relay::new(
        side(ours, to_backend),
        side(theirs, to_client),
        Timeouts { idle, half_closed, ..Timeouts::default() },
        Follower::new(protocol, SmtpStart::default()),
    );
    let token = drained.clone();
    let live = Arc::new(Live::new(std::time::Instant::now()));
    let told = Arc::clone(&live);
    let goodbye = |_: &End| b"* BYE later\r\n".to_vec();
    let relay = tokio::spawn(async move { run(&mut relay, &token, &told, goodbye).await });
    Ends { client, backend, relay, drained, live }
}

async fn run(
    relay: &mut Relay,
    token: &CancellationToken,
    live: &Live,
    goodbye: impl FnOnce(&End) -> Vec<u8>,
) -> (Relayed, Finish) {
    let (mut drained, mut timer) = (Goodbye::new(token), Deadline::new(Instant::now()));
    relay.run(Until { drained: &mut drained, live, timer: &mut timer }, goodbye).await
}

async fn ended(relay: JoinHandle<(Relayed, Finish)>) -> (Relayed, End) {
    match relay.await.unwrap() {
        (relayed, Finish::Ended(end)) => (relayed, end),
        (_, Finish::Left) => panic!("the session left the relay"),
    }
}

async fn read_all(mut stream: UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn delivers_what_was_left_of_the_login_first() {
    let mut ends = relay(b"b NOOP\r\n", b"a OK\r\n", HOUR);
    ends.backend.write_all(b"b OK\r\n").await.unwrap();
    let mut seen = [0; 12];
    ends.client.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"a OK\r\nb OK\r\n");
    let mut command = [0; 8];
    ends.backend.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"b NOOP\r\n");
}

#[tokio::test]
async fn passes_a_half_close_on_and_still_delivers_the_answer() {
    let mut ends = relay(b"", b"", HOUR);
    ends.client.write_all(b"QUIT\r\n").await.unwrap();
    ends.client.shutdown().await.unwrap();
    let mut command = Vec::new();
    ends.backend.read_to_end(&mut command).await.unwrap();
    assert_eq!(command, b"QUIT\r\n");
    ends.backend.write_all(b"221 Bye\r\n").await.unwrap();
    drop(ends.backend);
    assert_eq!(read_all(ends.client).await, b"221 Bye\r\n");
    let (relayed, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Done), "{end}");
    assert_eq!((relayed.to_backend, relayed.to_client), (6, 9));
}

#[tokio::test]
async fn holds_back_a_source_whose_sink_is_slow_and_loses_nothing() {
    let ends = relay(b"", b"", HOUR);
    let (backend, client) = (ends.backend, ends.client);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        let mut backend = backend;
        backend.write_all(&sent).await.unwrap();
    });
    tokio::task::yield_now().await;
    assert!(read_all(client).await == expected);
    writer.await.unwrap();
}

#[tokio::test]
async fn delivers_the_backends_last_words_to_a_client_that_is_still_sending() {
    for _ in 0..20 {
        let Ends { client, mut backend, relay, .. } = relay(b"", b"", HOUR);
        let (mut reader, mut writer) = client.into_split();
        let sending = tokio::spawn(async move { while writer.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let mut seen = [0; 4096];
        backend.read_exact(&mut seen).await.unwrap();
        backend.write_all(b"421 shutting down\r\n").await.unwrap();
        drop(backend);
        let mut received = Vec::new();
        // The connection may break after the message, but not before.
        let _ = reader.read_to_end(&mut received).await;
        assert_eq!(received, b"421 shutting down\r\n");
        relay.await.unwrap();
        sending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn ends_only_when_neither_side_sends_within_the_idle_timeout() {
    let mut ends = relay(b"", b"", Duration::from_secs(30));
    for _ in 0..3 {
        ends.backend.write_all(b"* 1 EXISTS\r\n").await.unwrap();
        let mut seen = [0; 12];
        ends.client.read_exact(&mut seen).await.unwrap();
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    assert!(!ends.relay.is_finished());
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Idle), "{end}");
}

#[tokio::test(start_paused = true)]
async fn bounds_the_time_of_a_session_of_which_one_side_has_ended() {
    let mut ends = relay(b"", b"", HOUR);
    let started = Instant::now();
    ends.client.shutdown().await.unwrap();
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Idle), "{end}");
    assert!((HALF_CLOSED..HALF_CLOSED * 2).contains(&started.elapsed()));
}

#[tokio::test]
async fn the_end_of_the_client_is_the_end_of_the_session_where_nothing_is_waited_for() {
    let mut ends = relay_within(b"", b"", HOUR, Duration::ZERO);
    ends.backend.write_all(b"* 1 EXISTS\r\n").await.unwrap();
    ends.client.write_all(b"QUIT\r\n").await.unwrap();
    ends.client.shutdown().await.unwrap();
    assert_eq!(read_all(ends.client).await, b"* 1 EXISTS\r\n");
    assert_eq!(read_all(ends.backend).await, b"QUIT\r\n");
    let (relayed, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Done), "{end}");
    assert_eq!((relayed.to_backend, relayed.to_client), (6, 12));
}

#[tokio::test(start_paused = true)]
async fn all_data_of_a_closed_backend_is_relayed() {
    let Ends { client, mut backend, relay, .. } = relay_within(b"", b"", HOUR, Duration::ZERO);
    let sent = [&vec![b'x'; 4_000_000][..], b"\r\n"].concat();
    let expected = sent.len();
    let saying = tokio::spawn(async move { backend.write_all(&sent).await.unwrap() });
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(read_all(client).await.len(), expected);
    saying.await.unwrap();
    let (_, end) = ended(relay).await;
    assert!(matches!(end, End::Done), "{end}");
}

/// Returns what the client reads if the backend has sent `sent` when the drain ends.
async fn read_at_the_end_of_a_drain(protocol: Protocol, sent: &[u8]) -> Vec<u8> {
    let mut ends = relay_of(protocol, b"", sent, (HOUR, HALF_CLOSED));
    let mut seen = vec![0; sent.len()];
    ends.client.read_exact(&mut seen).await.unwrap();
    ends.drained.cancel();
    read_all(ends.client).await
}

#[tokio::test]
async fn a_session_that_is_told_to_end_says_goodbye_and_shows_what_it_has_relayed() {
    for (order, kicked) in [(Order::Kick, true), (Order::Drain, false)] {
        let mut ends = relay(b"", b"a OK\r\n", HOUR);
        ends.client.read_exact(&mut [0; 6]).await.unwrap();
        ends.client.write_all(b"b NOOP\r\n").await.unwrap();
        ends.backend.read_exact(&mut [0; 8]).await.unwrap();
        assert_eq!(ends.live.relayed(), Relayed { to_backend: 8, to_client: 6, recipients_refused: 0 });
        assert!(ends.live.end(order));
        assert!(!ends.live.end(Order::Kick), "it was told before");
        assert_eq!(read_all(ends.client).await, b"* BYE later\r\n");
        let (_, end) = ended(ends.relay).await;
        assert_eq!((matches!(end, End::Kicked), end.fault()), (kicked, Fault::None), "{end}");
    }
}

#[tokio::test]
async fn says_goodbye_between_responses_only() {
    for (protocol, sent, has_goodbye) in [
        (Protocol::Imap, &b"a OK\r\n"[..], true),
        (Protocol::Imap, b"* 1 FETCH (BODY[] {9}\r\nabc", false),
        (Protocol::Imap, b"* 1 FETCH (BODY[] {9}\r\nabc\r\n", false),
        (Protocol::Imap, b"* 1 FETCH (BODY[] {3}\r\nabc)\r\n", true),
        (Protocol::Pop3, b"+OK\r\n", false),
        (Protocol::Pop3, b"+OK\r\nSubject: x\r\n", false),
        (Protocol::Smtp, b"235 ok\r\n", true),
        (Protocol::Smtp, b"250-a\r\n", false),
        (Protocol::Sieve, b"OK\r\n", true),
        (Protocol::Sieve, b"{6}\r\nOK\r\nOK\r\n", false),
    ] {
        let received = read_at_the_end_of_a_drain(protocol, sent).await;
        assert_eq!(received == b"* BYE later\r\n", has_goodbye, "{}", sent.escape_ascii());
        assert_eq!(received.is_empty(), !has_goodbye, "{}", sent.escape_ascii());
    }
}

/// Returns the fault and the outcome of a session in which the client and the backend said this before the backend
/// closed, the client having been silent for `silent`.
async fn judged(protocol: Protocol, sent: &[u8], replied: &[u8], silent: Duration) -> (Fault, Outcome) {
    let login = if protocol == Protocol::Imap { &b"a OK\r\n"[..] } else { b"235 ok\r\n" };
    let mut ends = relay_of(protocol, sent, login, (HOUR, HALF_CLOSED));
    ends.client.read_exact(&mut vec![0; login.len()]).await.unwrap();
    ends.backend.read_exact(&mut vec![0; sent.len().min(6)]).await.unwrap();
    if !silent.is_zero() {
        tokio::time::pause();
        tokio::time::advance(silent).await;
        tokio::time::resume();
    }
    for reply in replied.split_inclusive(|byte| *byte == b'\n') {
        ends.backend.write_all(reply).await.unwrap();
        ends.client.read_exact(&mut vec![0; reply.len()]).await.unwrap();
        if reply.starts_with(b"354") {
            ends.backend.read_exact(&mut vec![0; sent.len() - 6]).await.unwrap();
        }
    }
    ends.backend.shutdown().await.unwrap();
    let (_, end) = ended(ends.relay).await;
    (end.fault(), end.outcome())
}

#[tokio::test]
async fn a_backend_that_closes_is_at_fault_where_it_interrupts_something() {
    let (done, broken) = ((Fault::None, Outcome::Done), (Fault::Backend, Outcome::RelayError));
    for (protocol, sent, replied, expected) in [
        (Protocol::Smtp, &b""[..], &b""[..], done),
        (Protocol::Smtp, b"QUIT\r\n", b"221 bye\r\n", done),
        (Protocol::Smtp, b"QUIT\r\n", b"", done),
        (Protocol::Smtp, b"QUIT\r\n", b"221-bye\r\n", done),
        (Protocol::Smtp, b"NOOP\r\nQUIT\r\n", b"", broken),
        (Protocol::Smtp, b"NOOP\r\nQUIT\r\n", b"250 ok\r\n", done),
        (Protocol::Smtp, b"NOOP\r\n", b"", broken),
        (Protocol::Smtp, b"NOOP\r\n", b"250-a\r\n", broken),
        (Protocol::Smtp, b"NOOP\r\n", b"421 too many errors\r\n", done),
        (Protocol::Smtp, b"NOOP\r\n", b"250 ok\r\n421 shutting down\r\n", broken),
        (Protocol::Smtp, b"DATA\r\nSubject: x\r\n", b"354 go\r\n", broken),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\n", b"354 go\r\n", broken),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\n", b"354 go\r\n250 queued\r\n", done),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\n", b"354 go\r\n451 4.3.0 later\r\n", broken),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\n", b"354 go\r\n421 4.3.0 later\r\n", broken),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\nQUIT\r\n", b"354 go\r\n451 4.3.0 later\r\n", done),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\nRSET\r\n", b"354 go\r\n451 later\r\n250 ok\r\n", done),
        (Protocol::Smtp, b"DATA\r\nx\r\n.\r\n", b"354 go\r\n550 5.7.1 spam\r\n", done),
        (Protocol::Smtp, b"DATA\r\n", b"450 4.3.0 later\r\n", broken),
        (Protocol::Imap, b"", b"", done),
        (Protocol::Imap, b"", b"* BYE Server shutting down.\r\n", done),
        (Protocol::Imap, b"", b"* 1 FETCH (BODY[] {9}\r\nabc", broken),
        (Protocol::Imap, b"a LOGOUT\r\n", b"* BYE\r\na OK\r\n", done),
    ] {
        let judged = judged(protocol, sent, replied, Duration::ZERO).await;
        assert_eq!(judged, expected, "{} {}", sent.escape_ascii(), replied.escape_ascii());
    }
}

#[tokio::test]
async fn a_backend_may_end_a_session_whose_client_is_silent() {
    assert_eq!(
        judged(Protocol::Smtp, b"", b"421 4.4.2 timeout\r\n", SILENT).await,
        (Fault::None, Outcome::Done)
    );
    assert_eq!(judged(Protocol::Smtp, b"NOOP\r\n", b"", SILENT).await, (Fault::Backend, Outcome::RelayError));
}

#[tokio::test]
async fn a_client_that_closes_within_a_message_is_at_fault() {
    for half_closed in [HALF_CLOSED, Duration::ZERO] {
        let mut ends = waiting_for_a_reply(half_closed).await;
        ends.backend.write_all(b"354 go\r\n").await.unwrap();
        ends.client.read_exact(&mut [0; 8]).await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut sent = Vec::new();
        ends.backend.read_to_end(&mut sent).await.unwrap();
        drop(ends.backend);
        let (_, end) = ended(ends.relay).await;
        assert_eq!((end.fault(), end.outcome()), (Fault::Client, Outcome::ClientGone));
    }
}

#[tokio::test]
async fn says_no_goodbye_behind_compress() {
    let mut ends = relay(b"c COMPRESS DEFLATE\r\n", b"a OK\r\n", HOUR);
    ends.backend.read_exact(&mut [0; 20]).await.unwrap();
    ends.backend.write_all(b"c OK compressing\r\n").await.unwrap();
    ends.client.read_exact(&mut [0; 24]).await.unwrap();
    ends.drained.cancel();
    assert_eq!(read_all(ends.client).await, b"");
}

#[tokio::test]
async fn answers_a_clients_xclient_in_its_place_and_never_passes_it() {
    let pipelined = b"RSET\r\nXCLIENT LOGIN=bob\r\nNOOP\r\nXCL";
    let mut ends = relay_of(Protocol::Smtp, pipelined, b"250 rcpt ok\r\n", (HOUR, HALF_CLOSED));
    let mut command = [0; 6];
    ends.backend.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"RSET\r\n");
    ends.backend.write_all(b"250-reset\r\n").await.unwrap();
    ends.backend.write_all(b"250 done\r\n").await.unwrap();
    ends.backend.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"NOOP\r\n");
    ends.backend.write_all(b"250 noop\r\n").await.unwrap();
    ends.client.write_all(b"IENT A=B\r\nQUIT\r\n").await.unwrap();
    ends.backend.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"QUIT\r\n");
    ends.backend.write_all(b"221 bye\r\n").await.unwrap();
    drop(ends.backend);
    let refused = "503 5.5.1 XCLIENT is not for clients\r\n";
    let received =
        format!("250 rcpt ok\r\n250-reset\r\n250 done\r\n{refused}250 noop\r\n{refused}221 bye\r\n");
    assert_eq!(String::from_utf8(read_all(ends.client).await).unwrap(), received);
}

#[tokio::test]
async fn a_large_message_passes_unchanged_behind_its_data() {
    let Ends { client, mut backend, relay, .. } =
        relay_of(Protocol::Smtp, b"", b"250 rcpt ok\r\n", (HOUR, HALF_CLOSED));
    let mut message = b"DATA\r\n".to_vec();
    for number in 0..100_000 {
        message.extend_from_slice(format!("XCLIENT line {number}\r\n").as_bytes());
    }
    message.extend_from_slice(b".\r\nQUIT\r\n");
    let (expected, (mut reader, mut writer)) = (message.clone(), client.into_split());
    let sending = tokio::spawn(async move { writer.write_all(&message).await.unwrap() });
    let mut seen = vec![0; 6];
    backend.read_exact(&mut seen).await.unwrap();
    backend.write_all(b"354 go\r\n").await.unwrap();
    seen.resize(expected.len(), 0);
    backend.read_exact(&mut seen[6..]).await.unwrap();
    assert!(seen == expected);
    backend.write_all(b"250 queued\r\n221 bye\r\n").await.unwrap();
    drop(backend);
    let mut received = String::new();
    reader.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "250 rcpt ok\r\n354 go\r\n250 queued\r\n221 bye\r\n");
    sending.await.unwrap();
    relay.await.unwrap();
}

/// Creates an SMTP session in which a command waits for the backend's reply to DATA.
async fn waiting_for_a_reply(half_closed: Duration) -> Ends {
    let mut ends =
        relay_of(Protocol::Smtp, b"DATA\r\nSubject: x\r\n", b"250 rcpt ok\r\n", (HOUR, half_closed));
    ends.backend.read_exact(&mut [0; 6]).await.unwrap();
    ends.client.read_exact(&mut [0; 13]).await.unwrap();
    ends.client.write_all(b"\r\nwords\r\n").await.unwrap();
    ends
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_the_last_bytes_of_a_backend_that_has_closed() {
    let lines = "* 1 EXISTS\r\n".repeat(3000);
    let (client, ours) = UnixStream::pair().unwrap();
    // So that most bytes are still with the relay when it sees the end.
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let mut ends = relay_to((client, ours), Protocol::Imap, b"", b"", (HOUR, HALF_CLOSED));
    ends.backend.write_all(lines.as_bytes()).await.unwrap();
    drop(ends.backend);
    tokio::time::sleep(HALF_CLOSED * 2).await;
    assert_eq!(read_all(ends.client).await.len(), lines.len());
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Done), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_while_its_bytes_wait_for_a_reply_has_the_time_of_a_half_closed_one() {
    let mut ends = waiting_for_a_reply(HALF_CLOSED).await;
    let started = Instant::now();
    ends.client.shutdown().await.unwrap();
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Idle), "{end}");
    assert!((HALF_CLOSED..HALF_CLOSED * 2).contains(&started.elapsed()));
}

#[tokio::test]
async fn a_client_that_ends_while_its_bytes_wait_for_a_reply_still_sends_them_and_hears_the_answer() {
    let mut ends = waiting_for_a_reply(HALF_CLOSED).await;
    ends.client.write_all(b".\r\nQUIT\r\n").await.unwrap();
    ends.client.shutdown().await.unwrap();
    tokio::task::yield_now().await;
    ends.backend.write_all(b"354 go\r\n").await.unwrap();
    let mut sent = Vec::new();
    ends.backend.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent, b"Subject: x\r\n\r\nwords\r\n.\r\nQUIT\r\n");
    ends.backend.write_all(b"250 queued\r\n221 bye\r\n").await.unwrap();
    drop(ends.backend);
    assert_eq!(read_all(ends.client).await, b"354 go\r\n250 queued\r\n221 bye\r\n");
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Done), "{end}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_whose_bytes_wait_ends_the_session_where_nothing_is_waited_for() {
    let mut ends = waiting_for_a_reply(Duration::ZERO).await;
    let started = Instant::now();
    ends.client.shutdown().await.unwrap();
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Done), "{end}");
    assert!(started.elapsed() < HALF_CLOSED);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_resets_while_its_bytes_wait_ends_the_session() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    let (mut backend, theirs) = UnixStream::pair().unwrap();
    let side = |socket, received: &[u8]| Side {
        stream: Stream::Plain(socket),
        received: received.to_vec().into(),
        relayed: IntCounter::new("test", "test").unwrap(),
    };
    let mut relay = Relay::new(
        side(Socket::Tcp(ours), b"DATA\r\nSubject: x\r\n"),
        side(Socket::Unix(theirs), b"250 rcpt ok\r\n"),
        Timeouts { idle: HOUR, half_closed: HOUR, ..Timeouts::default() },
        Follower::new(Protocol::Smtp, SmtpStart::default()),
    );
    let relay = tokio::spawn(async move {
        let live = Live::new(std::time::Instant::now());
        run(&mut relay, &CancellationToken::new(), &live, |_| Vec::new()).await
    });
    backend.read_exact(&mut [0; 6]).await.unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let started = Instant::now();
    drop(client);
    let (_, end) = ended(relay).await;
    assert!(matches!(end, End::Relay { side: "client", .. }), "{end}");
    assert!(started.elapsed() < HOUR);
}

#[tokio::test]
async fn a_session_ends_at_xclient_behind_an_end_of_a_message_that_servers_read_differently() {
    let text = b"DATA\r\nSubject: x\n.\nXCLIENT LOGIN=bob\r\n";
    let mut ends = relay_of(Protocol::Smtp, text, b"250 rcpt ok\r\n", (HOUR, HALF_CLOSED));
    ends.backend.read_exact(&mut [0; 6]).await.unwrap();
    ends.backend.write_all(b"354 go\r\n").await.unwrap();
    assert_eq!(read_all(ends.backend).await, b"Subject: x\n.\n");
    let (_, end) = ended(ends.relay).await;
    assert!(matches!(end, End::Rule(CloseReason::DoubtfulCommand)), "{end}");
}

const HOUR: Duration = Duration::from_secs(3600);
const HALF_CLOSED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_session_leaves_between_two_transactions_with_both_connections_and_all_unread_bytes() {
    let (mut client, ours) = UnixStream::pair().unwrap();
    let (mut backend, theirs) = UnixStream::pair().unwrap();
    let side = |socket, received: &[u8]| Side {
        stream: Stream::Plain(Socket::Unix(socket)),
        received: received.to_vec().into(),
        relayed: IntCounter::new("test", "test").unwrap(),
    };
    let mut relay = Relay::new(
        side(ours, b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT"),
        side(theirs, b"250 rcpt ok\r\n"),
        Timeouts { idle: HOUR, half_closed: HOUR, ..Timeouts::default() },
        Follower::new(Protocol::Smtp, SmtpStart { is_routed: true, ..SmtpStart::default() }),
    );
    let relay = tokio::spawn(async move {
        let live = Live::new(std::time::Instant::now());
        let (relayed, finish) = run(&mut relay, &CancellationToken::new(), &live, |_| Vec::new()).await;
        assert!(matches!(finish, Finish::Left), "{finish:?}");
        (relayed, relay.into_left())
    });
    backend.read_exact(&mut [0; 6]).await.unwrap();
    client.write_all(b" TO:<c@d>\r\n").await.unwrap();
    backend.write_all(b"250 reset\r\n").await.unwrap();
    let mut heard = [0; 24];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"250 rcpt ok\r\n250 reset\r\n");
    let (relayed, Left { client: ours, unread, backend: theirs, is_in_transaction }) = relay.await.unwrap();
    assert_eq!((relayed.to_backend, relayed.to_client, is_in_transaction), (6, 24, false));
    client.shutdown().await.unwrap();
    let mut rest = unread.to_vec();
    let mut ours = ours;
    ours.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    drop(theirs);
    assert_eq!(read_all(backend).await, b"", "nothing but RSET was passed");
}
