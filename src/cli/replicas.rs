//! Asks all replicas: runs the same command in each pod through the API server, as `kubectl exec` does, and collects the
//! answers. Kubernetes' permissions on `pods/exec` decide who may do this.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::replicas::{self, CommandOutput};

use super::colour::BAD;
use super::control::{DEFAULT_PATH, Socket};
use super::run::namespace;

/// The options for asking all replicas.
#[derive(Args, Clone, Debug)]
pub struct AllReplicas {
    /// The control socket.
    #[command(flatten)]
    pub socket: Socket,

    /// Ask all replicas of a cluster: run this command in each running pod, as kubectl exec does.
    #[arg(long)]
    pub all_replicas: bool,

    /// With --all-replicas: the cluster's kubeconfig [default: kubectl's, or the pod's service account].
    #[arg(long, value_name = "FILE", requires = "all_replicas")]
    kubeconfig: Option<PathBuf>,

    /// With --all-replicas: the namespace of the pods [default: that of the kubeconfig or pod].
    #[arg(short, long, value_name = "NAME", requires = "all_replicas", value_parser = namespace)]
    namespace: Option<String>,

    /// With --all-replicas: the labels of the pods.
    #[arg(short = 'l', long, value_name = "LABELS", requires = "all_replicas", default_value = SELECTOR)]
    selector: String,
}

/// The answers of all replicas.
#[derive(Debug, Serialize)]
pub struct Answers<T> {
    /// The answers, by the names of the pods.
    pub replicas: Vec<T>,
    /// The pods that gave no answer.
    pub failed: Vec<FailedReplica>,
}

/// A pod that gave no answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FailedReplica {
    /// The pod's name.
    pub replica: String,
    /// Why it gave none.
    pub error: String,
}

impl AllReplicas {
    /// Runs `mailgress COMMAND --output json` in all replicas.
    ///
    /// # Errors
    ///
    /// Fails if the cluster cannot be asked, or no pod runs. A replica that fails is in the answer.
    pub fn ask<T: DeserializeOwned>(&self, command: &[String]) -> anyhow::Result<Answers<T>> {
        super::runtime()?.block_on(self.asked(&whole(command, &self.socket)))
    }

    async fn asked<T: DeserializeOwned>(&self, command: &[String]) -> anyhow::Result<Answers<T>> {
        let pods = replicas::pods(self.kubeconfig.as_deref(), self.namespace.as_deref()).await?;
        let (selector, place) = (&self.selector, pods.namespace().to_owned());
        let running = pods.running(selector).await.map_err(anyhow::Error::msg);
        let running = running.with_context(|| format!("the pods in namespace {place} cannot be listed"))?;
        if running.is_empty() {
            bail!(
                "no pod with the labels {selector} runs in namespace {place}; name them with --namespace and --selector"
            );
        }
        let outputs = stream::iter(running).map(|pod| {
            let pods = &pods;
            async move {
                let output = pods.run(&pod, command).await;
                (pod.name, output)
            }
        });
        Ok(collected(outputs.buffered(AT_ONCE).collect().await))
    }
}

impl<T> Answers<T> {
    /// Writes to standard error which replicas have failed, and why. Returns whether some have.
    ///
    /// # Errors
    ///
    /// Returns the error of standard error.
    pub fn tell_failures(&self) -> io::Result<bool> {
        let mut out = anstream::stderr().lock();
        for FailedReplica { replica, error } in &self.failed {
            writeln!(out, "{BAD}{replica}{BAD:#}: {error}")?;
        }
        Ok(!self.failed.is_empty())
    }
}

/// Returns the whole command line in the pod.
fn whole(command: &[String], socket: &Socket) -> Vec<String> {
    let (name, rest) = command.split_first().map_or(("", command), |(name, rest)| (name.as_str(), rest));
    let mut line = vec![PROGRAM.to_owned(), name.to_owned(), "--output=json".to_owned()];
    // Another path than the chart's: the pods have the same.
    if socket.path.as_os_str() != DEFAULT_PATH {
        line.push(format!("--control-socket={}", socket.path.display()));
    }
    line.extend(rest.iter().cloned());
    line
}

