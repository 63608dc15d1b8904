//! `mailgress kick`: ends sessions of an instance, or of all replicas.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::model::SessionId;
use crate::model::sessions::{Kicked, SessionFilter};
use crate::words::counted;

use super::output::OutputFormat;
use super::replicas::{AllReplicas, Answers};
use super::sessions::command;

/// `mailgress kick`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct Kick {
    /// Which sessions to end.
    #[command(flatten)]
    which: Which,

    /// The instance, or whether to ask all replicas.
    #[command(flatten)]
    replicas: AllReplicas,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// End all sessions with this login name. The case of its domain is ignored.
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,

    /// End all sessions with this backend: the endpoint as ADDRESS or ADDRESS:PORT, the name of its Pod, or its Service as
    /// NAMESPACE/NAME.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,

    /// End this session. `mailgress sessions` and the log show the IDs.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
}

impl Kick {
    /// Ends the sessions and prints their number.
    ///
    /// # Errors
    ///
    /// Fails if no instance answers, or the cluster cannot be asked.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let Which { user, backend, session } = &self.which;
        let filter = SessionFilter {
            user: user.clone(),
            backend: backend.clone(),
            session: *session,
            ..SessionFilter::default()
        };
        if self.replicas.all_replicas {
            let answers: Answers<Kicked> = self.replicas.ask(&command("kick", &filter))?;
            self.write(&answers, &answers.replicas)?;
            let has_failures = answers.tell_failures()?;
            return Ok(status(&answers.replicas, has_failures));
        }
        let kicked = self.replicas.socket.kick(&filter)?;
        self.write(&kicked, std::slice::from_ref(&kicked))?;
        Ok(status(std::slice::from_ref(&kicked), false))
    }

    fn write(&self, answer: &impl Serialize, kicked: &[Kicked]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.output.write(&mut out, answer, |out| writeln!(out, "{}", sentence(kicked)))
    }
}

fn ended(kicked: &[Kicked]) -> usize {
    kicked.iter().fold(0, |sum, kicked| sum.saturating_add(kicked.ended))
}

fn sentence(kicked: &[Kicked]) -> String {
    let with_some = kicked.iter().filter(|kicked| kicked.ended > 0).count();
    match (ended(kicked), kicked.len()) {
        (0, _) => "No session matches.".to_owned(),
        (ended, 1) => format!("Ended {}.", counted(ended, "session")),
        (ended, _) => format!("Ended {} on {}.", counted(ended, "session"), counted(with_some, "replica")),
    }
}

fn status(kicked: &[Kicked], has_failures: bool) -> ExitCode {
    if ended(kicked) == 0 || has_failures { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

const AFTER_HELP: &str = "\
Ends sessions of one replica: those that are logged in, and those that send mail without a login. A client gets the closing \
message of its protocol where one can be sent, and may connect again. To keep a user out, lock the account first. A login \
that is being decided is not ended; run the command again after a moment. With --all-replicas, the sessions of all replicas \
are ended.

Exit status: 0 sessions were ended; 1 no session matches, or the instance or one of the replicas does not answer; 2 usage error.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        _kick: Kick,
    }

    #[test]
    fn the_sessions_of_all_replicas_are_added() {
        let kicked = |ended| Kicked { replica: "a".to_owned(), ended };
        assert_eq!(sentence(&[kicked(1)]), "Ended 1 session.");
        assert_eq!(sentence(&[kicked(2), kicked(0), kicked(1)]), "Ended 3 sessions on 2 replicas.");
        assert_eq!(sentence(&[kicked(0), kicked(0)]), "No session matches.");
        let filter = SessionFilter { backend: Some("mail/a".to_owned()), ..SessionFilter::default() };
        assert_eq!(command("kick", &filter), ["kick", "--backend=mail/a"]);
    }

    #[test]
    fn exactly_one_kind_of_selection_is_needed() {
        let parsed = |arguments: &[&str]| Line::try_parse_from([&["kick"], arguments].concat());
        for good in [["--user", "u"], ["--backend", "b"], ["--session", "0000000000001-2"]] {
            assert!(parsed(&good).is_ok(), "{good:?}");
        }
        let refused: [&[&str]; 3] = [&[], &["--user", "u", "--backend", "b"], &["--session", "x"]];
        for wrong in refused {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        let error = parsed(&["--session", "x"]).unwrap_err().to_string();
        assert!(error.contains("not the ID of a session"), "{error}");
    }
}
