//! Writes the status of objects with server-side apply, if it has changed.
//!
//! The writer is a task of its own, so that a slow API server does not block anything else. Every write names the
//! version of the object for which the status was computed. If another program has written in between (for example a
//! newer leader), the API server refuses the write. It is repeated only if the status still applies to the object.
//! Mailgress's own writes create new versions as well: a status that was computed before the watch reported such a
//! version is written for that version.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::{API_VERSION, DEFAULT_CLASS};
use crate::controller::index::ObjectId;

use super::backoff::{LAST, backoff};
use super::failure::{Failure, NO_ANSWER, REQUEST_TIMEOUT};
use super::lease::Lease;
use super::resources::resource;

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StatusUpdate {
    /// Distinguishes the object from another one with the same name.
    pub(super) uid: String,
    /// The version of the object for which the status was computed.
    pub(super) resource_version: String,
    /// The status; null removes our status.
    pub(super) status: Value,
}

/// The newest status of each object that is not written yet. Clones share the same state.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<(Mutex<Waiting>, Notify)>);

#[derive(Debug, Default)]
struct Waiting {
    ready: BTreeMap<ObjectId, StatusUpdate>,
    /// Statuses that the API server refused. They do not block other objects.
    refused: BTreeMap<ObjectId, StatusUpdate>,
    /// Objects whose status is being written. A newer status of such an object waits.
    in_progress: BTreeSet<ObjectId>,
    /// The versions that our own writes created.
    versions: BTreeMap<ObjectId, Versions>,
    /// This replica no longer leads, so failed writes are not repeated.
    is_stopped: bool,
    /// Why a status is not written yet.
    failure: Option<String>,
}

impl Outbox {
    /// Adds statuses, and replaces waiting ones of the same objects.
    pub(super) fn put(&self, updates: impl IntoIterator<Item = (ObjectId, StatusUpdate)>) {
        let mut waiting = self.lock();
        waiting.is_stopped = false;
        for (id, update) in updates {
            waiting.refused.remove(&id);
            waiting.ready.insert(id, update);
        }
        drop(waiting);
        self.0.1.notify_one();
    }

    /// Removes the waiting status of an object. Returns whether another one is being written now.
    pub(super) fn forget(&self, id: &ObjectId) -> bool {
        let mut waiting = self.lock();
        waiting.ready.remove(id);
        waiting.refused.remove(id);
        waiting.in_progress.contains(id)
    }

    /// Removes all waiting statuses. Writes in progress are not repeated if they fail.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        waiting.is_stopped = true;
        waiting.failure = None;
        waiting.ready.clear();
        waiting.refused.clear();
        waiting.versions.clear();
    }

    /// Removes the versions of an object that no longer exists.
    pub(super) fn remove(&self, id: &ObjectId) {
        self.lock().versions.remove(id);
    }

    /// Returns why a status is not written yet.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    fn take(&self) -> Option<(ObjectId, StatusUpdate)> {
        let mut waiting = self.lock();
        let Waiting { ready, in_progress, versions, .. } = &mut *waiting;
        let id = ready.keys().find(|id| !in_progress.contains(id))?.clone();
        in_progress.insert(id.clone());
        let (id, mut update) = ready.remove_entry(&id)?;
        if let Some(now) = versions.get_mut(&id).and_then(|versions| versions.now(&update.resource_version)) {
            update.resource_version = now;
        }
        Some((id, update))
    }

    /// Stores that a write has created version `to` from version `from`. The watch has not reported it yet.
    fn wrote(&self, id: &ObjectId, from: String, to: String) {
        let mut waiting = self.lock();
        if !waiting.is_stopped && from != to {
            waiting.versions.entry(id.clone()).or_default().add(from, to);
        }
    }

    /// Ends a write. A failed one is repeated later, unless a newer status is waiting.
    fn end(&self, id: ObjectId, left: Option<NotWritten>) {
        let mut waiting = self.lock();
        waiting.in_progress.remove(&id);
        if waiting.is_stopped || waiting.ready.contains_key(&id) {
            return;
        }
        match left {
            None => {}
            Some(NotWritten { update, is_refused: true, .. }) => drop(waiting.refused.insert(id, update)),
            Some(NotWritten { update, .. }) => drop(waiting.ready.insert(id, update)),
        }
    }

    /// Stores the failure of the last writes. Without a new failure, the old one stays as long as a status is refused.
    fn fail(&self, why: Option<String>) {
        let mut waiting = self.lock();
        let has_ended = why.is_none() && waiting.refused.is_empty();
        if why.is_some() || has_ended {
            waiting.failure = why.map(|why| format!("status cannot be written, and is tried again: {why}"));
        }
    }

    fn has_newer(&self, id: &ObjectId) -> bool {
        self.lock().ready.contains_key(id)
    }

    fn has_refused(&self) -> bool {
        !self.lock().refused.is_empty()
    }

    /// Tries refused statuses again.
    fn retry(&self) {
        let mut waiting = self.lock();
        let refused = std::mem::take(&mut waiting.refused);
        waiting.ready.extend(refused);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock()
    }
}

