//! `mailgress run`: starts the controller and the data plane.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use crate::api;
use crate::app::{self, Cluster, Encoding, LineFormat, Log, ObjectRef, Origin, RunOptions, in_a_pod};
use crate::controller::render::{Locality, units};
use crate::net::network;

/// Serve MailServer, MailListener and MailRoute objects.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Run {
    /// Read all objects from the YAML and JSON files in this folder instead of a cluster. Changes of the files are
    /// applied at once.
    #[arg(long, value_name = "DIR", env = "MAILGRESS_MANIFESTS", conflicts_with_all = ["kubeconfig", "namespaces"])]
    manifests: Option<PathBuf>,

    /// Connect to the cluster with this kubeconfig [default: the pod's service account].
    #[arg(long, value_name = "FILE", env = "MAILGRESS_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// Watch only these namespaces [default: all].
    #[arg(long, value_name = "NAMES", env = "MAILGRESS_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    namespaces: Vec<String>,

    /// Lease for the election of the leader. The replicas share the keys of TLS session tickets in the Secret
    /// NAME-session-tickets beside it [default: CLASS, in the pod's own namespace].
    #[arg(long, value_name = "[NAMESPACE/]NAME", env = "MAILGRESS_LEASE", conflicts_with = "manifests", value_parser = object_ref)]
    lease: Option<ObjectRef>,

    /// The Service that clients connect to. Mailgress sets its ports to those of the listeners, and writes its
    /// addresses to the status of the objects.
    #[arg(long, value_name = "[NAMESPACE/]NAME", env = "MAILGRESS_SERVICE", conflicts_with = "manifests", value_parser = object_ref)]
    service: Option<ObjectRef>,

    /// The Service that selects all replicas, with their port `admin`. A listener is Ready when all of them serve it
    /// [default: only one replica].
    #[arg(long, value_name = "[NAMESPACE/]NAME", env = "MAILGRESS_REPLICAS", conflicts_with = "manifests", value_parser = object_ref)]
    replicas: Option<ObjectRef>,

    /// Name of this replica in the Lease and in events [default: the host name].
    #[arg(long, value_name = "NAME", env = "MAILGRESS_POD_NAME")]
    pod_name: Option<String>,

    /// Address of this replica's node (status.hostIP). It is written to status for a Service of type NodePort, and
    /// without --service.
    #[arg(long, value_name = "ADDRESS", env = "MAILGRESS_NODE_ADDRESS")]
    node_address: Option<IpAddr>,

    /// Serve MailServers with this spec.className.
    #[arg(long, value_name = "NAME", env = "MAILGRESS_CLASS", default_value = api::DEFAULT_CLASS)]
    class: String,

    /// Name of this replica's node (spec.nodeName). Prefer the endpoints that topology hints of EndpointSlices
    /// give to this node or its zone.
    #[arg(long, value_name = "NAME", env = "MAILGRESS_NODE_NAME")]
    node_name: Option<String>,

    /// Zone of this replica. Prefer endpoints in the same zone [default: the node's label topology.kubernetes.io/zone].
    #[arg(long, value_name = "NAME", env = "MAILGRESS_ZONE")]
    zone: Option<String>,

    /// Networks of the load balancer. Listeners on all addresses (`*`) without their own proxyProtocol expect a PROXY
    /// header from these peers and refuse all others.
    #[arg(long, value_name = "NETWORKS", env = "MAILGRESS_PROXY_PROTOCOL_TRUSTED_PEERS", value_delimiter = ',', value_parser = peers)]
    proxy_protocol_trusted_peers: Vec<IpNet>,

    /// Listen on this address for /livez, /readyz, /metrics, and /served for other replicas.
    #[arg(long, value_name = "ADDRESS", env = "MAILGRESS_ADMIN_ADDRESS", default_value = "0.0.0.0:9090")]
    admin_address: SocketAddr,

    /// Listen on this address for the status page, /status and /model, which name objects, backends and addresses of
    /// clients. By default only this host can connect, and `kubectl port-forward`. With the same address as
    /// --admin-address, one port has all pages.
    #[arg(long, value_name = "ADDRESS", env = "MAILGRESS_STATUS_ADDRESS", default_value = "127.0.0.1:9091")]
    status_address: SocketAddr,

    /// Additional host names for requests to these two addresses, such as those of an Ingress; `*` allows every name.
    /// localhost, IP addresses and the names of pod and host are always allowed. Requests for other names get 421, as
    /// protection against DNS rebinding; /livez and /readyz are answered for every name.
    #[arg(long, value_name = "NAMES", env = "MAILGRESS_ADMIN_HOSTS", value_delimiter = ',', value_parser = host)]
    admin_hosts: Vec<String>,

    /// Listen on this UNIX socket for `mailgress sessions`, `mailgress kick` and `mailgress why`. Only root and the user of
    /// the process may connect. The directory must exist; a socket left by an earlier process is replaced [default: no
    /// socket].
    #[arg(long, value_name = "PATH", env = "MAILGRESS_CONTROL_SOCKET")]
    control_socket: Option<PathBuf>,

    /// Number of worker threads [default: one for each CPU].
    #[arg(long, value_name = "N", env = "MAILGRESS_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,

    /// After SIGTERM, keep listening for this time while /readyz fails, so that load balancers can react.
    #[arg(long, value_name = "DURATION", env = "MAILGRESS_DRAIN_DELAY", default_value = "0s", value_parser = duration)]
    drain_delay: Duration,

    /// After a listener is closed, let its sessions continue for this time, then close them.
    #[arg(long, value_name = "DURATION", env = "MAILGRESS_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,

    /// When the process ends, close the remaining sessions one by one over this time, the last part of --drain-timeout, so
    /// that their clients do not all connect again at once [default: a quarter of --drain-timeout].
    #[arg(long, value_name = "DURATION", env = "MAILGRESS_DRAIN_SPREAD", value_parser = duration)]
    drain_spread: Option<Duration>,

    /// If no other replica is ready, /readyz fails at most for this time while listeners that were served before are
    /// missing. If another replica is ready, there is no limit.
    #[arg(long, value_name = "DURATION", env = "MAILGRESS_READY_TIMEOUT", default_value = "60s", value_parser = duration)]
    ready_timeout: Duration,

    /// Format of the log.
    #[arg(long, value_name = "FORMAT", env = "MAILGRESS_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Log level (error, warn, info, debug, trace) or filters such as `info,mailgress::session=warn`.
    #[arg(long, value_name = "FILTER", env = "MAILGRESS_LOG", default_value = "info")]
    log: String,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object for each line.
    Json,
}

