//! `mailgress why`: explains where a user goes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::model::why::{self, WhyAffinity, WhyBackend, WhyListener, WhyOutcome, WhyQuery};
use crate::words::counted;

use super::colour::{Colour, STRONG};
use super::control::Socket;
use super::sessions::with_pod;

/// `mailgress why`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Why {
    /// The login name; with --recipient, the recipient of mail without a login.
    #[arg(value_name = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: String,

    /// USER is a recipient. Only SMTP listeners are shown.
    #[arg(long)]
    recipient: bool,

    /// Show only listeners of this protocol.
    #[arg(long, value_enum, ignore_case = true)]
    protocol: Option<Protocol>,

    /// Show only this listener (NAMESPACE/OBJECT/LISTENER), or all listeners of NAMESPACE/OBJECT.
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,

    /// Show only listeners that a client with this server name reaches.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// The control socket.
    #[command(flatten)]
    socket: Socket,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,

    /// The use of colours.
    #[command(flatten)]
    colour: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Imap,
    Pop3,
    Smtp,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// JSON.
    Json,
}

impl Why {
    /// Prints the answer. Exit status 1 if no listener matches.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let protocol = self.protocol.and_then(|protocol| protocol.to_possible_value());
        let query = WhyQuery {
            user: self.user.clone(),
            recipient: self.recipient,
            protocol: protocol.map(|value| value.get_name().to_owned()),
            listener: self.listener.clone(),
            sni: self.sni.clone(),
        };
        let answer = self.socket.why(&query)?;
        let mut out = self.colour.stdout();
        match self.output {
            Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?,
            Format::Text => write(&mut out, &answer)?,
        }
        Ok(if answer.listeners.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn write(out: &mut impl Write, answer: &why::Why) -> io::Result<()> {
    if answer.listeners.is_empty() {
        return writeln!(out, "No listener matches.");
    }
    for listener in &answer.listeners {
        let WhyListener { listener: id, protocol, address, user, auth_service, route, outcome } = listener;
        let protocol = protocol.to_ascii_uppercase();
        writeln!(out, "{STRONG}{id}{STRONG:#} ({protocol}, {address})")?;
        writeln!(out, "  user:     {user}")?;
        match route {
            Some(route) => writeln!(out, "  route:    {}, by {}", route.name, route.matched)?,
            None => writeln!(out, "  route:    {}", no_route(outcome))?,
        }
        match outcome {
            WhyOutcome::Backend(backend) => write_backend(out, backend)?,
            WhyOutcome::Held => writeln!(out, "  backend:  none: the route is held, logins wait")?,
            WhyOutcome::RouteRefused => writeln!(out, "  backend:  none: the route refuses logins")?,
            WhyOutcome::NoBackend => {
                writeln!(out, "  backend:  none: logins are refused like a wrong password")?;
            }
            WhyOutcome::Undecided { .. } => writeln!(out, "  backend:  none: logins get a temporary error")?,
        }
        if let Some(service) = auth_service {
            writeln!(out, "  auth:     {service}; a server or user in its answer comes first")?;
        }
        writeln!(out)?;
    }
    let sessions = counted(answer.sessions.len(), "open session");
    writeln!(out, "{sessions} on this replica ({})", answer.replica)
}

fn no_route(outcome: &WhyOutcome) -> String {
    match outcome {
        WhyOutcome::Undecided { route } => format!("perhaps {route}: one of its lists could not be read yet"),
        _ => "none matches".to_owned(),
    }
}

fn write_affinity(out: &mut impl Write, affinity: &WhyAffinity, all: &[String]) -> io::Result<()> {
    let WhyAffinity { mode, group, endpoint } = affinity;
    if let Some(group) = group {
        writeln!(out, "  group:    {group}")?;
    }
    let others = |others: &[String]| {
        let is_alone = others.is_empty() || mode == "Exclusive";
        if is_alone { String::new() } else { format!("; if it fails: {}", others.join(", ")) }
    };
    match (all, endpoint) {
        ([first, rest @ ..], _) => writeln!(out, "  endpoint: {first}, by affinity {mode}{}", others(rest)),
        ([], Some(endpoint)) => {
            writeln!(out, "  endpoint: {endpoint}, by affinity {mode}; it is not ready, logins wait")
        }
        ([], None) => writeln!(out, "  endpoint: none is ready"),
    }
}

fn write_backend(out: &mut impl Write, backend: &WhyBackend) -> io::Result<()> {
    let WhyBackend { backend, is_listeners, load_balancing, endpoints, affinity } = backend;
    let owner = if *is_listeners { ", the listener's own" } else { "" };
    writeln!(out, "  backend:  {backend}{owner}")?;
    let all: Vec<_> =
        endpoints.iter().map(|endpoint| with_pod(&endpoint.address, endpoint.pod.as_deref())).collect();
    if let Some(affinity) = affinity {
        return write_affinity(out, affinity, &all);
    }
    match (all.as_slice(), load_balancing.as_str()) {
        ([], _) => writeln!(out, "  endpoint: none is ready"),
        ([only], _) => writeln!(out, "  endpoint: {only}"),
        ([first, others @ ..], "UserHash") => {
            writeln!(out, "  endpoint: {first}, by UserHash; if it fails: {}", others.join(", "))
        }
        (all, policy) => writeln!(out, "  endpoint: one of {}, by {policy}", all.join(", ")),
    }
}

const AFTER_HELP: &str = "\
Shows for each listener of one replica which MailRoute has the user and why, the backend, and its endpoints. It does not ask \
the auth service, and does not know the results of health checks. In a cluster, run it in the pod: kubectl exec \
deploy/mailgress -- /mailgress why USER.

Exit status: 0 the instance has answered, 1 no listener matches or no instance answers, 2 usage error.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::why::{WhyEndpoint, WhyRoute};

    fn backend(load_balancing: &str, endpoints: &[(&str, Option<&str>)]) -> WhyOutcome {
        let endpoint = |(address, pod): &(&str, Option<&str>)| WhyEndpoint {
            address: (*address).to_owned(),
            pod: pod.map(str::to_owned),
        };
        WhyOutcome::Backend(WhyBackend {
            backend: "Service mail/dovecot:143".to_owned(),
            is_listeners: endpoints.is_empty(),
            load_balancing: load_balancing.to_owned(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            affinity: None,
        })
    }

    fn shown(route: Option<WhyRoute>, outcome: WhyOutcome) -> String {
        let listener = WhyListener {
            listener: "mail/example/imap".to_owned(),
            protocol: "imap".to_owned(),
            address: "0.0.0.0:143".to_owned(),
            user: "al@a.example".to_owned(),
            auth_service: Some("http://auth.mail.svc/".to_owned()),
            route,
            outcome,
        };
        let answer = why::Why { replica: "a".to_owned(), listeners: vec![listener], sessions: Vec::new() };
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &answer).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn an_answer_tells_route_backend_and_endpoint() {
        let route = WhyRoute { name: "mail/moved".to_owned(), matched: "the domain a.example".to_owned() };
        let outcome = backend("UserHash", &[("10.0.0.5:143", Some("dovecot-0")), ("10.0.0.6:143", None)]);
        let expected = "\
mail/example/imap (IMAP, 0.0.0.0:143)
  user:     al@a.example
  route:    mail/moved, by the domain a.example
  backend:  Service mail/dovecot:143
  endpoint: 10.0.0.5:143 (dovecot-0), by UserHash; if it fails: 10.0.0.6:143
  auth:     http://auth.mail.svc/; a server or user in its answer comes first

0 open sessions on this replica (a)
";
        assert_eq!(shown(Some(route), outcome), expected);
    }

    #[test]
    fn every_outcome_has_its_words() {
        for (outcome, words) in [
            (backend("RoundRobin", &[]), "the listener's own\n  endpoint: none is ready\n"),
            (
                backend("LeastSessions", &[("a:1", None), ("b:1", None)]),
                "endpoint: one of a:1, b:1, by LeastSessions\n",
            ),
            (WhyOutcome::Held, "the route is held, logins wait\n"),
            (WhyOutcome::RouteRefused, "the route refuses logins\n"),
            (WhyOutcome::NoBackend, "route:    none matches\n  backend:  none: logins are refused"),
            (
                WhyOutcome::Undecided { route: "mail/x".to_owned() },
                "route:    perhaps mail/x: one of its lists could not be read yet\n",
            ),
        ] {
            let text = shown(None, outcome);
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
