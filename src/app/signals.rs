//! Signals for `mailgress run`: three of them drain, SIGHUP reads files again, and the others are ignored.
//!
//! The default action of most signals would end the process with all its sessions. Every signal that is not meant to
//! end a server is caught and logged.

use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tracing::info;

/// Counts SIGTERM, SIGINT and SIGQUIT.
pub(super) struct Signals {
    received: watch::Receiver<u32>,
    waited: u32,
}

impl Signals {
    /// Catches signals from now on. SIGHUP notifies `reread`, if it is set.
    ///
    /// # Errors
    /// The operating system refuses a handler.
    pub(super) fn new(reread: Option<Arc<Notify>>) -> anyhow::Result<Self> {
        let mut terminate = catch(SignalKind::terminate(), "SIGTERM")?;
        let mut interrupt = catch(SignalKind::interrupt(), "SIGINT")?;
        let mut quit = catch(SignalKind::quit(), "SIGQUIT")?;
        // A log file has reached RLIMIT_FSIZE. The write fails, and the log counts this. A log line about it would only
        // be another such write.
        drop(catch(SignalKind::from_raw(number::XFSZ), "SIGXFSZ")?);
        let hangup = catch(SignalKind::hangup(), "SIGHUP")?;
        for (kind, name) in ignored() {
            // Valgrind keeps the last one for itself.
            if let Ok(signal) = signal(kind) {
                tokio::spawn(ignore(signal, name));
            }
        }
        tokio::spawn(hang_up(hangup, reread));
        let (sender, received) = watch::channel(0_u32);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = quit.recv() => {}
                }
                sender.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Ok(Self { received, waited: 0 })
    }

    /// Waits for one signal more than the previous calls have waited for.
    pub(super) async fn wait(&mut self) {
        self.waited = self.waited.saturating_add(1);
        let waited = self.waited;
        // The sender lives as long as the runtime.
        let _ = self.received.wait_for(|received| *received >= waited).await;
    }
}

fn catch(kind: SignalKind, name: &str) -> anyhow::Result<Signal> {
    signal(kind).with_context(|| format!("cannot catch {name}"))
}

async fn hang_up(mut hangup: Signal, reread: Option<Arc<Notify>>) {
    while hangup.recv().await.is_some() {
        match &reread {
            Some(reread) => {
                info!("SIGHUP: reading all files of the folder again");
                reread.notify_one();
            }
            None => info!("ignoring SIGHUP: changes in the cluster are applied without it"),
        }
    }
}

async fn ignore(mut signal: Signal, name: String) {
    while signal.recv().await.is_some() {
        info!("ignoring {name}: only SIGTERM, SIGINT and SIGQUIT end the process");
    }
}

/// Returns signals that end the process by default but do not report a fault of the process.
fn ignored() -> impl Iterator<Item = (SignalKind, String)> {
    let named = number::NAMED.map(|(number, name)| (SignalKind::from_raw(number), name.to_owned()));
    let real_time =
        number::REAL_TIME.map(|number| (SignalKind::from_raw(number), format!("signal {number}")));
    named.into_iter().chain(real_time)
}

/// Signal numbers of Linux on amd64 and arm64.
mod number {
    use std::ops::RangeInclusive;

    pub(super) const XFSZ: i32 = 25;
    pub(super) const NAMED: [(i32, &str); 9] = [
        (10, "SIGUSR1"),
        (12, "SIGUSR2"),
        (14, "SIGALRM"),
        (16, "SIGSTKFLT"),
        (24, "SIGXCPU"),
        (26, "SIGVTALRM"),
        (27, "SIGPROF"),
        (29, "SIGIO"),
        (30, "SIGPWR"),
    ];
    /// C libraries use the lower real-time signals for themselves (musl: 32 to 34).
    pub(super) const REAL_TIME: RangeInclusive<i32> = 35..=64;
}
