//! Where objects come from: a folder, or a cluster. The one place that makes a client of the Kubernetes API.

use std::path::{Path, PathBuf};

use anyhow::Context;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::controller::metrics::Metrics;
use crate::controller::outlet::Outlet;
use crate::controller::{ClusterSource, FolderSource};

use super::connections::{self, Connections};

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A folder of manifests.
    Folder(PathBuf),
    /// A cluster.
    Cluster {
        /// How it is reached; without one, as the pod that we are in.
        kubeconfig: Option<PathBuf>,
        /// The only namespaces that are looked at; all of them when there are none here.
        namespaces: Vec<String>,
    },
}

/// What reads them.
pub(super) enum Source {
    Folder(Box<FolderSource>),
    Cluster(Box<ClusterSource>),
}

impl Source {
    /// From where the options say.
    pub(super) async fn new(origin: &Origin, outlet: Outlet, metrics: &Metrics) -> anyhow::Result<Self> {
        Ok(match origin {
            Origin::Folder(folder) => Self::Folder(Box::new(FolderSource::new(folder.clone(), outlet)?)),
            Origin::Cluster { kubeconfig, namespaces } => {
                let client = client(kubeconfig.as_deref(), metrics).await?;
                Self::Cluster(Box::new(ClusterSource::new(client, namespaces, outlet, metrics.clone())?))
            }
        })
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

async fn client(kubeconfig: Option<&Path>, metrics: &Metrics) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(path) => {
            let shown = path.display();
            let read = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {shown}"))?;
            let made = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            made.with_context(|| format!("--kubeconfig {shown}"))?
        }
        None => Config::incluster().context("the pod's service account cannot be used")?,
    };
    shared(&config, metrics).context("no client of the Kubernetes API can be made")
}

/// kube's client with connections of ours. Its retries are left out: watches and the writer of status try again by
/// themselves, with a bound, and say so.
fn shared(config: &Config, metrics: &Metrics) -> anyhow::Result<Client> {
    if let Some(proxy) = &config.proxy_url {
        anyhow::bail!("a proxy ({proxy}) before the API server is not supported; exclude it from the proxy");
    }
    let https = config.rustls_https_connector_with_connector(connections::tcp())?;
    let plain = legacy::Client::builder(TokioExecutor::new()).build(https);
    let connections = Connections::new(config, plain, metrics.clone())?;
    let builder = ClientBuilder::new(connections, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?);
    let base = config.base_uri_layer();
    Ok(match config.auth_layer()? {
        Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
        None => builder.with_layer(&base).build(),
    })
}
