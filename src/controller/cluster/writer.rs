//! Status back to the objects it is about: applied by the server, and only where it says anything new.
//!
//! It is a task of its own, so that a slow API server holds up nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::API_VERSION;

use super::super::index::Key;
use super::super::render::Kind;
use super::pause::Pause;
use super::resources::resource;
use super::watches::Failure;

/// What is to be said of an object, and what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its namespace and name.
    pub(super) key: Key,
    /// Tells it from another one with its name.
    pub(super) uid: String,
    /// What is to be said.
    pub(super) status: Value,
    /// What the API server has.
    pub(super) observed: Value,
}

/// Writes what differs.
pub(super) struct Writer {
    client: Client,
    wanted: watch::Receiver<Arc<Vec<Said>>>,
    /// What was written last, by object: the API server's copy of it may still be on its way back.
    written: BTreeMap<(Kind, Key), (String, Value)>,
}

/// Without the client, which has nothing to show.
impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("written", &self.written.len()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Nothing has been written yet.
    pub(super) fn new(client: Client, wanted: watch::Receiver<Arc<Vec<Said>>>) -> Self {
        Self { client, wanted, written: BTreeMap::new() }
    }

    /// Writes until it is told to end.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut pauses = Pause::default();
        let mut again: Option<Duration> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.wanted.changed(), if again.is_none() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
            let failure = tokio::select! {
                () = shutdown.cancelled() => return,
                failure = self.write() => failure,
            };
            again = match failure {
                None => {
                    pauses = Pause::default();
                    None
                }
                Some(why) => {
                    if again.is_none() {
                        tracing::warn!("status cannot be written, and is tried again: {why}");
                    }
                    pauses.next()
                }
            };
        }
    }

    /// The first failure, if there is any.
    async fn write(&mut self) -> Option<String> {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        self.written
            .retain(|(kind, key), _| wanted.iter().any(|said| said.kind == *kind && said.key == *key));
        let mut failure = None;
        for said in wanted.iter() {
            let id = (said.kind, said.key.clone());
            let value = (said.uid.clone(), said.status.clone());
            let known = match self.written.get(&id) {
                Some(written) if written.0 == said.uid => written.1 == said.status,
                _ => said.observed == said.status,
            };
            if known {
                continue;
            }
            match self.apply(said).await {
                Ok(()) => drop(self.written.insert(id, value)),
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        failure
    }

    async fn apply(&self, said: &Said) -> Result<(), String> {
        let Said { kind, key, uid, status, .. } = said;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource(*kind));
        // With the uid, another object of the same name is left alone.
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": kind.name(),
            "metadata": { "name": key.name, "namespace": key.namespace, "uid": uid },
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match timeout(PATIENCE, api.patch_status(&key.name, &params, &Patch::Apply(&patch))).await {
            Err(_) => Err("the API server does not answer".to_owned()),
            Ok(Ok(_)) => Ok(()),
            // It is gone, or another one has its name by now.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(error)) => {
                let (Failure::Forbidden(why) | Failure::Refused(why) | Failure::Unreachable(why)) =
                    Failure::of(&error);
                Err(format!("{} {key}: {why}", kind.name()))
            }
        }
    }
}

/// Who owns the fields of status.
const FIELD_MANAGER: &str = "mailgress";
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);
