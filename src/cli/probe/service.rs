//! `mailgress probe --service`: probes every listener of a class through the Service that clients use.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::api;
use crate::app::{ObjectRef, Reader, in_a_pod};
use crate::cli::Usage;
use crate::cli::run::{namespace, object_ref};
use crate::cli::status::{listener_name, object};
use crate::cli::table::{Cell, Table, terminal_width};
use crate::controller::inventory::cluster::Reached;
use crate::controller::inventory::{Entry, Ready};
use crate::net::BackendAddress;
use crate::probe::{Finding, Outcome, ProbeRequest, Report, Step, Strictness, TlsStart, probe};
use crate::protocol::Protocol;
use crate::protocol::proxy_header::ProxyVersion;
use crate::words::counted;

use super::ProbeOptions;
use super::text::outcome;

/// The options for a Service.
#[derive(Args, Debug)]
pub(super) struct ServiceOptions {
    /// Connect to every listener of the class through this Service, as `helm test` does.
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = object_ref, conflicts_with_all = ["target", "protocol", "tls", "server_name"])]
    pub(super) service: Option<ObjectRef>,

    /// With --service: the Service's host name or address [default: NAME.NAMESPACE.svc in a pod, otherwise its cluster address].
    #[arg(long, value_name = "HOST", requires = "service")]
    at: Option<String>,

    /// With --service: kubeconfig of the cluster [default: as kubectl, or the pod's service account].
    #[arg(long, value_name = "FILE", env = "MAILGRESS_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// With --service: read only these namespaces [default: all].
    #[arg(long, value_name = "NAMES", env = "MAILGRESS_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    namespaces: Vec<String>,

    /// With --service: read MailServers of this class.
    #[arg(long, value_name = "NAME", default_value = api::DEFAULT_CLASS, env = "MAILGRESS_CLASS")]
    class: String,
}

/// A listener and the result of its probe.
#[derive(Serialize)]
pub(super) struct Probed {
    listener: Entry,
    report: Report,
}

impl Probed {
    /// Returns the outcome of the probe.
    pub(super) fn outcome(&self) -> Outcome {
        self.report.outcome()
    }
}

impl ServiceOptions {
    /// Probes all listeners with a TCP port, several at the same time.
    pub(super) async fn probe_all(
        &self,
        service: &ObjectRef,
        options: &ProbeOptions,
    ) -> anyhow::Result<Vec<Probed>> {
        let reader = Reader::new(self.kubeconfig.as_deref()).await?;
        let reached = reader.service(service).await?;
        let host = self.host(service, &reached, reader.namespace())?;
        let inventory = reader.inventory(&self.namespaces, &self.class).await?;
        let mut probes = Vec::new();
        for listener in inventory.listeners {
            let plan = plan(&listener, &host, &reached, options).map_err(Usage::new)?;
            probes.push(async move {
                let report = match plan {
                    Plan::Probe(request) => probe(&request).await,
                    Plan::Report(report) => *report,
                };
                Probed { listener, report }
            });
        }
        Ok(stream::iter(probes).buffered(AT_ONCE).collect().await)
    }

    fn host(&self, service: &ObjectRef, reached: &Reached, namespace: &str) -> anyhow::Result<String> {
        if let Some(at) = &self.at {
            return Ok(at.clone());
        }
        if self.kubeconfig.is_none() && in_a_pod() {
            let namespace = service.namespace.as_deref().unwrap_or(namespace);
            return Ok(format!("{}.{namespace}.svc", service.name));
        }
        match &reached.cluster_address {
            Some(address) => Ok(address.clone()),
            None => bail!("the Service has no cluster IP; pass its address with --at"),
        }
    }
}

enum Plan {
    Probe(Box<ProbeRequest>),
    /// There is nothing to connect to.
    Report(Box<Report>),
}

