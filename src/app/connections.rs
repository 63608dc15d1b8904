//! The connections to the API server: all requests and watches share a few of them over HTTP/2.
//!
//! kube's own client uses HTTP/1.1, where each watch needs its own TLS connection. Thousands of Secrets that are
//! watched by name would cost as many descriptors, and about 50 KiB each on both sides. If the server, or a proxy in
//! front of it, does not support HTTP/2, HTTP/1.1 is used.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response, Uri, uri::Scheme};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::controller::metrics::Metrics;

/// A service for requests. `Plain` is the service for HTTP/1.1.
#[derive(Clone)]
pub(super) struct Connections<Plain> {
    shared: Arc<Shared>,
    plain: Plain,
}

struct Shared {
    server: Server,
    /// False after the server has selected HTTP/1.1.
    speaks_http2: AtomicBool,
    open: Mutex<Open>,
    metrics: Metrics,
    /// Time limit for the head of an answer.
    answer_timeout: Duration,
    /// Limits the requests that are not answered yet.
    turns: Semaphore,
}

/// The address and credentials of the API server.
struct Server {
    url: Uri,
    name: ServerName<'static>,
    tls: TlsConnector,
    tcp: HttpConnector,
}

#[derive(Default)]
struct Open {
    connections: Vec<Connection>,
    /// The last failed attempt. Requests that waited for it fail too.
    failed: Option<(Instant, String)>,
}

struct Connection {
    sender: SendRequest<Body>,
    streams: Arc<Semaphore>,
}

/// A stream of an HTTP/2 connection.
struct Stream {
    sender: SendRequest<Body>,
    permit: OwnedSemaphorePermit,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    fn new(config: &Config, tcp: HttpConnector) -> anyhow::Result<Self> {
        let url = config.cluster_url.clone();
        let host = url.host().context("the API server's URL has no host")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = config.tls_server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).context("the API server's name")?;
        let mut tls: ClientConfig = config.rustls_client_config()?;
        tls.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
        Ok(Self { url, name, tls: TlsConnector::from(Arc::new(tls)), tcp })
    }

    /// Opens a connection. `None` if the server selects HTTP/1.1.
    async fn connect(&self) -> Result<Option<SendRequest<Body>>, Failure> {
        let tcp = self.tcp.clone().call(self.url.clone()).await?.into_inner();
        let stream = self.tls.connect(self.name.clone(), tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Ok(None);
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the API server ended: {error}");
            }
        });
        Ok(Some(sender))
    }
}

