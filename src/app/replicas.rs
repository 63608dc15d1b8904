//! Connects with the pods of all replicas, for commands that ask each of them.

use std::path::Path;

pub use crate::controller::pods::{CommandOutput, Pods, RunningPod};

use super::source;

/// Returns the pods of a namespace. Without a namespace, uses the default one. Without a kubeconfig, uses the same as
/// kubectl, or the pod's service account.
///
/// # Errors
/// Nothing tells how to reach the cluster.
pub async fn pods(kubeconfig: Option<&Path>, namespace: Option<&str>) -> anyhow::Result<Pods> {
    let (requests, upgrades, default) = source::with_upgrades(kubeconfig).await?;
    Ok(Pods::new(requests, upgrades, namespace.unwrap_or(&default)))
}
