//! `mailgress status`: shows all listeners and their problems, from a running instance or from a cluster.

mod fetch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::api;
use crate::app::Reader;
use crate::controller::index::Kind;
use crate::controller::inventory::{Entry, Inventory, Ready, instance};
use crate::words::counted;

use super::colour::{BAD, Colour, GOOD, STRONG, WARNING};
use super::output::OutputFormat;
use super::run::namespace;
use super::table::{Cell, Table, terminal_width};

/// `mailgress status`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Status {
    /// Status address of the instance to ask.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9091", conflicts_with_all = ["kubeconfig", "namespace", "all_namespaces"])]
    address: String,

    /// Ask the cluster of this kubeconfig instead of an instance.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Ask the cluster about these namespaces [default: the namespace of the kubeconfig or pod].
    #[arg(short, long, value_name = "NAMES", value_delimiter = ',', value_parser = namespace)]
    namespace: Vec<String>,

    /// Ask the cluster about all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,

    /// In a cluster: show MailServers of this class.
    #[arg(long, value_name = "NAME", default_value = api::DEFAULT_CLASS, env = "MAILGRESS_CLASS")]
    class: String,

    /// Show only listeners that are not ready or have a warning.
    #[arg(long)]
    problems: bool,

    /// Show only listeners with this text in namespace/object/listener, socket, protocol or host names (case is ignored).
    #[arg(value_name = "TEXT")]
    filter: Option<String>,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,

    /// The use of colours.
    #[command(flatten)]
    colour: Colour,
}

