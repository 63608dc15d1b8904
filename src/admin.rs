//! The admin server: health and metrics for everybody on the network, and status and the rendered model, by default
//! only for this host ([`Pages`]).
//!
//! It does not know about mail: its data are passed in as JSON and as a metrics registry. It runs on the control
//! threads, not on those of the data plane.
//!
//! Probes are answered regardless of other clients. The number of connections, pages and waiting replicas is limited,
//! in total and for each peer. So is the time that a client may take to send a request or to read an answer.

mod bounds;
mod connections;
pub mod control;
mod hosts;
pub mod page;
mod readiness;
mod reply;
mod stream;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::model::served::sealed::{self, SEALED};
use crate::model::served::{Bookmark, Ledger, Page, Totals};
use crate::model::{SharedTicketKeys, Snapshot, TicketKeys};

use bounds::Kind;
use connections::{Connection, Connections};
use reply::{Makers, Whole};
use stream::Bounded;

pub use hosts::Hosts;
pub use readiness::{Readiness, ReadinessGuard};

/// What the pages show.
#[derive(Clone)]
pub struct AdminState {
    /// For `/`.
    pub page: page::Look,
    /// For `/readyz`.
    pub readiness: Readiness,
    /// For `/metrics`.
    pub metrics: Registry,
    /// For `/status`.
    pub status: Made,
    /// For `/model`.
    pub model: watch::Receiver<Arc<Snapshot>>,
    /// For `/served`, which other replicas request.
    pub served: Ledger,
    /// The keys with which it is encrypted; without them, it is not.
    pub keys: SharedTicketKeys,
    /// The host names that are answered.
    pub hosts: Hosts,
    /// Totals of this replica, for `/served`.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    /// File descriptors for connections.
    pub descriptors: usize,
}

/// Creates a page when it is requested.
pub type Made = Arc<dyn Fn() -> Value + Send + Sync>;

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// What kubelet, Prometheus and the other replicas need: `/livez`, `/readyz`, `/metrics` and `/served`.
    Health,
    /// What names objects, backends and clients: the status page, `/status` and `/model`.
    Status,
    /// All of them.
    All,
}

/// The shared state of the handlers.
#[derive(Clone)]
struct Desk {
    state: AdminState,
    makers: Makers,
}

/// The admin server, without its listeners. Clones share the limits.
#[derive(Clone)]
pub struct Server {
    desk: Desk,
    hosts: Arc<Hosts>,
    open: Connections,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// Creates the server that shows this.
    #[must_use]
    pub fn new(state: AdminState) -> Self {
        let (hosts, open) = (Arc::new(state.hosts.clone()), Connections::new(state.descriptors));
        Self { desk: Desk { state, makers: Makers::new() }, hosts, open }
    }

    /// Serves these pages until `shutdown`. Then requests in progress have `LAST_MOMENT` to finish.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        pages: Pages,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        serve(listener, (router(pages, self.desk), self.hosts), &self.open, shutdown).await
    }
}

fn router(pages: Pages, desk: Desk) -> Router {
    let health = Router::new()
        .route(LIVEZ, get(async || "ok\n"))
        .route(READYZ, get(readyz))
        .route("/metrics", get(metrics))
        .route("/served", get(served));
    let status =
        Router::new().route("/", get(page::page)).route("/status", get(status)).route("/model", get(model));
    let elsewhere = || get(async || (StatusCode::NOT_FOUND, ELSEWHERE));
    match pages {
        Pages::Health => {
            ["/", "/status", "/model"].iter().fold(health, |all, path| all.route(path, elsewhere()))
        }
        Pages::Status => status,
        Pages::All => health.merge(status),
    }
    .with_state(desk)
}

