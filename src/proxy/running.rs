//! A socket that is bound, with its accept loops.

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

/// A socket that is bound.
#[derive(Debug)]
pub(crate) struct Running {
    /// As it was rendered.
    pub(crate) socket: Arc<Socket>,
    /// What the kernel knows of it.
    pub(crate) listening: Vec<Arc<Listening>>,
    /// What new sessions get.
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    /// Ends the accept loops.
    pub(crate) stop: CancellationToken,
    /// The accept loops.
    pub(crate) accepting: TaskTracker,
}

impl Running {
    /// The addresses that are really bound.
    pub(crate) fn bound(&self) -> Vec<SocketAddr> {
        let mut bound: Vec<SocketAddr> =
            self.listening.iter().filter_map(|listening| listening.local_address()).collect();
        // With `reusePort` every worker has a socket of its own at the same address.
        bound.sort_unstable();
        bound.dedup();
        bound
    }

    /// Whether Multipath TCP is asked for and the kernel has none; UNIX sockets never have it.
    pub(crate) fn lacks_multipath(&self) -> bool {
        let plain = |l: &Arc<Listening>| l.local_address().is_some() && !l.is_multipath();
        self.socket.options.multipath && self.listening.iter().any(plain)
    }

    /// Ends the accept loops and waits until they have let go of the socket.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        if timeout(CLOSE_WAIT, self.accepting.wait()).await.is_err() {
            warn!("{} is still accepting", self.socket.address);
        }
    }

    /// Options that a listening socket can change.
    pub(crate) fn tune(&self, socket: &Socket) {
        for listening in &self.listening {
            if let Err(error) = socket::tune(listening, &socket.options) {
                warn!(%error, "cannot change the socket options of {}", socket.address);
            }
        }
    }
}

/// For accept loops to end; they only have to wake up.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
