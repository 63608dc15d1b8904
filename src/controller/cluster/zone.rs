//! Reads the zone of this replica once, from the labels of its node.

use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use kube::{Client, Error};
use tokio::time::sleep;

use crate::controller::violation::one_line;

use super::backoff::backoff;

/// Asks until there is an answer. If the zone cannot be known (a missing permission, or a node without a zone),
/// topology hints for zones are ignored, and one log message says so.
pub(super) async fn of_node(client: Client, node: String) -> Option<String> {
    let nodes: Api<Node> = Api::all(client);
    let mut backoff = backoff();
    loop {
        let why = match nodes.get_metadata(&node).await {
            Ok(found) => match found.metadata.labels.and_then(|mut labels| labels.remove(LABEL)) {
                Some(zone) => {
                    tracing::info!(node, zone, "preferring endpoints with topology hints for this zone");
                    return Some(zone);
                }
                None => {
                    tracing::info!(node, "ignoring topology hints for zones: the node has no label {LABEL}");
                    return None;
                }
            },
            Err(Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => one_line(&status.message),
            Err(_) => {
                // Other requests report that the API server cannot be reached.
                sleep(backoff.pause()).await;
                continue;
            }
        };
        tracing::warn!(node, "ignoring topology hints for zones: cannot read the node: {why}");
        return None;
    }
}

/// The label that cloud providers and kubelets set.
const LABEL: &str = "topology.kubernetes.io/zone";