impl Shared {
    /// Returns a free stream, on a new connection if needed. `None` if the server does not support HTTP/2. `asked` is
    /// the time of the request, to share a failed attempt.
    async fn stream(&self, asked: Instant) -> Result<Option<Stream>, Failure> {
        let mut open = self.open.lock().await;
        open.connections.retain(|connection| connection.is_usable());
        if let Some(stream) = open.connections.iter().find_map(Connection::stream) {
            return Ok(Some(stream));
        }
        if !self.speaks_http2.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some((_, why)) = open.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(why.clone().into());
        }
        let connected = match timeout(CONNECT_TIMEOUT, self.server.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err("it does not answer".into()),
        };
        match connected {
            Ok(Some(sender)) => {
                let connection = Connection { sender, streams: Arc::new(Semaphore::new(MAX_STREAMS)) };
                let stream = connection.stream();
                open.connections.push(connection);
                open.failed = None;
                Ok(stream)
            }
            Ok(None) => {
                self.speaks_http2.store(false, Ordering::Relaxed);
                tracing::info!("the API server supports HTTP/1.1 only; using one connection for each watch");
                Ok(None)
            }
            Err(error) => {
                open.failed = Some((Instant::now(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Sends a request. Returns it if the server does not support HTTP/2.
    async fn send(
        &self,
        mut request: Request<Body>,
        asked: Instant,
    ) -> Result<Result<Response<ResponseBody>, Request<Body>>, Failure> {
        for _ in 0..ATTEMPTS {
            let stream = self.stream(asked).await?;
            let Some(Stream { mut sender, permit }) = stream else { return Ok(Err(request)) };
            let sent = timeout(self.answer_timeout, sender.try_send_request(request)).await;
            if sent.is_err() {
                // The connection may hang, so later requests use another one.
                permit.semaphore().close();
            }
            match sent.map_err(|_| "the API server does not answer")? {
                Ok(response) => {
                    return Ok(Ok(response.map(|body| ResponseBody { body, _stream: Some(permit) })));
                }
                // The connection was closing and the request was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        Err("the API server closes its connections at once".into())
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.streams.is_closed()
    }

    fn stream(&self) -> Option<Stream> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().ok()?;
        Some(Stream { sender: self.sender.clone(), permit })
    }
}

impl<Plain> Connections<Plain> {
    /// Creates a service for the server in `config`, without connecting yet. The head of an answer may take
    /// `answer_timeout`.
    ///
    /// # Errors
    /// The address or the credentials cannot be used.
    pub(super) fn new(
        config: &Config,
        plain: Plain,
        metrics: Metrics,
        answer_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let shared = Shared {
            server: Server::new(config, tcp())?,
            speaks_http2: AtomicBool::new(config.cluster_url.scheme() == Some(&Scheme::HTTPS)),
            open: Mutex::default(),
            metrics,
            answer_timeout,
            turns: Semaphore::new(MAX_UNANSWERED),
        };
        Ok(Self { shared: Arc::new(shared), plain })
    }
}

/// Returns the connector for TCP connections to the API server, with HTTP/1.1 or HTTP/2.
pub(super) fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // With HTTP/1.1, only keepalive notices a server that has disappeared.
    tcp.set_keepalive(Some(PING_INTERVAL));
    tcp.set_keepalive_interval(Some(PING_TIMEOUT));
    tcp.set_keepalive_retries(Some(1));
    tcp
}

impl<Plain> Service<Request<Body>> for Connections<Plain>
where
    Plain: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + 'static,
    Plain::Error: Into<Failure>,
    Plain::Future: Send,
{
    type Response = Response<ResponseBody>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.plain.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = request.extensions().get::<&'static str>().copied().unwrap_or("other");
        let path = request.uri().path().to_owned();
        self.shared.metrics.api_request(verb, &path);
        // The clone may not be ready, so use the service that was polled.
        let plain = self.plain.clone();
        let mut plain = std::mem::replace(&mut self.plain, plain);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let asked = Instant::now();
            // Held until the head of the answer arrives. The semaphore is never closed.
            let _turn = shared.turns.acquire().await;
            let response = match shared.send(request, asked).await? {
                Ok(response) => response,
                Err(request) => {
                    let answer = timeout(shared.answer_timeout, plain.call(request)).await;
                    let answer = answer.map_err(|_| "the API server does not answer")?;
                    answer.map_err(Into::into)?.map(|body| ResponseBody { body, _stream: None })
                }
            };
            if response.status().is_success() {
                shared.metrics.api_answered(verb, &path);
            }
            Ok(response)
        })
    }
}

/// The body of an answer. It occupies its stream until it is dropped.
pub(super) struct ResponseBody {
    body: Incoming,
    _stream: Option<OwnedSemaphorePermit>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The ALPN name of HTTP/2.
const HTTP2: &[u8] = b"h2";
/// Streams per connection. kube-apiserver and proxies allow 100 or more.
const MAX_STREAMS: usize = 64;
/// Maximum number of unanswered requests. If thousands of watches started at once, the API server's fairness (API
/// priority and fairness) would refuse some with 429 and delay everybody else.
const MAX_UNANSWERED: usize = 32;
/// Time limit for connecting, because an address may not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// If nothing arrives for this time, a PING is sent.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Time limit for the answer to a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to send a request, if connections close at that moment.
const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests;
