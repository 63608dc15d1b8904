//! The admin server: health, metrics, status and the rendered model.
//!
//! It knows no mail: what it shows is handed in as JSON and as a registry of metrics. It runs beside the
//! data plane's threads, never on them.

pub mod page;
mod readiness;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::served::{Bookmark, Ledger, Page, Totals};

pub use readiness::{Readiness, ReadinessGuard};

/// What the pages are made of.
#[derive(Clone)]
pub struct AdminState {
    /// `/`.
    pub page: page::Look,
    /// `/readyz`.
    pub readiness: Readiness,
    /// `/metrics`.
    pub metrics: Registry,
    /// `/status`.
    pub status: Made,
    /// `/model`; secrets masked by whoever makes it.
    pub model: Made,
    /// `/served`: what other replicas ask for.
    pub served: Ledger,
    /// What goes with it.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
}

/// A page that is made when it is asked for.
pub type Made = Arc<dyn Fn() -> Value + Send + Sync>;

/// Serves until `shutdown`; requests under way have a moment to finish. Connections are bounded in number, and
/// in the time that a request may take to arrive: a slow client costs nobody else a probe.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(page::page))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(async |State(state): State<AdminState>| Json((state.status)())))
        .route("/model", get(async |State(state): State<AdminState>| Json((state.model)())))
        .route("/served", get(served))
        .with_state(state);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &room) => accepted?,
        };
        connections.spawn(converse(accepted, router.clone(), shutdown.clone()));
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

/// The next connection, and its place.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, place)),
            // The peer's trouble, or descriptors ran out: the next one may be fine.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(
    (stream, _place): (TcpStream, OwnedSemaphorePermit),
    router: Router,
    shutdown: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // A client that breaks off is its own affair.
        _ = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_MOMENT, connection).await;
        }
    }
}

/// Connections at once; probes and scrapes need a handful.
const MAX_CONNECTIONS: usize = 128;
/// For a request to arrive, also the next one on a kept connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For requests under way at the end.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn readyz(State(state): State<AdminState>) -> Response {
    let reasons = state.readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("not ready: {}\n", reasons.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let encoder = TextEncoder::new();
    let mut page = Vec::new();
    match encoder.encode(&state.metrics.gather(), &mut page) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// How far the asker has read, and how long it likes to wait for more.
#[derive(Debug, Deserialize)]
struct Asked {
    instance: Option<String>,
    version: Option<u64>,
    /// Seconds.
    wait: Option<u64>,
    /// The asker's name, if it leads.
    leader: Option<String>,
}

async fn served(State(state): State<AdminState>, Query(asked): Query<Asked>) -> Response {
    if let Some(leader) = &asked.leader {
        state.served.asked_by(leader, Instant::now());
    }
    let read = asked.instance.zip(asked.version).map(|(instance, version)| Bookmark { instance, version });
    let wait = Duration::from_secs(asked.wait.unwrap_or_default()).min(LONGEST_WAIT);
    // Without news in time the page is empty, and the asker knows that we are alive.
    let _ = timeout(wait, state.served.news(read.as_ref())).await;
    let totals = Some((state.totals)());
    Json(Page { totals, ..state.served.page(read.as_ref()) }).into_response()
}

/// For news that somebody waits for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    use prometheus::IntCounter;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::model::served::{ObjectName, Replica, Served as ServedObject};
    use crate::model::view::View;

    struct Served {
        address: std::net::SocketAddr,
        readiness: Readiness,
        ledger: Ledger,
        shutdown: CancellationToken,
        task: tokio::task::JoinHandle<io::Result<()>>,
    }

    impl Served {
        async fn start() -> Self {
            let replica = Replica { name: "a".into(), instance: "1".into(), node_address: None };
            let ledger = Ledger::new(replica);
            let asked = AtomicU64::new(0);
            let metrics = Registry::new();
            let counter = IntCounter::new("mailgress_swaps_total", "Swaps.").unwrap();
            counter.inc();
            metrics.register(Box::new(counter)).unwrap();
            let readiness = Readiness::new();
            let state = AdminState {
                page: Arc::new(|_| View::default()),
                readiness: readiness.clone(),
                metrics,
                status: Arc::new(move || json!({ "asked": asked.fetch_add(1, Ordering::Relaxed) })),
                model: Arc::new(|| json!({"key": "********"})),
                served: ledger.clone(),
                totals: Arc::new(|| Totals { sessions: 7, ..Totals::default() }),
            };
            let (listener, shutdown) =
                (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
            let address = listener.local_addr().unwrap();
            let task = tokio::spawn(serve(listener, state, shutdown.clone()));
            Self { address, readiness, ledger, shutdown, task }
        }

        /// The whole response.
        async fn get(&self, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            response
        }
    }

    #[tokio::test]
    async fn is_ready_when_the_last_guard_is_dropped_and_never_after_draining() {
        let served = Served::start().await;
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
        let served = Served::start().await;
        let page = served.get("/metrics").await;
        assert!(
            page.contains("content-type: text/plain") && page.contains("\nmailgress_swaps_total 1\n"),
            "{page}"
        );
        assert!(served.get("/status").await.ends_with(r#"{"asked":0}"#));
        assert!(served.get("/status").await.ends_with(r#"{"asked":1}"#));
        assert!(served.get("/model").await.ends_with(r#"{"key":"********"}"#));
        assert!(served.get("/other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_replica_that_waits_for_news_gets_them_when_they_come() {
        let served = Served::start().await;
        let first = served.get("/served").await;
        assert!(first.contains(r#""version":0,"whole":true"#), "{first}");
        assert!(first.contains(r#""totals":{"sessions":7"#), "{first}");
        served.get("/served?leader=mailgress-1").await;
        assert_eq!(served.ledger.leader(Instant::now()).as_deref(), Some("mailgress-1"));
        let ledger = served.ledger.clone();
        let object = ObjectName { kind: "MailServer".into(), namespace: "mail".into(), name: "x".into() };
        let later = async move { ledger.enter([(object, Some(ServedObject::default()))]) };
        let (page, ()) = tokio::join!(served.get("/served?instance=1&version=0&wait=30"), later);
        assert!(page.contains(r#""version":1,"whole":false"#) && page.contains(r#""name":"x""#), "{page}");
        assert!(served.get("/served?instance=0&version=9").await.contains(r#""whole":true"#));
        assert!(served.get("/served?version=x").await.starts_with("HTTP/1.1 400"));
    }

    #[tokio::test]
    async fn ends_on_shutdown() {
        let served = Served::start().await;
        served.shutdown.cancel();
        served.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_arrives_keeps_neither_a_place_nor_the_process() {
        let served = Served::start().await;
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
