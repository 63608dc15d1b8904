//! Creates the source of objects: a folder or a cluster. No other module creates a client of the Kubernetes API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use prometheus::Registry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::controller::index::Key;
use crate::controller::metrics::Metrics;
use crate::controller::publisher::Publisher;
use crate::controller::{
    Clients, ClusterOptions, ClusterSource, ExclusiveLink, FolderSource, Leadership, Start,
};
use crate::model::SharedTicketKeys;
use crate::secret::shown_url;

use super::connections::{self, Connections};

/// The source of objects.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder of manifests.
    Folder(PathBuf),
    /// A cluster.
    Cluster(Box<Cluster>),
}

/// A cluster, and which of its objects are ours. The default namespace is that of the pod, or of the kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The kubeconfig; `None` for the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespaces to watch; empty for all.
    pub namespaces: Vec<String>,
    /// The Lease of the leader.
    pub lease: ObjectRef,
    /// The Service whose ports are managed.
    pub service: Option<ObjectRef>,
    /// The Service whose endpoints are the replicas.
    pub replicas: Option<ObjectRef>,
    /// How long a starting process waits to serve what was served before, while no other replica is ready.
    pub ready_timeout: Duration,
}

/// A reference to an object: `namespace/name`, or only a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectRef {
    /// The namespace; `None` for the default one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Adds the default namespace.
    pub(super) fn key(&self, namespace: &str) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or(namespace), &self.name)
    }
}

/// A source with its state.
pub(super) enum Source {
    Folder(Box<FolderSource>),
    Cluster(Box<ClusterSource>),
}

impl Source {
    /// Creates the source that the options name.
    pub(super) async fn new(
        origin: &Origin,
        publisher: Publisher,
        metrics: &Metrics,
        ticket_keys: SharedTicketKeys,
        exclusive: Option<ExclusiveLink>,
    ) -> anyhow::Result<Self> {
        Ok(match origin {
            Origin::Folder(folder) => Self::Folder(Box::new(FolderSource::new(folder.clone(), publisher)?)),
            Origin::Cluster(cluster) => {
                let (clients, namespace) = clients(cluster.kubeconfig.as_deref(), metrics).await?;
                let key = |object: &ObjectRef| object.key(&namespace);
                let options = ClusterOptions {
                    namespaces: cluster.namespaces.clone(),
                    lease: key(&cluster.lease),
                    service: cluster.service.as_ref().map(key),
                    replicas: cluster.replicas.as_ref().map(key),
                    ready_timeout: cluster.ready_timeout,
                    ticket_keys,
                    exclusive,
                };
                Self::Cluster(Box::new(ClusterSource::new(clients, options, publisher, metrics.clone())?))
            }
        })
    }

    /// Reports the progress of the start; `None` for a folder, which has no other replicas.
    pub(super) fn start(&self) -> Option<watch::Receiver<Start>> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(cluster) => Some(cluster.start()),
        }
    }

    /// Returns who leads; `None` for a folder.
    pub(super) fn leadership(&self) -> Option<watch::Receiver<Leadership>> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(cluster) => Some(cluster.leadership()),
        }
    }

    /// Returns how to request reading everything again; `None` if the source notices all changes.
    pub(super) fn reread(&self) -> Option<Arc<Notify>> {
        match self {
            Self::Folder(folder) => Some(folder.reread()),
            Self::Cluster(_) => None,
        }
    }

    /// Runs until `shutdown`; as far as the end of sessions needs it, until `ended`.
    pub(super) async fn run(
        self,
        shutdown: CancellationToken,
        ended: CancellationToken,
    ) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.run(shutdown).await?,
            Self::Cluster(cluster) => cluster.run(shutdown, ended).await,
        }
        Ok(())
    }
}

/// Creates the clients. Returns them with the default namespace.
async fn clients(kubeconfig: Option<&Path>, metrics: &Metrics) -> anyhow::Result<(Clients, String)> {
    let config = match kubeconfig {
        Some(path) => written(path).await?,
        None => Config::incluster().context("the pod's service account cannot be used")?,
    };
    let namespace = config.default_namespace.clone();
    let client = |timeout| client(&config, metrics, timeout);
    Ok((Clients { watches: client(LIST_TIMEOUT)?, requests: client(REQUEST_TIMEOUT)? }, namespace))
}

/// Creates a client for a few requests, and returns the default namespace. Without a kubeconfig, it uses the same as
/// kubectl, or the pod's service account.
pub(super) async fn reader(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, String)> {
    let config = inferred(kubeconfig).await?;
    let metrics = Metrics::register(&Registry::new())?;
    Ok((client(&config, &metrics, LIST_TIMEOUT)?, config.default_namespace))
}

/// As [`reader`], with a second client whose connections can become `WebSockets`: they are kube's own, with HTTP/1.1.
pub(super) async fn with_upgrades(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, Client, String)> {
    let config = inferred(kubeconfig).await?;
    let metrics = Metrics::register(&Registry::new())?;
    let requests = client(&config, &metrics, LIST_TIMEOUT)?;
    let upgrades =
        ClientBuilder::try_from(config.clone()).context("no client of the Kubernetes API can be made")?;
    Ok((requests, upgrades.build(), config.default_namespace))
}

async fn inferred(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    match kubeconfig {
        Some(path) => written(path).await,
        None => Config::infer()
            .await
            .context("no kubeconfig found, and not running in a pod; pass --kubeconfig FILE"),
    }
}

/// Reads the configuration in a kubeconfig.
async fn written(path: &Path) -> anyhow::Result<Config> {
    let shown = path.display();
    let read = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {shown}"))?;
    let made = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    made.with_context(|| format!("--kubeconfig {shown}"))
}

/// Creates kube's client with our connections. kube's retries are not used: watches and the status writer retry
/// themselves, with limits and log messages.
fn client(config: &Config, metrics: &Metrics, timeout: Duration) -> anyhow::Result<Client> {
    make(config, metrics, timeout).context("no client of the Kubernetes API can be made")
}

fn make(config: &Config, metrics: &Metrics, timeout: Duration) -> anyhow::Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        let proxy = shown_url(&proxy.to_string());
        anyhow::bail!("a proxy ({proxy}) before the API server is not supported; exclude it from the proxy");
    }
    let https = config.rustls_https_connector_with_connector(connections::tcp())?;
    let plain = legacy::Client::builder(TokioExecutor::new()).build(https);
    let connections = Connections::new(config, plain, metrics.clone(), timeout)?;
    let builder = ClientBuilder::new(connections, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?);
    let base = config.base_uri_layer();
    Ok(match config.auth_layer()? {
        Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
        None => builder.with_layer(&base).build(),
    })
}

/// Time limit for the head of an answer to a list or watch; the same as kube-apiserver's limit for a request.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for other requests; shorter than the renewal of the Lease may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
