//! Tests of the auth client with a small real service on loopback.

mod kept;
mod late;
mod shared;
mod unasked;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use crate::auth::{AuthAnswer, AuthClient, AuthError, AuthRequest};
use crate::dns::{Dns, Host};
use crate::model::{AuthHeader, AuthProof, HeaderText, HttpAuth, Reach, RequestPath, Resolver, TrustAnchors};
use crate::net::{BackendAddress, ClientAddress};
use crate::protocol::backend::RefusalCause;
use crate::protocol::{LoginRequest, Protocol};
use crate::secret::Secret;

use super::pace::MIN_REST;
use super::quota::Quota;

/// Returns what the service does, by the number of the connection and of the request on it.
type Script = fn(usize, usize) -> Act;

#[derive(Clone, Copy)]
enum Act {
    /// Answer, and keep the connection.
    Answer(&'static str),
    /// Close without sending a byte.
    Close,
    /// Write this and close.
    BreakOff(&'static str),
    /// Never answer.
    Hang,
}

const OK: Act = Act::Answer("HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n");

/// A service that follows a script and reports its requests: the connection and the head.
struct Played {
    address: BackendAddress,
    requests: mpsc::UnboundedReceiver<(usize, String)>,
}

impl Played {
    async fn tcp(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = BackendAddress::Ip(listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, connection, script, sender.clone()));
            }
        });
        Self { address, requests }
    }

    fn seen(&mut self) -> Vec<(usize, String)> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }

    fn connections(&mut self) -> Vec<usize> {
        self.seen().into_iter().map(|(connection, _)| connection).collect()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: Script,
    requests: mpsc::UnboundedSender<(usize, String)>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    for request in 0.. {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let _ = requests.send((connection, head));
        match script(connection, request) {
            Act::Answer(reply) => stream.write_all(reply.as_bytes()).await?,
            Act::Close => return Ok(()),
            Act::BreakOff(reply) => return stream.write_all(reply.as_bytes()).await,
            Act::Hang => std::future::pending().await,
        }
        stream.flush().await?;
    }
    Ok(())
}

fn service(endpoints: &[&BackendAddress]) -> HttpAuth {
    HttpAuth {
        reference: "Service mail/auth:9000".to_owned(),
        endpoints: endpoints.iter().map(|address| (*address).clone()).collect(),
        reach: Reach::Anywhere,
        host: "auth.test".to_owned(),
        path: RequestPath::new("/auth?via=mail".to_owned()),
        tls: None,
        headers: vec![AuthHeader {
            name: "X-Auth-Key".to_owned(),
            value: HeaderText::Fixed(Secret::from(&b"k"[..])),
        }],
        timeout: Duration::from_secs(10),
        keep_alive: true,
        pass_client_certificate: false,
        proof: AuthProof::StatusAndHeader,
    }
}

fn resolver() -> Resolver {
    Resolver {
        nameservers: vec![BackendAddress::Ip("127.0.0.1:1".parse().unwrap())],
        ipv6: false,
        timeout: Duration::from_secs(1),
        ..Resolver::default()
    }
}

fn client() -> AuthClient {
    client_with(&Quota::new(1000))
}

fn client_with(quota: &Quota) -> AuthClient {
    let dns = Dns::new(Host::default(), &prometheus::Registry::new()).unwrap();
    AuthClient::new(Arc::new(dns), quota.clone())
}

async fn check(client: &AuthClient, service: &Arc<HttpAuth>) -> Result<AuthAnswer, AuthError> {
    check_login(client, service, "alice").await
}

async fn check_login(
    client: &AuthClient,
    service: &Arc<HttpAuth>,
    login: &str,
) -> Result<AuthAnswer, AuthError> {
    check_password(client, service, login, b"hunter2").await
}

async fn check_password(
    client: &AuthClient,
    service: &Arc<HttpAuth>,
    login: &str,
    password: &[u8],
) -> Result<AuthAnswer, AuthError> {
    let login = LoginRequest::Password {
        login: login.as_bytes().to_vec(),
        password: Secret::from(password),
        authzid: Vec::new(),
    };
    let request = AuthRequest {
        session: crate::model::SessionId { process: 1, number: 1 },
        protocol: Protocol::Imap,
        request: &login,
        attempt: 3,
        client: ClientAddress::new("192.0.2.7:5555".parse().unwrap()),
        client_host: None,
        proxied: None,
        envelope: None,
        tls: None,
        certificate: None,
    };
    client.check(service, &resolver(), &request).await
}

/// Logs in three times, with time for the connection to rest in between.
async fn three_logins_are_accepted(client: &AuthClient, service: &Arc<HttpAuth>) {
    for _ in 0..3 {
        assert_eq!(check(client, service).await.unwrap(), accepted());
        rest().await;
    }
}

fn accepted() -> AuthAnswer {
    AuthAnswer::Accepted { server: None, login: None, password: None }
}

