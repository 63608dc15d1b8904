//! Status back to the objects it is about: applied by the server, and only where it says anything new.
//!
//! It is a task of its own, so that a slow API server holds up nothing else. Every write names the version of the
//! object that it was made for: where somebody else has written meanwhile, a newer leader among them, the API server
//! refuses it, and it is made again only if it is still about what the object is. Our own writes make new versions, too:
//! a status that was made before the watch told of one is written for the version that it made.

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
use super::failure::{Failure, NO_ANSWER, PATIENCE};
use super::lease::Lease;
use super::resources::resource;

/// What is to be said of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    /// Tells it from another one with its name.
    pub(super) uid: String,
    /// The version of the object that it was made for.
    pub(super) resource_version: String,
    /// What is to be said; null to take back what we said.
    pub(super) status: Value,
}

/// What is still to be written, the newest of each object. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<(Mutex<Waiting>, Notify)>);

#[derive(Debug, Default)]
struct Waiting {
    ready: BTreeMap<ObjectId, Said>,
    /// What the API server has something against; it holds up nothing else.
    refused: BTreeMap<ObjectId, Said>,
    /// What is being written; what comes meanwhile of the same object waits until that is over.
    under_way: BTreeSet<ObjectId>,
    /// What our own writes made of the versions that their statuses were made for.
    versions: BTreeMap<ObjectId, Versions>,
    /// We do not lead any more: what could not be written is somebody else's affair.
    is_over: bool,
    /// Why something that is still to be written is not.
    failure: Option<String>,
}

impl Outbox {
    /// To be written, instead of what is there of the same object.
    pub(super) fn put(&self, said: impl IntoIterator<Item = (ObjectId, Said)>) {
        let mut waiting = self.lock();
        waiting.is_over = false;
        for (id, said) in said {
            waiting.refused.remove(&id);
            waiting.ready.insert(id, said);
        }
        drop(waiting);
        self.0.1.notify_one();
    }

    /// Nothing of this object is to be written any more; whether something is being written all the same.
    pub(super) fn forget(&self, id: &ObjectId) -> bool {
        let mut waiting = self.lock();
        waiting.ready.remove(id);
        waiting.refused.remove(id);
        waiting.under_way.contains(id)
    }

    /// Nothing of it is to be written any more, nor what is under way to be tried again.
    pub(super) fn clear(&self) {
        let mut waiting = self.lock();
        waiting.is_over = true;
        waiting.failure = None;
        waiting.ready.clear();
        waiting.refused.clear();
        waiting.versions.clear();
    }

    /// The object does not exist any more.
    pub(super) fn remove(&self, id: &ObjectId) {
        self.lock().versions.remove(id);
    }

    /// Why something that is still to be written is not.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    fn take(&self) -> Option<(ObjectId, Said)> {
        let mut waiting = self.lock();
        let Waiting { ready, under_way, versions, .. } = &mut *waiting;
        let id = ready.keys().find(|id| !under_way.contains(id))?.clone();
        under_way.insert(id.clone());
        let (id, mut said) = ready.remove_entry(&id)?;
        if let Some(now) = versions.get_mut(&id).and_then(|versions| versions.now(&said.resource_version)) {
            said.resource_version = now;
        }
        Some((id, said))
    }

    /// A write has made version `to` of version `from`. The watch has not told of it yet.
    fn wrote(&self, id: &ObjectId, from: String, to: String) {
        let mut waiting = self.lock();
        if !waiting.is_over && from != to {
            waiting.versions.entry(id.clone()).or_default().add(from, to);
        }
    }

    /// It is not under way any more; what could not be written is tried again, unless there is something newer by now.
    fn end(&self, id: ObjectId, left: Option<NotWritten>) {
        let mut waiting = self.lock();
        waiting.under_way.remove(&id);
        if waiting.is_over || waiting.ready.contains_key(&id) {
            return;
        }
        match left {
            None => {}
            Some(NotWritten { said, is_refused: true, .. }) => drop(waiting.refused.insert(id, said)),
            Some(NotWritten { said, .. }) => drop(waiting.ready.insert(id, said)),
        }
    }

    /// What was tried last failed for this, or did not; what is still refused is not forgotten.
    fn fail(&self, why: Option<String>) {
        let mut waiting = self.lock();
        let is_over = why.is_none() && waiting.refused.is_empty();
        if why.is_some() || is_over {
            waiting.failure = why.map(|why| format!("status cannot be written, and is tried again: {why}"));
        }
    }

    fn has_newer(&self, id: &ObjectId) -> bool {
        self.lock().ready.contains_key(id)
    }

    fn has_refused(&self) -> bool {
        !self.lock().refused.is_empty()
    }

    /// What was refused may be taken by now.
    fn retry(&self) {
        let mut waiting = self.lock();
        let refused = std::mem::take(&mut waiting.refused);
        waiting.ready.extend(refused);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock()
    }
}

