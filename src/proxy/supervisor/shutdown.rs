//! The end of the data plane: sockets are closed, and sessions end within the drain timeout.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::info;

use crate::proxy::Options;

use super::Supervisor;
use super::exclusive::follow_endpoints;

impl Supervisor {
    /// Stops listening, and returns when all sessions have ended.
    pub(super) async fn shut_down(mut self) {
        self.exclusive.drain();
        for (_, running) in std::mem::take(&mut self.running) {
            running.close().await;
        }
        info!(timeout = ?self.options.drain_timeout, "stopped listening; waiting for sessions to end");
        let Options { drain_timeout, drain_spread, .. } = self.options;
        let spread = drain_spread.min(drain_timeout);
        let ends = async {
            sleep(drain_timeout - spread).await;
            self.workers.sessions().drain(spread).await;
        };
        let endpoints = follow_endpoints(self.snapshots.clone(), &self.exclusive);
        let is_idle = tokio::select! {
            () = self.workers.idle() => true,
            () = ends => false,
            () = endpoints => false,
        };
        if !is_idle {
            // Those that are not logged in, or have logged in since.
            self.goodbye.cancel();
            // Every closing message has a time limit. This limit covers sessions that do not react.
            let _ = timeout(LAST_WAIT, self.workers.idle()).await;
        }
        info!("data plane stopped");
    }
}

/// Time limit for sessions to close after their closing message was sent.
const LAST_WAIT: Duration = Duration::from_secs(6);
