//! `mailgress sessions`: shows the open sessions of an instance, or of all replicas.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use crate::model::SessionId;
use crate::model::sessions::{OpenSession, SessionFilter, SessionList};
use crate::words::counted;

use super::colour::Colour;
use super::output::OutputFormat;
use super::replicas::{AllReplicas, Answers, option};
use super::table::{Cell, Table, terminal_width};

/// `mailgress sessions`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Sessions {
    /// Show only sessions with this login name. The case of its domain is ignored.
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,

    /// Show only sessions with this backend: the endpoint as ADDRESS or ADDRESS:PORT, the name of its Pod, or its Service
    /// as NAMESPACE/NAME.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// Show only sessions of this listener (NAMESPACE/OBJECT/LISTENER), or of all listeners of NAMESPACE/OBJECT.
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,

    /// Show only this session.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,

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

impl Sessions {
    /// Prints the sessions.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers, or the cluster cannot be asked.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let filter = SessionFilter {
            user: self.user.clone(),
            backend: self.backend.clone(),
            listener: self.listener.clone(),
            session: self.session,
        };
        let (is_filtered, terminal) = (!filter.is_empty(), (terminal_width(), Timestamp::now()));
        let mut out = self.colour.stdout();
        if self.replicas.all_replicas {
            let answers: Answers<SessionList> = self.replicas.ask(&command("sessions", &filter))?;
            self.output.write(&mut out, &answers, |out| {
                write_merged(out, &answers.replicas, is_filtered, terminal)
            })?;
            let has_failures = answers.tell_failures()?;
            return Ok(if has_failures { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        let list = self.replicas.socket.sessions(&filter)?;
        self.output.write(&mut out, &list, |out| write(out, &list, is_filtered, terminal))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the command `name` with the filter as options.
pub(super) fn command(name: &str, filter: &SessionFilter) -> Vec<String> {
    let SessionFilter { user, backend, listener, session } = filter;
    let session = session.map(|session| session.to_string());
    let options = [("user", user), ("backend", backend), ("listener", listener), ("session", &session)];
    let options = options.into_iter().filter_map(|(name, value)| option(name, value.as_deref()));
    std::iter::once(name.to_owned()).chain(options).collect()
}

fn write(
    out: &mut impl Write,
    list: &SessionList,
    is_filtered: bool,
    (width, now): (Option<usize>, Timestamp),
) -> io::Result<()> {
    if list.sessions.is_empty() {
        return write_none(out, is_filtered);
    }
    let mut table = Table::new(HEADERS);
    for session in &list.sessions {
        table.push(cells(session, now));
    }
    table.write(out, width)?;
    writeln!(out, "\n{}", counted(list.sessions.len(), "session"))
}

/// Writes the sessions of all replicas, the oldest first.
fn write_merged(
    out: &mut impl Write,
    lists: &[SessionList],
    is_filtered: bool,
    (width, now): (Option<usize>, Timestamp),
) -> io::Result<()> {
    let all: usize = lists.iter().map(|list| list.sessions.len()).sum();
    if all == 0 {
        return write_none(out, is_filtered);
    }
    let sessions = lists.iter().flat_map(|list| list.sessions.iter().map(|session| (&list.replica, session)));
    let mut sessions: Vec<_> = sessions.collect();
    sessions.sort_by_key(|(_, session)| session.since);
    let [a, b, c, d, e, f, g, h, i, j] = HEADERS;
    let mut table = Table::new(["REPLICA", a, b, c, d, e, f, g, h, i, j]);
    for (replica, session) in sessions {
        let [a, b, c, d, e, f, g, h, i, j] = cells(session, now);
        table.push([replica.as_str().into(), a, b, c, d, e, f, g, h, i, j]);
    }
    table.write(out, width)?;
    writeln!(out, "\n{} on {}", counted(all, "session"), counted(lists.len(), "replica"))
}

fn write_none(out: &mut impl Write, is_filtered: bool) -> io::Result<()> {
    writeln!(out, "{}", if is_filtered { "No session matches." } else { "There are no sessions." })
}

const HEADERS: [&str; 10] =
    ["SESSION", "LISTENER", "CLIENT", "TLS", "LOGIN", "BACKEND", "AGE", "IDLE", "TO BACKEND", "TO CLIENT"];

/// Returns the row of a session.
fn cells(session: &OpenSession, now: Timestamp) -> [Cell; 10] {
    let OpenSession { listener, client, tls, login, backend, pod, .. } = session;
    let age = now.as_second().saturating_sub(session.since.as_second());
    [
        session.id.to_string().into(),
        listener.as_str().into(),
        client.as_str().into(),
        tls.as_str().into(),
        login.as_str().into(),
        with_pod(backend, pod.as_deref()).into(),
        duration(u64::try_from(age).unwrap_or_default()).into(),
        duration(session.idle_seconds).into(),
        session.to_backend.to_string().into(),
        session.to_client.to_string().into(),
    ]
}

/// Formats an endpoint with the name of its Pod, if that is known.
pub(super) fn with_pod(address: &str, pod: Option<&str>) -> String {
    pod.map_or_else(|| address.to_owned(), |pod| format!("{address} ({pod})"))
}

/// Formats a duration with its two largest units, as kubectl does: `42s`, `5m12s`, `3h5m`, `2d4h`.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

const AFTER_HELP: &str = "\
Shows the sessions of one replica: those that are logged in, and those that send mail without a login. In a cluster, run it \
in the pod: kubectl exec POD -- /mailgress sessions. Or run it elsewhere with --all-replicas, which does this in all pods, and \
needs list on pods, and get and create on pods/exec. The ID of a session is also in its log line.

Exit status: 0 the instance, or all replicas, have answered; 1 one does not answer; 2 usage error.";

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u64, login: &str, pod: Option<&str>) -> OpenSession {
        OpenSession {
            id: SessionId { process: 1, number },
            listener: "mail/example/imaps".to_owned(),
            protocol: "imap".to_owned(),
            client: "192.0.2.7".to_owned(),
            tls: "implicit".to_owned(),
            tls_version: "TLSv1.3".to_owned(),
            login: login.to_owned(),
            backend: "10.0.0.5:143".to_owned(),
            pod: pod.map(str::to_owned),
            service: "Service mail/dovecot:143".to_owned(),
            since: Timestamp::from_second(1_000_000).unwrap(),
            idle_seconds: 42,
            to_backend: 10,
            to_client: 20,
        }
    }

    fn shown(sessions: Vec<OpenSession>, is_filtered: bool) -> String {
        let list = SessionList { replica: "a".to_owned(), sessions };
        let mut out = anstream::StripStream::new(Vec::new());
        let now = Timestamp::from_second(1_000_312).unwrap();
        write(&mut out, &list, is_filtered, (None, now)).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn sessions_are_shown_as_a_table() {
        let expected = "\
SESSION          LISTENER            CLIENT     TLS       LOGIN  BACKEND                   AGE    IDLE  TO BACKEND  TO CLIENT
0000000000001-1  mail/example/imaps  192.0.2.7  implicit  alice  10.0.0.5:143 (dovecot-0)  5m12s  42s   10          20
0000000000001-2  mail/example/imaps  192.0.2.7  implicit  -      10.0.0.5:143              5m12s  42s   10          20

2 sessions
";
        assert_eq!(
            shown(vec![session(1, "alice", Some("dovecot-0")), session(2, "", None)], false),
            expected
        );
        assert_eq!(shown(Vec::new(), false), "There are no sessions.\n");
        assert_eq!(shown(Vec::new(), true), "No session matches.\n");
    }

    #[test]
    fn the_sessions_of_all_replicas_are_one_table() {
        let list = |replica: &str, sessions| SessionList { replica: replica.to_owned(), sessions };
        let later =
            OpenSession { since: Timestamp::from_second(1_000_100).unwrap(), ..session(1, "bob", None) };
        let lists =
            [list("b", vec![later]), list("a", vec![session(2, "alice", None)]), list("c", Vec::new())];
        let mut out = anstream::StripStream::new(Vec::new());
        let now = Timestamp::from_second(1_000_312).unwrap();
        write_merged(&mut out, &lists, false, (None, now)).unwrap();
        let expected = "\
REPLICA  SESSION          LISTENER            CLIENT     TLS       LOGIN  BACKEND       AGE    IDLE  TO BACKEND  TO CLIENT
a        0000000000001-2  mail/example/imaps  192.0.2.7  implicit  alice  10.0.0.5:143  5m12s  42s   10          20
b        0000000000001-1  mail/example/imaps  192.0.2.7  implicit  bob    10.0.0.5:143  3m32s  42s   10          20

2 sessions on 3 replicas
";
        assert_eq!(String::from_utf8(out.into_inner()).unwrap(), expected);
        let mut out = anstream::StripStream::new(Vec::new());
        write_merged(&mut out, &lists[2..], true, (None, now)).unwrap();
        assert_eq!(String::from_utf8(out.into_inner()).unwrap(), "No session matches.\n");
    }

    #[test]
    fn a_filter_becomes_options() {
        let session = Some(SessionId { process: 1, number: 2 });
        let filter = SessionFilter { user: Some("-a b".to_owned()), session, ..SessionFilter::default() };
        assert_eq!(command("sessions", &filter), ["sessions", "--user=-a b", "--session=0000000000001-2"]);
    }

    #[test]
    fn durations_have_two_units() {
        let known =
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m"), (90_000, "1d1h")];
        for (seconds, text) in known {
            assert_eq!(duration(seconds), text);
        }
    }
}