/// Versions of an object that differ in nothing but the status that we wrote: what was made for an earlier one holds for
/// the last one.
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

    /// The last version, where `known` is an earlier one. The watch, where `known` is from, never goes back.
    fn now(&mut self, known: &str) -> Option<String> {
        let position = self.earlier.iter().position(|earlier| earlier == known)?;
        self.earlier.drain(..position);
        Some(self.last.clone())
    }
}

/// What could not be written, and why.
#[derive(Debug)]
struct NotWritten {
    said: Said,
    /// Whether the API server has something against this object's, and not against any.
    is_refused: bool,
    why: String,
}

/// Why something could not be written.
#[derive(Debug, Default)]
struct Failures {
    /// Of all that is left.
    failed: Option<String>,
    /// Of single objects.
    refused: Option<String>,
}

/// Writes what is in the outbox.
pub(super) struct Writer {
    client: Client,
    field_manager: String,
    outbox: Outbox,
    lease: Lease,
}

/// Without the client, which has nothing to show.
impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("field_manager", &self.field_manager).finish_non_exhaustive()
    }
}

impl Writer {
    /// For the objects of `class`.
    pub(super) fn new(client: Client, class: &str, outbox: Outbox, lease: Lease) -> Self {
        Self { client, field_manager: field_manager(class), outbox, lease }
    }

    /// Writes until it is told to end.
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
                self.news(&mut again).await;
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// Waits for something to write, or until what was refused is worth another attempt.
    async fn news(&self, again: &mut Option<Instant>) {
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

    /// What failed is in the outbox again. What is refused of one object stops no other.
    async fn write_all(&self) -> Failures {
        let mut under_way = FuturesUnordered::new();
        let mut failures = Failures::default();
        loop {
            while failures.failed.is_none()
                && under_way.len() < AT_ONCE
                && let Some((id, said)) = self.outbox.take()
            {
                under_way.push(async move {
                    let written = self.write(&id, said).await;
                    (id, written)
                });
            }
            let Some((id, written)) = under_way.next().await else { return failures };
            let left = written.err();
            if let Some(NotWritten { is_refused, why, .. }) = &left {
                let first = if *is_refused { &mut failures.refused } else { &mut failures.failed };
                first.get_or_insert_with(|| format!("{id}: {why}"));
            }
            self.outbox.end(id, left);
        }
    }

    async fn write(&self, id: &ObjectId, mut said: Said) -> Result<(), NotWritten> {
        for _ in 0..ATTEMPTS {
            let outcome = match timeout(PATIENCE, self.apply(id, &said)).await {
                Ok(outcome) => outcome,
                Err(_) => Err((false, NO_ANSWER.to_owned())),
            };
            match outcome {
                Ok(Some(newer)) if !self.outbox.has_newer(id) => said.resource_version = newer,
                Ok(_) => return Ok(()),
                Err((is_refused, why)) => return Err(NotWritten { said, is_refused, why }),
            }
        }
        // Somebody writes all the time. The next event of the object brings us here again.
        Ok(())
    }

    /// Nothing where it is written, or nothing to be written any more; otherwise the version to write it for. An error
    /// says whether it is about this object alone.
    async fn apply(&self, id: &ObjectId, said: &Said) -> Result<Option<String>, (bool, String)> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &id.key.namespace, &resource(id.kind));
        let mut patch = json!({
            "apiVersion": API_VERSION,
            "kind": id.kind.name(),
            "metadata": {
                "name": id.key.name,
                "namespace": id.key.namespace,
                "uid": said.uid,
                "resourceVersion": said.resource_version,
            },
        });
        if !said.status.is_null() {
            patch["status"] = said.status.clone();
        }
        let params = PatchParams::apply(&self.field_manager).force();
        match api.patch_status(&id.key.name, &params, &Patch::Apply(&patch)).await {
            Ok(written) => {
                if let Some(to) = written.metadata.resource_version {
                    self.outbox.wrote(id, said.resource_version.clone(), to);
                }
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => {
                self.newer(&api, id, said).await.map_err(|why| (false, why))
            }
            Err(error) => {
                let is_refused =
                    matches!(&error, kube::Error::Api(status) if REFUSALS.contains(&status.code));
                Err((is_refused, Failure::of(&error).to_string()))
            }
        }
    }