/// Reads the answers. A command may print an answer and then fail: that of `kick` does if no session matches.
fn collected<T: DeserializeOwned>(outputs: Vec<(String, Result<CommandOutput, String>)>) -> Answers<T> {
    let mut answers = Answers { replicas: Vec::new(), failed: Vec::new() };
    for (replica, output) in outputs {
        match output.and_then(|output| answer(&output)) {
            Ok(answer) => answers.replicas.push(answer),
            Err(error) => answers.failed.push(FailedReplica { replica, error }),
        }
    }
    answers
}

fn answer<T: DeserializeOwned>(output: &CommandOutput) -> Result<T, String> {
    serde_json::from_slice(&output.stdout).map_err(|error| {
        let said = output.stderr.trim();
        match (&output.failure, said.is_empty()) {
            (Some(_), false) => said.replace('\n', " "),
            (Some(failure), true) => failure.clone(),
            (None, _) => format!("the replica is of another version: {error}"),
        }
    })
}

/// Returns `--NAME=VALUE`, so that a value with a leading hyphen is no option.
pub fn option(name: &str, value: Option<&str>) -> Option<String> {
    value.map(|value| format!("--{name}={value}"))
}

/// The labels of the chart's pods.
const SELECTOR: &str = "app.kubernetes.io/name=mailgress,app.kubernetes.io/component=proxy";
/// The program in the image.
const PROGRAM: &str = "/mailgress";
/// Pods that are asked at once.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::sessions::Kicked;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        replicas: AllReplicas,
    }

    fn output(stdout: &str, stderr: &str, failure: Option<&str>) -> Result<CommandOutput, String> {
        let failure = failure.map(str::to_owned);
        Ok(CommandOutput { stdout: stdout.into(), stderr: stderr.to_owned(), failure })
    }

    #[test]
    fn a_replica_without_an_answer_is_named_with_its_reason() {
        let outputs = [
            ("a", output(r#"{"replica":"a","ended":2}"#, "", None)),
            ("b", output(r#"{"replica":"b","ended":0}"#, "", Some("exit code 1"))),
            ("c", output("", "no instance answers\nat /run\n", Some("exit code 1"))),
            ("d", output("", "", Some("exit code 126"))),
            ("e", output("Ended 1 session.", "", None)),
            ("f", Err("pods is forbidden".to_owned())),
        ];
        let outputs = outputs.into_iter().map(|(name, output)| (name.to_owned(), output)).collect();
        let Answers { replicas, failed } = collected::<Kicked>(outputs);
        assert_eq!(replicas.iter().map(|kicked| kicked.ended).collect::<Vec<_>>(), [2, 0]);
        let failed: Vec<_> =
            failed.iter().map(|failed| format!("{}: {}", failed.replica, failed.error)).collect();
        assert_eq!(failed[..2], ["c: no instance answers at /run", "d: exit code 126"]);
        assert!(failed[2].starts_with("e: the replica is of another version"), "{failed:?}");
        assert_eq!(failed[3], "f: pods is forbidden");
    }

    #[test]
    fn the_command_in_the_pod_has_the_same_options() {
        let socket = |path: &str| Socket { path: path.into() };
        let command = ["why".to_owned(), "--sni=a".to_owned(), "--".to_owned(), "-u".to_owned()];
        assert_eq!(
            whole(&command, &socket(DEFAULT_PATH)),
            ["/mailgress", "why", "--output=json", "--sni=a", "--", "-u"]
        );
        let other = whole(&command, &socket("/tmp/s"));
        assert_eq!(other[..4], ["/mailgress", "why", "--output=json", "--control-socket=/tmp/s"]);
    }

    #[test]
    fn the_options_of_the_cluster_need_all_replicas() {
        let parsed = |arguments: &[&str]| Line::try_parse_from([&["x"], arguments].concat());
        assert!(!parsed(&[]).unwrap().replicas.all_replicas);
        for options in [["--kubeconfig", "k"], ["-n", "mail"], ["-l", "a=b"]] {
            assert!(parsed(&options).is_err(), "{options:?}");
            assert!(parsed(&[&["--all-replicas"][..], &options].concat()).is_ok(), "{options:?}");
        }
    }
}
