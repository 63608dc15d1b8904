//! Observes the Ready condition of every MailServer through a watch.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher::{Config, Event, watcher};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::world::mail_servers;

/// The ready generation of each MailServer.
type Ready = BTreeMap<String, i64>;

/// A separate watch.
pub struct Seen {
    ready: watch::Receiver<Ready>,
    _task: AbortOnDropHandle<()>,
}

impl Seen {
    /// Starts the watch.
    pub fn follow(client: &Client) -> Self {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &mail_servers());
        let (sender, ready) = watch::channel(Ready::new());
        let task = tokio::spawn(async move {
            let mut events = watcher(api, Config::default()).boxed();
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(object) | Event::InitApply(object)) = event
                    && let Some(generation) = ready_generation(&object)
                {
                    let name = object.metadata.name.unwrap();
                    sender.send_modify(|ready| {
                        ready.insert(name, generation);
                    });
                }
            }
        });
        Self { ready, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits until this number of MailServers is Ready.
    pub async fn all(&self, servers: usize) -> Instant {
        self.wait(|ready| ready.len() == servers).await
    }

    /// Waits until this MailServer is Ready with this generation.
    pub async fn one(&self, name: &str, generation: i64) -> Instant {
        self.wait(|ready| ready.get(name) == Some(&generation)).await
    }

    async fn wait(&self, mut done: impl FnMut(&Ready) -> bool) -> Instant {
        let mut ready = self.ready.clone();
        let waited = timeout(PATIENCE, ready.wait_for(|ready| done(ready))).await;
        drop(waited.expect("Ready within the bound").unwrap());
        Instant::now()
    }
}

/// Returns the generation of an object whose status is Ready and current.
fn ready_generation(object: &DynamicObject) -> Option<i64> {
    let status = &object.data["status"];
    let generation = object.metadata.generation;
    let is_true =
        |condition: &&serde_json::Value| condition["type"] == "Ready" && condition["status"] == "True";
    status["conditions"].as_array()?.iter().find(is_true)?;
    generation.filter(|generation| status["observedGeneration"] == *generation)
}

/// Time limit for slow conditions.
pub const PATIENCE: Duration = Duration::from_secs(300);