    /// The object's version, where what is to be said of it still holds: it is the same object, of the generation
    /// that the status is about, and it was not a newer leader that wrote.
    async fn newer(
        &self,
        api: &Api<DynamicObject>,
        id: &ObjectId,
        said: &Said,
    ) -> Result<Option<String>, String> {
        let found = api.get_metadata_opt(&id.key.name).await;
        let found = found.map_err(|error| Failure::of(&error).to_string())?;
        let Some(metadata) = found.map(|found| found.metadata) else { return Ok(None) };
        let is_same = metadata.uid.as_deref() == Some(said.uid.as_str());
        let generation = said.status["observedGeneration"].as_i64();
        let still_holds = is_same && (said.status.is_null() || metadata.generation == generation);
        let is_ours = still_holds && self.lease.is_ours().await.map_err(|failure| failure.to_string())?;
        Ok(metadata.resource_version.filter(|_| is_ours))
    }
}

/// Who owns the fields of status: a controller of another class is somebody else.
pub(super) fn field_manager(class: &str) -> String {
    if class == DEFAULT_CLASS {
        return FIELD_MANAGER.to_owned();
    }
    format!("{FIELD_MANAGER}/{class}").chars().take(LONGEST_MANAGER).collect()
}

const FIELD_MANAGER: &str = "mailgress";
/// Bytes of a field manager's name, as the API server bounds it.
const LONGEST_MANAGER: usize = 128;
/// Requests under way.
const AT_ONCE: usize = 8;
/// How often a write is made again for a newer version of its object.
const ATTEMPTS: usize = 4;
/// Versions of one object that the watch may be behind our own writes.
const MAX_VERSIONS: usize = 16;
/// After which time what was refused is tried again, when permissions may be another's.
const REFUSED_AGAIN: Duration = LAST;
/// Codes of what another object need not be refused for: permissions and quotas, admission, the schema.
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

    fn said(version: &str) -> Said {
        Said { uid: "u".into(), resource_version: version.into(), status: Value::Null }
    }

    fn not_written(version: &str, is_refused: bool) -> Option<NotWritten> {
        Some(NotWritten { said: said(version), is_refused, why: "why".into() })
    }

    #[test]
    fn what_is_refused_of_one_object_holds_up_no_other() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), said("1")), (object("b"), said("1"))]);
        assert_eq!(outbox.take(), Some((object("a"), said("1"))));
        outbox.end(object("a"), not_written("1", true));
        assert_eq!(outbox.take(), Some((object("b"), said("1"))));
        outbox.end(object("b"), not_written("1", false));
        assert_eq!(outbox.take(), Some((object("b"), said("1"))));
        outbox.end(object("b"), None);
        assert_eq!(outbox.take(), None);
        assert!(outbox.has_refused());
        outbox.retry();
        assert_eq!(outbox.take(), Some((object("a"), said("1"))));
    }

    #[test]
    fn what_is_newer_waits_for_what_is_under_way_and_then_replaces_it() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), said("1"))]);
        outbox.take();
        assert!(!outbox.has_newer(&object("a")));
        outbox.put([(object("a"), said("2"))]);
        assert_eq!(outbox.take(), None);
        assert!(outbox.has_newer(&object("a")));
        outbox.end(object("a"), not_written("1", false));
        assert_eq!(outbox.take(), Some((object("a"), said("2"))));
        outbox.clear();
        outbox.end(object("a"), not_written("2", false));
        assert_eq!(outbox.take(), None, "somebody else leads");
    }

    #[test]
    fn what_holds_no_longer_is_not_written() {
        let outbox = Outbox::default();
        outbox.put([(object("a"), said("1"))]);
        assert!(!outbox.forget(&object("a")));
        assert_eq!(outbox.take(), None);
        outbox.put([(object("a"), said("1"))]);
        outbox.take();
        assert!(outbox.forget(&object("a")), "it is under way, and to be corrected");
    }

    #[test]
    fn a_status_made_before_the_watch_told_of_our_own_write_is_written_for_the_version_of_that_write() {
        let outbox = Outbox::default();
        let taken = |version: &str| {
            outbox.put([(object("a"), said(version))]);
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