/// Advances the clock without waiting. The clock runs again afterwards, as sockets need it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Waits until a kept connection may be reused.
async fn rest() {
    pass(MIN_REST).await;
}

async fn refusing_address() -> BackendAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    BackendAddress::Ip(listener.local_addr().unwrap())
}

#[tokio::test]
async fn asks_again_and_again_over_one_connection() {
    let mut played = Played::tcp(|_, _| OK).await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    for _ in 0..3 {
        assert_eq!(check(&client, &service).await.unwrap(), accepted());
        rest().await;
    }
    let seen = played.seen();
    assert_eq!(
        seen[0].1,
        "GET /auth?via=mail HTTP/1.1\r\nHost: auth.test\r\nAuth-Method: plain\r\nAuth-User: alice\r\n\
         Auth-Pass: hunter2\r\nAuth-Protocol: imap\r\nAuth-Login-Attempt: 3\r\nClient-IP: 192.0.2.7\r\n\
         X-Auth-Key: k\r\n\r\n"
    );
    assert_eq!(seen.iter().map(|(connection, _)| *connection).collect::<Vec<_>>(), [0, 0, 0]);
}

#[tokio::test]
async fn a_connection_is_kept_over_a_body_and_over_an_equal_configuration() {
    let mut played = Played::tcp(|_, _| {
        Act::Answer("HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 5\r\n\r\nhello")
    })
    .await;
    let client = client();
    for _ in 0..3 {
        let service = Arc::new(service(&[&played.address]));
        assert!(matches!(check(&client, &service).await.unwrap(), AuthAnswer::Refused { .. }));
        rest().await;
    }
    assert_eq!(played.connections(), [0, 0, 0]);
}

#[tokio::test]
async fn repeats_once_when_a_kept_connection_turns_out_closed() {
    let mut played = Played::tcp(|connection, request| match (connection, request) {
        (0, 1) => Act::Close,
        _ => OK,
    })
    .await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    for _ in 0..2 {
        assert_eq!(check(&client, &service).await.unwrap(), accepted());
        rest().await;
    }
    assert_eq!(played.connections(), [0, 0, 1]);
}

#[tokio::test]
async fn never_repeats_what_a_fresh_connection_dropped_or_an_answer_began() {
    let mut played = Played::tcp(|_, _| Act::Close).await;
    let error = check(&client(), &Arc::new(service(&[&played.address]))).await.unwrap_err();
    assert!(matches!(error, AuthError::Broken { .. }), "{error}");
    assert_eq!(played.connections(), [0]);

    let mut played = Played::tcp(|_, request| match request {
        0 => OK,
        _ => Act::BreakOff("HTTP/1.1 200 OK\r\nAuth-Sta"),
    })
    .await;
    let (client, service) = (client(), Arc::new(service(&[&played.address])));
    check(&client, &service).await.unwrap();
    rest().await;
    let error = check(&client, &service).await.unwrap_err();
    assert!(matches!(error, AuthError::Broken { .. }), "{error}");
    assert_eq!(played.connections(), [0, 0]);
}

#[tokio::test]
async fn the_next_endpoint_takes_over_and_all_are_used_in_turn() {
    let (mut one, mut two) = (Played::tcp(|_, _| OK).await, Played::tcp(|_, _| OK).await);
    let dead = refusing_address().await;
    let (client, service) = (client(), Arc::new(service(&[&dead, &one.address, &two.address])));
    for _ in 0..6 {
        check(&client, &service).await.unwrap();
        rest().await;
    }
    assert_eq!((one.connections().len(), two.connections().len()), (4, 2));
}

#[tokio::test]
async fn an_unreachable_service_is_named() {
    let dead = refusing_address().await;
    let error = check(&client(), &Arc::new(service(&[&dead]))).await.unwrap_err().to_string();
    assert!(error.starts_with("auth service Service mail/auth:9000 cannot be reached:"), "{error}");
    assert!(error.contains("refused"), "{error}");
    let error = check(&client(), &Arc::new(service(&[]))).await.unwrap_err();
    assert!(matches!(error, AuthError::NoEndpoint { .. }), "{error}");
}

