//! The watches: one task each, which reads events from the API server and tries again without limit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use kube::Client;
use kube::api::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, watcher};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::controller::index::{DRAIN, Key, SERVICE_NAME};
use crate::controller::manifest::{self, Content};
use crate::controller::metrics::Metrics;
use crate::controller::validate::Validator;
use crate::controller::violation::one_line;

use super::backoff::backoff;
use super::failure::Failure;
use super::lists::StreamingLists;
use super::resources::{Watched, WatchedKind};
use super::stored_status::StoredStatus;

/// All running watches.
pub(super) struct Watches {
    reader: Reader,
    started: u64,
    running: BTreeMap<Watched, AbortOnDropHandle<()>>,
}

/// The data that every watch needs.
#[derive(Clone)]
struct Reader {
    client: Client,
    /// Our field manager, to recognise a status that we wrote.
    field_manager: Arc<str>,
    validator: Arc<Validator>,
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    lists: Arc<StreamingLists>,
}

/// An event of a watch.
#[derive(Debug)]
pub(super) struct Event {
    /// The number of the watch: events of a watch that has ended may still arrive.
    pub(super) watch: u64,
    pub(super) update: WatchUpdate,
}

#[derive(Debug)]
pub(super) enum WatchUpdate {
    /// The complete list.
    Listed(BTreeMap<Key, Result<Seen, String>>),
    /// An object is new or has changed.
    Applied(Key, Box<Result<Seen, String>>),
    /// An object was deleted.
    Deleted(Key),
    /// The watch failed and will be tried again.
    Failed(Failure),
}

/// An object of the API server.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) content: Content,
    /// Distinguishes the object from another one with the same name.
    pub(super) uid: String,
    pub(super) generation: i64,
    pub(super) resource_version: String,
    /// The status, for our own kinds.
    pub(super) status: StoredStatus,
    /// Whether a controller of our class has written a part of the status.
    pub(super) has_our_status: bool,
}

/// Why a watch has ended.
enum Ended {
    /// Nobody reads its events any more.
    Done,
    /// The API server does not stream lists.
    Refused,
}

impl Watches {
    /// Creates an empty set.
    pub(super) fn new(
        client: Client,
        field_manager: &str,
        validator: Arc<Validator>,
        events: mpsc::Sender<Event>,
        metrics: Metrics,
    ) -> Self {
        let field_manager = Arc::from(field_manager);
        let lists = Arc::default();
        let reader = Reader { client, field_manager, validator, events, metrics, lists };
        Self { reader, started: 0, running: BTreeMap::new() }
    }

    /// Tells whether a watch runs.
    pub(super) fn has(&self, watched: &Watched) -> bool {
        self.running.contains_key(watched)
    }

    /// Starts a watch. Returns its number, which all its events have.
    pub(super) fn start(&mut self, watched: &Watched) -> u64 {
        self.started = self.started.saturating_add(1);
        let task = self.reader.clone().run(watched.clone(), self.started);
        self.running.insert(watched.clone(), AbortOnDropHandle::new(tokio::spawn(task)));
        self.started
    }

    /// Ends all watches except these.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<Watched>) {
        self.running.retain(|watched, _| wanted.contains(watched));
    }
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("running", &self.running.keys()).finish_non_exhaustive()
    }
}

impl Reader {
    async fn run(self, watched: Watched, watch: u64) {
        let (_, kind) = watched.kind.names();
        let _running = self.metrics.watch(kind);
        while let Ended::Refused = self.follow(&watched, watch).await {}
    }

    /// Forwards the events of a watch.
    async fn follow(&self, watched: &Watched, watch: u64) -> Ended {
        let config = watched.config().timeout(rand::random_range(WATCH_SECONDS));
        let config = self.lists.choose(config, &self.client).await;
        let mut stream = pin!(StreamBackoff::new(self.stream(watched, config), backoff()));
        let mut listed = BTreeMap::new();
        while let Some(event) = stream.next().await {
            if event.as_ref().is_err_and(|error| self.lists.are_refused_by(error)) {
                return Ended::Refused;
            }
            let Some(update) = self.update(watched, event, &mut listed) else { continue };
            if self.events.send(Event { watch, update }).await.is_err() {
                return Ended::Done;
            }
        }
        Ended::Done
    }

    /// Returns the events of a watch. Those of Pods have only the metadata, which is all that the API server sends.
    fn stream(
        &self,
        watched: &Watched,
        config: watcher::Config,
    ) -> BoxStream<'static, watcher::Result<watcher::Event<DynamicObject>>> {
        let client = self.client.clone();
        match watched.kind {
            WatchedKind::Pod => {
                let api = watched.api::<PartialObjectMeta<DynamicObject>>(client);
                watcher(api, config).map_ok(without_content).boxed()
            }
            _ => watcher(watched.api::<DynamicObject>(client), config).boxed(),
        }
    }

    /// Converts an event of the API; `None` while a list is not complete.
    fn update(
        &self,
        watched: &Watched,
        event: watcher::Result<watcher::Event<DynamicObject>>,
        listed: &mut BTreeMap<Key, Result<Seen, String>>,
    ) -> Option<WatchUpdate> {
        let read = |object: DynamicObject| {
            let key = key(&object);
            let seen = self.seen(watched.kind, &key, object);
            (key, seen)
        };
        // A namespace may have thousands of Pods, so only those count that are taken out of service.
        let is_unused =
            |object: &DynamicObject| watched.kind == WatchedKind::Pod && !is_leaving(&object.metadata);
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) if is_unused(&object) => None,
            Ok(watcher::Event::InitApply(object)) => {
                let (key, seen) = read(object);
                listed.insert(key, seen);
                None
            }
            Ok(watcher::Event::InitDone) => Some(WatchUpdate::Listed(std::mem::take(listed))),
            Ok(watcher::Event::Apply(object)) if is_unused(&object) => {
                Some(WatchUpdate::Deleted(key(&object)))
            }
            Ok(watcher::Event::Apply(object)) => {
                let (key, seen) = read(object);
                Some(WatchUpdate::Applied(key, Box::new(seen)))
            }
            Ok(watcher::Event::Delete(object)) => Some(WatchUpdate::Deleted(key(&object))),
            Err(error) => {
                let failure = Failure::of_watch(error);
                let reason = failure.as_ref().map_or("expired", Failure::reason);
                self.metrics.watch_failed(watched.kind.names().1, reason);
                failure.map(WatchUpdate::Failed)
            }
        }
    }
}

