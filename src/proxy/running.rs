//! A bound socket with its accept loops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::model::Socket;
use crate::net::socket::{self, Listening};

use super::serving::Serving;

#[derive(Debug)]
pub(crate) struct Running {
    /// The rendered configuration that it serves.
    pub(crate) socket: Arc<Socket>,
    /// The kernel's sockets; one for each worker with `reusePort`.
    pub(crate) listening: Vec<Arc<Listening>>,
    /// The configuration for new sessions.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Stops the accept loops.
    pub(crate) stop: CancellationToken,
    /// Tracks the accept loops.
    pub(crate) accepting: TaskTracker,
}

impl Running {
    /// Returns the addresses that are bound, sorted and without duplicates.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        let mut bound: Vec<SocketAddr> =
            self.listening.iter().filter_map(|listening| listening.local_address()).collect();
        // With `reusePort`, each worker has its own socket at the same address.
        bound.sort_unstable();
        bound.dedup();
        bound
    }

    /// Tells whether Multipath TCP is configured but not supported by the kernel. UNIX sockets do not count.
    pub(crate) fn lacks_multipath(&self) -> bool {
        let plain = |l: &Arc<Listening>| l.local_address().is_some() && !l.is_multipath();
        self.socket.options.multipath && self.listening.iter().any(plain)
    }

    /// Stops the accept loops and waits until they have released the socket.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if timeout(CLOSE_WAIT, self.accepting.wait()).await.is_err() {
            let address = &self.socket.address;
            warn!("did not stop accepting connections on {address} in time; continuing");
        }
    }

    /// Applies the options that an open socket can change.
    pub(crate) fn tune(&self, socket: &Socket) {
        for listening in &self.listening {
            if let Err(error) = socket::tune(listening, &socket.options) {
                warn!(%error, "cannot change the socket options of {}", socket.address);
            }
        }
    }
}

/// Time limit for the accept loops to end; they only have to wake up.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