#[tokio::test]
async fn the_timeout_is_for_the_whole_answer() {
    let played = Played::tcp(|_, _| Act::Hang).await;
    let mut service = service(&[&played.address]);
    service.timeout = Duration::from_millis(50);
    let error = check(&client(), &Arc::new(service)).await.unwrap_err();
    assert!(matches!(error, AuthError::Timeout { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"));
}

#[tokio::test]
async fn garbage_and_endless_headers_are_errors() {
    let played = Played::tcp(|_, _| Act::Answer("220 mail.test ESMTP\r\n")).await;
    let error = check(&client(), &Arc::new(service(&[&played.address]))).await.unwrap_err();
    assert!(matches!(error, AuthError::Broken { .. }), "{error}");

    let played = Played::tcp(|_, _| {
        let endless = format!("HTTP/1.1 200 OK\r\nAuth-Status: {}\r\n", "x".repeat(9000));
        Act::BreakOff(Box::leak(endless.into_boxed_str()))
    })
    .await;
    let error = check(&client(), &Arc::new(service(&[&played.address]))).await.unwrap_err();
    assert!(matches!(error, AuthError::Broken { .. }), "{error}");

    let played = Played::tcp(|_, _| Act::Answer("HTTP/1.1 404 Nope\r\nContent-Length: 0\r\n\r\n")).await;
    let error = check(&client(), &Arc::new(service(&[&played.address]))).await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("right URL"), "{error}");
}

#[tokio::test]
async fn a_password_that_is_too_long_for_the_service_is_wrong() {
    let played = Played::tcp(|_, _| Act::Answer("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")).await;
    let service = Arc::new(service(&[&played.address]));
    let answer = check_password(&client(), &service, "alice", &[b'%'; 4000]).await.unwrap();
    assert!(matches!(answer, AuthAnswer::Refused { cause: RefusalCause::Credentials, .. }), "{answer:?}");
    let error = check(&client(), &service).await.unwrap_err();
    assert!(matches!(error, AuthError::Answer { .. }), "a usual password is not the reason: {error}");
}

#[tokio::test]
async fn wait_asks_the_same_again_after_a_second() {
    let mut played = Played::tcp(|_, request| match request {
        0 => Act::Answer("HTTP/1.1 200 OK\r\nAuth-Status: WAIT\r\nContent-Length: 0\r\n\r\n"),
        _ => OK,
    })
    .await;
    let began = tokio::time::Instant::now();
    assert_eq!(check(&client(), &Arc::new(service(&[&played.address]))).await.unwrap(), accepted());
    assert!(began.elapsed() >= Duration::from_secs(1));
    let seen = played.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_service_behind_a_unix_socket_or_a_name_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (sender, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, 0, |_, _| OK, sender).await
    });
    let unix = Arc::new(service(&[&BackendAddress::Unix(path)]));
    assert_eq!(check(&client(), &unix).await.unwrap(), accepted());
    assert!(requests.try_recv().unwrap().1.contains("Host: auth.test"));

    let played = Played::tcp(|_, _| OK).await;
    let BackendAddress::Ip(address) = played.address else { panic!("not TCP") };
    let name = |host: &str| BackendAddress::Name { host: host.to_owned(), port: address.port() };
    let named = Arc::new(service(&[&name("localhost")]));
    assert_eq!(check(&client(), &named).await.unwrap(), accepted());
}

/// Starts a service with a certificate for `auth.test`, and returns the certificate.
async fn https(script: Script) -> (Played, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["auth.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der = certificate.der().clone();
    let config = rustls::ServerConfig::builder_with_provider(crate::net::roots::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = BackendAddress::Ip(listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serve(stream, connection, script, sender.clone()));
            }
        }
    });
    (Played { address, requests }, der)
}

#[tokio::test]
async fn https_verifies_the_host_against_the_configured_trust() {
    let (played, der) = https(|_, _| OK).await;
    let trusting = |trust| HttpAuth { tls: Some(trust), ..service(&[&played.address]) };
    let good = Arc::new(trusting(TrustAnchors::Certificates(vec![der])));
    assert_eq!(check(&client(), &good).await.unwrap(), accepted());

    let renamed = HttpAuth { host: "other.test".to_owned(), ..(*good).clone() };
    let (_, stranger) = https(|_, _| OK).await;
    let untrusting = trusting(TrustAnchors::Certificates(vec![stranger]));
    for (bad, remedy) in [(renamed, "in auth.http.url"), (untrusting, "into auth.http.caCertificateRefs")] {
        let error = check(&client(), &Arc::new(bad)).await.unwrap_err();
        assert!(matches!(error, AuthError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(": it presents a certificate "), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[tokio::test]
async fn a_tls_connection_is_kept_until_more_than_the_answer_is_decrypted() {
    let (mut played, der) = https(|_, request| match request {
        2 => Act::Answer(
            "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n\
             HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 0\r\n\r\n",
        ),
        _ => OK,
    })
    .await;
    let tls = Some(TrustAnchors::Certificates(vec![der]));
    let (client, service) = (client(), Arc::new(HttpAuth { tls, ..service(&[&played.address]) }));
    for _ in 0..4 {
        assert_eq!(check(&client, &service).await.unwrap(), accepted());
        rest().await;
    }
    assert_eq!(played.connections(), [0, 0, 0, 1, 2]);
}

#[tokio::test]
async fn an_unusable_configuration_is_the_configurations_fault() {
    let address = refusing_address().await;
    let mut service = service(&[&address]);
    let value = HeaderText::Fixed(Secret::from(&b"hunter2"[..]));
    service.headers.push(AuthHeader { name: "bad name".to_owned(), value });
    let error = check(&client(), &Arc::new(service)).await.unwrap_err();
    assert!(matches!(error, AuthError::Configuration { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