impl Run {
    /// Serves until a signal, and then drains.
    ///
    /// # Errors
    ///
    /// Fails if the process cannot start.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let origin = self.origin()?;
        let log = self.start_log()?;
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = RunOptions {
            origin,
            class: self.class.clone(),
            locality: Locality { zone: named(self.zone.as_ref()), node: named(self.node_name.as_ref()) },
            trusted_peers: self.proxy_protocol_trusted_peers.clone(),
            admin_address: self.admin_address,
            status_address: self.status_address,
            admin_hosts: self.admin_hosts.clone(),
            control_socket: self.control_socket.clone(),
            workers: self.workers.map_or(cpus, usize::from),
            drain_delay: self.drain_delay,
            drain_timeout: self.drain_timeout,
            drain_spread: self.drain_spread.unwrap_or(self.drain_timeout / DRAIN_SPREAD_SHARE),
            replica: self.pod_name.clone(),
            node_address: self.node_address,
        };
        Ok(match app::run(&options, &log) {
            Ok(()) => {
                log.flush();
                ExitCode::SUCCESS
            }
            // Standard error is not used, because its reader may be blocked too.
            Err(error) => {
                log.last_words(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        })
    }

    fn origin(&self) -> anyhow::Result<Origin> {
        if let Some(folder) = &self.manifests {
            if !folder.is_dir() {
                bail!("--manifests {}: there is no such folder", folder.display());
            }
            return Ok(Origin::Folder(folder.clone()));
        }
        if self.kubeconfig.is_none() && !in_a_pod() {
            bail!("not running in a pod; pass --kubeconfig FILE (a cluster) or --manifests DIR (a folder)");
        }
        let mut namespaces = self.namespaces.clone();
        namespaces.sort_unstable();
        namespaces.dedup();
        let lease = self.lease.clone();
        Ok(Origin::Cluster(Box::new(Cluster {
            kubeconfig: self.kubeconfig.clone(),
            namespaces,
            lease: lease.unwrap_or_else(|| ObjectRef { namespace: None, name: lease_name(&self.class) }),
            service: self.service.clone(),
            replicas: self.replicas.clone(),
            ready_timeout: self.ready_timeout,
        })))
    }

    fn start_log(&self) -> anyhow::Result<Log> {
        let filter = EnvFilter::builder().parse(format!("{QUIET},{}", self.log))?;
        let stdout = io::stdout();
        let colour = stdout.is_terminal();
        // A second descriptor of the same file, because std's own handle has a lock and a buffer.
        let output =
            stdout.as_fd().try_clone_to_owned().context("cannot open standard output for the log")?;
        let log = Log::start(File::from(output))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(colour)
            .log_internal_errors(false)
            .with_writer(log.clone());
        match self.log_format {
            LogFormat::Text => builder
                .with_target(false)
                .map_event_format(|library| LineFormat::new(Encoding::Text, library))
                .init(),
            LogFormat::Json => builder
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .map_event_format(|library| LineFormat::new(Encoding::Json, library))
                .init(),
        }
        log.catch_panics();
        Ok(log)
    }
}

/// The part of `--drain-timeout` that is the default of `--drain-spread`.
const DRAIN_SPREAD_SHARE: u32 = 4;

/// The controller logs failed watches once, and sessions log what TLS reports. `--log` can enable these targets again.
const QUIET: &str = "kube_client=off,kube_runtime=off,rustls=off";

/// Treats an empty environment variable as unset.
fn named(name: Option<&String>) -> Option<String> {
    name.filter(|name| !name.is_empty()).cloned()
}

/// Parses a duration in the Gateway API's form, as in the objects: `30s`, `1h30m`, `500ms`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).ok_or_else(|| format!("`{text}` is not a duration such as 30s, 1m30s or 500ms"))
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > LONGEST_NAMESPACE || !text.chars().all(good) {
        return Err(format!("{text:?} is not the name of a namespace"));
    }
    Ok(text.to_owned())
}