/// Versions of an object that differ only in the status that we wrote. A status computed for an earlier version also
/// applies to the last one.
#[derive(Debug, Default)]
struct Versions {
    /// Oldest first, at most [`MAX_VERSIONS`].
    earlier: VecDeque<String>,
    last: String,
}

impl Versions {
    fn add(&mut self, from: String, to: String) {
        if self.last != from {
            self.earlier.clear();
        }
        self.earlier.push_back(from);
        if self.earlier.len() > MAX_VERSIONS {
            self.earlier.pop_front();
        }
        self.last = to;
    }

    /// Returns the last version if `known` is an earlier one. Versions before `known` are removed, because the watch
    /// that reported it never goes back.
    fn now(&mut self, known: &str) -> Option<String> {
        let position = self.earlier.iter().position(|earlier| earlier == known)?;
        self.earlier.drain(..position);
        Some(self.last.clone())
    }
}

/// A failed write.
#[derive(Debug)]
struct NotWritten {
    update: StatusUpdate,
    /// Whether the API server refused this object, not every write.
    is_refused: bool,
    why: String,
}

/// The failures of one round of writes.
#[derive(Debug, Default)]
struct Failures {
    /// A failure that stopped the round.
    failed: Option<String>,
    /// A refusal of a single object.
    refused: Option<String>,
}

/// The task that writes statuses.
pub(super) struct Writer {
    client: Client,
    field_manager: String,
    outbox: Outbox,
    lease: Lease,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("field_manager", &self.field_manager).finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates the writer for the objects of `class`.
    pub(super) fn new(client: Client, class: &str, outbox: Outbox, lease: Lease) -> Self {
        Self { client, field_manager: field_manager(class), outbox, lease }
    }

