//! Reads a cluster once, for commands that report but do not serve.

use std::path::Path;

use anyhow::Context;
use kube::Client;

use crate::controller::index::Key;
use crate::controller::inventory::Inventory;
use crate::controller::inventory::cluster::{self, Reached};

use super::source::{self, ObjectRef};

/// Sends requests to the API server.
pub struct Reader {
    client: Client,
    namespace: String,
}

impl Reader {
    /// Uses this kubeconfig. Without one, uses the same as kubectl, or the pod's service account.
    ///
    /// # Errors
    /// Nothing tells how to reach the cluster.
    pub async fn new(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let (client, namespace) = source::reader(kubeconfig).await?;
        Ok(Self { client, namespace })
    }

    /// Returns the default namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the listeners of a class in these namespaces, or in all if there are none.
    ///
    /// # Errors
    /// The API server does not answer or refuses.
    pub async fn inventory(&self, namespaces: &[String], class: &str) -> anyhow::Result<Inventory> {
        let objects = cluster::list(&self.client, namespaces).await;
        let objects = objects.context("cannot list MailServer, MailListener and MailRoute objects")?;
        Ok(cluster::entries(&objects, class))
    }

    /// Reads a Service and how it can be reached. Without a namespace, uses the default one.
    ///
    /// # Errors
    /// The API server does not answer or refuses.
    pub async fn service(&self, service: &ObjectRef) -> anyhow::Result<Reached> {
        let key: Key = service.key(&self.namespace);
        cluster::service(&self.client, &key).await.context("the Service cannot be read")
    }
}

/// Tells whether this process runs in a pod: Kubernetes sets this variable in its pods.
#[must_use]
pub fn in_a_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}
