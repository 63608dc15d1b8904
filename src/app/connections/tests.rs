//! Tests with servers that speak HTTP/2 or HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy;
use prometheus::Registry;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers every request with an endless body.
struct ApiServer {
    address: SocketAddr,
    authority: Vec<u8>,
    accepted: Arc<AtomicUsize>,
    /// Number of received requests.
    asked: Arc<AtomicUsize>,
    /// One permit for each answer.
    answers: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl ApiServer {
    async fn start(protocols: &[&[u8]]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
        let authority = issued.cert.der().to_vec();
        let chain = vec![issued.cert.der().clone()];
        let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let (asked, answers) = (Arc::default(), Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)));
        let handler = (Arc::clone(&asked), Arc::clone(&answers));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(acceptor.clone(), tcp, handler.clone()));
            }
        });
        Self { address, authority, accepted, asked, answers, _tasks: tasks }
    }

    fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn client(&self) -> Connections<impl Plain + use<>> {
        self.client_within(Duration::from_secs(30))
    }

    fn client_within(&self, timeout: Duration) -> Connections<impl Plain + use<>> {
        let mut config = Config::new(format!("https://localhost:{}", self.address.port()).parse().unwrap());
        config.root_cert = Some(vec![self.authority.clone()]);
        client(&config, timeout)
    }

    fn request(&self) -> Request<Body> {
        let url = format!("https://localhost:{}/api/v1/namespaces", self.address.port());
        Request::builder().uri(url).body(Body::empty()).unwrap()
    }
}

trait Plain:
    Service<Request<Body>, Response = Response<Incoming>, Error: Into<Failure>, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<T> Plain for T where
    T: Service<Request<Body>, Response = Response<Incoming>, Error: Into<Failure>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

fn client(config: &Config, answer_timeout: Duration) -> Connections<impl Plain + use<>> {
    let https = config.rustls_https_connector_with_connector(tcp()).unwrap();
    let plain = legacy::Client::builder(TokioExecutor::new()).build(https);
    Connections::new(config, plain, Metrics::register(&Registry::new()).unwrap(), answer_timeout).unwrap()
}

async fn serve(
    acceptor: TlsAcceptor,
    tcp: tokio::net::TcpStream,
    (asked, answers): (Arc<AtomicUsize>, Arc<Semaphore>),
) {
    let Ok(stream) = acceptor.accept(tcp).await else { return };
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let stream = TokioIo::new(stream);
    let answer = service_fn(move |_| {
        asked.fetch_add(1, Ordering::SeqCst);
        let answers = Arc::clone(&answers);
        async move {
            answers.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::new(Endless))
        }
    });
    if speaks_http2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, answer).await;
    } else {
        let _ = http1::Builder::new().serve_connection(stream, answer).await;
    }
}

/// A body like that of a watch without events.
struct Endless;

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Sends `count` requests at once and returns their responses.
async fn ask(
    server: &ApiServer,
    client: &Connections<impl Plain>,
    count: usize,
) -> Vec<Response<ResponseBody>> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let sent = client.clone().call(server.request());
        asked.spawn(async move { sent.await.unwrap() });
    }
    timeout(Duration::from_secs(20), asked.join_all()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_share_connections_up_to_a_bound() {
    let server = ApiServer::start(&[HTTP2, b"http/1.1"]).await;
    let client = server.client();
    let mut held = ask(&server, &client, 3 * MAX_STREAMS).await;
    assert_eq!(server.connections(), 3);
    // Ended requests free their streams.
    held.truncate(2 * MAX_STREAMS + 1);
    held.extend(ask(&server, &client, MAX_STREAMS - 1).await);
    assert_eq!((held.len(), server.connections()), (3 * MAX_STREAMS, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_asked_at_once_than_a_server_takes() {
    let server = ApiServer::start(&[HTTP2]).await;
    let client = server.client();
    server.answers.forget_permits(Semaphore::MAX_PERMITS);
    let asking = async { ask(&server, &client, 4 * MAX_UNANSWERED).await.len() };
    let answering = async {
        for answered in 0..4 * MAX_UNANSWERED {
            let most = (answered + MAX_UNANSWERED).min(4 * MAX_UNANSWERED);
            while server.asked.load(Ordering::SeqCst) < most {
                tokio::task::yield_now().await;
            }
            assert_eq!(server.asked.load(Ordering::SeqCst), most);
            server.answers.add_permits(1);
        }
    };
    let bound = Duration::from_secs(20);
    let (answered, ()) = timeout(bound, async { tokio::join!(asking, answering) }).await.unwrap();
    assert_eq!(answered, 4 * MAX_UNANSWERED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_http2_gets_a_connection_for_each() {
    let server = ApiServer::start(&[b"http/1.1"]).await;
    let client = server.client();
    let held = ask(&server, &client, 5).await;
    assert!(held.iter().all(|response| response.status() == 200));
    assert_eq!(server.connections(), 5 + 1, "one was there to find out");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_asked_once_for_all_that_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config::new(format!("https://{}", listener.local_addr().unwrap()).parse().unwrap());
    let client = client(&config, Duration::from_secs(30));
    // A server that accepts connections but never answers.
    let request = || Request::builder().uri("https://localhost/").body(Body::empty()).unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..100 {
        asked.spawn(client.clone().call(request()));
    }
    let began = Instant::now();
    let answers = asked.join_all().await;
    assert!(answers.iter().all(Result::is_err));
    assert!(began.elapsed() < 2 * CONNECT_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_gets_no_more_requests() {
    let server = ApiServer::start(&[HTTP2]).await;
    server.answers.forget_permits(Semaphore::MAX_PERMITS);
    let mut client = server.client_within(Duration::from_millis(1));
    for connections in 1..=3 {
        assert!(client.call(server.request()).await.is_err());
        assert_eq!(server.connections(), connections);
    }
}
