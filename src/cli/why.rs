//! `mailgress why`: explains where a user goes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::model::why::{
    self, WhyAffinity, WhyBackend, WhyBan, WhyEndpoint, WhyListener, WhyOutcome, WhyQuery, WhyRefusal,
};
use crate::words::counted;

use super::colour::{Colour, STRONG};
use super::output::OutputFormat;
use super::replicas::{AllReplicas, Answers, option};
use super::sessions::with_pod;
use super::table::{Table, terminal_width};

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

    /// The instance, or whether to ask all replicas.
    #[command(flatten)]
    replicas: AllReplicas,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,

    /// The use of colours.
    #[command(flatten)]
    colour: Colour,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Imap,
    Pop3,
    Smtp,
    Sieve,
}

impl Why {
    /// Prints the answer. Exit status 1 if no listener matches.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers, or the cluster cannot be asked.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let protocol = self.protocol.and_then(|protocol| protocol.to_possible_value());
        let query = WhyQuery {
            user: self.user.clone(),
            recipient: self.recipient,
            protocol: protocol.map(|value| value.get_name().to_owned()),
            listener: self.listener.clone(),
            sni: self.sni.clone(),
        };
        let mut out = self.colour.stdout();
        if self.replicas.all_replicas {
            let answers: Answers<why::Why> = self.replicas.ask(&command(&query))?;
            self.output
                .write(&mut out, &answers, |out| write_merged(out, &answers.replicas, terminal_width()))?;
            let is_found = answers.replicas.iter().any(|answer| !answer.listeners.is_empty());
            let has_failures = answers.tell_failures()?;
            return Ok(if is_found && !has_failures { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let answer = self.replicas.socket.why(&query)?;
        self.output.write(&mut out, &answer, |out| write(out, &answer, terminal_width()))?;
        Ok(if answer.listeners.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Returns the command with the query as options.
fn command(query: &WhyQuery) -> Vec<String> {
    let WhyQuery { user, recipient, protocol, listener, sni } = query;
    let options = [("protocol", protocol), ("listener", listener), ("sni", sni)];
    let options = options.into_iter().filter_map(|(name, value)| option(name, value.as_deref()));
    let mut command = vec!["why".to_owned()];
    command.extend(recipient.then(|| "--recipient".to_owned()));
    command.extend(options);
    command.extend(["--".to_owned(), user.clone()]);
    command
}

fn write(out: &mut impl Write, answer: &why::Why, width: Option<usize>) -> io::Result<()> {
    if answer.listeners.is_empty() {
        return writeln!(out, "No listener matches.");
    }
    write_listeners(out, &answer.listeners)?;
    let sessions = counted(answer.sessions.len(), "open session");
    writeln!(out, "{sessions} on this replica ({})", answer.replica)?;
    write_refusals(out, std::slice::from_ref(answer), width)
}

/// Writes the answers of all replicas. Those that have the same listeners and routes are written once.
fn write_merged(out: &mut impl Write, answers: &[why::Why], width: Option<usize>) -> io::Result<()> {
    if answers.iter().all(|answer| answer.listeners.is_empty()) {
        return writeln!(out, "No listener matches.");
    }
    let mut groups: Vec<(&[WhyListener], Vec<&str>)> = Vec::new();
    for answer in answers {
        match groups.iter_mut().find(|(listeners, _)| *listeners == answer.listeners) {
            Some((_, replicas)) => replicas.push(&answer.replica),
            None => groups.push((&answer.listeners, vec![&answer.replica])),
        }
    }
    for (listeners, replicas) in &groups {
        if groups.len() > 1 {
            let none = if listeners.is_empty() { " no listener matches" } else { "" };
            writeln!(out, "{STRONG}On {}:{STRONG:#}{none}\n", replicas.join(", "))?;
        }
        write_listeners(out, listeners)?;
    }
    let all: usize = answers.iter().map(|answer| answer.sessions.len()).sum();
    let each = answers.iter().filter(|answer| !answer.sessions.is_empty());
    let each: Vec<_> =
        each.map(|answer| format!("{} on {}", answer.sessions.len(), answer.replica)).collect();
    let each = if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) };
    writeln!(out, "{} on {}{each}", counted(all, "open session"), counted(answers.len(), "replica"))?;
    write_refusals(out, answers, width)
}

fn write_listeners(out: &mut impl Write, listeners: &[WhyListener]) -> io::Result<()> {
    for listener in listeners {
        let WhyListener { listener: id, protocol, address, user, auth_service, route, outcome } = listener;
        let protocol =
            crate::protocol::Protocol::of_name(protocol).map_or(protocol.as_str(), |known| known.label());
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
            WhyOutcome::NoBackend | WhyOutcome::NoDomain => {
                writeln!(out, "  backend:  none: logins are refused like a wrong password")?;
            }
            WhyOutcome::Undecided { .. } => writeln!(out, "  backend:  none: logins get a temporary error")?,
        }
        if let Some(service) = auth_service {
            writeln!(out, "  auth:     {service}; a server or user in its answer takes precedence")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Writes the refused logins of all answers, the newest first, and the bans.
fn write_refusals(out: &mut impl Write, answers: &[why::Why], width: Option<usize>) -> io::Result<()> {
    let mut refusals: Vec<&WhyRefusal> = answers.iter().flat_map(|answer| &answer.refusals).collect();
    if refusals.is_empty() {
        return writeln!(out, "no refused login is remembered");
    }
    // The sort is stable.
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.time));
    writeln!(out, "\nThe last refused logins:")?;
    let mut table = Table::new(["TIME", "LISTENER", "CLIENT", "LOGIN", "REASON"]);
    for refusal in refusals {
        let WhyRefusal { time, listener, client, login, reason, detail } = refusal;
        let reason = detail.as_ref().map_or_else(|| reason.clone(), |detail| format!("{reason}: {detail}"));
        table.push([
            time.to_string().into(),
            listener.as_str().into(),
            client.as_str().into(),
            login.as_str().into(),
            reason.into(),
        ]);
    }
    table.write(out, width)?;
    for answer in answers {
        let place = if answers.len() > 1 { format!(" on {}", answer.replica) } else { String::new() };
        for WhyBan { listener, client, until } in &answer.bans {
            writeln!(out, "\n{client} is banned at {listener}{place} until {until} (limits.authFailures)")?;
        }
    }
    Ok(())
}

fn no_route(outcome: &WhyOutcome) -> String {
    match outcome {
        WhyOutcome::Undecided { route } => format!("perhaps {route}: one of its lists could not be read yet"),
        WhyOutcome::NoDomain => "none: what follows the @ cannot be a domain".to_owned(),
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
    let WhyBackend { backend, is_listeners, load_balancing, endpoints, leaving, affinity } = backend;
    let owner = if *is_listeners { ", the listener's own" } else { "" };
    writeln!(out, "  backend:  {backend}{owner}")?;
    let shown = |endpoints: &[WhyEndpoint]| -> Vec<String> {
        let all = endpoints.iter();
        all.map(|endpoint| with_pod(&endpoint.address, endpoint.pod.as_deref())).collect()
    };
    if !leaving.is_empty() {
        writeln!(out, "  leaving:  {}, taken out of service", shown(leaving).join(", "))?;
    }
    let all = shown(endpoints);
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
Shows for each listener of one replica which MailRoute has the user and why, the backend, and its endpoints; then the user's \
open sessions, the last refused logins with their reasons, and which of their clients are banned now. It does not ask \
the auth service, and does not know the results of health checks. A replica remembers the last 4,096 refused logins of all \
users, and shows at most 20 of one. In a cluster, run it in the pod: kubectl exec \
deploy/mailgress -- /mailgress why USER. With --all-replicas, it asks all replicas.

Exit status: 0 the instance, or all replicas, have answered; 1 no listener matches, or one does not answer; 2 usage error.";

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
            leaving: Vec::new(),
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
        shown_answer(&why::Why {
            replica: "a".to_owned(),
            listeners: vec![listener],
            sessions: Vec::new(),
            refusals: Vec::new(),
            bans: Vec::new(),
        })
    }

    fn shown_answer(answer: &why::Why) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, answer, None).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn an_answer_tells_route_backend_and_endpoint() {
        let route = WhyRoute { name: "mail/moved".to_owned(), matched: "the domain a.example".to_owned() };
        let mut outcome = backend("UserHash", &[("10.0.0.5:143", Some("dovecot-0")), ("10.0.0.6:143", None)]);
        let WhyOutcome::Backend(backend) = &mut outcome else { unreachable!() };
        backend.leaving =
            vec![WhyEndpoint { address: "10.0.0.4:143".to_owned(), pod: Some("dovecot-9".to_owned()) }];
        let expected = "\
mail/example/imap (IMAP, 0.0.0.0:143)
  user:     al@a.example
  route:    mail/moved, by the domain a.example
  backend:  Service mail/dovecot:143
  leaving:  10.0.0.4:143 (dovecot-9), taken out of service
  endpoint: 10.0.0.5:143 (dovecot-0), by UserHash; if it fails: 10.0.0.6:143
  auth:     http://auth.mail.svc/; a server or user in its answer takes precedence

0 open sessions on this replica (a)
no refused login is remembered
";
        assert_eq!(shown(Some(route), outcome), expected);
    }

    #[test]
    fn the_answers_of_all_replicas_are_merged() {
        let listener = |user: &str| WhyListener {
            listener: "mail/example/imap".to_owned(),
            protocol: "imap".to_owned(),
            address: "0.0.0.0:143".to_owned(),
            user: user.to_owned(),
            auth_service: None,
            route: None,
            outcome: WhyOutcome::NoBackend,
        };
        let refusal = |second, reason: &str| WhyRefusal {
            time: jiff::Timestamp::from_second(second).unwrap(),
            listener: "mail/example/imap".to_owned(),
            client: "192.0.2.7".to_owned(),
            login: "bob".to_owned(),
            reason: reason.to_owned(),
            detail: None,
        };
        let answer = |replica: &str, listeners, refusals| why::Why {
            replica: replica.to_owned(),
            listeners,
            sessions: Vec::new(),
            refusals,
            bans: Vec::new(),
        };
        let merged = |answers: &[why::Why]| {
            let mut out = anstream::StripStream::new(Vec::new());
            write_merged(&mut out, answers, None).unwrap();
            String::from_utf8(out.into_inner()).unwrap()
        };
        let ban = WhyBan {
            listener: "mail/example/imap".to_owned(),
            client: "192.0.2.7".to_owned(),
            until: jiff::Timestamp::from_second(360).unwrap(),
        };
        let second = answer("b", vec![listener("bob")], vec![refusal(70, "banned")]);
        let second = why::Why { bans: vec![ban], ..second };
        let alike = [answer("a", vec![listener("bob")], vec![refusal(60, "credentials")]), second];
        let expected = "\
mail/example/imap (IMAP, 0.0.0.0:143)
  user:     bob
  route:    none matches
  backend:  none: logins are refused like a wrong password

0 open sessions on 2 replicas

The last refused logins:
TIME                  LISTENER           CLIENT     LOGIN  REASON
1970-01-01T00:01:10Z  mail/example/imap  192.0.2.7  bob    banned
1970-01-01T00:01:00Z  mail/example/imap  192.0.2.7  bob    credentials

192.0.2.7 is banned at mail/example/imap on b until 1970-01-01T00:06:00Z (limits.authFailures)
";
        assert_eq!(merged(&alike), expected);
        let [first, second] = alike;
        let different = [first, second, answer("c", Vec::new(), Vec::new())];
        let text = merged(&different);
        assert!(text.starts_with("On a, b:\n\nmail/example/imap"), "{text}");
        assert!(text.contains("\nOn c: no listener matches\n"), "{text}");
        assert_eq!(merged(&different[2..]), "No listener matches.\n");
        let query = WhyQuery { recipient: true, sni: Some("a".to_owned()), ..WhyQuery::default() };
        let query = WhyQuery { user: "-u".to_owned(), ..query };
        assert_eq!(command(&query), ["why", "--recipient", "--sni=a", "--", "-u"]);
    }

    #[test]
    fn refused_logins_and_bans_are_shown() {
        let refusal = |second, reason: &str, detail: Option<&str>| WhyRefusal {
            time: jiff::Timestamp::from_second(second).unwrap(),
            listener: "mail/example/imap".to_owned(),
            client: "192.0.2.7".to_owned(),
            login: "bob".to_owned(),
            reason: reason.to_owned(),
            detail: detail.map(str::to_owned),
        };
        let ban = WhyBan {
            listener: "mail/example/imap".to_owned(),
            client: "192.0.2.7".to_owned(),
            until: jiff::Timestamp::from_second(360).unwrap(),
        };
        let mut out = anstream::StripStream::new(Vec::new());
        let answer = why::Why {
            replica: "a".to_owned(),
            listeners: Vec::new(),
            sessions: Vec::new(),
            refusals: vec![refusal(60, "credentials", None), refusal(59, "unavailable", Some("held"))],
            bans: vec![ban],
        };
        write_refusals(&mut out, std::slice::from_ref(&answer), None).unwrap();
        let expected = "
The last refused logins:
TIME                  LISTENER           CLIENT     LOGIN  REASON
1970-01-01T00:01:00Z  mail/example/imap  192.0.2.7  bob    credentials
1970-01-01T00:00:59Z  mail/example/imap  192.0.2.7  bob    unavailable: held

192.0.2.7 is banned at mail/example/imap until 1970-01-01T00:06:00Z (limits.authFailures)
";
        assert_eq!(String::from_utf8(out.into_inner()).unwrap(), expected);
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
            (WhyOutcome::NoDomain, "cannot be a domain\n  backend:  none: logins are refused"),
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