impl Status {
    /// Reads the inventory and prints it.
    ///
    /// # Errors
    ///
    /// Fails if the instance or the API server does not answer.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let found = super::runtime()?.block_on(self.inventory())?;
        let selected = self.select(found);
        let mut out = self.colour.stdout();
        self.output.write(&mut out, &selected.inventory, |out| write(out, &selected, terminal_width()))?;
        Ok(if selected.is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Selects the listeners to show, and sorts them by rank.
    fn select(&self, found: Inventory) -> Selected {
        let Inventory { mut listeners, problems } = found;
        let all = listeners.len();
        let routes = listeners.iter().filter(|entry| entry.kind == Kind::Route.name()).count();
        if let Some(text) = &self.filter {
            let text = text.to_lowercase();
            listeners.retain(|entry| contains(entry, &text));
        }
        let matching = listeners.len();
        let number = |rank| listeners.iter().filter(|entry| self::rank(entry) == rank).count();
        let counts = [Rank::NotReady, Rank::Alarming, Rank::Pending].map(number);
        if self.problems {
            listeners.retain(|entry| rank(entry) != Rank::Ready);
        }
        // The sort is stable.
        listeners.sort_by_key(rank);
        let finds_any = self.filter.is_none() || matching > 0;
        let [not_ready, _, pending] = counts;
        let is_ready = problems.is_empty() && finds_any && not_ready == 0 && pending == 0;
        Selected { inventory: Inventory { listeners, problems }, all, routes, matching, counts, is_ready }
    }

    async fn inventory(&self) -> anyhow::Result<Inventory> {
        if self.kubeconfig.is_none() && self.namespace.is_empty() && !self.all_namespaces {
            let status = fetch::json(&self.address, "/status", TIMEOUT).await?;
            let model = fetch::json(&self.address, "/model", TIMEOUT).await?;
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

/// The listeners and MailRoutes to show.
struct Selected {
    inventory: Inventory,
    /// The number of MailRoutes among all.
    routes: usize,
    /// The number of all listeners and MailRoutes.
    all: usize,
    /// The number of listeners that match the filter.
    matching: usize,
    /// The numbers of matching listeners that are not ready, have a warning, or are pending.
    counts: [usize; 3],
    is_ready: bool,
}

/// The state of a listener, the worst first, as on the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NotReady,
    Alarming,
    Pending,
    Ready,
}

fn rank(entry: &Entry) -> Rank {
    match entry.ready {
        Ready::False => Rank::NotReady,
        Ready::Unknown => Rank::Pending,
        Ready::True if !entry.problems.is_empty() => Rank::Alarming,
        Ready::True => Rank::Ready,
    }
}

/// Tells whether a listener has the text, which must be in lower case.
fn contains(entry: &Entry, text: &str) -> bool {
    let Entry { namespace, object, listener, socket, protocol, hostnames, .. } = entry;
    let name = format!("{namespace}/{object}/{listener}").to_lowercase();
    name.contains(text)
        || socket.to_lowercase().contains(text)
        || protocol.to_lowercase().contains(text)
        || hostnames.iter().any(|host| host.to_lowercase().contains(text))
}

/// Writes the problems, the table, and the summary.
fn write(out: &mut impl Write, selected: &Selected, width: Option<usize>) -> io::Result<()> {
    write_problems(out, &selected.inventory)?;
    write_table(out, selected, width)?;
    writeln!(out, "\n{}", summary(selected))
}

/// Formats `400 listeners, 3 not ready`.
fn summary(selected: &Selected) -> String {
    let Selected { inventory, all, routes, matching, counts: [not_ready, alarming, pending], .. } = selected;
    let mut text = match (all, matching) {
        (all, matching) if all == matching => things(*all, *routes),
        (all, matching) => format!("{matching} of {}", things(*all, *routes)),
    };
    let problems = inventory.problems.len();
    if (*not_ready, *pending, problems) == (0, 0, 0) && *matching > 0 {
        text.push_str(", all ready");
    }
    for (number, what) in [(not_ready, "not ready"), (alarming, "with an alarm"), (pending, "pending")] {
        if *number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if problems > 0 {
        text.push_str(&format!(", {}", counted(problems, "problem")));
    }
    text
}

/// Formats `400 listeners`, or `1 listener and 3 routes`.
fn things(all: usize, routes: usize) -> String {
    let listeners = counted(all.saturating_sub(routes), "listener");
    if routes == 0 { listeners } else { format!("{listeners} and {}", counted(routes, "route")) }
}

fn write_table(out: &mut impl Write, selected: &Selected, width: Option<usize>) -> io::Result<()> {
    let Selected { inventory, all, matching, .. } = selected;
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
    match (table.is_empty(), all, matching) {
        (true, 0, _) => writeln!(out, "There are no listeners."),
        (true, _, 0) => writeln!(out, "No listener matches."),
        (true, ..) => writeln!(out, "No listener has a problem."),
        (false, ..) => table.write(out, width),
    }
}

fn write_problems(out: &mut impl Write, inventory: &Inventory) -> io::Result<()> {
    for problem in &inventory.problems {
        writeln!(out, "{BAD}problem{BAD:#}: {problem}\n")?;
    }
    for alike in inventory.listeners.chunk_by(is_alike) {
        let Some(entry) = alike.first().filter(|entry| !entry.problems.is_empty()) else { continue };
        writeln!(out, "{STRONG}{}{STRONG:#}", listener_names(entry, alike))?;
        for problem in &entry.problems {
            let style =
                if problem.condition == "Ready" || entry.ready != Ready::True { BAD } else { WARNING };
            writeln!(
                out,
                "  {style}{}{style:#} ({}): {}",
                problem.condition, problem.reason, problem.message
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Tells whether both listeners are of one object and have the same state.
fn is_alike(a: &Entry, b: &Entry) -> bool {
    let is_of_one = (a.kind, &a.namespace, &a.object) == (b.kind, &b.namespace, &b.object);
    is_of_one && a.ready == b.ready && a.problems == b.problems
}

/// Formats an object with its listeners.
fn listener_names(first: &Entry, alike: &[Entry]) -> String {
    if alike.len() == 1 {
        return listener_name(first);
    }
    let Entry { kind, namespace, object, .. } = first;
    let names: Vec<&str> = alike.iter().map(|entry| entry.listener.as_str()).collect();
    format!("{kind} {namespace}/{object}, listeners {}", names.join(", "))
}

/// Formats the object as kubectl does.
pub(super) fn object(entry: &Entry) -> String {
    format!("{}/{}", entry.kind.to_ascii_lowercase(), entry.object)
}

/// Formats an object with its listener.
pub(super) fn listener_name(entry: &Entry) -> String {
    let Entry { kind, namespace, object, listener, .. } = entry;
    let listener = if listener.is_empty() { String::new() } else { format!(", listener {listener}") };
    format!("{kind} {namespace}/{object}{listener}")
}

/// The timeout for an answer of an instance.
const TIMEOUT: Duration = Duration::from_secs(10);

const AFTER_HELP: &str = "\
Without --kubeconfig, --namespace and --all-namespaces, the command asks the instance at --address. With any of them, it \
asks the cluster. It connects with --kubeconfig, else with kubectl's kubeconfig, else with the pod's service account.

Problems come first, then the listeners, those that are not ready first.

Exit status: 0 all selected listeners are ready and there are no problems; 1 a listener is not ready, no listener \
matches, there is a problem, or the instance does not answer; 2 usage error.";

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_listeners_that_are_not_ready_first_or_alone() {
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
        let inventory = instance::read(&document, &model).unwrap();
        let shown_of = |inventory: &Inventory, arguments: &[&str]| {
            let command = Parsed::parse_from([&["status"], arguments].concat()).status;
            let selected = command.select(inventory.clone());
            let mut out = anstream::StripStream::new(Vec::new());
            write(&mut out, &selected, None).unwrap();
            (String::from_utf8(out.into_inner()).unwrap(), selected.is_ready)
        };
        let shown = |arguments: &[&str]| shown_of(&inventory, arguments);
        let expected = "\
problem: Secrets cannot be read: forbidden

MailServer mail/edge, listeners mx, mx2
  Ready (BindFailed): *:25 cannot be bound: permission denied

NAMESPACE  OBJECT           LISTENER  SOCKET  PROTOCOL  TLS       READY  REACHED AT
mail       mailserver/edge  mx        -       -         -         False  -
mail       mailserver/edge  mx2       -       -         -         False  -
mail       mailserver/edge  imaps     *:993   IMAP      Implicit  True   203.0.113.7:993

3 listeners, 2 not ready, 1 problem
";
        assert_eq!(shown(&[]), (expected.to_owned(), false));
        let (only_problems, is_ready) = shown(&["--problems"]);
        assert!(only_problems.contains("mx2") && !only_problems.contains("imaps"), "{only_problems}");
        assert!(only_problems.ends_with("\n3 listeners, 2 not ready, 1 problem\n"), "{only_problems}");
        assert!(!is_ready);
        let (found, _) = shown(&["EDGE/imaps"]);
        assert!(found.contains("203.0.113.7") && !found.contains("mx2"), "{found}");
        assert!(found.ends_with("\n1 of 3 listeners, 1 problem\n"), "{found}");
        let healthy = Inventory { problems: Vec::new(), ..inventory.clone() };
        let (none, is_ready) = shown_of(&healthy, &["nowhere"]);
        assert_eq!((none.as_str(), is_ready), ("No listener matches.\n\n0 of 3 listeners\n", false));
        let (well, is_ready) = shown_of(&healthy, &["--problems", "edge/imaps"]);
        let expected = "No listener has a problem.\n\n1 of 3 listeners, all ready\n";
        assert_eq!((well.as_str(), is_ready), (expected, true));
        let mut pending = healthy;
        pending.listeners[0].ready = Ready::Unknown;
        let (said, is_ready) = shown_of(&pending, &["edge/imaps"]);
        assert!(said.ends_with("\n1 of 3 listeners, 1 pending\n") && !is_ready, "{said}");
    }

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        status: Status,
    }
}