async fn serve(
    listener: TcpListener,
    (router, hosts): (Router, Arc<Hosts>),
    open: &Connections,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let tasks = TaskTracker::new();
    loop {
        let admitted = tokio::select! {
            () = shutdown.cancelled() => break,
            admitted = admit(&listener, open) => admitted,
        };
        let Some((stream, connection)) = admitted else { continue };
        tasks.spawn(converse(stream, connection, (router.clone(), Arc::clone(&hosts)), shutdown.clone()));
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Accepts a connection and reserves its place.
async fn admit(listener: &TcpListener, open: &Connections) -> Option<(TcpStream, Connection)> {
    match listener.accept().await {
        Ok((stream, peer)) => open.admit(SocketAddr::ip(&peer)).await.map(|connection| (stream, connection)),
        // The peer failed or descriptors ran out. The next accept may succeed.
        Err(_) => {
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn converse(
    stream: TcpStream,
    connection: Connection,
    (router, hosts): (Router, Arc<Hosts>),
    shutdown: CancellationToken,
) {
    let connection = Arc::new(connection);
    let service = service_fn(|request| {
        connection.asked();
        answer(request, router.clone(), Arc::clone(&hosts), Arc::clone(&connection))
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Bounded::new(stream)), service);
    tokio::pin!(http);
    // Yielding lets the event loop read, so that a request sent at once is answered here.
    for _ in 0..2 {
        if poll_fn(|cx| Poll::Ready(http.as_mut().poll(cx).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
    }
    connection.seen();
    tokio::select! {
        // A client may disconnect at any time.
        _ = http.as_mut() => {}
        () = connection.end().cancelled() => {}
        () = shutdown.cancelled() => {
            http.as_mut().graceful_shutdown();
            let _ = timeout(LAST_MOMENT, http).await;
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    mut router: Router,
    hosts: Arc<Hosts>,
    connection: Arc<Connection>,
) -> Result<Response, Infallible> {
    let is_probe = [LIVEZ, READYZ].contains(&request.uri().path());
    if !is_probe && !hosts.serve(request.uri(), request.headers()) {
        return Ok((StatusCode::MISDIRECTED_REQUEST, MISDIRECTED).into_response());
    }
    request.extensions_mut().insert(connection);
    router.call(request).await
}

const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";
const MISDIRECTED: &str = "the admin server does not answer for this host name: use localhost, an IP address or the pod's \
                           name, or add the name to --admin-hosts (MAILGRESS_ADMIN_HOSTS; admin.hosts in the chart)\n";
const ELSEWHERE: &str = "this page is at --status-address, by default port 9091 of localhost: use `kubectl port-forward \
                         deploy/mailgress 9091`, then http://localhost:9091/\n";
/// Time limit for a request to arrive, also for the next one on a kept connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum bytes of a request's head, and of an answer that waits to be written.
const MAX_HEAD: usize = 16 << 10;
/// Time limit for requests in progress when the process ends.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Visitor = Extension<Arc<Connection>>;

async fn readyz(State(Desk { state, .. }): State<Desk>) -> Response {
    let reasons = state.readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("not ready: {}\n", reasons.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(Desk { state, makers }): State<Desk>, visitor: Visitor) -> Response {
    makers.make(Kind::Metrics, visitor.peer(), move || exposition(&state.metrics)).await
}

fn exposition(metrics: &Registry) -> Whole {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    match (encoder.encode(&metrics.gather(), &mut page), HeaderValue::from_str(encoder.format_type())) {
        (Ok(()), Ok(format)) => reply::with_type(format, page),
        (Err(error), _) => reply::failed(&error.to_string()),
        (_, Err(error)) => reply::failed(&error.to_string()),
    }
}

async fn status(State(Desk { state, makers }): State<Desk>, visitor: Visitor) -> Response {
    makers.make(Kind::Page, visitor.peer(), move || reply::json(&(state.status)())).await
}

async fn model(State(Desk { state, makers }): State<Desk>, visitor: Visitor) -> Response {
    makers.make(Kind::Page, visitor.peer(), move || reply::json(&Arc::clone(&state.model.borrow()))).await
}

/// What the other replica has read, and how long it wants to wait.
#[derive(Debug, Deserialize)]
struct Asked {
    instance: Option<String>,
    version: Option<u64>,
    /// In seconds.
    wait: Option<u64>,
    /// `exclusive`: without the objects.
    only: Option<String>,
}

async fn served(
    State(Desk { state, makers }): State<Desk>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
    Query(asked): Query<Asked>,
) -> Response {
    let read = asked.instance.zip(asked.version).map(|(instance, version)| Bookmark { instance, version });
    let place = makers.bounds.take(Kind::Poll, visitor.peer());
    let longest = if place.is_some() { LONGEST_WAIT } else { WAIT_OF_MANY };
    let wait = Duration::from_secs(asked.wait.unwrap_or_default()).min(longest);
    // Without changes in time, the page is empty and shows that this replica is alive.
    let _ = timeout(wait, state.served.news(read.as_ref())).await;
    drop(place);
    let page = move || {
        let (ready, totals) = (state.readiness.reasons().is_empty(), (state.totals)());
        let mut page = Page { ready: Some(ready), totals: Some(totals), ..state.served.page(read.as_ref()) };
        if asked.only.as_deref() == Some("exclusive") {
            page.objects.clear();
        }
        let page = reply::json(&page);
        match state.keys.load() {
            Some(keys) => encrypted(&keys, &query.unwrap_or_default(), page),
            None => page,
        }
    };
    makers.make(Kind::Served, visitor.peer(), page).await
}

fn encrypted(keys: &TicketKeys, query: &str, page: Whole) -> Whole {
    match sealed::seal(keys, query, page.into_body()) {
        Some(sealed) => reply::with_type(HeaderValue::from_static(SEALED), sealed),
        None => reply::failed("the answer cannot be encrypted"),
    }
}

/// Maximum time that a replica waits for changes.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The maximum if too many requests are already waiting.
const WAIT_OF_MANY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    use prometheus::IntCounter;
    use serde_json::json;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

    use crate::model::served::{ObjectName, Replica, ServedObject};
    use crate::model::view::View;

    /// Sends a request such as `GET /path`. Returns the whole response.
    pub(super) async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    struct TestServer {
        address: SocketAddr,
        readiness: Readiness,
        ledger: Ledger,
        keys: SharedTicketKeys,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl TestServer {
        async fn start() -> Self {
            Self::start_with(Pages::All).await
        }

        async fn start_with(pages: Pages) -> Self {
            let keys = SharedTicketKeys::default();
            let replica = Replica { name: "a".into(), instance: "1".into(), node_address: None };
            let ledger = Ledger::new(replica);
            let asked = AtomicU64::new(0);
            let metrics = Registry::new();
            let counter = IntCounter::new("mailgress_swaps_total", "Swaps.").unwrap();
            counter.inc();
            metrics.register(Box::new(counter)).unwrap();
            let readiness = Readiness::new();
            let (_, model) = watch::channel(Arc::default());
            let state = AdminState {
                page: Arc::new(|_| View::default()),
                readiness: readiness.clone(),
                metrics,
                status: Arc::new(move || json!({ "asked": asked.fetch_add(1, Ordering::Relaxed) })),
                model,
                served: ledger.clone(),
                keys: keys.clone(),
                hosts: Hosts::new(["x".to_owned()]),
                totals: Arc::new(|| Totals { sessions: 7, ..Totals::default() }),
                descriptors: 81,
            };
            let (listener, shutdown) =
                (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
            let address = listener.local_addr().unwrap();
            let task = tokio::spawn(Server::new(state).serve(listener, pages, shutdown.clone()));
            Self { address, readiness, ledger, keys, shutdown, task }
        }

        /// Returns the whole response.
        async fn get(&self, path: &str) -> String {
            ask(TcpStream::connect(self.address).await.unwrap(), &format!("GET {path}")).await
        }
    }

    #[tokio::test]
    async fn is_ready_when_the_last_guard_is_dropped_and_never_after_draining() {
        let served = TestServer::start().await;
        let (first, second) = (served.readiness.block("no snapshot yet"), served.readiness.block("no lease"));
        drop(first);
        let page = served.get("/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503") && page.ends_with("not ready: no lease\n"), "{page}");
        drop(second);
        assert!(served.get("/readyz").await.starts_with("HTTP/1.1 200"));
        served.readiness.drain();
        assert!(served.get("/readyz").await.ends_with("not ready: draining\n"));
        assert!(served.get("/livez").await.starts_with("HTTP/1.1 200"), "alive while it drains");
    }

    #[tokio::test]
    async fn shows_metrics_and_makes_its_pages_when_they_are_asked_for() {
        let served = TestServer::start().await;
        let page = served.get("/metrics").await;
        assert!(
            page.contains("content-type: text/plain") && page.contains("\nmailgress_swaps_total 1\n"),
            "{page}"
        );
        assert!(served.get("/status").await.ends_with(r#"{"asked":0}"#));
        assert!(served.get("/status").await.ends_with(r#"{"asked":1}"#));
        assert!(served.get("/model").await.ends_with(r#"{"revision":0,"sockets":[]}"#));
        assert!(served.get("/other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_replica_that_waits_for_news_gets_them_when_they_come() {
        let served = TestServer::start().await;
        let first = served.get("/served").await;
        assert!(first.contains(r#""version":0,"ready":true,"whole":true"#), "{first}");
        assert!(first.contains(r#""totals":{"sessions":7"#), "{first}");
        let ledger = served.ledger.clone();
        let object = ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: "x".into() };
        let later = async move { ledger.enter([(object, Some(ServedObject::default()))]) };
        let (page, ()) = tokio::join!(served.get("/served?instance=1&version=0&wait=30"), later);
        assert!(
            page.contains(r#""version":1,"ready":true,"whole":false"#) && page.contains(r#""name":"x""#),
            "{page}"
        );
        assert!(served.get("/served?instance=0&version=9").await.contains(r#""whole":true"#));
        assert!(served.get("/served?version=x").await.starts_with("HTTP/1.1 400"));
    }

    #[tokio::test]
    async fn the_network_sees_health_and_metrics_only() {
        let health = TestServer::start_with(Pages::Health).await;
        for path in ["/livez", "/readyz", "/metrics", "/served"] {
            assert!(health.get(path).await.starts_with("HTTP/1.1 200"), "{path}");
        }
        for path in ["/", "/status", "/model"] {
            let page = health.get(path).await;
            assert!(page.starts_with("HTTP/1.1 404") && page.contains("--status-address"), "{page}");
        }
        let status = TestServer::start_with(Pages::Status).await;
        for path in ["/", "/status", "/model"] {
            assert!(status.get(path).await.starts_with("HTTP/1.1 200"), "{path}");
        }
        for path in ["/metrics", "/served"] {
            assert!(status.get(path).await.starts_with("HTTP/1.1 404"), "{path}");
        }
    }

    #[tokio::test]
    async fn only_a_replica_with_the_same_keys_can_read_what_is_served() {
        let served = TestServer::start_with(Pages::Health).await;
        let current = crate::model::TicketKey::from_bytes(&[1; 48]).unwrap();
        served.keys.store(Some(TicketKeys { current, others: Vec::new() }));
        let query = "wait=0&nonce=7";
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let head = format!("GET /served?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        assert!(head.contains(SEALED), "{head}");
        let body = answer.split_off(end + 4);
        assert!(!body.windows(7).any(|part| part == b"version"), "{body:?}");
        let page = sealed::open(&served.keys, query, true, body).unwrap();
        let page: Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["totals"]["sessions"], 7);
    }

    #[tokio::test]
    async fn ends_on_shutdown() {
        let served = TestServer::start().await;
        served.shutdown.cancel();
        served.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_arrives_keeps_neither_a_place_nor_the_process() {
        let served = TestServer::start().await;
        let mut slow = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
            slow.push(stream);
        }
        assert!(served.get("/livez").await.starts_with("HTTP/1.1 200"));
        served.shutdown.cancel();
        timeout(Duration::from_secs(30), served.task).await.unwrap().unwrap().unwrap();
    }
}