fn key(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    Key::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn is_leaving(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().and_then(|all| all.get(DRAIN)).is_some_and(|value| value == "true")
}

fn without_content(event: watcher::Event<PartialObjectMeta<DynamicObject>>) -> watcher::Event<DynamicObject> {
    let object = |PartialObjectMeta { types, metadata, .. }: PartialObjectMeta<DynamicObject>| {
        DynamicObject { types, metadata, data: Value::Object(Map::new()) }
    };
    match event {
        watcher::Event::Apply(pod) => watcher::Event::Apply(object(pod)),
        watcher::Event::Delete(pod) => watcher::Event::Delete(object(pod)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(pod) => watcher::Event::InitApply(object(pod)),
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

impl Reader {
    fn seen(&self, kind: WatchedKind, key: &Key, mut object: DynamicObject) -> Result<Seen, String> {
        let has_our_status = self.has_our_status(&object.metadata);
        strip(kind, &mut object);
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let resource_version = object.metadata.resource_version.clone().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        let status = match kind {
            WatchedKind::Server | WatchedKind::Listener | WatchedKind::Route => object.data["status"].take(),
            _ => Value::Null,
        };
        let (api, name) = kind.names();
        let value = serde_json::to_value(object).map_err(|error| one_line(&error.to_string()))?;
        let content = manifest::content(api, name, key, value, &self.validator);
        let content = content.map_err(|error| error.to_string())?.without_written();
        let status = StoredStatus::new(&status);
        Ok(Seen { content, uid, generation, resource_version, status, has_our_status })
    }

    fn has_our_status(&self, metadata: &ObjectMeta) -> bool {
        let mut managed = metadata.managed_fields.iter().flatten();
        managed.any(|entry| {
            entry.manager.as_deref() == Some(&*self.field_manager)
                && entry.subresource.as_deref() == Some("status")
        })
    }
}

/// How long the API server keeps a watch open before it must be requested again. The time is random, so that thousands
/// of watches that started together do not start again together.
const WATCH_SECONDS: RangeInclusive<u32> = 180..=290;

/// Removes large data that nothing uses: `managedFields`, and the unused fields of Services and EndpointSlices, because
/// those of a whole namespace are held.
fn strip(kind: WatchedKind, object: &mut DynamicObject) {
    let metadata = &mut object.metadata;
    metadata.managed_fields = None;
    if !matches!(kind, WatchedKind::Service | WatchedKind::Slice) {
        return;
    }
    let service = metadata.labels.take().and_then(|mut labels| labels.remove_entry(SERVICE_NAME));
    let own = ObjectMeta {
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        uid: metadata.uid.take(),
        labels: service.map(|label| BTreeMap::from([label])),
        ..ObjectMeta::default()
    };
    object.metadata = own;
    for endpoint in object.data["endpoints"].as_array_mut().into_iter().flatten() {
        let Some(fields) = endpoint.as_object_mut() else { continue };
        fields.retain(|field, _| !["hostname", "deprecatedTopology"].contains(&field.as_str()));
        if let Some(Value::Object(target)) = fields.get_mut("targetRef") {
            target.retain(|field, _| ["kind", "namespace", "name"].contains(&field.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_names_of_pods_are_kept_and_what_nothing_uses_is_not() {
        let target = json!({ "kind": "Pod", "namespace": "mail", "name": "dovecot-0", "uid": "1" });
        let mut slice = object(json!({
            "metadata": { "name": "x", "labels": { SERVICE_NAME: "dovecot", "other": "y" }, "managedFields": [] },
            "endpoints": [{ "addresses": ["10.0.0.1"], "hostname": "dovecot-0", "targetRef": target }],
        }));
        strip(WatchedKind::Slice, &mut slice);
        let kept = json!({ "kind": "Pod", "namespace": "mail", "name": "dovecot-0" });
        assert_eq!(slice.data["endpoints"], json!([{ "addresses": ["10.0.0.1"], "targetRef": kept }]));
        let labels = slice.metadata.labels.unwrap();
        assert_eq!((labels.len(), slice.metadata.managed_fields), (1, None));
    }

    #[test]
    fn only_the_value_true_takes_a_pod_out_of_service() {
        let of = |annotations: Value| {
            let pod = object(json!({ "metadata": { "name": "a", "annotations": annotations } }));
            is_leaving(&pod.metadata)
        };
        assert!(of(json!({ DRAIN: "true" })));
        assert!(!of(json!({ DRAIN: "false" })) && !of(json!({ "other": "true" })) && !of(Value::Null));
    }
}