fn host(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text != "*" && (text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(good)) {
        return Err(format!(
            "{text:?} is not a host name; write a name without a port, such as mail.example.org, or *"
        ));
    }
    Ok(text.to_owned())
}

fn peers(text: &str) -> Result<IpNet, String> {
    network(text)
        .ok_or_else(|| format!("{text:?} is not a network such as 10.0.0.0/8 or fd00::/8, or an address"))
}

pub(super) fn object_ref(text: &str) -> Result<ObjectRef, String> {
    let (within, name) = match text.split_once('/') {
        Some((within, name)) => (Some(namespace(within)?), name),
        None => (None, text),
    };
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) {
        return Err(format!("{name:?} is not the name of an object; write NAMESPACE/NAME or NAME"));
    }
    Ok(ObjectRef { namespace: within, name: name.to_owned() })
}

/// Returns the name of the Lease for a class, which may contain slashes.
fn lease_name(class: &str) -> String {
    class.replace('/', "-")
}

/// The maximum length of a subdomain (RFC 1123).
const LONGEST_NAME: usize = 253;
/// The maximum length of a label (RFC 1123).
const LONGEST_NAMESPACE: usize = 63;

const AFTER_HELP: &str = "\
SIGTERM, SIGINT and SIGQUIT drain; a second one ends the process at once. SIGHUP reads the folder of --manifests again.

Exit status: 0 after a signal and the drain, 1 it could not start, 2 usage error, 130 a second signal \
ended the drain.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn run(arguments: &[&str]) -> Result<Run, String> {
        let line = Line::try_parse_from([&["run"], arguments].concat());
        line.map(|line| line.run).map_err(|error| error.to_string())
    }

    #[test]
    fn objects_come_from_a_folder_or_a_cluster_and_not_from_both() {
        let origin = run(&["--kubeconfig", "/k", "--namespaces", "b,a,b"]).unwrap().origin().unwrap();
        let Origin::Cluster(cluster) = origin else { panic!("{origin:?}") };
        assert_eq!(cluster.kubeconfig, Some("/k".into()));
        assert_eq!(cluster.namespaces, ["a", "b"]);
        assert_eq!(cluster.lease, object_ref("mailgress").unwrap());
        assert!(matches!(run(&["--manifests", "/"]).unwrap().origin().unwrap(), Origin::Folder(_)));
        assert!(
            run(&["--manifests", "/", "--kubeconfig", "/k"]).unwrap_err().contains("cannot be used with")
        );
        assert!(run(&["--namespaces", "a,"]).unwrap_err().contains("not the name of a namespace"));
        let named = object_ref("edge/mail.imap").unwrap();
        assert_eq!((named.namespace.as_deref(), named.name.as_str()), (Some("edge"), "mail.imap"));
        for wrong in ["", "/", "a/", "/a", "a/b/c", "A"] {
            assert!(object_ref(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(run(&["--admin-hosts", "a.example,b"]).unwrap().admin_hosts, ["a.example", "b"]);
        assert!(run(&["--admin-hosts", "a.example:9090"]).unwrap_err().contains("without a port"));
        let nowhere = run(&[]).unwrap().origin().unwrap_err().to_string();
        assert!(nowhere.contains("--kubeconfig") && nowhere.contains("--manifests"), "{nowhere}");
    }
}
