//! The Secret with the keys of session tickets: every replica watches it, and the leader writes it.
//!
//! Without the Secret, or without permission for it, each replica encrypts tickets with keys of its own.

use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, Config, Event, watcher};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::controller::index::Key;
use crate::controller::tickets::{Content, KeyRing, Unusable};
use crate::model::SharedTicketKeys;
use crate::model::view::Role;

use super::backoff::{REPORTED_FOR, backoff};
use super::failure::{Failure, answered};
use super::lease::{Leadership, Lease};
use super::send_if_other;

/// Watches the Secret, and writes it while this replica leads.
pub(super) struct TicketKeeper {
    client: Client,
    key: Key,
    field_manager: String,
    lease: Lease,
    leadership: watch::Receiver<Leadership>,
    shared: SharedTicketKeys,
    problem: watch::Sender<Option<String>>,
}

/// The last answer of the watch.
enum Seen {
    /// It has not answered.
    Unknown,
    Absent,
    Found {
        content: Result<Content, Unusable>,
        version: String,
    },
}

impl TicketKeeper {
    /// Creates the task for the Secret `key`. It keeps `shared` current, and sends what a person must change.
    pub(super) fn new(
        client: Client,
        key: Key,
        class: &str,
        lease: Lease,
        leadership: watch::Receiver<Leadership>,
        shared: SharedTicketKeys,
        problem: watch::Sender<Option<String>>,
    ) -> Self {
        let field_manager = format!("mailgress-tickets/{class}").chars().take(LONGEST_MANAGER).collect();
        Self { client, key, field_manager, lease, leadership, shared, problem }
    }

    /// Watches and writes until the other end of a channel is closed.
    pub(super) async fn run(mut self) {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.key.namespace);
        let mut secrets = pin!(found(api.clone(), &self.key));
        let mut seen = Seen::Unknown;
        let mut unread: Option<(Failure, Instant)> = None;
        let mut log = Log::default();
        let mut checks = interval(CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = backoff();
        let mut retry_in: Option<Duration> = None;
        loop {
            let expires = unread.as_ref().map(|(_, at)| *at + REPORTED_FOR);
            tokio::select! {
                found = secrets.next() => match found {
                    None => return,
                    Some(Ok(found)) => (seen, unread) = (found, None),
                    Some(Err(failure)) => unread = Some((failure, Instant::now())),
                },
                // A watch that continues successfully sends no event.
                () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => unread = None,
                changed = self.leadership.changed() => if changed.is_err() { return },
                _ = checks.tick() => {}
                () = sleep(retry_in.unwrap_or_default()), if retry_in.is_some() => {}
            }
            self.use_keys(&seen);
            let written = self.write(&api, &seen).await;
            retry_in = match &written {
                Ok(()) => {
                    backoff.reset();
                    None
                }
                Err(_) => Some(backoff.pause()),
            };
            let unread = unread.as_ref().map(|(failure, _)| failure);
            log.state(&self.key, unread.or(written.as_ref().err()), self.shared.load().is_some());
            send_if_other(&self.problem, self.problem(&seen, unread, written.err().as_ref()));
        }
    }

    /// Gives the keys to the handshakes. Keys that were read stay while the API server does not answer.
    fn use_keys(&self, seen: &Seen) {
        let keys = match seen {
            Seen::Found { content: Ok(Content::Keys(ring)), .. } => {
                (!ring.is_stale(Timestamp::now())).then(|| ring.keys())
            }
            Seen::Unknown | Seen::Absent | Seen::Found { .. } => None,
        };
        if self.shared.load().as_deref() != keys.as_ref() {
            self.shared.store(keys);
        }
    }

    /// Writes the first keys, or rotates them, if this replica leads and it is time.
    async fn write(&mut self, api: &Api<Secret>, seen: &Seen) -> Result<(), Failure> {
        if self.leadership.borrow_and_update().role != Role::Leader {
            return Ok(());
        }
        let Some((ring, version)) = due(seen) else { return Ok(()) };
        self.lease.check().await?;
        let patch = Patch::Apply(ring.applied(&self.key, version));
        // Nobody else writes a Secret of this type, so there is no conflict to respect.
        let params = PatchParams::apply(&self.field_manager).force();
        let applied = answered(async {
            match api.patch(&self.key.name, &params, &patch).await {
                // Another replica was faster, or the Secret was deleted. The watch reports it.
                Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(false),
                other => other.map(|_| true),
            }
        });
        if applied.await? {
            tracing::info!("wrote new keys of session tickets to Secret {}", self.key);
        }
        Ok(())
    }

