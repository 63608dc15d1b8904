//! The watches themselves: one task each, which reads what the API server says and never gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use kube::Client;
use kube::api::{DynamicObject, ObjectMeta};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, watcher};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::super::index::{Key, SERVICE_NAME};
use super::super::manifest::{self, Content};
use super::super::metrics::Metrics;
use super::super::validate::Validator;
use super::super::violation::one_line;
use super::pause::Pause;
use super::resources::{Watched, WatchedKind};

/// All watches that run.
pub(super) struct Watches {
    reader: Reader,
    started: u64,
    running: BTreeMap<Watched, AbortOnDropHandle<()>>,
}

/// What every watch needs.
#[derive(Clone)]
struct Reader {
    client: Client,
    validator: Arc<Validator>,
    events: mpsc::Sender<Event>,
    metrics: Metrics,
}

/// Something that a watch has to say.
#[derive(Debug)]
pub(super) struct Event {
    /// Which watch: one that has ended may still be heard.
    pub(super) watch: u64,
    /// What it says.
    pub(super) news: News,
}

/// What a watch says.
#[derive(Debug)]
pub(super) enum News {
    /// These are all.
    All(BTreeMap<Key, Result<Seen, String>>),
    /// This one is new, or has changed.
    Is(Key, Result<Seen, String>),
    /// This one is gone.
    Gone(Key),
    /// It failed, and will be tried again.
    Failed(Failure),
}

/// An object as the API server has it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// What it holds.
    pub(super) content: Content,
    /// Tells it from another one with its name.
    pub(super) uid: String,
    /// Counts the changes of the spec.
    pub(super) generation: i64,
    /// What was said of it, for our own kinds.
    pub(super) status: Value,
}

/// Why a watch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The API server says that we may not.
    Forbidden(String),
    /// The API server says something else.
    Refused(String),
    /// There is no API server to be talked to.
    Unreachable(String),
}

impl Watches {
    /// None yet.
    pub(super) fn new(
        client: Client,
        validator: Arc<Validator>,
        events: mpsc::Sender<Event>,
        metrics: Metrics,
    ) -> Self {
        let reader = Reader { client, validator, events, metrics };
        Self { reader, started: 0, running: BTreeMap::new() }
    }

    /// Whether it runs.
    pub(super) fn has(&self, watched: &Watched) -> bool {
        self.running.contains_key(watched)
    }

    /// Starts one; its number is in all its events.
    pub(super) fn start(&mut self, watched: &Watched) -> u64 {
        self.started = self.started.saturating_add(1);
        let task = self.reader.clone().run(watched.clone(), self.started);
        self.running.insert(watched.clone(), AbortOnDropHandle::new(tokio::spawn(task)));
        self.started
    }

    /// Ends all others.
    pub(super) fn retain(&mut self, wanted: &BTreeSet<Watched>) {
        self.running.retain(|watched, _| wanted.contains(watched));
    }
}

/// Without the client, which has nothing to show.
impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("running", &self.running.keys()).finish_non_exhaustive()
    }
}

impl Reader {
    async fn run(self, watched: Watched, watch: u64) {
        let (_, kind) = watched.kind.names();
        let _running = self.metrics.watch(kind);
        let stream = watcher(watched.api(self.client.clone()), watched.config());
        let mut stream = pin!(StreamBackoff::new(stream, Pause::default()));
        let mut listed = BTreeMap::new();
        while let Some(event) = stream.next().await {
            let Some(news) = self.news(&watched, event, &mut listed) else { continue };
            if let News::Failed(failure) = &news {
                self.metrics.watch_failed(kind, failure.reason());
            }
            if self.events.send(Event { watch, news }).await.is_err() {
                return;
            }
        }
    }

    /// What an event says; `None` while a list is not complete.
    fn news(
        &self,
        watched: &Watched,
        event: watcher::Result<watcher::Event<DynamicObject>>,
        listed: &mut BTreeMap<Key, Result<Seen, String>>,
    ) -> Option<News> {
        let read = |object: DynamicObject| {
            let key = key(&object);
            let seen = seen(watched.kind, &key, object, &self.validator);
            (key, seen)
        };
        match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                let (key, seen) = read(object);
                listed.insert(key, seen);
                None
            }
            Ok(watcher::Event::InitDone) => Some(News::All(std::mem::take(listed))),
            Ok(watcher::Event::Apply(object)) => {
                let (key, seen) = read(object);
                Some(News::Is(key, seen))
            }
            Ok(watcher::Event::Delete(object)) => Some(News::Gone(key(&object))),
            // It has been away for longer than the API server remembers, and lists again by itself.
            Err(watcher::Error::WatchError(status)) if status.code == EXPIRED => {
                let (_, kind) = watched.kind.names();
                self.metrics.watch_failed(kind, "expired");
                None
            }
            Err(error) => Some(News::Failed(Failure::of_watch(error))),
        }
    }
}

fn key(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    Key::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn seen(
    kind: WatchedKind,
    key: &Key,
    mut object: DynamicObject,
    validator: &Validator,
) -> Result<Seen, String> {
    strip(kind, &mut object);
    let uid = object.metadata.uid.clone().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or_default();
    let status = match kind {
        WatchedKind::Server | WatchedKind::Listener => object.data["status"].take(),
        _ => Value::Null,
    };
    let (api, name) = kind.names();
    let value = serde_json::to_value(object).map_err(|error| one_line(&error.to_string()))?;
    let content = manifest::content(api, name, key, value, validator).map_err(|error| error.to_string())?;
    Ok(Seen { content, uid, generation, status })
}

/// Leaves out what is much and of no use here: who wrote which field, and what of Services and their endpoints nothing
/// looks at, since those of a whole namespace are held.
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
        fields.retain(|field, _| !["targetRef", "hostname", "deprecatedTopology"].contains(&field.as_str()));
    }
}

impl Failure {
    fn of_watch(error: watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of(&error),
            watcher::Error::WatchError(status) => Self::said(status.code, &status.message),
            watcher::Error::NoResourceVersion => Self::Refused(error.to_string()),
        }
    }

    /// Whose fault a request's error is.
    pub(super) fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::said(status.code, &status.message),
            other => Self::Unreachable(one_line(&root(other).to_string())),
        }
    }

    /// For a metric.
    fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "forbidden",
            Self::Refused(_) => "refused",
            Self::Unreachable(_) => "unreachable",
        }
    }

    fn said(code: u16, message: &str) -> Self {
        match code {
            401 | 403 => Self::Forbidden(one_line(message)),
            404 => Self::Refused(format!("{}; `mailgress crds` prints the CRDs", one_line(message))),
            _ => Self::Refused(one_line(message)),
        }
    }
}

/// What it all began with: the outer errors say no more than that something failed.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root
}

/// HTTP's Gone.
const EXPIRED: u16 = 410;
