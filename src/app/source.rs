//! Where objects come from: a folder, or a cluster. The one place that makes a client of the Kubernetes API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::controller::outlet::Outlet;
use crate::controller::{ClusterSource, FolderSource};

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
    pub(super) async fn new(origin: &Origin, outlet: Outlet) -> anyhow::Result<Self> {
        Ok(match origin {
            Origin::Folder(folder) => Self::Folder(Box::new(FolderSource::new(folder.clone(), outlet)?)),
            Origin::Cluster { kubeconfig, namespaces } => {
                let client = client(kubeconfig.as_deref()).await?;
                Self::Cluster(Box::new(ClusterSource::new(client, namespaces, outlet)?))
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

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let shown = path.display();
            let read = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {shown}"))?;
            let made = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            made.with_context(|| format!("--kubeconfig {shown}"))?
        }
        None => Config::incluster().context("the pod's service account cannot be used")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).context("no client of the Kubernetes API can be made")
}

/// An address of an API server that is away may not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