    /// Writes until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut backoff = backoff();
        let mut again = None;
        loop {
            let Failures { failed, refused } = tokio::select! {
                () = shutdown.cancelled() => return,
                failures = self.write_all() => failures,
            };
            let has_failed = failed.is_some();
            self.outbox.fail(failed.or(refused));
            let wait = async {
                if has_failed {
                    return sleep(backoff.pause()).await;
                }
                backoff.reset();
                self.wait_for_work(&mut again).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// Waits for a new status, or until refused statuses must be tried again.
    async fn wait_for_work(&self, again: &mut Option<Instant>) {
        if !self.outbox.has_refused() {
            *again = None;
            return self.outbox.0.1.notified().await;
        }
        let at = *again.get_or_insert_with(|| Instant::now() + REFUSED_AGAIN);
        if timeout_at(at, self.outbox.0.1.notified()).await.is_err() {
            *again = None;
            self.outbox.retry();
        }
    }

    /// Writes all waiting statuses. A failed one waits again. A refused one does not stop the others.
    async fn write_all(&self) -> Failures {
        let mut in_progress = FuturesUnordered::new();
        let mut failures = Failures::default();
        loop {
            while failures.failed.is_none()
                && in_progress.len() < AT_ONCE
                && let Some((id, update)) = self.outbox.take()
            {
                in_progress.push(async move {
                    let written = self.write(&id, update).await;
                    (id, written)
                });
            }
            let Some((id, written)) = in_progress.next().await else { return failures };
            let left = written.err();
            if let Some(NotWritten { is_refused, why, .. }) = &left {
                let first = if *is_refused { &mut failures.refused } else { &mut failures.failed };
                first.get_or_insert_with(|| format!("{id}: {why}"));
            }
            self.outbox.end(id, left);
        }
    }

    async fn write(&self, id: &ObjectId, mut update: StatusUpdate) -> Result<(), NotWritten> {
        for _ in 0..ATTEMPTS {
            let outcome = match timeout(REQUEST_TIMEOUT, self.apply(id, &update)).await {
                Ok(outcome) => outcome,
                Err(_) => Err((false, NO_ANSWER.to_owned())),
            };
            match outcome {
                Ok(Some(newer)) if !self.outbox.has_newer(id) => update.resource_version = newer,
                Ok(_) => return Ok(()),
                Err((is_refused, why)) => return Err(NotWritten { update, is_refused, why }),
            }
        }
        // Another program writes continuously. The next event of the object causes a new attempt.
        Ok(())
    }

    /// Applies a status. Returns `None` if it is written or no longer needed, otherwise the version for another
    /// attempt. The boolean of an error tells whether only this object is refused.
    async fn apply(&self, id: &ObjectId, update: &StatusUpdate) -> Result<Option<String>, (bool, String)> {
        self.lease.check().await.map_err(|failure| (false, failure.to_string()))?;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &id.key.namespace, &resource(id.kind));
        let mut patch = json!({
            "apiVersion": API_VERSION,
            "kind": id.kind.name(),
            "metadata": {
                "name": id.key.name,
                "namespace": id.key.namespace,
                "uid": update.uid,
                "resourceVersion": update.resource_version,
            },
        });
        if !update.status.is_null() {
            patch["status"] = update.status.clone();
        }
        let params = PatchParams::apply(&self.field_manager).force();
        match api.patch_status(&id.key.name, &params, &Patch::Apply(&patch)).await {
            Ok(written) => {
                if let Some(to) = written.metadata.resource_version {
                    self.outbox.wrote(id, update.resource_version.clone(), to);
                }
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {
                self.newer(&api, id, update).await.map_err(|why| (false, why))
            }
            Err(error) => {
                let is_refused =
                    matches!(&error, kube::Error::Api(status) if REFUSALS.contains(&status.code));
                Err((is_refused, Failure::of(&error).to_string()))
            }
        }
    }

    /// Returns the current version of the object if the status still applies: the object and the generation are the
    /// same, and this replica still holds the Lease.
    async fn newer(
        &self,
        api: &Api<DynamicObject>,
        id: &ObjectId,
        update: &StatusUpdate,
    ) -> Result<Option<String>, String> {
        let found = api.get_metadata_opt(&id.key.name).await;
        let found = found.map_err(|error| Failure::of(&error).to_string())?;
        let Some(metadata) = found.map(|found| found.metadata) else { return Ok(None) };
        let is_same = metadata.uid.as_deref() == Some(update.uid.as_str());
        let generation = update.status["observedGeneration"].as_i64();
        let still_applies = is_same && (update.status.is_null() || metadata.generation == generation);
        let is_ours = still_applies && self.lease.is_ours().await.map_err(|failure| failure.to_string())?;
        Ok(metadata.resource_version.filter(|_| is_ours))
    }
}

/// Returns the owner of the status fields. Each class has its own.
pub(super) fn field_manager(class: &str) -> String {
    if class == DEFAULT_CLASS {
        return FIELD_MANAGER.to_owned();
    }
    format!("{FIELD_MANAGER}/{class}").chars().take(LONGEST_MANAGER).collect()
}

const FIELD_MANAGER: &str = "mailgress";
/// The API server's limit for the name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;
/// The maximum number of concurrent writes.
const AT_ONCE: usize = 8;
/// The maximum number of attempts for newer versions of an object.
const ATTEMPTS: usize = 4;
/// The maximum number of our own versions of one object that the watch has not reported yet.
const MAX_VERSIONS: usize = 16;
/// A refused status is tried again after this time, because permissions may have changed.
const REFUSED_AGAIN: Duration = LAST;
/// The status codes of refusals that may affect only one object: permissions, quotas, admission, and the schema.
const REFUSALS: [u16; 4] = [400, 403, 413, 422];
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::index::{Key, Kind};

    fn object(name: &str) -> ObjectId {
        ObjectId::new(Kind::Server, &Key::new("mail", name))
    }

    fn update(version: &str) -> StatusUpdate {
        StatusUpdate { uid: "u".into(), resource_version: version.into(), status: Value::Null }
    }

    fn not_written(version: &str, is_refused: bool) -> Option<NotWritten> {
        Some(NotWritten { update: update(version), is_refused, why: "why".into() })
    }

    #[test]
    fn a_refused_status_does_not_block_other_objects() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), update("1")), (object("b"), update("1"))]);
        assert_eq!(outbox.take(), Some((object("a"), update("1"))));
        outbox.end(object("a"), not_written("1", true));
        assert_eq!(outbox.take(), Some((object("b"), update("1"))));
        outbox.end(object("b"), not_written("1", false));
        assert_eq!(outbox.take(), Some((object("b"), update("1"))));
        outbox.end(object("b"), None);
        assert_eq!(outbox.take(), None);
        assert!(outbox.has_refused());
        outbox.retry();
        assert_eq!(outbox.take(), Some((object("a"), update("1"))));
    }

    #[test]
    fn a_newer_status_waits_for_the_current_write() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), update("1"))]);
        outbox.take();
        assert!(!outbox.has_newer(&object("a")));
        outbox.put([(object("a"), update("2"))]);
        assert_eq!(outbox.take(), None);
        assert!(outbox.has_newer(&object("a")));
        outbox.end(object("a"), not_written("1", false));
        assert_eq!(outbox.take(), Some((object("a"), update("2"))));
        outbox.clear();
        outbox.end(object("a"), not_written("2", false));
        assert_eq!(outbox.take(), None, "somebody else leads");
    }

    #[test]
    fn an_outdated_status_is_not_written() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), update("1"))]);
        assert!(!outbox.forget(&object("a")));
        assert_eq!(outbox.take(), None);
        outbox.put([(object("a"), update("1"))]);
        outbox.take();
        assert!(outbox.forget(&object("a")), "it is under way, and to be corrected");
    }

    #[test]
    fn a_status_older_than_our_last_write_is_written_for_the_version_of_that_write() {
        let outbox = Outbox::default();
        let taken = |version: &str| {
            outbox.put([(object("a"), update(version))]);
            let (id, taken) = outbox.take().unwrap();
            outbox.end(id, None);
            taken.resource_version
        };
        outbox.wrote(&object("a"), "1".into(), "2".into());
        assert_eq!(taken("1"), "2");
        outbox.wrote(&object("a"), "2".into(), "3".into());
        assert_eq!(taken("1"), "3");
        assert_eq!(taken("2"), "3", "the watch is one write behind");
        assert_eq!(taken("3"), "3");
        assert_eq!(taken("9"), "9", "somebody else has written");
        outbox.wrote(&object("a"), "9".into(), "10".into());
        assert_eq!(
            (taken("2"), taken("9")),
            ("2".into(), "10".into()),
            "the writes before that do not count any more"
        );
        outbox.clear();
        assert_eq!(taken("9"), "9", "somebody else has led meanwhile");
    }
}
