//! `mailgress status`: what is served, and what is not and why; from a running instance, or from a cluster.

mod fetch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::api;
use crate::app::Reader;
use crate::controller::inventory::{Entry, Inventory, Ready, instance};

use super::colour::{BAD, Colour, GOOD, STRONG, WARNING};
use super::run::namespace;
use super::table::{Cell, Table, terminal_width};

/// `mailgress status`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Status {
    /// The admin address of the instance that is asked.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090", conflicts_with_all = ["kubeconfig", "namespace", "all_namespaces"])]
    address: String,

    /// Ask the cluster that this file names, and no instance.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Ask the cluster, about these namespaces [default: that of the kubeconfig, or of the pod].
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',', value_parser = namespace)]
    namespace: Vec<String>,

    /// Ask the cluster, about all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// In a cluster, the class of the MailServers to look at.
    #[arg(long, value_name = "NAME", default_value = api::DEFAULT_CLASS, env = "MAILGRESS_CLASS")]
    class: String,

    /// How it is printed.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// Whether in colour.
    #[command(flatten)]
    colour: Colour,
}

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// For programs.
    Json,
}

impl Status {
    /// Asks, and prints.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let inventory = super::runtime()?.block_on(self.inventory())?;
        let mut out = self.colour.stdout();
        match self.output {
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&inventory)?)?,
            Format::Text => write(&mut out, &inventory, terminal_width())?,
        }
        Ok(if inventory.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn inventory(&self) -> anyhow::Result<Inventory> {
        if self.kubeconfig.is_none() && self.namespace.is_empty() && !self.all_namespaces {
            let status = fetch::json(&self.address, "/status", PATIENCE).await?;
            let model = fetch::json(&self.address, "/model", PATIENCE).await?;
            return instance::read(&status, &model)
                .with_context(|| format!("{} is an instance of another version", self.address));
        }
        let reader = Reader::new(self.kubeconfig.as_deref()).await?;
        let namespaces = match (self.all_namespaces, self.namespace.as_slice()) {
            (true, _) => Vec::new(),
            (false, []) => vec![reader.namespace().to_owned()],
            (false, named) => named.to_vec(),
        };
        reader.inventory(&namespaces, &self.class).await
    }
}

/// The table, what is wrong below it, and how much of it.
fn write(out: &mut impl Write, inventory: &Inventory, width: Option<usize>) -> io::Result<()> {
    let mut table =
        Table::new(["NAMESPACE", "OBJECT", "LISTENER", "SOCKET", "PROTOCOL", "TLS", "READY", "REACHED AT"]);
    for entry in &inventory.listeners {
        let ready = match entry.ready {
            Ready::True => Cell::styled("True", GOOD),
            Ready::False => Cell::styled("False", BAD),
            Ready::Unknown => Cell::styled("Unknown", WARNING),
        };
        table.push([
            entry.namespace.as_str().into(),
            object(entry).into(),
            entry.listener.as_str().into(),
            entry.socket.as_str().into(),
            entry.protocol.into(),
            entry.tls.into(),
            ready,
            entry.addresses.join(",").into(),
        ]);
    }
    if table.is_empty() {
        writeln!(out, "There are no listeners.")?;
    } else {
        table.write(out, width)?;
    }
    for alike in inventory.listeners.chunk_by(is_alike) {
        let Some(entry) = alike.first().filter(|entry| !entry.problems.is_empty()) else { continue };
        writeln!(out, "\n{STRONG}{}{STRONG:#}", whose_all(entry, alike))?;
        for problem in &entry.problems {
            let style =
                if problem.condition == "Ready" || entry.ready != Ready::True { BAD } else { WARNING };
            writeln!(
                out,
                "  {style}{}{style:#} ({}): {}",
                problem.condition, problem.reason, problem.message
            )?;
        }
    }
    for problem in &inventory.problems {
        writeln!(out, "\n{BAD}problem{BAD:#}: {problem}")?;
    }
    let ready = inventory.listeners.iter().filter(|entry| entry.ready == Ready::True).count();
    writeln!(out, "\n{ready} of {} listeners are ready", inventory.listeners.len())
}

/// Whether both are of one object, and the same is to be said of them.
fn is_alike(a: &Entry, b: &Entry) -> bool {
    let is_of_one = (a.kind, &a.namespace, &a.object) == (b.kind, &b.namespace, &b.object);
    is_of_one && a.ready == b.ready && a.problems == b.problems
}

/// In a line: the object, and its listeners.
fn whose_all(first: &Entry, alike: &[Entry]) -> String {
    if alike.len() == 1 {
        return whose(first);
    }
    let Entry { kind, namespace, object, .. } = first;
    let names: Vec<&str> = alike.iter().map(|entry| entry.listener.as_str()).collect();
    format!("{kind} {namespace}/{object}, listeners {}", names.join(", "))
}

/// As kubectl names it.
pub(super) fn object(entry: &Entry) -> String {
    format!("{}/{}", entry.kind.to_ascii_lowercase(), entry.object)
}

/// In a line: the object, and its listener.
pub(super) fn whose(entry: &Entry) -> String {
    let Entry { kind, namespace, object, listener, .. } = entry;
    let listener = if listener.is_empty() { String::new() } else { format!(", listener {listener}") };
    format!("{kind} {namespace}/{object}{listener}")
}

/// For an answer of an instance.
const PATIENCE: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Without --kubeconfig, --namespace and --all-namespaces, the instance at --address is asked; with any of them, the \
cluster: by --kubeconfig, or else by the kubeconfig that kubectl would take, or as the pod that this is.

Exit status: 0 all is ready, 1 something is not ready, or nobody answers, 2 the command line makes no sense.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_ready_is_told_with_its_reason_below_the_table() {
        let condition = |type_: &str, status: &str, reason: &str, message: &str| {
            json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let ready = condition("Ready", "True", "Bound", "*:993 is bound");
        let failed = condition("Ready", "False", "BindFailed", "*:25 cannot be bound: permission denied");
        let document = json!({
            "revision": 1,
            "problems": ["Secrets cannot be read: forbidden"],
            "objects": [{ "kind": "MailServer", "namespace": "mail", "name": "edge", "status": {
                "observedGeneration": 1,
                "listeners": [
                    { "name": "imaps", "conditions": [ready], "addresses": ["203.0.113.7:993"] },
                    { "name": "mx", "conditions": [failed.clone()] },
                    { "name": "mx2", "conditions": [failed] },
                ],
            }}],
        });
        let model = json!({ "sockets": [{
            "address": "*:993", "protocol": "imap", "tlsMode": "Implicit", "listeners": [{ "id": "mail/edge/imaps" }],
        }]});
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &instance::read(&document, &model).unwrap(), None).unwrap();
        let expected = "\
NAMESPACE  OBJECT           LISTENER  SOCKET  PROTOCOL  TLS       READY  REACHED AT
mail       mailserver/edge  imaps     *:993   IMAP      Implicit  True   203.0.113.7:993
mail       mailserver/edge  mx        -       -         -         False  -
mail       mailserver/edge  mx2       -       -         -         False  -

MailServer mail/edge, listeners mx, mx2
  Ready (BindFailed): *:25 cannot be bound: permission denied

problem: Secrets cannot be read: forbidden

1 of 3 listeners are ready
";
        assert_eq!(String::from_utf8(out.into_inner()).unwrap(), expected);
    }
}