/// Decides how to probe a listener.
fn plan(listener: &Entry, host: &str, reached: &Reached, options: &ProbeOptions) -> anyhow::Result<Plan> {
    let labelled = Protocol::ALL.into_iter().find(|protocol| protocol.label() == listener.protocol);
    let protocol = labelled.unwrap_or(Protocol::Imap);
    let failed = |message: String, remedy: &str| {
        let mut report = Report::new(listener.socket.clone(), protocol);
        report.fail(Step::Connection, message, remedy);
        Ok(Plan::Report(Box::new(report)))
    };
    let not_ready = listener.problems.first().filter(|_| listener.ready == Ready::False);
    if let Some(problem) = not_ready {
        return failed(format!("not ready, {}: {}", problem.reason, problem.message), "");
    }
    let Some(port) = listener.port() else {
        let mut report = Report::new(listener.socket.clone(), protocol);
        report.skip(format!("no Service forwards to {}", listener.socket));
        return Ok(Plan::Report(Box::new(report)));
    };
    if !reached.ports.contains(&port) {
        let message = format!("the Service has no port {port}");
        return failed(
            message,
            "start Mailgress with --service, which adds the ports, or add the port to the Service",
        );
    }
    let target = match host.parse::<IpAddr>() {
        Ok(ip) => BackendAddress::Ip((ip, port).into()),
        Err(_) => BackendAddress::Name { host: host.to_owned(), port },
    };
    let tls = match listener.tls {
        "Disabled" => TlsStart::Disabled,
        "Implicit" => TlsStart::Implicit,
        _ => TlsStart::StartTls,
    };
    let name = listener.hostnames.first().map(|name| name.replacen('*', ANY_LABEL, 1));
    let strictness = match (options.no_verify, &options.ca) {
        (true, _) => Strictness::None,
        (false, Some(_)) if name.is_some() => Strictness::All,
        // The name that clients use is not known.
        (false, Some(_)) => Strictness::Known { name: false, issuer: true },
        (false, None) => Strictness::Known { name: name.is_some(), issuer: false },
    };
    let mut request = options.request(target, protocol, tls, (name, strictness))?;
    if listener.proxy_protocol && request.proxy_protocol.is_none() {
        request.proxy_protocol = Some(ProxyVersion::V2);
    }
    Ok(Plan::Probe(Box::new(request)))
}

/// Writes a row for each listener, and then the problems.
pub(super) fn write(out: &mut impl Write, probed: &[Probed]) -> io::Result<()> {
    let mut table =
        Table::new(["NAMESPACE", "OBJECT", "LISTENER", "PORT", "PROTOCOL", "TLS", "RESULT", "WORKS"]);
    for Probed { listener, report } in probed {
        let (word, style) = outcome(report.outcome());
        table.push([
            listener.namespace.as_str().into(),
            object(listener).into(),
            listener.listener.as_str().into(),
            listener.port().map(|port| port.to_string()).unwrap_or_default().into(),
            listener.protocol.into(),
            listener.tls.into(),
            Cell::styled(word, style),
            works(report).into(),
        ]);
    }
    if table.is_empty() {
        return writeln!(out, "There are no listeners to test.");
    }
    table.write(out, terminal_width())?;
    for Probed { listener, report } in probed {
        for finding in report.findings.iter().filter(|finding| finding.outcome != Outcome::Ok) {
            explain(out, listener, report, finding)?;
        }
    }
    let works = probed.iter().filter(|probed| probed.report.outcome() != Outcome::Failed).count();
    let verb = if probed.len() == 1 { "works" } else { "work" };
    writeln!(out, "\n{works} of {} {verb}", counted(probed.len(), "listener"))?;
    if works > 0 && probed.iter().all(|probed| probed.report.login.is_none()) {
        writeln!(out, "{WITHOUT_LOGIN}")?;
    }
    Ok(())
}

fn explain(out: &mut impl Write, listener: &Entry, report: &Report, finding: &Finding) -> io::Result<()> {
    let (word, style) = outcome(finding.outcome);
    let Finding { step, message, remedy, .. } = finding;
    writeln!(
        out,
        "\n{style}{word}{style:#} {} ({}), {}",
        listener_name(listener),
        report.target,
        step.name()
    )?;
    writeln!(out, "     {message}")?;
    if remedy.is_empty() { Ok(()) } else { writeln!(out, "     {remedy}") }
}

/// Lists what works.
fn works(report: &Report) -> String {
    let mut words: Vec<String> = report.tls.iter().map(|tls| tls.version.to_owned()).collect();
    if report.greeting.is_some() {
        words.push("greets".to_owned());
    }
    words.extend(report.login.iter().filter(|login| login.accepted).map(|login| login.mechanism.to_owned()));
    words.join(", ")
}

/// A listener sends a greeting even if its backend is not available.
const WITHOUT_LOGIN: &str =
    "No login was tested. To test one, pass --login-file (in the chart: test.loginSecret).";
/// The maximum number of concurrent probes.
const AT_ONCE: usize = 16;
/// The label that replaces a wildcard.
const ANY_LABEL: &str = "mailgress-probe";
