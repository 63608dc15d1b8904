//! A cluster, looked at once: for the commands that tell and do not serve.

use std::path::Path;

use anyhow::Context;
use kube::Client;

use crate::controller::index::Key;
use crate::controller::inventory::Inventory;
use crate::controller::inventory::cluster::{self, Reached};

use super::source::{self, ObjectRef};

/// Asks the API server.
pub struct Reader {
    client: Client,
    namespace: String,
}

impl Reader {
    /// By this kubeconfig; without one, by the one that kubectl would take, or as the pod that we are in.
    ///
    /// # Errors
    /// When nothing says how the cluster is reached.
    pub async fn new(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let (client, namespace) = source::reader(kubeconfig).await?;
        Ok(Self { client, namespace })
    }

    /// The namespace that is meant where none is named.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The listeners of a class, in these namespaces or, where there are none, everywhere.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn inventory(&self, namespaces: &[String], class: &str) -> anyhow::Result<Inventory> {
        let objects = cluster::list(&self.client, namespaces).await;
        let objects = objects.context("MailServer and MailListener objects cannot be listed")?;
        Ok(cluster::entries(&objects, class))
    }

    /// A Service, as its name and namespace, and how it is reached.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn service(&self, service: &ObjectRef) -> anyhow::Result<Reached> {
        let key: Key = service.key(&self.namespace);
        cluster::service(&self.client, &key).await.context("the Service cannot be read")
    }
}

/// Whether this is a pod: Kubernetes says to its pods how to reach it.
#[must_use]
pub fn in_a_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}