    /// Returns what a person must change. A missing permission is not a problem: sharing keys is optional. An API
    /// server that cannot be reached is reported by the other watches.
    fn problem(&self, seen: &Seen, unread: Option<&Failure>, unwritten: Option<&Failure>) -> Option<String> {
        let what = match (unread, unwritten, seen) {
            (Some(Failure::Refused(why)), ..) => format!("cannot be read: {why}"),
            (_, Some(Failure::Refused(why)), _) => format!("cannot be written: {why}"),
            (.., Seen::Found { content: Err(problem), .. }) => problem.to_string(),
            (.., Seen::Found { content: Ok(Content::Keys(ring)), .. }) if ring.is_stale(Timestamp::now()) => {
                "has keys that were not rotated for five days; allow the leader to patch it".to_owned()
            }
            _ => return None,
        };
        Some(format!("Secret {} for the keys of session tickets {what}; {CONSEQUENCE}", self.key))
    }
}

/// Returns the keys that must be written now, and the version of the Secret that they replace.
fn due(seen: &Seen) -> Option<(KeyRing, Option<&str>)> {
    let (mut random, now) = (rand::rng(), Timestamp::now());
    match seen {
        Seen::Absent => Some((KeyRing::new(&mut random, now), None)),
        Seen::Found { content: Ok(Content::Empty), version } => {
            Some((KeyRing::new(&mut random, now), Some(version)))
        }
        Seen::Found { content: Ok(Content::Keys(ring)), version } => {
            Some((ring.rotated(&mut random, now)?, Some(version)))
        }
        Seen::Unknown | Seen::Found { content: Err(_), .. } => None,
    }
}

/// Logs each change of the state once.
#[derive(Default)]
struct Log {
    is_shared: bool,
    is_forbidden: bool,
}

impl Log {
    fn state(&mut self, key: &Key, failure: Option<&Failure>, is_shared: bool) {
        let forbidden = match failure {
            Some(Failure::Forbidden(why)) => Some(why),
            Some(Failure::Refused(_) | Failure::Unreachable(_)) | None => None,
        };
        if let Some(why) = forbidden.filter(|_| !self.is_forbidden) {
            tracing::warn!(
                "no permission for Secret {key} with the keys of session tickets: {why}; without shared keys, clients \
                 resume TLS sessions only at the process that began them; allow get, list, watch, create and patch of \
                 this Secret"
            );
        }
        if is_shared && !self.is_shared {
            tracing::info!("sharing the keys of session tickets with other replicas (Secret {key})");
        }
        // A failed watch is tried again, so it fails again while the permission is missing.
        self.is_forbidden = forbidden.is_some() || (self.is_forbidden && !is_shared);
        self.is_shared = is_shared;
    }
}

/// Watches the Secret. Its keys are wiped when they are replaced: kube's own store would keep them in plain memory.
fn found(api: Api<Secret>, key: &Key) -> impl Stream<Item = Result<Seen, Failure>> + use<> {
    let config = Config::default().fields(&format!("metadata.name={}", key.name));
    let mut listed = None;
    StreamBackoff::new(watcher(api, config), backoff()).filter_map(move |event: watcher::Result<_>| {
        std::future::ready(match event {
            Ok(Event::Init) => {
                listed = None;
                None
            }
            Ok(Event::InitApply(secret)) => {
                listed = Some(read(secret));
                None
            }
            Ok(Event::InitDone) => Some(Ok(listed.take().unwrap_or(Seen::Absent))),
            Ok(Event::Apply(secret)) => Some(Ok(read(secret))),
            Ok(Event::Delete(_)) => Some(Ok(Seen::Absent)),
            Err(error) => Failure::of_watch(error).map(Err),
        })
    })
}

fn read(mut secret: Secret) -> Seen {
    let version = secret.metadata.resource_version.take().unwrap_or_default();
    Seen::Found { content: KeyRing::read(secret), version }
}

/// What the lack of shared keys means.
const CONSEQUENCE: &str = "without shared keys, clients can resume a TLS session only at the same process";
/// The interval of checks whether a rotation is due.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// HTTP status 409.
const CONFLICT: u16 = 409;
/// The API server's limit for the name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;
