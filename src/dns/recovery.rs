//! Probes silent name servers, so that no session has to, and ends the silence when one answers.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::info;

use crate::model::Resolver;
use crate::net::Backoff;

use super::client::Client;
use super::silence::{Silences, Silent, name};

/// Probes the name servers of a silent resolver until one answers or the resolver is no longer used.
pub(super) async fn watch_over(client: Weak<Client>, began_at: u64, block: Resolver, among: Arc<Silences>) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut was_told = false;
    loop {
        let Some(asked) = client.upgrade() else { return };
        asked.probe(PROBE_LIMIT.min(block.timeout)).await;
        // Report the silence only after the first probe, because a lookup may also fail because of its question.
        let tell = || {
            was_told = true;
            Silent::new(&among, &block)
        };
        if !asked.failures().stay_silent(began_at, asked.answers(), Instant::now(), tell) {
            if was_told {
                info!(servers = %name(&block), "name servers answer again or are no longer used");
            }
            return;
        }
        drop(asked);
        sleep(backoff.pause()).await;
    }
}

/// Time between the first two probes; it doubles after each probe.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest time between two probes.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time limit for the answer to a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
