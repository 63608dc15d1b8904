//! What was good: the specs that were valid, the listeners that could be rendered, the certificates that
//! were parsed. It lives as long as the process, and forgets what is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{MailListenerSpec, MailServerSpec};
use crate::model::ListenerId;

use super::super::index::{Key, Objects, Resource};
use super::tls::Certificates;
use super::{Candidate, Draft};

/// What the last render leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct LastGood {
    servers: BTreeMap<Key, Arc<MailServerSpec>>,
    listeners: BTreeMap<Key, Arc<MailListenerSpec>>,
    candidates: BTreeMap<ListenerId, Candidate>,
    pub(crate) certificates: Certificates,
}

impl LastGood {
    /// For a render of `objects`: their valid specs, and the last valid ones of those that are not.
    pub(crate) fn begin(&self, objects: &Objects) -> Self {
        Self {
            servers: usable(&objects.servers, &self.servers),
            listeners: usable(&objects.listeners, &self.listeners),
            candidates: self.candidates.clone(),
            certificates: self.certificates.still_there(objects),
        }
    }

    /// The spec to render.
    pub(crate) fn server(&self, key: &Key) -> Option<Arc<MailServerSpec>> {
        self.servers.get(key).cloned()
    }

    /// The spec to render.
    pub(crate) fn listener(&self, key: &Key) -> Option<Arc<MailListenerSpec>> {
        self.listeners.get(key).cloned()
    }

    /// The last rendering of a listener.
    pub(crate) fn candidate(&self, id: &ListenerId) -> Option<Candidate> {
        self.candidates.get(id).cloned()
    }

    /// Keeps what is good now, which includes what was good before and was used again.
    pub(crate) fn remember(&mut self, drafts: &[Draft]) {
        let good = |draft: &Draft| Some((draft.outcome.id.clone(), draft.candidate.clone()?));
        self.candidates = drafts.iter().filter_map(good).collect();
    }
}

fn usable<Spec>(
    objects: &BTreeMap<Key, Arc<Resource<Spec>>>,
    previous: &BTreeMap<Key, Arc<Spec>>,
) -> BTreeMap<Key, Arc<Spec>> {
    let spec = |key: &Key, resource: &Resource<Spec>| match &resource.spec {
        Ok(spec) => Some(Arc::clone(spec)),
        Err(_) => previous.get(key).cloned(),
    };
    objects.iter().filter_map(|(key, resource)| Some((key.clone(), spec(key, resource)?))).collect()
}
