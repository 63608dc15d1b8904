//! Accepts connections from one listening socket and distributes them to the workers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::warn;

use crate::net::socket::Listening;
use crate::net::{ClientAddress, has_no_descriptor};

use super::context::WorkerContext;
use super::dispatch::{Dispatcher, Work};
use super::serving::Serving;
use super::session::{self, Incoming};

/// Accepts from one socket until it is stopped. It runs on one worker and gives sessions to all workers.
pub(crate) struct AcceptLoop {
    /// Shared with the supervisor, which changes its options.
    pub(crate) listening: Arc<Listening>,
    /// The configuration for new sessions; a swap replaces it.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The index of the worker that runs this loop.
    pub(crate) home: usize,
    /// With `SO_REUSEPORT`, the kernel distributes connections, so they stay on this worker.
    pub(crate) keeps: bool,
    pub(crate) stop: CancellationToken,
    /// Dropped when this loop has released the socket.
    pub(crate) running: TaskTrackerToken,
    /// Counts the pauses of all loops.
    pub(crate) pauses: IntCounter,
}

/// A shared listening socket that `AsyncFd` can hold.
struct Descriptor(Arc<Listening>);

impl Descriptor {
    /// Registers the socket with this worker's event queue. `AsyncFd::new` is deprecated because a type could close the
    /// descriptor that it returned. This type keeps it open as long as the share exists.
    #[expect(deprecated, reason = "its successor is an unsafe function, and this crate has none")]
    fn watched(self) -> io::Result<AsyncFd<Self>> {
        AsyncFd::new(self)
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AcceptLoop {
    /// Returns the work that starts this loop on a worker.
    pub(crate) fn start(self) -> Work {
        Work::Start(Box::new(|context| drop(tokio::spawn(self.run(Arc::clone(context))))))
    }

    /// Runs until `stop`. Connections that the kernel had completed by then are still served.
    async fn run(self, context: Arc<WorkerContext>) {
        let socket = match Descriptor(Arc::clone(&self.listening)).watched() {
            Ok(socket) => socket,
            Err(error) => {
                warn!(%error, address = %self.serving.load().socket.address, "cannot wait for connections");
                return;
            }
        };
        let mut last_warning = None;
        loop {
            let ready = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                ready = socket.readable() => ready,
            };
            let Ok(mut ready) = ready else { break };
            match self.accept_all(&context).await {
                Ok(()) => ready.clear_ready(),
                Err(error) => {
                    self.pauses.inc();
                    if has_no_descriptor(&error) {
                        context.auth.close_kept();
                    }
                    self.warn_of_pause(&error, &mut last_warning);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // Closing the socket resets connections that are not accepted here.
        let _ = self.accept_all(&context).await;
        // After the token is dropped, the supervisor may bind the address again or report that it is closed.
        drop(socket);
        drop(self.listening);
        drop(self.running);
    }

    /// Logs at most one warning every [`WARNING_INTERVAL`], because one pause follows another while the cause lasts.
    fn warn_of_pause(&self, error: &io::Error, last_warning: &mut Option<Instant>) {
        if last_warning.is_none_or(|last_warning| last_warning.elapsed() >= WARNING_INTERVAL) {
            *last_warning = Some(Instant::now());
            warn!(
                %error, address = %self.serving.load().socket.address,
                "paused accepting connections until sessions end; raise the limit of open files (ulimit -n) or set \
                 limits.maxConnections"
            );
        }
    }

    /// Accepts until no connection is pending. An error means that accepting must pause.
    async fn accept_all(&self, context: &Arc<WorkerContext>) -> io::Result<()> {
        let mut accepted = 0_usize;
        loop {
            accepted = accepted.wrapping_add(1);
            if accepted.is_multiple_of(BATCH) {
                // During a flood of connections, let this worker's sessions run too.
                tokio::task::yield_now().await;
            }
            if self.dispatcher.is_full() {
                return Err(io::Error::other(
                    "the file descriptors are needed by the sessions that are open",
                ));
            }
            match acceptfrom_with(self.listening.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((connection, peer)) => self.hand_over(connection, peer, context).await,
                Err(error) => match io::Error::from(error) {
                    error if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    error if is_peers(&error) => {}
                    error => return Err(error),
                },
            }
        }
    }

    async fn hand_over(
        &self,
        connection: OwnedFd,
        peer: Option<SocketAddrAny>,
        context: &Arc<WorkerContext>,
    ) {
        let client = match peer.map(std::net::SocketAddr::try_from) {
            Some(Ok(address)) => ClientAddress::new(address),
            _ => ClientAddress::Unix,
        };
        let (worker, seat) =
            if self.keeps { (self.home, self.dispatcher.seat_at(self.home)) } else { self.dispatcher.seat() };
        let incoming = Incoming {
            connection,
            is_unix: matches!(*self.listening, Listening::Unix(_)),
            client,
            accepted: Instant::now(),
            id: self.dispatcher.next_id(),
            serving: self.serving.load_full(),
            seat,
        };
        if worker == self.home {
            drop(tokio::spawn(session::run(incoming, Arc::clone(context))));
        } else {
            self.dispatcher.give(worker, Work::Session(incoming)).await;
        }
    }
}

/// Errors of a single connection (accept(2)); the next accept may succeed.
fn is_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

/// Minimum interval between two warnings about pauses.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Connections accepted before the loop yields.
const BATCH: usize = 64;

/// Length of a pause after descriptors ran out; sessions that end meanwhile free some.
const PAUSE: Duration = Duration::from_millis(200);
