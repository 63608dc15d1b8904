//! Status back to the objects it is about: applied by the server, and only where it says anything new.
//!
//! It is a task of its own, so that a slow API server holds up nothing else. Every write names the version of the
//! object that it was made for: where somebody else has written meanwhile, a newer leader among them, the API server
//! refuses it, and it is made again only if it is still about what the object is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{API_VERSION, DEFAULT_CLASS};

use super::super::index::ObjectId;
use super::failure::Failure;
use super::lease::Lease;
use super::pause::Pause;
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
pub(super) struct Outbox(Arc<(Mutex<BTreeMap<ObjectId, Said>>, Notify)>);

impl Outbox {
    /// To be written, instead of what is there of the same object.
    pub(super) fn put(&self, said: impl IntoIterator<Item = (ObjectId, Said)>) {
        self.lock().extend(said);
        self.0.1.notify_one();
    }

    /// Nothing of it is to be written any more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn take(&self) -> Option<(ObjectId, Said)> {
        self.lock().pop_first()
    }

    /// Tried again, unless there is something newer by now.
    fn put_back(&self, id: ObjectId, said: Said) {
        self.lock().entry(id).or_insert(said);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Said>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let mut pauses = Pause::default();
        let mut failing = false;
        loop {
            let failure = tokio::select! {
                () = shutdown.cancelled() => return,
                failure = self.write_all() => failure,
            };
            let wait = async {
                match failure {
                    None => {
                        pauses = Pause::default();
                        failing = false;
                        self.outbox.0.1.notified().await;
                    }
                    Some(why) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!("status cannot be written, and is tried again: {why}");
                        }
                        sleep(pauses.next().unwrap_or(PATIENCE)).await;
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = wait => {}
            }
        }
    }

    /// The first failure, if there is any; what failed is in the outbox again.
    async fn write_all(&self) -> Option<String> {
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some((id, said)) = self.outbox.take()
            {
                under_way.push(self.write(id, said));
            }
            let written = under_way.next().await?;
            let Err((id, said, why)) = written else { continue };
            self.outbox.put_back(id, said);
            while let Some(written) = under_way.next().await {
                if let Err((id, said, _)) = written {
                    self.outbox.put_back(id, said);
                }
            }
            return Some(why);
        }
    }

    async fn write(&self, id: ObjectId, mut said: Said) -> Result<(), (ObjectId, Said, String)> {
        for _ in 0..ATTEMPTS {
            let outcome = match timeout(PATIENCE, self.apply(&id, &said)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("the API server does not answer".to_owned()),
            };
            match outcome {
                Ok(None) => return Ok(()),
                Ok(Some(newer)) => said.resource_version = newer,
                Err(why) => {
                    let why = format!("{id}: {why}");
                    return Err((id, said, why));
                }
            }
        }
        // Somebody writes all the time. The next event of the object brings us here again.
        Ok(())
    }

    /// Nothing where it is written, or nothing to be written any more; otherwise the version to write it for.
    async fn apply(&self, id: &ObjectId, said: &Said) -> Result<Option<String>, String> {
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
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(None),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => self.newer(&api, id, said).await,
            Err(error) => Err(Failure::of(&error).to_string()),
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
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
