//! Lists pods, and runs commands in them as `kubectl exec` does.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, ListParams};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::cluster::failure::{answered, root};
use super::violation::one_line;

/// The pods of one namespace.
#[derive(Clone, Debug)]
pub struct Pods {
    namespace: String,
    requests: Api<Pod>,
    /// Its connections can become `WebSockets`, which HTTP/2 connections cannot.
    upgrades: Api<Pod>,
}

/// A running pod, and its container that runs Mailgress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPod {
    /// The pod's name.
    pub name: String,
    /// The container's name.
    pub container: String,
}

/// What a command has printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// Why the command failed; `None` if its exit status is 0.
    pub failure: Option<String>,
}

impl Pods {
    /// Uses `requests` for lists, and `upgrades`, whose connections are HTTP/1.1, for commands.
    #[must_use]
    pub fn new(requests: Client, upgrades: Client, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            requests: Api::namespaced(requests, namespace),
            upgrades: Api::namespaced(upgrades, namespace),
        }
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Lists the running pods with these labels, by name; also those that are about to end.
    ///
    /// # Errors
    /// The API server refuses or does not answer, or there are more than [`MAX_PODS`]. The text says what to do.
    pub async fn running(&self, selector: &str) -> Result<Vec<RunningPod>, String> {
        let wanted = ListParams::default().labels(selector).limit(MAX_PODS);
        let list = answered(self.requests.list(&wanted)).await.map_err(|failure| failure.to_string())?;
        if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
            return Err(format!("there are more than {MAX_PODS} such pods; narrow the selector"));
        }
        let mut pods: Vec<_> = list.items.into_iter().filter_map(running_pod).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// Runs a command in a pod.
    ///
    /// # Errors
    /// The command could not be started, did not end within [`COMMAND_TIMEOUT`], or printed more than
    /// [`MAX_OUTPUT`] bytes. The text names the cause.
    pub async fn run(&self, pod: &RunningPod, command: &[String]) -> Result<CommandOutput, String> {
        let ended = timeout(COMMAND_TIMEOUT, self.attached(pod, command)).await;
        ended.unwrap_or_else(|_| Err(format!("the command did not end within {COMMAND_TIMEOUT:?}")))
    }

    async fn attached(&self, pod: &RunningPod, command: &[String]) -> Result<CommandOutput, String> {
        let parameters =
            AttachParams { stdin: false, container: Some(pod.container.clone()), ..AttachParams::default() };
        let process = self.upgrades.exec(&pod.name, command.iter().map(String::as_str), &parameters).await;
        let mut process = process.map_err(|error| described(&error))?;
        let status = process.take_status();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let (stdout, stderr) = tokio::try_join!(whole(stdout, MAX_OUTPUT), whole(stderr, MAX_OUTPUT))?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let Some(status) = status else {
            return Err("the connection ended before the command".to_owned());
        };
        Ok(CommandOutput {
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            failure: failure(status),
        })
    }
}

/// Returns the pod if its containers run.
fn running_pod(pod: Pod) -> Option<RunningPod> {
    let name = pod.metadata.name?;
    if pod.status?.phase.as_deref() != Some("Running") {
        return None;
    }
    let containers = pod.spec?.containers;
    let own = containers.iter().find(|container| container.name == CONTAINER).or_else(|| containers.first());
    Some(RunningPod { name, container: own?.name.clone() })
}

/// Reads an output to its end, at most `most` bytes.
async fn whole(output: Option<impl AsyncRead + Unpin>, most: u64) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    if let Some(output) = output {
        let bytes = output.take(most.saturating_add(1)).read_to_end(&mut read).await;
        let bytes = bytes.map_err(|error| format!("the output cannot be read: {error}"))?;
        if u64::try_from(bytes).unwrap_or(u64::MAX) > most {
            return Err(format!("the command printed more than {most} bytes"));
        }
    }
    Ok(read)
}

fn failure(status: Status) -> Option<String> {
    if status.status.as_deref() == Some("Success") {
        return None;
    }
    Some(one_line(&status.message.unwrap_or_else(|| "the command failed".to_owned())))
}

fn described(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => format!(
            "{}; this needs the verbs get and create on pods/exec, and list on pods",
            one_line(&status.message)
        ),
        kube::Error::Api(status) => one_line(&status.message),
        other => one_line(&root(other).to_string()),
    }
}

/// The name of the container in the chart.
const CONTAINER: &str = "mailgress";
/// Pods in one list.
pub const MAX_PODS: u32 = 500;
/// The time limit for a command.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum size of an output in bytes. It is enough for hundreds of thousands of sessions.
pub const MAX_OUTPUT: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, containers: &[&str]) -> Option<RunningPod> {
        let containers: Vec<_> = containers.iter().map(|name| json!({ "name": name })).collect();
        let pod = json!({
            "metadata": { "name": "a" }, "spec": { "containers": containers }, "status": { "phase": phase },
        });
        running_pod(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_running_pod_is_asked_in_the_container_of_mailgress() {
        let container = |containers: &[&str]| pod("Running", containers).map(|pod| pod.container);
        assert_eq!(container(&["sidecar", "mailgress"]).as_deref(), Some("mailgress"));
        assert_eq!(container(&["proxy", "sidecar"]).as_deref(), Some("proxy"));
        assert_eq!(container(&[]), None);
        for phase in ["Pending", "Succeeded", "Failed"] {
            assert_eq!(pod(phase, &["mailgress"]), None, "{phase}");
        }
    }

    #[tokio::test]
    async fn an_output_is_bounded() {
        assert_eq!(whole(Some(&b"1234"[..]), 4).await, Ok(b"1234".to_vec()));
        assert!(whole(Some(&b"12345"[..]), 4).await.unwrap_err().contains("more than 4 bytes"));
    }
}
