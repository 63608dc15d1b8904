//! The control socket: HTTP with JSON over a UNIX socket, for `mailgress sessions`, `mailgress kick` and `mailgress
//! why`.
//!
//! The file's mode decides who may connect, so requests are not authenticated. Logins are visible here, and sessions can
//! be ended; the admin server does neither.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::info;

use crate::model::sessions::{Kicked, OpenSession, SessionFilter, SessionList};
use crate::model::why::{Why, WhyQuery};

use super::reply::{self, Whole};
use super::stream::Bounded;
use super::{ACCEPT_PAUSE, HEADER_TIMEOUT, LAST_MOMENT, MAX_HEAD};

/// What the control socket gives access to.
#[derive(Clone)]
pub struct ControlState {
    /// The replica's name.
    pub replica: String,
    /// Describes the selected sessions.
    pub list: Select<Vec<OpenSession>>,
    /// Tells the selected sessions to end, and returns their number.
    pub kick: Select<usize>,
    /// Explains where a user goes.
    pub why: Arc<dyn Fn(&WhyQuery) -> Why + Send + Sync>,
}

/// Does something with the selected sessions.
pub type Select<T> = Arc<dyn Fn(&SessionFilter) -> T + Send + Sync>;

/// Serves until `shutdown`. Then requests in progress have `LAST_MOMENT` to finish.
pub async fn serve(listener: UnixListener, state: ControlState, shutdown: CancellationToken) {
    let router = Router::new().route(SESSIONS, get(sessions)).route(KICK, post(kick)).route(WHY, get(why));
    let router = router.with_state(state);
    let (tasks, places) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Ok((stream, place)) = accepted else {
            // Descriptors ran out. The next accept may succeed.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let conversation = converse(stream, router.clone(), shutdown.clone());
        tasks.spawn(async move {
            conversation.await;
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Waits for a place, then for a connection.
async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn converse(stream: UnixStream, router: Router, shutdown: CancellationToken) {
    let service = service_fn(|request| {
        let mut router = router.clone();
        async move { Ok::<Response, Infallible>(router.call(request).await.into_response()) }
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Bounded::new(stream)), service);
    tokio::pin!(http);
    tokio::select! {
        // A client may disconnect at any time.
        _ = http.as_mut() => {}
        () = shutdown.cancelled() => {
            http.as_mut().graceful_shutdown();
            let _ = timeout(LAST_MOMENT, http).await;
        }
    }
}

async fn sessions(State(state): State<ControlState>, Query(filter): Query<SessionFilter>) -> Response {
    made(move || {
        let sessions = (state.list)(&filter);
        reply::json(&SessionList { replica: state.replica, sessions })
    })
    .await
}

async fn kick(State(state): State<ControlState>, Query(filter): Query<SessionFilter>) -> Response {
    if filter.is_empty() {
        return (StatusCode::BAD_REQUEST, "select the sessions: user, backend, listener or session\n")
            .into_response();
    }
    made(move || {
        let ended = (state.kick)(&filter);
        info!(sessions = ended, "ended sessions at the request of an operator (mailgress kick)");
        reply::json(&Kicked { replica: state.replica, ended })
    })
    .await
}

async fn why(State(state): State<ControlState>, Query(query): Query<WhyQuery>) -> Response {
    if query.user.is_empty() {
        return (StatusCode::BAD_REQUEST, "name the user\n").into_response();
    }
    made(move || reply::json(&(state.why)(&query))).await
}

/// Creates an answer outside of the control threads.
async fn made(make: impl FnOnce() -> Whole + Send + 'static) -> Response {
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|error| reply::failed(&error.to_string())).map(Body::from)
}

/// The path of the sessions: `GET`, with a [`SessionFilter`] as the query.
pub const SESSIONS: &str = "/sessions";
/// The path that ends sessions: `POST`, with a [`SessionFilter`] as the query.
pub const KICK: &str = "/kick";
/// The path that explains where a user goes: `GET`, with a [`WhyQuery`] as the query.
pub const WHY: &str = "/why";

/// Connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tempfile::TempDir;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::admin::tests::ask;

    /// A server that kicks one session for each request.
    struct Served {
        path: PathBuf,
        kicked: Arc<AtomicUsize>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
        _folder: TempDir,
    }

    impl Served {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (path, kicked) = (folder.path().join("control.sock"), Arc::new(AtomicUsize::new(0)));
            let (listener, count) = (UnixListener::bind(&path).unwrap(), Arc::clone(&kicked));
            let state = ControlState {
                replica: "a".to_owned(),
                list: Arc::new(|_| Vec::new()),
                kick: Arc::new(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    1
                }),
                why: Arc::new(|query| Why {
                    replica: query.user.clone(),
                    listeners: Vec::new(),
                    sessions: Vec::new(),
                    refusals: Vec::new(),
                    bans: Vec::new(),
                }),
            };
            let shutdown = CancellationToken::new();
            let task = tokio::spawn(serve(listener, state, shutdown.clone()));
            Self { path, kicked, shutdown, task, _folder: folder }
        }

        async fn ask(&self, request: &str) -> String {
            ask(UnixStream::connect(&self.path).await.unwrap(), request).await
        }
    }

    #[tokio::test]
    async fn sessions_are_ended_only_by_a_post_that_selects_them_with_known_fields() {
        let served = Served::start();
        let list = served.ask("GET /sessions?user=a%20b").await;
        assert!(
            list.starts_with("HTTP/1.1 200") && list.ends_with(r#"{"replica":"a","sessions":[]}"#),
            "{list}"
        );
        for (request, status) in [
            ("POST /kick", "400"),
            ("POST /kick?", "400"),
            ("POST /kick?usr=a", "400"),
            ("POST /kick?session=x", "400"),
            ("GET /kick?user=a", "405"),
            ("GET /other", "404"),
            ("GET /why", "400"),
            ("GET /why?user=", "400"),
            ("GET /why?user=a&sin=b", "400"),
        ] {
            let answer = served.ask(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
        let why = served.ask("GET /why?user=a%40b&sni=c").await;
        assert!(
            why.ends_with(r#"{"replica":"a@b","listeners":[],"sessions":[],"refusals":[],"bans":[]}"#),
            "{why}"
        );
        assert_eq!(served.kicked.load(Ordering::Relaxed), 0);
        let kicked = served.ask("POST /kick?user=a").await;
        assert!(kicked.ends_with(r#"{"replica":"a","ended":1}"#), "{kicked}");
        assert_eq!(served.kicked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn silent_clients_keep_neither_the_last_place_nor_the_process() {
        let served = Served::start();
        let mut silent = Vec::new();
        for _ in 1..MAX_CONNECTIONS {
            silent.push(UnixStream::connect(&served.path).await.unwrap());
        }
        assert!(served.ask("GET /sessions").await.starts_with("HTTP/1.1 200"));
        served.shutdown.cancel();
        timeout(std::time::Duration::from_secs(30), served.task).await.unwrap().unwrap();
    }
}
