//! Where objects come from: a folder, or a cluster. The one place that makes a client of the Kubernetes API.

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
use crate::controller::{Clients, ClusterOptions, ClusterSource, FolderSource, Start};
use crate::secret::shown_url;

use super::connections::{self, Connections};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder of manifests.
    Folder(PathBuf),
    /// A cluster.
    Cluster(Box<Cluster>),
}

/// A cluster, and what is ours in it. A namespace that is not named is that of the pod, or of the kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// How it is reached; without one, as the pod that we are in.
    pub kubeconfig: Option<PathBuf>,
    /// The only namespaces that are looked at; all of them when there are none here.
    pub namespaces: Vec<String>,
    /// The Lease of the replica that leads.
    pub lease: ObjectRef,
    /// The Service whose ports are managed.
    pub service: Option<ObjectRef>,
    /// The Service whose endpoints are the replicas.
    pub replicas: Option<ObjectRef>,
    /// How long a process that starts waits to serve what was served before, while no other replica is ready.
    pub ready_timeout: Duration,
}

/// `namespace/name`, or a name alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectRef {
    /// The namespace.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// With this namespace where it has none.
    pub(super) fn key(&self, namespace: &str) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or(namespace), &self.name)
    }
}

/// What reads them.
pub(super) enum Source {
    Folder(Box<FolderSource>),
    Cluster(Box<ClusterSource>),
}

impl Source {
    /// From where the options say.
    pub(super) async fn new(
        origin: &Origin,
        publisher: Publisher,
        metrics: &Metrics,
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
                };
                Self::Cluster(Box::new(ClusterSource::new(clients, options, publisher, metrics.clone())?))
            }
        })
    }

    /// How far its start is; `None` where there are no other replicas.
    pub(super) fn start(&self) -> Option<watch::Receiver<Start>> {
        match self {
            Self::Folder(_) => None,
            Self::Cluster(cluster) => Some(cluster.start()),
        }
    }

    /// Tells it to read everything again, where it does not hear of all changes by itself.
    pub(super) fn reread(&self) -> Option<Arc<Notify>> {
        match self {
            Self::Folder(folder) => Some(folder.reread()),
            Self::Cluster(_) => None,
        }
    }

    /// Reads until it is told to end.
    pub(super) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => folder.run(shutdown).await?,
            Self::Cluster(cluster) => cluster.run(shutdown).await,
        }
        Ok(())
    }
}

/// The clients, and the namespace that we are in.
async fn clients(kubeconfig: Option<&Path>, metrics: &Metrics) -> anyhow::Result<(Clients, String)> {
    let config = match kubeconfig {
        Some(path) => written(path).await?,
        None => Config::incluster().context("the pod's service account cannot be used")?,
    };
    let namespace = config.default_namespace.clone();
    let client = |timeout| client(&config, metrics, timeout);
    Ok((Clients { watches: client(LIST_TIMEOUT)?, requests: client(REQUEST_TIMEOUT)? }, namespace))
}

/// A client that asks once and is done, and the namespace that is meant where none is named. Without a kubeconfig that
/// is named, it is the one that kubectl would take, or the pod's service account.
pub(super) async fn reader(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, String)> {
    let config = match kubeconfig {
        Some(path) => written(path).await?,
        None => {
            Config::infer().await.context("there is no kubeconfig, and this is no pod: --kubeconfig FILE")?
        }
    };
    let metrics = Metrics::register(&Registry::new())?;
    Ok((client(&config, &metrics, LIST_TIMEOUT)?, config.default_namespace))
}

/// What a kubeconfig says.
async fn written(path: &Path) -> anyhow::Result<Config> {
    let shown = path.display();
    let read = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {shown}"))?;
    let made = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    made.with_context(|| format!("--kubeconfig {shown}"))
}

/// kube's client with connections of ours. Its retries are left out: watches and the writer of status try again by
/// themselves, with a bound, and say so.
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

/// For the head of an answer to a list or a watch; as long as kube-apiserver itself gives a request.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// For all others: shorter than the renewal of a lease may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
