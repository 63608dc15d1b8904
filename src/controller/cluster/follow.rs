//! Watches a few objects of the cluster and returns all of them after each change.

use std::future::ready;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::Resource;
use kube::api::Api;
use kube::runtime::reflector::{self, reflector};
use kube::runtime::utils::StreamBackoff;
use kube::runtime::watcher::{self, Config, Event, watcher};

use super::backoff::backoff;
use super::failure::Failure;

/// Returns all objects after each change, and each failure. A failed watch is tried again.
pub(super) fn follow<T>(api: Api<T>, config: Config) -> impl Stream<Item = Result<Vec<Arc<T>>, Failure>>
where
    T: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let (objects, writer) = reflector::store();
    let events = StreamBackoff::new(reflector(writer, watcher(api, config)), backoff());
    events.filter_map(move |event: watcher::Result<Event<T>>| {
        ready(match event {
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => Some(Ok(objects.state())),
            Err(error) => Failure::of_watch(error).map(Err),
        })
    })
}
